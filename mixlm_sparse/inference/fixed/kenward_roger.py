"""Kenward and Roger's small-sample covariance and degrees of freedom, without any n x n matrix.

The variance of y is sigma^2 V with V = sum_i gamma_i G_i + W^{-1}, one gamma for each variance and
covariance of random effects, relative to sigma^2, where G_i = sum_j Z_j E_i Z_j' over the levels j
of a grouping factor, and E_i is a symmetric basis matrix (k, k).  With

    P_i = -X'V^{-1}G_iV^{-1}X,   Q_ij = X'V^{-1}G_iV^{-1}G_jV^{-1}X,   Phi = (X'V^{-1}X)^{-1},
    W = 2 [tr(V^{-1}G_iV^{-1}G_j) - 2 tr(Phi Q_ij) + tr(Phi P_i Phi P_j)]^{-1}

the adjusted covariance of beta is sigma^2 (Phi + 2 Phi {sum_ij W_ij (Q_ij - P_i Phi P_j)} Phi).

Everything that V^{-1} enters is a product with R = Z'V^{-1}X, (q, p), and B = Z'V^{-1}Z, (q, q):
tr(V^{-1}G_iV^{-1}G_j) is a sum of products of blocks of B, and Q_ij = (E_i R)'B(E_j R).  By
Woodbury's identity B = A - A Lambda C^{-1} Lambda'A with A = Z'WZ.

The results do not change if the parameters are mapped linearly, so V itself takes the place of
G = W^{-1} for sigma^2: its products are X'V^{-1}X, R and B again, and its trace is n.

B is block-diagonal by *component*: levels of all factors that are linked by common rows.  With one
grouping factor a component is a level, with nested ones a level of the outermost; only crossed
factors make one large component.  Components of the same shape are computed together.

References
----------
Kenward and Roger (1997), doi:10.2307/2533558; Halekoh and Højsgaard (2014),
doi:10.18637/jss.v059.i09.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from weakref import WeakKeyDictionary

import numpy as np
import scipy.linalg
import scipy.sparse

from mixlm_sparse.common.errors import EngineError, OptionError, RefitWarning
from mixlm_sparse.common.types import Array3, Matrix, Vector
from mixlm_sparse.covariance.random import CovarianceStructure
from mixlm_sparse.engines.interface import BlockSystem
from mixlm_sparse.engines.threads import large_block, one_blas_thread
from mixlm_sparse.inference.fixed.ddf import JointTest, independent_combinations
from mixlm_sparse.model.fitted import FittedModel
from mixlm_sparse.model.notes import warn_of
from mixlm_sparse.solve.pls import residual_products, solve_at
from mixlm_sparse.solve.system import PenalizedSystem

# Largest memory for the dense matrices of one component; three of them exist at a time.
MAX_COMPONENT_BYTES = 6 * 2**30
BATCH_NUMBERS = 2**21  # numbers in the matrices of components that are computed together
# Below this the expected information, brought to a unit diagonal, counts as singular.
INFORMATION_TOL = 1e-10
# Where these differences from pbkrtest's formulas are smaller, a ratio takes its limit.
ZERO_RATIO_TOL = 1e-14
DF_TWO_TOL = 1e-2


@dataclass(frozen=True, eq=False)
class KenwardRogerMoments:
    """Adjusted covariance of beta, and degrees of freedom.

    Parameters
    ----------
    beta : (p,) REML estimates.
    vcov : (p, p) adjusted covariance; vcov_plain : (p, p) the usual one.
    sigma : residual standard deviation.
    P : (r, p, p) for every variance parameter, and W : (r, r), the approximate covariance of the
        parameters, in units in which sigma is one.
    """

    beta: Vector
    vcov: Matrix
    vcov_plain: Matrix
    sigma: float
    P: Array3
    W: Matrix
    note: str = ""
    label: str = "Kenward-Roger"

    def variance(self, L: Matrix) -> Vector:
        out: Vector = ((L @ self.vcov) * L).sum(axis=1)
        return out

    @cached_property
    def _Phi_P_Phi(self) -> Array3:
        Phi = self.vcov_plain / self.sigma**2
        out: Array3 = np.matmul(np.matmul(Phi, self.P), Phi)
        return out

    def _scaled(self, L: Matrix) -> tuple[float, float]:
        """Return the denominator df and the factor of F for L (q, p) of full rank."""
        q = L.shape[0]
        Phi = self.vcov_plain / self.sigma**2
        chol = np.linalg.cholesky(L @ Phi @ L.T)
        half = scipy.linalg.solve_triangular(chol, L, lower=True)
        # tr(Theta Phi P_i Phi) and tr(Theta Phi P_i Phi Theta Phi P_j Phi) with
        # Theta = L'(L Phi L')^{-1} L
        D = np.matmul(np.matmul(half, self._Phi_P_Phi), half.T)
        traces = np.trace(D, axis1=1, axis2=2)
        flat = D.reshape(D.shape[0], -1)
        A1 = float(traces @ self.W @ traces)
        A2 = float((self.W * (flat @ flat.T)).sum())
        return _denominator(q, A1, A2)

    def df(self, L: Matrix) -> Vector:
        out = np.full(L.shape[0], np.nan)
        for i, row in enumerate(L):
            if row.any() and np.isfinite(row).all():
                out[i] = self._scaled(row[None])[0]
        return out

    def joint(self, L: Matrix, rhs: Vector) -> JointTest:
        rotated, difference, variance = independent_combinations(L, rhs, self.beta, self.vcov)
        q = difference.size
        if q == 0:
            return JointTest(float("nan"), 0, float("nan"))
        df, factor = self._scaled(rotated)
        return JointTest(factor * float((difference**2 / variance).mean()), q, df, factor)


def _denominator(q: int, A1: float, A2: float) -> tuple[float, float]:
    """Return the denominator df and the factor of F that match two moments of F."""
    if not A2 > 0.0:
        return float("inf"), 1.0  # the variance parameters do not enter
    B = (A1 + 6.0 * A2) / (2.0 * q)
    g = ((q + 1.0) * A1 - (q + 4.0) * A2) / ((q + 2.0) * A2)
    divisor = 3.0 * q + 2.0 * (1.0 - g)
    c1, c2, c3 = g / divisor, (q - g) / divisor, (q + 2.0 - g) / divisor
    numerator = 1.0 + c1 * B
    if abs(numerator) < INFORMATION_TOL:
        numerator = 0.0
    below, last = 1.0 - c2 * B, 1.0 - c3 * B
    mean = 1.0 - A2 / q
    both_vanish = abs(mean) < ZERO_RATIO_TOL and abs(below) < ZERO_RATIO_TOL
    ratio = 1.0 if both_vanish else mean / below
    rho = ratio**2 * numerator / (last * q)
    df = 4.0 + (q + 2.0) / (q * rho - 1.0)
    factor = 1.0 if abs(df - 2.0) < DF_TWO_TOL else df * mean / (df - 2.0)
    return df, factor


# ---------------------------------------------------------------------------------------------
# Variance parameters
# ---------------------------------------------------------------------------------------------


def covariance_basis(template: CovarianceStructure) -> tuple[Matrix, ...]:
    """Return symmetric matrices (k, k) whose combinations are the covariances of a structure.

    Raises
    ------
    OptionError : the covariance is not linear in its parameters.
    """
    if template.covariance_basis is not None:
        return template.covariance_basis
    raise OptionError(
        f"Kenward-Roger needs covariances that are linear in their parameters, which those of "
        f"{template.name}(x | g) are not: use ddf='satterthwaite'"
    )


@dataclass(frozen=True, slots=True)
class _Parameter:
    """One variance or covariance: its factor and E (K, K) in the factor's working columns."""

    factor: int
    E: Matrix


