"""Reader of R's expression grammar: text to syntax tree, by precedence climbing."""

from __future__ import annotations

import re
from typing import NamedTuple, NoReturn

from mixlm_sparse.common.errors import FormulaError
from mixlm_sparse.formula.limits import require_within
from mixlm_sparse.formula.syntax import (
    BINDING,
    NOT_BINDING,
    SIGN_BINDING,
    Binary,
    Call,
    Expr,
    Name,
    Number,
    Paren,
    Text,
    Truth,
    Unary,
)

__all__ = ["parse_expression", "point_at", "read_expression"]

MAX_DEPTH = 80  # nested parentheses, calls and signs; keeps clear of Python's recursion limit
# Height of a tree other than of a sum of terms, such as a*b*c, for the same reason: whatever walks
# down an expression must not depend on how long it is.
MAX_HEIGHT = 250

_TOKEN = re.compile(
    r"""
    (?P<space>\s+)
  | (?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?L?)
  | (?P<name>(?:[^\W\d]|\.(?!\d))[\w.]*)
  | (?P<quoted>`[^`]*`)
  | (?P<string>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
  | (?P<op>\*\*|%in%|%%|%/%|\|\||&&|==|!=|<=|>=|[-+*/^:|&<>!~(),=])
    """,
    re.VERBOSE,
)
_CONSTANTS = {
    "TRUE": True,
    "True": True,
    "FALSE": False,
    "False": False,
    "NULL": None,
    "None": None,
}
_ESCAPES = {"n": "\n", "t": "\t", "\\": "\\", '"': '"', "'": "'"}


class Token(NamedTuple):
    """One word of the text, with the position where it begins."""

    kind: str
    text: str
    start: int


def point_at(text: str, position: int) -> str:
    """Return two lines: the text around `position`, and a caret under it."""
    flat = re.sub(r"\s", " ", text)
    first = max(0, position - 60)
    shown = ("..." if first else "") + flat[first : position + 40]
    return f"    {shown}\n    {' ' * (position - first + (3 if first else 0))}^"


def parse_expression(text: str) -> Expr:
    """Read one expression, such as `"Days > 1"`.

    Raises
    ------
    FormulaError : the text is not an expression; the message points at the place.
    """
    return read_expression(text, what="expression")


def read_expression(text: str, *, what: str) -> Expr:
    """Read `text` and call it `what` in messages."""
    if not isinstance(text, str):
        raise FormulaError(f"the {what} must be a string, not {type(text).__name__}")
    if not text.strip():
        raise FormulaError(f"the {what} is empty: write for example 'y ~ x + (1 | g)'")
    require_within(len(text), "characters", f"the {what} has")
    try:
        return _Reader(text, what).read()
    except RecursionError:  # where the caller has used up most of the stack
        raise FormulaError(f"the {what} is nested too deeply: simplify it") from None


