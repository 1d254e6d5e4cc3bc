"""Random models whose residuals are correlated by visits, or by times that no two groups share.

As `random_residuals`, with more general correlations: one for each lag between visits (Toeplitz),
one for each pair (unstructured), and a falling one over unequal numeric times.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

import mixlm_sparse as mx
from benchmarks.random_models import STARTS, Array, Model, Part, Term
from benchmarks.random_residuals import FALL, REACHES

LAWS = ("toep", "us", "car1")
TURNS = (0.01, 0.6, -0.4)


@dataclass(frozen=True)
class Visits(Part):
    """Rows of groups (codes) at visits 0, 1, ... or at times.

    Parameters
    ----------
    correlation : one of `LAWS`.
    reach : limit of what a correlation is the tanh of; None for no limit.
    """

    codes: Array
    times: Array
    correlation: str
    reach: float | None = None

    @property
    def n_par(self) -> int:
        if self.correlation == "car1":
            return 1
        T = int(self.times.max()) + 1
        return T - 1 if self.correlation == "toep" else T * (T - 1) // 2

    @property
    def starts(self) -> list[Array]:
        return [np.full(self.n_par, TURNS[i]) for i in range(len(STARTS))]

    def drawn(self, rng: np.random.Generator) -> Array:
        return rng.normal(size=self.n_par)

    def covariance(self, par: Array) -> Array:
        if self.reach is not None:
            par = self.reach * np.tanh(par / self.reach)
        same = self.codes[:, None] == self.codes
        apart = np.abs(np.subtract.outer(self.times, self.times))
        if self.correlation == "car1":  # a correlation of 1 / (1 + exp(-par)) at a distance of one
            return same * np.exp(-apart * np.log1p(np.exp(-par[0])))
        C = self._of_visits(np.tanh(par))
        at = self.times.astype(int)
        return same * C[at[:, None], at]

    def _of_visits(self, partial: Array) -> Array:
        """Return the correlations (T, T) with these partial ones given the visits between."""
        T = int(self.times.max()) + 1
        C = np.eye(T)
        pairs = iter(partial)
        for lag in range(1, T):
            common = next(pairs) if self.correlation == "toep" else None
            for i in range(T - lag):
                j = i + lag
                between = slice(i + 1, j)
                a, b = C[i, between], C[j, between]
                both = np.column_stack([a, b])  # partial correlations of one leave C singular
                inner = np.linalg.lstsq(C[between, between], both, rcond=None)[0]
                left = np.sqrt(max((1.0 - a @ inner[:, 0]) * (1.0 - b @ inner[:, 1]), 0.0))
                r = next(pairs) if common is None else common
                C[i, j] = C[j, i] = a @ inner[:, 1] + r * left
        return C


@dataclass(frozen=True)
class VisitsModel(Model):
    """The same, whose correlations may go to the end of their range instead of the effects."""

    def has_no_minimum(self) -> bool:
        """Say whether the criterion falls without end as correlations go farther."""
        (law,) = self.residual
        assert isinstance(law, Visits)
        ends = [replace(self, residual=[replace(law, reach=reach)]).best() for reach in REACHES]
        return bool((np.diff(ends) < -FALL).all()) or super().has_no_minimum()


def visits_model(seed: int) -> Model:
    """Return a model with such residuals beside a random intercept."""
    rng = np.random.default_rng([20261126, 4, seed])
    law = str(rng.choice(LAWS))
    T = int(rng.integers(3, 5))
    levels = int(rng.choice([8, 12, 25]))
    g, t = (a.ravel() for a in np.meshgrid(range(levels), range(T), indexing="ij"))
    kept = rng.random(g.size) < rng.choice([0.8, 1.0])
    kept[:T] = True
    g, t = g[kept], t[kept].astype(float)
    if law == "car1":
        t = rng.choice([0.1, 1.0, 10.0]) * (t + rng.uniform(0.0, 0.8, t.size))
    n = g.size
    x, h = rng.normal(size=n), rng.integers(0, rng.integers(3, 9), n)
    X = np.column_stack([np.ones(n), x])
    within = law == "car1" and rng.random() < 0.5  # else both would say the same
    term = Term(X[:, :1], g if within else h, "us")
    size = float(rng.choice([0.0, 0.5, 3.0]))
    visits = Visits(g, t, law)
    R = visits.covariance(rng.uniform(-1.0, 1.0, visits.n_par))
    b = rng.normal(size=int(term.codes.max()) + 1)
    y = X @ rng.normal(size=2) + size * b[term.codes] + np.linalg.cholesky(R) @ rng.normal(size=n)
    reml = bool(rng.random() < 0.7)
    data = pd.DataFrame({"y": y, "x": x, "t": t, "g": g, "h": h})
    structure: dict[str, Any] = {"toep": mx.Toeplitz, "us": mx.Unstructured, "car1": mx.CAR1}
    return VisitsModel(
        formula=f"y ~ x + (1 | {'g' if within else 'h'})",
        data=data.sample(frac=1.0, random_state=seed),
        reml=reml, weights=None, offset=None, y=y, X=X, w=np.ones(n), terms=[term],
        kind=f"{law}, {size:g}", residual=[visits], call={"residual": structure[law]("t", "g")},
    )  # fmt: skip
