"""Mean and sum of squares of values that may come in batches."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mixlm_sparse.common.types import Vector

__all__ = ["Moments", "moments_of"]


@dataclass(slots=True)
class Moments:
    """Number, mean and sum of squares about the mean of the values seen so far."""

    n: int = 0
    mean: float = 0.0
    squares: float = 0.0

    def add(self, x: Vector) -> None:
        """Take in further values (Chan, Golub and LeVeque 1983, the pairwise update)."""
        if not x.size:
            return
        mean = float(np.mean(x))
        self.join(Moments(x.size, mean, float(np.sum((x - mean) ** 2))))

    def join(self, other: Moments) -> None:
        """Take in the moments of other values."""
        if not other.n:
            return
        n, step = self.n + other.n, other.mean - self.mean
        self.squares += other.squares + step**2 * self.n * other.n / n
        self.mean += step * other.n / n
        self.n = n

    def squares_about(self, origin: float) -> float:
        """Return the sum of squares about any origin."""
        return self.squares + self.n * (self.mean - origin) ** 2


def moments_of(x: Vector) -> Moments:
    """Return the moments of one array."""
    found = Moments()
    found.add(x)
    return found
