"""Engines that factor C = Lambda' Z'WZ Lambda + I behind one interface."""

from __future__ import annotations

from mixlm_sparse.common.checks import require_one_of
from mixlm_sparse.engines.blocked.engine import BlockedEngine
from mixlm_sparse.engines.cholmod import CholmodEngine
from mixlm_sparse.engines.empty import EmptyEngine
from mixlm_sparse.engines.interface import BlockSystem, Engine
from mixlm_sparse.engines.multifrontal.engine import SparseEngine
from mixlm_sparse.engines.names import ENGINES


def make_engine(name: str, system: BlockSystem) -> Engine:
    """Return the engine of that name, its symbolic work done.

    Raises
    ------
    OptionError : no engine has that name.
    EngineError : the engine needs a package that is not installed.
    """
    require_one_of("engine", name, ENGINES)
    if not system.factors:
        return EmptyEngine()
    if name == "cholmod":
        return CholmodEngine(system)
    if name == "sparse":
        return SparseEngine(system)
    return BlockedEngine(system)
