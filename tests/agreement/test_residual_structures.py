"""Fits with residual structures against nlme and SAS PROC MIXED."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest

import mixlm_sparse as mx
from tests.support.corpus import load_data, load_json

SUBJECT, RAT, MARE = "Subject", "Rat", "Mare"
# per record: formula, arguments, and the natural parameters in nlme's order
NLME: dict[str, tuple[str, dict[str, Any]]] = {
    "gls_bodyweight_car1_reml": (
        "weight ~ Time * Diet", {"residual": mx.CAR1(time="Time", group=RAT)}
    ),
    "gls_ortho_ar1_ml": (
        "distance ~ age + Sex", {"residual": mx.AR1(time="visit", group=SUBJECT)}
    ),
    "gls_ortho_cs_ml": ("distance ~ age * Sex", {"residual": mx.CompoundSymmetry(group=SUBJECT)}),
    "gls_ortho_cs_reml": (
        "distance ~ age * Sex", {"residual": mx.CompoundSymmetry(group=SUBJECT)}
    ),
    "gls_ortho_ident_ml": ("distance ~ age * Sex", {"variance": mx.VarIdent(by="Sex")}),
    "gls_ortho_symm_ident_reml": (
        "distance ~ age * Sex",
        {
            "residual": mx.Unstructured(time="visit", group=SUBJECT),
            "variance": mx.VarIdent(by="age"),
        },
    ),
    "gls_ovary_ar1_reml": (
        "follicles ~ s1 + c1", {"residual": mx.AR1(time="position", group=MARE)}
    ),
    "lme_asian_ident_ml": (
        "weight ~ age_c + age_sp + girl + (1 | id)", {"variance": mx.VarIdent(by="girl")}
    ),
    "lme_bodyweight_ident_ml": (
        "weight ~ Time * Diet + (Time | Rat)", {"variance": mx.VarIdent(by="Diet")}
    ),
    "lme_machines_nested_ml": ("score ~ Machine + (1 | Worker / Machine)", {}),
    "lme_ortho_ident_reml": (
        "distance ~ age * Sex + (age | Subject)", {"variance": mx.VarIdent(by="Sex")}
    ),
    "lme_ovary_ar1_diag_ml": (
        "follicles ~ s1 + c1 + diag(s1 | Mare)",
        {"residual": mx.AR1(time="position", group=MARE)},
    ),
    "lme_ovary_ar1_reml": (
        "follicles ~ s1 + c1 + (1 | Mare)", {"residual": mx.AR1(time="position", group=MARE)}
    ),
    "lme_sleep_plain_reml": ("Reaction ~ Days + (Days | Subject)", {}),
}


def data_of(record: dict[str, Any]) -> pd.DataFrame:
    frame = load_data(record["data"].removeprefix("data/").removesuffix(".csv.gz"))
    if MARE in frame:
        frame["position"] = frame.groupby(MARE, observed=True).cumcount()
    if "distance" in frame:
        frame["visit"] = ((frame["age"] - 8) / 2).astype(int)
    return frame


def fitted(name: str) -> tuple[mx.LinearMixedFit, dict[str, Any]]:
    record = load_json(f"models_nlme/{name}.json")
    formula, structure = NLME[name]
    fit = mx.lmer if "|" in formula else mx.gls
    return fit(formula, data_of(record), reml=record["method"] == "REML", **structure), record


def natural_of(record: dict[str, Any]) -> list[float]:
    out: list[float] = []
    if record["correlation"]:
        found = record["correlation"]["coef"]
        out += list(found.values()) if isinstance(found, dict) else found
    if record["variance"]:
        found = record["variance"]["coef"]
        out += [value for value in found.values() if value != 1] if len(found) > 1 else list(
            found.values()
        )
    return out


@pytest.mark.parametrize("name", sorted(NLME))
def test_nlme(name) -> None:
    fit, record = fitted(name)
    assert fit.convergence.status == "converged"
    assert fit.llf == pytest.approx(record["logLik"], abs=1e-5)
    assert fit.n_par == record["n_par"]
    assert fit.sigma == pytest.approx(record["sigma"], rel=1e-3)
    np.testing.assert_allclose(
        fit.residual_structure["estimate"], natural_of(record), rtol=1e-3
    )
    np.testing.assert_allclose(fit.fixef, list(record["fixef"].values()), rtol=1e-4)
    se = np.array(list(record["se"].values()))
    if record["class"] == "gls" and record["method"] == "ML":
        # its summary divides by n - p after ML as well
        se = se * np.sqrt((record["nobs"] - record["p"]) / record["nobs"])
    np.testing.assert_allclose(fit.bse, se, rtol=1e-3)
    fitted_head = np.asarray(record["fitted_head"])
    np.testing.assert_allclose(fit.fittedvalues.iloc[: fitted_head.size], fitted_head, rtol=1e-4)


def test_nlme_power_of_the_fitted_values() -> None:
    """nlme's default varPower takes the fitted values, and fits again until they stay."""
    record = load_json("models_nlme/lme_bodyweight_power_reml.json")
    frame = data_of(record)
    formula = "weight ~ Time * Diet + (Time | Rat)"
    frame["mean"] = mx.lmer(formula, frame).fittedvalues
    for _ in range(8):
        fit = mx.lmer(formula, frame, variance=mx.VarPower(covariate="mean"))
        frame["mean"] = fit.fittedvalues
    assert fit.llf == pytest.approx(record["logLik"], abs=1e-5)
    assert fit.sigma == pytest.approx(record["sigma"], rel=1e-3)
    np.testing.assert_allclose(fit.residual_structure["estimate"], natural_of(record), rtol=1e-3)


