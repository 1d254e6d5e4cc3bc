"""Responses as linear maps of independent standard normal numbers.

A response is

    y = X beta + o + sigma (Z F u + W^{-1/2} e)

drawn in the order u (terms in their order, level by level), then e.  Response i of a seed has a
stream of its own, so that it does not depend on how many are drawn, in which blocks, by which
engine or on how many processes.  The streams are far places of one generator's sequence (see
`Streams`): to go to one costs a fifth of a generator that is seeded anew.

Any F with F F' = Lambda Lambda' gives the distribution.  Lambda, a triangle in the columns of Z,
turns with the origin and the unit of a predictor, and the same seed would give other responses of
the same model.  So F is the symmetric root in the working columns Z Rz^{-1}, which do not turn:

    F = Rz^{-1} (Rz Lambda Lambda' Rz')^{1/2} = Rz^{-1} U D U',   U D V' = Rz Lambda

which is smooth in theta, also where Lambda is singular.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import scipy.sparse as sp
from scipy.sparse.linalg import splu

from mixlm_sparse.common.checks import shown
from mixlm_sparse.common.errors import OptionError
from mixlm_sparse.common.types import Array3, Matrix, Vector
from mixlm_sparse.design.columns import ColumnSource, no_columns
from mixlm_sparse.design.members import RowLevels
from mixlm_sparse.solve.rows import InMemory

PERIOD = 2**128
GOLDEN_SECTION = 0x9E3779B97F4A7C15F39CC0605CEDC835  # of the period, odd

Seed = int | np.random.SeedSequence | np.random.Generator | None


class Drawn(Protocol):
    """Residuals that can be drawn."""

    def draw(self, noise: Matrix, rows: slice) -> Matrix:
        """Return R^{1/2} noise for independent standard normal noise (n, ...)."""
        ...


@dataclass(frozen=True, slots=True)
class RandomPiece:
    """One random term: columns z, group (or groups) of each row, and sigma F with F (k, k).

    `root` is W of the first levels where these have a known covariance W^{-1}W^{-T}.
    """

    columns: ColumnSource
    codes: RowLevels
    n_levels: int
    factor: Matrix
    root: Any = None

    def effects(self, u: Array3) -> Array3:
        """Return b (L, k, r) of standard normal u (L, k, r)."""
        if self.root is not None:
            n = self.root.shape[0]
            solved = splu(sp.csc_matrix(self.root)).solve(u[:n].reshape(n, -1))
            u = np.concatenate([solved.reshape(u[:n].shape), u[n:]])
        out: Array3 = np.einsum("ab,jbr->jar", self.factor, u)
        return out


@dataclass(frozen=True, slots=True)
class ResponseModel:
    """What a simulated response is made of.

    Parameters
    ----------
    mean : (n,) everything that does not vary.
    terms : the random terms that are drawn.
    sigma, residual : the residuals are sigma R^{1/2} e with independent standard normal e.
    """

    mean: Vector
    terms: tuple[RandomPiece, ...]
    sigma: float
    residual: Drawn

    @property
    def n(self) -> int:
        return int(self.mean.shape[0])

    def draw(self, seed: np.random.SeedSequence, first: int, count: int) -> Matrix:
        """Return the responses number first, ..., first + count - 1 of a seed, (n, count)."""
        sizes = [piece.n_levels * piece.factor.shape[0] for piece in self.terms]
        streams = Streams(seed)
        try:
            drawn = np.empty((count, sum(sizes) + self.n))
            for i in range(count):
                streams.at(first + i).standard_normal(out=drawn[i])
            drawn = np.ascontiguousarray(drawn.T)
        except MemoryError:
            raise OptionError(
                f"{count} responses of {self.n} rows take {8e-9 * self.n * count:.3g} GB at least, "
                "more than there is: ask for fewer, several times with seeds of their own"
            ) from None
        *effects, noise = np.split(drawn, np.cumsum(sizes))
        u = [
            part.reshape(piece.n_levels, piece.factor.shape[0], count)
            for piece, part in zip(self.terms, effects, strict=True)
        ]
        return self.responses(u, noise)

    def responses(self, u: Sequence[Array3], e: Matrix) -> Matrix:
        """Map standard normal numbers to responses.

        Parameters
        ----------
        u : per term, (L, k, r).
        e : (n, r).

        Returns
        -------
        (n, r) array.

        Raises
        ------
        OptionError : numbers of the response are too large.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            out = self._responses(u, e)
        if np.isinf(out).any():
            raise OptionError(
                "the responses leave the range of numbers, 1e308: use a larger unit, so that beta "
                "and the standard deviations are smaller"
            )
        return out

    def _responses(self, u: Sequence[Array3], e: Matrix) -> Matrix:
        out: Matrix = self.mean[:, None] + self.sigma * self.residual.draw(e, slice(0, self.n))
        # b_j = sigma F u_j
        b = [p.effects(v) for p, v in zip(self.terms, u, strict=True)]
        rows = InMemory(
            self.n,
            no_columns(self.n),
            terms=[piece.columns for piece in self.terms],
            codes=[piece.codes for piece in self.terms],
            y=self.mean,
        )
        for block in rows.blocks():
            for t, effects in enumerate(b):
                out[block.slice] += block.random_part(t, t, effects)
        return out


def symmetric_factor(Lambda: Matrix, Rz: Matrix) -> Matrix:
    """Return F (k, k) with F F' = Lambda Lambda', whatever origin and unit the columns have.

    Parameters
    ----------
    Lambda : (k, k) factor in the columns z; Rz : (k, k), z Rz^{-1} are the working columns.
    """
    if Lambda.shape[0] == 1:
        return Lambda
    U, d, _ = np.linalg.svd(Rz @ Lambda)
    return np.asarray(np.linalg.solve(Rz, (U * d) @ U.T), dtype=np.float64)


def seed_sequence(seed: Seed) -> np.random.SeedSequence:
    """Return the root of all streams of a seed."""
    if isinstance(seed, np.random.SeedSequence):
        return seed
    if isinstance(seed, np.random.Generator):
        return np.random.SeedSequence([int(v) for v in seed.integers(2**32, size=4)])
    if seed is None:
        return np.random.SeedSequence()
    try:
        given: object = seed
        parts = list(given) if isinstance(given, list | tuple | np.ndarray) else [given]
        if not all(isinstance(part, int | np.integer) for part in parts):
            raise TypeError
        return np.random.SeedSequence(seed)
    except (TypeError, ValueError, OverflowError, MemoryError):
        raise OptionError(
            f"seed is {shown(seed)}: use a whole number, a numpy Generator or SeedSequence, or None"
        ) from None


class Streams:
    """The streams of a seed: stream i is a place of one generator's sequence.

    It lies i times the golden section of the period, 2^128 numbers, from the beginning, as
    `jumped` does; the places of different streams are that far apart that they never meet.

    Parameters
    ----------
    seed : the root of all streams.
    """

    def __init__(self, seed: np.random.SeedSequence) -> None:
        self._bits = np.random.PCG64DXSM(seed)
        self._beginning = self._bits.state
        self._generator = np.random.Generator(self._bits)

    def at(self, i: int) -> np.random.Generator:
        """Return the one generator there is, at the beginning of stream i."""
        self._bits.state = self._beginning
        self._bits.advance(i * GOLDEN_SECTION % PERIOD)
        return self._generator


def stream(seed: np.random.SeedSequence, i: int) -> np.random.Generator:
    """Return the generator of response number i."""
    return Streams(seed).at(i)
