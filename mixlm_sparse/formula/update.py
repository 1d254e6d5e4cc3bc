"""R's dot notation: a formula that says what to change in another one.

>>> updated_formula("y ~ x + (x | g)", ". ~ . + I(x^2)")
'y ~ x + (x | g) + I(x^2)'
>>> updated_formula("y ~ x + (x | g)", "log(.) ~ . - (x | g) + (1 | g)")
'log(y) ~ x + (1 | g)'
"""

from __future__ import annotations

from dataclasses import replace

from mixlm_sparse.common.checks import listed
from mixlm_sparse.common.errors import FormulaError
from mixlm_sparse.formula.expand import expand_fixed
from mixlm_sparse.formula.grammar import read_expression
from mixlm_sparse.formula.limits import require_within
from mixlm_sparse.formula.syntax import (
    Binary,
    Call,
    Expr,
    Name,
    Number,
    Paren,
    Unary,
    deparse,
    strip_parens,
    walk,
)

_Piece = tuple[str, Expr]  # a summand with its sign


def updated_formula(old: str, change: str) -> str:
    """Return `change` with every dot replaced by the matching side of `old`.

    Parameters
    ----------
    old : the formula of a fit.
    change : a formula; `.` stands for what was there.  Terms are removed by `-`, random terms as
        they were written: ``". ~ . - (Days | Subject) + (1 | Subject)"``.  Without a left side the
        response stays.

    Raises
    ------
    FormulaError : a term to be removed is not in the old formula.
    """
    old_left, old_right = _sides(read_expression(old, what="formula"))
    new_left, new_right = _sides(read_expression(change, what="formula"))
    if new_left is None:
        left = old_left
    else:
        if old_left is None and _has_dot(new_left):
            raise FormulaError(f"the formula '{old}' has no response that '.' could stand for")
        left = new_left if old_left is None else _substitute(new_left, old_left)
    pieces = _combine(_pieces(old_right), _pieces(new_right))
    require_within(len(pieces), "terms", "the changed formula adds up")
    pieces = _without_cancelled(pieces)
    _require_there(pieces, {_key(piece) for op, piece in _pieces(new_right) if op == "-"})
    right = _write(pieces)
    return f"~ {right}" if left is None else f"{deparse(left)} ~ {right}"


def _sides(tree: Expr) -> tuple[Expr | None, Expr]:
    tree = strip_parens(tree)
    if isinstance(tree, Unary) and tree.op == "~":
        return None, tree.operand
    if isinstance(tree, Binary) and tree.op == "~":
        return tree.left, tree.right
    raise FormulaError("the formula has no '~': write for example '. ~ . + x'")


def _pieces(expr: Expr) -> list[_Piece]:
    """Split a sum into its signed summands, from left to right."""
    out: list[_Piece] = []
    while isinstance(expr, Binary) and expr.op in ("+", "-"):
        out.append((expr.op, expr.right))
        expr = expr.left
    if isinstance(expr, Unary) and expr.op in ("+", "-"):
        out.append((expr.op, expr.operand))
    else:
        out.append(("+", expr))
    out.reverse()
    return out


def _combine(old: list[_Piece], new: list[_Piece]) -> list[_Piece]:
    out: list[_Piece] = []
    for op, piece in new:
        require_within(len(out), "terms", "the changed formula adds up")
        if _is_dot(piece):
            if op == "-":
                raise FormulaError("'- .' would remove the whole formula: write the terms to keep")
            out.extend(old)
        elif op == "-" and _is_random(piece):
            out = _without_random(out, piece)
        elif _has_dot(piece):
            # a dot inside a product stands for the fixed part; random terms stay beside it
            fixed = [p for p in old if not _is_random(p[1])]
            whole = _sum(fixed)
            out.append((op, _substitute(piece, Paren(whole) if len(fixed) > 1 else whole)))
            out.extend(p for p in old if _is_random(p[1]))
        else:
            out.append((op, piece))
    return out


def _require_there(pieces: list[_Piece], removed: set[str]) -> None:
    """Raise a FormulaError if the fixed part has none of the terms of what is to be removed."""
    fixed = expand_fixed(_sum([own for own in pieces if not _is_random(own[1])]))[0]
    missed = next((expr for expr in fixed.missed if _key(expr) in removed), None)
    if missed is not None:
        terms = [":".join(map(deparse, term)) for term in fixed.terms]
        offsets = [f"offset({deparse(offset)})" for offset in fixed.offsets]
        raise FormulaError(
            f"the term {deparse(missed)} is not in the formula, so it cannot be removed; its fixed "
            f"terms: {listed([*terms, *offsets], 12)}"
        )


