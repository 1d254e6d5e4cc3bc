"""The compiled search in the place of the Python one, where a system is fused and small."""

from __future__ import annotations

import numpy as np

from mixlm_sparse.engines.decisions import expect_searches, search_pays
from mixlm_sparse.engines.fused import search as fused_kernels
from mixlm_sparse.engines.fused.dense import SmallDense
from mixlm_sparse.engines.fused.found import Term
from mixlm_sparse.engines.fused.levels import SingleFactor
from mixlm_sparse.engines.fused.search import FusedSearch
from mixlm_sparse.solve.average import MANY_EFFECTS
from mixlm_sparse.solve.criterion import residual_df
from mixlm_sparse.solve.pls import CANCELLATION_LIMIT
from mixlm_sparse.solve.system import PenalizedSystem

# Multiply-adds of an evaluation (about 20 ms) beyond which a search is run step by step: calls
# between evaluations cost nothing then, and Ctrl-C and progress are heard.
MAX_WORK = 2e7
# Multiply-adds that take as long as the calls which a compiled search saves, about 1 ms.
CALLS_SAVED = 1e5


def fused_search(system: PenalizedSystem, *, reml: bool, count: int = 1) -> FusedSearch | None:
    """Return the compiled search of a system, or None where there is none, or it does not pay.

    Parameters
    ----------
    count : searches that are to be made.
    """
    fused = system.fused
    if count == 1:
        expect_searches(1)
    if system.held is not None:
        return None
    if not isinstance(fused, SingleFactor | SmallDense):
        return None
    if count == 1 and system.n_theta > 1 and system.q >= MANY_EFFECTS:
        return None  # step by step the Hessian is renewed, which saves more than calls cost
    if not search_pays(fused_kernels.search_many, count * CALLS_SAVED):
        return None
    products = system.products
    factors = products.blocks.factors
    if isinstance(fused, SingleFactor):
        f = factors[0]
        if f.ztz.size * (f.width + 2.0 * f.columns) > MAX_WORK:
            return None
    terms = copied_terms(system)
    if terms is None:
        return None
    return FusedSearch(
        fused,
        [f.ztz for f in factors],
        [f.ztx for f in factors],
        terms,
        nu=residual_df(system, reml=reml),
        df=system.n - system.p,
        constant=fixed_share(system, reml=reml),
        least_pivot=CANCELLATION_LIMIT,
        reml=reml,
    )


def fixed_share(system: PenalizedSystem, *, reml: bool) -> float:
    """Return what the criterion has beside log|C|, log|R_X|^2 of the working columns and pwrss."""
    return -system.products.log_weight_sum + (system.log_det_R_x if reml else 0.0)


def copied_terms(system: PenalizedSystem) -> list[Term] | None:
    """Return the random terms; None where a T is more than its parameters.

    The search in Python knows what to do then.
    """
    terms = []
    for template, part, place in zip(
        system.templates, system.chart.slices, system.products.layout, strict=True
    ):
        positions = template.positions
        if positions is None:
            return None
        at = np.where(positions >= 0, positions + part.start, -1)
        terms.append(Term(place.factor, place.first, template.closed_under, at))
    return terms
