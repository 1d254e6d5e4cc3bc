"""No kernel is needed for a right answer: what happens where numba does not load or cannot keep."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from mixlm_sparse.common import progress
from mixlm_sparse.common.parallel import run as in_pieces
from mixlm_sparse.engines import compiled, decisions
from mixlm_sparse.engines.compiled import inlined, njit

FIT = """
    import warnings
    import numpy as np, pandas as pd
    import mixlm_sparse as mx
    from mixlm_sparse.engines import decisions

    decisions.LOADING_REPAID_BY = decisions.MAKING_REPAID_BY = 0.0
    rng = np.random.default_rng(3)
    g, h = rng.integers(30, size=400), rng.integers(7, size=400)
    y = rng.normal(size=30)[g] + rng.normal(size=7)[h] + rng.normal(size=400)
    data = pd.DataFrame({"y": y, "g": g, "h": h})
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        for _ in range(2):
            print(f"{mx.lmer('y ~ 1 + (1 | g)', data).criterion:.9f}")
    for w in found:
        print(w.category.__name__, str(w.message)[:60])
"""


def run(prelude: str, **environment: str) -> tuple[list[str], list[str]]:
    """Fit in a process of its own; return the criteria and the warnings."""
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(prelude) + textwrap.dedent(FIT)],
        env={**os.environ, **environment},
        cwd=Path(compiled.__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    return lines[:2], lines[2:]


@pytest.fixture(scope="module")
def usual() -> list[str]:
    criteria, said = run("")
    assert said == []
    return criteria


def test_numba_missing(usual: list[str]) -> None:
    criteria, said = run("import sys; sys.modules['numba'] = None")
    assert criteria == usual
    assert len(said) == 1
    assert said[0].startswith("CompilationWarning numba does not load")


def test_numba_broken(usual: list[str], tmp_path: Path) -> None:
    (tmp_path / "numba.py").write_text("raise ImportError('Numba needs NumPy 2.1 or less')")
    criteria, said = run(f"import sys; sys.path.insert(0, {str(tmp_path)!r})")
    assert criteria == usual
    assert len(said) == 1
    assert "numba does not load" in said[0]


def test_cache_that_cannot_be_read(usual: list[str], tmp_path: Path) -> None:
    first, said = run("", NUMBA_CACHE_DIR=str(tmp_path))
    assert (first, said) == (usual, [])
    kept = list(tmp_path.rglob("*.nbi")) + list(tmp_path.rglob("*.nbc"))
    assert kept
    for file in kept:
        file.write_bytes(b"nothing of use")
    criteria, said = run("", NUMBA_CACHE_DIR=str(tmp_path))
    assert criteria == usual
    assert len(said) <= 1  # said once, or mended by numba itself


def test_cache_that_cannot_be_written(usual: list[str]) -> None:
    broken = """
        from numba.core import caching

        def full(self, *args, **kwargs):
            raise OSError(28, "No space left on device")

        caching.IndexDataCacheFile.save = full
    """
    criteria, said = run(broken, NUMBA_CACHE_DIR="/proc/no/such/folder")
    assert criteria == usual
    assert len(said) <= 1


def test_disk_is_full(usual: list[str], tmp_path: Path) -> None:
    broken = """
        from numba.core import caching

        def full(self, *args, **kwargs):
            raise OSError(28, "No space left on device")

        caching.IndexDataCacheFile.save = full
    """
    criteria, said = run(broken, NUMBA_CACHE_DIR=str(tmp_path))
    assert criteria == usual
    assert len(said) == 1
    assert said[0].startswith("CompilationWarning machine code cannot be kept")


@inlined
def _half(x):  # type: ignore[no-untyped-def]
    return 0.5 * x


@njit
def _sum_of_halves(values):  # type: ignore[no-untyped-def]
    total = 0.0
    for i in range(values.shape[0]):
        total += _half(values[i])
    return total


@njit
def _sum_alone(values):  # type: ignore[no-untyped-def]
    total = 0.0
    for i in range(values.shape[0]):
        total += values[i]
    return total


@pytest.mark.parametrize("kernel", ["_sum_of_halves", "_sum_alone"])
def test_machine_code_on_disk_is_at_hand_in_another_process(kernel: str, tmp_path: Path) -> None:
    """Of kernels that call others, and of those that call none."""

    def said(expression: str) -> str:
        code = f"import numpy; from tests.engines.test_compiled import {kernel} as kernel"
        return subprocess.run(
            [sys.executable, "-c", f"{code}; print({expression})"],
            env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)},
            cwd=Path(compiled.__file__).parents[2],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()

    assert said("kernel.at_hand()") == "False"
    said("kernel(numpy.arange(5.0))")
    assert said("kernel.at_hand()") == "True"


def test_kernels_call_kernels() -> None:
    assert _sum_of_halves(np.arange(5.0)) == 5.0
    assert _sum_of_halves.python(np.arange(5.0)) == 5.0


def test_the_search_is_not_compiled_for_a_few_fits_after_a_large_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kernel = compiled.slow_to_compile(lambda x: x)
    monkeypatch.setattr(compiled, "_kept", {f"{__name__}.{kernel.python.__qualname__}": False})
    monkeypatch.setattr(decisions, "_switch", None)
    monkeypatch.setattr(decisions, "_spent", 1e12)
    monkeypatch.setattr(decisions, "_searches", 10)
    assert not decisions.search_pays(kernel, 1e5)
    for _ in range(20):
        decisions.expect_searches(1_000)  # the next call of that size does what this one does
    assert not decisions.search_pays(kernel, 1e5)
    decisions.expect_searches(10_000)
    assert decisions.search_pays(kernel, 1e5)


def fresh(monkeypatch: pytest.MonkeyPatch, kept: bool) -> compiled.LazyKernel:
    """Return a kernel whose machine code is on disk or not, where numba is loaded."""
    kernel = njit(lambda x: x)
    monkeypatch.setattr(compiled, "_kept", {kernel.name: kept})
    monkeypatch.setattr(decisions, "_switch", None)
    monkeypatch.setattr(decisions, "_spent", 1e12)
    monkeypatch.setattr(decisions, "_asked", {})
    return kernel


def test_a_first_fit_waits_for_no_compilation(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = fresh(monkeypatch, kept=False)
    large = 0.3 * decisions.MAKING_REPAID_BY
    # what was spent without it, this time included, is what making it costs
    assert [decisions.compiled_pays(large, kernel) for _ in range(5)] == [False] * 3 + [True] * 2
    kernel = fresh(monkeypatch, kept=False)
    assert decisions.compiled_pays(2.0 * decisions.MAKING_REPAID_BY, kernel)
    kernel = fresh(monkeypatch, kept=True)
    assert decisions.compiled_pays(1.0, kernel)


def test_small_fits_after_a_large_one_wait_for_no_compilation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Other kernels may have been made for the large one."""
    kernel = fresh(monkeypatch, kept=False)
    small = 1e-2 * decisions.MAKING_REPAID_BY
    assert [decisions.compiled_pays(small, kernel) for _ in range(90)] == [False] * 90
    assert [decisions.compiled_pays(small, kernel) for _ in range(20)][-1]


