"""`getME`: lme4's components fit together."""

from __future__ import annotations

import numpy as np
import pytest

import mixlm_sparse as mx
from tests.support import corpus

COMPONENT_MODELS = ["sleep_rs_reml", "sleep_w_off_ml", "sim_crossed3_fvec_reml", "pastes_two_ml"]


@pytest.mark.parametrize("model_id", COMPONENT_MODELS)
def test_components_fit_together(model_id):
    fit = corpus.fit(model_id)
    get = fit.getME
    X, Z, Lambda, W = get("X"), get("Z"), get("Lambda"), get("weights")
    n, p, q = get("n"), get("p"), get("q")
    assert X.shape == (n, p)
    assert Z.shape == (n, q)
    assert (get("Zt") != Z.T).nnz == 0
    assert (get("Lambdat") != Lambda.T).nnz == 0
    u, b, beta = get("u"), get("b"), get("beta")
    np.testing.assert_allclose(Lambda @ u, b, atol=1e-12 * max(1, np.abs(b).max()))
    mu = X @ beta + Z @ b + get("offset")
    np.testing.assert_allclose(mu, get("mu"), rtol=1e-10)
    np.testing.assert_allclose(get("A").toarray(), (Z @ Lambda).T.toarray())
    # the factors of the penalized least-squares problem
    ZL = (Z @ Lambda).toarray()
    C = ZL.T @ (W[:, None] * ZL) + np.eye(q)
    L, RZX, RX = get("L").toarray(), get("RZX"), get("RX")
    np.testing.assert_array_equal(L, np.tril(L))
    np.testing.assert_allclose(L @ L.T, C, rtol=1e-9, atol=1e-9 * np.abs(C).max())
    np.testing.assert_allclose(L @ RZX, ZL.T @ (W[:, None] * X), atol=1e-8 * np.abs(RZX).max())
    XWX = X.T @ (W[:, None] * X)
    np.testing.assert_allclose(RX.T @ RX, XWX - RZX.T @ RZX, atol=1e-9 * np.abs(XWX).max())
    devcomp = get("devcomp")
    assert devcomp["cmp"]["ldL2"] == pytest.approx(2 * np.log(np.diag(L)).sum(), rel=1e-9)
    assert devcomp["cmp"]["ldRX2"] == pytest.approx(np.log(np.diag(RX) ** 2).sum(), rel=1e-9)
    residual = get("y") - mu
    assert devcomp["cmp"]["wrss"] == pytest.approx(float(W @ residual**2), rel=1e-6)
    assert devcomp["cmp"]["ussq"] == pytest.approx(float(u @ u), rel=1e-9, abs=1e-12)
    assert devcomp["dims"]["q"] == q
    # Lind says where theta stands in Lambda'
    np.testing.assert_array_equal(get("Lambdat").data, get("theta")[get("Lind")])
    assert get("Gp")[-1] == q
    assert sum(get("q_i").values()) == q
    assert sum(get("m_i").values()) == get("m") == len(fit.theta_names)
    assert list(get("cnms")) == [term.name for term in fit.matrices.terms]
    flist = get("flist")
    for label, effects in fit.ranef().items():
        assert list(flist[label].categories) == list(effects.index)


def test_unknown_component():
    fit = corpus.fit("sleep_rs_reml")
    with pytest.raises(mx.OptionError, match=r"no component 'Lambdda': use one of X, Z, Zt"):
        fit.getME("Lambdda")


def test_lambda_has_the_pattern_of_its_template_on_the_boundary():
    fit = corpus.fit("dyestuff2_reml")
    assert fit.getME("Lambda").nnz == 6
    np.testing.assert_array_equal(fit.getME("Lambdat").data, np.zeros(6))
