"""Figures printed in lectures and textbooks, recomputed from the data.

A printed figure is met if ours rounds to it, give or take one unit of its last digit, or agrees to
2e-5 of its size: figures with seven digits come from optimizers that stopped about 1e-5 short.
Figures that even the exact optimum does not meet are listed in NOT_MET with the reason; the test
holds them to what the reason says.
"""

from __future__ import annotations

import re

import numpy as np
import pytest

from mixlm_sparse import solve_pls
from tests.support import corpus
from tests.support.corpus import load_json, load_model

PUBLISHED = {m["id"]: m for m in load_json("published.json")["models"]}
WITH_DATA = [key for key, model in PUBLISHED.items() if model["data_found"]]
PRINTED_RTOL = 2e-5

# psi12 of the High School and Beyond slope model is nearly undetermined: between the printed value
# and the optimum the criterion changes by less than 1e-3. The source's optimizer stopped early (see
# test_psi12_is_flat).
NOT_MET = {("hsb_rc_ml", "cov school (psi12)"), ("hsb_rc_reml", "cov school (psi12)")}

# Other programs' quantities for which the fit has no attribute yet in this test: standard errors
# and intervals of variance components, tests against the linear model, profile intervals. Their own
# test modules compare them.
ELSEWHERE = re.compile(r"^(se var|lower var|upper var|se sd|se corr|LR |Wald chi2|profile )")


def meets(value: float, text: str) -> bool:
    digits = text.strip().lstrip("-")
    unit = 10.0 ** -(len(digits.split(".")[1]) if "." in digits else 0)
    return abs(value - float(text)) <= max(unit, PRINTED_RTOL * abs(float(text)))


def quantity(fit, name: str) -> float:
    """Our value of a figure, by the name that `published.json` gives it."""
    table = fit.varcorr.to_frame()
    residual = table["grp"] == "Residual"
    two = table["var2"].map(lambda v: isinstance(v, str)) & ~residual
    random = table[~residual & ~two]
    if name in {"logLik", "log restricted-likelihood, as printed"}:
        return fit.llf
    if name == "REML criterion":
        return fit.criterion
    if name in {"sigma", "sd Residual"}:
        return fit.sigma
    if name == "var Residual":
        return fit.scale
    if name == "icc":
        between = float(random["vcov"].iloc[0])
        return between / (between + fit.scale)
    if name == "corr of fixed effects":
        vcov = fit.cov_params().to_numpy()
        return vcov[0, 1] / np.sqrt(vcov[0, 0] * vcov[1, 1])
    if name.startswith("cov "):
        return float(table[two]["vcov"].iloc[0])
    if name.startswith("corr "):
        return float(table[two]["sdcor"].iloc[0])
    if match := re.fullmatch(r"(var|sd) (\S+)(?: (.+))?", name):
        what, group, column = match.groups()
        row = random[(random["grp"] == group) & (random["var1"] == (column or "(Intercept)"))]
        return float(row["vcov" if what == "var" else "sdcor"].iloc[0])
    if match := re.fullmatch(r"(fixef|se|t|z|Wald lower|Wald upper) (.+)", name):
        what, column = match.groups()
        if what.startswith("Wald"):
            return float(fit.conf_int(ddf="normal").loc[column].iloc[int(what == "Wald upper")])
        series = {"fixef": fit.fixef, "se": fit.bse, "t": fit.tvalues, "z": fit.tvalues}[what]
        return float(series[column])
    raise AssertionError(f"no rule for the figure {name!r}")


FIGURES = [
    pytest.param(key, value, id=f"{key}-{value['name']}")
    for key in WITH_DATA
    for value in PUBLISHED[key]["values"]
    if not ELSEWHERE.match(value["name"])
]


@pytest.mark.parametrize(("key", "value"), FIGURES)
def test_printed_figure(key, value):
    fit = corpus.fit(PUBLISHED[key]["reference_model"])
    ours = quantity(fit, value["name"])
    if (key, value["name"]) in NOT_MET:
        assert not meets(ours, value["printed_text"])
        assert ours == pytest.approx(
            value["computed"], rel=5e-3
        )  # lme4's exact optimum says the same
    else:
        assert meets(ours, value["printed_text"]), (ours, value["printed_text"])


def test_no_figure_is_forgotten():
    """What is not compared here has a rule elsewhere: the data were not found, or another module
    compares it.
    """
    names = {v["name"] for key in WITH_DATA for v in PUBLISHED[key]["values"]}
    assert sum(bool(ELSEWHERE.match(name)) for name in names) == 22
    assert {key for key in PUBLISHED if key not in WITH_DATA} == {
        "nels_null_ml", "nels_slope_ml", "nels_flp_ml",  # 12974 students in 684 schools: not public
    }  # fmt: skip


@pytest.mark.parametrize("key", ["gcse_reml", "hsb_rc_reml"])
def test_at_the_printed_variance_parameters(key):
    """With the printed theta in the place of the optimum all printed digits come out."""
    at = load_json("at_printed.json")[key]
    record_id = PUBLISHED[key]["reference_model"]
    record, system = load_model(record_id), corpus.system(record_id)
    solution = solve_pls(np.array(at["theta"]), system)
    nu = system.n - system.p
    sigma = np.sqrt(solution.pwrss / nu)
    criterion = solution.ldL2 + solution.ldRX2 + nu * (1 + np.log(2 * np.pi * sigma**2))
    assert record["REML"]
    assert -criterion / 2 == pytest.approx(at["logLik"], rel=1e-10)
    np.testing.assert_allclose(solution.beta, at["fixef"], rtol=1e-8)
    np.testing.assert_allclose(
        sigma * np.sqrt(np.diag(solution.vcov_unscaled)), at["se"], rtol=1e-8
    )
    assert sigma == pytest.approx(at["sigma"], rel=1e-9)
    printed = {v["name"]: v["printed"] for v in PUBLISHED[key]["values_at_printed_theta"]}
    for name, value in printed.items():
        if name.startswith("log"):
            assert -criterion / 2 == pytest.approx(
                value, abs=0.006 if key == "hsb_rc_reml" else 6e-4
            )


def test_psi12_is_flat():
    """Why the printed covariance of the High School and Beyond model is not met: the criterion
    hardly sees it.
    """
    at = load_json("at_printed.json")["hsb_rc_reml"]
    best = corpus.fit("hsb_rc_reml").criterion
    assert 0 <= -2 * at["logLik"] - best < 1e-3
