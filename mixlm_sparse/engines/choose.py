"""Engines that factor C = Lambda' Z'WZ Lambda + I behind one interface."""

from __future__ import annotations

from mixlm_sparse.common.checks import require_one_of
from mixlm_sparse.common.errors import EngineError
from mixlm_sparse.engines.blocked.engine import BlockedEngine
from mixlm_sparse.engines.cholmod import CholmodEngine
from mixlm_sparse.engines.empty import EmptyEngine
from mixlm_sparse.engines.interface import BlockSystem, Engine, Penalties
from mixlm_sparse.engines.krylov.engine import KrylovEngine
from mixlm_sparse.engines.multifrontal.engine import SparseEngine
from mixlm_sparse.engines.names import ENGINES


def make_engine(name: str, system: BlockSystem, penalties: Penalties = ()) -> Engine:
    """Return the engine of that name, its symbolic work done.

    Parameters
    ----------
    penalties : per factor what takes the place of I where its levels have a known covariance.

    Raises
    ------
    OptionError : no engine has that name.
    EngineError : the engine needs a package that is not installed, or cannot hold penalties.
    """
    require_one_of("engine", name, ENGINES)
    if not system.factors:
        return EmptyEngine()
    if name == "cholmod":
        return CholmodEngine(system, penalties)
    known = any(penalty is not None for penalty in penalties)
    if name == "sparse" or (name == "auto" and known):
        return SparseEngine(system, penalties)
    if known:
        raise EngineError(
            f"engine '{name}' cannot hold known covariances of levels: use 'auto' or 'sparse'"
        )
    return KrylovEngine(system) if name == "krylov" else BlockedEngine(system)
