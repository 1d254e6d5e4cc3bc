"""Random models whose residuals are correlated by visits, or by times that no two groups share.

As `random_residuals`, with more general correlations: one for each lag between visits (Toeplitz),
one for each pair (unstructured), and a falling one over unequal numeric times.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
import scipy.linalg

import mixlm_sparse as mx
from benchmarks.random_models import STARTS, Array, Model, Part, Term
from mixlm_sparse.solve.whitened.null_vectors import of_toeplitz, of_unstructured
from mixlm_sparse.solve.whitened.singular import null_vector

LAWS = ("toep", "us", "car1")
TURNS = (0.01, 0.6, -0.4)
# What is left of nearly singular correlations, one after another; the criterion has no minimum
# where it falls from each to the next by more than this, less than log 10.
RESTS, TENTH = (1e-8, 1e-9, 1e-10), 1.8
NEWTON_STEPS = 60


@dataclass(frozen=True)
class Visits(Part):
    """Rows of groups (codes) at visits 0, 1, ... or at times.

    Parameters
    ----------
    correlation : one of `LAWS`.
    """

    codes: Array
    times: Array
    correlation: str

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
        """Say whether the criterion falls without end as a correlation becomes singular.

        Searches find such a way by chance.  The package says which null vector it has; that the
        dense criterion falls along it, by a whole number for each log of what is left, is seen.
        """
        (law,) = self.residual
        assert isinstance(law, Visits)
        T = int(law.times.max()) + 1
        sets = [own for s in range(2, T + 1) for own in combinations(range(T), s)]
        if law.correlation != "us":
            ends = [own for own in sets if own == tuple(T - 1 - t for t in reversed(own))]
            sets = [own for own in ends if own[0] == 0] if law.correlation == "toep" else []
        return any(self._falls(law, list(own), size) for own in sets for size in (0.0, 1.0)) or (
            super().has_no_minimum()
        )

    def _falls(self, law: Visits, visits: list[int], size: float) -> bool:
        """Say it of a null vector of some visits, beside random effects of a size."""
        own = [np.flatnonzero((law.codes == g) & (law.times == t))
               for g in np.unique(law.codes) for t in visits]  # fmt: skip
        whole = [o for o in (own[i : i + len(visits)] for i in range(0, len(own), len(visits)))
                 if all(r.size for r in o)]  # fmt: skip
        if not whole:
            return False
        rows = np.array(whole)[:, :, 0]
        (term,) = self.terms
        Z = np.sign(size) * (term.codes[:, None] == np.unique(term.codes))
        T, toeplitz = int(law.times.max()) + 1, law.correlation == "toep"
        kind = of_toeplitz(T, visits) if toeplitz else of_unstructured(len(visits))
        y = self.y[rows] / self.y.std()
        v = null_vector(self.X[rows], Z[rows], y, kind, reml=self.reml)
        if v is None:
            return False
        if toeplitz:
            C = toeplitz_with(np.bincount(visits, v, T))
        else:
            C = np.eye(T)
            C[np.ix_(visits, visits)] = unstructured_with(v)
        at, same = law.times.astype(int), law.codes[:, None] == law.codes
        values = []
        for rest in RESTS:
            R = same * ((1.0 - rest) * C + rest * np.eye(len(C)))[at[:, None], at]
            V = R + size**2 * term.same
            values.append(self._value(scipy.linalg.cholesky(V, lower=True)))
        return bool((np.diff(values) < -TENTH).all())


def toeplitz_with(v: Array) -> Array:
    """Return a Toeplitz correlation matrix (T, T) whose null vector is v."""
    lag = np.subtract.outer(np.arange(v.size), np.arange(v.size))
    return np.mean([np.cos(angle * lag) for angle in np.angle(np.roots(v))], axis=0)


def unstructured_with(v: Array) -> Array:
    """Return the correlation matrix (s, s) with null vector v and the largest determinant else.

    With B an orthonormal basis of what is orthogonal to v it is B M B', M = (B' diag(a) B)^-1, at
    the least of the convex sum(a) - log det(B' diag(a) B): Newton steps.
    """
    B = np.linalg.svd(v[None, :])[2][1:].T
    a = np.ones(v.size)

    def value(a: Array) -> float:
        values = np.linalg.eigvalsh(B.T * a @ B)
        return float(a.sum() - np.log(values).sum()) if values[0] > 0.0 else np.inf

    for _ in range(NEWTON_STEPS):
        C = B @ np.linalg.inv(B.T * a @ B) @ B.T
        step = np.linalg.lstsq(C * C, np.diag(C) - 1.0, rcond=None)[0]
        size = 1.0
        while size > 1e-6 and not value(a + size * step) <= value(a):
            size *= 0.5
        a = a + size * step
    C = B @ np.linalg.inv(B.T * a @ B) @ B.T
    np.fill_diagonal(C, 1.0)
    return C


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
