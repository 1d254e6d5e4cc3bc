"""Residual groups that cross grouping factors, meet memberships and known covariances."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import mixlm_sparse as mx
from tests.support.dense_structures import dense_fit, dense_kenward_roger

QUIET = mx.Control(warn=False)


def visits(seed=2, subjects=18, times=5):
    """Subjects seen at visits by raters who change: raters cross the residual groups."""
    rng = np.random.default_rng(seed)
    n = subjects * times
    frame = pd.DataFrame(
        {
            "subject": np.repeat([f"p{i:02d}" for i in range(subjects)], times),
            "t": np.tile(np.arange(times), subjects),
            "rater": rng.choice([f"r{j}" for j in range(6)], n),
            "x": rng.normal(size=n),
        }
    )
    rater = dict(zip(sorted(set(frame["rater"])), rng.normal(size=6), strict=True))
    e = np.empty((subjects, times))
    e[:, 0] = rng.normal(size=subjects)
    for t in range(1, times):
        e[:, t] = 0.6 * e[:, t - 1] + 0.8 * rng.normal(size=subjects)
    frame["y"] = 1.0 + frame["x"] + frame["rater"].map(rater) + e.ravel()
    frame = frame[rng.random(n) < 0.9]
    return frame.sample(frac=1.0, random_state=seed, ignore_index=True)


def shares(frame, seed=5, levels=6):
    rng = np.random.default_rng(seed)
    W = np.zeros((len(frame), levels))
    for row in W:
        own = rng.choice(levels, 2, replace=False)
        row[own] = 0.5, rng.uniform(0.2, 0.8)
    return pd.DataFrame(W, columns=[f"s{j}" for j in range(levels)])


def autocorrelation(frame, phi):
    t, subject = frame["t"].to_numpy(), frame["subject"].to_numpy()
    return np.abs(phi) ** np.abs(t[:, None] - t) * (subject[:, None] == subject)


def indicator(values):
    return (values.to_numpy()[:, None] == np.unique(values)).astype(float)


def dense_parts(frame, Z, theta, phi):
    return theta**2 * Z @ Z.T + autocorrelation(frame, phi)


def test_a_fit_whose_residual_groups_cross_a_factor_is_that_of_dense_matrices():
    frame = visits()
    fit = mx.lmer("y ~ x + (1 | rater)", frame, residual=mx.AR1("t", "subject"))
    assert fit.convergence.status == "converged"
    phi = float(fit.residual_structure["estimate"].iloc[0])
    Z = indicator(frame["rater"])
    X = np.asarray(fit.model_matrix())
    y = frame["y"].to_numpy()
    theta = float(fit.theta[0])
    V = dense_parts(frame, Z, theta, phi)
    dense = dense_fit(y, X, V, reml=True)
    assert fit.criterion == pytest.approx(dense.criterion, abs=1e-8)
    for d_theta, d_phi in ((1e-3, 0.0), (-1e-3, 0.0), (0.0, 1e-3), (0.0, -1e-3)):
        there = dense_fit(y, X, dense_parts(frame, Z, theta + d_theta, phi + d_phi), reml=True)
        assert there.criterion > fit.criterion
    np.testing.assert_allclose(fit.fixef, dense.beta, rtol=1e-8)
    np.testing.assert_allclose(fit.cov_params(), dense.vcov, rtol=1e-7)
    b = theta**2 * Z.T @ np.linalg.solve(V, dense.residual)
    np.testing.assert_allclose(fit.ranef()["rater"].iloc[:, 0], b, rtol=1e-7)
    Vi = np.linalg.inv(V)
    P = Vi - Vi @ X @ np.linalg.inv(X.T @ Vi @ X) @ X.T @ Vi
    R = autocorrelation(frame, phi)
    np.testing.assert_allclose(fit.hatvalues(), 1.0 - np.diag(R @ P), rtol=1e-6)
    variance = theta**2 - theta**4 * np.diag(Z.T @ Vi @ Z)
    found = fit.ranef(cond_var=True)[1]["rater"][:, 0, 0]
    np.testing.assert_allclose(found, dense.sigma_sq * variance, rtol=1e-6)
    assert "cross 'rater'" in fit.system.describe()


def test_kenward_roger_is_that_of_dense_matrices():
    frame = visits(subjects=12, times=4)
    fit = mx.lmer("y ~ x + (1 | rater)", frame, residual=mx.AR1("t", "subject"))
    phi = float(fit.residual_structure["estimate"].iloc[0])
    ZZ = indicator(frame["rater"]) @ indicator(frame["rater"]).T
    s, g = fit.scale, fit.scale * float(fit.theta[0]) ** 2
    lag = np.abs(frame["t"].to_numpy()[:, None] - frame["t"].to_numpy())
    R = autocorrelation(frame, phi)
    same = R != 0.0
    dR = np.where(lag > 0, lag * np.abs(phi) ** np.maximum(lag - 1, 0), 0.0) * same
    ddR = np.where(lag > 1, lag * (lag - 1) * np.abs(phi) ** np.maximum(lag - 2, 0), 0.0) * same
    zero = np.zeros_like(R)
    first = [ZZ, R, s * dR]
    second = {(i, j): zero for i in range(3) for j in range(i, 3)}
    second[1, 2], second[2, 2] = dR, s * ddR
    X = np.asarray(fit.model_matrix())
    adjusted, _ = dense_kenward_roger(X, g * ZZ + s * R, first, second)
    np.testing.assert_allclose(fit.vcov_adjusted(), adjusted, rtol=2e-5)


def f_test(fit, row, ddf):
    """Degrees of freedom, F and p-value: sums of squares are in units of a sigma of their own."""
    return fit.contest(row, ddf=ddf).iloc[0, 2:].to_numpy(dtype=float)


@pytest.mark.parametrize("rows", ["one rater a row", "two raters a row"])
def test_compound_symmetry_is_a_random_intercept(rows):
    frame = visits()
    frame["y"] += frame["subject"].str[1:].astype(int) % 3  # a positive variance of subjects
    several = {} if rows.startswith("one") else {"membership": {"rater": shares(frame)}}
    structured = mx.lmer(
        "y ~ x + (x | rater)", frame, residual=mx.CompoundSymmetry("subject"), control=QUIET,
        **several,
    )  # fmt: skip
    plain = mx.lmer("y ~ x + (x | rater) + (1 | subject)", frame, control=QUIET, **several)
    assert structured.criterion == pytest.approx(plain.criterion, abs=1e-6)
    np.testing.assert_allclose(structured.fixef, plain.fixef, rtol=1e-4)
    np.testing.assert_allclose(
        structured.ranef()["rater"], plain.ranef()["rater"], rtol=1e-2, atol=1e-4
    )
    rho = float(structured.residual_structure["estimate"].iloc[0])
    between = plain.varcorr.to_frame().set_index("grp")["vcov"]["subject"]
    assert rho == pytest.approx(between / (between + plain.scale), rel=1e-3)
    for row in ([0, 1], [1, 0]):
        tests = [f_test(fit, row, "kenward-roger") for fit in (structured, plain)]
        np.testing.assert_allclose(tests[0], tests[1], rtol=1e-3)


@pytest.mark.parametrize("outer", ["rater", "site"])
def test_degrees_of_freedom_are_those_of_a_random_intercept(outer):
    frame = visits()
    number = frame["subject"].str[1:].astype(int)
    frame["site"] = (number // 3).astype(str)
    frame["y"] += number % 3 + np.array([0.0, 1.0, 2.0, 0.5, -1.0, 3.0])[number // 3]
    structured = mx.lmer(f"y ~ x + (1 | {outer})", frame, residual=mx.CompoundSymmetry("subject"))
    plain = mx.lmer(f"y ~ x + (1 | {outer}) + (1 | subject)", frame)
    assert structured.criterion == pytest.approx(plain.criterion, abs=1e-8)
    for row in ([0, 1], [1, 0]):
        for ddf in ("satterthwaite", "kenward-roger"):
            tests = [f_test(fit, row, ddf) for fit in (structured, plain)]
            np.testing.assert_allclose(tests[0], tests[1], rtol=1e-5)


def test_known_covariances_stand_beside_residual_structures():
    frame = visits()
    rng = np.random.default_rng(1)
    root = np.eye(6) + 0.4 * np.tri(6, k=-1)
    A = pd.DataFrame(root @ root.T, index=sorted(set(frame["rater"])))
    A.columns = A.index
    frame["y"] += rng.normal(size=18)[frame["subject"].str[1:].astype(int)]
    formula, known = "y ~ x + (1 | rater)", {"rater": A}
    structured = mx.lmer(
        formula, frame, residual=mx.CompoundSymmetry("subject"), known=known, control=QUIET
    )
    plain = mx.lmer(formula + " + (1 | subject)", frame, known=known, control=QUIET)
    assert structured.criterion == pytest.approx(plain.criterion, abs=1e-6)
    np.testing.assert_allclose(
        structured.ranef()["rater"], plain.ranef()["rater"], rtol=1e-3, atol=1e-5
    )
    fit = mx.lmer(formula, frame, residual=mx.AR1("t", "subject"), known=known)
    phi = float(fit.residual_structure["estimate"].iloc[0])
    Z = indicator(frame["rater"])
    V = float(fit.theta[0]) ** 2 * Z @ A.to_numpy() @ Z.T + autocorrelation(frame, phi)
    dense = dense_fit(frame["y"].to_numpy(), np.asarray(fit.model_matrix()), V, reml=True)
    assert fit.criterion == pytest.approx(dense.criterion, abs=1e-8)
    assert fit.convergence.status == "converged"
    again = fit.refit(fit.simulate(1, seed=2)[:, 0])
    assert np.isfinite(again.criterion)
    shares = [one.heritability(method="wald").iloc[0, :2] for one in (structured, plain)]
    # beside a correlation of residuals sigma^2 has what the intercept of subjects has here
    variances = plain.variance_components()["estimate"] ** 2
    assert shares[0].iloc[0] == pytest.approx(variances["sd_(Intercept)|rater"] / variances.sum(),
                                              rel=1e-4)  # fmt: skip
    assert shares[1].iloc[0] == pytest.approx(shares[0].iloc[0], rel=1e-4)
    for row in ([0, 1], [1, 0]):
        for ddf in ("satterthwaite", "kenward-roger"):
            tests = [f_test(one, row, ddf) for one in (structured, plain)]
            np.testing.assert_allclose(tests[0], tests[1], rtol=1e-3)


def test_known_covariances_of_matrices_many_responses_and_memberships():
    frame = visits()
    root = np.eye(6) + 0.4 * np.tri(6, k=-1)
    A = mx.Relationship(root @ root.T, sorted(set(frame["rater"])))
    fit = mx.lmer("y ~ x + (1 | rater)", frame, known={"rater": A})
    X = np.column_stack([np.ones(len(frame)), frame["x"]])
    terms = [(frame["rater"].to_numpy(), None, "rater")]
    of_matrices = mx.fit_matrices(frame["y"], X, terms, known={"rater": A})
    assert of_matrices.criterion == pytest.approx(fit.criterion, abs=1e-9)
    with pytest.raises(mx.OptionError, match="known names 'sire'"):
        mx.fit_matrices(frame["y"], X, terms, known={"sire": A})
    many = mx.lmer_many("~ x + (1 | rater)", frame, frame[["y", "x"]], known={"rater": A})
    assert many.criterion[0] == pytest.approx(fit.criterion, abs=1e-8)
    d = mx.deviance_function("y ~ x + (1 | rater)", frame, known={"rater": A})
    assert d(fit.theta) == pytest.approx(fit.criterion, abs=1e-9)
    W = shares(frame)
    W.columns = A.labels
    both = mx.lmer("y ~ x + (1 | rater)", frame, membership={"rater": W}, known={"rater": A})
    Z = W.to_numpy()
    V = float(both.theta[0]) ** 2 * Z @ A.A @ Z.T + np.eye(len(frame))
    dense = dense_fit(frame["y"].to_numpy(), X, V, reml=True)
    assert both.criterion == pytest.approx(dense.criterion, abs=1e-8)


def test_everything_else_answers(tmp_path):
    frame = visits()
    fit = mx.lmer("y ~ x + (1 | rater)", frame, residual=mx.AR1("t", "subject"), control=QUIET)
    fit.save(tmp_path / "fit.mixlm")
    loaded = mx.load(tmp_path / "fit.mixlm")
    assert loaded.criterion == pytest.approx(fit.criterion, rel=1e-10)
    np.testing.assert_allclose(loaded.hatvalues(), fit.hatvalues(), rtol=1e-6)
    assert np.isfinite(fit.bootstrap(2, seed=1).samples).all().all()
    assert fit.confint(method="profile", parm="phi").notna().all().all()
    assert len(fit.residuals(type="normalized")) == fit.nobs
    with pytest.raises(mx.DataError, match="another level of 'rater'"):
        fit.predict(frame.iloc[:4].assign(t=9), forecast=True)


def test_an_engine_that_cannot_hold_it_says_so():
    with pytest.raises(mx.EngineError, match="residual groups that cross it"):
        mx.lmer("y ~ x + (1 | rater)", visits(), residual=mx.AR1("t", "subject"), engine="blocked")
