"""The search of many responses in step: a dense oracle, the single search, and the block's laws."""

from __future__ import annotations

import sys
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mixlm_sparse as mx
from mixlm_sparse.engines import decisions
from mixlm_sparse.engines.compiled import LazyKernel
from mixlm_sparse.engines.decisions import use_compiled
from mixlm_sparse.engines.fused.found import FoundMany
from mixlm_sparse.engines.fused.lockstep.search import LockstepSearch
from mixlm_sparse.engines.fused.search import search_many
from mixlm_sparse.model.call import FitOptions
from mixlm_sparse.model.refits import RefitBlock, warm_up
from mixlm_sparse.model.warm import quiet
from mixlm_sparse.solve.curvature import profiled_hessian, step_floors
from mixlm_sparse.solve.derived.other_response import ResponseBlock, response_block, system_for
from mixlm_sparse.solve.optimize import optimize
from mixlm_sparse.solve.profiled.lockstep import lockstep_search
from mixlm_sparse.solve.profiled.saddle import symmetric, symmetric_each
from mixlm_sparse.solve.search.status import Status
from mixlm_sparse.solve.system import PenalizedSystem, penalized_system
from tests.solve.test_fused_search import FORMULAS, balanced, drawn
from tests.support.dense_oracle import criterion
from tests.support.refit_rows import assert_rows_are_refits
from tests.support.strategies import Design, designs


@pytest.fixture(autouse=True)
def _plain():
    use_compiled(False)
    yield
    use_compiled(None)


def searched(
    system: PenalizedSystem, block: ResponseBlock, at: np.ndarray, *, reml: bool = True,
    starts: np.ndarray | None = None, limit: int = 250,
) -> FoundMany:  # fmt: skip
    search = lockstep_search(system, reml=reml)
    assert search is not None
    width = max(f.width for f in system.products.blocks.factors)
    zy = np.concatenate(
        [np.pad(z, ((0, 0), (0, width - z.shape[1]), (0, 0))) for z in block.zy]
    )
    info = np.finfo(np.float64)
    return search.minimize_many(
        starts,
        np.moveaxis(zy[..., at], 2, 0),
        block.yy[at],
        np.maximum((info.eps * block.y_length[at]) ** 2, info.tiny),
        tolerance=1e-9,
        limit=limit,
        floors=step_floors(system),
    )


def responses(y: np.ndarray, r: int, seed: int = 0) -> np.ndarray:
    """From noise alone, where variances are zero, to effects as they are and larger."""
    rng = np.random.default_rng(seed)
    return y[:, None] * np.linspace(0.0, 1.5, r) + rng.normal(size=(y.size, r))


def served(design: Design) -> PenalizedSystem | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        matrices = mx.model_matrices(
            design.formula, design.data, weights=design.weights, offset=design.offset
        )
    system = penalized_system(matrices)
    return None if lockstep_search(system, reml=True) is None else system


@settings(max_examples=40)
@given(design=designs(), reml=st.booleans())
def test_criterion_and_gradient_are_those_of_the_dense_covariance(
    design: Design, reml: bool
) -> None:
    system = served(design)
    if system is None:
        return
    rng = np.random.default_rng(design.data.shape[0])
    Y = responses(design.y, 3)
    block = response_block(system, Y)
    thetas = np.abs(rng.normal(size=(3, design.m)))
    phis = np.stack([system.chart.phi_of_theta(theta) for theta in thetas])
    # one evaluation: the search stays where it starts
    found = searched(system, block, np.arange(3), reml=reml, starts=phis, limit=1)
    for i, phi in enumerate(phis):
        if found.counts[i, 2] or not np.array_equal(found.phi[i], phi):
            continue  # given up, or so near to the boundary that it was taken there

        def dense(at: np.ndarray, i: int = i) -> float:
            theta = system.chart.theta_of_phi(at)
            own = {"reml": reml, **design.options}
            return criterion(theta, Y[:, i], design.X, design.terms, **own)

        assert found.numbers[i, 0] == pytest.approx(dense(phi), rel=1e-9)
        steps = 1e-5 * np.eye(design.m)
        slopes = [(dense(phi + step) - dense(phi - step)) / 2e-5 for step in steps]
        np.testing.assert_allclose(found.gradient[i], slopes, rtol=1e-5, atol=1e-4)


@settings(max_examples=40)
@given(design=designs(), reml=st.booleans())
def test_random_designs_end_as_single_searches_do(design: Design, reml: bool) -> None:
    system = served(design)
    if system is None:
        return
    Y = responses(design.y, 5)
    block = RefitBlock(system, Y, replace(quiet(FitOptions()), reml=reml), compiled=False)
    for i, row in enumerate(block.rows()):
        alone = optimize(system_for(system, response_block(system, Y), i), reml=reml)
        assert Status(row.status).certified == alone.converged
        assert row.criterion == pytest.approx(alone.criterion, rel=1e-9, abs=1e-7)