def _parameters(system: PenalizedSystem) -> list[_Parameter]:
    out = []
    for template, place, Rz in zip(
        system.templates, system.products.layout, system.products.Rz, strict=True
    ):
        K = system.products.blocks.factors[place.factor].width
        for basis in covariance_basis(template):
            E = np.zeros((K, K))
            E[place.columns, place.columns] = Rz @ basis @ Rz.T
            out.append(_Parameter(place.factor, E))
    return out


# ---------------------------------------------------------------------------------------------
# Components
# ---------------------------------------------------------------------------------------------


def components(blocks: BlockSystem) -> list[list[np.ndarray]]:
    """Return the levels of every component: per component, one array of levels per factor.

    Two levels are in one component if rows link them, directly or through other levels.
    """
    sizes = [f.n_levels for f in blocks.factors]
    if len(sizes) == 1:
        return [[np.array([level])] for level in range(sizes[0])]
    starts = np.concatenate([[0], np.cumsum(sizes)])
    edges = [
        (pair.rows + starts[g], pair.cols + starts[h]) for (g, h), pair in blocks.pairs.items()
    ]
    rows = np.concatenate([e[0] for e in edges])
    cols = np.concatenate([e[1] for e in edges])
    graph = scipy.sparse.coo_matrix(
        (np.ones(rows.size, dtype=np.int8), (rows, cols)), shape=(starts[-1], starts[-1])
    )
    count, label = scipy.sparse.csgraph.connected_components(graph, directed=False)
    per_factor = []
    for g, size in enumerate(sizes):
        own = label[starts[g] : starts[g] + size]
        order = np.argsort(own, kind="stable")
        cuts = np.searchsorted(own[order], np.arange(1, count))
        per_factor.append(np.split(order, cuts))
    return [[levels[c] for levels in per_factor] for c in range(count)]