def test_compiling_is_said_where_somebody_waits(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kernel = compiled.slow_to_compile(lambda x: x + 1)
    monkeypatch.setattr(compiled, "_kept", {f"{__name__}.{kernel.python.__qualname__}": False})
    monkeypatch.setattr(progress, "interactive", lambda: True)
    progress.counter(None, "work")  # an earlier call may have asked for silence
    assert kernel(1) == 2
    assert "compiling" in capsys.readouterr().err
    assert kernel(1) == 2
    assert capsys.readouterr().err == ""


def test_a_process_that_adopts_the_decisions_of_another_decides_alike(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Machine code that a third process writes in between changes nothing."""
    kernel = compiled.slow_to_compile(lambda x: x - 1)
    name = f"{__name__}.{kernel.python.__qualname__}"
    for kept in (False, True):
        monkeypatch.setattr(compiled, "_kept", {name: kept})
        monkeypatch.setattr(decisions, "_switch", None)
        monkeypatch.setattr(decisions, "_spent", 1e12)
        monkeypatch.setattr(decisions, "_searches", 7)
        monkeypatch.setattr(decisions, "_asked", {name: 5.0})
        decided = pickle.loads(pickle.dumps(decisions.decisions()))
        monkeypatch.setattr(compiled, "_kept", {name: not kept})
        monkeypatch.setattr(decisions, "_asked", {})
        monkeypatch.setattr(decisions, "_switch", not kept)
        monkeypatch.setattr(decisions, "_spent", 0.0)
        decisions.adopt(decided)
        assert decisions.search_pays(kernel, 1e5) is kept
        assert decisions._asked == {name: 5.0}


@pytest.mark.parametrize("choice", [True, False])
def test_other_processes_take_the_forced_choice(choice: bool) -> None:
    decisions.use_compiled(choice)
    try:
        found, complete = in_pieces(forms, 4, 2, n_jobs=2, progress=False)
    finally:
        decisions.use_compiled(None)
    assert complete
    assert found == [choice] * 4


def forms(tasks: range) -> list[bool]:
    return [decisions.compiled_pays(1.0) for _ in tasks]
