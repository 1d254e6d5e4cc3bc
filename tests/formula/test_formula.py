"""Text to `MixedFormula`: what every notation means, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixlm_sparse.common.errors import FormulaError
from mixlm_sparse.formula.grammar import parse_expression
from mixlm_sparse.formula.parse import parse_formula
from mixlm_sparse.formula.syntax import deparse, format_number
from mixlm_sparse.formula.update import updated_formula


@pytest.mark.parametrize(
    ("right", "canonical"),
    [
        ("x", "x"),
        ("1", "1"),
        ("0 + x", "0 + x"),
        ("x - 1", "0 + x"),
        ("-1 + x", "0 + x"),
        ("x + 0", "0 + x"),
        ("x - 0", "x"),
        ("x - 1 + 1", "x"),
        ("x*f", "x + f + x:f"),
        ("x:f + x", "x + x:f"),
        ("x + f + f:x", "x + f + x:f"),
        ("f:x + x + f", "x + f + f:x"),
        ("tos + trt:tos", "tos + tos:trt"),
        ("(a + b + c)^2", "a + b + c + a:b + a:c + b:c"),
        ("(a + b)**2 - a:b", "a + b"),
        ("a/b", "a + a:b"),
        ("(a + b)/c", "a + b + a:b:c"),
        ("a/b/c", "a + a:b + a:b:c"),
        ("a + b %in% a", "a + a:b"),
        ("a*b*c - a:b:c", "a + b + c + a:b + a:c + b:c"),
        ("x + x", "x"),
        ("x^2", "x"),
        ("I(x**2) + I( x-11 )", "I(x^2) + I(x - 11)"),
        ("poly(x,2,raw=True)", "poly(x, 2, raw = TRUE)"),
        ("`my col` + a.b_c", "`my col` + a.b_c"),
        ("Q('my col')", "`my col`"),
        ("1 + offset(log(t)) + x", "x + offset(log(t))"),
        ("x > 1", "x > 1"),
    ],
)
def test_fixed_part(right, canonical):
    formula = parse_formula(f"y ~ {right}", require_random=False)
    assert str(formula.fixed) == canonical


@pytest.mark.parametrize(
    ("random", "expected"),
    [
        ("(1 | g)", ["(1 | g)"]),
        ("(x | g)", ["(x | g)"]),
        ("(1 + x | g)", ["(x | g)"]),
        ("(0 + x | g)", ["(0 + x | g)"]),
        ("(x - 1 | g)", ["(0 + x | g)"]),
        ("(-1 + x | g)", ["(0 + x | g)"]),
        ("(x || g)", ["(1 | g)", "(0 + x | g)"]),
        ("(0 + x || g)", ["(0 + x | g)"]),
        ("(x*z || g)", ["(1 | g)", "(0 + x | g)", "(0 + z | g)", "(0 + x:z | g)"]),
        ("(1 | a/b)", ["(1 | b:a)", "(1 | a)"]),
        ("(x | a/b)", ["(x | b:a)", "(x | a)"]),
        ("(1 | a/b/c)", ["(1 | c:(b:a))", "(1 | b:a)", "(1 | a)"]),
        ("(1 | a:b)", ["(1 | a:b)"]),
        ("(1 | a*b)", ["(1 | a)", "(1 | b)", "(1 | a:b)"]),
        ("(x || a/b)", ["(1 | b:a)", "(0 + x | b:a)", "(1 | a)", "(0 + x | a)"]),
        ("(1 | factor(id))", ["(1 | factor(id))"]),
        ("((x | g))", ["(x | g)"]),
        ("(dummy(f, 'a') | g)", ['(dummy(f, "a") | g)']),
        ("us(x | g)", ["(x | g)"]),
        ("diag(x | g) + id(x | g)", ["diag(x | g)", "id(x | g)"]),
        ("id(0 + f | a/b)", ["id(0 + f | b:a)", "id(0 + f | a)"]),
        ("diag((0 + time | g))", ["diag(0 + time | g)"]),
        ("(1 | id) + id", ["(1 | id)"]),
    ],
)
def test_random_terms(random, expected):
    formula = parse_formula(f"y ~ x + {random}")
    assert [str(part) for part in formula.random] == expected


def test_components_of_nested_groups():
    part = parse_formula("y ~ 1 + (1 | a/b/c)").random[0]
    assert part.label == "c:(b:a)"
    assert [deparse(component) for component in part.components] == ["c", "b", "a"]


def test_names_are_those_of_the_columns_only():
    formula = parse_formula(
        "log(IQ.ver.cen) ~ poly(x, degree = 2) + C(f, Treatment) + offset(o) + (z || a/b)"
    )
    assert formula.names == ("IQ.ver.cen", "x", "f", "o", "b", "a", "z")
    assert formula.response_name == "log(IQ.ver.cen)"


def test_formula_is_read_once():
    assert parse_formula("y ~ x + (1 | g)") is parse_formula("y ~ x + (1 | g)")
    assert hash(parse_formula("y ~ x + (1 | g)")) == hash("y ~ x + (1 | g)")


def test_long_sums_are_read():
    right = " + ".join(f"x{i}" for i in range(3000))
    assert len(parse_formula(f"y ~ {right} + (1 | g)").fixed.terms) == 3000


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("y ~ x + (1 | g", "is not closed"),
        ("y ~ x + 1 | g)", "has no '\\('"),
        ("y ~ log(x + (1 | g)", "is not closed"),
        ("y ~ x x + (1 | g)", "missing before 'x'"),
        ("y ~ x + + * (1 | g)", "missing between"),
        ("y ~ (x | ) ", "missing between '\\|' and '\\)'"),
        ("y ~ ", "missing at the end"),
        ("y ~ 'a + (1 | g)", "not closed"),
        ("y ~ x[1] + (1 | g)", "'\\[' has no meaning"),
        ("y ~ x @ z + (1 | g)", "'@' has no meaning"),
        ("y ~ {x} + (1 | g)", "'{' has no meaning"),
        ("y ~ x; z", "';' has no meaning"),
        ("y ~ (lambda: x)() + (1 | g)", "missing"),
        ("y = x + (1 | g)", "'='"),
        ("y ~ x ~ z + (1 | g)", "'~'"),
        ("y + x", "has no '~'"),
        ("~ x + (1 | g)", "no response"),
        ("y ~ x", "no random term"),
        ("y ~ 1 | g", "in parentheses"),
        ("y ~ x*(1 | g)", "must be added"),
        ("y ~ x - (1 | g)", "cannot be subtracted"),
        ("y ~ x + (1 | a + b)", "one term for each factor"),
        ("y ~ x + (0 | g)", "no columns"),
        ("y ~ x + (1 | g | h)", "two bars"),
        ("y ~ x + ((1 | g) | h)", "inside another"),
        ("y ~ x + exp(x | g)", "'exp' is not a covariance structure.*use one of ar1, cs, diag, id"),
        ("y ~ x + foo(x | g)", "'foo' is not a covariance structure.*one of ar1, cs, .*toep, us"),
        ("y ~ x + diag(x || g)", "one bar"),
        ("y ~ 2 + (1 | g)", "not a term"),
        ("y ~ x^z + (1 | g)", "whole number"),
        ("y ~ . + (1 | g)", "write the columns out"),
        ("y ~ x:offset(z) + (1 | g)", "stand alone"),
        ("y ~ f(x, ) + (1 | g)", "missing after ','"),
        ("y ~ f(a = 1, a = 2) + (1 | g)", "twice"),
        ("y ~ f(a = 1, x) + (1 | g)", "put it first"),
        ("3 ~ x + (1 | g)", "names no column"),
        ("", "is empty"),
        ("y ~ " + "(" * 500 + "x" + ")" * 500, "nested too deeply"),
        ("y ~ " + "-" * 5000 + "x", "nested too deeply"),
        ("y ~ " + "x:" * 5000 + "x", "too long an expression"),
        (
            "y ~ (" + "+".join(f"x{i}" for i in range(40)) + ")^9 + (1 | g)",
            "expands to 373,585,603 terms, and the limit is 5,000",
        ),
    ],
)
def test_refused(text, message):
    with pytest.raises(FormulaError, match=message):
        parse_formula(text)


def test_error_points_at_the_place():
    with pytest.raises(FormulaError) as caught:
        parse_formula("y ~ x + (1 | g")
    *_, shown, caret = str(caught.value).splitlines()
    assert shown[caret.index("^")] == "("


@pytest.mark.parametrize(
    ("number", "written"),
    [
        (1e5, "1e+05"),
        (123456, "123456"),
        (0.001, "0.001"),
        (0.0001, "1e-04"),
        (0.1, "0.1"),
        (2, "2"),
        (123456.7, "123456.7"),
        (1 / 3, "0.333333333333333"),
        (1e15, "1e+15"),
        (1.5e-300, "1.5e-300"),
        (0, "0"),
    ],
)
def test_numbers_are_written_as_in_r(number, written):
    assert format_number(number) == written


NAMES = st.sampled_from(["x", "y2", "IQ.ver.cen", ".a", "odd name", "TRUE", "größe", "_z"]).map(
    lambda name: name if name.isidentifier() and name != "TRUE" else f"`{name}`"
)
LEAVES = NAMES | st.integers(0, 10**7).map(str) | st.floats(0, 1e9).map(repr)


def _grow(inner):
    operators = st.sampled_from(["+", "-", "*", "/", "^", "**", ":", "%%", "%in%", "<", "=="])
    return (
        st.tuples(inner, operators, inner).map(lambda t: f"({t[0]}) {t[1]} {t[2]}")
        | inner.map(lambda text: f"({text})")
        | inner.map(lambda text: f"-{text}")
        | st.tuples(inner, inner).map(lambda t: f"poly({t[0]}, df={t[1]}, raw=TRUE, s='a\"b')")
    )


@given(st.recursive(LEAVES, _grow, max_leaves=12))
def test_deparsing_is_stable(text):
    once = parse_expression(text)
    written = deparse(once)
    again = parse_expression(written)
    assert deparse(again) == written


@given(st.text(alphabet="xyg01 ~+-*/:^|().,=%'\"`[]{}@#$\\\n", max_size=40))
def test_any_text_is_read_or_refused(text):
    """No input ends in anything but a formula or a FormulaError."""
    try:
        parse_formula("y ~ " + text)
    except FormulaError:
        pass


@given(
    st.lists(
        st.lists(st.sampled_from("abcde"), min_size=1, max_size=3).map(":".join),
        min_size=1,
        max_size=6,
    )
)
def test_terms_come_by_degree_then_as_written(terms):
    formula = parse_formula("y ~ " + " + ".join(terms), require_random=False)
    degrees = [len(term) for term in formula.fixed.terms]
    assert degrees == sorted(degrees)
    written = [frozenset(term.split(":")) for term in terms]
    unique = sorted(dict.fromkeys(written), key=len)
    assert [frozenset(map(deparse, term)) for term in formula.fixed.terms] == unique


@pytest.mark.parametrize(
    ("old", "change", "new"),
    [
        ("y ~ x + (x || g)", "- (0 + x | g)", "y ~ x + (1 | g)"),
        ("y ~ x + (x || g)", "- (1 | g)", "y ~ x + (0 + x | g)"),
        ("y ~ x + (x || g)", "- (x || g) + (x | g)", "y ~ x + (x | g)"),
        ("y ~ x + (x + z || g) + (1 | h)", "- (x || g)", "y ~ x + (0 + z | g) + (1 | h)"),
        ("y ~ x + (1 | a/b)", "- (1 | b:a)", "y ~ x + (1 | a)"),
        ("y ~ x + (1 | a/b)", "- (1 | a)", "y ~ x + (1 | b:a)"),
        ("y ~ x + (1 + x | g)", "- (x | g) + (1 | g)", "y ~ x + (1 | g)"),
        ("y ~ x + (x || `a b`)", "- (0 + x | `a b`)", "y ~ x + (1 | `a b`)"),
    ],
)
def test_a_term_is_taken_out_of_what_stands_for_several(old, change, new):
    assert updated_formula(old, f". ~ . {change}") == new


def test_an_effect_is_not_taken_out_of_a_correlated_term():
    with pytest.raises(FormulaError, match=r"\(1 \| g\) is not in the formula.*: \(x \| g\)"):
        updated_formula("y ~ x + (x | g)", ". ~ . - (1 | g)")


@pytest.mark.parametrize(
    ("text", "missed"),
    [
        ("y ~ x - z + (1 | g)", ["z"]),
        ("y ~ x - x:z + (1 | g)", ["x:z"]),
        ("y ~ x + (x - z | g)", ["z"]),
        ("y ~ (x - z):a + (1 | g)", ["z"]),
        ("y ~ x - offset(w) + (1 | g)", ["offset(w)"]),
        ("y ~ x - 1 + (1 | g)", []),
        ("y ~ 0 + x - 1 + (1 | g)", []),
        ("y ~ x * z - x:z - z + (1 | g)", []),
        ("y ~ x - x * z + (1 | g)", []),
        ("y ~ (a + b + c)^2 - a:b + (1 | g)", []),
    ],
)
def test_what_is_removed_and_not_there_is_known(text, missed):
    assert [deparse(expr) for expr in parse_formula(text).fixed.missed] == missed


def test_an_offset_is_removed_beside_products():
    text = "y ~ a * b + offset(w) + offset(v) - offset(w) + (1 | g)"
    assert [deparse(expr) for expr in parse_formula(text).fixed.offsets] == ["v"]
    assert not parse_formula(text).fixed.missed
