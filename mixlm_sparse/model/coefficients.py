"""The coefficients as a Series that, when it is called, says that it is an attribute.

R's users write `fixef(fit)` and from there `fit.fixef()`.  Python's message for that names the
class of what was called: the name of this one is what to do.  The class has nothing else of its
own, above all it cannot be called, because pandas takes what can be for a function (`Series.map`);
whatever is computed from it is a plain Series, and it compares as one where pandas compares types
(`assert_series_equal`).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pandas as pd

from mixlm_sparse.common.types import Vector
from mixlm_sparse.design.table import own_index

__all__ = ["Coefficients", "named_values"]


class _AsSeries(type):
    """The type of a class that counts as pandas' own."""

    def __eq__(cls, other: object) -> bool:
        return other is pd.Series or other is cls

    def __hash__(cls) -> int:
        return hash(pd.Series)


class Coefficients(pd.Series, metaclass=_AsSeries):
    """A Series with a class name that helps."""

    @property
    def _constructor(self) -> type[pd.Series]:
        return pd.Series


def named_values(
    values: Vector, names: tuple[str, ...], kind: type[pd.Series[float]] = pd.Series
) -> pd.Series[float]:
    """Return a Series of its own of values (p,) by the names of the columns of X."""
    return kind(values, index=own_index(_index_of(names)), dtype=np.float64, copy=True)


@lru_cache(maxsize=64)
def _index_of(names: tuple[str, ...]) -> pd.Index[str]:
    """Return names as pandas keeps them, which takes it longer than all else of a Series."""
    return pd.Index(list(names))


# what Python puts before "object is not callable"; pickle goes by the qualified name
Coefficients.__name__ = "fit.fixef is an attribute, written without parentheses: its Series"
