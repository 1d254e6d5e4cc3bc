"""The sparse engines, CHOLMOD's and the package's own, against dense linear algebra."""

from __future__ import annotations

import importlib
import types

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

from mixlm_sparse.common.errors import EngineError, NotPositiveDefiniteError, OptionError
from mixlm_sparse.engines import cholmod
from mixlm_sparse.engines.cholmod import CholmodEngine
from mixlm_sparse.engines.decisions import use_compiled
from mixlm_sparse.engines.interface import BlockSystem, FactorBlock, PairBlock
from mixlm_sparse.engines.multifrontal import frontal_tree
from mixlm_sparse.engines.multifrontal.cholesky import SparseCholesky
from mixlm_sparse.engines.multifrontal.elimination import predicted_fill
from mixlm_sparse.engines.multifrontal.engine import SparseEngine
from mixlm_sparse.engines.multifrontal.frontal_tree import analyse
from mixlm_sparse.engines.multifrontal.ordering import fill_reducing_order

try:
    import sksparse.cholmod as sksparse_cholmod
except ImportError:
    sksparse_cholmod = None

ABSOLUTE = 1e-9  # |C^{-1}| <= 1, and right-hand sides are of order 1

FORMS = [False, True]


# -- scikit-sparse 0.5, as far as the adapter uses it, on top of 0.4 ------------------------------


def interface_of_05(module):
    """A module with the classes of scikit-sparse 0.5 that calls the functions of 0.4.

    What differs from 0.4 is kept: factorize() works on whatever form the factor is left in, and
    get_factor() drops entries that happen to be zero.
    """

    class CholeskyFactor:
        def __init__(self, A, *, lower=True, order="default", sym_kind=None, supernodal_mode=None):
            assert lower
            assert order == "default"
            assert sym_kind is None
            self._symbolic = module.analyze(A, mode=supernodal_mode or "auto")
            self._numeric = None

        def copy(self):
            twin = object.__new__(CholeskyFactor)
            twin._symbolic, twin._numeric = self._symbolic, self._numeric
            return twin

        def factorize(self, A, ldl=None, beta=0.0):
            assert self._numeric is None, "a second factorize() would be simplicial"
            assert ldl is None
            assert beta == 0.0
            self._numeric = self._symbolic.cholesky(A)
            return self

        @property
        def perm(self):
            view = self._symbolic.P()
            view.flags.writeable = False
            return view

        @property
        def factor(self):
            return sp.csc_array(self._numeric.L())

        def get_factor(self, kind=None, lower=None):
            raise AssertionError("drops the zeros, and with them the pattern")

        def solve(self, b, system="A"):
            assert isinstance(b, np.ndarray)
            assert system == "A"
            return self._numeric.solve_A(b)

    return types.SimpleNamespace(
        CholeskyFactor=CholeskyFactor,
        CholmodNotPositiveDefiniteError=module.CholmodNotPositiveDefiniteError,
        CholmodWarning=module.CholmodWarning,
    )


needs_cholmod = pytest.mark.skipif(sksparse_cholmod is None, reason="scikit-sparse is missing")
needs_functions = pytest.mark.skipif(
    not hasattr(sksparse_cholmod, "analyze"), reason="needs the interface of scikit-sparse 0.4"
)

ENGINES = [
    "sparse",
    pytest.param("installed", marks=needs_cholmod),
    pytest.param("0.5", marks=needs_functions),
]


@pytest.fixture
def build(monkeypatch):
    """Engine by name: (name, system, compiled) -> engine."""

    def make(name, system, compiled=None, **options):
        if name == "sparse":
            return SparseEngine(system, compiled=compiled)
        if name == "0.5":
            fake = interface_of_05(sksparse_cholmod)
            with monkeypatch.context() as patch:
                patch.setattr(cholmod, "load_cholmod", lambda: fake)
                return CholmodEngine(system, compiled=compiled, **options)
        return CholmodEngine(system, compiled=compiled, **options)

    return make


