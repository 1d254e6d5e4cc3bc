"""Everything the criterion needs that does not depend on theta.

The data enter once, by blocks of rows, and leave as products whose size does not depend on n:

    [X y]'W[X y]      as a triangular factor, by tall-skinny QR: R factors of blocks are stacked
                      and factored again, never a Gram matrix of raw columns
    Z_g'W[X y]        (L_g, K_g, p + 1) by level of each grouping factor
    Z_g'WZ_h          blocks of the pairs of levels that occur together

Raw columns can hide what matters behind large common parts (years near 2000, raw polynomials, a
response near 1e8), so products are formed in a *basis*, found by a QR of the first data seen:

    X~ = X B          orthonormal columns
    y~ = y - offset - X d         the residual of least squares
    z~ = z Rz^{-1}                per random-effects term; orthonormal up to scale where the term's
                                  covariance is unstructured, scaled only where it is not

and no digit is lost to cancellation.  Accumulators with different bases can be added: the second is
mapped to the basis of the first.  Terms that share a grouping factor are merged into one block.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import scipy.linalg

from mixlm_sparse._types import Array3, IntVector, Matrix, Vector
from mixlm_sparse.errors import DataError
from mixlm_sparse.factor import kernels
from mixlm_sparse.factor.interface import BlockSystem, FactorBlock, PairBlock

if TYPE_CHECKING:
    from mixlm_sparse.design import ModelMatrices

# A column counts as a combination of earlier ones if what they leave of it is below this share of
# its length; lme4 uses the same.
RANK_RTOL = 1e-7
# Rows in a block: large enough to amortize calls, small enough to stay in the cache.
BLOCK_ROWS = 16_384
# bincount pays for every group in every call, so the NumPy form takes larger bites.
NUMPY_BLOCK_ROWS = 131_072


@dataclass(frozen=True, slots=True)
class Basis:
    """The linear maps from raw columns to the columns that products are formed with.

    Parameters
    ----------
    R : (p, p) upper triangular and regular, X~ = X R^{-1}.
    d : (p,) y~ = y - offset - X d; zero for columns without a direction of their own.
    Rz : per term, (k, k) upper triangular, z~ = z Rz^{-1}.
    """

    R: Matrix
    d: Vector
    Rz: tuple[Matrix, ...]


@dataclass(frozen=True, slots=True)
class TermLayout:
    """Where a term's columns are: block `factor`, columns first..first + width."""

    factor: int
    first: int
    width: int

    @property
    def columns(self) -> slice:
        return slice(self.first, self.first + self.width)


@dataclass(frozen=True, slots=True)
class CrossProducts:
    """Products of all rows seen so far; a value that can be added to another.

    Parameters
    ----------
    basis : the basis that the products are formed in.
    n, log_weight_sum : rows seen; sum(log w), 0 without weights.
    R : (p + 1, p + 1) upper triangular factor of [X~ y~]'W[X~ y~].
    blocks : Z~'WZ~ and Z~'W[X~ y~] by level.
    layout : per term, its place in the merged blocks.
    levels : per factor, the labels of its levels; None as long as nothing was added.
    sources : per factor, what can name its levels.
    """

    basis: Basis
    n: int
    log_weight_sum: float
    R: Matrix
    blocks: BlockSystem
    layout: tuple[TermLayout, ...]
    levels: tuple[tuple[str, ...], ...] | None
    matrices: ModelMatrices | None = None

    def level_labels(self, factor: int) -> tuple[str, ...]:
        """Return the labels of a factor's levels, in the order of its blocks."""
        if self.levels is not None:
            return self.levels[factor]
        assert self.matrices is not None
        return tuple(self.matrices.factors[factor].levels)

    def update(self, batch: ModelMatrices) -> CrossProducts:
        """Return the products with the rows of `batch` added (same formula, same columns)."""
        return self + cross_products(batch, basis=self.basis)

    def __add__(self, other: CrossProducts) -> CrossProducts:
        return _merge(self, other)


