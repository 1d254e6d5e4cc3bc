"""What a fit would take: rows, random effects, structure, memory and time, without a search."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from mixlm_sparse.common.errors import EngineError, NotPositiveDefiniteError
from mixlm_sparse.common.tables import PrintsAsTable, ResultTable, as_result
from mixlm_sparse.engines.memory import free_bytes, size_text
from mixlm_sparse.model.call import ModelCall
from mixlm_sparse.model.run import assemble
from mixlm_sparse.solve.criterion import criterion_and_gradient
from mixlm_sparse.solve.system import PenalizedSystem

__all__ = ["Plan", "plan_of", "reachable_bytes"]


@dataclass(frozen=True, repr=False)
class Plan(PrintsAsTable):
    """What a fit would take; prints as a table of its random terms.

    Attributes
    ----------
    formula : of the model.
    fits : whether it can be fitted here; if not, `reason` says why and what to do.
    nobs, n_fixed, n_theta : rows used, columns of the fixed part that are kept, parameters of the
        search.
    terms : one row for each random term: levels, effects a level, effects in all, structure.
    q : random effects in all.
    engine : how an evaluation is done.
    order : order of the largest dense matrix that is factored.
    fill : entries of the factor, but for what is eliminated level by level.
    bytes : of products, factor and work space.
    free : bytes that are free now, or None.
    seconds_products, seconds_evaluation : measured; of the criterion with its gradient.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> plan = mx.plan("Reaction ~ Days + (Days | Subject)", mx.datasets.load("sleepstudy"))
    >>> plan.nobs, plan.q, plan.n_theta, plan.fits
    (180, 36, 3, True)
    """

    formula: str
    fits: bool
    reason: str = ""
    nobs: int = 0
    n_fixed: int = 0
    n_theta: int = 0
    terms: pd.DataFrame = dataclasses.field(default_factory=pd.DataFrame, repr=False)
    q: int = 0
    engine: str = ""
    order: int = 0
    fill: int = 0
    bytes: int = 0
    free: int | None = None
    seconds_products: float = float("nan")
    seconds_evaluation: float = float("nan")

    def to_frame(self) -> pd.DataFrame:
        """Return a row for each random term: term, levels, effects, q, structure."""
        return self.terms.copy()

    def _table(self) -> ResultTable:
        heading = f"Plan of {self.formula}"
        if not self.fits:
            answer = pd.DataFrame({"": ["cannot be fitted here"]})
            return as_result(answer, heading=heading, notes=[self.reason])
        free = "" if self.free is None else f" of {size_text(self.free)} that are free"
        notes = [
            f"rows {self.nobs}, fixed columns {self.n_fixed}, random effects {self.q}, "
            f"parameters of the search {self.n_theta}",
            *(line.strip() for line in self.engine.splitlines()),
            *([f"entries of the factor {self.fill}"] if self.fill else []),
            f"memory beside the data {size_text(self.bytes)}{free}",
            f"products {self.seconds_products:.3g} s, an evaluation with its gradient "
            f"{self.seconds_evaluation:.3g} s; a search takes some 10 to 30",
        ]
        terms = self.terms if len(self.terms) else pd.DataFrame({"random terms": ["none"]})
        return as_result(terms, heading=heading, notes=notes)


def plan_of(call: ModelCall) -> Plan:
    """Form the products of a call and evaluate its criterion once."""
    began = time.perf_counter()
    try:
        system, _ = assemble(call)
    except EngineError as error:
        return Plan(call.formula, False, str(error), free=free_bytes())
    formed = time.perf_counter() - began
    return Plan(
        formula=call.formula,
        fits=True,
        nobs=system.n,
        n_fixed=system.p,
        n_theta=system.n_theta,
        terms=_terms(system),
        q=system.q,
        engine=system.describe(),
        order=system.engine.dense_order,
        fill=system.engine.fill,
        bytes=reachable_bytes((system.products, system.engine, vars(system).get("fused"))),
        free=free_bytes(),
        seconds_products=formed,
        seconds_evaluation=_seconds(system, call.options.reml),
    )


def _terms(system: PenalizedSystem) -> pd.DataFrame:
    rows = []
    for term in system.matrices.terms:
        levels = system.matrices.factors[term.factor].n_levels
        k = len(term.column_names)
        rows.append((term.name, levels, k, levels * k, term.structure))
    return pd.DataFrame(rows, columns=["term", "levels", "effects", "q", "structure"])


def _seconds(system: PenalizedSystem, reml: bool) -> float:
    try:
        criterion_and_gradient(system.theta0, system, reml=reml)  # buffers, perhaps compilation
        began = time.perf_counter()
        criterion_and_gradient(system.theta0, system, reml=reml)
    except NotPositiveDefiniteError:
        return float("nan")
    return time.perf_counter() - began


def reachable_bytes(thing: Any) -> int:
    """Return the bytes of all arrays that `thing` holds, in attributes, lists and dictionaries."""
    seen: set[int] = set()
    arrays: dict[int, int] = {}
    waiting = [thing]
    while waiting:
        item = waiting.pop()
        if id(item) in seen or item is None or isinstance(item, str | int | float | type):
            continue
        seen.add(id(item))
        if isinstance(item, np.ndarray):
            whole = item
            while isinstance(whole.base, np.ndarray):
                whole = whole.base
            arrays[id(whole)] = whole.nbytes
        elif isinstance(item, dict):
            waiting += item.values()
        elif isinstance(item, list | tuple | set | frozenset):
            waiting += item
        elif type(item).__module__.startswith(__name__.partition(".")[0]):
            waiting += list(getattr(item, "__dict__", {}).values())
            waiting += [
                getattr(item, name)
                for cls in type(item).__mro__
                for name in getattr(cls, "__slots__", ())
                if hasattr(item, name)
            ]
            if dataclasses.is_dataclass(item):
                waiting += [getattr(item, f.name, None) for f in dataclasses.fields(item)]
        elif type(item).__module__.startswith("scipy.sparse"):
            waiting += [getattr(item, name, None) for name in ("data", "indices", "indptr")]
    return sum(arrays.values())
