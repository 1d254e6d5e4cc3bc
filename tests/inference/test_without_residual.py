"""A response that is constant within groups: sigma is zero, the variance of the groups is not."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import mixlm_sparse as mx

QUIET = mx.Control(warn=False)


def data(noise: float = 0.0) -> pd.DataFrame:
    rng = np.random.default_rng(17)
    means = np.repeat([5.0, 9.0], 10) + rng.normal(scale=2.0, size=20)
    g = np.repeat(np.arange(20), 4)
    y = means[g] + noise * rng.normal(size=80)
    return pd.DataFrame({"y": y, "g": g, "arm": np.where(g < 10, "a", "b")})


def groups() -> tuple[float, float]:
    """The sd of the groups, and the standard error of their difference, from their means."""
    means = data().groupby("g").agg(y=("y", "first"), arm=("arm", "first"))
    residual = means["y"] - means.groupby("arm")["y"].transform("mean")
    sd = float(np.sqrt((residual**2).sum() / 18))
    return sd, sd * float(np.sqrt(2.0 / 10.0))


@pytest.mark.parametrize("noise", [0.0, 1e-12, 1e-8, 1e-4])
def test_the_variance_of_the_groups_is_that_of_their_means(noise):
    sd, se = groups()
    fit = mx.lmer("y ~ arm + (1 | g)", data(noise), control=QUIET)
    table = fit.variance_components()
    row = table.loc["sd_(Intercept)|g"]
    assert row["estimate"] == pytest.approx(sd, rel=1e-3)
    # 18 degrees of freedom: sd / sqrt(2 * 18)
    assert row["std_error"] == pytest.approx(sd / 6.0, rel=2e-3)
    z = 1.959963984540054
    assert row["upper"] == pytest.approx(sd * np.exp(z / 6.0), rel=3e-3)
    assert fit.bse["armb"] == pytest.approx(se, rel=1e-3)
    wald = fit.confint("wald")
    assert wald.loc["armb", "upper"] - wald.loc["armb", "lower"] == pytest.approx(
        2.0 * z * se, rel=1e-3
    )
    # the share of the groups is all there is, and has no width of zero around it
    shares = fit.icc()
    assert shares.loc["adjusted", "estimate"] == pytest.approx(1.0, abs=1e-6)
    if noise == 0.0:
        assert "nothing is left" in table.loc["sigma", "note"]
        assert np.isnan(float(table.loc["sigma", "std_error"]))
        assert shares.loc["adjusted", ["std_error", "lower", "upper"]].isna().all()
    marginal = fit.r2().loc["marginal"]
    assert 0.0 < marginal["lower"] < marginal["estimate"] < marginal["upper"] < 1.0


def test_likelihoods_without_bound_are_not_compared():
    fit = mx.lmer("y ~ arm + (1 | g)", data(), control=QUIET)
    for call in (fit.profile, fit.ranova, fit.lr_vs_lm, fit.drop1, fit.step):
        with pytest.raises(mx.OptionError, match=r"exactly|nothing is left to the residuals"):
            call()
    smaller = mx.lmer("y ~ 1 + (1 | g)", data(), control=QUIET)
    with pytest.raises(mx.DataError, match="sigma is zero"):
        mx.anova(smaller, fit)


def test_no_residual_is_shown_where_there_is_none():
    g = np.repeat(np.arange(12), 4)
    level = np.random.default_rng(2).normal(size=12)
    data = pd.DataFrame({"g": g, "y": 5 + level[g]})
    fit = mx.lmer("y ~ 1 + (1 | g)", data, control=mx.Control(warn=False))
    table = fit.varcorr.to_frame().set_index("grp")
    assert table.loc["Residual", "sdcor"] == 0.0
    assert table.loc["g", "sdcor"] == pytest.approx(level.std(ddof=1), rel=1e-6)


def test_what_is_judged_within_groups_has_no_error():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"g": np.repeat(np.arange(8), 5), "step": np.tile(np.arange(5.0), 8)})
    frame["arm"] = np.where(frame["g"] % 2, "T", "C")
    frame["y"] = np.repeat(rng.uniform(5, 100, 8), 5)
    fit = mx.lmer("y ~ step + arm + (1 | g)", frame, control=QUIET)
    means = frame.groupby("g")["y"].mean().to_numpy()
    between = np.sqrt(2 * (means[::2].var(ddof=1) + means[1::2].var(ddof=1)) / 8)
    assert fit.bse["armT"] == pytest.approx(between, rel=1e-5)
    table = fit.tidy().set_index("term")
    assert table.loc["armT", "df"] == pytest.approx(6.0, rel=1e-4)
    assert table.loc["step", ["std_error", "df", "p_value"]].isna().all()
    assert np.isnan(fit.bse["step"])
    assert np.isnan(fit.anova().loc["step", "Pr(>F)"])
    assert np.isfinite(fit.anova().loc["arm", "Pr(>F)"])
    assert "judged within groups" in str(fit.summary())


def test_sigma_is_zero_in_every_result():
    frame = data()
    fit = mx.lmer("y ~ arm + (1 | g)", frame, control=QUIET)
    assert fit.sigma == 0.0
    assert fit.scale == 0.0
    assert fit.getME("sigma") == 0.0
    assert fit.to_dict()["sigma"] == 0.0
    assert fit.glance().loc[0, "sigma"] == 0.0
    assert fit.variance_components().loc["sigma", "estimate"] == 0.0
    table = fit.tidy(effects="ran_pars").set_index("group")
    assert table.loc["Residual", "estimate"] == 0.0
    sd, se = groups()
    assert table.loc["g", "estimate"] == pytest.approx(sd, rel=1e-6)
    assert fit.cov_params().loc["armb", "armb"] == pytest.approx(se**2, rel=1e-6)
    # nothing is in units of a sigma that is zero
    for values in (fit.residuals(scaled=True), fit.rstudent(), fit.cooks_distance()):
        assert values.isna().all()
    assert fit.augment()[".std_resid"].isna().all()
    assert "Scaled residuals" not in str(fit.summary())
    with pytest.raises(mx.OptionError, match="no residuals"):
        fit.acf("g")


def test_draws_have_the_variance_of_the_groups_and_no_residuals():
    frame = data()
    fit = mx.lmer("y ~ arm + (1 | g)", frame, control=QUIET)
    drawn = pd.DataFrame(fit.simulate(200, seed=3))
    within = drawn.groupby(frame["g"]).transform(lambda y: y - y.mean())
    assert np.abs(within.to_numpy()).max() < 1e-9
    between = drawn.groupby(frame["g"]).first().iloc[:10].std(ddof=1)
    assert float(np.sqrt((between**2).mean())) == pytest.approx(groups()[0], rel=0.05)
    interval = fit.predict(frame.head(2), interval="prediction")
    np.testing.assert_allclose(interval["upper"], interval["fit"], atol=1e-3)


def test_correlations_of_coefficients_without_error_are_missing():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"g": np.repeat(np.arange(8), 5), "step": np.tile(np.arange(5.0), 8)})
    frame["arm"] = np.where(frame["g"] % 2, "T", "C")
    frame["y"] = np.repeat(rng.uniform(5, 100, 8), 5)
    text = str(mx.lmer("y ~ arm + step + (1 | g)", frame, control=QUIET).summary())
    panel = text.partition("Correlation of fixed effects")[2].partition("Convergence")[0]
    cells = {line.split()[0]: line.split()[1:] for line in panel.strip(": \n").splitlines()}
    arm, step = cells["armT"], cells["step"]
    assert float(arm[0]) == pytest.approx(-np.sqrt(0.5), abs=1e-3)
    assert step == ["NaN", "NaN"]