@dataclass(frozen=True, slots=True)
class Products:
    """Products in their final, orthonormal form, ready for a penalized system.

    X[:, kept] = Q R_x with Q'WQ = I, and y - offset = X[:, kept] beta_ols + y_f with Q'W y_f = 0;
    `blocks` holds Z~'W[Q y_f].

    Parameters
    ----------
    kept : indices of the columns of X that are not combinations of earlier ones.
    R_x : (p, p) upper triangular.
    beta_ols : (p,) least-squares coefficients.
    yy : y_f'W y_f, the residual sum of squares of least squares.
    y_length : length of sqrt(W)(y - offset), the scale that rounding errors are measured on.
    """

    n: int
    log_weight_sum: float
    kept: tuple[int, ...]
    R_x: Matrix
    beta_ols: Vector
    yy: float
    y_length: float
    blocks: BlockSystem
    layout: tuple[TermLayout, ...]
    Rz: tuple[Matrix, ...]

    @property
    def p(self) -> int:
        return len(self.kept)


def term_layout(matrices: ModelMatrices) -> tuple[TermLayout, ...]:
    """Place the columns of every term in the block of its grouping factor."""
    filled = [0] * len(matrices.factors)
    out = []
    for term in matrices.terms:
        width = len(term.column_names)
        out.append(TermLayout(term.factor, filled[term.factor], width))
        filled[term.factor] += width
    return tuple(out)


def row_blocks(n: int, size: int) -> Iterator[slice]:
    """Cut 0..n into slices of at most `size` rows."""
    for start in range(0, n, size):
        yield slice(start, min(start + size, n))


class _Rows:
    """Blocks of rows with the weights and the offset worked in."""

    def __init__(self, matrices: ModelMatrices) -> None:
        self._m = matrices

    def response(self, rows: slice) -> Vector:
        y = self._m.y[rows]
        if self._m.offset is not None:
            y = y - self._m.offset[rows]
        return y

    def weights(self, rows: slice) -> Vector | None:
        return None if self._m.weights is None else self._m.weights[rows]

    def fixed_and_response(self, rows: slice) -> Matrix:
        X = self._m.fixed.block(rows)
        out = np.empty((X.shape[0], X.shape[1] + 1))
        out[:, :-1] = X
        out[:, -1] = self.response(rows)
        return out


def find_basis(matrices: ModelMatrices, block_rows: int) -> Basis:
    """Find the basis in which the products of these rows lose no digits."""
    rows_of = _Rows(matrices)
    n = matrices.nobs
    names = {name: i for i, name in enumerate(matrices.fixed.names)}
    # columns of random terms that X does not have must enter the QR beside it
    extra = [
        term
        for term in matrices.terms
        if not all(name in names for name in term.column_names)
    ]
    p = len(matrices.fixed.names)
    stacked: Matrix | None = None
    weight_sum = float(n)
    if matrices.weights is not None:
        weight_sum = float(matrices.weights.sum())
    for rows in row_blocks(n, block_rows):
        block = rows_of.fixed_and_response(rows)
        if extra:
            block = np.hstack([block, *(term.columns.block(rows) for term in extra)])
        w = rows_of.weights(rows)
        if w is not None:
            block = block * np.sqrt(w)[:, None]
        stacked = _stack_qr(stacked, block)
    assert stacked is not None
    R_all = stacked
    R, d = _regular_basis(R_all[: p + 1, : p + 1])
    Rz = []
    first = p + 1
    for term in matrices.terms:
        k = len(term.column_names)
        if term in extra:
            columns = R_all[:, first : first + k]
            first += k
        else:
            columns = R_all[:, [names[name] for name in term.column_names]]
        Rz.append(_term_basis(columns / np.sqrt(weight_sum), term.structure))
    return Basis(R=R, d=d, Rz=tuple(Rz))


