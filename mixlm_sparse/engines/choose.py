"""Engines that factor C = Lambda' Z'WZ Lambda + I behind one interface."""

from __future__ import annotations

from mixlm_sparse.common.checks import require_one_of
from mixlm_sparse.common.errors import EngineError
from mixlm_sparse.engines.blocked.engine import BlockedEngine
from mixlm_sparse.engines.empty import EmptyEngine
from mixlm_sparse.engines.interface import BlockSystem, Engine, Penalties
from mixlm_sparse.engines.krylov.settings import Estimation
from mixlm_sparse.engines.names import ENGINES

# From this order of a dense block on, one evaluation repays the symbolic analysis of all of C ...
ANALYSED_FROM = 5_000
# ... of up to so many entries: a few seconds for each million.
ANALYSED_ENTRIES = 5_000_000
# Measured by benchmarks.solvers: multiply-adds of the sparse form take no longer than those that
# the blocked one counts; below this share it is surely the quicker one.
SPARSE_SHARE = 0.8


def make_engine(
    name: str,
    system: BlockSystem,
    penalties: Penalties = (),
    estimation: Estimation | None = None,
) -> Engine:
    """Return the engine of that name, its symbolic work done.

    Parameters
    ----------
    penalties : per factor what takes the place of I where its levels have a known covariance.
    estimation : random vectors and tolerance of "krylov".

    Raises
    ------
    OptionError : no engine has that name.
    EngineError : the engine needs a package that is not installed, or cannot hold penalties, or
        levels of one factor that meet each other.
    """
    require_one_of("engine", name, ENGINES)
    if not system.factors:
        return EmptyEngine()
    # engines that small models have no use for are loaded where they are made
    if name == "cholmod":
        from mixlm_sparse.engines.cholmod import CholmodEngine

        return CholmodEngine(system, penalties)
    known = any(penalty is not None for penalty in penalties)
    if name == "sparse" or (name == "auto" and (known or system.own_pairs)):
        from mixlm_sparse.engines.multifrontal.engine import SparseEngine

        return SparseEngine(system, penalties)
    if known:
        raise EngineError(
            f"engine '{name}' cannot hold known covariances of levels: use 'auto' or 'sparse'"
        )
    if system.own_pairs:
        raise EngineError(
            f"engine '{name}' cannot hold a grouping factor whose levels share rows (a membership, "
            "or residual groups that cross it): use 'auto' or 'sparse'"
        )
    if name == "krylov":
        from mixlm_sparse.engines.krylov.engine import KrylovEngine

        return KrylovEngine(system, estimation or Estimation())
    return _automatic(system) if name == "auto" else BlockedEngine(system)


def _automatic(system: BlockSystem) -> Engine:
    """Return the blocked engine or, beside a large dense block, what takes less of the two.

    Elimination by whole factors joins everything that a level with many rows meets; an order of
    elimination of its own can leave such levels to the end, and fills in less.
    """
    blocked: Engine | None = None
    failed: EngineError | None = None
    try:
        blocked = BlockedEngine(system)
    except EngineError as error:  # its dense block does not fit into memory
        failed = error
    entries = sum(pair.values.size for pair in system.pairs.values())
    if entries <= ANALYSED_ENTRIES and (blocked is None or blocked.dense_order >= ANALYSED_FROM):
        from mixlm_sparse.engines.multifrontal.engine import SparseEngine

        try:
            sparse = SparseEngine(system)
        except EngineError:
            pass
        else:
            if blocked is None or sparse.work < SPARSE_SHARE * blocked.work:
                return sparse
    if blocked is None:
        assert failed is not None
        raise failed
    return blocked
