"""The search of a block of responses in NumPy, and criteria of one with something held."""

from __future__ import annotations

from mixlm_sparse.engines.fused.dense import DenseProducts
from mixlm_sparse.engines.fused.lockstep.dense import DenseSums
from mixlm_sparse.engines.fused.lockstep.held import HeldCriteria
from mixlm_sparse.engines.fused.lockstep.levels import LevelSums
from mixlm_sparse.engines.fused.lockstep.model import Law, Sums
from mixlm_sparse.engines.fused.lockstep.search import LockstepSearch
from mixlm_sparse.engines.fused.lockstep.start import SquaresEquations
from mixlm_sparse.solve.criterion import residual_df
from mixlm_sparse.solve.fusing import PLAIN_SIZE, SMALL_DENSE_Q
from mixlm_sparse.solve.pls import CANCELLATION_LIMIT
from mixlm_sparse.solve.profiled.fused import copied_terms, fixed_share
from mixlm_sparse.solve.profiled.runaway import can_be_all
from mixlm_sparse.solve.profiled.start import quadratic_equations
from mixlm_sparse.solve.system import PenalizedSystem

__all__ = [
    "held_criteria", "lockstep_search", "lockstep_serves", "lockstep_up_to", "searched_in_step",
]  # fmt: skip

# Columns of X, and of a grouping factor, up to which elementwise sums are quicker than calls.
MOST_COLUMNS = 24
MOST_WIDTH = 8
# Responses up to which searches in step take no longer than loading the compiled one (0.3 s) and
# searching by it: with at most two effects a level the two cost nearly the same, with more what
# loading costs is gained by so many multiply-adds of one evaluation each.
IN_STEP_UP_TO = 10_000
FEW_EFFECTS = 2
REPAID_BY = 2_000_000


def lockstep_serves(system: PenalizedSystem) -> bool:
    """Say whether searches for many responses of this design are made together in NumPy."""
    factors, products = system.products.blocks.factors, system.products
    if system.held is not None or system.whitened is not None or system.known:
        return False
    if not system.may_fuse or products.sparse or products.blocks.own_pairs:
        return False
    if not factors or products.p > MOST_COLUMNS or max(f.width for f in factors) > MOST_WIDTH:
        return False
    if len(factors) == 1 and factors[0].ztx.size >= PLAIN_SIZE:
        return False
    if len(factors) > 1 and system.q > SMALL_DENSE_Q:
        return False
    return all(template.positions is not None for template in system.templates)


def lockstep_up_to(system: PenalizedSystem) -> int:
    """Return for how many responses searches in step take no longer than the compiled one."""
    factors = system.products.blocks.factors
    if max(f.width for f in factors) <= FEW_EFFECTS:
        return IN_STEP_UP_TO
    work = sum(f.n_levels * f.width**2 * (f.width + system.p + 1) for f in factors)
    return min(IN_STEP_UP_TO, REPAID_BY // work)


def lockstep_search(system: PenalizedSystem, *, reml: bool) -> LockstepSearch | None:
    """Return the search of many responses of a design; None where there is none."""
    if not lockstep_serves(system):
        return None
    if can_be_all(system, reml=reml):  # valleys that run away are known to the single search
        return None
    return searched_in_step(system, reml=reml, squares=quadratic_equations(system))


def searched_in_step(
    system: PenalizedSystem, *, reml: bool, squares: SquaresEquations | None = None
) -> LockstepSearch:
    """Return the search in step of a design whose factors are copies of phi, whatever its size.

    Parameters
    ----------
    squares : equations that starts solve.
    """
    terms = copied_terms(system)
    assert terms is not None
    blocks = system.products.blocks
    return LockstepSearch(
        [f.ztz for f in blocks.factors],
        [f.ztx for f in blocks.factors],
        terms,
        dense=DenseProducts(blocks, 0.0, 0.0) if len(blocks.factors) > 1 else None,
        nu=residual_df(system, reml=reml),
        df=system.n - system.p,
        constant=fixed_share(system, reml=reml),
        least_pivot=CANCELLATION_LIMIT,
        reml=reml,
        squares=squares,
    )


def held_criteria(system: PenalizedSystem, *, reml: bool) -> HeldCriteria:
    """Return the criteria of the system's own response; `lockstep_serves` says where."""
    terms = copied_terms(system)
    assert terms is not None
    products = system.products
    factors = products.blocks.factors
    law = Law(
        terms, [f.width for f in factors], float(residual_df(system, reml=reml)),
        fixed_share(system, reml=reml), CANCELLATION_LIMIT, reml,
    )  # fmt: skip
    zy = [f.response[..., None] for f in factors]
    sums: Sums
    if len(factors) > 1:
        sums = DenseSums(DenseProducts(products.blocks, 0.0, 0.0), zy)
    else:
        sums = LevelSums(factors[0].ztz, factors[0].ztx, zy[0])
    return HeldCriteria(
        law, sums, products.yy, products.pwrss_floor, products.p, costly=len(factors) > 1
    )