def _stack_qr(R: Matrix | None, block: Matrix) -> Matrix:
    if R is not None:
        block = np.vstack([R, block])
    if block.shape[0] < block.shape[1]:
        block = np.vstack([block, np.zeros((block.shape[1] - block.shape[0], block.shape[1]))])
    out: Matrix = np.linalg.qr(block, mode="r")
    return out


def _regular_basis(R: Matrix) -> tuple[Matrix, Vector]:
    """Return the (p, p) basis and d from the factor of [X y], made regular where X is not."""
    p = R.shape[0] - 1
    basis = np.triu(R[:p, :p])
    lengths = np.sqrt((basis * basis).sum(axis=0))
    own = np.abs(np.diag(basis)) > RANK_RTOL * lengths
    if not own.all():
        diagonal = np.diag(basis).copy()
        # No direction of its own: leave the column at its length; a zero column stays as it is.
        diagonal[~own] = np.where(lengths[~own] > 0.0, lengths[~own], 1.0)
        basis[np.arange(p), np.arange(p)] = diagonal
    right = np.where(own, R[:p, p], 0.0)
    d = scipy.linalg.solve_triangular(basis, right, check_finite=False) if p else np.empty(0)
    d = np.where(own, d, 0.0)
    return basis, d


def _term_basis(columns: Matrix, structure: str) -> Matrix:
    """Return Rz (k, k) of a term from any matrix with the Gram matrix of its columns."""
    k = columns.shape[1]
    lengths = np.sqrt((columns * columns).sum(axis=0))
    lengths = np.where(lengths > 0.0, lengths, 1.0)
    if structure == "us":
        if k == 1:
            return lengths[:, None]
        R = np.linalg.qr(columns, mode="r")
        if R.shape[0] == k and (np.abs(np.diag(R)) > RANK_RTOL * lengths).all():
            signs = np.sign(np.diag(R))
            out: Matrix = R * signs[:, None]
            return out
        return np.diag(lengths)
    if structure == "diag":
        return np.diag(lengths)
    # other structures tie the columns together: one common scale
    return np.eye(k) * float(np.sqrt(np.mean(lengths**2)))


