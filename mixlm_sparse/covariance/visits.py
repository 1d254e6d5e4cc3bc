"""Correlation between visits: one for all pairs, one for each lag, or one for each pair."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from mixlm_sparse.common.keywords import answering_calls
from mixlm_sparse.common.types import Array3, Matrix, Vector
from mixlm_sparse.covariance.correlation import (
    Correlation,
    Link,
    PairMoments,
    Places,
    correlation_structure,
)

__all__ = ["CompoundSymmetry", "Toeplitz", "Unstructured"]

LEAST_EIGENVALUE = 0.05  # of a correlation matrix that a search begins with
LARGEST_PARTIAL = 0.8  # the same of a partial correlation


@answering_calls
@correlation_structure("cs")
@dataclass(frozen=True, slots=True)
class CompoundSymmetry(Correlation):
    """One correlation between any two rows of a group: rho, -1 / (m - 1) < rho < 1.

    m is the number of rows of the largest group.  With rho >= 0 the model is that of a random
    intercept of the group; a negative rho, which a random intercept cannot say, is found as well.

    Parameters
    ----------
    group : column (or columns) whose levels are independent of each other.
    by : column (or columns) each of whose levels has a rho of its own.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> teeth = mx.datasets.load("Orthodont")
    >>> same = mx.CompoundSymmetry(group="Subject")
    >>> mx.gls("distance ~ age * Sex", teeth, residual=same).residual_structure.round(3)
      parameter  estimate  std_error  lower  upper
    0       rho     0.632      0.086  0.442  0.776
    """

    words = "compound symmetry"
    time_kind = "none"
    linear = True

    group: str | tuple[str, ...]
    by: str | tuple[str, ...] | None = None

    def parameters(self, places: Places) -> tuple[str, ...]:
        return ("rho",)

    def start(self, places: Places) -> Vector:
        low = -1.0 / max(places.largest - 1, 1)
        share = -low / (1.0 - low)  # rho = 0
        return np.array([np.log(share / (1.0 - share))])

    def near(self, moments: PairMoments, places: Places) -> Vector:
        low = -1.0 / max(places.largest - 1, 1)
        share = float(np.clip((moments.overall - low) / (1.0 - low), 0.1, 0.9))
        return np.array([np.log(share / (1.0 - share))])

    def natural(self, omega: Vector, places: Places) -> tuple[Vector, Matrix]:
        low = -1.0 / max(places.largest - 1, 1)
        share = 1.0 / (1.0 + np.exp(-omega))
        return low + (1.0 - low) * share, np.diag((1.0 - low) * share * (1.0 - share))

    def correlation(self, t: NDArray[np.float64], omega: Vector, places: Places) -> Array3:
        groups, m = t.shape[:2]
        rho = float(self.natural(omega, places)[0][0])
        C = np.full((m, m), rho)
        np.fill_diagonal(C, 1.0)
        return np.broadcast_to(C, (groups, m, m))

    def slopes(self, t: NDArray[np.float64], omega: Vector, places: Places) -> NDArray[np.float64]:
        groups, m = t.shape[:2]
        slope = float(self.natural(omega, places)[1][0, 0])
        return np.broadcast_to(slope * (1.0 - np.eye(m)), (groups, 1, m, m))

    def contract(
        self, t: NDArray[np.float64], omega: Vector, places: Places, core: Array3
    ) -> Vector:
        slope = float(self.natural(omega, places)[1][0, 0])
        off = core.sum() - np.trace(core, axis1=1, axis2=2).sum()
        return np.array([slope * float(off)])


class ByVisit(Correlation):
    """C is a part of one matrix (T, T) of all visits."""

    __slots__ = ()

    def full(self, omega: Vector, T: int) -> tuple[Matrix, Array3]:
        """Return C (T, T) of all visits and its derivatives (r, T, T)."""
        raise NotImplementedError

    def correlation(self, t: NDArray[np.float64], omega: Vector, places: Places) -> Array3:
        at = t.astype(np.intp)
        return full_matrix(self, omega, places.T)[0][at[:, :, None], at[:, None, :]]

    def slopes(self, t: NDArray[np.float64], omega: Vector, places: Places) -> NDArray[np.float64]:
        at = t.astype(np.intp)
        found = full_matrix(self, omega, places.T)[1][:, at[:, :, None], at[:, None, :]]
        return np.moveaxis(found, 0, 1)

    def contract(
        self, t: NDArray[np.float64], omega: Vector, places: Places, core: Array3
    ) -> Vector:
        at = t.astype(np.intp)
        T = places.T
        flat = (at[:, :, None] * T + at[:, None, :]).ravel()
        total = np.bincount(flat, weights=core.ravel(), minlength=T * T)
        out: Vector = full_matrix(self, omega, T)[1].reshape(-1, T * T) @ total
        return out


def full_matrix(structure: ByVisit, omega: Vector, T: int) -> tuple[Matrix, Array3]:
    """Return `structure.full(omega, T)`; an evaluation asks for it once for every pattern."""
    return _kept(structure, omega.tobytes(), T)


@lru_cache(maxsize=16)
def _kept(structure: ByVisit, omega: bytes, T: int) -> tuple[Matrix, Array3]:
    C, slopes = structure.full(np.frombuffer(omega), T)
    C.flags.writeable = slopes.flags.writeable = False
    return C, slopes


@answering_calls
@correlation_structure("un")
@dataclass(frozen=True, slots=True)
class Unstructured(ByVisit):
    """A correlation of its own for every pair of visits: rho(1,2), rho(1,3), ...

    With `variance=VarIdent(by=time)` this is the unstructured covariance of an MMRM.

    Parameters
    ----------
    time : column of visits: a factor (levels in their order) or whole numbers.
    group : column (or columns) whose levels are independent of each other.
    by : column (or columns) each of whose levels has correlations of its own.

    Notes
    -----
    C = L L', where row i of L is (w_i1, ..., w_i,i-1, 1) brought to length one: any w give a
    correlation matrix, and every regular one has its w.  omega are the inverse hyperbolic sines of
    w: like the inverse hyperbolic tangents of partial correlations, they grow by the logarithm of
    what a visit has left beside those before it.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> teeth = mx.datasets.load("Orthodont")
    >>> pairs = mx.Unstructured(time="age", group="Subject")
    >>> mx.gls("distance ~ age * Sex", teeth, residual=pairs).residual_structure.round(3)
      parameter  estimate  std_error  lower  upper
    0  rho(1,2)     0.575      0.140  0.241  0.788
    1  rho(1,3)     0.638      0.109  0.376  0.805
    2  rho(1,4)     0.515      0.150  0.167  0.748
    3  rho(2,3)     0.574      0.129  0.269  0.775
    4  rho(2,4)     0.749      0.088  0.523  0.877
    5  rho(3,4)     0.721      0.088  0.500  0.853
    """

    words = "unstructured"
    time_kind = "visits"
    linear = True

    time: str
    group: str | tuple[str, ...]
    by: str | tuple[str, ...] | None = None

    def parameters(self, places: Places) -> tuple[str, ...]:
        T = places.T
        return tuple(f"rho({i + 1},{j + 1})" for i in range(T) for j in range(i + 1, T))

    def links(self, places: Places) -> tuple[Link, ...]:
        return tuple("atanh" for _ in self.parameters(places))

    def near(self, moments: PairMoments, places: Places) -> Vector | None:
        C = moments.by_visit
        if C is None:
            return None
        least = float(np.linalg.eigvalsh(C)[0])
        if least < LEAST_EIGENVALUE:  # as much of the identity as brings it there
            share = (LEAST_EIGENVALUE - least) / (1.0 - least)
            C = (1.0 - share) * C + share * np.eye(places.T)
        return self.omega_of(C)

    @staticmethod
    def omega_of(C: Matrix) -> Vector:
        """Return the omega of a regular correlation matrix (T, T)."""
        L = np.linalg.cholesky(C)
        out: Vector = np.arcsinh((L / np.diag(L)[:, None])[np.tril_indices(C.shape[0], -1)])
        return out

    def full(self, omega: Vector, T: int) -> tuple[Matrix, Array3]:
        W = np.eye(T)
        lower = np.tril_indices(T, -1)
        W[lower] = np.sinh(omega)
        length = np.sqrt((W * W).sum(axis=1))
        L = W / length[:, None]
        slopes = np.zeros((omega.size, T, T))
        for k, (i, j) in enumerate(zip(*lower, strict=True)):
            step = -L[i] * (W[i, j] / length[i] ** 2)
            step[j] += 1.0 / length[i]
            half = L @ (step * np.cosh(omega[k]))  # row and column i of dC
            slopes[k, i] += half
            slopes[k, :, i] += half
            slopes[k, i, i] = 0.0
        C = L @ L.T
        np.fill_diagonal(C, 1.0)
        return C, slopes

    def natural(self, omega: Vector, places: Places) -> tuple[Vector, Matrix]:
        C, slopes = full_matrix(self, omega, places.T)
        pairs = np.triu_indices(places.T, 1)
        return C[pairs], slopes[:, pairs[0], pairs[1]].T


@answering_calls
@correlation_structure("toep")
@dataclass(frozen=True, slots=True)
class Toeplitz(ByVisit):
    """A correlation for every lag between visits: rho(1), rho(2), ...

    Parameters
    ----------
    time : column of visits: a factor (levels in their order) or equally spaced whole numbers.
    group, by : as in `Unstructured`.

    Notes
    -----
    omega are the inverse hyperbolic tangents of the partial autocorrelations, which may be any
    numbers between -1 and 1; the Durbin-Levinson recursion gives the correlations.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> teeth = mx.datasets.load("Orthodont")
    >>> lags = mx.Toeplitz(time="age", group="Subject")
    >>> mx.gls("distance ~ age * Sex", teeth, residual=lags).residual_structure.round(3)
      parameter  estimate  std_error  lower  upper
    0    rho(1)     0.637      0.093  0.419  0.786
    1    rho(2)     0.697      0.080  0.506  0.822
    2    rho(3)     0.479      0.147  0.146  0.714
    """

    words = "Toeplitz"
    time_kind = "visits"
    linear = True

    time: str
    group: str | tuple[str, ...]
    by: str | tuple[str, ...] | None = None

    def parameters(self, places: Places) -> tuple[str, ...]:
        return tuple(f"rho({lag})" for lag in range(1, places.T))

    def links(self, places: Places) -> tuple[Link, ...]:
        return tuple("atanh" for _ in self.parameters(places))

    def near(self, moments: PairMoments, places: Places) -> Vector | None:
        C = moments.by_visit
        if C is None:
            return None
        rho = np.array([np.diag(C, lag).mean() for lag in range(1, places.T)])
        alpha, f, v = np.zeros(rho.size), np.zeros(0), 1.0
        for k in range(rho.size):
            alpha[k] = np.clip((rho[k] - f @ rho[:k][::-1]) / v, -LARGEST_PARTIAL, LARGEST_PARTIAL)
            f = np.append(f - alpha[k] * f[::-1], alpha[k])
            v *= 1.0 - alpha[k] ** 2
        return np.arctanh(alpha)

    def natural(self, omega: Vector, places: Places) -> tuple[Vector, Matrix]:
        """Return the autocorrelations (r,) and their derivative (r, r) by omega.

        With alpha_k the partial autocorrelations, f the coefficients of the prediction from k - 1
        values and v its error variance,

            rho_k = sum_j f_j rho_{k-j} + alpha_k v,  f'_j = f_j - alpha_k f_{k-j},  f'_k = alpha_k,
            v' = v (1 - alpha_k^2)
        """
        alpha = np.tanh(omega)
        r = alpha.size
        rho, d_rho = np.zeros(r), np.zeros((r, r))
        f, d_f = np.zeros(0), np.zeros((0, r))
        v, d_v = 1.0, np.zeros(r)
        for k in range(r):
            d_alpha = np.zeros(r)
            d_alpha[k] = 1.0 - alpha[k] ** 2
            back, d_back = rho[:k][::-1], d_rho[:k][::-1]
            rho[k] = f @ back + alpha[k] * v
            d_rho[k] = back @ d_f + f @ d_back + d_alpha * v + alpha[k] * d_v
            turned, d_turned = f[::-1], d_f[::-1]
            new = f - alpha[k] * turned
            d_new = d_f - alpha[k] * d_turned - turned[:, None] * d_alpha
            f, d_f = np.append(new, alpha[k]), np.vstack([d_new, d_alpha])
            d_v = d_v * (1.0 - alpha[k] ** 2) - 2.0 * alpha[k] * v * d_alpha
            v *= 1.0 - alpha[k] ** 2
        return rho, d_rho

    def full(self, omega: Vector, T: int) -> tuple[Matrix, Array3]:
        rho, d_rho = self.natural(omega, Places())
        lag = np.abs(np.subtract.outer(np.arange(T), np.arange(T)))
        return np.append(1.0, rho)[lag], np.vstack([np.zeros(omega.size), d_rho]).T[:, lag]
