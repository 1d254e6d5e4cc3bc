"""Tables in the form of broom: tidy, glance, augment, and the sizes of groups."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import ndtri

from mixlm_sparse.common.checks import require_bool, require_level, require_names
from mixlm_sparse.common.tables import result_table
from mixlm_sparse.common.text import percent
from mixlm_sparse.common.types import Vector
from mixlm_sparse.design.table import Column
from mixlm_sparse.inference.fixed.methods import linear_tests, require_ddf
from mixlm_sparse.inference.fixed.tests import METHODS
from mixlm_sparse.inference.variance.components import random_components
from mixlm_sparse.inference.variance.residual_structure import residual_table
from mixlm_sparse.model.batches.rows import Batches
from mixlm_sparse.model.data import all_rows, data_columns
from mixlm_sparse.model.fitted import FittedModel
from mixlm_sparse.model.parameters import variance_parameters
from mixlm_sparse.model.rowless import BATCHES
from mixlm_sparse.model.rows import padded, row_index

EFFECTS = ("fixed", "ran_pars", "ran_vals")
HEADINGS = {
    "fixed": "Fixed effects",
    "ran_pars": "Standard deviations and correlations of random effects",
    "ran_vals": "Predicted random effects",
}
COLUMNS = ["effect", "group", "level", "term", "estimate", "std_error", "statistic", "df",
           "p_value", "conf_low", "conf_high"]  # fmt: skip


@result_table()
def tidy(
    fit: FittedModel,
    effects: str | Sequence[str] = "fixed",
    *,
    ddf: str | None = "satterthwaite",
    conf_int: bool = False,
    level: float = 0.95,
) -> pd.DataFrame:
    """Return estimates as a table of one row each.

    Parameters
    ----------
    effects : "fixed", "ran_pars" (standard deviations and correlations; parameters of the residual
        structure as terms of the group Residual), "ran_vals" (predicted
        random effects), or several of them.
    ddf : tests of the fixed effects: "satterthwaite", "kenward-roger" (a fit by ML is fitted
        again by REML, with a warning), "normal" or None for none.
    conf_int : add conf_low and conf_high, and standard errors of the random parameters.
    level : coverage.

    Returns
    -------
    DataFrame with columns effect, group, term, estimate, std_error, statistic, df, p_value and,
    if asked for, conf_low, conf_high; with "ran_vals" also level.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> fit = mx.lmer("Reaction ~ Days + (Days | Subject)", mx.datasets.load("sleepstudy"))
    >>> fit.tidy()
    Fixed effects
    effect  term         estimate  std_error  statistic    df   p_value
    fixed   (Intercept)   251.405      6.825     36.838  17.0    <2e-16
    fixed   Days           10.467      1.546      6.771  17.0  3.26e-06
    Note: tests of fixed effects by Satterthwaite's degrees of freedom
    >>> table = fit.tidy("ran_pars", conf_int=True).to_frame()
    >>> table[["group", "term", "estimate", "conf_low", "conf_high"]].round(3)
          group                   term  estimate  conf_low  conf_high
    0   Subject        sd__(Intercept)    24.740    15.582     39.283
    1   Subject               sd__Days     5.922     3.918      8.951
    2   Subject  cor__(Intercept).Days     0.066    -0.518      0.608
    3  Residual        sd__Observation    25.592    22.800     28.725
    """
    conf_int = require_bool("conf_int", conf_int)
    wanted = require_names("effects", effects, EFFECTS, "kind of effects")
    require_ddf(ddf)
    level = require_level("level", level)
    tables = []
    for effect in wanted:
        if effect == "fixed":
            tables.append(_fixed(fit, ddf, level))
        elif effect == "ran_pars":
            tables.append(_parameters(fit, level, errors=conf_int))
        else:
            tables.append(_values(fit, level))
    table = tables[0] if len(tables) == 1 else pd.concat(tables, ignore_index=True)
    columns = [name for name in COLUMNS if name != "level" or "ran_vals" in wanted]
    if not conf_int:
        columns = columns[:-2]
    out = table[columns]
    out.attrs["blank"] = _unasked(out["effect"], require_ddf(ddf), errors=conf_int)
    out.attrs["heading"] = "Estimates" if len(wanted) > 1 else HEADINGS[wanted[0]]
    out.attrs["notes"] = _kinds(fit, wanted, require_ddf(ddf), level if conf_int else None)
    return out


def _unasked(effect: pd.Series[str], ddf: str, *, errors: bool) -> dict[str, list[int]]:
    """Return the rows in which a column has nothing to say: random effects have no tests."""
    random = np.flatnonzero(effect != "fixed").tolist()
    # without a method there is a statistic, but no distribution
    untested = list(range(len(effect))) if ddf == "none" else random
    out = {"statistic": random, "df": untested, "p_value": untested}
    if not errors:
        out["std_error"] = np.flatnonzero(effect == "ran_pars").tolist()
    return out


def _kinds(
    fit: FittedModel, effects: Sequence[str], ddf: str, level: float | None
) -> list[str]:
    """Say which tests and intervals the table has."""
    notes = []
    if "fixed" in effects and not fit.perfect:
        if ddf != "none":
            notes.append(f"tests of fixed effects by {METHODS[ddf]}")
        if level is not None:
            method = METHODS["normal" if ddf == "none" else ddf]
            notes.append(f"{percent(level)} intervals of fixed effects by {method}")
    if level is not None and "ran_pars" in effects:
        notes.append(
            f"{percent(level)} Wald intervals of random parameters, on the scale of log sd and "
            "atanh correlation"
        )
    if level is not None and "ran_vals" in effects:
        notes.append(
            f"{percent(level)} intervals of random effects by the normal distribution, given the "
            "variances"
        )
    if fit.error_reason:
        notes.append(fit.error_reason)
    return notes


def _frame(rows: dict[str, Any], count: int) -> pd.DataFrame:
    columns: dict[str, Any] = {}
    for name in COLUMNS:
        if name in ("effect", "group", "level", "term"):
            given = rows.get(name)
            values = [given] * count if given is None or isinstance(given, str) else list(given)
            columns[name] = pd.Series(values, dtype=object)
        else:
            columns[name] = np.asarray(rows.get(name, np.full(count, np.nan)), dtype=np.float64)
    return pd.DataFrame(columns, index=range(count))


def _fixed(fit: FittedModel, ddf: str | None, level: float) -> pd.DataFrame:
    names = fit.system.x_names
    tests = linear_tests(fit, np.eye(len(names)), ddf=ddf)
    columns = tests.columns(level=level)
    limits = {"conf_low": columns.pop("lower"), "conf_high": columns.pop("upper")}
    return _frame({"effect": "fixed", "term": names, **columns, **limits}, len(names))


def _parameters(fit: FittedModel, level: float, *, errors: bool) -> pd.DataFrame:
    """Standard deviations and correlations, broom.mixed's names."""
    found = fit.varcorr.parameters()
    group, term, estimate = [], [], []
    for name, kind, first, second, value in found:
        group.append(name)
        estimate.append(value)
        if name == "Residual":
            term.append("sd__Observation")
        elif second is not None:
            term.append(f"cor__{first}.{second}")
        else:
            term.append(first if kind == "cor" or first == "sd" else f"sd__{first}")
    rows: dict[str, Any] = {
        "effect": "ran_pars",
        "group": group,
        "term": term,
        "estimate": estimate,
    }
    if errors and not fit.perfect:
        keys = [_key(name, kind, first, second) for name, kind, first, second, _ in found]
        rows |= _parameter_errors(fit, level, keys)
    table = _frame(rows, len(term))
    residual = residual_table(fit, level)
    if residual.empty:
        return table
    figures = {"estimate": "estimate"}
    if errors:
        figures |= {"std_error": "std_error", "conf_low": "lower", "conf_high": "upper"}
    more: dict[str, Any] = {"effect": "ran_pars", "group": "Residual"}
    more["term"] = residual["parameter"].tolist()
    more |= {to: residual[of].to_numpy(np.float64) for to, of in figures.items()}
    return pd.concat([table, _frame(more, len(residual))], ignore_index=True)


