"""Comparison of covariance structures: a chi-squared only where one is a case of the other."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import mixlm_sparse as mx

QUIET = mx.Control(warn=False)
FORMULA = "distance ~ age * Sex"


def orthodont() -> pd.DataFrame:
    data = mx.datasets.load("Orthodont")
    return data.assign(visit=((data["age"] - 8) / 2).astype(int), k=data["age"])


RESIDUALS = {
    "independent": None,
    "cs": mx.CompoundSymmetry(group="Subject"),
    "ar1": mx.AR1("visit", "Subject"),
    "car1": mx.CAR1("visit", "Subject"),
    "toep": mx.Toeplitz("visit", "Subject"),
    "ante": mx.AnteDependence("visit", "Subject"),
    "un": mx.Unstructured("visit", "Subject"),
    "by": mx.AR1("visit", "Subject", by="Sex"),
    "exp": mx.Exponential("age", "Subject"),
}


@pytest.fixture(scope="module")
def fits():
    data = orthodont()
    return {name: mx.gls(FORMULA, data, residual=r, reml=False, control=QUIET)
            for name, r in RESIDUALS.items()}  # fmt: skip


@pytest.mark.parametrize(
    ("small", "large", "how"),
    [
        ("independent", "cs", "inside"), ("independent", "ar1", "inside"),
        ("independent", "un", "inside"), ("independent", "car1", "edge"),
        ("independent", "exp", "edge"), ("cs", "toep", "inside"), ("cs", "un", "inside"),
        ("ar1", "toep", "inside"), ("ar1", "ante", "inside"), ("ar1", "un", "inside"),
        ("ante", "un", "inside"), ("toep", "un", "inside"), ("ar1", "by", "inside"),
        ("cs", "by", "not"), ("cs", "ante", "not"), ("exp", "un", "not"), ("by", "un", "not"),
    ],
)  # fmt: skip
def test_residual_structures(fits, small, large, how) -> None:
    table = mx.anova(fits[small], fits[large], names=[small, large])
    row, note = table.loc[large], table.attrs.get("note", "")
    assert np.isfinite(table[["AIC", "BIC", "logLik"]].to_numpy()).all()
    if how == "not":
        assert row[["Chisq", "Df", "Pr(>Chisq)"]].isna().all()
        assert f"{small} and {large}" in note
        assert "no special case" in note
    else:
        assert row["Chisq"] == pytest.approx(
            max(fits[small].criterion - fits[large].criterion, 0.0), abs=1e-9
        )
        assert 0.0 <= row["Pr(>Chisq)"] <= 1.0
        assert ("end of a parameter's range" in note) == (how == "edge")


def test_variance_functions() -> None:
    data = orthodont()
    by = [None, mx.VarIdent(by="Sex"), mx.VarIdent(by=["Sex", "visit"]), mx.VarPower("age")]
    fits = [mx.gls(FORMULA, data, variance=v, reml=False) for v in by]
    assert np.isfinite(mx.anova(fits[0], fits[1])["Pr(>Chisq)"].iloc[1])
    assert np.isfinite(mx.anova(fits[1], fits[2])["Pr(>Chisq)"].iloc[1])
    assert np.isnan(mx.anova(fits[3], fits[2])["Pr(>Chisq)"].iloc[1])


def test_a_random_intercept_is_compound_symmetry_at_its_edge(fits) -> None:
    random = mx.lmer(FORMULA + " + (1 | Subject)", orthodont(), reml=False)
    table = mx.anova(random, fits["un"])
    assert np.isfinite(table["Pr(>Chisq)"].iloc[1])
    assert "end of a parameter's range" in table.attrs["note"]
    assert np.isnan(mx.anova(random, fits["ante"])["Pr(>Chisq)"].iloc[1])


def test_structures_of_random_effects() -> None:
    data = pd.concat([orthodont(), orthodont().assign(distance=lambda d: d["distance"] + 1.3)])
    rng = np.random.default_rng(1)
    data["distance"] += rng.normal(size=len(data))
    inside = "0 + factor(visit) | Subject"
    formulas = {
        "id": f"id({inside})", "cs": f"cs({inside}, hom = TRUE)", "ar1": f"ar1({inside})",
        "toep": f"toep({inside}, hom = TRUE)", "us": f"us({inside})",
        "ar1h": f"ar1({inside}, hom = FALSE)", "diag": f"diag({inside})",
    }  # fmt: skip
    fits = {name: mx.lmer(f"{FORMULA} + {term}", data, reml=False, control=QUIET)
            for name, term in formulas.items()}  # fmt: skip
    nested = [("id", "cs"), ("id", "toep"), ("cs", "toep"), ("ar1", "toep"), ("cs", "us"),
              ("ar1", "ar1h"), ("diag", "us"), ("toep", "us"), ("diag", "ar1h")]  # fmt: skip
    for small, large in nested:
        assert np.isfinite(mx.anova(fits[small], fits[large])["Pr(>Chisq)"].iloc[1]), (small, large)
    for small, large in [("cs", "ar1h"), ("cs", "diag"), ("toep", "ar1h")]:
        table = mx.anova(fits[small], fits[large])
        assert table["Pr(>Chisq)"].iloc[1:].isna().all(), (small, large)


def test_tables_side_by_side_have_the_residual_parameters(fits) -> None:
    text = str(mx.compare_table([fits["ar1"], fits["un"]], names=["ar1", "un"]))
    phi = fits["ar1"].residual_structure["estimate"][0]
    assert f"{phi:.3f}" in next(line for line in text.splitlines() if "Residual phi" in line)
    assert "Residual rho(1,2)" in text


def test_variance_components_hold_the_residual_parameters() -> None:
    fit = mx.lmer(FORMULA + " + (1 | Subject)", orthodont(), residual=mx.AR1("visit", "Subject"),
                  variance=mx.VarIdent("Sex"), control=QUIET)  # fmt: skip
    table = fit.variance_components()
    assert list(table.index) == ["sd_(Intercept)|Subject", "sigma", "phi", "ratio(Female)"]
    own = fit.residual_structure
    columns = ["estimate", "std_error", "lower", "upper"]
    np.testing.assert_allclose(
        table.loc[["phi", "ratio(Female)"], columns].to_numpy(float), own[columns].to_numpy(float)
    )
    wald = fit.confint("wald").loc[table.index]
    np.testing.assert_allclose(wald, table[["lower", "upper"]].to_numpy(float))
    assert set(table.loc[["phi", "ratio(Female)"], "grp"]) == {"Residual"}


def test_arguments_that_were_not_given_have_no_name() -> None:
    fit = mx.lmer("distance ~ age + (1 | Subject)", orthodont())
    assert (fit.weights_name, fit.offset_name, fit.subset_name) == (None, None, None)
    weighted = mx.lmer("distance ~ age + (1 | Subject)", orthodont(), weights="age")
    assert weighted.weights_name == "age"
    within = mx.lmer("distance ~ age + offset(k) + (1 | Subject)", orthodont())
    assert "in the formula" in str(within.summary())
