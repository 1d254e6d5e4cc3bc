"""Searches that come back to an optimum which is known from another one.

A second look often ends where the first search did; its last evaluations then only confirm that.
It is ended where its covariances are near those of the optimum, its value is hardly above, and the
quadratic model of the search predicts that value, no less: by then it is in the same valley, which
is convex there.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mixlm_sparse.common.types import Matrix, Vector

# How far values may be above that of the optimum, and how far covariances from it, relative to
# them and the noise.
ABOVE = 0.02
NEAR = 0.1
# What is predicted may differ from the optimum by this share of what is left, and by rounding.
SHARE, ROUNDING = 0.5, 1e-6


class Known:
    """The optima that are known: values, and covariances (with what else tells them apart)."""

    def __init__(self) -> None:
        self.ends: list[tuple[float, Vector]] = []

    def add(self, value: float, place: Vector) -> None:
        """Remember an optimum."""
        self.ends.append((value, place))

    def forget(self) -> None:
        """Forget all."""
        self.ends.clear()

    def back_at(self, place: Vector, value: float, decrease: float) -> float | None:
        """Return the value at the optimum that a search comes back to; None if it does not.

        Parameters
        ----------
        place : where the search is (see `place_of`).
        value, decrease : there, and what a Newton step would win.
        """
        for end, other in self.ends:
            above = value - end
            if not -ROUNDING <= above <= ABOVE:
                continue
            if abs(above - decrease) > SHARE * abs(above) + ROUNDING:
                continue
            if np.abs(place - other).max(initial=0.0) <= NEAR * (1.0 + np.abs(other).max()):
                return end
        return None


def place_of(factors: Sequence[Matrix], rho: Vector | None = None) -> Vector:
    """Return the covariances of factors (k, k), relative to the noise, and rho, in one vector."""
    parts = [(T @ T.T).ravel() for T in factors]
    return np.concatenate(parts if rho is None else [*parts, rho])