def _parameter_errors(fit: FittedModel, level: float, keys: list[object]) -> dict[str, Any]:
    found = random_components(fit, level=level)
    by_key = {}
    parameters = variance_parameters(fit.system)
    for par, row in zip(parameters, found.itertuples(index=False), strict=True):
        key = _key(par.group, par.kind, *par.columns)
        if par.shared or par.kind == "sigma":
            key = _key(par.group, par.kind, par.name.split("|")[0])
        elif par.kind == "sd":
            key = _key(par.group, par.kind, par.columns[0])
        by_key[key] = (row.std_error, row.lower, row.upper)
    missing = (np.nan, np.nan, np.nan)
    rows = [by_key.get(key, missing) for key in keys]
    errors = np.array(rows, dtype=np.float64).reshape(-1, 3)
    return {"std_error": errors[:, 0], "conf_low": errors[:, 1], "conf_high": errors[:, 2]}


def _key(group: object, kind: str, *columns: object) -> object:
    """Name a component whatever the order of its columns."""
    if group == "Residual":
        return group
    return group, kind, frozenset(name for name in columns if isinstance(name, str))


def _values(fit: FittedModel, level: float) -> pd.DataFrame:
    """Predicted random effects with their conditional standard deviations."""
    effects, variances = fit.ranef(cond_var=True)
    z = float(ndtri(0.5 + 0.5 * level))
    tables = []
    for label, frame in effects.items():
        levels, k = frame.shape
        estimate = frame.to_numpy().ravel()
        error = np.sqrt(np.diagonal(variances[label], axis1=1, axis2=2)).ravel()
        tables.append(
            _frame(
                {
                    "effect": "ran_vals",
                    "group": label,
                    "level": np.repeat(np.asarray(frame.index, dtype=object), k),
                    "term": list(frame.columns) * levels,
                    "estimate": estimate,
                    "std_error": error,
                    "conf_low": estimate - z * error,
                    "conf_high": estimate + z * error,
                },
                levels * k,
            )
        )
    # a model without random effects has none
    return pd.concat(tables, ignore_index=True) if tables else _frame({}, 0)


