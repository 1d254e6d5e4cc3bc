"""Machine code of all kernels, made before anybody waits for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from mixlm_sparse.api.lmer import lmer
from mixlm_sparse.common.errors import MissingPackageError
from mixlm_sparse.common.keywords import answers_unknown_keywords
from mixlm_sparse.common.progress import CountProgress, counter
from mixlm_sparse.design.pedigree import Pedigree
from mixlm_sparse.engines import compiled, decisions
from mixlm_sparse.engines.threads import calm
from mixlm_sparse.solve.search.control import Control

__all__ = ["compile_kernels"]


@answers_unknown_keywords
@calm
def compile_kernels(progress: CountProgress = None) -> int:
    """Make and keep the machine code that fits use, so that none of them waits for it.

    Without this call, a kernel is compiled when a fit first repays that, and the search of small
    models, which takes longest, after thousands of them.  After it, which takes a minute once on a
    machine, every fit of every process uses machine code as soon as numba is loaded.  Meant for the
    building of an image, or before a study of many small fits.

    Parameters
    ----------
    progress : None shows a bar in terminals and notebooks, False none; a function of
        (models fitted, all) ends the call by returning False.

    Returns
    -------
    number of kernels that were compiled now; 0 if all were kept from before.

    Raises
    ------
    MissingPackageError : numba does not load, or has no place where it could keep machine code.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> n_compiled = mx.compile_kernels()  # doctest: +SKIP
    """
    before = _compilations()
    with decisions.forced(), counter(progress, "compiling kernels", "models") as report:
        steps = list(_steps())
        for done, step in enumerate(steps):
            if not report(done, len(steps)):
                break
            step()
    if not all(kernel.keeps() for kernel in compiled.kernels()):
        raise MissingPackageError(
            "machine code cannot be kept here: set NUMBA_CACHE_DIR to a folder that can be written"
        )
    return _compilations() - before


def _compilations() -> int:
    return sum(kernel.compilations() for kernel in compiled.kernels())


def _steps() -> Iterator[Callable[[], object]]:
    """Yield calls that go through every kernel together, on random data of no meaning."""
    rng = np.random.default_rng(1)
    small = _crossed(rng, 200, (20, 8, 5))
    search: dict[str, Any] = {"optimizer": "lbfgsb"}  # evaluation by evaluation
    yield partial(_fit, "y ~ x + (x | g0)", small)  # the whole search, in one call
    yield partial(_fit, "y ~ x + (x | g0)", small, **search)
    yield partial(_fit, "y ~ x + (1 | g0)", _repeated(rng), **search)
    yield partial(_fit, "y ~ x + (1 | g0) + (1 | g1)", small, **search)
    yield partial(_fit, "y ~ x + (1 | g0) + (1 | g1) + (1 | g2)", _crossed(rng, 5000, (400, 99, 9)))
    yield partial(_fit, "y ~ x + (x | g0) + (x | g1) + (1 | g2)", _crossed(rng, 3000, (300, 99, 9)))
    yield partial(_fit, "y ~ x + (x + z | g0) + (x + z | g1)", _crossed(rng, 3000, (200, 100)))
    nested = _crossed(rng, 6000, (900, 12))
    nested["g2"] = nested["g0"] // 9
    yield partial(_fit, "y ~ x + (x | g2) + (x | g0)", nested)
    yield partial(_fit, "y ~ x + (x | g2) + (x | g0) + (x | g1)", nested)
    classes = _crossed(rng, 6000, (100, 12))
    classes["g2"] = classes["g0"] // 9
    yield partial(_fit, "y ~ x + (x | g0) + (x | g2) + (x | g1)", classes)
    yield partial(_fit, "y ~ x + (1 | g0) + (1 | g1)", _crossed(rng, 6000, (1500, 1000)))
    chain = _chain(rng, 2000)
    yield partial(_fit, "y ~ x + (1 | g0) + (1 | g1)", chain)  # few levels meet
    yield partial(_fit, "y ~ x + (1 | g0) + (1 | g1) + (1 | g2)", chain)
    dense = _crossed(rng, 6000, (60, 100, 8))
    yield partial(_fit, "y ~ x + (x | g0) + (x | g1) + (1 | g2)", dense)
    middle = _crossed(rng, 3000, (300, 150, 9))
    yield partial(_fit, "y ~ x + (1 | g0) + (x | g1) + (1 | g2)", middle, engine="sparse")
    yield partial(_fit, "y ~ x + (1 | g0) + (1 | g1)", _ring(rng, 10000, 600, 60), engine="sparse")
    yield partial(_fit, "y ~ x + (1 | g0) + (1 | g1)", middle, engine="krylov")
    wide = _crossed(rng, 6000, (900, 12, 30))
    wide["f"] = pd.Categorical(rng.integers(0, 500, len(wide)))
    yield partial(_fit, "y ~ x + f + (x | g0) + (1 | g1)", wide)
    yield partial(_fit, "y ~ x + f + (x | g2) + (1 | g1)", wide)
    wide["far"] = rng.integers(0, 2**60, 900)[wide["g0"]]  # too far apart to be looked up
    halves = [wide[:3000], wide[3000:]]
    yield partial(_fit, "y ~ x + (1 | g0) + (1 | far)", lambda: iter(halves))
    yield partial(Pedigree, [5, 4, 3, 2, 1], [3, 1, 1, 0, 0], [4, 2, 2, 0, 0])


def _fit(formula: str, data: Any, **options: Any) -> None:
    lmer(formula, data, control=Control(warn=False), progress=False, **options)


def _crossed(rng: np.random.Generator, n: int, levels: tuple[int, ...]) -> pd.DataFrame:
    """Return n rows with factors g0, g1, ... drawn at random, effects of each, and slopes."""
    frame = {f"g{i}": rng.integers(0, count, n) for i, count in enumerate(levels)}
    x, z, y = rng.normal(size=(3, n))
    for i, count in enumerate(levels):
        intercept, slope = rng.normal(size=(2, count))[:, frame[f"g{i}"]]
        y = y + intercept + 0.5 * slope * x
    return pd.DataFrame({**frame, "x": x, "z": z, "y": y})


def _repeated(rng: np.random.Generator) -> pd.DataFrame:
    """Return groups whose rows of x are all alike, so that they are one class of levels."""
    g = np.repeat(np.arange(20), 3)
    y = rng.normal(size=20)[g] + rng.normal(size=60)
    return pd.DataFrame({"g0": g, "x": np.tile([0.0, 1.0, 2.0], 20), "y": y})


def _chain(rng: np.random.Generator, count: int) -> pd.DataFrame:
    """Return two factors whose levels meet two others each, and a third beside them."""
    i = np.arange(3 * count)
    x, y = rng.normal(size=(2, i.size))
    y = y + rng.normal(size=count)[i // 3]
    return pd.DataFrame({"g0": i // 3, "g1": (i + 1) // 3, "g2": i // 3 % 50, "x": x, "y": y})


def _ring(rng: np.random.Generator, n: int, count: int, reach: int) -> pd.DataFrame:
    """Return n rows with two factors on a ring, whose levels meet the next `reach` ones."""
    g0 = rng.integers(0, count, n)
    g1 = (g0 + rng.integers(0, reach, n)) % count
    x, y = rng.normal(size=(2, n))
    y = y + rng.normal(size=count)[g0] + rng.normal(size=count)[g1]
    return pd.DataFrame({"g0": g0, "g1": g1, "x": x, "y": y})
