"""Inner products of the directions in which variance parameters move the law of the data.

With G_i = Z_t E_i Z_t' for the i-th (co)variance, G_0 = I for the residual one (rows multiplied by
sqrt(W)), Q an orthonormal basis of X and P = I - QQ' (or I),

    J_ik = tr(P G_i P G_k) = sum_jl tr(E_i M_jl E_k M_jl'),  M_jl = A_jl - R_j R_l'

over levels j of one factor and l of another, A = Z'WZ (sparse), R = Z'WQ.  Exact, in one pass over
the blocks of A: what lies off its pattern is <H_ab, H_cd> less what lies on it, with
H_ab = sum_j R_j[a] R_j[b]' (p, p).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from mixlm_sparse.common.types import Array3, Matrix, Vector
from mixlm_sparse.covariance.structure import CovarianceStructure
from mixlm_sparse.engines.fused.dense import DenseProducts
from mixlm_sparse.engines.interface import FactorBlock
from mixlm_sparse.solve.fixed_share import PASS_NUMBERS, FilledShare, FixedShare, fixed_share
from mixlm_sparse.solve.system import PenalizedSystem

# Eigenvalues of J, brought to the lengths of the G_i, below this are rounding: no law moves.
NULL_RTOL = 1e-12
ZERO_LENGTH_RTOL = 1e-10
# Matrices of so many cells of which few are not zero are kept sparse.
SPARSE_FROM = 10_000
# Random vectors that the average information is summed over, always the same ones.
PROBES = 3


@dataclass(frozen=True, eq=False, slots=True)
class Generator:
    """One direction of the covariance of a term's effects, in the working columns.

    Parameters
    ----------
    term, factor : where it belongs.
    E : (k, k) change of the covariance of the term's effects.
    merged : (K, K) the same among all columns of the grouping factor.
    """

    term: int
    factor: int
    E: Matrix
    merged: Matrix


def generators(system: PenalizedSystem, *, known: bool = False) -> list[Generator]:
    """List the directions of every term: a basis of its covariances.

    Parameters
    ----------
    known : terms of levels with a known covariance too; what tells them from others is how their
        levels belong together.
    """
    chart = system.chart
    out = []
    held: dict[int, set[int]] = {}
    for hold in system.held.holds if system.held is not None else ():
        coordinate = chart.templates[hold.term].held_coordinate(hold.parameter)
        held.setdefault(hold.term, set()).add(coordinate)
    for t, (template, place) in enumerate(zip(chart.templates, chart.layout, strict=True)):
        if system.matrices.factors[place.factor].known is not None and not known:
            continue
        matrices = _basis(template) if t not in held else _beside_held(template, held[t])
        for E in matrices:
            merged = E
            if place.width < chart.widths[place.factor]:
                merged = np.zeros((chart.widths[place.factor],) * 2)
                merged[place.columns, place.columns] = E
            out.append(Generator(t, place.factor, E, merged))
    return out


def bilinear_forms(found: list[Generator], factor: int, values: Array3) -> dict[int, Vector]:
    """Return sum_j x_j' E_i z_j (m,) of columns x and z, by the number i of the generator.

    Parameters
    ----------
    factor : whose generators are asked for.
    values : (L, K, 2 m) x and z of its levels, all x first.
    """
    m = values.shape[2] // 2
    moments = np.einsum("laj,lbj->abj", values[:, :, :m], values[:, :, m:])
    return {
        i: np.einsum("ab,abj->j", one.merged, moments)
        for i, one in enumerate(found)
        if one.factor == factor
    }


def _beside_held(template: CovarianceStructure, held: set[int]) -> tuple[Matrix, ...]:
    """Return the directions that are left where coordinates of phi are held."""
    tangents = template.tangents(template.generic)
    return tuple(E for i, E in enumerate(tangents) if i not in held)


def _basis(template: CovarianceStructure) -> tuple[Matrix, ...]:
    basis = template.covariance_basis
    if basis is not None:
        return basis
    # no linear space: the tangent space at a point where nothing cancels by chance
    T = template.factor_at(template.generic)
    slopes = template.slopes_at(template.generic)
    return tuple(slope @ T.T + T @ slope.T for slope in slopes)


@dataclass(frozen=True, eq=False, slots=True)
class Places:
    """Where the generators of each factor stand in J, and their E as rows.

    Parameters
    ----------
    at : per factor with generators, (g,) their places in J.
    E : per such factor, (g, K^2), in the form that multiplies faster.
    size : number of all generators.
    """

    at: dict[int, NDArray[np.intp]]
    E: dict[int, Any]
    size: int

    @classmethod
    def of(cls, found: list[Generator]) -> Places:
        at: dict[int, list[int]] = {}
        for i, one in enumerate(found):
            at.setdefault(one.factor, []).append(i)
        E = {
            g: _few(np.array([found[i].merged for i in own]).reshape(len(own), -1))
            for g, own in at.items()
        }
        return cls({g: np.array(own) for g, own in at.items()}, E, len(found))


def gram(
    system: PenalizedSystem, places: Places, *, project: bool, between: bool = True
) -> Matrix:
    """Return J (g + 1, g + 1), the residual last.

    Parameters
    ----------
    project : take the fixed effects out (REML), or not.
    between : whether what belongs to different factors counts; else it is left zero.
    """
    moments, traces = _moments_of_pairs(system, project=project, between=between)
    size = places.size
    J = np.zeros((size + 1, size + 1))
    # <E_i x E_k, F> for all pairs of two factors at once
    for (g, h), F in moments.items():
        if g in places.E and h in places.E:
            flat = places.E[g] @ F.reshape(F.shape[0] ** 2, -1)
            rows, columns = places.at[g][:, None], places.at[h]
            J[rows, columns] = flat @ places.E[h].T
            J[columns[:, None], places.at[g]] = J[rows, columns].T
    for g, E in places.E.items():
        at = places.at[g]
        J[at, size] = J[size, at] = E @ traces[g].ravel()
    J[size, size] = system.n - (system.p if project else 0)
    return J


def _moments_of_pairs(
    system: PenalizedSystem, *, project: bool, between: bool
) -> tuple[dict[tuple[int, int], Any], list[Matrix]]:
    """Return second moments of M (K, K, H, H) per pair of factors g <= h, and sums of M_jj (K, K).

    Factors that are nowhere together have moments with projection alone.
    """
    if isinstance(system.fused, DenseProducts):
        return _dense_moments(system.fused, project=project, between=between)
    blocks = system.products.blocks
    n_factors = len(blocks.factors)
    if n_factors == 1 and not (blocks.pairs or system.products.sparse):
        f = blocks.factors[0]
        if f.ztx.size * f.width <= PASS_NUMBERS:
            return _moments_of_one(f, project=project and system.p > 0)
    R = fixed_share(system.products) if project and system.p else None
    moments: dict[tuple[int, int], Any] = {}
    traces = []
    for g, f in enumerate(blocks.factors):
        levels = np.arange(f.n_levels)
        moments[g, g] = _on_pattern(f.ztz, levels, levels, R, g, g)
        traces.append(f.ztz.sum(axis=0))
        if R is not None:
            traces[g] = traces[g] - R.total(g)
    for (g, h), pair in blocks.pairs.items():
        if g != h and not between:
            continue
        own = _on_pattern(pair.values, pair.rows, pair.cols, R, g, h)
        if g == h:  # beside single levels, (j, l) and (l, j)
            turned = np.swapaxes(pair.values, 1, 2)
            own = own + _on_pattern(turned, pair.cols, pair.rows, R, g, g) + moments[g, g]
        moments[g, h] = own
    if R is not None:
        for g in range(n_factors):
            for h in range(g, n_factors):
                moments[g, h] = moments.get((g, h), 0.0) + R.everywhere(g, h)
    return moments, traces


def _moments_of_one(
    f: FactorBlock, *, project: bool
) -> tuple[dict[tuple[int, int], Any], list[Matrix]]:
    """Return what `_moments_of_pairs` does of one factor whose levels share no row."""
    if not project:
        return {(0, 0): _moments(f.ztz)}, [f.ztz.sum(axis=0)]
    R = f.ztx[:, :, :-1]
    taken = np.matmul(R, np.swapaxes(R, 1, 2))
    own = f.ztz - taken
    total = _moments(own) - _moments(taken) + FilledShare([R]).everywhere(0, 0)
    return {(0, 0): total}, [own.sum(axis=0)]


def _dense_moments(
    dense: DenseProducts, *, project: bool, between: bool
) -> tuple[dict[tuple[int, int], Any], list[Matrix]]:
    """Return what `_moments_of_pairs` does of few effects, from M (q, q) as a whole."""
    M = dense.A
    if project:
        R = dense.X[:, :-1]
        M = M - R @ R.T
    sizes = list(zip(dense.first.tolist(), dense.count.tolist(), dense.width.tolist(), strict=True))
    moments: dict[tuple[int, int], Any] = {}
    traces = []
    for g, (i, L, K) in enumerate(sizes):
        for h, (j, N, H) in enumerate(sizes):
            if h < g or (h > g and not between):
                continue
            block = M[i : i + L * K, j : j + N * H]
            if K == H == 1:
                moments[g, h] = np.vdot(block, block).reshape(1, 1, 1, 1)
                continue
            flat = block.reshape(L, K, N, H).transpose(1, 3, 0, 2).reshape(K * H, -1)
            moments[g, h] = (flat @ flat.T).reshape(K, H, K, H).transpose(0, 2, 1, 3)
        own = M[i : i + L * K, i : i + L * K].reshape(L, K, L, K)
        traces.append(own.trace(axis1=0, axis2=2))
    return moments, traces


def _few(rows: Matrix) -> Any:
    """Return rows of few numbers that are not zero in the form that multiplies faster."""
    return sp.csr_array(rows) if rows.size > SPARSE_FROM else rows


@dataclass(frozen=True, eq=False, slots=True)
class Seen:
    """The information on the variance parameters at V = I, brought to unit lengths.

    Parameters
    ----------
    generators : the directions of the covariances.
    scale : (g + 1,) their lengths, the residual last.
    values, vectors : (g + 1,), (g + 1, g + 1) eigenvalues and eigenvectors.
    """

    generators: list[Generator]
    scale: Vector
    values: Vector
    vectors: Matrix

    @property
    def null(self) -> Matrix:
        """(g + 1, r) directions along which no law moves."""
        return self.vectors[:, self.values <= NULL_RTOL]

    @classmethod
    def all_of(cls, system: PenalizedSystem, *, reml: bool) -> None:
        """Enter that no direction is hidden, where that is known without the information."""
        system.judged.setdefault((reml, False), cls([], np.ones(1), np.ones(1), np.ones((1, 1))))


def information_of(system: PenalizedSystem, *, reml: bool) -> Seen:
    """Return the information of a design; formed once."""
    given = system.held is not None and system.held.sigma is not None
    seen: Seen | None = system.judged.get((reml, given))
    if seen is None:
        found = generators(system)
        places = Places.of(found)
        project = reml and system.p > 0
        # without projection the diagonal alone is asked for, unless that is the information itself
        plain = gram(system, places, project=False, between=not project)
        size = np.sqrt(np.maximum(plain.diagonal(), 0.0))  # |G_i|; zero for a column of zeros
        # effects that never meet have no covariance: what is left of its length is rounding
        scale = np.where(size > ZERO_LENGTH_RTOL * size.max(), size, size.max())
        scale[-1] = size[-1]  # that of the residuals is no rounding, however large weights are
        J = gram(system, places, project=True) if project else plain
        J = J / (scale[:, None] * scale)
        if given:  # the residual variance cannot take part
            values, vectors = np.linalg.eigh(J[:-1, :-1])
            vectors = np.vstack([vectors, np.zeros(values.size)])
        else:
            values, vectors = np.linalg.eigh(J)
        seen = Seen(found, scale, values, vectors)
        system.judged[reml, given] = seen
    return seen


def average_information(
    system: PenalizedSystem, found: list[Generator], lambdas: list[Matrix], *, project: bool
) -> Matrix:
    """Return the average information (g, g) of the (co)variances at Lambda, to unit lengths.

    J at V = I counts a level by its rows; here V = I + Z Lambda Lambda'Z' and levels count alike.
    With B = Z'V^{-1}Z = A - A Lambda C^{-1} Lambda'A, U = Z'V^{-1}Q = R - A Lambda C^{-1} Lambda'R,
    N = Z'PZ = B - U (Q'V^{-1}Q)^{-1} U',

        s = N b,    J_ik = (E_i s)' N (E_k s)

    summed over random vectors b (q,), which is y'P G_i P G_k P y for y = Zb: it has the null
    vectors of the information.  Divided by the same without projection.
    """
    blocks = system.products.blocks
    p = system.p
    rng = np.random.default_rng(0)
    b = [rng.standard_normal((f.n_levels, f.width, PROBES)) for f in blocks.factors]
    R = [f.ztx[:, :, :-1] for f in blocks.factors]
    with system.lock:
        engine = system.engine
        engine.factorize(lambdas)

        def without(x: list[Array3]) -> tuple[list[Array3], list[Array3]]:
            """Return x - A Lambda C^{-1} Lambda'x, and C^{-1} Lambda'x."""
            turned = [np.matmul(lam.T, v) for lam, v in zip(lambdas, x, strict=True)]
            solved = engine.solve(turned)
            back = engine.multiply(
                [np.matmul(lam, v) for lam, v in zip(lambdas, solved, strict=True)]
            )
            return [v - w for v, w in zip(x, back, strict=True)], solved

        U: list[Array3] = []
        M = np.eye(p)
        if project and p:
            U, solved = without(R)
            for r, lam, v in zip(R, lambdas, solved, strict=True):
                M -= np.matmul(lam.T, r).reshape(-1, p).T @ v.reshape(-1, p)

        def seen(w: list[Array3], taken: bool) -> list[Array3]:
            """Return N w, without the part of Q unless it is to be taken out."""
            out = without(engine.multiply(w))[0]
            if not (taken and U):
                return out
            inner = sum(
                (u.reshape(-1, p).T @ x.reshape(-1, x.shape[2]) for u, x in zip(U, w, strict=True)),
                np.zeros((p, w[0].shape[2])),
            )
            step = np.linalg.solve(M, inner)
            return [x - u @ step for x, u in zip(out, U, strict=True)]

        def information(taken: bool) -> Matrix:
            s = seen(b, taken)
            J = np.zeros((len(found), len(found)))
            for probe in range(PROBES):
                w = [np.zeros((f.n_levels, f.width, len(found))) for f in blocks.factors]
                for i, at in enumerate(found):
                    w[at.factor][:, :, i] = s[at.factor][:, :, probe] @ at.merged
                J += sum(
                    x.reshape(-1, len(found)).T @ y.reshape(-1, len(found))
                    for x, y in zip(w, seen(w, taken), strict=True)
                )
            return 0.5 * (J + J.T)

        J = information(True)
        # what nothing shows is zero but for rounding, of either sign
        length = np.sqrt(np.maximum(np.diag(information(False) if U else J), 0.0))
    length[length == 0.0] = 1.0
    out: Matrix = J / np.outer(length, length)
    return out


def _moments(blocks: Array3) -> Matrix:
    """Return sum_j B_j[a, c] B_j[b, d] as (a, b, c, d)."""
    m, K, H = blocks.shape
    flat = blocks.reshape(m, K * H)
    out: Matrix = (flat.T @ flat).reshape(K, H, K, H).transpose(0, 2, 1, 3)
    return out


def _on_pattern(
    A: Array3, rows: np.ndarray, cols: np.ndarray, R: FixedShare | None, g: int, h: int
) -> Matrix:
    """Return the part of the second moments of M that lies on the pattern, less what
    `FixedShare.everywhere` adds there; (K, K, H, H).
    """
    if R is None:
        return _moments(A)
    m, K, H = A.shape
    out = np.zeros((K, K, H, H))
    step = R.pairs_at_a_time(g, h)
    for start in range(0, m, step):
        part = slice(start, start + step)
        at = rows[part]
        B = R.met(g, h, at, at if rows is cols else cols[part])
        out += _moments(A[part] - B) - _moments(B)
    return out
