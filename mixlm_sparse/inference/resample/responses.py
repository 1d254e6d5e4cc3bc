"""New responses for the design of a fit: drawn from the model, or resampled from its effects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mixlm_sparse.common.types import Matrix
from mixlm_sparse.model.base import unit_of_theta
from mixlm_sparse.model.draws import ResponseModel, Streams
from mixlm_sparse.model.simulate import model_of_fit
from mixlm_sparse.solve.rows import InMemory

if TYPE_CHECKING:
    from mixlm_sparse.model.fitted import FittedModel

__all__ = ["Parametric", "Semiparametric", "parametric", "reflated"]

# A covariance of predicted effects whose eigenvalues fall below this share of the largest has no
# direction there to reflate.
REFLATION_RTOL = 1e-10


@dataclass(frozen=True, eq=False, slots=True)
class Parametric:
    """Responses drawn from a model with a seed."""

    model: ResponseModel
    root: np.random.SeedSequence

    def __call__(self, first: int, count: int) -> Matrix:
        """Return the responses number first, ..., first + count - 1, (n, count)."""
        return self.model.draw(self.root, first, count)


def parametric(fit: FittedModel, root: np.random.SeedSequence, *, use_u: bool) -> Parametric:
    """Return draws from the fitted model."""
    return Parametric(model_of_fit(fit, use_u=use_u)[0], root)


class Semiparametric:
    """Responses from resampled random effects and residuals.

    Both are centred and reflated, so that their covariances are the estimated ones.

    Parameters
    ----------
    fit : what is resampled.
    root : the seed.
    use_u : keep the random effects of the fit, resample residuals alone.
    """

    def __init__(self, fit: FittedModel, root: np.random.SeedSequence, use_u: bool) -> None:
        self._root = root
        m = fit.matrices
        self._mean = fit.fitted_used if use_u else fit.solution.fitted(include_random=False)
        self._effects = []
        if not use_u:
            for t, term in enumerate(m.terms):
                self._effects.append((t, term.factor, _pool(fit, t)))
        residuals = fit.pearson_used - fit.pearson_used.mean()
        size = float(np.sqrt(np.mean(residuals**2)))
        self._residuals = residuals * (fit.sigma / size if size > 0.0 else 0.0)
        self._rows = InMemory.of(m).whole()
        self._scale = 1.0 / self._rows.sqrt_w

    def __call__(self, first: int, count: int) -> Matrix:
        n = self._mean.size
        out = np.empty((n, count))
        streams = Streams(self._root)
        for i in range(count):
            rng = streams.at(first + i)
            y = self._mean.copy()
            for t, factor, pool in self._effects:
                b = pool[rng.integers(pool.shape[0], size=pool.shape[0])]
                y += self._rows.random_part(t, factor, b)
            e = self._residuals[rng.integers(n, size=n)]
            out[:, i] = y + e * self._scale
        return out


def _pool(fit: FittedModel, t: int) -> Matrix:
    """Return the reflated effects of term t, (L, k).

    They are mapped in the working columns: the map that moves effects least is another one at
    another origin or in another unit of a predictor.
    """
    Rz = fit.system.chart.Rz[t]
    T = unit_of_theta(fit) * (Rz @ fit.solution.Lambda(t))
    pool = reflated(fit.solution.b(t) @ Rz.T, T @ T.T)
    return np.asarray(np.linalg.solve(Rz, pool.T).T, dtype=np.float64)


def reflated(b: Matrix, covariance: Matrix) -> Matrix:
    """Return predicted effects (L, k), centred and mapped to have the given covariance.

    Predictions are shrunken: their own covariance S is smaller than the estimate R.  With
    S = V diag(s) V' on its positive part, b A has covariance R for A = S^{-1/2} (S^{1/2} R
    S^{1/2})^{1/2} S^{-1/2}, the map that moves them least.
    """
    centred = b - b.mean(axis=0)
    S = centred.T @ centred / b.shape[0]
    values, vectors = np.linalg.eigh(S)
    positive = values > REFLATION_RTOL * max(float(values.max(initial=0.0)), 1e-300)
    if not positive.any():
        return np.zeros_like(b)
    V, root = vectors[:, positive], np.sqrt(values[positive])
    middle = (V * root).T @ covariance @ (V * root)
    inner_values, inner = np.linalg.eigh(middle)
    half = (inner * np.sqrt(np.maximum(inner_values, 0.0))) @ inner.T
    A = (V / root) @ half @ (V / root).T
    out: Matrix = centred @ A
    return out