@pytest.fixture(autouse=True)
def _front_size():
    usual = frontal_tree.BIG_FRONT_WORK
    yield
    frontal_tree.BIG_FRONT_WORK = usual


# -- dense twins ----------------------------------------------------------------------------------


def block_system(rng, codes, widths):
    """Z'WZ in blocks, and the dense Z'WZ, for random columns and weights."""
    n = codes[0].size
    root_w = np.sqrt(rng.uniform(0.5, 2.0, n))
    columns = [rng.normal(size=(n, k)) * root_w[:, None] for k in widths]
    levels = [int(c.max()) + 1 for c in codes]
    dense = []
    for c, Z, L, k in zip(codes, columns, levels, widths, strict=True):
        full = np.zeros((n, L * k))
        for a in range(k):
            full[np.arange(n), c * k + a] = Z[:, a]
        dense.append(full)
    factors = []
    for g, Z in enumerate(dense):
        k, L = widths[g], levels[g]
        gram = (Z.T @ Z).reshape(L, k, L, k)
        ztz = np.ascontiguousarray(gram[np.arange(L), :, np.arange(L), :])
        factors.append(FactorBlock(f"g{g}", ztz, np.zeros((L, k, 1))))
    pairs = {}
    for g in range(len(codes)):
        for h in range(g + 1, len(codes)):
            met = np.unique(np.stack((codes[g], codes[h]), axis=1), axis=0)
            rows, cols = met[:, 0], met[:, 1]
            cross = (dense[g].T @ dense[h]).reshape(levels[g], widths[g], levels[h], widths[h])
            values = np.ascontiguousarray(cross[rows, :, cols, :])
            pairs[g, h] = PairBlock(rows.astype(np.int32), cols.astype(np.int32), values)
    Z = np.concatenate(dense, axis=1)
    return BlockSystem(tuple(factors), pairs), Z.T @ Z


def dense_C(system, ZWZ, lambdas):
    diagonal = [
        np.kron(np.eye(f.n_levels), Lambda)
        for f, Lambda in zip(system.factors, lambdas, strict=True)
    ]
    Lambda = sp.block_diag(diagonal).toarray()
    return Lambda.T @ ZWZ @ Lambda + np.eye(system.q)


def check(engine, system, ZWZ, lambdas, rng):
    C = dense_C(system, ZWZ, lambdas)
    inverse = np.linalg.inv(C)
    engine.factorize(lambdas)
    assert engine.logdet == pytest.approx(np.linalg.slogdet(C)[1], rel=1e-11, abs=1e-10)

    rhs = [rng.normal(size=(f.n_levels, f.width, 3)) for f in system.factors]
    stacked = np.concatenate([r.reshape(-1, 3) for r in rhs])
    found = engine.solve(rhs)
    assert [x.shape for x in found] == [r.shape for r in rhs]
    np.testing.assert_allclose(
        np.concatenate([x.reshape(-1, 3) for x in found]), inverse @ stacked, atol=ABSOLUTE
    )

    selected = engine.selected_inverse()
    first = np.cumsum([0] + [f.n_levels * f.width for f in system.factors])
    for g, f in enumerate(system.factors):
        for j in range(f.n_levels):
            at = slice(first[g] + j * f.width, first[g] + (j + 1) * f.width)
            np.testing.assert_allclose(selected.diag[g][j], inverse[at, at], atol=ABSOLUTE)
    assert selected.pairs.keys() == system.pairs.keys()
    for (g, h), pair in system.pairs.items():
        k, m = system.factors[g].width, system.factors[h].width
        for t, (i, j) in enumerate(zip(pair.rows, pair.cols, strict=True)):
            block = inverse[first[g] + i * k :, first[h] + j * m :][:k, :m]
            np.testing.assert_allclose(selected.pairs[g, h][t], block, atol=ABSOLUTE)


