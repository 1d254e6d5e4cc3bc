"""The engine that factors nothing.

The factor with most random effects is eliminated in closed form; what is left of C, the Schur
complement of all others, is an operator that costs two passes over the pairs of levels (see
`schur`).  Systems are solved by preconditioned conjugate gradients, to rounding.  The
log-determinant is estimated from random vectors (see `lanczos`), always the same ones: as a
function of Lambda the estimate is smooth, its slope is its own derivative, and a search ends where
that is zero.

The vectors are signs.  They come in groups that differ by the signs of whole columns (one column of
one factor at all its levels), the patterns being the rows of a Hadamard matrix: the mean over a
group has no products between different columns.  The estimate is then even in every column of a
factor, as the criterion is, and a variance of zero is where the exact criterion has it.

What all levels of a column have in common hardly differs from the same of another factor, so that M
has an eigenvalue near zero there, which would be most of that spread.  Its direction is known well
enough, the roots of the levels' own products: these vectors q, one for each column of the rest,
are taken exactly, and the random ones are orthogonal to them,

    tr f(M) = sum q'f(M)q + E (Pz)'f(M)(Pz),    P = I - sum qq'

References
----------
Kuendig and Sigrist (2025), arXiv:2505.09552, for Krylov methods with crossed random effects.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.linalg

from mixlm_sparse.common.errors import EngineError
from mixlm_sparse.common.types import Array3, Matrix, Vector
from mixlm_sparse.engines.compiled import made_again, twin_of
from mixlm_sparse.engines.decisions import compiled_pays
from mixlm_sparse.engines.interface import BlockSystem, SelectedInverse, require_same_pattern
from mixlm_sparse.engines.krylov.conjugate import conjugate_gradients
from mixlm_sparse.engines.krylov.coupling import coupling_of, order_of_elimination
from mixlm_sparse.engines.krylov.lanczos import Quadrature, log_quadrature
from mixlm_sparse.engines.krylov.schur import Schur
from mixlm_sparse.engines.krylov.settings import (
    LEAST_GROUPS,
    Estimation,
    require_basis_memory,
    require_engine_memory,
)
from mixlm_sparse.engines.krylov.slopes import Slopes

# Steps of an evaluation with its gradient, for the count of its work.
USUAL_STEPS = 25
NO_INVERSE = (
    "engine 'krylov' solves without a factor and has no blocks of the inverse: conditional "
    "variances of random effects, standard errors of predictions and leverages are not to be had "
    "from it; fit with engine='auto', or a part of the rows, where these are needed"
)


class KrylovEngine:
    """Conjugate gradients and Lanczos in the place of a factor; see the module's docstring.

    Parameters
    ----------
    system : Z'WZ in blocks.
    estimation : random vectors and tolerance.
    compiled : use machine code; by default when that pays.

    Raises
    ------
    EngineError : it does not fit into memory, of which nothing has been taken then.
    """

    name = "krylov"
    exact = False
    dense_order = 0
    fill = 0

    def __reduce__(self) -> tuple[Any, ...]:
        return made_again, (type(self), self._compiled, self._system, self.estimation)

    def __init__(
        self,
        system: BlockSystem,
        estimation: Estimation = Estimation(),  # noqa: B008
        *,
        compiled: bool | None = None,
    ) -> None:
        self._system = system
        self.estimation = estimation
        eliminated, rest = order_of_elimination(system)
        groups, each = _groups([r.width for r in rest], estimation.vectors)
        columns = sum(r.width for r in rest)
        require_engine_memory(system, eliminated, rest, groups * each + columns)
        entries = float(sum(pair.values.size for pair in system.pairs.values()))
        self.work = 4.0 * entries * estimation.vectors * USUAL_STEPS
        self._compiled = compiled_pays(10.0 * self.work) if compiled is None else compiled
        self._coupling = coupling_of(system, compiled=self._compiled)
        sizes = [(r.n_levels, r.width) for r in self._coupling.rest]
        signs, self._groups = _signs(sizes, estimation.vectors, estimation.seed)
        common = _common(sizes, self._coupling.A_rr.diagonal())
        self._n_random = int(signs.shape[1])
        # the pattern is what they come from: other numbers on it keep them
        self._Z = np.hstack([signs - common @ (common.T @ signs), common])
        self._lambdas: list[Matrix] = []
        self._schur: Schur | None = None
        self._found: Quadrature | None = None

    def reload(self, system: BlockSystem) -> KrylovEngine:
        """Return an engine for other numbers on the same pattern, with the same random vectors.

        Raises
        ------
        EngineError : the levels, widths or pairs of `system` are not those of this engine.
        """
        require_same_pattern(self._system, system)
        twin = twin_of(self)
        twin._system = system
        twin._coupling = coupling_of(system, compiled=self._compiled)
        twin._schur = twin._found = None
        return twin

    def factorize(self, lambdas: Sequence[Matrix]) -> None:
        """Take Lambda; `lambdas[g]` is (K_g, K_g), any square matrix.

        Raises
        ------
        NotPositiveDefiniteError : C is not positive definite (overflow or NaN in Lambda).
        """
        if self._schur is not None and all(
            np.array_equal(a, b) for a, b in zip(self._lambdas, lambdas, strict=True)
        ):
            return  # what was found at this Lambda is kept
        self._schur = self._found = None
        self._schur = Schur(self._coupling, lambdas)
        self._lambdas = [lam.copy() for lam in lambdas]

    @property
    def _at(self) -> Schur:
        assert self._schur is not None  # factorize comes first
        return self._schur

    @property
    def _quadrature(self) -> Quadrature:
        if self._found is None:
            self._found = log_quadrature(
                self._at.preconditioned,
                self._Z,
                tolerance=self.estimation.tolerance,
                before_more=require_basis_memory,
            )
        return self._found

    @property
    def n_vectors(self) -> int:
        """Number of random vectors."""
        return self._n_random

    @property
    def logdet(self) -> float:
        """The estimate of log|C|."""
        if not self._coupling.rest:
            return self._at.ldC
        values = self._quadrature.values
        random, common = values[: self._n_random], values[self._n_random :]
        return self._at.ldC + self._at.ldD + float(random.mean() + common.sum())

    @property
    def logdet_error(self) -> float:
        """Standard error of `logdet`.

        The variance of z'Fz, F = f(M), is at most 2 |F|^2, and E (z'Fw)^2 = |F|^2 for independent
        z and w: all pairs of groups say it, with less chance in it than the spread of few values
        of a skew law has.
        """
        if not self._coupling.rest:
            return 0.0
        n, G = self._n_random, self._groups
        forms = self._Z[:, :n].T @ self._quadrature.images()[:, :n]
        # within a group signs of columns cancel what lies between columns
        between = np.einsum("gphp->gh", forms.reshape(G, n // G, G, n // G)) / (n // G)
        pairs = between[np.triu_indices(G, 1)]
        return float(np.sqrt(2.0 * np.mean(pairs**2) / G))

    def solve(self, rhs: Sequence[Array3]) -> list[Array3]:
        """Return C^{-1} rhs; rhs[g] is (L_g, K_g, m)."""
        at, coupling = self._at, self._coupling
        e = coupling.eliminated
        n_rhs = rhs[0].shape[2]
        own: Array3 = rhs[e]
        out: list[Array3] = [np.empty(0)] * len(rhs)
        if coupling.rest:
            b = np.concatenate([rhs[r.index].reshape(-1, n_rhs) for r in coupling.rest])
            b = b - at.scaled_back(coupling.scatter(np.matmul(at.G, own)))
            half = conjugate_gradients(
                at.preconditioned, at.whitened(b), tolerance=self.estimation.residual
            )
            x = at.colored(half)
            for r in coupling.rest:
                out[r.index] = x[r.columns].reshape(r.n_levels, r.width, n_rhs)
            own = own - np.matmul(at.lam.T, coupling.gather(at.scaled(x)))
        out[e] = np.matmul(at.C_inv, own)
        return out

    def multiply(self, B: Sequence[Array3]) -> list[Array3]:
        """Return Z'WZ B; B[g] is (L_g, K_g, m)."""
        coupling = self._coupling
        e = coupling.eliminated
        m = B[0].shape[2]
        out: list[Array3] = [np.empty(0)] * len(B)
        out[e] = np.matmul(coupling.ztz, B[e])
        if coupling.rest:
            rest = np.concatenate([B[r.index].reshape(-1, m) for r in coupling.rest])
            out[e] += coupling.gather(rest)
            product = coupling.A_rr @ rest + coupling.scatter(B[e])
            for r in coupling.rest:
                out[r.index] = product[r.columns].reshape(r.n_levels, r.width, m)
        return out

    def trace_products(self, lambdas: Sequence[Matrix]) -> list[Matrix]:
        """Return half the derivative of `logdet` by every factor at the last `lambdas`, (K, K).

        Its expectation is sum_j [Z'WZ Lambda C^{-1}]_jj, which other engines return.
        """
        slopes = Slopes.none(self._at)
        if self._coupling.rest:
            shares = np.ones(self._Z.shape[1])
            shares[: self._n_random] /= self._n_random
            slopes.add_quadrature(self._at, self._quadrature, shares)
        return slopes.finished(self._at, exact=True)

    def trace_errors(self) -> list[list[Matrix]]:
        """Return what each group of random vectors adds to `trace_products`, in its own estimate.

        The spread of the groups says how uncertain `trace_products` is.
        """
        if not self._coupling.rest:
            return []
        out = []
        each = self._n_random // self._groups
        for group in range(self._groups):
            shares = np.zeros(self._Z.shape[1])
            shares[group * each : (group + 1) * each] = 1.0 / each
            slopes = Slopes.none(self._at)
            slopes.add_quadrature(self._at, self._quadrature, shares)
            out.append(slopes.finished(self._at, exact=False))
        return out

    def selected_inverse(self) -> SelectedInverse:
        """Refuse: there is no factor.

        Raises
        ------
        EngineError : always.
        """
        raise EngineError(NO_INVERSE)

    def describe(self) -> str:
        """Say in words how systems are solved."""
        factors, coupling = self._system.factors, self._coupling
        e = factors[coupling.eliminated]
        lines = [
            f"engine 'krylov', {'compiled' if self._compiled else 'NumPy'} kernels",
            f"  eliminated in closed form: {e.label} ({e.n_levels} levels, {e.width} "
            f"effect{'s' if e.width > 1 else ''} a level)",
        ]
        if coupling.rest:
            names = ", ".join(
                f"{factors[r.index].label} ({r.n_levels} x {r.width})" for r in coupling.rest
            )
            lines.append(
                f"  Schur complement of order {coupling.m} as an operator: {names}; conjugate "
                "gradients"
            )
            lines.append(
                f"  log-determinant estimated from {self._n_random} random vectors, always the "
                f"same (seed {self.estimation.seed})"
            )
        return "\n".join(lines)


