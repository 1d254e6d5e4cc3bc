"""No number depends on where the search began: it is the same, or NaN from both starts."""

from __future__ import annotations

import re
import warnings

import numpy as np
import pandas as pd
import pytest

import mixlm_sparse as mx

QUIET = mx.Control(warn=False)

# the first ones leave something undetermined
FORMULAS = [
    "y ~ x + (1 | g) + (1 | same)",
    "y ~ x + arm + (1 | arm) + (1 | g)",
    "y ~ x + (x | g) + (1 | g)",
    "y ~ x + (x | g) + (x | same)",
    "y ~ x + (w | g)",
    "y ~ x + (1 | g) + (0 + arm | g)",
    "y ~ x * arm + (x | arm) + (1 | g)",
    "y ~ x + (1 | g) + (1 | h)",
    "y ~ x + w + (x | g)",
    "y ~ x + (x || g) + (1 | h)",
]


def rows(seed: int) -> pd.DataFrame:
    """A small unbalanced design; w is constant within g, `same` is g by another name."""
    rng = np.random.default_rng(seed)
    levels, n = int(rng.integers(8, 14)), int(rng.integers(50, 90))
    g, h = rng.integers(0, levels, n), rng.integers(0, 6, n)
    x, w = rng.normal(size=n), rng.normal(size=levels)[g]
    sizes = rng.choice([0.3, 1.0, 2.0], 3)
    y = 1.0 + 0.5 * x + rng.normal(size=n) + sizes[0] * rng.normal(size=levels)[g]
    y += sizes[1] * rng.normal(size=levels)[g] * x * rng.integers(0, 2)
    y += sizes[2] * rng.normal(size=6)[h] * rng.integers(0, 2)
    arm = np.array(["a", "b", "c"])[g % 3]
    return pd.DataFrame(
        {"y": y, "x": x, "w": w, "g": g, "h": h, "arm": arm, "same": [f"n{i}" for i in g]}
    )


def starts(formula: str, data: pd.DataFrame, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    lower = mx.deviance_function(formula, data).lower
    sds, others = rng.uniform(0.2, 2.0, lower.size), 0.3 * rng.normal(size=lower.size)
    return np.where(lower == 0.0, sds, others)


def numbers(table) -> np.ndarray:
    if isinstance(table, dict):
        return np.concatenate([numbers(one) for one in table.values()])
    labelled = isinstance(table, pd.DataFrame | pd.Series)
    columns = pd.DataFrame(table if labelled else np.asarray(table)).select_dtypes("number")
    return columns.to_numpy(dtype=float).ravel()


def _limits_by_logs(table):
    """Limits of a standard deviation are those of its log, exponentiated: of one that is hardly
    seen they are 1e-46 and 1e40, and their logs are what rounding leaves alone."""
    table = pd.DataFrame(table).copy()
    wide = table["lower"].between(0.0, 1e-10, inclusive="neither") | (table["upper"] > 1e10)
    for limit in ("lower", "upper"):
        table.loc[wide, limit] = np.log(table.loc[wide, limit])
    return table


def printed(fit: mx.LinearMixedFit, data: pd.DataFrame) -> dict[str, np.ndarray]:
    """Return the numbers of everything that a fit prints."""
    new = data.head(4)
    tables = {
        "coefficients": fit.tidy(),
        "normal": fit.tidy(ddf="normal", conf_int=True),
        "covariance": fit.cov_params(),
        "varcorr": fit.varcorr.to_frame(),
        "parameters": fit.tidy(effects="ran_pars"),
        "components": _limits_by_logs(fit.variance_components()),
        "ranef": fit.ranef(),
        "cond_var": {k: v.reshape(len(v), -1) for k, v in fit.ranef(cond_var=True)[1].items()},
        "coef": fit.coef(),
        "components of effects": fit.rePCA(),
        "fitted": fit.fittedvalues,
        "residuals": fit.residuals(scaled=True),
        "hat": fit.hatvalues(),
        "predict": fit.predict(new, se=True),
        "interval": fit.predict(new, interval="prediction"),
        "population": fit.predict(new, re_form="~0", se=True),
        "simulate": fit.simulate(2, seed=1),
        "shares": fit.icc(),
        "r2": fit.r2(),
        "anova": fit.anova(),
        "anova KR": fit.anova(ddf="kenward-roger"),
        "ranova": fit.ranova(),
        "glance": fit.glance().drop(columns=["evaluations"], errors="ignore"),
        "emmeans": fit.emmeans("x", at={"x": [0.0, 1.0]}).to_frame(),
        "table": np.array(re.findall(r"-?\d+\.\d+", str(mx.compare_table(fit))), dtype=float),
    }
    if list(fit.ngroups) in (["g"], ["g", "same"]):  # nothing crosses these clusters
        tables["robust"] = fit.robust("g", type="CR2").to_frame()
    return {name: numbers(table) for name, table in tables.items()}


def assert_equal(formula: str, seed: int) -> None:
    data = rows(seed)
    found = []
    for start in (None, starts(formula, data, seed)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fit = mx.lmer(formula, data, start=start, control=QUIET)
            found.append((fit.criterion, printed(fit, data)))
    (first, one), (second, other) = found
    if abs(first - second) > 1e-5:
        return  # another valley: a given start searches its own
    for name, values in one.items():
        scale = np.abs(values[np.isfinite(values)]).max(initial=1.0)
        np.testing.assert_allclose(
            other[name], values, rtol=2e-3, atol=2e-4 * scale, err_msg=f"{formula}, {seed}: {name}"
        )


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("formula", FORMULAS)
def test_every_number_is_the_same_from_another_start(formula, seed):
    assert_equal(formula, seed)


def nearly_flat(kind: str, eps: float, seed: int) -> tuple[str, pd.DataFrame]:
    """Effects that differ by eps from what other effects are already."""
    data = rows(seed)
    rng = np.random.default_rng(seed)
    if kind == "parallel":
        data["s"] = 1.0 + eps * rng.normal(size=len(data))
        return "y ~ x + (1 | g) + (0 + s | g)", data
    if kind == "twice":
        return "y ~ x + (x | g) + (0 + s | g)", data.assign(
            s=data["x"] + eps * rng.normal(size=len(data))
        )
    arms = {f"a{k}": (data["arm"] == k) + eps * rng.normal(size=len(data)) for k in "bc"}
    return "y ~ x + ab + ac + (1 | arm) + (1 | g)", data.assign(**arms)


@pytest.mark.parametrize("eps", [1e-4, 1e-5, 1e-7])
@pytest.mark.parametrize("kind", ["parallel", "twice", "hidden"])
def test_what_is_hardly_seen_does_not_depend_on_the_start(kind, eps):
    for seed in range(3):
        formula, data = nearly_flat(kind, eps, seed)
        found = []
        for start in (None, starts(formula, data, seed), starts(formula, data, seed + 50)):
            fit = mx.lmer(formula, data, start=start, control=QUIET)
            S = [T @ T.T for T in fit.system.chart.factors(fit.optimum.phi)]
            found.append((fit.criterion, np.concatenate([one.ravel() for one in S])))
        best = min(criterion for criterion, _ in found)
        same = [S for criterion, S in found if criterion < best + 1e-5]
        for S in same[1:]:
            np.testing.assert_allclose(S, same[0], atol=2e-3 * np.abs(same[0]).max())