def nested(rng, n, sizes):
    inner = rng.integers(0, sizes[0], n)
    inner[: sizes[0]] = np.arange(sizes[0])
    codes = [inner]
    for size in sizes[1:]:
        parent = rng.integers(0, size, int(codes[-1].max()) + 1)
        parent = np.unique(parent, return_inverse=True)[1]
        codes.append(parent[codes[-1]])
    return codes


def crossed(rng, n, sizes):
    return [np.unique(rng.integers(0, size, n), return_inverse=True)[1] for size in sizes]


DESIGNS = {
    "one factor": (nested, 60, (12,), (2,)),
    "nested": (nested, 120, (30, 8, 3), (1, 1, 1)),
    "nested, wide": (nested, 90, (20, 5), (3, 2)),
    "crossed": (crossed, 150, (40, 15), (1, 1)),
    "crossed, wide": (crossed, 120, (20, 9), (2, 3)),
    "crossed, three": (crossed, 100, (25, 10, 4), (1, 2, 1)),
    "sparsely crossed": (crossed, 70, (50, 40), (1, 1)),
    "very wide": (crossed, 60, (5, 3), (7, 2)),
    "one row a level": (lambda rng, n, sizes: [np.arange(n), np.arange(n) % 3], 12, (), (1, 2)),
}

LAMBDAS = {
    "general": lambda rng, k: rng.normal(size=(k, k)),
    "lower": lambda rng, k: np.tril(rng.normal(size=(k, k))),
    "singular": lambda rng, k: np.outer(rng.normal(size=k), rng.normal(size=k)),
    "zero": lambda rng, k: np.zeros((k, k)),
    "large": lambda rng, k: 1e3 * np.eye(k),
}


@pytest.mark.parametrize("compiled", FORMS)
@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("design", DESIGNS)
def test_dense_parity(build, name, design, compiled):
    rng = np.random.default_rng(1)
    make, n, sizes, widths = DESIGNS[design]
    system, ZWZ = block_system(rng, make(rng, n, sizes), widths)
    engine = build(name, system, compiled)
    for kind in ["zero", *LAMBDAS]:  # zero first and again: the pattern must outlive it
        lambdas = [LAMBDAS[kind](rng, k) for k in widths]
        check(engine, system, ZWZ, lambdas, rng)


@pytest.mark.parametrize("mode", ["simplicial", "supernodal"])
@pytest.mark.parametrize("name", ENGINES[1:])
def test_modes_of_cholmod(build, name, mode):
    rng = np.random.default_rng(2)
    system, ZWZ = block_system(rng, crossed(rng, 300, (60, 40)), (1, 2))
    engine = build(name, system, mode=mode)
    for _ in range(2):
        lambdas = [rng.normal(size=(k, k)) for k in (1, 2)]
        check(engine, system, ZWZ, lambdas, rng)
    assert mode in engine.describe()


@pytest.mark.parametrize("compiled", FORMS)
@pytest.mark.parametrize("name", ENGINES)
def test_big_fronts_and_mixed_factors(build, name, compiled):
    """Fronts of all sizes go through BLAS, or only some of them."""
    rng = np.random.default_rng(3)
    system, ZWZ = block_system(rng, crossed(rng, 260, (70, 50, 6)), (1, 2, 3))
    for limit in (0.0, 50.0, 1000.0):
        frontal_tree.BIG_FRONT_WORK = limit
        engine = build(name, system, compiled)
        lambdas = [rng.normal(size=(k, k)) for k in (1, 2, 3)]
        check(engine, system, ZWZ, lambdas, rng)


