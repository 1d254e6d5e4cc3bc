"""The basis that products are formed in, and the place of every term in it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from mixlm_sparse.common.errors import DataError, NotPositiveDefiniteError
from mixlm_sparse.common.types import Array3, Matrix, Vector
from mixlm_sparse.covariance.structure import Closure
from mixlm_sparse.design.finite import square_sum
from mixlm_sparse.design.grouping import MemberFactor
from mixlm_sparse.design.sparse_columns import SPARSE_SHARE, WIDE
from mixlm_sparse.solve.rows import RowBlock, rows_of

if TYPE_CHECKING:
    from mixlm_sparse.design.matrices import ModelMatrices

# A column counts as a combination of earlier ones if what they leave of it is below this share of
# its length; lme4 uses the same.
RANK_RTOL = 1e-7
SMALLEST = 1e-150  # length of a column: its square is a number still
# What a response leaves beside its fixed part, as a share of it, from which on it is computed with
# the errors of every product and sum: their rounding is no longer small beside it.
FAR = 1e-5
ROUNDING = 4.0 * np.finfo(float).eps  # of a response, as a share of it
SPLIT = 2.0**27 + 1.0  # two halves of a number have products without error


@dataclass(frozen=True, slots=True)
class Basis:
    """The linear maps from raw columns to the columns that products are formed with.

    Parameters
    ----------
    R : (p, p) upper triangular and regular, X~ = X R^{-1}.
    d : (p,) y~ = y - offset - X d; zero for columns without a direction of their own.
    Rz : per term, (k, k) upper triangular, z~ = z Rz^{-1}; sqrt(w) z~ has length one on average,
        so that a constant factor of the weights changes sigma and nothing else.
    """

    R: Matrix
    d: Vector
    Rz: tuple[Matrix, ...]

    @property
    def is_sparse(self) -> bool:
        """Whether most columns of a wide fixed part are left as they are (see `wide`)."""
        p = self.R.shape[0]
        return p >= WIDE and bool(np.count_nonzero(self.R) < SPARSE_SHARE * p * p)


@dataclass(frozen=True, slots=True)
class TermLayout:
    """Where a term's columns are: block `factor`, columns first..first + width."""

    factor: int
    first: int
    width: int

    @property
    def columns(self) -> slice:
        return slice(self.first, self.first + self.width)


def term_layout(matrices: ModelMatrices) -> tuple[TermLayout, ...]:
    """Place the columns of every term in the block of its grouping factor."""
    return placed_terms(tuple((term.factor, len(term.column_names)) for term in matrices.terms))


@lru_cache(maxsize=256)
def placed_terms(terms: tuple[tuple[int, int], ...]) -> tuple[TermLayout, ...]:
    """Place terms, given by their factor and number of columns, one after another."""
    filled: dict[int, int] = {}
    out = []
    for factor, width in terms:
        first = filled.get(factor, 0)
        out.append(TermLayout(factor, first, width))
        filled[factor] = first + width
    return tuple(out)


def triangular_inverse(R: Matrix) -> Matrix:
    """Return the inverse of a regular upper triangular matrix (k, k)."""
    if R.shape[0] <= 1:
        return 1.0 / R
    inverse, info = scipy.linalg.lapack.dtrtri(R, lower=0)
    if info != 0:
        raise NotPositiveDefiniteError("a basis of the model columns is singular")
    out: Matrix = inverse.copy()  # LAPACK leaves the zeros below the diagonal
    return out


@lru_cache(maxsize=64)
def _below(k: int) -> NDArray[np.bool_]:
    return np.tri(k, k=-1, dtype=bool)


def upper_triangle(R: Matrix) -> Matrix:
    """Return R (k, k) with zeros below its diagonal."""
    out = R.copy()
    out[_below(R.shape[0])] = 0.0
    return out


