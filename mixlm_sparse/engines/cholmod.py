"""C factored by CHOLMOD, through scikit-sparse, whose two programming interfaces differ.

This is the only module that touches scikit-sparse.  CHOLMOD reads the lower triangle here; a matrix
that stores only its upper one would be taken for a diagonal one without a word.
"""

from __future__ import annotations

import copy
import importlib
import warnings
from typing import Any, Protocol

import numpy as np
import scipy.sparse as sp

from mixlm_sparse.common.errors import EngineError, NotPositiveDefiniteError, OptionError
from mixlm_sparse.common.types import IntVector, Matrix, Vector
from mixlm_sparse.engines.interface import BlockSystem, Penalties
from mixlm_sparse.engines.multifrontal.block_pattern import BlockPattern
from mixlm_sparse.engines.multifrontal.elimination import Positions, predicted_fill
from mixlm_sparse.engines.multifrontal.engine import PatternEngine
from mixlm_sparse.engines.multifrontal.frontal_tree import FrontalTree, analyse
from mixlm_sparse.engines.multifrontal.fronts import compiled_form_pays
from mixlm_sparse.engines.multifrontal.selected_inverse import selected_inverse

MODES = ("auto", "simplicial", "supernodal")

# Entries of CHOLMOD's factor that are looked up at a time: bounds the temporaries.
LOOKUP_ENTRIES = 2_000_000

_INSTALL = (
    "engine 'cholmod' needs the package scikit-sparse, which {reason}: "
    "pip install scikit-sparse; it has no wheels and is built against SuiteSparse. On "
    "Debian and Ubuntu: apt install build-essential python3-dev libsuitesparse-dev libopenblas0 "
    "(without libopenblas0 it runs on reference BLAS, many times slower). scikit-sparse 0.5 needs "
    "SuiteSparse 7.4 or later; with an older one ask for 'scikit-sparse<0.5'. "
    "Or use engine='auto', which needs no compiler"
)

_NOT_PD = (
    "CHOLMOD found Lambda'Z'WZ Lambda + I not positive definite in floating point: theta is too "
    "large or not finite; check the scale of the columns and the start value"
)


class CholmodFactor(Protocol):
    """What the engine asks of CHOLMOD; one adapter for each interface of scikit-sparse."""

    api: str

    def twin(self) -> CholmodFactor: ...

    def factorize(self, C: sp.csc_array) -> None: ...

    def logdet(self) -> float: ...

    def solve(self, B: Matrix) -> Matrix: ...

    def permutation(self) -> IntVector: ...

    def lower(self) -> sp.csc_array: ...


class FunctionsAdapter:
    """scikit-sparse 0.4: `analyze(A)`, then `factor.cholesky_inplace(A)`."""

    api = "0.4"

    def __init__(self, module: Any, pattern: sp.csc_array, mode: str) -> None:
        self._module = module
        self._factor = module.analyze(pattern, mode=mode)

    def twin(self) -> FunctionsAdapter:
        twin = copy.copy(self)
        twin._factor = self._factor.copy()
        return twin

    def factorize(self, C: sp.csc_array) -> None:
        try:
            self._factor.cholesky_inplace(C)
        except self._module.CholmodNotPositiveDefiniteError:
            raise NotPositiveDefiniteError(_NOT_PD) from None

    def logdet(self) -> float:
        return float(self._factor.logdet())

    def solve(self, B: Matrix) -> Matrix:
        return np.asarray(self._factor.solve_A(B))

    def permutation(self) -> IntVector:
        return np.array(self._factor.P(), dtype=np.int32)

    def lower(self) -> sp.csc_array:
        return sp.csc_array(self._factor.L())


