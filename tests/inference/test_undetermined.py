"""What the data do not determine is NaN with the reason; what they determine stays."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import mixlm_sparse as mx

QUIET = mx.Control(warn=False)


def data() -> pd.DataFrame:
    rng = np.random.default_rng(41)
    g = np.repeat(np.arange(15), 6)
    x = np.tile(np.arange(6.0), 15)
    y = 3.0 + 0.4 * x + rng.normal(size=15)[g] + 0.3 * rng.normal(size=15)[g] * x
    frame = pd.DataFrame({"y": y + rng.normal(size=90), "x": x, "g": g})
    # the same groups by another name, and a factor of three groups
    return frame.assign(other=[f"n{i}" for i in g], arm=np.array(["a", "b", "c"])[g % 3])


def fitted(formula: str, **options) -> mx.LinearMixedFit:
    return mx.lmer(formula, data(), control=QUIET, **options)


TWO_NAMES = "y ~ x + (1 | g) + (1 | other)"
FIXED_TOO = "y ~ x + arm + (1 | arm) + (1 | g)"


@pytest.mark.parametrize("method", ["wald", "profile", "boot"])
def test_intervals_of_one_partition_under_two_names(method):
    fit, plain = fitted(TWO_NAMES), fitted("y ~ x + (1 | g)")
    options = {"nsim": 20, "seed": 1, "progress": False} if method == "boot" else {}
    limits = fit.confint(method, **options)
    gone = ["sd_(Intercept)|g", "sd_(Intercept)|other"]
    assert limits.loc[gone].isna().all().all()
    assert all("(1 | g)" in limits.attrs["notes"][name] for name in gone)
    known = ["sigma", "(Intercept)", "x"]
    if method == "boot":
        assert limits.loc[known].notna().all().all()
    else:
        np.testing.assert_allclose(
            limits.loc[known], plain.confint(method).loc[known], rtol=1e-4
        )


def test_shares_of_one_partition_under_two_names():
    fit, plain = fitted(TWO_NAMES), fitted("y ~ x + (1 | g)")
    shares = fit.icc()
    assert shares.loc[["g", "other"]].isna().all().all()
    # their sum is known, and so is what is made of it
    np.testing.assert_allclose(
        shares.loc[["adjusted", "unadjusted"]], plain.icc().loc[["adjusted", "unadjusted"]],
        rtol=1e-4,
    )  # fmt: skip
    np.testing.assert_allclose(fit.r2(), plain.r2(), rtol=1e-4)


def test_tests_of_one_partition_under_two_names():
    fit, plain = fitted(TWO_NAMES), fitted("y ~ x + (1 | g)")
    table = fit.ranova()
    assert (table["Df"].iloc[1:] == 0).all()
    assert table["Pr(>Chisq)"].isna().all()
    assert "do not determine" in table.attrs["note"]
    # together they are one variance
    both = fit.lr_vs_lm()
    assert both["Df"].iloc[0] == 1
    assert both["LRT"].iloc[0] == pytest.approx(plain.lr_vs_lm()["LRT"].iloc[0], rel=1e-6)
    assert mx.anova(plain, fit)["Df"].iloc[1] == 0
    # one of the two goes, and the other is then tested
    found = fit.step()
    assert found.random["Eliminated"].tolist() == [0, 1, 0]
    assert found.random["Df"].iloc[2] == 1


def test_a_factor_that_is_fixed_and_random():
    fit = fitted(FIXED_TOO)
    plain = fitted("y ~ x + arm + (1 | g)")
    table, expected = fit.variance_components(), plain.variance_components()
    assert np.isnan(table.loc["sd_(Intercept)|arm", ["estimate", "std_error"]].astype(float)).all()
    assert "(1 | arm)" in table.loc["sd_(Intercept)|arm", "note"]
    known = ["sd_(Intercept)|g", "sigma"]
    numbers = ["estimate", "std_error", "lower", "upper"]
    np.testing.assert_allclose(
        table.loc[known, numbers].astype(float), expected.loc[known, numbers].astype(float),
        rtol=1e-4,
    )  # fmt: skip
    wald = fit.confint("wald")
    assert wald.loc[["(Intercept)", "armb", "armc"]].isna().all().all()
    np.testing.assert_allclose(wald.loc["x"], plain.confint("wald").loc["x"], rtol=1e-4)
    assert fit.ranova().loc["(1 | arm)", "Df"] == 0
    assert fit.ranova().loc["(1 | g)", "LRT"] == pytest.approx(
        plain.ranova()["LRT"].iloc[1], rel=1e-3
    )


def test_an_effect_that_stands_in_two_terms():
    fit, plain = fitted("y ~ x + (x | g) + (1 | g)"), fitted("y ~ x + (x | g)")
    table = fit.variance_components()
    assert table["estimate"].isna().tolist() == [True, True, False, True, False]
    np.testing.assert_allclose(
        table.loc["sd_x|g", ["estimate", "std_error"]].astype(float),
        plain.variance_components().loc["sd_x|g", ["estimate", "std_error"]].astype(float),
        rtol=1e-3,
    )
    # the covariance of intercept and slope is determined, the correlation is not
    pairs = fit.variance_components(scale="variance")
    expected = plain.variance_components(scale="variance")
    covariance = next(name for name in pairs.index if name.startswith("cov_"))
    assert pairs.loc[covariance, "estimate"] == pytest.approx(
        expected.loc[covariance, "estimate"], rel=1e-3
    )
    np.testing.assert_allclose(fit.icc(), plain.icc(), rtol=1e-3)


def test_dependent_columns_with_one_variance_are_determined():
    frame = data()
    for level in "abc":
        frame[f"d{level}"] = (frame["arm"] == level).astype(float)
    fit = mx.lmer("y ~ x + id(0 + da + db + dc | g)", frame, control=QUIET)
    assert (fit.variance_components()["note"] == "").all()
    assert fit.confint().notna().all().all()


def test_errors_of_coefficients_are_nan_where_the_data_do_not_determine_them():
    rng = np.random.default_rng(4)
    data = pd.DataFrame({"arm": np.repeat(list("abc"), 20), "x": rng.normal(size=60)})
    data["y"] = data["x"] + rng.normal(size=60)
    fit = mx.lmer("y ~ x + arm + (1 | arm)", data, control=mx.Control(warn=False))
    known = ["x"]
    lost = ["(Intercept)", "armb", "armc"]
    for values in (fit.bse, fit.tvalues):
        assert np.isfinite(values[known]).all()
        assert values[lost].isna().all()
    V = fit.cov_params()
    assert np.isfinite(V.loc["x", "x"])
    assert V.loc[lost].isna().all(axis=None)
    assert np.isfinite(fit.fixef).all()


def test_kenward_roger_does_not_depend_on_what_is_not_determined():
    rng = np.random.default_rng(9)
    g = np.repeat(np.arange(12), 6)
    frame = pd.DataFrame({"g": g, "t": np.tile(np.arange(6.0), 12)})
    frame["arm"] = np.where(g % 2, "T", "C")
    frame["y"] = 2 + 0.3 * frame["t"] + rng.normal(size=12)[g] + rng.normal(size=72)
    formula = "y ~ factor(g) + t + (t | g)"
    found = [
        mx.lmer(formula, frame, start=start, control=QUIET).anova(ddf="kenward-roger").loc["t"]
        for start in ([1, -0.5, 0.5], [1, 3, 0.2], [0.2, 0.5, 0.5])
    ]
    for other in found[1:]:
        np.testing.assert_allclose(other, found[0], rtol=1e-5)
    fit = mx.lmer("y ~ t + arm + (1 | arm) + (1 | g)", frame, start=[0.01, 1], control=QUIET)
    V = fit.vcov_adjusted()
    assert V.loc["t", "t"] > 0
    assert V.loc["armT"].isna().all()
