"""Many responses on one design: each as its own fit, none lost."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import mixlm_sparse as mx
from mixlm_sparse.common.errors import DataError, FormulaError, OptionError
from mixlm_sparse.model import refits
from mixlm_sparse.solve.derived.other_response import response_block, system_for
from tests.model.test_predict import crossed_data, quiet_fit
from tests.support import corpus

FORMULA = "~ Days + (Days | Subject)"
QUIET = mx.Control(warn=False)


@pytest.fixture(scope="module")
def sleep():
    return mx.datasets.load("sleepstudy")


@pytest.fixture(scope="module")
def Y(sleep):
    fit = mx.lmer("Reaction" + FORMULA, sleep)
    Y = fit.simulate(12, seed=1)
    Y[:, 3] = fit.simulate(1, seed=2, re_form="fitted")[:, 0]
    Y[:, 4] = np.random.default_rng(3).normal(size=180)  # no groups at all: singular
    return Y


@pytest.mark.parametrize("model", ["sleep_w_off_ml", "pastes_nested_reml", "penicillin_reml",
                                   "machines_vec_reml", "sleep_uncorr_reml"])  # fmt: skip
def test_products_of_a_block_are_those_of_single_responses(model):
    system = corpus.fit(model).system
    rng = np.random.default_rng(0)
    Y = system.matrices.y[:, None] + rng.normal(size=(system.n, 5))
    block = response_block(system, Y)
    for i in range(5):
        one = mx.penalized_system(replace(system.matrices, y=Y[:, i])).products
        other = system_for(system, block, i).products
        assert other.yy == pytest.approx(one.yy, rel=1e-12)
        assert other.y_length == pytest.approx(one.y_length, rel=1e-12)
        np.testing.assert_allclose(other.beta_ols, one.beta_ols, rtol=1e-9, atol=1e-12)
        for a, b in zip(one.blocks.factors, other.blocks.factors, strict=True):
            scale = np.abs(a.ztx).max()
            np.testing.assert_allclose(a.ztx, b.ztx, atol=1e-11 * scale)


@pytest.mark.parametrize("reml", [True, False])
def test_every_response_has_the_optimum_of_its_own_fit(sleep, Y, reml):
    many = mx.lmer_many(FORMULA, sleep, Y, reml=reml)
    assert many.complete
    for i in range(Y.shape[1]):
        own = quiet_fit("y" + FORMULA, sleep.assign(y=Y[:, i]), reml=reml)
        assert many.criterion[i] == pytest.approx(own.criterion, abs=1e-6)
        assert many.status[i] == own.optimum.status
        assert many.beta[i] == pytest.approx(own.fixef.to_numpy(), rel=1e-5)
        assert many.bse[i] == pytest.approx(own.bse.to_numpy(), rel=1e-3)
        assert many.sigma[i] == pytest.approx(own.sigma, rel=1e-4)
    assert "singular" in many.status
    assert many.theta.shape == (12, 3)
    frame = many.to_frame()
    assert frame["Days"].tolist() == many.beta[:, 1].tolist()
    assert frame["response"][0] == "y1"


def test_names_of_columns_or_of_a_frames_columns(sleep, Y):
    wide = sleep.assign(**{"gene-1": Y[:, 0], "gene 2": Y[:, 1]})
    named = mx.lmer_many("Reaction" + FORMULA, wide, ["gene-1", "gene 2", "Reaction"])
    framed = mx.lmer_many(FORMULA, sleep, pd.DataFrame({"a": Y[:, 0], "b": Y[:, 1]}))
    assert named.names == ("gene-1", "gene 2", "Reaction")
    assert framed.names == ("a", "b")
    assert named.criterion[:2] == pytest.approx(framed.criterion)
    assert named.criterion[2] == pytest.approx(1743.6282719585604)
    fit = named.fit("gene 2")
    assert fit.criterion == pytest.approx(named.criterion[1], abs=1e-8)
    assert np.asarray(fit.predict(sleep.iloc[:3])) == pytest.approx(fit.fittedvalues[:3])
    assert fit.refit_ml().reml is False
    assert "gene 2" in fit.formula


def test_polars_and_weights_and_offsets(Y):
    data = crossed_data()
    rng = np.random.default_rng(2)
    Y = data["y"].to_numpy()[:, None] + 0.1 * rng.normal(size=(60, 3))
    frame = pytest.importorskip("polars").from_pandas(data)
    many = mx.lmer_many("~ x + f + (x | g) + (1 | h)", frame, Y, weights="w", offset="o",
                        subset="x > -1.5", contrasts={"f": "sum"}, control=QUIET)  # fmt: skip
    for i in range(3):
        own = quiet_fit("y ~ x + f + (x | g) + (1 | h)", data.assign(y=Y[:, i]), weights="w",
                        offset="o", subset="x > -1.5", contrasts={"f": "sum"})  # fmt: skip
        assert many.criterion[i] == pytest.approx(own.criterion, abs=1e-6)
        assert many.x_names == own.system.x_names


def test_missing_values_leave_rows_out_for_that_response(sleep, Y):
    holes = Y.copy()
    holes[[2, 50], 1] = np.nan
    holes[[2, 50], 2] = np.nan
    holes[7, 5] = np.nan
    many = mx.lmer_many(FORMULA, sleep, holes)
    assert many.nobs.tolist() == [180, 178, 178, 180, 180, 179, *[180] * 6]
    for i in (1, 2, 5):
        own = quiet_fit("y" + FORMULA, sleep.assign(y=holes[:, i]))
        assert many.criterion[i] == pytest.approx(own.criterion, abs=1e-6)
        assert many.fit(i).nobs == own.nobs


def test_failures_are_reported_and_do_not_stop_the_others(sleep, Y):
    bad = Y[:, :7].copy()
    bad[0, 1] = np.inf
    bad[:, 2] = np.nan
    bad[:, 3] = 5.0
    bad[:175, 5] = np.nan  # too few rows left for the random effects
    many = mx.lmer_many(FORMULA, sleep, bad)
    assert [many.status[i] for i in (1, 2, 3, 5)] == ["failed", "failed", "perfect fit", "failed"]
    assert "1 infinite" in many.message[1]
    assert many.message[2]
    assert many.message[5]
    assert np.isnan(many.criterion[[1, 2, 5]]).all()
    assert many.criterion[3] == -np.inf
    assert np.isfinite(many.criterion[[0, 4, 6]]).all()
    assert many.failures["response"].tolist() == ["y2", "y3", "y6"]
    assert many.failures.index.tolist() == [1, 2, 5]
    for name in ("y2", "y3", "y6"):  # a message stands beside the response, not beside its place
        assert re.search(rf"(^|message of ){name}\b", repr(many.failures), re.MULTILINE)
    assert not re.search(r"message of \d", repr(many.failures))
    with pytest.raises(DataError, match="'y2' has no fit"):
        many.fit(1)
    text = sleep.assign(a=Y[:, 0], b="text")
    assert mx.lmer_many(FORMULA, text, ["a", "b"]).status == ("converged", "failed")


def test_processes_change_nothing_and_the_work_can_end_early(sleep):
    Y = mx.lmer("Reaction" + FORMULA, sleep).simulate(150, seed=9)
    one = mx.lmer_many(FORMULA, sleep, Y)
    two = mx.lmer_many(FORMULA, sleep, Y, n_jobs=2)
    assert np.array_equal(one.criterion, two.criterion)
    seen = []
    few = mx.lmer_many(FORMULA, sleep, Y,
                       progress=lambda done, total: seen.append((done, total)) or done < 20)
    assert seen[-1] == (20, 150)
    assert not few.complete
    assert few.status.count("not run") == 130
    assert np.array_equal(few.criterion[:20], one.criterion[:20])

    def interrupt(done, total):
        if done == 5:
            raise KeyboardInterrupt

    assert mx.lmer_many(FORMULA, sleep, Y, progress=interrupt).status.count("not run") == 145


@pytest.mark.parametrize(("changes", "error", "words"), [
    ({"responses": ["Reaktion"]}, DataError, "no column 'Reaktion'.*Reaction"),
    ({"responses": ["Reaction", "Reaction"]}, OptionError, "'Reaction' twice"),
    ({"responses": []}, OptionError, "empty"),
    ({"responses": np.ones((3, 2))}, DataError, "3 rows, the data have 180"),
    ({"responses": [["a"], ["b"]]}, DataError, "responses is .*give names"),
    ({"formula": "~ Dais + (1 | Subject)"}, DataError, "no column 'Dais'"),
    ({"formula": "~ Days"}, FormulaError, "no random term"),
    ({"optimizer": "magic"}, OptionError, "optimizer"),
    ({"n_jobs": 0}, OptionError, "n_jobs"),
])  # fmt: skip
def test_errors_about_what_all_share(sleep, changes, error, words):
    options = {"formula": FORMULA, "responses": ["Reaction"], **changes}
    with pytest.raises(error, match=words):
        mx.lmer_many(options.pop("formula"), sleep, options.pop("responses"), **options)


def test_positions_are_checked(sleep, Y):
    many = mx.lmer_many(FORMULA, sleep, Y[:, :2])
    assert many.fit(-1).criterion == pytest.approx(many.criterion[1])
    with pytest.raises(OptionError, match="no response 7"):
        many.fit(7)
    with pytest.raises(OptionError, match="no response 'z'"):
        many.fit("z")


def test_the_formula_comes_first(sleep, Y):
    for responses in (Y, pd.DataFrame({"a": ["x"] * 180}), "Reaction"):
        with pytest.raises(FormulaError, match="the formula is a DataFrame"):
            mx.lmer_many(sleep, FORMULA, responses)


def test_row_labels_must_agree(sleep, Y):
    other = pd.DataFrame(Y[:, :2], index=np.arange(180)[::-1])
    with pytest.raises(DataError, match="index differs"):
        mx.lmer_many(FORMULA, sleep, other)
    with pytest.raises(DataError, match="weights is a Series whose index differs"):
        mx.lmer_many(FORMULA, sleep, Y, weights=pd.Series(1.0, index=np.arange(180)[::-1]))
    one = mx.lmer_many(FORMULA, sleep, sleep["Reaction"])
    assert one.names == ("Reaction",)


def test_many_searches_are_compiled_calls_and_none_is_made_alone(sleep, monkeypatch):
    formula = "Reaction ~ Days + (Days | Subject)"
    Y = mx.lmer(formula, sleep).simulate(400, seed=1)
    alone = []
    search = refits.search
    monkeypatch.setattr(refits, "search", lambda *args: alone.append(args) or search(*args))
    mx.use_compiled(True)
    try:
        many = mx.lmer_many("~ Days + (Days | Subject)", sleep, Y)
    finally:
        mx.use_compiled(None)
    assert len(alone) <= 4  # what the compiled search gave up
    assert set(many.status) <= {"converged", "singular"}
    own = mx.lmer(formula, sleep.assign(Reaction=Y[:, 7]))
    assert many.criterion[7] == pytest.approx(own.criterion, abs=1e-7)