class _Reader:
    """State of one reading: the tokens and how far we are."""

    def __init__(self, text: str, what: str) -> None:
        self.text = text
        self.what = what
        self.tokens = self._tokenize()
        self.at = 0
        self.depth = 0
        self.open: list[Token] = []
        self.heights: dict[int, tuple[int, Expr | None]] = {}

    def fail(self, message: str, position: int) -> NoReturn:
        raise FormulaError(
            f"cannot read the {self.what}: {message}\n{point_at(self.text, position)}"
        )

    def _tokenize(self) -> list[Token]:
        tokens = []
        position = 0
        while position < len(self.text):
            match = _TOKEN.match(self.text, position)
            if match is None:
                character = self.text[position]
                if character in "\"'`":
                    self.fail(f"the quotation mark {character} is not closed", position)
                remedy = _HASHES if character == "#" else _REMEDY
                self.fail(f"'{character}' has no meaning in a formula; {remedy}", position)
            kind = str(match.lastgroup)
            if kind != "space":
                tokens.append(Token(kind, match.group(), position))
            position = match.end()
        tokens.append(Token("end", "", len(self.text)))
        return tokens

    @property
    def token(self) -> Token:
        return self.tokens[self.at]

    def is_op(self, text: str) -> bool:
        return self.token.kind == "op" and self.token.text == text

    def read(self) -> Expr:
        expr = self.expression(0)
        token = self.token
        if token.kind != "end":
            if token.text == ")":
                self.fail("this ')' has no '(' before it: remove it or open one", token.start)
            if token.text == "=":
                self.fail("'=' names an argument of a function; to compare write '=='", token.start)
            if token.text == ",":
                self.fail("',' separates the arguments of a function only", token.start)
            self.fail(
                f"an operator such as + is missing before '{token.text}'; {_NAMES}", token.start
            )
        return expr

    def expression(self, minimum: int) -> Expr:
        left = self.operand()
        while self.token.kind == "op":
            token = self.token
            op = "^" if token.text == "**" else token.text
            binding = BINDING.get(op)
            if binding is None or binding < minimum:
                break
            if op == "~" and self.height(left) > MAX_HEIGHT:
                self.fail("the response is too long an expression: compute it in the data frame",
                          token.start)  # fmt: skip
            self.at += 1
            # only the power binds to the right: a^b^c is a^(b^c)
            right = self.expression(binding if op == "^" else binding + 1)
            height = 1 + max(self.height(left), self.height(right))
            left = Binary(op, left, right)
            self.grow(left, height, token, free=op in ("+", "-", "~", "|", "||"))
        return left

    def height(self, expr: Expr) -> int:
        return self.heights.get(id(expr), (0, None))[0]

    def grow(self, expr: Expr, height: int, token: Token, *, free: bool = False) -> None:
        """Note the height of a tree; sums of terms and what may hold them can be of any length."""
        if height > MAX_HEIGHT and not free:
            self.fail("too long an expression inside of one term: split it", token.start)
        self.heights[id(expr)] = (height, expr)  # kept alive, so that its id stays its own

    def operand(self) -> Expr:
        self.depth += 1
        token = self.token
        if self.depth > MAX_DEPTH:
            self.fail("nested too deeply: simplify the formula", token.start)
        self.at += 1
        expr = self._operand(token)
        self.depth -= 1
        return expr

    def _operand(self, token: Token) -> Expr:
        if token.kind == "number":
            return Number(float(token.text.rstrip("L")))
        if token.kind == "string":
            return Text(_unquote(token.text))
        if token.kind == "quoted":
            if len(token.text) == 2:
                self.fail("there is no name between the backticks", token.start)
            return Name(token.text[1:-1])
        if token.kind == "name":
            if self.is_op("("):
                return self.call(token)
            if token.text in _CONSTANTS:
                return Truth(_CONSTANTS[token.text])
            return Name(token.text)
        if token.kind == "op":
            if token.text == "(":
                self.open.append(token)
                inner = self.expression(0)
                self.close()
                return self.wrapped(Paren(inner), inner, token, free=True)
            if token.text in "+-":
                inner = self.expression(SIGN_BINDING)
                return self.wrapped(Unary(token.text, inner), inner, token, free=True)
            if token.text == "!":
                inner = self.expression(NOT_BINDING)
                return self.wrapped(Unary("!", inner), inner, token)
            if token.text == "~" and self.at == 1:
                return Unary("~", self.expression(BINDING["~"] + 1))
        return self.missing(token)

    def wrapped(self, outer: Expr, inner: Expr, token: Token, *, free: bool = False) -> Expr:
        self.grow(outer, self.height(inner) + 1, token, free=free)
        return outer

    def missing(self, token: Token) -> NoReturn:
        if token.kind == "end":
            if self.open:
                self.unclosed()
            self.fail("something is missing at the end", token.start)
        before = self.tokens[self.at - 2].text if self.at > 1 else ""
        if before == token.text == ":":
            self.fail("'::' names a package of R: write the function alone, as in poly(x, 2)",
                      token.start)  # fmt: skip
        where = f"between '{before}' and '{token.text}'" if before else f"before '{token.text}'"
        self.fail(f"a variable or number is missing {where}", token.start)

    def unclosed(self) -> NoReturn:
        self.fail("this '(' is not closed: add a ')'", self.open[-1].start)

    def close(self) -> None:
        if not self.is_op(")"):
            if self.token.kind == "end":
                self.unclosed()
            names = f"; {_NAMES}" if self.token.kind in ("name", "quoted") else ""
            self.fail(f"a ')' or an operator is missing before '{self.token.text}'{names}",
                      self.token.start)  # fmt: skip
        self.open.pop()
        self.at += 1

    def call(self, function: Token) -> Expr:
        self.open.append(self.token)
        self.at += 1
        args: list[Expr] = []
        keywords: dict[str, Expr] = {}
        while not self.is_op(")"):
            token = self.token
            following = self.tokens[min(self.at + 1, len(self.tokens) - 1)]
            if token.kind in ("name", "quoted") and following[:2] == ("op", "="):
                self.at += 2
                name = token.text.strip("`")
                if name in keywords:
                    self.fail(f"the argument '{name}' is given twice", token.start)
                keywords[name] = self.expression(BINDING["~"] + 1)
            else:
                if keywords:
                    self.fail("an argument without a name follows one with a name: "
                              "put it first", token.start)  # fmt: skip
                args.append(self.expression(BINDING["~"] + 1))
            if not self.is_op(","):
                break
            self.at += 1
            if self.is_op(")"):
                self.fail("an argument is missing after ','", self.token.start)
        self.close()
        if function.text == "Q" and len(args) == 1 and isinstance(args[0], Text) and not keywords:
            return Name(args[0].value)  # patsy's way to quote an odd column name
        call = Call(function.text, tuple(args), tuple(keywords.items()))
        inner = [*args, *keywords.values()]
        # offset(), and a structure around a random term, hold what a sum may hold
        self.grow(call, 1 + max(map(self.height, inner), default=0), function)
        return call


def _unquote(text: str) -> str:
    return re.sub(r"\\(.)", lambda match: _ESCAPES.get(match[1], match[1]), text[1:-1])


_HASHES = "for Stata's ## write *, for # write :, and factor(x) for i.x"
_REMEDY = (
    "put the name of a column that has it between backticks, or compute the column in the data "
    "frame and use its name"
)
_NAMES = "put names with spaces or other odd characters between backticks"