def r_factor(block: Matrix) -> Matrix:
    """Return the upper triangular factor (k, k) of a QR of `block` (m, k), m >= k."""
    k = block.shape[1]
    # straight to LAPACK: for small models the wrappers cost more than the arithmetic
    factored, _, _, info = scipy.linalg.lapack.dgeqrf(block)
    if info != 0:
        raise NotPositiveDefiniteError("the model columns hold values that are not finite")
    return upper_triangle(factored[:k])


def term_bases(matrices: ModelMatrices) -> tuple[Matrix, ...]:
    """Return Rz of every term, as `find_basis` does; the response is not read."""
    several = [t for t, term in enumerate(matrices.terms) if len(term.column_names) > 1]
    stacked: dict[int, Matrix] = {}
    for rows in rows_of(matrices) if several else ():
        for t in several:
            own = rows.sized(t, matrices.terms[t].factor)
            stacked[t] = stack_qr(stacked.get(t), rows.root_weighted(own))
    return tuple(
        term_basis(stacked[t] / np.sqrt(matrices.nobs), term.template.closed_under)
        if t in stacked
        else np.eye(1)
        for t, term in enumerate(matrices.terms)
    )


def find_basis(matrices: ModelMatrices, blocks: Iterable[RowBlock], n: int) -> Basis:
    """Find the basis in which the products of n rows, in blocks, lose no digits."""
    names = {name: i for i, name in enumerate(matrices.fixed.names)}
    # columns of random terms that X does not have, or not with these lengths, go beside it
    extra = [
        t
        for t, term in enumerate(matrices.terms)
        if not all(name in names for name in term.column_names)
        or isinstance(matrices.factors[term.factor], MemberFactor)
    ]
    p = len(matrices.fixed.names)
    stacked: Matrix | None = None
    for rows in blocks:
        sized = (rows.sized(t, matrices.terms[t].factor) for t in extra)
        block = np.concatenate([rows.X, rows.target[:, None], *sized], axis=1)
        stacked = stack_qr(stacked, rows.root_weighted(block))
    assert stacked is not None
    R_all = stacked
    labels = [*matrices.fixed.names, matrices.response_name or "y"]
    labels += [name for t in extra for name in matrices.terms[t].column_names]
    require_squares(R_all, labels)
    R, d = regular_basis(R_all[: p + 1, : p + 1])
    Rz = []
    first, root = p + 1, math.sqrt(n)
    for t, term in enumerate(matrices.terms):
        k = len(term.column_names)
        if t in extra:
            columns = R_all[:, first : first + k]
            first += k
        else:
            columns = R_all.take([names[name] for name in term.column_names], axis=1)
        Rz.append(term_basis(columns / root, term.template.closed_under))
    return Basis(R=R, d=d, Rz=tuple(Rz))


def response_less(y: Vector, X: Matrix, d: Vector) -> Vector:
    """Return y - X d (m,), y (m,) and X (m, p); far from zero with digits beyond those of y.

    A response near 1e9 that varies by one leaves 1e-7 of rounding in every row, which does not go
    away in a second pass.  There errors of products and sums are computed as well, and added up.
    Of a response that is its fixed part rounding is left, as without them.

    References
    ----------
    Ogita, Rump and Oishi (2005), doi:10.1137/030601818, algorithm 5.3.
    """
    left: Vector = y - X @ d
    largest = float(np.abs(y).max(initial=0.0))
    if not float(np.abs(left).max(initial=0.0)) < FAR * largest:
        return left
    total, errors = y, np.zeros_like(y)
    with np.errstate(over="ignore", invalid="ignore"):
        for j in np.flatnonzero(d).tolist():
            product, lost = _exact_product(X[:, j], -float(d[j]))
            before, total = total, total + product
            moved = total - before
            errors += ((before - (total - moved)) + (product - moved)) + lost
    exact: Vector = total + errors
    # less than the rounding of y itself is none of its digits
    some = float(np.abs(exact).max()) > ROUNDING * largest
    return exact if some and np.isfinite(exact).all() else left


