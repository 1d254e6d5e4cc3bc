"""Profile the deviance: hold one parameter at a time and let the others adapt."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import ndtri

from mixlm_sparse.common.checks import require_bool, require_jobs, require_level
from mixlm_sparse.common.errors import NotPositiveDefiniteError, OptionError
from mixlm_sparse.common.parallel import Progress, run
from mixlm_sparse.engines.threads import one_blas_thread
from mixlm_sparse.inference.variance.components import component_rows, undetermined
from mixlm_sparse.inference.variance.profile.curve import ParameterProfile, Profile
from mixlm_sparse.inference.variance.profile.follow import Follow, Point, Target
from mixlm_sparse.inference.variance.profile.in_step import profiles_in_step
from mixlm_sparse.inference.variance.profile.targets import (
    AT_ZERO,
    Base,
    is_coordinate,
    prepared,
    undefined_curve,
)
from mixlm_sparse.model.parameters import (
    VarianceParameter,
    chosen_names,
    parameter_kinds,
    parameter_values,
    variance_parameters,
)
from mixlm_sparse.model.refits import steady_refits
from mixlm_sparse.solve.optimize import optimize
from mixlm_sparse.solve.profiled.lockstep import lockstep_serves
from mixlm_sparse.solve.search.optimum import Optimum
from mixlm_sparse.solve.system import PenalizedSystem

if TYPE_CHECKING:
    from mixlm_sparse.model.fitted import FittedModel

EXACT = "the model fits the response exactly"
NOT_DEFINED = "undefined: parameters of the residuals are at the end of their range"
# Points of a curve, about: each is a search.
POINTS = 15


def profile(
    fit: FittedModel,
    which: object = None,
    *,
    level_max: float = 0.999,
    reml: bool = False,
    n_jobs: int = 1,
    progress: Progress = None,
) -> Profile:
    """Profile the deviance: hold one parameter at a time and let the others adapt.

    zeta = sign(value - estimate) sqrt(d(value) - d(estimate)) is a straight line where the
    likelihood is quadratic.  As in lme4, d is the ML deviance also after REML.

    Parameters
    ----------
    which : names of parameters, "theta_" (standard deviations, correlations, sigma) or "beta_"
        (coefficients); None for all.
    level_max : largest level for which limits will be read off.
    reml : profile the REML criterion; variance parameters only.
    n_jobs : processes, -1 for all cores.
    progress : called with (done, total) parameters; returning False ends the work.

    Returns
    -------
    Profile : `.confint(level)`, `.to_frame()`, `.zeta`, and a `ParameterProfile` by name.  A
        curve that does not rise enough before a bound (0, or -1 and 1) ends there: the limit is
        the bound and `note` says so.  What the data do not determine has no curve and no limits.

    Raises
    ------
    OptionError : unknown name, a level outside of (0, 1), reml=True for coefficients or for a
        fit by ML.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> fit = mx.lmer("Yield ~ 1 + (1 | Batch)", mx.datasets.load("Dyestuff"))
    >>> fit.profile("sigma").confint(0.9)[["lower", "upper"]].round(2)
           lower  upper
    sigma  39.73  64.07
    """
    reml, n_jobs = require_bool("reml", reml), require_jobs(n_jobs)
    began = time.perf_counter()
    level_max = require_level("level_max", level_max)
    names = _profiled(fit, which, reml)
    base = _ml_or_reml(fit, reml)
    unknown = {**undetermined(base.fit), **undetermined(fit)}
    profiles = _Work(base, tuple(names), float(ndtri(0.5 + 0.5 * level_max)), unknown)
    work = steady_refits(profiles, base.fit.system, POINTS * len(names))
    together = n_jobs == 1 and lockstep_serves(base.fit.system)
    size = max(len(names), 1) if together else 1
    results, _ = run(work, len(names), size, n_jobs=n_jobs, progress=progress)
    return Profile(
        curves=tuple(curve for curve, _ in results),
        parameters=tuple(parameter_kinds(fit)),
        level_max=level_max,
        reml=reml,
        n_evaluations=sum(count for _, count in results),
        seconds=time.perf_counter() - began,
    )


def _profiled(fit: FittedModel, which: object, reml: bool) -> list[str]:
    """Return the names of the parameters to be profiled, or say why one cannot be."""
    if fit.unbounded or fit.optimum.no_residual:
        why = "nothing is left to the residuals" if fit.optimum.no_residual else EXACT
        raise OptionError(f"{why}: sigma is zero and nothing can be profiled; use method='wald'")
    if reml and not fit.reml:
        raise OptionError(
            "reml=True profiles the REML criterion, but the fit is by ML: profile "
            "fit.refit_reml(), or leave reml out"
        )
    kinds = parameter_kinds(fit)
    names = chosen_names(which, kinds, "which")
    if reml:
        if which is not None and any(kinds[name] == "beta" for name in names):
            raise OptionError(
                "coefficients have no REML profile, for the criterion depends on the fixed part: "
                "leave reml=True out, or name variance parameters only"
            )
        names = [name for name in names if kinds[name] != "beta"]
    constant = {} if fit.system.held is None else dict(fit.system.held.names)
    asked = [name for name in names if name in constant]
    if asked and which is not None and len(asked) == len(names):
        raise OptionError(
            f"{asked[0]} is held at {constant[asked[0]]:g}: there is nothing to profile"
        )
    names = [name for name in names if name not in constant]
    structured = {
        par.name
        for par in variance_parameters(fit.system)
        if par.term >= 0 and not _can_be_held(fit.system, par)
    }
    not_held = [name for name in names if name in structured]
    if not_held and which is not None:
        raise OptionError(
            f"{not_held[0]} belongs to a structured term, whose parameters are functions of "
            "fewer ones and cannot be held one at a time: use method='wald' or method='boot'"
        )
    return [name for name in names if name not in structured]


def _can_be_held(system: PenalizedSystem, par: VarianceParameter) -> bool:
    """Say whether a parameter can be held in its term's factor, or by its coordinate of phi."""
    template = system.templates[par.term]
    return template.positions is not None or is_coordinate(system, par)