class ClassAdapter:
    """scikit-sparse 0.5: `CholeskyFactor(A)`, then `.factorize(A)`."""

    api = "0.5"

    def __init__(self, module: Any, pattern: sp.csc_array, mode: str) -> None:
        self._module = module
        self._symbolic = module.CholeskyFactor(pattern, lower=True, supernodal_mode=mode)
        self._factor: Any = None

    def twin(self) -> ClassAdapter:
        twin = copy.copy(self)
        twin._factor = None
        return twin

    def factorize(self, C: sp.csc_array) -> None:
        # factorize() leaves a supernodal factor in simplicial form, and would work simplicially,
        # many times slower, the next time: start from a copy of the symbolic factor.
        self._factor = None
        try:
            self._factor = self._symbolic.copy().factorize(C)
        except self._module.CholmodNotPositiveDefiniteError:
            raise NotPositiveDefiniteError(_NOT_PD) from None

    def logdet(self) -> float:
        # its own logdet() copies the factor; `factor` is a view, each column diagonal first
        view = self._factor.factor
        return 2.0 * float(np.log(view.data[view.indptr[:-1]]).sum())

    def solve(self, B: Matrix) -> Matrix:
        # It warns by the spread of the pivots.  C >= I, and large pivots are large variances,
        # not an ill-posed problem.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", self._module.CholmodWarning)
            try:
                return np.asarray(self._factor.solve(np.asarray(B, dtype=np.float64)))
            except self._module.CholmodNotPositiveDefiniteError:
                raise NotPositiveDefiniteError(_NOT_PD) from None

    def permutation(self) -> IntVector:
        return np.array(self._symbolic.perm, dtype=np.int32)

    def lower(self) -> sp.csc_array:
        # get_factor() would drop the entries that are zero at this theta, and with them the pattern
        return sp.csc_array(self._factor.factor)


def load_cholmod() -> Any:
    """Return the module `sksparse.cholmod`.

    Raises
    ------
    EngineError : it is not installed, or does not load.
    """
    try:
        return importlib.import_module("sksparse.cholmod")
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] != "sksparse":
            raise EngineError(_INSTALL.format(reason=f"does not load ({error})")) from error
        raise EngineError(_INSTALL.format(reason="is not installed")) from None
    except (ImportError, OSError, ValueError) as error:  # a library is missing, or another ABI
        raise EngineError(_INSTALL.format(reason=f"does not load ({error})")) from error


def cholmod_factor(module: Any, pattern: sp.csc_array, mode: str = "auto") -> CholmodFactor:
    """Analyse a pattern, its lower triangle, with whichever interface the module has."""
    if hasattr(module, "CholeskyFactor"):
        return ClassAdapter(module, pattern, mode)
    return FunctionsAdapter(module, pattern, mode)


