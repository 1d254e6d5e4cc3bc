"""What a covariance structure says of itself: its natural parameters, and where its edges are."""

from __future__ import annotations

from dataclasses import dataclass

from mixlm_sparse.common.types import Vector

__all__ = ["Edges", "NaturalParameter"]


@dataclass(frozen=True, slots=True)
class NaturalParameter:
    """One number of the natural scale: a standard deviation or a correlation of two effects.

    Attributes
    ----------
    kind : "sd" or "cor".
    row, column : which effects of the term; equal for a standard deviation.  Where several effects
        share the parameter, the first of them.
    label : its name where several effects share it: "sd", "rho", "phi", "rho2"; else "".
    least : the least value that it can have: 0, or for a correlation -1 or more.
    """

    kind: str
    row: int
    column: int
    label: str = ""
    least: float = -1.0


@dataclass(frozen=True, slots=True)
class Edges:
    """What a search has to know where working parameters are on the edge of what they can mean.

    Attributes
    ----------
    snapped : (n_theta,) the parameters, exactly on the edges that they are close to.
    inside : per edge, parameters (n_theta,) a little and far off it, nearest first.
    """

    snapped: Vector
    inside: tuple[Vector, ...]
