"""What a stateful transform learns from batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixlm_sparse.common.errors import DataError
from mixlm_sparse.design.evaluate import Scope, constant_of, evaluate, vector_of
from mixlm_sparse.design.finite import powers_within_range
from mixlm_sparse.design.moments import Moments
from mixlm_sparse.design.rows import missing_cells, restrict
from mixlm_sparse.design.table import Table
from mixlm_sparse.design.transforms import TRANSFORMS, State, learn
from mixlm_sparse.formula.syntax import Call, deparse
from mixlm_sparse.formula.terms import names_of

__all__ = ["TransformLearner"]

# Knots and polynomials need the values themselves; so many of them are kept, 160 MB.
MOST_VALUES = 20_000_000


class TransformLearner:
    """What one stateful transform learns from batches: moments, or the values themselves."""

    def __init__(self, call: Call) -> None:
        self.call = call
        self._moments = Moments() if TRANSFORMS[call.function].of_moments else None
        self._values: list[NDArray[np.float64]] = []
        self._n = 0

    def add(self, table: Table, env: Mapping[str, Callable[..., Any]]) -> None:
        """Take in the rows of a piece in which the variable is there."""
        text = deparse(self.call)
        names = [name for name in names_of([self.call.args[0]]) if name in table.columns]
        columns = {name: table.columns[name] for name in names}
        missing = missing_cells(columns.values(), table.n)
        rows = None if missing is None else np.flatnonzero(~missing).astype(np.int32)
        n = table.n if rows is None else rows.size
        if not n:
            return
        scope = Scope(restrict(columns, rows), n, {}, env)
        x = vector_of(evaluate(self.call.args[0], scope), scope, text)
        x = x[np.isfinite(x)]
        if self._moments is not None:
            with powers_within_range(text):
                self._moments.add(x)
            return
        self._n += x.size
        if self._n > MOST_VALUES:
            raise DataError(
                f"{text} learns from the values themselves, and there are more than {MOST_VALUES}: "
                "give its knots= and Boundary.knots=, or make its columns in the data"
            )
        self._values.append(x.copy())

    def join(self, other: TransformLearner) -> None:
        """Take in what another has learned from other rows."""
        if self._moments is not None and other._moments is not None:
            self._moments.join(other._moments)
        self._n += other._n
        self._values += other._values

    def finish(self) -> State:
        """Return what was learned."""
        text = deparse(self.call)
        positional = [constant_of(argument, text) for argument in self.call.args[1:]]
        named = {name: constant_of(value, text) for name, value in self.call.keywords}
        x: Any = self._moments
        if x is None:
            x = np.concatenate(self._values) if self._values else np.empty(0)
        return learn(self.call.function, x, positional, named, text)
