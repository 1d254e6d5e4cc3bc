"""Figures that the test suites of other packages hold their own answers to.

The numbers are those of MixedModels.jl (ML) and lme4 (as said), on data that ship here: the widest
outside check there is.  Tolerances are the ones that those suites use, or tighter.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pandas as pd
import pytest

import mixlm_sparse as mx

QUIET = mx.Control(warn=False)
FORMULAS = {
    "dyestuff": ("Yield ~ 1 + (1 | Batch)", "Dyestuff"),
    "dyestuff2": ("Yield ~ 1 + (1 | Batch)", "Dyestuff2"),
    "penicillin": ("diameter ~ 1 + (1 | plate) + (1 | sample)", "Penicillin"),
    "pastes": ("strength ~ 1 + (1 | batch/cask)", "Pastes"),
    "pastes one": ("strength ~ 1 + (1 | batch:cask)", "Pastes"),
    "sleep": ("Reaction ~ Days + (Days | Subject)", "sleepstudy"),
    "sleep uncorrelated": ("Reaction ~ Days + (1 | Subject) + (0 + Days | Subject)", "sleepstudy"),
    "sleep intercepts": ("Reaction ~ Days + (1 | Subject)", "sleepstudy"),
    "sleep slopes": ("Reaction ~ Days + (0 + Days | Subject)", "sleepstudy"),
    "insteval": ("y ~ service + (1 | s) + (1 | d) + (1 | dept)", "InstEval"),
    "insteval two": ("y ~ service * dept + (1 | s) + (1 | d)", "InstEval"),
}


@cache
def fit(name: str, reml: bool = False) -> mx.LinearMixedFit:
    formula, data = FORMULAS[name]
    return mx.lmer(formula, mx.datasets.load(data), reml=reml, control=QUIET)


def close(ours, theirs, rtol=1e-6, atol=0.0):
    np.testing.assert_allclose(np.asarray(ours, dtype=float), theirs, rtol=rtol, atol=atol)


# name: criterion, theta, coefficients, standard errors, sigma^2, ldL2
BY_ML = {
    "dyestuff": (
        327.32705988112673, [0.752580654], [1527.5], [17.694552929], 2451.250037, 8.060146112,
    ),
    "dyestuff2": (162.87303665382575, [0.0], [5.6656], [0.6669857396443264], 13.34609931, 0.0),
    "penicillin": (
        332.1883486700085, [1.5375939046, 3.2197921931], [22.97222222222222], [0.7446037806555799],
        0.30242510228527864, 95.74676552743833,
    ),
    "pastes": (
        247.9944658624955, [3.5269029347766856, 1.3299137410046242], [60.0533333333333],
        [0.6421355774401101], 0.677999727889528, 101.03834542101686,
    ),
    "sleep": (
        1751.9393444636682, [0.9292297167514472, 0.01816466496782548, 0.22264601131030412],
        [251.40510484848454, 10.467285959596126], [6.632295312722272, 1.5022387911441102],
        None, 73.90350673367566,
    ),
    "sleep uncorrelated": (
        1752.003255140962, [0.9458043022417869, 0.22692740996014607],
        [251.4051048484854, 10.467285959595674], [6.707646513654387, 1.5193112497954953],
        25.55613836753517**2, 74.4694698615524,
    ),
    "sleep slopes": (1774.080315280526, [0.24353985601485326], None, None, None, None),
}  # fmt: skip


@pytest.mark.parametrize("name", BY_ML)
def test_fits_by_ml(name):
    criterion, theta, coefficients, errors, variance, log_det = BY_ML[name]
    here = fit(name)
    close(here.criterion, criterion, rtol=1e-10)
    close(here.theta, theta, atol=1e-4)
    if coefficients is not None:
        close(here.fixef, coefficients)
        close(here.bse, errors, atol=1e-4)
    if variance is not None:
        close(here.scale, variance, rtol=1e-5)
    if log_det is not None:
        close(here.getME("devcomp")["cmp"]["ldL2"], log_det, atol=1e-3)


@pytest.mark.large
@pytest.mark.parametrize(
    ("name", "criterion"), [("insteval", 237721.76877450474), ("insteval two", 237585.5534151695)]
)
def test_lectures(name, criterion):
    close(fit(name).criterion, criterion, rtol=1e-10)


@pytest.mark.large
def test_first_lecture():
    close(np.asarray(fit("insteval").fittedvalues)[0], 3.1787619026604945, atol=1e-4)
    close(np.asarray(fit("insteval").resid)[0], 1.8212380973395055, atol=1e-4)


def test_information_criteria_of_dyestuff():
    close(fit("dyestuff").aic, 333.32705988112673)
    close(fit("dyestuff").bic, 337.5306520261132)
    hat = np.asarray(fit("dyestuff").hatvalues())
    close(hat[0], 0.1565053420672158, rtol=1e-5)
    close(hat.sum(), 4.695160262016474, rtol=1e-5)


def test_leverages_of_the_sleepers():
    close(np.sum(fit("sleep").hatvalues()), 28.611653305323234, rtol=1e-5)
    first = np.asarray(fit("sleep intercepts", reml=True).hatvalues())[:6]
    close(
        first,
        [0.107483311203734, 0.102096105816528, 0.0980557017761242, 0.0953620990825215,
         0.0940152977357202, 0.0940152977357202],
        rtol=1e-5,
    )  # fmt: skip


def test_conditional_variances():
    sleep = fit("sleep").ranef(cond_var=True)[1]["Subject"][0]
    close(sleep, [[140.96755, -20.604544], [-20.604544, 5.1577948]], rtol=1e-4)
    restricted = fit("sleep", reml=True).ranef(cond_var=True)[1]["Subject"][0]
    close(restricted, [[145.71273, -21.440414], [-21.44041, 5.310927]], rtol=3e-4)
    penicillin = fit("penicillin").ranef(cond_var=True)[1]
    close(penicillin["plate"][0, 0, 0], 0.07331356908917808, rtol=1e-4)
    close(penicillin["sample"][-1, 0, 0], 0.04051591717427688, rtol=1e-4)
    pastes = fit("pastes").ranef(cond_var=True)[1]
    close(pastes["cask:batch"][0, 0, 0], 1.1118647819999143, rtol=1e-4)
    close(pastes["batch"][-1, 0, 0], 0.850420001234007, rtol=1e-4)


def test_random_effects():
    close(fit("sleep").ranef()["Subject"].iloc[0, 0], 2.8156104060324334, rtol=1e-3)
    close(fit("penicillin").ranef()["sample"].iloc[-1, 0], -3.0018241391465703, rtol=1e-4)
    effects = fit("sleep uncorrelated", reml=True).ranef()["Subject"].loc["308"]
    close(effects, [1.5116973008, 9.32373076098], rtol=1e-3)


def test_correlation_of_the_fixed_effects():
    V = fit("sleep").cov_params().to_numpy()
    close(V[0, 1] / np.sqrt(V[0, 0] * V[1, 1]), -0.13755599049585931, atol=1e-4)


def test_likelihood_ratio_of_pastes():
    table = mx.anova(fit("pastes one"), fit("pastes"))
    close(np.asarray(table["Pr(>Chisq)"], dtype=float)[-1], 0.5233767965780878, atol=1e-4)


def test_wald_and_profile_intervals():
    wald = fit("sleep").confint(method="wald").to_numpy()[-2:, 0]
    close(wald, [238.4061184564825, 7.52295850741417], atol=1e-3)
    wald = fit("sleep intercepts", reml=True).confint(method="wald").to_numpy()[-2:]
    close(wald, [[232.301892, 270.508318], [8.891041, 12.043531]], rtol=1e-5)
    table = fit("sleep").confint(method="profile")
    rows = ["(Intercept)", "Days", "sigma", "sd_(Intercept)|Subject", "sd_Days|Subject"]
    # the ends that the two packages' splines share to the digits that are printed
    close(table.loc[rows, "lower"], [237.681, 7.359, 22.898, 14.381, 3.801], rtol=2e-4)
    close(table.loc[rows, "upper"], [265.130, 13.576, 28.858, 37.718, 8.753], rtol=2e-4)


def test_cooks_distances_by_reml():
    here = np.asarray(fit("sleep intercepts", reml=True).cooks_distance())[:6]
    theirs = [0.127645976734753, 0.127346548123793, 0.243724627125036, 0.000280638917214881,
              0.0309804642689636, 0.293554225380831]  # fmt: skip
    close(here, theirs, rtol=1e-5)


def test_predictions_with_parts_of_the_random_effects():
    sleep = fit("sleep", reml=True)
    new = pd.DataFrame({"Days": [0, 9] * 3, "Subject": np.repeat(["308", "309", "310"], 2)})
    whole = [253.663652396798, 430.66001930835, 211.006415533628, 227.634788908917,
             212.444742696829, 257.61053840953]  # fmt: skip
    slopes = [251.405104848485, 428.401471760037, 251.405104848485, 268.033478223774,
              251.405104848485, 296.570900561186]  # fmt: skip
    intercepts = [253.663652396798, 347.869226033161, 211.006415533628, 305.211989169991,
                  212.444742696829, 306.650316333193]  # fmt: skip
    close(sleep.predict(new), whole, rtol=1e-5)
    close(sleep.predict(new, re_form="population"), [251.405104848485, 345.610678484848] * 3)
    close(sleep.predict(new, re_form="~ (0 + Days | Subject)"), slopes, rtol=1e-5)
    close(sleep.predict(new, re_form="~ (1 | Subject)"), intercepts, rtol=1e-5)


def test_fitted_values_of_penicillin():
    here = np.asarray(fit("penicillin", reml=True).fittedvalues)[:6]
    close(here, [25.9638, 22.7663, 25.7147, 23.6799, 23.7629, 20.773], atol=6e-5)


def test_criterion_of_dyestuff_away_from_the_optimum():
    d = mx.deviance_function("Yield ~ 1 + (1 | Batch)", mx.datasets.load("Dyestuff"), reml=True)
    close([d([1.0]), d([0.0])], [319.792389042002, 326.023232155879], rtol=1e-10)
    ml = mx.deviance_function("Yield ~ 1 + (1 | Batch)", mx.datasets.load("Dyestuff"), reml=False)
    close(ml([0.713]), 327.34216280954615, rtol=1e-10)
    here = fit("dyestuff", reml=True)
    close(here.criterion, 319.654276842342, rtol=1e-10)
    close(here.theta, [0.84832031], rtol=6e-6)
    close(here.sigma, 49.5101, rtol=1e-6)


def test_lines_of_each_sleeper():
    """`coef` of random intercepts and slopes by REML, as lme4's tests print for separate lines."""
    lines = mx.lm_list("Reaction ~ Days | Subject", mx.datasets.load("sleepstudy")).coef()
    order = ["308", "309", "310", "330", "331", "332"]
    close(
        lines.loc[order, "(Intercept)"],
        [244.19267, 205.05495, 203.48423, 289.68509, 285.73897, 264.25161], rtol=1e-6,
    )  # fmt: skip
    close(
        lines.loc[order, "Days"],
        [21.764702, 2.2617855, 6.1148988, 3.0080727, 5.2660188, 9.5667679], rtol=1e-6,
    )  # fmt: skip
    pooled = mx.lm_list("Reaction ~ Days | Subject", mx.datasets.load("sleepstudy")).sigma
    close(pooled, 25.5918156267, rtol=1e-9)
