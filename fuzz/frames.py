"""`lmer` on frames from anyone: columns of every kind, awkward numbers, structures and options."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

import mixlm_sparse as mx
from fuzz.source import Source

FIXED = (
    "1",
    "x",
    "0 + x",
    "f",
    "x * f",
    "poly(x, 2)",
    "log(x)",
    "scale(x)",
    "x + z + f",
    "offset(z) + x",
    "b",
)
RANDOM = (
    "(1 | g)", "(x | g)", "(x || g)", "(1 | g) + (1 | h)", "(1 | g/h)", "(x | g) + (z | h)",
    "(0 + f | g)", "cs(0 + f | g)", "ar1(0 + f | g)", "diag(x | g)", "id(0 + f | g)",
    "toep(0 + f | g)", "(1 | x)", "(1 | d)",
)  # fmt: skip
COLUMNS = ("y", "x", "z", "f", "g", "h", "w", "b", "d")
BRIEF = mx.Control(max_evaluations=12, second_looks=False)
LOOKS: tuple[Callable[[Any], object], ...] = (
    lambda fit: str(fit.varcorr),
    lambda fit: str(fit.summary()),
    lambda fit: fit.predict(allow_new_levels=True),
    lambda fit: fit.variance_components(),
    lambda fit: str(fit.tidy(conf_int=True)),
)
PLACES = ("d", "x", "f", "h", "b")
SUBJECTS = ("g", "h", "f", "d")
STRUCTURES: tuple[Callable[[Source], dict[str, Any]], ...] = (
    lambda _: {},
    lambda _: {},
    lambda _: {},
    lambda s: {"residual": mx.AR1(s.pick(PLACES), s.pick(SUBJECTS))},
    lambda s: {"residual": mx.CAR1(s.pick(PLACES), s.pick(SUBJECTS))},
    lambda s: {"residual": mx.Toeplitz(s.pick(PLACES), s.pick(SUBJECTS))},
    lambda s: {"residual": mx.Exponential(["x", "z"], s.pick(SUBJECTS))},
    lambda s: {"residual": mx.CompoundSymmetry(s.pick(SUBJECTS)), "variance": mx.VarIdent("f")},
    lambda s: {"variance": mx.VarPower(s.pick(("x", "z", "d")))},
    lambda s: {"variance": mx.VarExp(s.pick(("x", "z", "d")))},
)
CORRELATIONS: tuple[Callable[[Source], Any], ...] = (
    lambda s: None,
    lambda s: mx.AR1(s.pick(PLACES), s.pick(SUBJECTS)),
    lambda s: mx.CAR1(s.pick(PLACES), s.pick(SUBJECTS)),
    lambda s: mx.Toeplitz(s.pick(PLACES), s.pick(SUBJECTS)),
    lambda s: mx.Unstructured(s.pick(PLACES), s.pick(SUBJECTS)),
    lambda s: mx.AnteDependence(s.pick(PLACES), s.pick(SUBJECTS)),
    lambda s: mx.CompoundSymmetry(s.pick(SUBJECTS), by=s.pick(("f", None))),
    lambda s: mx.Exponential(["x", "z"], s.pick(SUBJECTS)),
    lambda s: mx.Gaussian(s.pick(("x", "z", "d")), s.pick((*SUBJECTS, None))),
)
VARIANCES: tuple[Callable[[Source], Any], ...] = (
    lambda s: None,
    lambda s: mx.VarIdent(s.pick(("f", "h", "b", "g"))),
    lambda s: mx.VarPower(s.pick(("x", "z", "d"))),
    lambda s: mx.VarExp(s.pick(("x", "z", "d"))),
)
KINDS = ("number", "few", "text", "labels", "flag", "object", "date", "category", "constant")


def column(source: Source, n: int) -> Any:
    """Return a column of n cells."""
    kind = source.pick(KINDS)
    if kind == "number":
        return np.array([source.number() for _ in range(n)])
    if kind == "few":
        return np.array([source.below(4) for _ in range(n)])
    if kind == "text":
        return [source.text(4) for _ in range(n)]
    if kind == "labels":
        return [source.pick(("a", "b", "c", "", "(Intercept)")) for _ in range(n)]
    if kind == "flag":
        return np.array([source.flag() for _ in range(n)])
    if kind == "object":
        pool = (None, 1, 2.5, "a", float("nan"), True, (1,), 10**30, b"x", -1)
        return pd.Series([source.pick(pool) for _ in range(n)], dtype=object)
    if kind == "date":
        return pd.to_datetime([source.below(2000) for _ in range(n)], unit="D")
    if kind == "category":
        cells = [source.pick(("u", "v", "w", None)) for _ in range(n)]
        return pd.Categorical(cells, categories=["w", "v", "u", "unused"])
    return np.full(n, source.number())


def frame(source: Source) -> pd.DataFrame:
    """Return a frame of at most 40 rows; often one that a model can be fitted to."""
    n = source.below(41)
    rng = np.random.default_rng(source.below(256))
    columns: dict[str, Any] = {
        "y": rng.normal(size=n), "x": rng.normal(size=n), "z": rng.uniform(0.5, 2, n),
        "f": rng.choice(list("abc"), n), "g": rng.integers(0, 6, n), "h": rng.integers(0, 4, n),
        "w": rng.uniform(0.5, 2, n), "b": rng.normal(size=n) > 0, "d": np.arange(n) // 3,
    }  # fmt: skip
    for _ in range(source.below(4)):
        columns[source.pick(COLUMNS)] = column(source, n)
    if source.below(8) == 1:
        del columns[source.pick(tuple(columns))]
    made = pd.DataFrame(columns)
    for _ in range(source.below(6) if n else 0):
        at = source.below(n), source.below(made.shape[1])
        cell = source.number()
        if pd.api.types.is_float_dtype(made.dtypes.iloc[at[1]]):
            made.iloc[at] = cell
    return made


def one(data: bytes) -> None:
    """Fit a model to a frame, and print one of the things, or all, that a user looks at."""
    source = Source(data)
    _fitted(source, f"y ~ {source.pick(FIXED)} + {source.pick(RANDOM)}", mx.lmer, None)


def one_structured(data: bytes) -> None:
    """Fit a model whose residuals have a structure, with random effects or without."""
    source = Source(data)
    formula, call = f"y ~ {source.pick(FIXED)}", mx.gls
    if source.flag():
        formula, call = f"{formula} + {source.pick(RANDOM)}", mx.lmer
    structure = {
        "residual": source.pick(CORRELATIONS)(source),
        "variance": source.pick(VARIANCES)(source),
    }
    _fitted(source, formula, call, structure)


def _fitted(
    source: Source, formula: str, call: Callable[..., Any], structure: dict[str, Any] | None
) -> None:
    options: dict[str, Any] = {"reml": source.flag()}
    if source.below(4) == 1:
        options["weights"] = source.pick(COLUMNS)
    if source.below(8) == 1:
        options["offset"] = source.pick(COLUMNS)
    if source.below(8) == 1:
        options["na_action"] = source.pick(("omit", "exclude", "raise"))
    if source.below(8) == 1:
        options["subset"] = source.pick(("x > 0", "f == 'a'", "y", "g < 3 & x > 0", "b"))
    rows = frame(source)
    looks = (*((look,) for look in LOOKS), LOOKS)[source.below(len(LOOKS) + 1)]
    # a search whole, with its second looks, is most of what an input costs: one input in eight
    control = mx.Control() if source.below(8) == 1 else BRIEF
    options |= source.pick(STRUCTURES)(source) if structure is None else structure
    fit = call(formula, rows, control=control, **options)
    for look in looks:
        look(fit)


def seeds() -> list[bytes]:
    """Return decisions that lead to ordinary fits."""
    rows = [bytes([i % len(FIXED), i % len(RANDOM), i % 2, 0, 0, 0, 0, 24 + i]) for i in range(20)]
    numbers = struct.pack("<4d", 1.0, 2.0, 1e9, 1e-9)
    return [*rows, *(row + bytes([3, 1, 2, 5, 7]) + numbers for row in rows)]