@result_table("Fit")
def glance(fit: FittedModel) -> pd.DataFrame:
    """Return the figures of the fit as one row: nobs, sigma, llf, aic, bic, criterion, ...

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> fit = mx.lmer("Reaction ~ Days + (Days | Subject)", mx.datasets.load("sleepstudy"))
    >>> fit.glance()[["nobs", "sigma", "aic", "bic"]].round(2)
       nobs  sigma      aic      bic
    0   180  25.59  1755.63  1774.79
    """
    row: dict[str, Any] = {
        "nobs": fit.nobs,
        "n_par": fit.n_par,
        "df_resid": fit.df_resid,
        "sigma": fit.sigma,
        "llf": fit.llf,
        "aic": fit.aic,
        "bic": fit.bic,
        "criterion": fit.criterion,
        "reml": fit.reml,
        "converged": fit.convergence.converged,
        "singular": fit.is_singular(),
    }
    row |= {f"n_{label}": count for label, count in fit.ngroups.items()}
    return pd.DataFrame([row])


@result_table("Rows and what the fit says of them")
def augment(fit: FittedModel) -> pd.DataFrame:
    """Return the rows used: the columns of the formula and what the fit says of each row.

    Columns .fitted, .resid, .fixed (without random effects), .hat, .std_resid (sqrt(w) (y - mu) /
    sigma), .cooksd, .normalized (with a residual structure:
    whitened by it, over sigma), and .weights and .offset where there are any.  With
    na_action="exclude" all rows of the data, with NaN in those not used.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> fit = mx.lmer("Reaction ~ Days + (Days | Subject)", mx.datasets.load("sleepstudy"))
    >>> fit.augment().head(2)[["Reaction", "Days", "Subject", ".fitted", ".resid", ".hat"]].round(3)
       Reaction  Days Subject  .fitted  .resid   .hat
    0   249.560   0.0     308  253.664  -4.104  0.229
    1   258.705   1.0     308  273.330 -14.625  0.170
    """
    if isinstance(fit.system.source, Batches):
        BATCHES.say()  # fit.stream yields the same, batch by batch
    columns: dict[str, Any] = _data_columns(fit)
    own: dict[str, Any] = {
        ".fitted": padded(fit.matrices, fit.fitted_used),
        ".resid": padded(fit.matrices, fit.resid_used),
        ".fixed": padded(fit.matrices, fit.solution.fitted(include_random=False)),
        ".hat": fit.hatvalues().to_numpy(),
        ".std_resid": _scaled_residuals(fit),
    }
    own[".cooksd"] = fit.cooks_distance().to_numpy()
    if fit.matrices.law is not None:
        own[".normalized"] = fit.residuals("normalized", scaled=True).to_numpy()
    if fit.matrices.weights is not None:
        own[".weights"] = padded(fit.matrices, fit.matrices.weights)
    if fit.matrices.offset is not None:
        own[".offset"] = padded(fit.matrices, fit.matrices.offset)
    return pd.DataFrame({**columns, **own}, index=row_index(fit.matrices))


