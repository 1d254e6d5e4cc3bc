"""One fit's refits and one criterion used by several threads at once give what one thread gives."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Event, Thread

import numpy as np
import pandas as pd
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

import mixlm_sparse as mx
from mixlm_sparse.engines import threads
from mixlm_sparse.engines.threads import large_block, one_blas_thread


@pytest.fixture(scope="module")
def data() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    n = 800
    g, h = rng.integers(0, 30, n), rng.integers(0, 12, n)
    x = rng.normal(size=n)
    slope = 2 + 0.7 * rng.normal(size=30)[g]
    y = 1 + slope * x + rng.normal(size=30)[g] + rng.normal(size=12)[h] + rng.normal(size=n)
    return pd.DataFrame({"y": y, "x": x, "g": g, "h": h})


@pytest.mark.parametrize("engine", ["auto", "blocked", "sparse"])
def test_refits_in_threads(data: pd.DataFrame, engine: str) -> None:
    fit = mx.lmer("y ~ x + (x | g) + (1 | h)", data, engine=engine)
    rng = np.random.default_rng(1)
    responses = [data["y"].to_numpy() + rng.normal(size=len(data)) for _ in range(12)]
    alone = [fit.refit(y).criterion for y in responses]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda y: fit.refit(y).criterion, responses))
    np.testing.assert_allclose(together, alone, rtol=1e-10)


@pytest.mark.parametrize("engine", ["auto", "blocked"])
def test_one_criterion_in_threads(data: pd.DataFrame, engine: str) -> None:
    system = mx.penalized_system(mx.model_matrices("y ~ x + (x | g) + (1 | h)", data), engine)
    function = mx.DevianceFunction(system)
    thetas = [np.array([1.0, 0.1, 0.5, 0.7]) * s for s in np.linspace(0.2, 2.0, 60)]
    alone = [function(t) for t in thetas]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(function, thetas))
    np.testing.assert_array_equal(together, alone)


def test_a_series_in_another_order_is_refused(data: pd.DataFrame) -> None:
    fit = mx.lmer("y ~ x + (1 | g)", data)
    with pytest.raises(mx.DataError, match="index differs"):
        fit.refit(data["y"].sort_values())
    assert fit.refit(data["y"]).criterion == pytest.approx(fit.criterion)


def test_swapped_arguments_are_named(data: pd.DataFrame) -> None:
    with pytest.raises(mx.FormulaError, match="DataFrame"):
        mx.lmer(data, "y ~ x + (1 | g)")
    with pytest.raises(mx.OptionError, match="start"):
        mx.lmer("y ~ x + (1 | g)", data, start=[1e12])
    with pytest.raises(mx.OptionError, match="start is 'a': give 1 number"):
        mx.lmer("y ~ x + (1 | g)", data, start="a")


# -- threads of BLAS ------------------------------------------------------------------------------


def blas_threads() -> list[int]:
    return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]


def test_calls_that_overlap_leave_blas_as_it_was(data: pd.DataFrame) -> None:
    with threadpool_limits(3, user_api="blas"):
        found = blas_threads()
        assert set(found) == {3}
        together = Barrier(4)

        def work(seed: int) -> float:
            together.wait()
            return mx.lmer("y ~ x + (x | g)", data.sample(frac=0.9, random_state=seed)).criterion

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(work, range(4)))
        assert blas_threads() == found


def test_one_thread_until_the_last_call_ends() -> None:
    with threadpool_limits(2, user_api="blas"):
        inside, leave = Event(), Event()

        def other() -> None:
            with one_blas_thread():
                inside.set()
                leave.wait()

        thread = Thread(target=other)
        with one_blas_thread():
            thread.start()
            inside.wait()
            assert set(blas_threads()) == {1}
        assert set(blas_threads()) == {1}
        leave.set()
        thread.join()
        assert set(blas_threads()) == {2}


def test_a_call_that_fails_leaves_blas_as_it_was(data: pd.DataFrame) -> None:
    with threadpool_limits(2, user_api="blas"):
        with pytest.raises(mx.DataError):
            mx.lmer("y ~ absent + (1 | g)", data)
        assert set(blas_threads()) == {2}


def test_methods_and_properties_hold_blas_at_one_thread(data: pd.DataFrame) -> None:
    seen = []
    fit = mx.lmer("y ~ x + (1 | g)", data)
    with threadpool_limits(2, user_api="blas"):
        fit.bootstrap(2, statistic=lambda f: seen.append(blas_threads()) or f.sigma, seed=1)
    assert len(seen) >= 2
    assert {n for counts in seen for n in counts} == {1}


def test_large_blocks_take_idle_cores_of_one_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "idle_cores", lambda: 2)
    with threadpool_limits(3, user_api="blas"), one_blas_thread():
        with large_block(threads.MANY_THREADS_FROM - 1):
            assert set(blas_threads()) == {1}
        with large_block(threads.MANY_THREADS_FROM):
            raised = blas_threads()
            assert raised.count(2) == 1
            assert set(raised) <= {1, 2}
        assert set(blas_threads()) == {1}
    # what the user set is never exceeded
    with threadpool_limits(1, user_api="blas"), one_blas_thread(), large_block(10**6):
        assert set(blas_threads()) == {1}


def test_a_forked_process_can_fit(data: pd.DataFrame) -> None:
    if not hasattr(os, "fork"):
        pytest.skip("no fork here")
    fit = mx.lmer("y ~ x + (x | g)", data)
    with one_blas_thread():
        child = os.fork()
        if child == 0:
            try:
                os._exit(0 if fit.refit(data["y"] + 1.0).sigma > 0.0 else 1)
            except BaseException:
                os._exit(2)
        assert os.waitpid(child, 0)[1] == 0


def test_the_user_says_how_many_threads_large_blocks_get(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "idle_cores", lambda: 2)
    order = threads.MANY_THREADS_FROM
    with threadpool_limits(4, user_api="blas"):
        for choice, expected in ((1, 1), (3, 3), (9, 4), (None, 2)):
            threads.use_threads(choice)
            try:
                with one_blas_thread(), large_block(order):
                    assert max(blas_threads()) == expected
            finally:
                threads.use_threads(None)
    for wrong in (0, -1, 1.5, "two", True):
        with pytest.raises(mx.OptionError, match="choice"):
            threads.use_threads(wrong)
