"""Standard deviations, correlations and sigma: their names, values and bounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mixlm_sparse.common.checks import listed, plain_name, shown
from mixlm_sparse.common.errors import OptionError
from mixlm_sparse.common.types import Matrix, Vector
from mixlm_sparse.model.base import FitBase, unit_of_theta

if TYPE_CHECKING:
    from mixlm_sparse.solve.system import PenalizedSystem

# Kinds of variance parameters; coefficients are of the kind "beta".
VARIANCE_KINDS = ("sd", "cor", "sigma", "residual")
# A standard deviation below this share of the residual's, or a correlation this close to one,
# is on the boundary: neither has a quadratic neighbourhood there.
ZERO_SD_RTOL = 1e-4


@dataclass(frozen=True, slots=True)
class VarianceParameter:
    """One standard deviation or correlation.

    Parameters
    ----------
    kind : "sd", "cor" or "sigma".
    name : lme4's name: "sd_(Intercept)|Subject", "cor_Days.(Intercept)|Subject", "sigma"; for
        what several effects share "sd|Subject", "rho|Subject", "phi|Subject", "rho2|Subject"; no
        coefficient of the model has it.
    group : lme4's name of the component: "Subject", "Subject.1", "Residual".
    term : index of the random-effects term, -1 for sigma.
    row, column : which effects of the term; equal for a standard deviation.
    columns : names of the effects (row, column).
    index : place among the parameters of its term; for sigma 0.
    least : the least value that it can have.
    shared : several effects share it.
    """

    kind: str
    name: str
    group: str
    term: int
    row: int
    column: int
    columns: tuple[str, str]
    index: int = 0
    least: float = 0.0
    shared: bool = False

    @property
    def bounds(self) -> tuple[float, float]:
        return (self.least, 1.0) if self.kind == "cor" else (0.0, float("inf"))


def variance_parameters(system: PenalizedSystem) -> tuple[VarianceParameter, ...]:
    """List the parameters in lme4's order: by terms, down the columns of the triangle; sigma.

    A name that a coefficient has is left to the coefficient: beside a predictor called sigma, the
    residual standard deviation is `sd_Residual`.
    """
    out: list[VarianceParameter] = []
    used: set[str] = set(system.x_names)
    for t, term in enumerate(system.matrices.terms):
        label = system.matrices.factors[term.factor].label
        for index, par in enumerate(system.templates[t].natural_parameters):
            i, j = par.row, par.column
            pair = term.column_names[i], term.column_names[j]
            stem = f"sd_{pair[0]}" if par.kind == "sd" else f"cor_{pair[0]}.{pair[1]}"
            stem = par.label or stem
            name = f"{stem}|{label}"
            if name in used:  # the same effect in two terms of one factor
                name = _unused(f"{stem}|{term.name}", used)
            used.add(name)
            least = 0.0 if par.kind == "sd" else par.least
            shared = bool(par.label)
            out.append(
                VarianceParameter(par.kind, name, term.name, t, i, j, pair, index, least, shared)
            )
    name = "sigma" if "sigma" not in used else _unused("sd_Residual", used)
    out.append(VarianceParameter("sigma", name, "Residual", -1, 0, 0, ("", "")))
    return tuple(out)


def _unused(name: str, used: set[str]) -> str:
    while name in used:
        name += "_"
    return name


def parameter_values(
    parameters: Sequence[VarianceParameter], factors: Sequence[Matrix], sigma: float | Vector
) -> Vector:
    """Return sds, correlations and sigma at relative factors in the user's columns.

    Parameters
    ----------
    factors : per term, any (k, k) root of the relative covariance; or r of them, (r, k, k).
    sigma : a number; or (r,).

    Returns
    -------
    (len(parameters),) or (r, len(parameters)) array; a correlation with a zero standard deviation
    is NaN.
    """
    covariances = [np.matmul(T, np.swapaxes(T, -1, -2)) for T in factors]
    sds = [np.sqrt(np.diagonal(S, axis1=-2, axis2=-1)) for S in covariances]
    out = np.empty((*np.shape(sigma), len(parameters)))
    for at, par in enumerate(parameters):
        if par.kind == "sigma":
            out[..., at] = sigma
        elif par.kind == "sd":
            out[..., at] = sigma * sds[par.term][..., par.row]
        else:
            product = sds[par.term][..., par.row] * sds[par.term][..., par.column]
            cov = covariances[par.term][..., par.row, par.column]
            nothing = np.full(product.shape, np.nan)
            ratio = np.divide(cov, product, out=nothing, where=product > 0.0)
            out[..., at] = np.clip(ratio, -1.0, 1.0)
    return out


def estimated_values(fit: FitBase, parameters: Sequence[VarianceParameter]) -> Vector:
    """Return the estimates of sds, correlations and sigma, (len(parameters),)."""
    factors = [fit.solution.Lambda(t) for t in range(len(fit.matrices.terms))]
    out = parameter_values(parameters, factors, unit_of_theta(fit))
    out[[par.kind == "sigma" for par in parameters]] = fit.sigma
    return out


def relative_lengths(system: PenalizedSystem) -> list[Vector]:
    """Return, per term, the root mean square (k,) of each column, by which sds compare to sigma."""
    return [np.sqrt((Rz * Rz).sum(axis=0)) for Rz in system.products.Rz]


def parameter_kinds(fit: FitBase) -> dict[str, str]:
    """Return the kind of each parameter by its name: "sd", "cor", "sigma", "residual", "beta".

    No two parameters have one name, whatever the predictors are called.
    """
    kinds = {par.name: par.kind for par in variance_parameters(fit.system)}
    kinds |= dict.fromkeys(residual_names(fit.system), "residual")
    return {**kinds, **dict.fromkeys(fit.system.x_names, "beta")}


def residual_names(system: PenalizedSystem) -> tuple[str, ...]:
    """Return the names of the parameters of the residual structure; no coefficient has them."""
    if system.whitened is None:
        return ()
    used = set(system.x_names)
    return tuple(_unused(name, used) for name in system.whitened.law.names)


def residual_values(system: PenalizedSystem) -> Vector:
    """Return the parameters of the residual structure, (n_rho,), on their natural scale."""
    if system.whitened is None:
        return np.zeros(0)
    return system.whitened.law.natural(system.whitened.rho)[0]


def chosen_names(
    requested: object, kinds: Mapping[str, str], argument: str = "parm"
) -> list[str]:
    """Return the names asked for, in the order of `kinds`.

    Parameters
    ----------
    requested : None for all; a name, names, or the groups "theta_" (sds, correlations and sigma)
        and "beta_" (coefficients).
    kinds : kind of each parameter by its name, as `parameter_kinds` gives them.
    argument : how the caller's argument is called.

    Raises
    ------
    OptionError : a name is not known; the message lists all.
    """
    if requested is None:
        return list(kinds)
    wanted: list[object] = (
        [requested] if isinstance(requested, str) else _entries(requested, argument)
    )
    groups = {
        "theta_": [name for name, kind in kinds.items() if kind in VARIANCE_KINDS],
        "beta_": [name for name, kind in kinds.items() if kind == "beta"],
    }
    chosen: set[str] = set()
    for name in wanted:
        if isinstance(name, str) and name in kinds:
            chosen.add(name)
        elif isinstance(name, str) and plain_name(name) in kinds:
            chosen.add(plain_name(name))
        elif isinstance(name, str) and groups.get(name):
            chosen.update(groups[name])
        else:
            raise OptionError(
                f"{argument} names the parameter {shown(name)}, which the model does not have: use "
                f"'theta_' (variance parameters), 'beta_' (coefficients) or names out of "
                + listed(kinds, 12, quoted=True)
            )
    return [name for name in kinds if name in chosen]


def _entries(requested: object, argument: str) -> list[object]:
    if isinstance(requested, Mapping) or isinstance(requested, range):
        raise OptionError(f"{argument} is {shown(requested)}: give a name or a list of names")
    try:
        entries: list[object] = list(requested)  # type: ignore[call-overload]
    except TypeError:
        raise OptionError(
            f"{argument} is {shown(requested)}: give a name or a list of names"
        ) from None
    if not entries:
        raise OptionError(
            f"{argument} is empty: give at least one name, or leave it out for all parameters"
        )
    return entries
