"""A table of contrasts that answers further questions."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, Protocol

import pandas as pd

from mixlm_sparse.common.keywords import answering_methods
from mixlm_sparse.common.late import LatePlots
from mixlm_sparse.common.tables import ResultTable


class Answers(Protocol):
    """Estimates, from which the questions are answered: `MarginalMeans`."""

    @property
    def contrast(self) -> Callable[..., Contrasts]: ...

    @property
    def test(self) -> Callable[..., Contrasts]: ...

    @property
    def confint(self) -> Callable[..., Contrasts]: ...

    @property
    def joint(self) -> Callable[..., ResultTable]: ...


@answering_methods
class Contrasts(ResultTable):
    """Contrasts: a data frame that prints as a table and answers further questions.

    `table["p_value"]` and all of pandas work as on any frame; `contrast`, `test`, `confint` and
    `joint` go on from the estimates, `estimates` are these.
    """

    _metadata = ["estimates"]  # noqa: RUF012 (pandas's own list)
    plot = LatePlots()
    estimates: Answers

    def contrast(self, method: Any = "pairwise", **options: Any) -> Contrasts:
        """Return contrasts of these contrasts, as `MarginalMeans.contrast`; see `by`."""
        return self.estimates.contrast(method, **options)

    def test(self, null: float = 0.0, **options: Any) -> Contrasts:
        """Test against other values, as `MarginalMeans.test`."""
        return self.estimates.test(null, **options)

    def confint(self, **options: Any) -> Contrasts:
        """Return intervals, as `MarginalMeans.confint`."""
        return self.estimates.confint(**options)

    def joint(self) -> ResultTable:
        """Test all contrasts of each family together, as `MarginalMeans.joint`."""
        return self.estimates.joint()

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Contrasts:
        return as_contrasts(
            self.estimates, pd.DataFrame(self, copy=True), copy.deepcopy(self.attrs, memo)
        )


class NamedContrasts(Contrasts):
    """The attribute `contrasts` of marginal means, whose class has a name that helps.

    It cannot be made callable: what can be called is no data for pandas.
    """


# what Python puts before "object is not callable"; pickle goes by the qualified name
NamedContrasts.__name__ = (
    "contrasts is a table, written without parentheses; write .contrast('pairwise') for a family "
    "of them: its Contrasts"
)


def as_contrasts(
    estimates: Answers,
    frame: pd.DataFrame,
    about: dict[Any, Any],
    kind: type[Contrasts] = Contrasts,
) -> Contrasts:
    """Return a frame as contrasts of these estimates; `about` are its heading and notes."""
    out = kind(frame)
    out.attrs.update(about)
    object.__setattr__(out, "estimates", estimates)
    return out
