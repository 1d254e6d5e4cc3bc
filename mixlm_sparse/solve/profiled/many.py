"""One design, a block of responses: all searches in one compiled call."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from mixlm_sparse.common.types import Array3, Vector
from mixlm_sparse.solve.pls import PERFECT_FIT_RTOL
from mixlm_sparse.solve.profiled.fused import fused_search
from mixlm_sparse.solve.profiled.objective import ProfiledObjective
from mixlm_sparse.solve.profiled.valleys import other_starts
from mixlm_sparse.solve.search.optimum import Optimum, report
from mixlm_sparse.solve.search.search import Control, default_limit
from mixlm_sparse.solve.search.status import Status
from mixlm_sparse.solve.system import PenalizedSystem


def optimize_block(
    system: PenalizedSystem,
    zy: Sequence[Array3],
    yy: Vector,
    y_length: Vector,
    *,
    reml: bool,
    start: Vector | None,
    control: Control,
) -> list[Optimum | None]:
    """Search for each of r responses of one design.

    Parameters
    ----------
    system : of any response; its design is shared.
    zy : per grouping factor, (L, K, r) Z'W y_f in the working columns.
    yy, y_length : (r,) residual sum of squares of least squares; length of the response.
    start : (m,) theta to start from, or None for moment estimates.

    Returns
    -------
    per response its optimum, or None where `optimize` has to look: where there is no compiled
    search, for perfect fits, and where the compiled search gives up.
    """
    r = yy.size
    out: list[Optimum | None] = [None] * r
    search = fused_search(system, reml=reml, count=r)
    if search is None:
        return out
    began = time.perf_counter()
    usual = np.flatnonzero((np.sqrt(yy) > PERFECT_FIT_RTOL * y_length) & (yy > 0.0))
    width = max(f.width for f in system.products.blocks.factors)
    responses = np.concatenate(
        [np.pad(z[:, :, usual], ((0, 0), (0, width - z.shape[1]), (0, 0))) for z in zy]
    )
    info = np.finfo(np.float64)
    phi, gradient, numbers, counts = search.minimize_many(
        None if start is None else np.tile(system.chart.phi_of_theta(start), (usual.size, 1)),
        np.moveaxis(responses, 2, 0),
        yy[usual],
        np.maximum((info.eps * y_length[usual]) ** 2, info.tiny),
        tolerance=control.tolerance,
        limit=control.max_evaluations or default_limit("bfgs", system.n_theta),
    )
    for at, i in enumerate(usual):
        if counts[at, 2]:
            continue
        objective = ProfiledObjective(system, reml)
        objective.n_values, objective.n_gradients = int(counts[at, 0]), int(counts[at, 1])
        found = report(
            objective, phi[at], float(numbers[at, 0]), gradient[at],
            float(numbers[at, 1]), bool(numbers[at, 2]), "bfgs", control.gradient_tolerance, began,
        )  # fmt: skip
        singular = found.status is Status.SINGULAR
        if start is None and other_starts(system, singular=singular):
            continue  # a second look is worth while
        if start is not None and found.status is Status.NOT_CONVERGED:
            continue
        out[i] = found
    return out