def _ml_or_reml(fit: FittedModel, reml: bool) -> Base:
    base = fit if reml else fit.refit_ml()
    if not np.isfinite(base.criterion):
        only_ml = np.isfinite(fit.criterion)
        how, remedy = ("by maximum likelihood ", ", or profile(reml=True)") if only_ml else ("", "")
        raise OptionError(
            f"{how}the model fits its {fit.nobs} rows exactly: sigma is zero and the deviance has "
            f"no profile; use method='wald'{remedy}"
        )
    if base.optimum.no_residual:
        raise OptionError(
            "by maximum likelihood nothing is left to the residuals: sigma is zero and the "
            "deviance has no profile; use method='wald', or profile(reml=True)"
        )
    # ends of profiles are differences of criteria: start from the last digit
    optimum: Optimum = base.optimum
    if optimum.optimizer not in ("bfgs", "lbfgsb"):
        start = np.concatenate([optimum.theta, optimum.rho])
        optimum = optimize(base.system, reml=reml, start=start)
    errors = np.array([std_error for *_, std_error, _, _ in component_rows(base)[0]])
    parameters = variance_parameters(base.system)
    blocks = base.system.chart.user_factors(base.system.chart.factors(optimum.phi))
    return Base(
        fit=base,
        phi=optimum.phi,
        rho=optimum.rho,
        criterion=optimum.criterion,
        sigma=base.sigma,
        reml=reml,
        parameters=parameters,
        values=parameter_values(parameters, blocks, base.sigma),
        errors=errors,
    )


@dataclass(frozen=True, eq=False, slots=True)
class _Work:
    """The profiles of a range of the names; plain data, so that it can go to other processes."""

    base: Base
    names: tuple[str, ...]
    z_max: float
    unknown: dict[str, str]

    def __call__(self, tasks: range) -> list[tuple[ParameterProfile, int]]:
        names = [self.names[i] for i in tasks]
        with one_blas_thread():
            found = profiles_in_step(
                self.base, [name for name in names if name not in self.unknown], self.z_max
            )
            return [found.get(name) or self._profile(name) for name in names]

    def _profile(self, name: str) -> tuple[ParameterProfile, int]:
        why = self.unknown.get(name)
        if why is None:
            try:
                return _profile_of(self.base, name, self.z_max)
            except NotPositiveDefiniteError:
                why = NOT_DEFINED
        kind = parameter_kinds(self.base.fit)[name]
        return undefined_curve(kind, name, (math.nan, math.nan), self.base.width, why), 0


def _profile_of(base: Base, name: str, z_max: float) -> tuple[ParameterProfile, int]:
    """Return the profile of one parameter, and the number of evaluations that it took."""
    target, held = prepared(base, name)
    if math.isnan(target.estimate):
        return undefined_curve(target.kind, name, target.bounds, base.width, AT_ZERO), 0
    follow = Follow(target, held, base.parameters, base.criterion, z_max, reml=base.reml)
    if target.kind == "cor":
        follow.ceiling, count = _ceiling(base, target, z_max)
        follow.n_evaluations += count
    return follow.followed(), follow.n_evaluations


def _ceiling(base: Base, target: Target, z_max: float) -> tuple[Point, int]:
    """Return the least criterion with one of the two standard deviations at zero, and its cost.

    There every value of the correlation is as good as any other, so no profile of it rises
    above; a search that stays inside would not notice.
    """
    points, count = [], 0
    for name in base.deviations_of(target):
        own, held = prepared(base, name)
        follow = Follow(own, held, base.parameters, base.criterion, z_max, reml=base.reml)
        drop, x = follow.solve(0.0, follow.x0)
        points.append(follow.point(0.0, math.sqrt(max(drop, 0.0)), x))
        count += follow.n_evaluations
    return min(points, key=lambda point: point.zeta), count