def _exact_product(x: Vector, c: float) -> tuple[Vector, Vector]:
    """Return c x (m,) and its rounding error (Dekker 1971, doi:10.1007/BF01397083)."""
    product = c * x
    (x_head, x_tail), (c_head, c_tail) = _halves(x), _halves(np.array(c))
    error = ((x_head * c_head - product) + x_head * c_tail + x_tail * c_head) + x_tail * c_tail
    return product, error


def _halves(x: Vector) -> tuple[Vector, Vector]:
    far = SPLIT * x
    head = far - (far - x)
    return head, x - head


def require_squares(R: Matrix, names: list[str]) -> None:
    """Raise a DataError unless the squared lengths of the columns of R (m, k) are numbers."""
    if not math.isfinite(square_sum(R)):
        raise DataError(
            "the numbers of the model, times the roots of the weights, leave the range of numbers "
            "when they are squared: use other units, or smaller weights"
        )
    largest = np.abs(R).max(axis=0)
    for name, size in zip(names, largest.tolist(), strict=True):
        if 0.0 < size < SMALLEST:
            raise DataError(without_squares(f"'{name}'", size))


def without_squares(what: str, size: float) -> str:
    """Say that the numbers of `what`, a column of length `size`, are too small to be squared."""
    return (
        f"the numbers of {what}, times the roots of the weights, are so small ({size:.2g}) that "
        "their squares are none: use another unit"
    )


def stack_qr(R: Matrix | None, block: Matrix) -> Matrix:
    if R is not None:
        block = np.vstack([R, block])
    if block.shape[0] < block.shape[1]:
        block = np.vstack([block, np.zeros((block.shape[1] - block.shape[0], block.shape[1]))])
    return r_factor(block)


def level_rows(blocks: Array3) -> Matrix:
    """Return blocks (L, K, c) as L K rows, also where they have no columns (c = 0)."""
    L, K, c = blocks.shape
    return blocks.reshape(L * K, c)


def positive_diagonal(R: Matrix) -> Matrix:
    """Return an upper triangular factor with its diagonal not negative."""
    signs = np.where(R.diagonal() < 0.0, -1.0, 1.0)
    out: Matrix = R * signs[:, None]
    return out


def regular_basis(R: Matrix) -> tuple[Matrix, Vector]:
    """Return the (p, p) basis and d from the factor of [X y], made regular where X is not."""
    p = R.shape[0] - 1
    basis = upper_triangle(R[:p, :p])
    right = R[:p, p]
    lengths = column_lengths(basis)
    own = np.abs(basis.diagonal()) > RANK_RTOL * lengths
    regular = bool(own.all())
    if not regular:
        diagonal = basis.diagonal().copy()
        # No direction of its own: leave the column at its length; a zero column stays as it is.
        diagonal[~own] = np.where(lengths[~own] > 0.0, lengths[~own], 1.0)
        basis[np.arange(p), np.arange(p)] = diagonal
        right = np.where(own, right, 0.0)
    # straight to LAPACK, as in `r_factor`
    d = scipy.linalg.lapack.dtrtrs(basis, right)[0] if p else np.empty(0)
    return basis, d if regular else np.where(own, d, 0.0)


def term_basis(columns: Matrix, closure: Closure) -> Matrix:
    """Return Rz (k, k) of a term from any matrix with the Gram matrix of its columns."""
    k = columns.shape[1]
    lengths = column_lengths(columns)
    if closure == "linear" and 1 < k <= columns.shape[0]:
        R = r_factor(columns)
        diagonal = R.diagonal()
        if (np.abs(diagonal) > RANK_RTOL * lengths).all():
            out: Matrix = R * np.sign(diagonal)[:, None]
            return out
    lengths = np.where(lengths > 0.0, lengths, 1.0)
    if k == 1 and closure == "linear":
        return lengths[:, None]
    if closure in ("linear", "scales"):
        return np.diag(lengths)
    # the structure ties the columns together: one common scale
    return np.eye(k) * float(np.sqrt(np.mean(lengths**2)))


def column_lengths(columns: Matrix) -> Vector:
    """Return the lengths (k,) of the columns of a matrix (m, k)."""
    out: Vector = np.sqrt((columns * columns).sum(axis=0))
    return out
