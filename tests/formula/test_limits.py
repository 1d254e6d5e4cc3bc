"""Formulas that would eat the machine end at once in an error that says the limit."""

from __future__ import annotations

import re
import string

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixlm_sparse.common.errors import DataError, FormulaError, MixedModelError
from mixlm_sparse.design.build import model_matrices
from mixlm_sparse.formula.limits import LIMITS
from mixlm_sparse.formula.parse import parse_expression, parse_formula
from mixlm_sparse.formula.update import updated_formula

N = 40
FRAME = pd.DataFrame(
    {
        "y": np.sin(np.arange(N)),
        "x": np.arange(N) / 7.0,
        "row": np.arange(N),
        "g": np.arange(N) % 4,
    }
)


def joined(operator, count, name="x"):
    return operator.join(f"{name}{i}" for i in range(count))


# name -> (right side, the limit that the message names)
HUGE = {
    "crossed groups": (f"1 + (1 | {joined('*', 22)})", "random_terms"),
    "nested groups": (f"1 + (1 | {joined('/', 240)})", "random_terms"),
    "groups of groups": (
        f"1 + (1 | {'*'.join(f'(a{i}/b{i})' for i in range(30))})",
        "random_terms",
    ),
    "double bar": (f"1 + ({joined('*', 12)} || g)", "random_terms"),
    "double bar, nested": (f"1 + ({joined('+', 20)} || {joined('/', 20)})", "random_terms"),
    "random terms": (f"1 + {'+'.join(['(1 | g)'] * 4000)}", "random_terms"),
    "all interactions": (f"{joined('*', 20)} + (1 | g)", "terms"),
    "power": (f"({joined('+', 30)})^30 + (1 | g)", "terms"),
    "power of a power": (f"(({joined('+', 30)})^2)^2 + (1 | g)", "terms"),
    "sum": (f"{joined(' + ', 10_000)} + (1 | g)", "terms"),
    "differences": (f"x {'- x ' * 10_000} + (1 | g)", "terms"),
    "characters": ("x" + " " * 100_000, "characters"),
    "spline": ("bs(x, df = 1e6) + (1 | g)", "basis_columns"),
    "degree of a spline": ("bs(x, degree = 1e5) + (1 | g)", "basis_columns"),
    "natural spline": ("ns(x, df = 1e300) + (1 | g)", "basis_columns"),
    "cubic spline": ("cr(x, df = 1e5) + (1 | g)", "basis_columns"),
    "polynomial": ("poly(x, 1e6) + (1 | g)", "basis_columns"),
    "knots": (f"bs(x, knots = c({','.join(['1'] * 2000)})) + (1 | g)", "basis_columns"),
    "columns": ("factor(row)*factor(x)*factor(row + x) + (1 | g)", "columns"),
    "random columns": ("1 + (factor(row)*factor(x)*factor(row + x) | g)", "columns"),
}


@pytest.mark.parametrize(("right", "limit"), HUGE.values(), ids=HUGE)
def test_limits(right, limit):
    with pytest.raises(FormulaError, match=rf"LIMITS\.{limit} before"):
        model_matrices(f"y ~ {right}", FRAME)


def test_limits_can_be_raised(monkeypatch):
    text = f"y ~ 1 + (1 | {joined('/', 15)})"
    monkeypatch.setattr(LIMITS, "random_terms", 10)
    with pytest.raises(FormulaError, match="15 random terms, and the limit is 10"):
        parse_formula(text)
    monkeypatch.setattr(LIMITS, "random_terms", 15)
    assert len(parse_formula(text).random) == 15


DEEP = {
    "sum inside of a call": f"y ~ I({'+'.join(['x'] * 20_000)}) + (1 | g)",
    "comparison of a sum": f"y ~ {'+'.join(['x'] * 20_000)} > 3 + (1 | g)",
    "product": f"y ~ {':'.join(['x'] * 20_000)} + (1 | g)",
    "parentheses": f"y ~ {'(' * 5000}x{')' * 5000} + (1 | g)",
    "signs": f"y ~ {'-' * 50_000}x + (1 | g)",
    "negations": f"y ~ {'!' * 50_000}x + (1 | g)",
    "calls": f"y ~ {'log(' * 5000}x{')' * 5000} + (1 | g)",
    "response": f"{'+'.join(['y'] * 20_000)} ~ x + (1 | g)",
    "tildes": "~".join(["y"] * 20_000),
    "bars": f"y ~ 1 + ({'|'.join(['y'] * 20_000)})",
    "sum of groups": f"y ~ 1 + (1 | {joined('+', 5000)})",
    "power that is no number": f"y ~ ({joined('+', 200)})^z + (1 | g)",
    "infinite power": "y ~ (x + row)^1e999 + (1 | g)",
    "many constants": f"y ~ x %in% c({','.join(['1'] * 20_000)}, y) + (1 | g)",
}


@pytest.mark.parametrize("text", DEEP.values(), ids=DEEP)
def test_depth_ends_in_a_short_message(text):
    with pytest.raises((FormulaError, DataError)) as caught:
        model_matrices(text, FRAME)
    assert len(str(caught.value)) <= 2000


def test_what_is_long_and_allowed():
    formula = parse_formula(f"y ~ {':'.join(['x'] * 200)} + ({joined('+', 3000)} | g)")
    assert len(formula.fixed.terms) == 1
    assert len(formula.random[0].terms) == 3000


def test_updating_is_bounded():
    old = f"y ~ {joined(' + ', 4000)} + (1 | g)"
    assert "x17 " not in updated_formula(old, ". ~ . - x17")
    with pytest.raises(FormulaError, match=r"LIMITS\.terms"):
        updated_formula(old, f". ~ {'. + ' * 500}x")


ALPHABET = string.ascii_letters + string.digits + " ~+-*/:^|&!<>=%().,'\"`\\[]{}$@#_\n\té漢\ud800"
PIECES = [
    "y", "x", "g", "g/x", "~", "+", "-", "*", ":", "/", "^", "|", "||", "(", ")", "1", "0", "2",
    "1e400", "log(", "I(", "poly(", "bs(x, df = ", "factor(", "offset(", "diag(", "us(", "%in%",
    "c(1, 2)", "==", "!", "'a'", "`a b`", ".", ",", "=", "TRUE", "NULL", "dummy(", "C(", "row",
]  # fmt: skip


@given(
    st.text(ALPHABET, max_size=60) | st.lists(st.sampled_from(PIECES), max_size=25).map(" ".join)
)
def test_any_text_is_read_or_refused(text):
    """Only the package's own errors come out, of the reader and of what follows it."""
    for call in (
        parse_formula,
        parse_expression,
        lambda t: updated_formula("y ~ x + (x || g)", t),
        lambda t: model_matrices(t, FRAME),
        lambda t: model_matrices(f"y ~ {t} + (1 | g)", FRAME),
        lambda t: model_matrices("y ~ x + (1 | g)", FRAME, subset=t),
        lambda t: model_matrices("y ~ x + (1 | g)", FRAME, weights=t),
    ):
        try:
            call(text)
        except MixedModelError as error:
            assert re.search(r"\w", str(error))
