"""Machine code made beforehand: every kernel, for the arguments that fits have."""

from __future__ import annotations

import importlib
import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import mixlm_sparse as mx
from mixlm_sparse.engines import compiled, decisions

WITHOUT_NUMBA = "import sys; sys.modules['numba'] = None\n"
CALL = """
import mixlm_sparse as mx
try:
    print(mx.compile_kernels(progress=False))
except mx.MissingPackageError as error:
    print(error)
"""


def of_a_process(code: str, **environment: str) -> str:
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        cwd=Path(mx.__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def import_all() -> None:
    """Import every module of the package, for kernels are known once their modules are."""
    for module in pkgutil.walk_packages(mx.__path__, "mixlm_sparse."):
        if not module.name.startswith(("mixlm_sparse.interop", "mixlm_sparse.__main__")):
            importlib.import_module(module.name)


def compilations() -> int:
    return sum(kernel.compilations() for kernel in compiled.kernels())


def crossed(seed: int, n: int, *levels: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    frame = {f"f{i}": rng.integers(0, count, n) for i, count in enumerate(levels)}
    x, y = rng.normal(size=(2, n))
    for i, count in enumerate(levels):
        y = y + rng.normal(size=count)[frame[f"f{i}"]] * (1.0 + 0.3 * x)
    return pd.DataFrame({**frame, "x": x, "y": y, "w": rng.uniform(1.0, 2.0, n)})


@pytest.fixture(scope="module", autouse=True)
def made() -> None:
    import_all()
    mx.compile_kernels(progress=False)


def test_every_kernel_is_made() -> None:
    kernels = [k for k in compiled.kernels() if k._name.startswith("mixlm_sparse.")]
    assert len(kernels) > 40
    assert [k._name for k in kernels if not getattr(k._compiled, "signatures", ())] == []


def test_a_second_call_compiles_nothing() -> None:
    assert mx.compile_kernels(progress=False) == 0


@pytest.mark.parametrize(
    ("formula", "data", "options"),
    [
        ("y ~ x + (x | f0)", crossed(1, 300, 30), {}),
        ("y ~ x + (x || f0)", crossed(1, 300, 30), {"weights": "w", "reml": False}),
        ("y ~ x + (1 | f0) + (1 | f1)", crossed(2, 400, 12, 9), {}),
        ("y ~ x + (x | f0) + (x | f1)", crossed(3, 9000, 700, 300), {}),
        ("y ~ x + (x | f0) + (1 | f0:f1)", crossed(4, 9000, 300, 20), {}),
        ("y ~ x + (1 | f0) + (1 | f1) + (x | f2)", crossed(5, 8000, 2000, 900, 20), {}),
        ("y ~ x + (1 | f0) + (1 | f1)", crossed(6, 4000, 500, 300), {"engine": "sparse"}),
        ("y ~ x + (1 | f0) + (1 | f1)", crossed(7, 4000, 500, 300), {"engine": "krylov"}),
    ],
)
def test_other_models_compile_nothing(
    formula: str, data: pd.DataFrame, options: dict[str, object]
) -> None:
    before = compilations()
    with decisions.forced():
        mx.lmer(formula, data, control=mx.Control(warn=False), progress=False, **options)
        mx.lmer(formula, data, control=mx.Control(warn=False), optimizer="lbfgsb", **options)
    assert compilations() == before


def test_the_automatic_choice_comes_back() -> None:
    mx.use_compiled(False)
    try:
        mx.compile_kernels(lambda done, total: False)
        assert decisions.compiled_pays(1e99) is False
    finally:
        mx.use_compiled(None)


def test_progress_counts_the_models_and_may_end_it() -> None:
    seen: list[tuple[int, int]] = []

    def progress(done: int, total: int) -> bool:
        seen.append((done, total))
        return done < 2

    mx.compile_kernels(progress)
    assert [done for done, _ in seen] == [0, 1, 2]
    assert len({total for _, total in seen}) == 1


def test_without_numba() -> None:
    assert "pip install --upgrade numba" in of_a_process(WITHOUT_NUMBA + CALL)


# one kernel is enough to see it, so that the others need not be compiled here
DISK_IS_FULL = """
import warnings
from numba.core import caching
from mixlm_sparse.api import compile_kernels
from mixlm_sparse.design.pedigree import Pedigree

def full(self, *args, **kwargs):
    raise OSError(28, "No space left on device")

caching.IndexDataCacheFile.save = full
compile_kernels._steps = lambda: [lambda: Pedigree([2, 1], [1, 0], [0, 0])]
warnings.simplefilter("ignore")
"""


def test_where_nothing_can_be_kept(tmp_path: Path) -> None:
    said = of_a_process(DISK_IS_FULL + CALL, NUMBA_CACHE_DIR=str(tmp_path))
    assert "set NUMBA_CACHE_DIR to a folder that can be written" in said