# -- SAS -----------------------------------------------------------------------------------------


def trial() -> pd.DataFrame:
    return load_data("fev_data")


@cache
def mmrm() -> mx.LinearMixedFit:
    return mx.gls(
        "FEV1 ~ RACE + SEX + ARMCD * AVISIT",
        trial(),
        residual=mx.Unstructured(time="AVISIT", group="USUBJID"),
        variance=mx.VarIdent(by="AVISIT"),
    )


def sas(file: str) -> dict[str, Any]:
    return next(r for r in load_json("sas_mixed.json")["records"] if r["file"] == file)


def as_printed(value: float, printed: float, digits: int, last: int = 1) -> bool:
    """Say whether a value agrees with a printed one to its last digit or so."""
    return abs(value - printed) <= (0.5 + last) * 10.0**-digits


def test_the_mmrm_of_a_trial_has_the_numbers_of_sas() -> None:
    record, fit = sas("sas_log_reml.txt"), mmrm()
    assert as_printed(fit.criterion, record["minus2ll"], 1, 0)
    table = fit.tidy()
    for name, (estimate, error, df) in record["fixed"].items():
        row = table.loc[table["term"] == name].iloc[0]
        assert as_printed(row["estimate"], estimate, 4, 3), name
        assert as_printed(row["std_error"], error, 4), name
        assert as_printed(row["df"], df, 0, 0), name
    tests = fit.anova(ddf="sas")
    for name, (num_df, den_df, F) in record["type3"].items():
        row = tests.loc[name]
        assert row["NumDF"] == num_df
        assert as_printed(row["DenDF"], den_df, 0, 0), name
        # the default rule for several rows does not depend on which visit is the first
        assert fit.anova().loc[name, "DenDF"] == pytest.approx(den_df, rel=0.05)
        assert as_printed(row["F value"], F, 2), name
    means = fit.emmeans("ARMCD", by="AVISIT").to_frame()
    for name, (estimate, error, df) in record["means"].items():
        visit, arm = name.split()
        row = means[(means["ARMCD"] == arm) & (means["AVISIT"] == visit)].iloc[0]
        assert as_printed(row["emmean"], estimate, 4, 3)
        assert as_printed(row["std_error"], error, 4)
        assert as_printed(row["df"], df, 0, 0)


def test_the_covariance_of_the_trial_is_that_of_sas() -> None:
    fit = mmrm()
    natural = dict(zip(fit.residual_structure["parameter"], fit.residual_structure["estimate"],
                       strict=True))  # fmt: skip
    sd = [fit.sigma, *(fit.sigma * natural[f"ratio(VIS{i})"] for i in (2, 3, 4))]
    # the record has the first visit, its reference, last
    order = {1: 1, 2: 2, 3: 3, 4: 0}
    for parameter in sas("sas_log_reml.txt")["parameters"]:
        i, j = (order[int(k)] for k in parameter["name"][3:-1].split(","))
        low, high = sorted((i, j))
        rho = 1.0 if i == j else natural[f"rho({low + 1},{high + 1})"]
        estimate = parameter["estimate"]
        assert rho * sd[i] * sd[j] == pytest.approx(estimate, abs=2e-3 * max(abs(estimate), 1.0))


SAS_STRUCTURES: dict[str, tuple[Any, Any, bool]] = {
    "sas_ar1_ml.txt": (mx.AR1("VISITN", "USUBJID"), None, False),
    "sas_ar1h_reml.txt": (mx.AR1("VISITN", "USUBJID"), mx.VarIdent("VISITN"), True),
    "sas_cs_reml.txt": (mx.CompoundSymmetry("USUBJID"), None, True),
    "sas_csh_ml.txt": (mx.CompoundSymmetry("USUBJID"), mx.VarIdent("VISITN"), False),
    "sas_group_ar1_ml.txt": (
        mx.AR1("VISITN", "USUBJID", by="ARMCD"), mx.VarIdent("ARMCD"), False
    ),
    "sas_sp_exp_ml.txt": (mx.Exponential("VISITN", "USUBJID"), None, False),
    "sas_toeph_reml.txt": (mx.Toeplitz("VISITN", "USUBJID"), mx.VarIdent("VISITN"), True),
}


@pytest.mark.parametrize("file", sorted(SAS_STRUCTURES))
def test_sas_structures(file) -> None:
    correlation, variance, reml = SAS_STRUCTURES[file]
    fit = mx.gls("FEV1 ~ 1", trial(), residual=correlation, variance=variance, reml=reml)
    record = sas(file)
    assert as_printed(fit.criterion, record["minus2ll"], 1, 0)
    table = fit.residual_structure.set_index("parameter")
    natural = table["estimate"]
    for parameter in record["parameters"]:
        name, group, printed = parameter["name"], parameter["group"], parameter["estimate"]
        if name.startswith("Var") or name == "Residual":
            level = {None: name[4:-1]}.get(group, group)
            ratio = natural.get(f"ratio({level})", 1.0)
            value = (fit.sigma * ratio) ** 2
            if "CS" in natural or file == "sas_cs_reml.txt":
                value *= 1.0 - natural["rho"]
        elif name == "CS":
            value = natural["rho"] * fit.scale
        elif name == "SP(EXP)":
            value = natural["range"]
        else:
            key = {"CSH": "rho"}.get(name, "phi" + (f"|{group}" if group else ""))
            if name.startswith("TOEPH"):
                key = f"rho({name[6:-1]})"
            value = natural[key]
        assert value == pytest.approx(printed, rel=2e-3, abs=2e-4), name
