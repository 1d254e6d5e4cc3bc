"""Which variance parameters of a model are held at a value."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Hold:
    """A standard deviation (in units of the response) or correlation at a value.

    Parameters
    ----------
    term : index of the random term.
    parameter : index among the natural parameters of its structure.
    kind : "sd" or "cor".
    effect : which effect of the term, for a standard deviation.
    value : what it is held at.
    """

    term: int
    parameter: int
    kind: str
    effect: int
    value: float


@dataclass(frozen=True, slots=True)
class Held:
    """All that is held.

    Parameters
    ----------
    names : per parameter its name and value, as the user gave them.
    holds : of random terms.
    sigma : the residual standard deviation, or None.
    """

    names: tuple[tuple[str, float], ...]
    holds: tuple[Hold, ...]
    sigma: float | None

    @property
    def count(self) -> int:
        """Number of parameters that are held."""
        return len(self.names)