def _common(sizes: Sequence[tuple[int, int]], own: Vector) -> Matrix:
    """Return what the levels of each column have in common, (m, columns), of length one each.

    Parameters
    ----------
    sizes : levels and width of every factor.
    own : (m,) diagonal of the products of the rest.
    """
    columns = []
    first = 0
    for levels, width in sizes:
        for a in range(width):
            vector = np.zeros(own.size)
            at = slice(first + a, first + levels * width, width)
            vector[at] = np.sqrt(own[at])
            length = float(np.sqrt(vector @ vector))
            if length > 0.0:
                columns.append(vector / length)
        first += levels * width
    return np.stack(columns, axis=1) if columns else np.empty((own.size, 0))


def _groups(widths: Sequence[int], vectors: int) -> tuple[int, int]:
    """Return how many groups of vectors there are, and how many vectors are in each."""
    each = 1 << max(sum(widths) - 1, 0).bit_length()  # the order of a Hadamard matrix: 2^k
    return max(LEAST_GROUPS, -(-vectors // each)), each


def _signs(sizes: Sequence[tuple[int, int]], vectors: int, seed: int) -> tuple[Matrix, int]:
    """Return random signs (m, t), and in how many groups of neighbours they come.

    Parameters
    ----------
    sizes : levels and width of every factor.
    vectors : t is this or more.
    """
    columns = sum(width for _, width in sizes)
    groups, each = _groups([width for _, width in sizes], vectors)
    patterns = scipy.linalg.hadamard(each)[:, :columns].astype(np.float64)
    rng = np.random.default_rng(seed)
    parts = []
    first = 0
    for levels, width in sizes:
        base = 2.0 * rng.integers(0, 2, size=(levels, width, groups, 1)) - 1.0
        signs = patterns[:, first : first + width].T[None, :, None, :]
        parts.append((base * signs).reshape(levels * width, groups * each))
        first += width
    return np.concatenate(parts) if parts else np.empty((0, groups)), groups
