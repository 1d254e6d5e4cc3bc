"""What is followed along a profile: the parameter, and the criterion with it held."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mixlm_sparse.common.types import Vector
from mixlm_sparse.inference.variance.profile.curve import ParameterProfile
from mixlm_sparse.inference.variance.profile.follow import Target
from mixlm_sparse.inference.variance.profile.held import (
    Held,
    HeldCoefficient,
    HeldSigma,
    HeldVariance,
)
from mixlm_sparse.inference.variance.profile.held_factor import HeldInFactor
from mixlm_sparse.inference.variance.profile.held_natural import (
    HeldCoefficientBeside,
    HeldNatural,
)
from mixlm_sparse.inference.variance.profile.held_residual import (
    HeldBesideResiduals,
    HeldResidual,
    HeldWhitenedCoefficient,
    residual_bounds,
)
from mixlm_sparse.inference.variance.residual_structure import residual_table
from mixlm_sparse.model.parameters import (
    VarianceParameter,
    relative_lengths,
    residual_names,
)
from mixlm_sparse.solve.system import PenalizedSystem

if TYPE_CHECKING:
    from mixlm_sparse.model.fitted import FittedModel

AT_ZERO = "undefined: a standard deviation is estimated as zero"


@dataclass(frozen=True, eq=False, slots=True)
class Base:
    """The unconstrained optimum that profiles start from.

    Parameters
    ----------
    fit : by ML, or by REML where that criterion is profiled.
    phi, rho, criterion, sigma : of its optimum, to the last digit.
    parameters, values, errors : the variance parameters, their values and standard errors.
    """

    fit: FittedModel
    phi: Vector
    rho: Vector
    criterion: float
    sigma: float
    reml: bool
    parameters: tuple[VarianceParameter, ...]
    values: Vector
    errors: Vector

    @property
    def width(self) -> int:
        """Number of all parameters."""
        return len(self.parameters) + self.fit.system.n_rho + self.fit.system.p

    def deviations_of(self, target: Target) -> list[str]:
        """Return the names of the two standard deviations of a correlation of effects."""
        if target.kind != "cor":
            return []
        cor = self.parameters[target.place]
        return [
            sd.name
            for sd in self.parameters
            if sd.kind == "sd" and sd.term == cor.term and sd.row in (cor.row, cor.column)
        ]


def prepared(base: Base, name: str) -> tuple[Target, Held]:
    """Return what is followed along the profile of a parameter, and the criterion along it."""
    system, parameters = base.fit.system, base.parameters
    at = {par.name: i for i, par in enumerate(parameters)}.get(name)
    if at is not None:
        return _variance_target(base, parameters[at], at), _held(base, parameters[at])
    if name in residual_names(system):
        k = residual_names(system).index(name)
        target = _residual_target(base, name, k, len(parameters) + k)
        return target, HeldResidual(system, base.phi, base.rho, k, reml=base.reml)
    column = system.x_names.index(name)
    beta, se = base.fit.solution.beta, base.fit.standard_errors
    target = Target(
        "beta", name, float(beta[column]), (-math.inf, math.inf), float(se[column]), column
    )
    return target, _held_coefficient(base, column)


def is_coordinate(system: PenalizedSystem, par: VarianceParameter) -> bool:
    """Say whether a parameter is held by its coordinate of phi."""
    template = system.templates[par.term]
    return template.can_hold and (template.positions is None or system.held is not None)


def _held_coefficient(base: Base, column: int) -> Held:
    system = base.fit.system
    if system.whitened is not None:
        return HeldWhitenedCoefficient(system, base.phi, base.rho, column)
    if system.held is not None:
        return HeldCoefficientBeside(system, base.phi, base.sigma, column)
    return HeldCoefficient(system, base.phi, column)


def _held(base: Base, par: VarianceParameter) -> Held:
    system, inner = base.fit.system, _held_variance(base, par)
    if system.whitened is None:
        return inner
    return HeldBesideResiduals(inner, system, base.rho, reml=base.reml)


def _held_variance(base: Base, par: VarianceParameter) -> HeldVariance:
    system = base.fit.system
    if par.kind == "sigma" and system.held is None:
        return HeldSigma(system, base.phi, reml=base.reml)
    if par.kind == "sigma" or is_coordinate(system, par):
        return HeldNatural(system, base.phi, base.sigma, par, reml=base.reml)
    return HeldInFactor(system, base.phi, base.sigma, par, reml=base.reml)


def _variance_target(base: Base, par: VarianceParameter, place: int) -> Target:
    """Return the target with a first guess of its standard error."""
    estimate = float(base.values[place])
    se = float(base.errors[place])
    if math.isfinite(se) and se > 0.0:
        spread = min(se, 0.3) if par.kind == "cor" else min(se, 0.5 * max(estimate, 1e-300))
    elif par.kind == "cor":
        spread = 0.2
    elif par.kind == "sigma":
        spread = 0.2 * base.sigma
    else:
        length = relative_lengths(base.fit.system)[par.term][par.row]
        spread = 0.2 * base.sigma / float(length)
    return Target(par.kind, par.name, estimate, par.bounds, spread, place)


def _residual_target(base: Base, name: str, k: int, place: int) -> Target:
    """Return the target of parameter k of the residuals."""
    whitened = base.fit.system.whitened
    assert whitened is not None
    law = whitened.law
    values, slopes = law.natural(base.rho)
    estimate, bounds = float(values[k]), residual_bounds(law, k)
    spread = float(residual_table(base.fit)["std_error"].to_numpy(np.float64)[k])
    if not (math.isfinite(spread) and spread > 0.0):
        spread = 0.1 * max(float(np.abs(slopes[k]).max()), 1e-3)
    room = min(estimate - bounds[0], bounds[1] - estimate)
    if 0.0 < 0.5 * room < spread:
        spread = 0.5 * room
    return Target("residual", name, estimate, bounds, spread, place)


def undefined_curve(
    kind: str, name: str, bounds: tuple[float, float], width: int, note: str
) -> ParameterProfile:
    """Return a curve without points; its limits are the bounds."""
    return ParameterProfile(
        kind=kind,
        name=name,
        estimate=math.nan,
        values=np.empty(0),
        zeta=np.empty(0),
        others=np.empty((0, width)),
        bounds=bounds,
        reached=(False, False),
        note=note,
    )
