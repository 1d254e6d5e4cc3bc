"""The functions that a formula may use, and the refusal of all others before any evaluation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from mixlm_sparse.common.errors import FormulaError
from mixlm_sparse.design.transforms import TRANSFORMS
from mixlm_sparse.formula.syntax import Binary, Call, Expr, Name, deparse, walk

__all__ = ["ELEMENTWISE", "FUNCTIONS", "check_functions", "without_numpy"]

ELEMENTWISE: dict[str, Callable[..., Any]] = {
    "log1p": np.log1p,
    "log2": np.log2,
    "log10": np.log10,
    "exp": np.exp,
    "expm1": np.expm1,
    "sqrt": np.sqrt,
    "abs": np.abs,
    "sin": np.sin,
    "cos": np.cos,
    "tan": np.tan,
}
NUMPY_NAMES = frozenset({"log", "absolute", *ELEMENTWISE})
SPECIAL = (
    "I", "log", "C", "factor", "as.factor", "ordered", "dummy", "c", "pmin", "pmax",
)  # fmt: skip
# What to write for functions that are no transforms of rows.
INSTEAD = {
    "cbind": "one model has one response; mx.lmer_many(formula, data, ['a', 'b']) fits several",
    "as.numeric": "convert the column in the data frame",
    "as.integer": "convert the column in the data frame",
    "as.character": "write factor(x)",
    "s": "smooth terms are not here; write ns(x, df = 4) or bs(x, df = 5) for a curve",
    **dict.fromkeys(
        ("min", "max", "mean", "median", "sd"),
        "compute the column in the data frame, or write center(x) or scale(x)",
    ),
    **dict.fromkeys(
        ("relevel", "fct_relevel", "Relevel"),
        "choose the base level by C(f, Treatment('level')) in it, or by "
        "contrasts={'f': ('treatment', 'level')}",
    ),
}
FUNCTIONS = tuple(sorted({*ELEMENTWISE, *TRANSFORMS, *SPECIAL}))


def check_functions(
    expressions: tuple[Expr, ...], env: Mapping[str, Callable[..., Any]] | None
) -> None:
    """Refuse every function that is neither allowed nor given in `env`, before any evaluation."""
    if not env:
        _check_functions(expressions)
        return
    for name, function in env.items():
        if not isinstance(name, str) or not callable(function):
            raise FormulaError(f"env must map names to functions, which '{name}' is not")
    _check_against(expressions, frozenset(env))


@lru_cache(maxsize=512)
def _check_functions(expressions: tuple[Expr, ...]) -> None:
    _check_against(expressions, frozenset())


def _check_against(expressions: tuple[Expr, ...], own: frozenset[str]) -> None:
    for expr in expressions:
        if isinstance(expr, Name):
            continue
        inside_contrast: set[int] = set()
        for node in walk(expr):
            if isinstance(node, Call) and node.function == "C":
                inside_contrast.update(
                    id(inner)
                    for argument in (*node.args[1:], *(value for _, value in node.keywords))
                    for inner in walk(argument)
                )
            if isinstance(node, Binary) and node.op == "~":
                raise FormulaError(f"'~' cannot stand inside of {deparse(expr)}")
            if isinstance(node, Call) and id(node) not in inside_contrast:
                _check_call(node, expr, own)


def _check_call(node: Call, expr: Expr, own: frozenset[str]) -> None:
    name = node.function
    if name in own or name in ELEMENTWISE or name in TRANSFORMS or name in SPECIAL:
        return
    if without_numpy(name) != name:
        return
    if name == "offset":
        raise FormulaError(f"offset() must stand alone in the fixed part, not inside of "
                           f"{deparse(expr)}")  # fmt: skip
    fact = f"the function '{name}' in {deparse(expr)} is not allowed in a formula"
    if name in INSTEAD:
        raise FormulaError(f"{fact}: {INSTEAD[name]}")
    raise FormulaError(
        f"{fact}: use one of {', '.join(FUNCTIONS)} (or np.log and the like), "
        f"or pass your own as env={{'{name}': function}}"
    )


def without_numpy(name: str) -> str:
    """Return `log` for `np.log`, and the like; other names as they are."""
    for prefix in ("np.", "numpy."):
        if name.startswith(prefix) and name.removeprefix(prefix) in NUMPY_NAMES:
            bare = name.removeprefix(prefix)
            return "abs" if bare == "absolute" else bare
    return name
