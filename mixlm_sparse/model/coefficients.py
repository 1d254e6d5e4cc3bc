"""The coefficients as a Series that, when it is called, says that it is an attribute.

R's users write `fixef(fit)` and from there `fit.fixef()`.  Python's message for that names the
class of what was called: the name of this one is what to do.  The class has nothing else of its
own, above all it cannot be called, because pandas takes what can be for a function (`Series.map`);
whatever is computed from it is a plain Series, and it compares as one where pandas compares types
(`assert_series_equal`).
"""

from __future__ import annotations

import pandas as pd

__all__ = ["Coefficients"]


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


# what Python puts before "object is not callable"; pickle goes by the qualified name
Coefficients.__name__ = "fit.fixef is an attribute, written without parentheses: its Series"
