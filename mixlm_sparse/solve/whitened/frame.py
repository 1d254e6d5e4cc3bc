"""The rows of a model with a residual structure, ready to be whitened for any rho.

The criterion of such a model has two sets of outer parameters, theta of the random effects and rho
of the residuals.  At a given rho, rows multiplied by W(rho) (see `covariance.law`) are rows of an
ordinary mixed model, with log|R| more in the criterion.  What follows is for that model:

* Columns are brought to the basis X~ = X R_x^{-1}, y~ = y - o - X beta_ols, z~ = z Rz^{-1} of the
  rows without structure once.  For a rho, the stacked columns [X~ y~ z~] are whitened and their
  products formed: linear in n, and nothing of the symbolic work depends on rho.
* Where all rows of a residual group have the same level of a factor a whitened row keeps it, and
  the pattern of Z'R^{-1}Z is that of Z'Z.  Where they have several, or rows of a membership do, a
  whitened row has all levels of its group (see `spread`), and the pattern grows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from mixlm_sparse.common.errors import NotPositiveDefiniteError
from mixlm_sparse.common.types import Array3, Matrix, Vector
from mixlm_sparse.covariance.law import ResidualLaw
from mixlm_sparse.covariance.whitening import Whitening
from mixlm_sparse.design.columns import ArrayColumns
from mixlm_sparse.design.matrices import ModelMatrices
from mixlm_sparse.design.members import RowLevels, Slots
from mixlm_sparse.engines import kernels
from mixlm_sparse.engines.decisions import compiled_pays
from mixlm_sparse.engines.interface import BlockSystem, FactorBlock, PairBlock
from mixlm_sparse.solve.products.basis import response_less, triangular_inverse
from mixlm_sparse.solve.products.final import Products
from mixlm_sparse.solve.products.meetings import (
    Entries,
    Meeting,
    entries_of,
    find_meetings,
    pairs_of_entries,
)
from mixlm_sparse.solve.rows import InMemory
from mixlm_sparse.solve.whitened.spread import Spread, spread_levels

__all__ = ["Hidden", "Whitened", "WhitenedFrame", "whitened_frame"]


@dataclass(frozen=True, eq=False)
class WhitenedFrame:
    """Columns of a design in their basis, and the law that whitens them.

    Parameters
    ----------
    law : of the rows, weights included.
    plain : products of the rows without structure; their basis is used.
    A : (n, p + 1) the columns [X~ y~].
    Z : per grouping factor, (n, K) the columns z~, (n, S K) by place where they are spread.
    levels : per grouping factor, those of the whitened rows.
    spread : per grouping factor, where its levels lie among the places, or None.
    meetings : the pairs of levels that whitened rows have in common.
    """

    law: ResidualLaw
    plain: Products
    A: Matrix
    Z: tuple[Matrix, ...]
    levels: tuple[RowLevels, ...]
    spread: tuple[Spread | None, ...]
    meetings: dict[tuple[int, int], Meeting]

    @property
    def grown(self) -> tuple[str, ...]:
        """Labels of the factors whose levels residual groups mix."""
        blocks = self.plain.blocks.factors
        return tuple(
            f.label
            for f, spread in zip(blocks, self.spread, strict=True)
            if spread is not None and self.law.correlated
        )

    @cached_property
    def by_group(self) -> tuple[bool, ...]:
        """Whether the levels of a factor are the groups of the residuals, per grouping factor."""
        group, out = self.law.group_of, []
        for levels in self.levels:
            own = False
            if isinstance(levels, np.ndarray) and levels.shape == group.shape:
                pairs = np.unique(np.column_stack([levels, group]), axis=0)
                own = all(np.unique(one).size == len(pairs) for one in pairs.T)
            out.append(own)
        return tuple(out)

    @cached_property
    def entries(self) -> tuple[Entries, ...]:
        """The levels of the whitened rows, entry by entry, per grouping factor."""
        return tuple(entries_of(levels) for levels in self.levels)

    @cached_property
    def pairs(self) -> dict[tuple[int, int], tuple[NDArray[np.int64], NDArray[np.int64]] | None]:
        """The pairs of entries that a row has of two factors; None where it has one."""
        own = self.entries
        return {(g, h): pairs_of_entries(own[g], None if g == h else own[h])
                for g, h in self.meetings}  # fmt: skip

    def at(self, rho: Vector, *, centered: bool) -> Whitened:
        """Whiten the columns at rho and form their products.

        Raises
        ------
        NotPositiveDefiniteError : R has no factor, or leaves the columns of X dependent.
        """
        whitening = Whitening.of(self.law, rho, centered=centered)
        stacked = whitening.apply(np.hstack([self.A, *self.Z]))
        P = self.A.shape[1]
        A, Z, first = stacked[:, :P], [], P
        for z in self.Z:
            Z.append(np.ascontiguousarray(stacked[:, first : first + z.shape[1]]))
            first += z.shape[1]
        gram = A.T @ A
        R, info = scipy.linalg.lapack.dpotrf(gram, lower=0, clean=1)
        if not np.isfinite(gram).all() or (info != 0 and info < P):
            raise NotPositiveDefiniteError("whitened columns of X are dependent")
        M = np.eye(P)
        if P > 1:
            M[:-1, :-1] = triangular_inverse(np.ascontiguousarray(R[:-1, :-1]))
            M[:-1, -1] = -M[:-1, :-1] @ R[:-1, -1]
        return Whitened(self, whitening, A, tuple(Z), M, self._products(R, A, Z, M, whitening))

    def _products(
        self, R: Matrix, A: Matrix, Z: list[Matrix], M: Matrix, whitening: Whitening
    ) -> Products:
        plain = self.plain
        step = -M[:-1, -1]
        beta = plain.beta_ols
        if step.size:
            beta = beta + scipy.linalg.solve_triangular(plain.R_x, step)
        residual = A @ M[:, -1]
        blocks = self._blocks(A @ M, Z)
        return replace(
            plain,
            log_weight_sum=-whitening.log_det,
            R_x=np.triu(R[:-1, :-1]) @ plain.R_x,
            beta_ols=beta,
            yy=float(residual @ residual),
            blocks=blocks,
        )

    def _blocks(self, columns: Matrix, Z: list[Matrix]) -> BlockSystem:
        n, P = columns.shape
        work = n * sum(z.shape[1] * (z.shape[1] + P) for z in Z)
        compiled = compiled_pays(work)
        factors = []
        Z = [own.columns(z) for own, z in zip(self.entries, Z, strict=True)]
        for f, z, own in zip(self.plain.blocks.factors, Z, self.entries, strict=True):
            ztz, ztx = np.zeros_like(f.ztz), np.zeros((f.n_levels, f.width, P))
            D = np.hstack([z, own.of_rows(columns)])
            kernels.add_group_products(own.level, z, D, ztz, ztx, compiled=compiled)
            for a in range(f.width):
                ztz[:, :a, a] = ztz[:, a, :a]
            factors.append(FactorBlock(f.label, ztz, ztx))
        pairs = {}
        for (g, h), meeting in self.meetings.items():
            left, right = Z[g], Z[h]
            at = self.pairs[g, h]
            if at is not None:
                left, right = left[at[0]], right[at[1]]
            values: Array3 = np.zeros((meeting.rows.size, left.shape[1], right.shape[1]))
            kernels.add_pair_products(meeting.index, left, right, values, compiled=compiled)
            pairs[g, h] = PairBlock(meeting.rows, meeting.cols, values)
        return BlockSystem(tuple(factors), pairs)

    @cached_property
    def combinations(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """The combination of levels of every row (n,), and their levels by place (c, places).

        The places of the factors follow one another, one of a factor whose rows have one level; -1
        stands where a place is empty.
        """
        if len(self.levels) == 1 and isinstance(self.levels[0], np.ndarray):
            codes = self.levels[0].astype(np.intp)
            return codes, np.arange(self.plain.blocks.factors[0].n_levels)[:, None]
        places = [o.levels if isinstance(o, Slots) else o for o in self.levels]
        every = np.column_stack([p for p in places if isinstance(p, np.ndarray)])
        law = self.law
        if any(spread is not None for spread in self.spread) and law.correlated:
            # all rows of a residual group have one
            groups = every[law.order[law.starts[:-1]]]
            levels, which = np.unique(groups, axis=0, return_inverse=True)
            return which.ravel()[law.group_of], levels.astype(np.intp)
        levels, which = np.unique(every, axis=0, return_inverse=True)
        return which.ravel(), levels.astype(np.intp)

    def with_target(self, target: Vector) -> WhitenedFrame:
        """Return the frame for another response, less its offset (n,)."""
        X = self.A[:, :-1]
        weights = self.law.weights
        d = X.T @ (target if weights is None else target * weights)
        y = target - X @ d
        beta = self.plain.beta_ols
        if d.size:
            beta = scipy.linalg.solve_triangular(self.plain.R_x, d)
        w = np.ones_like(target) if weights is None else weights
        plain = replace(
            self.plain,
            beta_ols=beta,
            yy=float((w * y * y).sum()),
            y_length=float(np.sqrt((w * target * target).sum())),
        )
        return replace(self, plain=plain, A=np.column_stack([X, y]))


@dataclass(frozen=True, eq=False, slots=True)
class Hidden:
    """Directions that move the parameters of a residual structure and leave the law as it is.

    Parameters
    ----------
    changes : (g + r + 1, d) of the covariances of the random effects and of sigma^2, relative to
        sigma^2, and of the working rho between them.
    within : (d, p, p) what the change of R is in the orthonormal basis of the whitened X.
    """

    changes: Matrix
    within: Array3


@dataclass(frozen=True, eq=False)
class Whitened:
    """A frame at one rho.

    Parameters
    ----------
    A, Z : the whitened columns [X~ y~] (n, p + 1) and z~, per factor (n, K) or (n, S K).
    M : (p + 1, p + 1) with [X~ y~] M = [Q y_f], the columns of `products`.
    products : of the whitened rows.
    hidden : what is kept of a fit whose rows are gone, for which it cannot be found out.
    """

    frame: WhitenedFrame
    whitening: Whitening
    A: Matrix
    Z: tuple[Matrix, ...]
    M: Matrix
    products: Products
    hidden: Hidden | None = None

    @property
    def law(self) -> ResidualLaw:
        """The law of the residuals."""
        return self.frame.law

    @property
    def rho(self) -> Vector:
        """(n_rho,) working parameters."""
        return self.whitening.rho

    def rows(self, matrices: ModelMatrices) -> InMemory:
        """Return the whitened rows in the user's columns."""
        n = matrices.nobs
        whole = InMemory.of(replace(matrices, law=None)).whole()
        apply = self.whitening.apply
        terms = []
        for term in matrices.terms:
            z, spread = term.columns.block(slice(0, n)), self.frame.spread[term.factor]
            z = apply(z if spread is None else spread.columns(z))
            names = term.column_names * (z.shape[1] // len(term.column_names))
            terms.append(ArrayColumns(names, z))
        return InMemory(
            n=n,
            fixed=ArrayColumns(matrices.fixed.names, apply(whole.X)),
            terms=terms,
            codes=self.frame.levels,
            y=apply(whole.target[:, None])[:, 0],
        )


def whitened_frame(matrices: ModelMatrices, plain: Products) -> WhitenedFrame:
    """Bring the columns of a design with a residual structure to their basis.

    Parameters
    ----------
    plain : products of the same rows without the structure.

    Raises
    ------
    EngineError : residual groups have so many levels of a factor that memory does not suffice.
    """
    law = matrices.law
    assert law is not None
    factors = tuple(zip(matrices.factors, plain.blocks.factors, strict=True))
    spread = tuple(
        spread_levels(f.label, factor.row_levels, f.n_levels, f.width, law)
        for factor, f in factors
    )
    levels = tuple(
        factor.row_levels if own is None else own.slots
        for factor, own in zip(matrices.factors, spread, strict=True)
    )
    p = plain.p
    A = np.empty((matrices.nobs, p + 1))
    Z = [np.empty((matrices.nobs, f.width)) for f in plain.blocks.factors]
    R_inverse = triangular_inverse(plain.R_x) if p else np.zeros((0, 0))
    Rz_inverse = [triangular_inverse(Rz) for Rz in plain.Rz]
    for block in InMemory.of(replace(matrices, law=None)).blocks(plain.kept):
        A[block.slice, :p] = block.X @ R_inverse
        A[block.slice, p] = response_less(block.target, block.X, plain.beta_ols)
        for t, (place, inverse) in enumerate(zip(plain.layout, Rz_inverse, strict=True)):
            Z[place.factor][block.slice, place.columns] = block.z(t) @ inverse
    Z = [z if own is None else own.columns(z) for z, own in zip(Z, spread, strict=True)]
    meetings = find_meetings(levels, [f.n_levels for _, f in factors])
    return WhitenedFrame(law, plain, A, tuple(Z), levels, spread, meetings)
