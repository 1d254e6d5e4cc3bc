"""Searches that come back to an optimum which is known from another one.

A second look often ends where the first search did; its last evaluations then only confirm that.
It is ended where its covariances are next to those of the optimum, its value is hardly above, and
the quadratic model of the search predicts that value, no less: by then it is in the same valley,
which is convex there.  Narrow margins lose nothing: a search that is farther can still find a lower
valley next to the known one (two of 300 random models), and takes few evaluations from here on.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mixlm_sparse.common.types import Matrix, Vector

# How far values may be above that of the optimum, and covariances from those there, as a share of
# the standard deviations (those below the second number, relative to the noise, count as that).
ABOVE, NEAR, LEAST_SD = 1e-5, 0.003, 0.01
# What is predicted may differ from the optimum by this share of what is left, and by rounding.
SHARE, ROUNDING = 0.2, 1e-6


class Known:
    """The optima that are known: values, and covariances (with what else tells them apart)."""

    def __init__(self) -> None:
        self.ends: list[tuple[float, Matrix]] = []

    def add(self, value: float, place: Matrix) -> None:
        """Remember an optimum."""
        self.ends.append((value, place))

    def forget(self) -> None:
        """Forget all."""
        self.ends.clear()

    def back_at(self, place: Matrix, value: float, decrease: float) -> float | None:
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
            if (np.abs(place[0] - other[0]) <= NEAR * other[1]).all():
                return end
        return None


def place_of(factors: Sequence[Matrix], rho: Vector | None = None) -> Matrix:
    """Return the covariances of factors (k, k), relative to the noise, and rho: what they are, and
    the products of standard deviations that they are compared by, (2, numbers).
    """
    values, sizes = [np.zeros(0)], [np.zeros(0)]
    for T in factors:
        S = T @ T.T
        sd = np.sqrt(np.diag(S) + LEAST_SD**2)
        values.append(S.ravel())
        sizes.append(np.outer(sd, sd).ravel())
    if rho is not None:
        values.append(rho)
        sizes.append(1.0 + np.abs(rho))
    return np.stack([np.concatenate(values), np.concatenate(sizes)])