class CholmodSolver:
    """A sparse Cholesky factorization by CHOLMOD over a fixed pattern.

    Parameters
    ----------
    matrix : (q, q) CSC, lower triangle; `factorize` is given its data.
    factor : the adapter, symbolic work done.
    compiled : use the compiled form for the selected inverse; by default when that pays.
    """

    def __init__(self, matrix: sp.csc_array, factor: CholmodFactor, compiled: bool | None) -> None:
        self._matrix = matrix
        self._factor = factor
        self._compiled = compiled
        self._tree: FrontalTree | None = None
        self._entry: Positions | None = None
        self._order: IntVector | None = None
        self._arena: Vector | None = None
        # per entry of CHOLMOD's L, its place among the values of the tree, -1 for a padded zero
        self._from_factor: Positions | IntVector | None = None
        self.logdet = float("nan")

    def twin(self) -> CholmodSolver:
        """Return a factorization over the same pattern with numbers of its own."""
        twin = copy.copy(self)
        old = self._matrix
        twin._matrix = sp.csc_array((old.data.copy(), old.indices, old.indptr), old.shape)
        twin._factor = self._factor.twin()
        twin._arena = None
        twin.logdet = float("nan")
        return twin

    def factorize(self, values: Vector) -> None:
        """Factor the matrix with these values: (nnz,) in the order of the pattern."""
        self.logdet = float("nan")
        if values is not self._matrix.data:
            self._matrix.data[:] = values
        self._factor.factorize(self._matrix)
        logdet = self._factor.logdet()
        if not np.isfinite(logdet):
            raise NotPositiveDefiniteError(_NOT_PD)
        self.logdet = logdet

    def solve(self, B: Matrix) -> Matrix:
        """Return A^{-1} B; B is (q, m)."""
        return self._factor.solve(B)

    @property
    def tree(self) -> FrontalTree:
        """The fronts of CHOLMOD's elimination order, found at the first call."""
        if self._tree is None:
            permutation = self._factor.permutation()
            self._order, self._tree = analyse(self._matrix, permutation)
            A = self._matrix.tocoo()
            rank = self._rank(self._order)
            row, col = rank[A.row], rank[A.col]
            self._entry = self._tree.locate(np.maximum(row, col), np.minimum(row, col))
        return self._tree

    @property
    def compiled(self) -> bool:
        """Whether the selected inverse takes the compiled form for small fronts."""
        return compiled_form_pays(self.tree) if self._compiled is None else self._compiled

    def selected_inverse_on_pattern(self) -> Vector:
        """Return the entries of A^{-1} on the pattern of A: (nnz,) in the order of the pattern."""
        tree = self.tree
        L = self._factor.lower()
        if self._from_factor is None or self._from_factor.size != L.nnz:
            self._from_factor = self._match(L)
        values = np.zeros(tree.nnz + 1)  # the last takes the padded zeros
        values[self._from_factor] = L.data
        del L
        if self._arena is None:
            self._arena = np.empty(tree.arena_size)
        inverse = selected_inverse(values[:-1], tree, arena=self._arena, compiled=self.compiled)
        assert self._entry is not None  # set with the tree
        return inverse[self._entry]

    @staticmethod
    def _rank(order: IntVector) -> IntVector:
        rank = np.empty(order.size, dtype=np.int32)
        rank[order] = np.arange(order.size, dtype=np.int32)
        return rank

    def _match(self, L: sp.csc_array) -> Positions | IntVector:
        # The tree's order is a reordering of CHOLMOD's within the elimination tree, which leaves
        # the entries of L what they are.  CHOLMOD's merged supernodes differ from ours: what the
        # tree does not hold is zero.
        assert self._order is not None  # set with the tree
        rank = self._rank(self._order)[self._factor.permutation()]
        nnz = int(L.indptr[-1])
        place: Positions | IntVector = np.empty(nnz, dtype=np.int64)
        if self.tree.nnz < 2**31:
            place = np.empty(nnz, dtype=np.int32)
        for lo in range(0, nnz, LOOKUP_ENTRIES):
            hi = min(lo + LOOKUP_ENTRIES, nnz)
            column = np.searchsorted(L.indptr, np.arange(lo, hi), side="right") - 1
            place[lo:hi] = self.tree.locate(rank[L.indices[lo:hi]], rank[column], strict=False)
        return place


class CholmodEngine(PatternEngine):
    """C factored by CHOLMOD.

    Parameters
    ----------
    system : Z'WZ in blocks.
    penalties : per factor what takes the place of I, or None.
    mode : "auto" lets CHOLMOD choose by the arithmetic per entry of L; "supernodal" or
        "simplicial".
    compiled : use the compiled form for the selected inverse; by default when that pays.

    Raises
    ------
    EngineError : scikit-sparse is not installed.
    """

    name = "cholmod"

    def __init__(
        self,
        system: BlockSystem,
        penalties: Penalties = (),
        *,
        mode: str = "auto",
        compiled: bool | None = None,
    ) -> None:
        if mode not in MODES:
            raise OptionError(f"mode '{mode}' is not known: use one of {', '.join(MODES)}")
        module = load_cholmod()
        pattern = BlockPattern(system, penalties)
        # Values only have to exist here: the analysis reads the pattern.
        pattern.matrix.data[:] = 1.0
        factor = cholmod_factor(module, pattern.matrix, mode)
        solver = CholmodSolver(pattern.matrix, factor, compiled)
        super().__init__(pattern, solver)
        self._mode = mode
        self._api = factor.api
        self._cholmod = solver
        self._fill = predicted_fill(pattern.matrix, factor.permutation())
        self.dense_order = self._fill.widest
        self.work = 3.0 * self._fill.flops
        self.fill = self._fill.nnz_L

    def describe(self) -> str:
        """Say in words how the system is factored."""
        A = self._pattern.matrix
        form = (
            "machine code" if self._cholmod.compiled else "NumPy, slower than machine code (numba)"
        )
        return (
            f"cholmod: CHOLMOD ({self._mode}; scikit-sparse with the interface of {self._api}), "
            f"order {self._pattern.q}; {A.nnz} entries fill in to {self._fill.nnz_L}; "
            f"selected inverse in {form}"
        )
