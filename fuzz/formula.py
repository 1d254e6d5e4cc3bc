"""Formulas from anyone: read, written again, and evaluated on a small frame."""

from __future__ import annotations

import numpy as np
import pandas as pd

import mixlm_sparse as mx

TOKENS = (
    "y", "x", "z", "f", "g", "h", "t", "1", "0", "-1", "2.5", "1e400", "0x1F", "~", "+", "-", "*",
    "/", ":", "^", "%in%", "(", ")", "|", "||", "==", "!=", "<=", "&", "!", ",", "=", "'a'", '"b"',
    "`", "`a b`", ".", " ", "\n", "(1 | g)", "(x | g)", "(x || g)", "(1 | g/h)", "(0 + f | g)",
    "us(", "diag(", "id(", "cs(", "ar1(", "toep(", "hom = TRUE", "dummy(f, 'a')", "offset(",
    "log(", "poly(x, 2)", "bs(", "ns(", "cr(", "scale(", "center(", "factor(", "C(f, sum)",
    "Treatment('b')", "I(", "np.log(", "np.", "__import__(", "exec(", "lambda", "λ", "é",
)  # fmt: skip
SEEDS = (
    "y ~ x + (x | g)", "y ~ x * f + (1 | g/h)", "log(y + 9) ~ poly(x, 2) + (x || g) + (1 | h)",
    "y ~ 0 + f:x - 1 + offset(z) + (0 + dummy(f, 'a') | g)", "y ~ (x + z + f)^2 + cs(f | g)",
    "y ~ bs(x, df = 4) + ar1(0 + t | g, hom = FALSE)",
    "`a b` ~ I(x^2) + C(f, Treatment('b')) + (1 | g:h)",
    "y ~ scale(x) %in% f / z + toep(0 + t | g) + id(1 + x | h)", "~ x + (1 | g)",
    "y ~ np.exp(x) + (1 | g)",
)  # fmt: skip

rng = np.random.default_rng(1)
FRAME = pd.DataFrame(
    {
        "x": rng.normal(size=48).round(2),
        "z": rng.uniform(0.1, 3, 48).round(2),
        "f": np.tile(["a", "b", "c"], 16),
        "t": pd.Categorical(np.tile([1, 2, 3, 4], 12)),
        "g": np.repeat(np.arange(12), 4),
        "h": np.repeat(list("pqrstu"), 8),
    }
)
FRAME["y"] = rng.normal(size=48) + rng.normal(size=12)[FRAME["g"]]
FRAME["a b"] = FRAME["y"] ** 2


def seeds() -> list[bytes]:
    """Return formulas to begin with."""
    return [text.encode() for text in SEEDS]


def one(data: bytes) -> None:
    """Read a formula, write and read it again, and build its matrices."""
    text = data.decode("utf-8", "replace")
    formula = mx.parse_formula(text)
    again = mx.parse_formula(formula.text)
    assert again == formula, f"{formula.text!r} is read in two ways"
    repr(formula)
    matrices = mx.model_matrices(text, FRAME)
    mx.penalized_system(matrices)