def _batches(blocks: BlockSystem) -> Iterator[list[np.ndarray]]:
    """Yield components of equal shape together: per factor, levels (components, levels each)."""
    if len(blocks.factors) == 1:  # every level is a component
        f = blocks.factors[0]
        each = max(1, BATCH_NUMBERS // f.width**2)
        for start in range(0, f.n_levels, each):
            yield [np.arange(start, min(start + each, f.n_levels))[:, None]]
        return
    by_shape: dict[tuple[int, ...], list[list[np.ndarray]]] = {}
    for component in components(blocks):
        by_shape.setdefault(tuple(levels.size for levels in component), []).append(component)
    for shape, members in by_shape.items():
        order = sum(L * f.width for L, f in zip(shape, blocks.factors, strict=True))
        if 3 * 8 * order**2 > MAX_COMPONENT_BYTES:
            raise EngineError(
                f"Kenward-Roger needs three dense matrices of order {order} for this model, "
                f"because its grouping factors are crossed: {3 * 8 * order**2 / 2**30:.1f} GB. "
                "With so many levels Satterthwaite's degrees of freedom are nearly the same: use "
                "ddf='satterthwaite'"
            )
        each = max(1, BATCH_NUMBERS // order**2)
        for start in range(0, len(members), each):
            chunk = members[start : start + each]
            yield [np.stack([m[g] for m in chunk]) for g in range(len(shape))]


@dataclass
class _Pieces:
    """Sums over components.

    traces : (r, r) tr(V^{-1}G_iV^{-1}G_j); first : (r,) tr(V^{-1}G_i); P : (r, p, p); Q : (r, r, p,
    p).
    """

    traces: Matrix
    first: Vector
    P: Array3
    Q: np.ndarray


def _accumulate(system: PenalizedSystem, lambdas: list[Matrix], R: list[Array3]) -> _Pieces:
    blocks = system.products.blocks
    parameters = _parameters(system)
    r, p = len(parameters), system.p
    widths = [f.width for f in blocks.factors]
    pieces = _Pieces(
        np.zeros((r, r)), np.zeros(r), np.zeros((r, p, p)), np.zeros((r, r, p, p))
    )
    lookup = _PairLookup(blocks)
    for levels in _batches(blocks):
        count = levels[0].shape[0]
        sizes = [lev.shape[1] * K for lev, K in zip(levels, widths, strict=True)]
        stops = np.cumsum(sizes)
        places = [
            slice(int(stop) - size, int(stop)) for stop, size in zip(stops, sizes, strict=True)
        ]
        B = _projected_products(lookup, levels, widths, places, lambdas)
        # E_i R: (components, levels x K, p) per parameter
        ER = [
            np.matmul(parameter.E, R[parameter.factor][levels[parameter.factor]]).reshape(
                count, sizes[parameter.factor], p
            )
            for parameter in parameters
        ]
        moments = {}
        for g in range(len(widths)):
            for h in range(g, len(widths)):
                moments[g, h] = _second_moments(B[:, places[g], places[h]], widths[g], widths[h])
        for i, a in enumerate(parameters):
            own = _blocks_on_diagonal(B[:, places[a.factor], places[a.factor]], widths[a.factor])
            pieces.first[i] += float((own * a.E).sum())
            flat_R = R[a.factor][levels[a.factor]].reshape(-1, p)
            pieces.P[i] -= flat_R.T @ ER[i].reshape(-1, p)
            for j in range(i + 1):
                b = parameters[j]
                g, h = a.factor, b.factor
                N = moments[g, h] if g <= h else moments[h, g].transpose(2, 3, 0, 1)
                pieces.traces[i, j] += float(np.einsum("ab,cd,abcd->", a.E, b.E, N))
                BER = np.matmul(B[:, places[g], places[h]], ER[j])
                pieces.Q[i, j] += ER[i].reshape(-1, p).T @ BER.reshape(-1, p)
    for i in range(r):
        for j in range(i):
            pieces.traces[j, i] = pieces.traces[i, j]
            pieces.Q[j, i] = pieces.Q[i, j].T
    return pieces


def _second_moments(B: Array3, K: int, M: int) -> np.ndarray:
    """Return sum over pairs of levels of B_lm[a, c] B_lm[b, d] as (a, b, c, d)."""
    count, rows, cols = B.shape
    flat = B.reshape(count, rows // K, K, cols // M, M)
    out = np.empty((K, K, M, M))
    for a in range(K):
        for c in range(M):
            left = flat[:, :, a, :, c]
            for b in range(K):
                for d in range(M):
                    if (b, d) < (a, c):
                        out[a, b, c, d] = out[b, a, d, c]
                    else:
                        out[a, b, c, d] = np.einsum("nij,nij->", left, flat[:, :, b, :, d])
    return out


def _blocks_on_diagonal(B: Array3, K: int) -> Array3:
    count, size, _ = B.shape
    levels = size // K
    flat = B.reshape(count, levels, K, levels, K)
    out: Array3 = np.einsum("nlalb->nlab", flat).reshape(-1, K, K)
    return out


class _PairLookup:
    """Finds the blocks of Z'WZ that belong to some levels."""

    def __init__(self, blocks: BlockSystem) -> None:
        self.blocks = blocks
        self.matrices: dict[tuple[int, int], scipy.sparse.csr_matrix] = {}
        for (g, h), pair in blocks.pairs.items():
            shape = (blocks.factors[g].n_levels, blocks.factors[h].n_levels)
            # positions count from one: zero stands for levels that never occur together
            self.matrices[g, h] = scipy.sparse.csr_matrix(
                (np.arange(1, pair.rows.size + 1), (pair.rows, pair.cols)), shape=shape
            )

    def fill(
        self, A: Array3, g: int, h: int, levels: list[np.ndarray], places: list[slice]
    ) -> None:
        """Write Z_g'WZ_h of the levels into A (components, q, q), and its transpose."""
        values = self.blocks.pairs[g, h].values
        _, K, M = values.shape
        for c in range(A.shape[0]):
            own = self.matrices[g, h][levels[g][c]][:, levels[h][c]].tocoo()
            target = np.zeros((levels[g].shape[1], K, levels[h].shape[1], M))
            target[own.row, :, own.col, :] = values[own.data - 1]
            block = target.reshape(levels[g].shape[1] * K, -1)
            A[c, places[g], places[h]] = block
            A[c, places[h], places[g]] = block.T


def _projected_products(
    lookup: _PairLookup,
    levels: list[np.ndarray],
    widths: list[int],
    places: list[slice],
    lambdas: list[Matrix],
) -> Array3:
    """Return B = Z'V^{-1}Z of components of one shape, (components, q, q)."""
    blocks = lookup.blocks
    count, order = levels[0].shape[0], places[-1].stop
    A = np.zeros((count, order, order))
    for g, K in enumerate(widths):
        L = levels[g].shape[1]
        view = A[:, places[g], places[g]]
        for a in range(L):
            view[:, a * K : (a + 1) * K, a * K : (a + 1) * K] = blocks.factors[g].ztz[
                levels[g][:, a]
            ]
    for g, h in blocks.pairs:
        lookup.fill(A, g, h, levels, places)
    # Lambda'A, factor by factor
    LA = np.empty_like(A)
    for g, (lam, K) in enumerate(zip(lambdas, widths, strict=True)):
        rows = A[:, places[g]].reshape(count, -1, K, order)
        LA[:, places[g]] = np.matmul(lam.T, rows).reshape(count, -1, order)
    C = np.empty_like(A)
    for g, (lam, K) in enumerate(zip(lambdas, widths, strict=True)):
        cols = LA[:, :, places[g]].reshape(count, order, -1, K)
        C[:, :, places[g]] = np.matmul(cols, lam).reshape(count, order, -1)
    diagonal = np.arange(order)
    C[:, diagonal, diagonal] += 1.0
    if count == 1:
        with large_block(order):
            chol = scipy.linalg.cholesky(C[0], lower=True, overwrite_a=True, check_finite=False)
            half = scipy.linalg.solve_triangular(
                chol, LA[0], lower=True, overwrite_b=True, check_finite=False
            )
        A[0] -= half.T @ half
        return A
    A -= np.matmul(np.swapaxes(LA, 1, 2), np.linalg.solve(C, LA))
    return A


# ---------------------------------------------------------------------------------------------
# Of a fit
# ---------------------------------------------------------------------------------------------

_MOMENTS: WeakKeyDictionary[FittedModel, KenwardRogerMoments] = WeakKeyDictionary()


def kenward_roger(fit: FittedModel) -> KenwardRogerMoments:
    """Return the adjusted covariance and what degrees of freedom need; computed once, then kept.

    A fit by ML is fitted again by REML, for which the method is defined.

    Warns
    -----
    RefitWarning : the fit was by ML.

    Raises
    ------
    EngineError : crossed grouping factors have so many levels that memory does not suffice.
    OptionError : a covariance structure is not linear in its parameters.
    """
    found = _MOMENTS.get(fit)
    if found is not None:
        return found
    note = ""
    used = fit
    if not fit.reml:
        note = "Kenward-Roger is defined for REML: the model was fitted again by REML for it"
        warn_of(((RefitWarning, note),))
        used = fit.refit_reml()
    with one_blas_thread():
        found = _compute(used, note)
    _MOMENTS[fit] = found
    return found


def _compute(fit: FittedModel, note: str) -> KenwardRogerMoments:
    system = fit.system
    p = system.p
    lambdas, _ = system.chart.lambdas_of_theta(fit.theta)
    solution = solve_at(lambdas, system)
    R = [values[:, :, :p] for values in residual_products(solution, system)]
    pieces = _accumulate(system, lambdas, R)
    r = pieces.first.size + 1
    S = solution.R_X.T @ solution.R_X
    inner = scipy.linalg.solve_triangular(solution.R_X, np.eye(p))
    # V as the last parameter, in columns of X in which Phi is the identity
    P = np.concatenate([pieces.P, -S[None]])
    Q = np.empty((r, r, p, p))
    Q[:-1, :-1] = pieces.Q
    Q[-1, :-1] = Q[:-1, -1] = -pieces.P
    Q[-1, -1] = S
    traces = np.empty((r, r))
    traces[:-1, :-1] = pieces.traces
    traces[-1, :-1] = traces[:-1, -1] = pieces.first
    traces[-1, -1] = system.n
    P = np.matmul(np.matmul(inner.T, P), inner)
    Q = np.matmul(np.matmul(inner.T, Q), inner)
    flat = P.reshape(r, -1)
    information = 0.5 * (traces - 2.0 * np.trace(Q, axis1=2, axis2=3) + flat @ flat.T)
    W = _inverse_information(information)
    change = np.einsum("ij,ijab->ab", W, Q, optimize=True)
    weighted = np.tensordot(W, P, axes=(1, 0))
    change -= np.matmul(P, weighted).sum(axis=0)
    half = fit.solution.RX_inv
    adjusted = fit.scale * half @ (np.eye(p) + change + change.T) @ half.T
    plain = fit.scale * half @ half.T
    R_user = fit.solution.RX
    return KenwardRogerMoments(
        beta=fit.solution.beta,
        vcov=adjusted,
        vcov_plain=plain,
        sigma=fit.sigma,
        P=np.matmul(np.matmul(R_user.T, P), R_user),
        W=W,
        note=note,
    )


def _inverse_information(information: Matrix) -> Matrix:
    """Invert on the directions that have information; a parameter without any has no variance."""
    length = np.sqrt(np.maximum(np.diag(information), 0.0))
    length[length == 0.0] = 1.0
    values, vectors = np.linalg.eigh(information / np.outer(length, length))
    keep = values > INFORMATION_TOL * float(values[-1])
    B = vectors[:, keep] / length[:, None]
    out: Matrix = (B / values[keep]) @ B.T
    return out