@pytest.mark.parametrize("compiled", FORMS)
@pytest.mark.parametrize("name", ENGINES)
def test_failure_and_recovery(build, name, compiled):
    rng = np.random.default_rng(4)
    system, ZWZ = block_system(rng, crossed(rng, 80, (20, 8)), (2, 1))
    engine = build(name, system, compiled)
    for bad in (np.nan, 1e200, np.inf):
        lambdas = [np.array([[bad, 0.0], [0.0, 1.0]]), np.eye(1)]
        with (
            np.errstate(all="ignore"),
            pytest.raises(NotPositiveDefiniteError, match="check the scale"),
        ):
            engine.factorize(lambdas)
        assert np.isnan(engine.logdet)
    check(engine, system, ZWZ, [np.eye(2), np.eye(1)], rng)


@pytest.mark.parametrize("name", ENGINES)
def test_describe(build, name):
    rng = np.random.default_rng(5)
    system, _ = block_system(rng, crossed(rng, 80, (20, 8)), (2, 1))
    engine = build(name, system, False)
    text = engine.describe()
    assert text.startswith(engine.name)
    assert "NumPy" in text
    assert 8 <= engine.dense_order <= system.q
    if name == "0.5":
        assert "interface of 0.5" in text


def test_cholmod_not_installed(monkeypatch):
    rng = np.random.default_rng(6)
    system, _ = block_system(rng, crossed(rng, 30, (5, 4)), (1, 1))

    def absent(name, package=None):
        raise ModuleNotFoundError(f"No module named '{name}'", name="sksparse")

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(EngineError, match="is not installed") as caught:
        CholmodEngine(system)
    assert "pip install scikit-sparse" in str(caught.value)
    assert "libsuitesparse-dev" in str(caught.value)

    def broken(name, package=None):
        raise ImportError("libcholmod.so.3: cannot open shared object file")

    monkeypatch.setattr(importlib, "import_module", broken)
    with pytest.raises(EngineError, match=r"does not load \(libcholmod"):
        CholmodEngine(system)
    with pytest.raises(OptionError, match="mode 'dense' is not known"):
        CholmodEngine(system, mode="dense")


# -- the package's own Cholesky -------------------------------------------------------------------


def lower_of(A):
    pattern = sp.csc_array(np.tril(A != 0.0).astype(float))
    pattern.sort_indices()
    row = pattern.indices
    col = np.repeat(np.arange(A.shape[0]), np.diff(pattern.indptr))
    return pattern, row, col


def fill_by_elimination(A, order):
    L = (A != 0.0)[np.ix_(order, order)]
    for k in range(A.shape[0]):
        below = np.flatnonzero(L[k + 1 :, k]) + k + 1
        L[np.ix_(below, below)] = True
    counts = np.tril(L).sum(axis=0)
    return int(counts.sum()), float((counts * (counts + 1) / 2).sum()), int(counts.max())


@st.composite
def positive_definite(draw):
    n = draw(st.integers(1, 45))
    density = draw(st.floats(0.0, 0.3))
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    B = rng.normal(size=(n, n)) * (rng.random((n, n)) < density)
    return B @ B.T + np.eye(n)


@pytest.mark.parametrize("compiled", FORMS)
@given(A=positive_definite(), limit=st.sampled_from([0.0, 100.0, 1e9]))
def test_sparse_cholesky(A, limit, compiled):
    frontal_tree.BIG_FRONT_WORK = limit
    pattern, row, col = lower_of(A)
    cholesky = SparseCholesky(pattern, compiled=compiled)
    assert sorted(cholesky.order) == list(range(A.shape[0]))
    B = np.arange(2.0 * A.shape[0]).reshape(-1, 2)
    for scale in (1.0, 3.0):
        cholesky.factorize(scale * A[row, col])
        assert cholesky.logdet == pytest.approx(np.linalg.slogdet(scale * A)[1], abs=1e-9)
        expected = np.linalg.solve(scale * A, B)
        np.testing.assert_allclose(cholesky.solve(B), expected, atol=1e-8, rtol=1e-8)
        inverse = np.linalg.inv(scale * A)
        np.testing.assert_allclose(
            cholesky.selected_inverse_on_pattern(), inverse[row, col], atol=ABSOLUTE
        )


