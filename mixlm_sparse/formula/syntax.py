"""Syntax tree of R's expressions, as far as model formulas use them.

The tree is frozen, hashable plain data. It is never compiled or passed to Python's `eval`: whoever
evaluates it walks over the few node classes below, so that a formula from a web form can reach
nothing but columns, numbers and the functions of a whitelist.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = [
    "Binary",
    "Call",
    "Expr",
    "Name",
    "Number",
    "Paren",
    "Text",
    "Truth",
    "Unary",
    "children",
    "deparse",
    "format_number",
    "names_in",
    "plain_text",
    "strip_parens",
    "walk",
]


@dataclass(frozen=True, slots=True)
class Number:
    """A numeric literal."""

    value: float


@dataclass(frozen=True, slots=True)
class Text:
    """A string literal."""

    value: str


@dataclass(frozen=True, slots=True)
class Truth:
    """`TRUE` or `FALSE`; `None` stands for R's `NULL`."""

    value: bool | None


@dataclass(frozen=True, slots=True)
class Name:
    """A column (or, as an argument, the name of a contrast)."""

    id: str


@dataclass(frozen=True, slots=True)
class Paren:
    """Parentheses are kept, because R keeps them in the names of coefficients."""

    inner: Expr


@dataclass(frozen=True, slots=True)
class Unary:
    """`-x`, `+x` or `!x`."""

    op: str
    operand: Expr


@dataclass(frozen=True, slots=True)
class Binary:
    """`left op right`; `**` is stored as `^`."""

    op: str
    left: Expr
    right: Expr


@dataclass(frozen=True, slots=True)
class Call:
    """`function(arg, ..., name = value, ...)`."""

    function: str
    args: tuple[Expr, ...]
    keywords: tuple[tuple[str, Expr], ...] = ()


Expr = Number | Text | Truth | Name | Paren | Unary | Binary | Call

# Binding powers of R's operators, weakest first (?Syntax in R).
BINDING = {
    "~": 1,
    "|": 2,
    "||": 2,
    "&": 3,
    "&&": 3,
    "==": 5,
    "!=": 5,
    "<": 5,
    "<=": 5,
    ">": 5,
    ">=": 5,
    "+": 6,
    "-": 6,
    "*": 7,
    "/": 7,
    "%in%": 8,
    "%%": 8,
    "%/%": 8,
    ":": 9,
    "^": 11,
}
NOT_BINDING = 4
SIGN_BINDING = 10
TIGHT_OPERATORS = frozenset({"/", ":", "^", "%%", "%/%"})  # R deparses these without spaces

_SYNTACTIC_NAME = re.compile(r"(?:[^\W\d]|\.(?!\d))[\w.]*\Z")
_RESERVED = frozenset({"TRUE", "FALSE", "NULL", "True", "False", "None"})


def children(expr: Expr) -> tuple[Expr, ...]:
    """Return the direct subexpressions, in the order in which they are written."""
    if isinstance(expr, Binary):
        return (expr.left, expr.right)
    if isinstance(expr, Call):
        return expr.args + tuple(value for _, value in expr.keywords)
    if isinstance(expr, Unary):
        return (expr.operand,)
    if isinstance(expr, Paren):
        return (expr.inner,)
    return ()


def walk(expr: Expr) -> Iterator[Expr]:
    """Yield `expr` and all of its subexpressions, from left to right."""
    stack = [expr]
    while stack:
        node = stack.pop()
        yield node
        stack.extend(reversed(children(node)))


def names_in(expr: Expr) -> tuple[str, ...]:
    """Return the names that occur in `expr`, each once, in the order of first appearance."""
    return tuple(dict.fromkeys(node.id for node in walk(expr) if isinstance(node, Name)))


def strip_parens(expr: Expr) -> Expr:
    """Return `expr` without the parentheses around it."""
    while isinstance(expr, Paren):
        expr = expr.inner
    return expr


def deparse(expr: Expr, *, quote: bool = True) -> str:
    """Write `expr` as R's `deparse` does, so that it can be read again.

    Parameters
    ----------
    quote : whether names that need them have backticks.

    Examples
    --------
    >>> from mixlm_sparse.formula.parse import parse_expression
    >>> deparse(parse_expression("I( x**2+1 )"))
    'I(x^2 + 1)'
    """
    match expr:
        case Name(id):
            plain = not quote or (_SYNTACTIC_NAME.match(id) and id not in _RESERVED)
            return id if plain else f"`{id}`"
        case Number(value):
            return format_number(value)
        case Text(value):
            return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
        case Truth(value):
            return "NULL" if value is None else "TRUE" if value else "FALSE"
        case Paren(inner):
            return f"({deparse(inner, quote=quote)})"
        case Unary(op, operand):
            return op + deparse(operand, quote=quote)
        case Binary():
            # the left spine of a long sum is unrolled: recursion must not depend on its length
            pieces: list[str] = []
            while isinstance(expr, Binary):
                space = "" if expr.op in TIGHT_OPERATORS else " "
                pieces.append(f"{space}{expr.op}{space}{deparse(expr.right, quote=quote)}")
                expr = expr.left
            return deparse(expr, quote=quote) + "".join(reversed(pieces))
        case Call(function, args, keywords):
            written = [deparse(arg, quote=quote) for arg in args]
            written += [f"{name} = {deparse(value, quote=quote)}" for name, value in keywords]
            return f"{function}({', '.join(written)})"


def plain_text(*variables: Expr) -> str:
    """Return what a variable, or the interaction of several, is called in results: no backticks.

    Examples
    --------
    >>> plain_text(Name("day of study"), Name("f"))
    'day of study:f'
    """
    if len(variables) == 1 and isinstance(variables[0], Name):
        return variables[0].id
    return ":".join(deparse(variable, quote=False) for variable in variables)


def format_number(value: float) -> str:
    """Write a number as R does: 15 significant digits, fixed unless scientific is shorter.

    Examples
    --------
    >>> format_number(2.0), format_number(1e5), format_number(0.0001), format_number(0.25)
    ('2', '1e+05', '1e-04', '0.25')
    """
    if value != value:
        return "NaN"
    if value in (float("inf"), float("-inf")):
        return "Inf" if value > 0 else "-Inf"
    if value == 0:
        return "0"
    mantissa, exponent_text = f"{value:.14e}".split("e")
    mantissa, exponent = mantissa.rstrip("0").rstrip("."), int(exponent_text)
    digits = len(mantissa.replace("-", "").replace(".", ""))
    decimals = max(0, digits - 1 - exponent)
    fixed_width = max(exponent, 0) + 1 + (decimals + 1 if decimals else 0)
    scientific_width = digits + (digits > 1) + (4 if abs(exponent) < 100 else 5)
    if fixed_width <= scientific_width:
        return f"{value:.{decimals}f}"
    return f"{mantissa}e{exponent:+03d}"