@pytest.mark.parametrize("formula", FORMULAS)
def test_structures_singular_and_not(formula: str) -> None:
    singular, searched_together = 0, False
    for data in (drawn(4), balanced(4, 40).assign(h=lambda d: d["g"] % 5)):
        system = penalized_system(mx.model_matrices(formula, data))
        if lockstep_search(system, reml=True) is None:
            continue
        Y = responses(data["y"].to_numpy(), 16)
        for reml in (True, False):
            options = replace(quiet(FitOptions()), reml=reml)
            block = RefitBlock(system, Y, options, compiled=False)
            searched_together |= bool(block.at_once.any())
            for i, row in enumerate(block.rows()):
                alone = optimize(system_for(system, response_block(system, Y), i), reml=reml)
                assert row.criterion == pytest.approx(alone.criterion, rel=1e-9)
                assert row.status == alone.status
                assert row.theta is not None
                if alone.status == "converged":
                    np.testing.assert_allclose(row.theta, alone.theta, rtol=1e-3, atol=1e-4)
                singular += alone.status == "singular"
    assert singular
    # few levels, or nearly parallel columns: always another look
    assert searched_together or formula in (FORMULAS[5], FORMULAS[7])


@pytest.mark.parametrize("formula", FORMULAS)
def test_digits_do_not_depend_on_the_block(formula: str) -> None:
    rng = np.random.default_rng(1)
    for data in (drawn(4), balanced(4, 40).assign(h=lambda d: d["g"] % 5)):
        system = penalized_system(mx.model_matrices(formula, data))
        if lockstep_search(system, reml=True) is None:
            continue
        r = 23
        block = response_block(system, responses(data["y"].to_numpy(), r))
        whole = searched(system, block, np.arange(r))
        order = rng.permutation(r)
        for part in (order[:1], order[1:3], order[3:12], order[12:]):
            some = searched(system, block, part)
            for name, one, of_all in zip(some._fields, some, whole, strict=True):
                np.testing.assert_array_equal(one, of_all[part], err_msg=name)


@pytest.mark.parametrize("formula", ["y ~ x + (x | g)", "y ~ x + (1 | g)"])
def test_differences_give_the_hessian(formula: str) -> None:
    data = drawn(5)
    system = penalized_system(mx.model_matrices(formula, data))
    Y = responses(data["y"].to_numpy(), 4)
    block = response_block(system, Y)
    found = searched(system, block, np.arange(4))
    for i in np.flatnonzero(~found.counts[:, 2].astype(bool)).tolist():
        H = profiled_hessian(found.phi[i], system_for(system, block, i), reml=True)
        m = system.n_theta
        at = found.slopes[i].reshape(m, 4, m)
        step = 1e-3 * found.scales[i]
        own = (8.0 * (at[:, 0] - at[:, 1]) - (at[:, 2] - at[:, 3])) / (12.0 * step[:, None])
        np.testing.assert_allclose(0.5 * (own + own.T), H, rtol=1e-6, atol=1e-7 * H.max())


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("formula", [*FORMULAS, "y ~ 0 + (x | g)"])
def test_numbers_of_a_block_are_those_of_its_fits(formula: str, reml: bool) -> None:
    assert_rows_are_refits(formula, drawn(11), reml=reml, compiled=False)


def test_a_step_onto_the_boundary_that_leaves_a_slope_behind_is_not_the_end() -> None:
    data = drawn(4)
    system = penalized_system(mx.model_matrices("y ~ x + (x | g)", data))
    options = replace(quiet(FitOptions()), reml=False)
    for seed, i in ((3, 38), (10, 27)):
        Y = responses(data["y"].to_numpy(), 60, seed)
        row = list(RefitBlock(system, Y, options, compiled=False).rows())[i]
        assert row.status == "singular"
        own = system_for(system, response_block(system, Y), i)
        alone = optimize(own, reml=False)
        assert alone.status == "singular"
        assert alone.criterion == pytest.approx(row.criterion, abs=1e-9)
        rng = np.random.default_rng(0)
        elsewhere = [
            optimize(own, reml=False, start=np.abs(rng.normal(size=3))).criterion for _ in range(8)
        ]
        assert row.criterion == pytest.approx(min(elsewhere), abs=1e-8)


def test_an_end_on_a_line_of_symmetry_is_looked_at_alone() -> None:
    # the same law with both terms exchanged: searches stay where both are equal
    g, h = np.repeat(np.arange(6), 6), np.tile(np.arange(6), 6)
    rng = np.random.default_rng(2)
    half = rng.normal(size=(6, 6))
    data = pd.DataFrame({"g": np.repeat(g, 2), "h": np.repeat(h, 2)})
    y = np.repeat((half + half.T).ravel() + np.add.outer(*2 * [rng.normal(size=6)]).ravel(), 2)
    y = y + np.tile([0.3, -0.3], 36)
    system = penalized_system(mx.model_matrices("y ~ 1 + (1 | g) + (1 | h)", data.assign(y=y)))
    block = RefitBlock(system, np.stack([y, 2.0 * y], axis=1), quiet(FitOptions()), compiled=False)
    assert not block.at_once.any()
    for row in block.rows():
        assert Status(row.status).certified