def _without_random(pieces: list[_Piece], piece: Expr) -> list[_Piece]:
    key = _key(piece)
    left = [p for p in pieces if not (_is_random(p[1]) and _key(p[1]) == key)]
    if len(left) == len(pieces):
        left = _without_part(pieces, piece)
    if left == pieces:
        there = ", ".join(_written(p[1]) for p in pieces if _is_random(p[1])) or "none"
        raise FormulaError(
            f"the random term {_written(piece)} is not in the formula, so it cannot be removed; "
            f"its random terms, as they must be written: {there}"
        )
    return left


def _without_part(pieces: list[_Piece], piece: Expr) -> list[_Piece]:
    """Take a term out of what `(... || g)` or `(... | a/b)` stands for; all pieces if none has it.

    The rest of such a term is written out.
    """
    removed = _parts(piece)
    for place, (_, other) in enumerate(pieces):
        if _is_random(other):
            parts = _parts(other)
            if removed and all(part in parts for part in removed):
                rest = [part for part in parts if part not in removed]
                written = [("+", read_expression(part, what="formula")) for part in rest]
                return [*pieces[:place], *written, *pieces[place + 1 :]]
    return pieces


def _parts(piece: Expr) -> list[str]:
    """Return the random terms that one stands for, in canonical form."""
    bar = strip_parens(piece)
    return [str(part) for part in expand_fixed(bar if isinstance(bar, Call) else Paren(bar))[1]]


def _without_cancelled(pieces: list[_Piece]) -> list[_Piece]:
    """Drop `x` and `- x` together where the formula stays the same, which keeps it readable."""
    products = ("*", "/", "^", "%in%")
    if any(
        isinstance(node, Binary) and node.op in products
        for _, piece in pieces
        if not _is_random(piece) and not isinstance(strip_parens(piece), Call)
        for node in walk(piece)
    ):
        return pieces
    out: dict[tuple[str, str], _Piece] = {}  # by sign and key, in order
    for op, piece in pieces:
        key = _key(piece)
        if op == "-" and ("+", key) in out and not isinstance(strip_parens(piece), Number):
            del out["+", key]
        elif (op, key) not in out:
            out[op, key] = (op, piece)
    return list(out.values())


def _substitute(expr: Expr, value: Expr) -> Expr:
    if _is_dot(expr):
        return value
    if isinstance(expr, Paren):
        return Paren(_substitute(expr.inner, value))
    if isinstance(expr, Unary):
        return replace(expr, operand=_substitute(expr.operand, value))
    if isinstance(expr, Binary):
        return replace(
            expr, left=_substitute(expr.left, value), right=_substitute(expr.right, value)
        )
    if isinstance(expr, Call):
        return replace(
            expr,
            args=tuple(_substitute(a, value) for a in expr.args),
            keywords=tuple((k, _substitute(v, value)) for k, v in expr.keywords),
        )
    return expr


def _sum(pieces: list[_Piece]) -> Expr:
    out: Expr | None = None
    for op, piece in pieces:
        if out is None:
            out = piece if op == "+" else Binary("-", Number(1.0), piece)
        else:
            out = Binary(op, out, piece)
    return Number(1.0) if out is None else out


def _write(pieces: list[_Piece]) -> str:
    text = ""
    for op, piece in pieces:
        written = _written(piece)
        if not text:
            text = written if op == "+" else f"1 - {written}"
        else:
            text += f" {op} {written}"
    if all(_is_random(piece) for _, piece in pieces):
        return f"1 + {text}" if text else "1"  # the intercept that is left, as R would write it
    return text


def _written(piece: Expr) -> str:
    text = deparse(piece)
    return f"({text})" if isinstance(piece, Binary) and piece.op in ("|", "||") else text


def _key(piece: Expr) -> str:
    return deparse(strip_parens(piece))


def _is_dot(expr: Expr) -> bool:
    return isinstance(expr, Name) and expr.id == "."


def _has_dot(expr: Expr) -> bool:
    return any(_is_dot(node) for node in walk(expr))


def _is_random(piece: Expr) -> bool:
    bare = strip_parens(piece)
    if isinstance(bare, Call) and len(bare.args) == 1:
        bare = strip_parens(bare.args[0])
    return isinstance(bare, Binary) and bare.op in ("|", "||")