def cross_products(
    matrices: ModelMatrices, *, basis: Basis | None = None, compiled: bool | None = None
) -> CrossProducts:
    """Form the products of the rows in `matrices`.

    Parameters
    ----------
    matrices : the design; its columns are evaluated by blocks of rows.
    basis : the basis to use; by default one is found, which reads the rows twice.
    compiled : force the compiled kernels on or off.
    """
    n = matrices.nobs
    P = len(matrices.fixed.names) + 1
    layout = term_layout(matrices)
    widths = [0] * len(matrices.factors)
    for place in layout:
        widths[place.factor] += place.width
    if compiled is None:
        compiled = kernels.compiled_pays(
            n * (P * P + sum(K * (K + P) + 8 * len(widths) for K in widths))
        )
    block_rows = BLOCK_ROWS if compiled else NUMPY_BLOCK_ROWS
    own_basis = basis is None
    if basis is None:
        basis = find_basis(matrices, block_rows)
    B = _inverse(basis.R)
    Bz = [_inverse(R) for R in basis.Rz]
    for place, term_inverse in zip(layout, Bz, strict=True):
        if term_inverse.shape[0] != place.width:
            raise DataError("the basis belongs to a model with other random-effects columns")

    factors = matrices.factors
    ztz = [np.zeros((f.n_levels, K, K)) for f, K in zip(factors, widths, strict=True)]
    ztx = [np.zeros((f.n_levels, K, P)) for f, K in zip(factors, widths, strict=True)]
    pair_rows: dict[tuple[int, int], tuple[IntVector, IntVector]] = {}
    pair_of_row: dict[tuple[int, int], IntVector] = {}
    pair_values: dict[tuple[int, int], Array3] = {}
    for g in range(len(factors)):
        for h in range(g + 1, len(factors)):
            rows_gh, cols_gh, index = kernels.pair_index(
                factors[g].codes,
                factors[h].codes,
                factors[g].n_levels,
                factors[h].n_levels,
                compiled=compiled,
            )
            pair_rows[g, h] = rows_gh, cols_gh
            pair_of_row[g, h] = index
            pair_values[g, h] = np.zeros((rows_gh.size, widths[g], widths[h]))

    rows_of = _Rows(matrices)
    gram = np.zeros((P, P))
    stacked: Matrix | None = None
    log_weight_sum = 0.0
    for rows in row_blocks(n, block_rows):
        raw = rows_of.fixed_and_response(rows)
        block = np.empty_like(raw)
        np.matmul(raw[:, :-1], B, out=block[:, :-1])
        block[:, -1] = raw[:, -1] - raw[:, :-1] @ basis.d
        w = rows_of.weights(rows)
        if w is None:
            weighted = block
        else:
            weighted = block * w[:, None]
            log_weight_sum += float(np.log(w).sum())
        if own_basis:
            gram += block.T @ weighted
        else:
            stacked = _stack_qr(stacked, block if w is None else block * np.sqrt(w)[:, None])
        Z = _merged_columns(matrices, layout, widths, Bz, rows)
        WZ = Z if w is None else [z * w[:, None] for z in Z]
        for g, factor in enumerate(factors):
            D = np.hstack([WZ[g], weighted])
            kernels.add_group_products(
                factor.codes[rows], Z[g], D, ztz[g], ztx[g], compiled=compiled
            )
        for (g, h), values in pair_values.items():
            kernels.add_pair_products(
                pair_of_row[g, h][rows], Z[g], WZ[h], values, compiled=compiled
            )
    for blocks in ztz:
        _fill_upper(blocks)
    R = _semidefinite_cholesky(gram) if own_basis else stacked
    assert R is not None
    return CrossProducts(
        basis=basis,
        n=n,
        log_weight_sum=log_weight_sum,
        R=R,
        blocks=BlockSystem(
            factors=tuple(
                FactorBlock(f.label, zz, zx) for f, zz, zx in zip(factors, ztz, ztx, strict=True)
            ),
            pairs={
                key: PairBlock(*pair_rows[key], values) for key, values in pair_values.items()
            },
        ),
        layout=layout,
        levels=None,
        matrices=matrices,
    )


def _inverse(R: Matrix) -> Matrix:
    if R.shape[0] == 1:
        return 1.0 / R
    out: Matrix = scipy.linalg.solve_triangular(R, np.eye(R.shape[0]), check_finite=False)
    return out


def _merged_columns(
    matrices: ModelMatrices,
    layout: Sequence[TermLayout],
    widths: Sequence[int],
    Bz: Sequence[Matrix],
    rows: slice,
) -> list[Matrix]:
    """Return z~ of each grouping factor, (m, K)."""
    out: list[Matrix | None] = [None] * len(widths)
    for term, place, inverse in zip(matrices.terms, layout, Bz, strict=True):
        z = term.columns.block(rows)
        if place.width > 1:
            z = z @ inverse
        elif inverse[0, 0] != 1.0:
            z = z * inverse[0, 0]
        if place.width == widths[place.factor]:
            out[place.factor] = np.ascontiguousarray(z)
            continue
        merged = out[place.factor]
        if merged is None:
            merged = out[place.factor] = np.empty((z.shape[0], widths[place.factor]))
        merged[:, place.columns] = z
    return [z for z in out if z is not None]


def _fill_upper(blocks: Array3) -> None:
    K = blocks.shape[1]
    for a in range(K):
        for b in range(a):
            blocks[:, b, a] = blocks[:, a, b]