def _scaled_residuals(fit: FittedModel) -> Vector:
    return padded(fit.matrices, fit.scaled_residuals_used)


def _data_columns(fit: FittedModel) -> dict[str, Any]:
    """Return the columns of the data that the formula names, for the rows of the results."""
    spec = fit.matrices.spec
    response = fit.matrices.response_name or "y"
    if spec is None or fit.call is None:
        return {response: padded(fit.matrices, fit.matrices.y)}
    names = [name for name in spec.formula.names if name != "pi"]
    # the response of a refit is not in the data, and its column need not be
    needed, optional = (names, ()) if fit.call.response is None else ((), names)
    if fit.matrices.na_action == "exclude":
        columns = all_rows(fit, needed, optional).columns
    else:
        columns = data_columns(fit, needed, optional)
    out = {n: plain_values(c) for n, c in columns.items() if c.kind != "membership"}
    if fit.call.response is not None or response not in out:
        out = {response: padded(fit.matrices, fit.matrices.y), **out}
    return out


def plain_values(column: Column) -> Any:
    """Return a column as a data frame has it."""
    if column.kind == "factor":
        kind = pd.CategoricalDtype(list(column.levels), ordered=column.ordered)
        return pd.Categorical.from_codes(np.asarray(column.values, dtype=np.int64), dtype=kind)
    if column.missing is not None and column.kind == "number":
        return np.where(column.missing, np.nan, column.values)
    return column.values


@result_table("Rows per level")
def group_sizes(fit: FittedModel) -> pd.DataFrame:
    """Return, for each grouping factor, its levels and the rows per level.

    Columns levels, min, mean, median, max.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> fit = mx.lmer("strength ~ 1 + (1 | batch/cask)", mx.datasets.load("Pastes"))
    >>> fit.group_sizes()
    Rows per level
                levels  min  mean  median  max
    cask:batch      30    2     2       2    2
    batch           10    6     6       6    6
    """
    rows = {}
    for factor in fit.matrices.factors:
        counts = factor.row_counts
        rows[factor.label] = (
            factor.n_levels,
            int(counts.min()),
            float(counts.mean()),
            float(np.median(counts)),
            int(counts.max()),
        )
    return pd.DataFrame.from_dict(
        rows, orient="index", columns=["levels", "min", "mean", "median", "max"]
    )
