"""What plots need of a fit besides its numbers: columns of its data, groups, lines over x."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import ndtri

from mixlm_sparse.common.checks import require_level, shown
from mixlm_sparse.common.errors import OptionError
from mixlm_sparse.common.types import IntVector, Matrix, Vector
from mixlm_sparse.design.levels import level_labels
from mixlm_sparse.design.matrices import ModelMatrices
from mixlm_sparse.design.table import Column, as_column
from mixlm_sparse.model.data import data_column
from mixlm_sparse.model.fitted import FittedModel
from mixlm_sparse.model.parameters import chosen_names
from mixlm_sparse.model.structured import require_random_effects
from mixlm_sparse.solve.groupwise import GroupFits, fit_groups
from mixlm_sparse.solve.rows import InMemory


class GroupedData(Protocol):
    """A fit or a list of fits: rows used, and the data they come from."""

    @property
    def matrices(self) -> ModelMatrices: ...


class SeparateFits(GroupedData, Protocol):
    """Least squares in every group on its own, as `lm_list` gives."""

    @property
    def fits(self) -> GroupFits: ...

    @property
    def names(self) -> Sequence[str]: ...


def z_value(level: float) -> float:
    """Return the normal quantile of a two-sided interval."""
    return float(ndtri(0.5 + 0.5 * require_level("level", level)))


# ---------------------------------------------------------------------------------------------
# Columns
# ---------------------------------------------------------------------------------------------


def column(source: GroupedData, values: Any, role: str) -> Column:
    """Return a column on the rows used.

    Parameters
    ----------
    values : name of a column of the data, or an array with one value for each row used or for each
        row of the data.
    role : the argument, for messages.
    """
    matrices = source.matrices
    if isinstance(values, str):
        found = data_column(source, values)
    else:
        name = getattr(values, "name", None)
        found = as_column(role if name is None else str(name), values)
    size = len(found.values)
    if matrices.rows is not None and size == matrices.n_input:
        found = found.take(matrices.rows)
    elif size != matrices.nobs:
        raise OptionError(
            f"{role} has {size} values: give one for each of the {matrices.nobs} rows used"
        )
    if found.missing is not None and found.missing.any():
        raise OptionError(
            f"{role}: '{found.name}' is missing in {int(found.missing.sum())} of the rows used: "
            "fill these cells in, or fit without these rows"
        )
    return found


def numbers(source: GroupedData, values: Any, role: str) -> tuple[str, Vector]:
    """Return name and values (n,) of a numeric column on the rows used."""
    found = column(source, values, role)
    if found.kind not in ("number", "bool"):
        raise OptionError(f"{role}: '{found.name}' is not numeric: name a column of numbers")
    return found.name, np.asarray(found.values, dtype=np.float64)


@dataclass(frozen=True, eq=False, slots=True)
class Covariate:
    """A variable with one value for each group.

    Parameters
    ----------
    values : (L,) numbers, or codes into `labels`.
    labels : categories, or None for a number.
    """

    name: str
    values: Vector
    labels: list[str] | None

    def members(self) -> list[NDArray[np.intp]]:
        """Return the groups of each category that has some, with empty ones left out."""
        assert self.labels is not None
        return [np.flatnonzero(self.values == code) for code in range(len(self.labels))]


def group_covariate(
    source: GroupedData, by: Any, codes: IntVector, levels: Sequence[str], label: str
) -> Covariate:
    """Return a variable per group: its value, or the mean of a number that varies within groups.

    Parameters
    ----------
    by : name of a column, an array with one value for each row, or one for each group; a Series is
        aligned by its index if this holds the names of the groups.
    """
    n_levels = len(levels)
    several = hasattr(by, "__len__") and getattr(by, "ndim", 1) > 0
    if not isinstance(by, str) and (isinstance(by, range) or not several):
        raise OptionError(f"by is {shown(by)}: name a column, or give one value for each group")
    if not isinstance(by, str) and len(by) == n_levels != source.matrices.nobs:
        if isinstance(by, pd.Series):
            named = by.set_axis(by.index.map(str))
            if named.index.is_unique and set(named.index) == set(levels):
                by = named.loc[list(levels)]
        found = as_column(str(getattr(by, "name", None) or "covariate"), by)
        first = np.arange(n_levels)
    else:
        found = column(source, by, "by")
        first = np.zeros(n_levels, dtype=np.intp)
        first[codes[::-1]] = np.arange(codes.size)[::-1]  # the first row of each group
        if found.kind in ("number", "bool"):
            values = np.asarray(found.values, dtype=np.float64)
            mean = np.bincount(codes, values, n_levels) / np.bincount(codes, minlength=n_levels)
            constant = (values == values[first][codes]).all()
            if found.kind == "number":
                name = found.name if constant else f"mean {found.name} of {label}"
                return Covariate(name, values[first] if constant else mean, None)
        if not (found.values == found.values[first][codes]).all():
            raise OptionError(
                f"by: '{found.name}' differs between rows of one {label}: name a variable that "
                f"belongs to {label}, or a number, of which the mean is taken"
            )
    if found.kind == "number":
        return Covariate(found.name, np.asarray(found.values, dtype=np.float64), None)
    labels = ["no", "yes"] if found.kind == "bool" else list(level_labels(found.levels))
    codes_of_groups = np.asarray(found.values)[first].astype(np.float64)
    used = np.unique(codes_of_groups).astype(int)
    return Covariate(
        found.name, np.searchsorted(used, codes_of_groups).astype(np.float64),
        [labels[code] for code in used],
    )  # fmt: skip


# ---------------------------------------------------------------------------------------------
# Groups and effects
# ---------------------------------------------------------------------------------------------


def factor_index(fit: FittedModel, group: str | None) -> int:
    """Return which grouping factor is meant; by default the first.

    Raises
    ------
    OptionError : no such factor, or none at all.
    """
    require_random_effects(fit, "this plot")
    labels = [factor.label for factor in fit.matrices.factors]
    if group is None:
        return 0
    if not isinstance(group, str) or group not in labels:
        raise OptionError(
            f"the model has no grouping factor {shown(group)}: use one of "
            + ", ".join(map(repr, labels))
        )
    return labels.index(group)


def choose(names: Sequence[str], wanted: str | None, argument: str) -> list[int]:
    """Return the places of the names asked for; None asks for all."""
    if wanted is None:
        return list(range(len(names)))
    if wanted not in names:
        raise OptionError(f"{argument} is {wanted!r}: use one of {', '.join(map(repr, names))}")
    return [list(names).index(wanted)]


def chosen_parameters(parm: Any, kinds: Mapping[str, str]) -> list[str]:
    """Return the parameters asked for, in the order in which they were; None for all.

    Parameters
    ----------
    parm : a name, names, "theta_" or "beta_".
    kinds : kind of each parameter by its name.
    """
    if not isinstance(parm, list | tuple) or not parm:
        return chosen_names(parm, kinds)
    return list(dict.fromkeys(name for one in parm for name in chosen_names(one, kinds)))


def terms_of(fit: FittedModel, factor: int) -> list[int]:
    """Return the random terms of a grouping factor."""
    return [t for t, term in enumerate(fit.matrices.terms) if term.factor == factor]


@dataclass(frozen=True, eq=False, slots=True)
class Effects:
    """Predicted random effects of one grouping factor.

    Parameters
    ----------
    names : (K,) effects; levels : (L,) their groups.
    values, sd : (L, K) conditional modes and conditional standard deviations.
    marginal_sd : (L, K) standard deviation of the conditional modes over repeated data,
        sqrt(Var(b) - Var(b | y)).
    """

    label: str
    names: list[str]
    levels: list[str]
    values: Matrix
    sd: Matrix
    marginal_sd: Matrix


def effects_of(fit: FittedModel, group: str | None) -> Effects:
    """Return the random effects of a grouping factor with their uncertainty."""
    g = factor_index(fit, group)
    label = fit.matrices.factors[g].label
    modes, covariances = fit.ranef(cond_var=True)
    frame = modes[label]
    variances = np.diagonal(covariances[label], axis1=1, axis2=2)
    prior = np.concatenate([fit.varcorr.terms[t].sd ** 2 for t in terms_of(fit, g)])
    return Effects(
        label,
        [str(name) for name in frame.columns],
        [str(level) for level in frame.index],
        frame.to_numpy(),
        np.sqrt(np.clip(variances, 0.0, None)),
        np.sqrt(np.clip(prior - variances, 0.0, None)),
    )


def random_columns(fit: FittedModel, factor: int) -> tuple[list[str], Matrix]:
    """Return names and values (n, K) of the columns of all terms of a grouping factor."""
    everything = slice(0, fit.nobs)
    terms = [fit.matrices.terms[t] for t in terms_of(fit, factor)]
    names = [name for term in terms for name in term.column_names]
    return names, np.hstack([term.columns.block(everything) for term in terms])


@dataclass(frozen=True, eq=False, slots=True)
class GroupCoefficients:
    """Least-squares coefficients of each group, as plots use them.

    Parameters
    ----------
    estimates, se : (L, p), NaN for groups that could not be fitted; se from the pooled variance.
    """

    source: GroupedData
    label: str
    levels: list[str]
    codes: IntVector
    names: list[str]
    estimates: Matrix
    se: Matrix
    df: int
    nobs: NDArray[np.int64]

    @property
    def fitted(self) -> NDArray[np.intp]:
        """Groups that could be fitted."""
        return np.flatnonzero(np.isfinite(self.estimates).all(axis=1))

    def left_out(self) -> str:
        """Say how many groups are missing, or nothing."""
        missing = len(self.levels) - self.fitted.size
        return (
            f"{missing} of {len(self.levels)} {self.label} left out: too few rows"
            if missing
            else ""
        )


def pooled_errors(fits: GroupFits) -> tuple[Matrix, float, int]:
    """Return standard errors (L, p) from the pooled residual variance, its root, and its df."""
    df = int(fits.df.sum())
    sigma = float(np.sqrt(fits.rss[:, 0].sum() / df)) if df > 0 else float("nan")
    variances = np.diagonal(fits.unscaled, axis1=1, axis2=2)
    return sigma * np.sqrt(variances), sigma, df


def group_coefficients(source: Any, group: str | None = None) -> GroupCoefficients:
    """Return the least-squares coefficients of each group.

    Parameters
    ----------
    source : a list of fits (`lm_list`), or a mixed model, of which the response is regressed on the
        columns of the random terms of `group` in every group.
    """
    matrices: ModelMatrices = source.matrices
    if isinstance(source, FittedModel):
        g = factor_index(source, group)
        names, Z = random_columns(source, g)
        y = InMemory.of(matrices).whole().target
        factor = matrices.factors[g]
        fits = fit_groups(y, Z, factor.codes, factor.n_levels, matrices.weights)
    else:
        factor, fits, names = matrices.factors[0], source.fits, list(source.names)
    se, _, df = pooled_errors(fits)
    return GroupCoefficients(
        source, factor.label, list(factor.levels), factor.codes, names,
        fits.coefficients[:, :, 0], se, df, fits.nobs,
    )  # fmt: skip


def innermost(fit: FittedModel) -> int:
    """Return the grouping factor with the most levels, within which rows follow each other.

    Raises
    ------
    OptionError : the model has no random effects.
    """
    require_random_effects(fit, "this plot")
    return int(np.argmax([factor.n_levels for factor in fit.matrices.factors]))


def spread_choice(values: Vector, count: int) -> list[int]:
    """Return `count` places spread evenly over the ranks of `values`, in their own order."""
    if values.size <= count:
        return list(range(values.size))
    ranks = np.unique(np.linspace(0, values.size - 1, count).round().astype(int))
    order = np.argsort(values, kind="stable")
    return sorted(order[ranks].tolist())