def _semidefinite_cholesky(gram: Matrix) -> Matrix:
    """Return upper triangular R with R'R = gram; a direction without length gets a zero row.

    The Gram matrix is formed in an orthonormal basis, so nothing is lost by squaring.
    """
    P = gram.shape[0]
    try:
        out: Matrix = np.linalg.cholesky(gram).T
        return out
    except np.linalg.LinAlgError:
        pass
    R = np.zeros((P, P))
    rest = gram.copy()
    for j in range(P):
        pivot = rest[j, j]
        if pivot <= 1e-30 * max(gram[j, j], 1e-300):
            continue
        R[j, j:] = rest[j, j:] / np.sqrt(pivot)
        rest[j:, j:] -= np.outer(R[j, j:], R[j, j:])
    return R


# ---------------------------------------------------------------------------------------------
# Adding
# ---------------------------------------------------------------------------------------------


def _merge(a: CrossProducts, b: CrossProducts) -> CrossProducts:
    if a.layout != b.layout or a.R.shape != b.R.shape:
        raise DataError(
            "products of two different models cannot be added: use the same formula, the same "
            "contrasts and the same factor levels in the fixed part for every batch"
        )
    b = _in_basis(b, a.basis)
    levels: list[tuple[str, ...]] = []
    maps: list[tuple[np.ndarray, int]] = []
    for g in range(len(a.blocks.factors)):
        known = {label: i for i, label in enumerate(a.level_labels(g))}
        place = np.array([known.setdefault(label, len(known)) for label in b.level_labels(g)])
        levels.append(tuple(known))
        maps.append((place, len(known)))
    factors = []
    for fa, fb, (place, n_levels) in zip(a.blocks.factors, b.blocks.factors, maps, strict=True):
        ztz = np.zeros((n_levels, *fa.ztz.shape[1:]))
        ztx = np.zeros((n_levels, *fa.ztx.shape[1:]))
        ztz[: fa.n_levels] = fa.ztz
        ztx[: fa.n_levels] = fa.ztx
        ztz[place] += fb.ztz
        ztx[place] += fb.ztx
        factors.append(FactorBlock(fa.label, ztz, ztx))
    pairs = {}
    for (g, h), pa in a.blocks.pairs.items():
        pb = b.blocks.pairs[g, h]
        n_h = maps[h][1]
        key_a = pa.rows.astype(np.int64) * n_h + pa.cols
        key_b = maps[g][0][pb.rows].astype(np.int64) * n_h + maps[h][0][pb.cols]
        distinct = np.union1d(key_a, key_b)
        values = np.zeros((distinct.size, *pa.values.shape[1:]))
        values[np.searchsorted(distinct, key_a)] = pa.values
        values[np.searchsorted(distinct, key_b)] += pb.values
        pairs[g, h] = PairBlock(
            (distinct // n_h).astype(np.int32), (distinct % n_h).astype(np.int32), values
        )
    return CrossProducts(
        basis=a.basis,
        n=a.n + b.n,
        log_weight_sum=a.log_weight_sum + b.log_weight_sum,
        R=_stack_qr(a.R, b.R),
        blocks=BlockSystem(tuple(factors), pairs),
        layout=a.layout,
        levels=tuple(levels),
        matrices=None,
    )


def _in_basis(products: CrossProducts, basis: Basis) -> CrossProducts:
    """Express products in another basis; exact linear maps, nothing is read again."""
    old = products.basis
    if old is basis:
        return products
    P = products.R.shape[0]
    # X~_new = X R_new^{-1} = X~_old (R_old R_new^{-1});  y~_new = y~_old + X~_old R_old (d_old - d_new)
    M = np.eye(P)
    M[:-1, :-1] = old.R @ _inverse(basis.R) if P > 1 else M[:-1, :-1]
    M[:-1, -1] = old.R @ (old.d - basis.d)
    N = [Ro @ _inverse(Rn) for Ro, Rn in zip(old.Rz, basis.Rz, strict=True)]
    maps = [np.zeros((f.width, f.width)) for f in products.blocks.factors]
    for place, block in zip(products.layout, N, strict=True):
        maps[place.factor][place.columns, place.columns] = block
    factors = tuple(
        FactorBlock(
            f.label,
            np.matmul(np.matmul(A.T, f.ztz), A),
            np.matmul(np.matmul(A.T, f.ztx), M),
        )
        for f, A in zip(products.blocks.factors, maps, strict=True)
    )
    pairs = {
        (g, h): PairBlock(
            pair.rows, pair.cols, np.matmul(np.matmul(maps[g].T, pair.values), maps[h])
        )
        for (g, h), pair in products.blocks.pairs.items()
    }
    return replace(
        products,
        basis=basis,
        R=np.linalg.qr(products.R @ M, mode="r"),
        blocks=BlockSystem(factors, pairs),
    )


# ---------------------------------------------------------------------------------------------
# The final form
# ---------------------------------------------------------------------------------------------


def kept_columns(R: Matrix) -> tuple[int, ...]:
    """Return the columns of X that are not combinations of earlier ones, from its factor (p, p)."""
    p = R.shape[1]
    lengths = np.sqrt((R * R).sum(axis=0))
    if p == 0 or (np.abs(np.diag(R)) > RANK_RTOL * lengths).all():
        return tuple(range(p))
    Q = np.zeros((R.shape[0], 0))
    kept: list[int] = []
    for j in range(p):
        left = R[:, j] - Q @ (Q.T @ R[:, j])
        left -= Q @ (Q.T @ left)
        length = float(np.sqrt(left @ left))
        if length > RANK_RTOL * lengths[j]:
            Q = np.column_stack([Q, left / length])
            kept.append(j)
    return tuple(kept)


def orthonormal_products(cross: CrossProducts) -> Products:
    """Bring accumulated products to their final form; decides which columns of X are kept."""
    basis = cross.basis
    p = basis.R.shape[0]
    Rxx, Rxy = cross.R[:p, :p], cross.R[:p, p]
    R_columns = Rxx @ basis.R  # X = Q (R_columns) in the coordinates of the accumulated factor
    kept = kept_columns(R_columns)
    dropped = [j for j in range(p) if j not in kept]
    Q, R_x = np.linalg.qr(R_columns[:, list(kept)])
    signs = np.where(np.diag(R_x) < 0.0, -1.0, 1.0)
    Q, R_x = Q * signs, R_x * signs[:, None]
    R_inverse = _inverse(R_x) if len(kept) else np.zeros((0, 0))
    d_dropped = basis.d[dropped]
    v = Rxy + R_columns[:, dropped] @ d_dropped
    delta = R_inverse @ (Q.T @ v)
    beta_ols = basis.d[list(kept)] + delta
    residual = v - Q @ (Q.T @ v)
    M = np.zeros((p + 1, len(kept) + 1))
    M[:p, :-1] = basis.R[:, list(kept)] @ R_inverse
    M[:p, -1] = basis.R[:, dropped] @ d_dropped - basis.R[:, list(kept)] @ delta
    M[p, -1] = 1.0
    fitted = R_columns @ basis.d + Rxy
    r_yy = float(cross.R[p, p])
    return Products(
        n=cross.n,
        log_weight_sum=cross.log_weight_sum,
        kept=kept,
        R_x=R_x,
        beta_ols=beta_ols,
        yy=r_yy * r_yy + float(residual @ residual),
        y_length=float(np.sqrt(fitted @ fitted + r_yy * r_yy)),
        blocks=BlockSystem(
            factors=tuple(
                FactorBlock(f.label, f.ztz, np.matmul(f.ztx, M)) for f in cross.blocks.factors
            ),
            pairs=cross.blocks.pairs,
        ),
        layout=cross.layout,
        Rz=basis.Rz,
    )