@pytest.mark.parametrize("compiled", FORMS)
@given(A=positive_definite(), natural=st.booleans())
def test_predicted_fill(A, natural, compiled):
    use_compiled(compiled)
    try:
        pattern, _, _ = lower_of(A)
        order = np.arange(A.shape[0]) if natural else fill_reducing_order(pattern)
        fill = predicted_fill(pattern, order)
        assert fill == fill_by_elimination(A, order)
        both_triangles = sp.csc_array((A != 0.0).astype(float))
        assert predicted_fill(both_triangles, order) == fill
        if not natural:
            assert predicted_fill(pattern) == fill
        refined, tree = analyse(pattern, order)
        assert fill_by_elimination(A, refined)[0] >= fill.nnz_L  # merged columns may add
        assert tree.nnz >= fill.nnz_L
    finally:
        use_compiled(None)


@given(A=positive_definite())
def test_order_is_a_permutation_whatever_the_triangle(A):
    pattern, _, _ = lower_of(A)
    order = fill_reducing_order(pattern)
    assert sorted(order) == list(range(A.shape[0]))
    both_triangles = sp.csc_array((A != 0.0).astype(float))
    np.testing.assert_array_equal(order, fill_reducing_order(both_triangles))


def test_order_is_perfect_where_one_exists():
    """An arrow and a tree need no fill; a grid needs little."""
    arrow = np.eye(30)
    arrow[0] = arrow[:, 0] = 1.0
    tree = np.eye(31)
    for k in range(1, 31):
        tree[k, (k - 1) // 2] = tree[(k - 1) // 2, k] = 1.0
    for A in (arrow, tree):
        pattern, _, _ = lower_of(A)
        assert predicted_fill(pattern).nnz_L == pattern.nnz
    path = sp.diags_array([1.0, 1.0, 1.0], offsets=[-1, 0, 1], shape=(30, 30))
    grid = (sp.kron(path, sp.eye_array(30)) + sp.kron(sp.eye_array(30), path)).tocsc()
    natural = predicted_fill(grid, np.arange(900))
    assert predicted_fill(grid).nnz_L < 0.55 * natural.nnz_L


def test_order_keeps_a_level_that_meets_all_for_last():
    """One user who rated every item would otherwise tie all items to each other."""
    items, users = 400, 500
    codes = np.array(
        [(0, i) for i in range(items)]
        + [(u, (7 * u + k) % items) for u in range(1, users) for k in range(2)]
    ).T
    system, _ = block_system(np.random.default_rng(7), list(codes), (1, 1))
    engine = SparseEngine(system)
    assert engine.dense_order < 150


def test_sparse_cholesky_rejects_what_it_would_misread():
    upper = sp.csc_array(np.array([[1.0, 1.0], [0.0, 1.0]]))
    with pytest.raises(ValueError, match="lower triangle"):
        SparseCholesky(upper)
    hollow = sp.csc_array(np.array([[1.0, 0.0], [1.0, 0.0]]))
    with pytest.raises(ValueError, match="diagonal"):
        SparseCholesky(hollow)


@pytest.mark.parametrize("compiled", FORMS)
@pytest.mark.parametrize("limit", [0.0, 1e9])
def test_sparse_cholesky_of_an_indefinite_matrix(compiled, limit):
    frontal_tree.BIG_FRONT_WORK = limit
    A = np.diag([1.0, 2.0, 3.0, 4.0])
    A[3, 0] = A[0, 3] = A[2, 1] = A[1, 2] = 10.0
    pattern, row, col = lower_of(A)
    cholesky = SparseCholesky(pattern, compiled=compiled)
    with pytest.raises(NotPositiveDefiniteError, match="not positive definite"):
        cholesky.factorize(A[row, col])
    good = A + 20.0 * np.eye(4)
    cholesky.factorize(good[row, col])
    assert cholesky.logdet == pytest.approx(np.linalg.slogdet(good)[1])
