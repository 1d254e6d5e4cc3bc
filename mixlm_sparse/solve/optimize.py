"""The optimum of a system: arguments checked, the profiled criterion searched."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np

from mixlm_sparse.common.checks import (
    listed,
    require_bool,
    require_instance,
    require_one_of,
    require_vector,
    shown,
)
from mixlm_sparse.common.errors import DataError, NotPositiveDefiniteError, OptionError
from mixlm_sparse.common.keywords import answers_unknown_keywords
from mixlm_sparse.common.types import Vector
from mixlm_sparse.engines.threads import one_blas_thread
from mixlm_sparse.solve.checkpoint import Checkpoint
from mixlm_sparse.solve.information import Seen
from mixlm_sparse.solve.judging import require_residuals_apart, unseen
from mixlm_sparse.solve.profiled.held_search import held_criterion, optimize_held
from mixlm_sparse.solve.profiled.no_noise import without_noise
from mixlm_sparse.solve.profiled.objective import ProfiledObjective
from mixlm_sparse.solve.profiled.runaway import SATURATED
from mixlm_sparse.solve.profiled.saddle import shows_all
from mixlm_sparse.solve.profiled.valleys import LARGE_START
from mixlm_sparse.solve.search.control import Control, control_of
from mixlm_sparse.solve.search.names import OPTIMIZERS
from mixlm_sparse.solve.search.objective import Progress
from mixlm_sparse.solve.search.optimum import Optimum
from mixlm_sparse.solve.search.search import search
from mixlm_sparse.solve.smallest import SAME_CRITERION, smallest
from mixlm_sparse.solve.system import PenalizedSystem
from mixlm_sparse.solve.whitened.search import optimize_whitened

# A start beyond this is refused; one beyond SATURATED is replaced by the moment estimate.
LARGEST_START = 1e7


@answers_unknown_keywords
def optimize(
    system: PenalizedSystem,
    *,
    reml: bool = True,
    start: Vector | None = None,
    optimizer: str = "auto",
    control: Control | None = None,
    progress: Progress | None = None,
) -> Optimum:
    """Minimize the profiled criterion over theta.

    Parameters
    ----------
    system : theta-free products and the engine.
    reml : restricted likelihood instead of the likelihood.
    start : (m,) theta to start from; by default a moment estimate.
    optimizer : "auto" and "bfgs" use the exact gradient; "lbfgsb" is SciPy's; "bobyqa" (NLopt) and
        "cobyqa" (SciPy) work without derivatives.
    control : tolerances and limits.
    progress : called with (evaluation, criterion, theta) at every evaluation.

    Raises
    ------
    OptionError : unknown optimizer, or a start of the wrong length or outside the bounds.
    DataError : random effects that cannot be told from the residuals; columns of X that are
        combinations of each other, if `control` refuses them.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> matrices = mx.model_matrices("Yield ~ 1 + (1 | Batch)", mx.datasets.load("Dyestuff"))
    >>> optimum = mx.optimize(mx.penalized_system(matrices), reml=False)
    >>> optimum.theta.round(5), round(optimum.criterion, 4)
    (array([0.75258]), 327.3271)
    """
    began = time.perf_counter()
    require_instance("system", system, PenalizedSystem, "use mx.penalized_system(matrices)")
    require_bool("reml", reml)
    require_one_of("optimizer", optimizer, OPTIMIZERS)
    control = control_of(control)
    if progress is not None and (isinstance(progress, type) or not callable(progress)):
        raise OptionError(
            f"progress is {shown(progress)}: use a function of (evaluation, criterion, theta)"
        )
    require_rank(system, control)
    found = _optimum(
        system, start, reml=reml, optimizer=optimizer, control=control, progress=progress,
        began=began,
    )  # fmt: skip
    if not _hardly_determined(found, system):
        return found
    # along directions that are hardly seen, where a search ends depends on where it began: it is
    # made from small and from large effects, whatever the start that was given
    chart = system.chart
    large = chart.theta_of_phi(chart.scaled(chart.start, LARGE_START))
    best = None if start is not None else found
    for begin in (large,) if start is None else (None, large):
        other = _optimum(
            system, begin, reml=reml, optimizer=optimizer,
            control=replace(control, checkpoint=None), progress=progress, began=began,
        )  # fmt: skip
        if best is None or other.criterion < best.criterion - SAME_CRITERION:
            best = other
    assert best is not None
    return found if found.criterion < best.criterion - SAME_CRITERION else best


def _hardly_determined(found: Optimum, system: PenalizedSystem) -> bool:
    """Say whether variances can change and leave the criterion as it is, or nearly."""
    if not system.templates or not np.isfinite(found.criterion):
        return False
    there = system if system.whitened is None else system.at_rho(found.rho)
    return bool(unseen(there, reml=found.reml, phi=found.phi)[0].shape[1])


def _optimum(
    system: PenalizedSystem,
    start: Vector | None,
    *,
    reml: bool,
    optimizer: str,
    control: Control,
    progress: Progress | None,
    began: float,
) -> Optimum:
    """Search from a start, or a moment estimate."""
    method = "bfgs" if optimizer == "auto" else optimizer
    begin = start
    if control.checkpoint is not None:
        checkpoint = Checkpoint(control.checkpoint, system, reml=reml, warn=control.warn)
        begin = start if checkpoint.theta is None else checkpoint.theta
        progress = checkpoint.following(progress)
    if system.whitened is not None:
        with one_blas_thread():
            return optimize_whitened(
                system, _start(system, begin), given=start is not None, reml=reml, method=method,
                control=control, progress=progress, began=began,
            )  # fmt: skip
    require_residuals_apart(system)
    phi = _start(system, begin)
    objective = ProfiledObjective(system, reml, progress)
    with one_blas_thread():
        if system.held is not None:
            found = optimize_held(
                system, phi, given=start is not None, reml=reml, control=control,
                objective=objective, began=began,
            )  # fmt: skip
            return smallest(found, system, held_criterion(found, system))
        found = search(
            objective, phi, given=start is not None, method=method, control=control, began=began
        )
        found = without_noise(found, system, objective, control=control, began=began)
        if shows_all(objective.sharp, found, system):
            Seen.all_of(system, reml=reml)
        return smallest(found, system)


def require_rank(system: PenalizedSystem, control: Control) -> None:
    """Raise a DataError if columns of X were dropped and `control` refuses that."""
    if control.rank_deficient == "error" and system.dropped:
        one = len(system.dropped) == 1
        raise DataError(
            f"the fixed-effects matrix is rank deficient: {listed(system.dropped)} "
            f"{'is a combination' if one else 'are combinations'} of earlier columns: remove the "
            f"term{'' if one else 's'}, combine levels that never occur together, or use "
            'Control(rank_deficient="drop")'
        )


def _start(system: PenalizedSystem, start: Vector | None) -> Vector | None:
    """Return phi (m,) of the user's start; None for a moment estimate."""
    if start is None:
        return None
    names = listed(system.theta_names)
    given = start.size if isinstance(start, np.ndarray) else 0  # a warm start has rho as well
    with_rho = system.n_rho > 0 and given == system.n_theta + system.n_rho
    theta = require_vector(
        "start", start, given if with_rho else system.n_theta, of=f"the parameters {names}"
    )
    theta, rho = theta[: system.n_theta], theta[system.n_theta :]
    if (theta < system.lower).any():
        raise OptionError(
            f"start must not be below the bounds {system.lower.tolist()} of {names}"
        )
    if (theta > system.chart.upper).any():
        raise OptionError(
            f"start must not be above the bounds {system.chart.upper.tolist()} of {names}"
        )
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            phi = system.chart.phi_of_theta(theta)
    except NotPositiveDefiniteError as error:
        raise OptionError(f"start is no covariance: {error}") from None
    size = system.chart.size(phi)
    if not size <= LARGEST_START:
        raise OptionError(
            f"start is so large that nothing would be left to the residuals: the values of {names} "
            "are standard deviations relative to the residual one"
        )
    return np.concatenate([phi, rho]) if size < SATURATED else None
