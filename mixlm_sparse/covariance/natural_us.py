"""A general covariance by its standard deviations and correlations, for what holds some of them."""

from __future__ import annotations

from functools import lru_cache
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from mixlm_sparse.common.errors import NotPositiveDefiniteError
from mixlm_sparse.common.types import Array3, Matrix, Vector
from mixlm_sparse.covariance.described import NaturalParameter
from mixlm_sparse.covariance.natural import ROUNDING, Natural
from mixlm_sparse.covariance.structure import (
    Closure,
    CovarianceStructure,
    structure,
)

NO_ROOM = 1e-12  # a correlation that can move by less is fixed by the others


@lru_cache(maxsize=64)
def _pairs(k: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    # (1,0), (2,0), (2,1), (3,0), ...: what is held of a row may depend on the rows before
    return np.tril_indices(k, -1)


@structure("us", "natural")
class NaturalUnstructured(Natural):
    """General covariance in (sd, correlations), where `us` has the elements of T.

    The rows of L are points on spheres by angles: with s = sin x_ij and c = cos x_ij,

        L_ij = s_ij prod_{l < j} c_il,  j < i,      L_ii = prod_l c_il

    Its theta are standard deviations, then correlations row by row; a fit uses it where a
    standard deviation or correlation of an unstructured term is held.
    """

    __slots__ = ()
    words = "a general covariance matrix"
    closed_under: ClassVar[Closure] = "scales"

    @classmethod
    def of_size(cls, k: int) -> CovarianceStructure:
        return cls(k)

    @classmethod
    def written(cls, inside: str) -> str:
        return f"({inside})"

    @property
    def n_rho(self) -> int:
        return self.k * (self.k - 1) // 2

    @property
    def rho_bounds(self) -> tuple[float, float]:
        return -1.0, 1.0

    def names(self, group: str, columns: tuple[str, ...]) -> tuple[str, ...]:
        pairs = zip(*_pairs(self.k), strict=True)
        return (
            *(f"{group}.{c}" for c in columns),
            *(f"{group}.cor({columns[i]}, {columns[j]})" for i, j in pairs),
        )

    def rho_at(self, x: Vector) -> tuple[Vector, Matrix]:
        L, by = self.root(x)
        rows, cols = _pairs(self.k)
        half = np.matmul(by, L.T)
        change = half + np.swapaxes(half, 1, 2)
        return (L @ L.T)[rows, cols], change[:, rows, cols].T.copy()

    def x_of(self, rho: Vector) -> Vector:
        x = np.zeros(self.n_rho)
        for at, value in enumerate(rho):
            x[at] = self.hold_rho(at, float(value), x)[0]
        return x

    def hold_rho(self, at: int, value: float, x: Vector) -> tuple[float, Vector]:
        rows, cols = _pairs(self.k)
        i, j = int(rows[at]), int(cols[at])
        padded = np.where(np.arange(x.size) < at, x, 0.0)
        L, _ = self.root(padded)  # row i ends at column j: L_ij = 0, L_ii is what is left
        left = float(np.prod(np.cos(padded[(rows == i) & (cols < j)])))
        room = left * float(L[j, j])
        rest = value - float(L[i, :j] @ L[j, :j])
        if not abs(rest) <= room + ROUNDING:
            raise NotPositiveDefiniteError(
                f"a correlation of {value:.4g} does not go with the others"
            )
        # on an edge cos(pi / 2) is rounding: nothing of this correlation is free
        padded[at] = np.arcsin(min(max(rest / room, -1.0), 1.0)) if room > NO_ROOM else 0.0
        return float(padded[at]), self.slopes_of_held(at, padded)

    def root(self, x: Vector) -> tuple[Matrix, Array3]:
        k, n = self.k, self.n_rho
        sine, cosine = np.sin(x), np.cos(x)
        L, by = np.zeros((k, k)), np.zeros((n, k, k))
        at = 0
        for i in range(k):
            left, dleft = 1.0, np.zeros(n)
            for j in range(i):
                s, c = float(sine[at]), float(cosine[at])
                unit = np.arange(n) == at
                L[i, j] = s * left
                by[:, i, j] = s * dleft + np.where(unit, c * left, 0.0)
                dleft = c * dleft - np.where(unit, s * left, 0.0)
                left *= c
                at += 1
            L[i, i] = left
            by[:, i, i] = dleft
        return L, by

    def nearest(self, C: Matrix) -> Vector:
        rows, cols = _pairs(self.k)
        return np.clip(np.nan_to_num(C[rows, cols]), -1.0, 1.0)

    def reflected(self, phi: Vector) -> Vector:
        # every angle within a quarter turn: the sign of L_ii does not show in the covariance
        L, _ = self.root(phi[self.n_sd :])
        signs = np.where(np.diag(L) < 0.0, -1.0, 1.0)
        L = L * signs
        x, at = np.zeros(self.n_rho), 0
        for i in range(self.k):
            left = 1.0
            for j in range(i):
                x[at] = np.arcsin(min(max(L[i, j] / left, -1.0), 1.0)) if left > 0.0 else 0.0
                left *= float(np.cos(x[at]))
                at += 1
        return np.concatenate([np.abs(phi[: self.n_sd]), x])

    def off_zero(self, M: Matrix) -> list[tuple[float, Vector]]:
        """See the base class: S is general, so that its steepest ways are the axes of M."""
        slopes, axes = np.linalg.eigh(0.5 * (M + M.T))
        rows, cols = _pairs(self.k)
        out = []
        for slope, axis in zip(slopes.tolist(), axes.T, strict=True):
            signs = np.where(axis < 0.0, -1.0, 1.0) * np.where(axis[0] < 0.0, -1.0, 1.0)
            x = np.where(cols == 0, 0.5 * np.pi * signs[rows], 0.0)
            out.append((slope, np.concatenate([np.sqrt(np.abs(axis)), x])))
        return out

    @property
    def second_start(self) -> Vector | None:
        return None

    @property
    def natural_parameters(self) -> tuple[NaturalParameter, ...]:
        pairs = zip(*_pairs(self.k), strict=True)
        return (
            *(NaturalParameter("sd", i, i) for i in range(self.k)),
            *(NaturalParameter("cor", int(i), int(j)) for i, j in pairs),
        )
