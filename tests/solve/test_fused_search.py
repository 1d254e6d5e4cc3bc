"""The compiled search against the Python one: the same steps, and the same digits in threads."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mixlm_sparse as mx
from mixlm_sparse.engines.compiled import LazyKernel
from mixlm_sparse.engines.decisions import use_compiled
from mixlm_sparse.engines.fused import levels
from mixlm_sparse.engines.fused import search as kernels
from mixlm_sparse.engines.fused.levels import SingleFactor
from mixlm_sparse.inference.fixed.satterthwaite import satterthwaite
from mixlm_sparse.inference.fixed.satterthwaite_many import single_tests
from mixlm_sparse.inference.fixed.tests import f_p
from mixlm_sparse.model.call import FitOptions
from mixlm_sparse.model.refits import RefitBlock
from mixlm_sparse.model.warm import quiet
from mixlm_sparse.solve.curvature import profiled_hessian, step_floors
from mixlm_sparse.solve.optimize import optimize
from mixlm_sparse.solve.profiled.fused import fused_search
from mixlm_sparse.solve.profiled.objective import ProfiledObjective
from mixlm_sparse.solve.profiled.start import moment_start
from mixlm_sparse.solve.search.control import Control
from mixlm_sparse.solve.search.known import Known
from mixlm_sparse.solve.search.optimum import Optimum
from mixlm_sparse.solve.system import PenalizedSystem, penalized_system
from tests.support.refit_rows import assert_rows_are_refits
from tests.support.strategies import Design, designs


@pytest.fixture(autouse=True)
def _compiled() -> Iterator[None]:
    use_compiled(True)
    yield
    use_compiled(None)


def in_python(system: PenalizedSystem, **options: object) -> Optimum:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ProfiledObjective, "at_once", lambda *_args, **_options: None)
        # the compiled search begins there, takes no Newton steps, and ends no second look early
        patch.setattr(ProfiledObjective, "start", lambda self: moment_start(self.system))
        patch.setattr(ProfiledObjective, "_sharp", lambda *_args, **_options: None)
        patch.setattr(Known, "back_at", lambda *_args: None)
        return optimize(system, **options)  # type: ignore[arg-type]


def assert_same(a: Optimum, b: Optimum) -> None:
    assert a.criterion == pytest.approx(b.criterion, rel=1e-12, abs=1e-9)
    assert a.status == b.status
    assert abs(a.n_evaluations - b.n_evaluations) <= 2 + b.n_evaluations // 4
    if a.status == "converged":
        np.testing.assert_allclose(a.theta, b.theta, rtol=1e-5, atol=1e-6)


@settings(max_examples=120)
@given(design=designs(), reml=st.booleans())
def test_random_designs(design: Design, reml: bool) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        matrices = mx.model_matrices(
            design.formula, design.data, weights=design.weights, offset=design.offset
        )
    system = penalized_system(matrices, "auto")
    if system.fused is None:
        return
    # few levels, many terms: flat directions, where rounding decides how long a search goes on
    a, b = optimize(system, reml=reml), in_python(system, reml=reml)
    assert a.converged == b.converged
    assert a.criterion == pytest.approx(b.criterion, rel=1e-9, abs=1e-7)


FORMULAS = [
    "y ~ x + (1 | g)",
    "y ~ x + (x | g)",
    "y ~ x + (x || g)",
    "y ~ z + (x + z | g)",
    "y ~ x + (1 | g) + (1 | h)",
    "y ~ x + (x | g) + (z | h)",
    "y ~ 1 + (0 + f | g)",
    "y ~ x + diag(1 + x + z | g)",
    "y ~ x + id(0 + f | g)",
    "y ~ 0 + x + (1 | g) + (0 + z | g)",
]


def drawn(seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    n, L, H = int(rng.integers(40, 160)), int(rng.integers(4, 15)), int(rng.integers(3, 7))
    g, h, x, z = rng.integers(L, size=n), rng.integers(H, size=n), *rng.normal(size=(2, n))
    y = rng.choice([0.0, 0.5, 2.0]) * rng.normal(size=L)[g] + rng.normal(size=n)
    y += rng.choice([0.0, 1.0]) * rng.normal(size=L)[g] * x
    y += rng.choice([0.0, 1.0]) * rng.normal(size=H)[h]
    f = rng.choice(list("ab"), n)
    return pd.DataFrame({"y": y, "x": 100.0 * x, "z": z, "g": g, "h": h, "f": f})


@pytest.mark.parametrize("formula", FORMULAS)
def test_structures_singular_and_not(formula: str) -> None:
    singular = 0
    for seed in range(12):
        system = penalized_system(mx.model_matrices(formula, drawn(seed)), "auto")
        for reml in (True, False):
            a = optimize(system, reml=reml)
            assert_same(a, in_python(system, reml=reml))
            singular += a.status == "singular"
    assert singular or "(1 | g)" in formula


@pytest.mark.parametrize("formula", ["y ~ x + (x | g)", "y ~ x + (1 | g) + (1 | h)"])
def test_hessian_where_a_search_ended(formula: str) -> None:
    system = penalized_system(mx.model_matrices(formula, drawn(4)))
    search = fused_search(system, reml=True)
    assert search is not None
    found = search.minimize(
        None, tolerance=1e-9, limit=200, check_boundary=True, floors=step_floors(system)
    )
    assert found is not None
    assert found.hessian is not None
    expected = profiled_hessian(found.phi, system, reml=True)
    np.testing.assert_allclose(found.hessian, expected, rtol=1e-7, atol=1e-7 * expected.max())


def test_starts_limits_and_no_check_of_the_boundary() -> None:
    system = penalized_system(mx.model_matrices("y ~ x + (x | g)", drawn(3)), "auto")
    for options in (
        {"start": np.array([2.0, 0.1, 0.3])},
        {"control": Control(max_evaluations=3)},
        {"control": Control(max_evaluations=1)},
        {"control": Control(check_boundary=False)},
    ):
        a, b = optimize(system, **options), in_python(system, **options)  # type: ignore[arg-type]
        assert a.status == b.status
        assert a.criterion == pytest.approx(b.criterion, rel=1e-12)
        # the compiled one evaluates at a leg's end what was evaluated before, the one in Python
        # asks for one value more, off small standard deviations
        ours, theirs = once(a.history), once(b.history)
        assert len(theirs) - len(ours) in (0, 1)
        both = len(ours) - 1
        np.testing.assert_allclose(ours[:both], theirs[:both], rtol=1e-9)  # on the way


def once(history: tuple[float, ...]) -> list[float]:
    """Return values without those that repeat the one before, up to rounding."""
    pairs = zip(history, (np.inf, *history[:-1]), strict=True)
    return [value for value, before in pairs if abs(value - before) > 1e-12 * abs(value)]


def test_what_it_gives_up_the_engines_answer() -> None:
    # y follows the groups exactly: the search runs to infinity
    data = drawn(1)
    data["y"] = np.sin(np.arange(20.0))[data["g"]]
    system = penalized_system(mx.model_matrices("y ~ 1 + (1 | g)", data), "auto")
    assert optimize(system).status == in_python(system).status == "no residual"


@pytest.mark.parametrize("formula", ["y ~ x + (x | g)", "y ~ x + (1 | g) + (1 | h)"])
def test_many_responses_are_the_single_searches_also_in_threads(formula: str) -> None:
    data = drawn(5)
    system = penalized_system(mx.model_matrices(formula, data), "auto")
    many = fused_search(system, reml=True, count=9)
    assert many is not None
    rng = np.random.default_rng(0)
    systems = [
        penalized_system(
            mx.model_matrices(formula, data.assign(y=data["y"] + rng.normal(size=len(data))))
        )
        for _ in range(9)
    ]
    width = max(f.width for f in system.products.blocks.factors)
    zy = np.stack(
        [
            np.concatenate(
                [
                    np.pad(f.ztx[:, :, -1], ((0, 0), (0, width - f.width)))
                    for f in own.products.blocks.factors
                ]
            )
            for own in systems
        ]
    )
    yy = np.array([own.products.yy for own in systems])
    floor = np.array([own.products.pwrss_floor for own in systems])

    def run(rows: slice) -> tuple[np.ndarray, ...]:
        return many.minimize_many(
            None, zy[rows], yy[rows], floor[rows], tolerance=1e-12, limit=250
        )

    together = run(slice(None))
    with ThreadPoolExecutor(3) as pool:
        parts = list(pool.map(run, [slice(i, i + 3) for i in (0, 3, 6)]))
    for k in range(5):
        np.testing.assert_array_equal(together[k], np.concatenate([part[k] for part in parts]))
    for i, own in enumerate(systems):
        alone = optimize(own)
        assert together[2][i, 0] == alone.criterion
        assert together[3][i, 0] == alone.n_evaluations


def test_a_change_of_a_called_kernel_changes_the_name_of_the_kept_code() -> None:
    before = kernels.search.fingerprint()
    assert before == kernels.search.fingerprint()
    usual = kernels.expected_hessian
    try:
        kernels.expected_hessian = LazyKernel(lambda phi, hessian, model: True)
        assert kernels.search.fingerprint() != before
    finally:
        kernels.expected_hessian = usual


def test_many_fits_are_the_single_fits() -> None:
    data = drawn(7)
    rng = np.random.default_rng(2)
    Y = data["y"].to_numpy()[:, None] + rng.normal(size=(len(data), 12))
    Y[:, 3] = rng.normal(size=len(data))  # most likely singular
    Y[:, 5] = 1.0  # perfect
    Y[0, 7] = np.inf
    system = penalized_system(mx.model_matrices("y ~ x + (x | g)", data), "auto")
    options = quiet(FitOptions())
    together = list(RefitBlock(system, Y, options, compiled=True))
    assert together[7].optimum is None
    for i in (0, 1, 2, 3, 4, 5, 6, 8, 9, 10, 11):
        single = penalized_system(mx.model_matrices("y ~ x + (x | g)", data.assign(y=Y[:, i])))
        alone, found = optimize(single), together[i].optimum
        assert found is not None
        assert found.status == alone.status
        assert found.criterion == pytest.approx(alone.criterion, rel=1e-11)
        np.testing.assert_allclose(found.theta, alone.theta, atol=1e-6)
    assert together[5].optimum.status == "perfect fit"  # type: ignore[union-attr]


def balanced(seed: int, n_levels: int = 24) -> pd.DataFrame:
    """The same rows in every level."""
    rng = np.random.default_rng(seed)
    g, x = np.repeat(np.arange(n_levels), 6), np.tile(np.arange(6.0), n_levels)
    effects = rng.choice([0.0, 0.5, 2.0], size=2)[:, None] * rng.normal(size=(2, n_levels))
    y = effects[0][g] + effects[1][g] * x + rng.normal(size=g.size)
    return pd.DataFrame({"y": y, "x": x, "z": x**2, "g": g, "f": np.where(x > 2.0, "a", "b")})


@pytest.mark.parametrize("formula", [f for f in FORMULAS if "| h)" not in f])
def test_balanced_designs_by_classes_of_levels(formula: str) -> None:
    for seed in range(8):
        matrices = mx.model_matrices(formula, balanced(seed, 40))
        system = penalized_system(matrices, "auto")
        assert isinstance(system.fused, SingleFactor)
        assert system.fused.classes is not None
        assert system.fused.classes.count.size == 1
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(levels, "classes_of", lambda *_: None)
            plain = penalized_system(matrices, "auto")
            assert isinstance(plain.fused, SingleFactor)
            assert plain.fused.classes is None
        for reml in (True, False):
            a = optimize(system, reml=reml)
            assert_same(a, in_python(system, reml=reml))
            assert_same(a, optimize(plain, reml=reml))


def test_a_block_of_responses_of_a_balanced_design() -> None:
    data = balanced(3)
    rng = np.random.default_rng(2)
    Y = data["y"].to_numpy()[:, None] + rng.normal(size=(len(data), 8))
    Y[:, 3] = rng.normal(size=len(data))  # most likely singular
    system = penalized_system(mx.model_matrices("y ~ x + (x | g)", data), "auto")
    block = RefitBlock(system, Y, quiet(FitOptions()), compiled=True)
    assert block.at_once.all()
    for i, row in enumerate(block.rows()):
        single = penalized_system(mx.model_matrices("y ~ x + (x | g)", data.assign(y=Y[:, i])))
        alone = in_python(single)
        assert row.status == alone.status
        assert row.criterion == pytest.approx(alone.criterion, rel=1e-12)
        assert row.theta is not None
        np.testing.assert_allclose(row.theta, alone.theta, atol=1e-6)


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("formula", [*FORMULAS, "y ~ 0 + (x | g)"])
def test_numbers_of_a_block_are_those_of_its_fits(formula: str, reml: bool) -> None:
    assert_rows_are_refits(formula, drawn(11), reml=reml, compiled=True)


@pytest.mark.parametrize("formula", FORMULAS[:3] + FORMULAS[4:5])
@pytest.mark.parametrize("reml", [True, False])
def test_tests_of_many_fits_are_those_of_single_fits(formula: str, reml: bool) -> None:
    data = drawn(9)
    rng = np.random.default_rng(4)
    strong = rng.normal(size=20)[data["g"]] * (1.0 + 0.02 * data["x"].to_numpy())
    Y = strong[:, None] * np.linspace(0.0, 2.0, 12) + rng.normal(size=(len(data), 12))
    system = penalized_system(mx.model_matrices(formula, data), "auto")
    options = replace(quiet(FitOptions()), reml=reml)
    block = RefitBlock(system, Y, options, compiled=True, curved=True)
    assert block.values is not None
    assert block.curvature is not None
    p, known = single_tests(block.values, block.curvature, 1)
    assert known.sum() >= 8
    for i in np.flatnonzero(known).tolist():
        one = block.refit(i)
        assert one.optimum is not None
        assert one.solution is not None
        fit = mx.LinearMixedFit(one.system, one.optimum, one.solution, options, formula)
        test = satterthwaite(fit).joint(np.array([[0.0, 1.0]]), np.zeros(1))
        assert p[i] == pytest.approx(f_p(test.F, test.num_df, test.den_df), rel=1e-6)


@pytest.mark.parametrize("formula", ["y ~ x + (x | g)", "y ~ x + diag(x | g)"])
def test_ends_where_a_small_deviation_wants_more_are_handed_over(
    formula: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if the search had ended next to the boundary, on a slope that it cannot see."""
    rng = np.random.default_rng(2)
    g, x = np.repeat(np.arange(30), 8), rng.normal(size=240)
    Y = rng.normal(size=(30, 20))[g] + rng.normal(size=(30, 20))[g] * x[:, None]
    Y += rng.normal(size=(240, 20))
    data = pd.DataFrame({"y": Y[:, 0], "x": x, "g": g})
    system = penalized_system(mx.model_matrices(formula, data))
    options = quiet(FitOptions())
    right = list(RefitBlock(system, Y, options, compiled=True).rows())
    search = kernels.FusedSearch.minimize_many

    def ends_early(self: kernels.FusedSearch, *args: object, **options: object) -> object:
        found = search(self, *args, **options)  # type: ignore[arg-type]
        found.phi[::2] *= 0.02
        found.numbers[::2, 0] += 1.0
        return found

    monkeypatch.setattr(kernels.FusedSearch, "minimize_many", ends_early)
    block = RefitBlock(system, Y, options, compiled=True)
    assert block.at_once.tolist() == [False, True] * 10
    for row, same in zip(block.rows(), right, strict=True):
        assert row.criterion == pytest.approx(same.criterion, abs=1e-7)