@given(designs(), st.integers(0, 2**31))
def test_symmetry_of_many_is_that_of_each(design: Design, seed: int) -> None:
    system = served(design)
    if system is None:
        return
    rng = np.random.default_rng(seed)
    phis = rng.choice([0.0, 0.5, 1.0, 2.0], size=(12, system.n_theta))
    each = [symmetric(phi, system) for phi in phis]
    assert symmetric_each(phis, system).tolist() == each


def test_an_effect_that_is_everything_is_left_to_the_single_search() -> None:
    data = drawn(1)
    system = penalized_system(mx.model_matrices("y ~ 1 + (1 | g)", data))
    Y = responses(data["y"].to_numpy(), 4)
    Y[:, 1] = np.sin(np.arange(20.0))[data["g"]]  # follows the groups exactly
    rows = list(RefitBlock(system, Y, quiet(FitOptions()), compiled=False).rows())
    assert [row.status for row in rows][1] == "no residual"


@pytest.fixture
def nothing_kept(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """As installed: no machine code of the search; return the sizes of blocks searched in step."""
    use_compiled(None)
    monkeypatch.setattr(decisions, "search_at_hand", lambda *_: False)
    sizes: list[int] = []
    minimize = LockstepSearch.minimize_many

    def counted(self: LockstepSearch, starts: object, zy: np.ndarray, *args: object, **kw: object):
        sizes.append(len(zy))
        return minimize(self, starts, zy, *args, **kw)  # type: ignore[arg-type]

    monkeypatch.setattr(LockstepSearch, "minimize_many", counted)
    return sizes


def test_as_installed_responses_are_searched_in_step(nothing_kept: list[int]) -> None:
    data = drawn(5)
    formula = "y ~ x + (x | g)"
    fit = mx.lmer(formula, data)
    fit.bootstrap(30, seed=1, progress=False)
    assert sum(nothing_kept) == 30
    Y = responses(data["y"].to_numpy(), 40)
    many = mx.lmer_many("~ x + (x | g)", data, Y, progress=False)
    assert sum(nothing_kept) == 70
    alone = mx.lmer(formula, data.assign(y=Y[:, 39]))
    assert many.criterion[39] == pytest.approx(alone.criterion, rel=1e-10)
    mx.power(formula, data, fit, effect="x", nsim=20, seed=1, progress=False)
    assert sum(nothing_kept) == 90
    mx.pb_modcomp(fit, mx.lmer("y ~ 1 + (x | g)", data), nsim=10, seed=1, progress=False)
    assert sum(nothing_kept) == 110


def test_threads_give_the_same_digits(nothing_kept: list[int]) -> None:
    data = drawn(5)
    Y = responses(data["y"].to_numpy(), 600)
    one, three = (
        mx.lmer_many("~ x + (x | g)", data, Y, progress=False, n_jobs=jobs) for jobs in (1, 3)
    )
    assert len(nothing_kept) > 2
    np.testing.assert_array_equal(one.theta, three.theta)
    np.testing.assert_array_equal(one.criterion, three.criterion)
    assert one.status == three.status


def test_kept_machine_code_is_seen_without_loading_numba(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = LazyKernel(search_many.python, slow=True)
    kernel._name = "a kernel of which nothing is known yet"
    monkeypatch.delitem(sys.modules, "numba", raising=False)
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    assert not kernel.may_be_kept()
    folder = tmp_path / "fused_0123"
    folder.mkdir()
    (folder / f"search.search_many_{kernel.fingerprint()}-1.py311.nbi").touch()
    assert kernel.may_be_kept()


def test_kept_machine_code_is_taken_for_many_responses_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    use_compiled(None)
    for name in ("may_be_kept", "kept"):
        monkeypatch.setattr(LazyKernel, name, lambda _: True)
    monkeypatch.setattr(decisions, "expect_searches", lambda _: None)
    few = penalized_system(mx.model_matrices("y ~ x + (x | g)", drawn(5)))
    many = penalized_system(mx.model_matrices("y ~ x + (1 + x + I(x**2) + I(x**3) | g)", drawn(5)))
    taken = [[warm_up(system, n) for n in (500, 5_000, 50_000)] for system in (few, many)]
    assert taken == [[False, False, True], [False, True, True]]
    monkeypatch.setitem(sys.modules, "numba", None)  # whether it is loaded decides nothing
    assert not warm_up(few, 500)
