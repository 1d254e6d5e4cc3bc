"""Algebra of model terms: what `+ - * / : ^ %in%` mean, and how lme4 expands random terms."""

from __future__ import annotations

from collections.abc import Iterator
from math import comb

from mixlm_sparse.common.errors import FormulaError
from mixlm_sparse.covariance.random import structure_key, structure_names
from mixlm_sparse.formula.limits import require_within
from mixlm_sparse.formula.syntax import (
    Binary,
    Call,
    Expr,
    Name,
    Number,
    Paren,
    Truth,
    Unary,
    deparse,
    strip_parens,
    walk,
)
from mixlm_sparse.formula.terms import FixedPart, RandomPart

__all__ = ["expand_fixed"]

MAX_PAIRS = 20
EXPANDS = "the formula expands to"


def expand_fixed(expr: Expr) -> tuple[FixedPart, tuple[RandomPart, ...]]:
    """Split the right side of a formula into its fixed part and its random terms."""
    expansion = _Expansion(random_allowed=True)
    fixed = expansion.run(expr)
    return fixed, tuple(expansion.random)


class _Expansion:
    """Expands one side into terms, each a set of bits over the variables (as R does)."""

    def __init__(self, *, random_allowed: bool) -> None:
        self.variables: dict[Expr, int] = {}
        self.offsets: list[Expr] = []
        self.random: list[RandomPart] = []
        self.random_allowed = random_allowed
        self.intercept = True
        self.missed: list[Expr] = []

    def run(self, expr: Expr) -> FixedPart:
        masks = [mask for mask in self.expand(expr, top=True) if mask]
        require_within(len(masks), "terms", "the formula has")
        masks.sort(key=int.bit_count)  # stable: by degree, then as written
        variables = list(self.variables)
        terms = tuple(tuple(variables[place] for place in _places(mask)) for mask in masks)
        return FixedPart(self.intercept, terms, tuple(self.offsets), tuple(self.missed))

    def expand(self, expr: Expr, *, top: bool = False) -> list[int]:
        """Return the terms of `expr`; 0 is the intercept. `top`: random terms may stand here."""
        if isinstance(expr, Binary) and expr.op in ("+", "-"):
            return self.expand_sum(expr, top)
        if isinstance(expr, Paren):
            inner = strip_parens(expr)
            if _is_bar(inner):
                return self.add_random(inner, "us", top)
            return self.expand(inner, top=top)
        if isinstance(expr, Unary) and expr.op in ("+", "-"):
            return self.expand_signed(expr.op, expr.operand, [], top)
        if isinstance(expr, Number):
            if expr.value not in (0.0, 1.0):
                raise FormulaError(
                    f"the number {deparse(expr)} is not a term: write 1 or 0 for the intercept, "
                    f"or I(...) for arithmetic"
                )
            self.intercept = expr.value == 1.0
            return [0] if self.intercept else []
        if isinstance(expr, Binary) and expr.op in ("*", ":", "/", "%in%", "^"):
            return self.expand_product(expr)
        if _is_bar(expr):
            raise FormulaError(f"put the random term in parentheses: write ({deparse(expr)})")
        if isinstance(expr, Call):
            if len(expr.args) == 1 and _is_bar(strip_parens(expr.args[0])):
                return self.add_structured(expr, top)
            if expr.function == "offset":
                return self.add_offset(expr, top)
        if isinstance(expr, Name) and expr.id == ".":
            raise FormulaError("'.' is not supported: write the columns out")
        if isinstance(expr, Binary) and expr.op == "~":
            raise FormulaError("the formula has more than one '~': remove one")
        if not isinstance(expr, Call) and not any(isinstance(node, Name) for node in walk(expr)):
            raise FormulaError(f"the term {deparse(expr)} names no column")
        return [1 << self.variables.setdefault(expr, len(self.variables))]

    def expand_sum(self, expr: Expr, top: bool) -> list[int]:
        # the left spine of a long sum is unrolled: recursion must not depend on its length
        pieces: list[tuple[str, Expr]] = []
        while isinstance(expr, Binary) and expr.op in ("+", "-"):
            pieces.append((expr.op, expr.right))
            expr = expr.left
        require_within(len(pieces), "terms", "the formula adds up")
        masks = dict.fromkeys(self.expand(expr, top=top))
        for op, piece in reversed(pieces):
            if op == "+":
                masks.update(dict.fromkeys(self.expand(piece, top=top)))
            else:
                masks = dict.fromkeys(self.expand_signed(op, piece, list(masks), top))
        return list(masks)

    def expand_signed(self, op: str, piece: Expr, masks: list[int], top: bool) -> list[int]:
        if op == "+":
            return masks + [mask for mask in self.expand(piece, top=top) if mask not in masks]
        bare = strip_parens(piece)
        if isinstance(bare, Number) and bare.value == 0.0:
            self.intercept = True
            return masks
        if any(_is_bar(node) for node in walk(bare)):
            raise FormulaError(f"a random term cannot be subtracted: - {deparse(piece)}")
        keep = self.intercept
        n_offsets = len(self.offsets)
        is_offset = isinstance(bare, Call) and bare.function == "offset"
        removed = set(self.expand(bare if is_offset else piece, top=is_offset and top))
        offsets = self.offsets[n_offsets:]
        # a product may name more than there is: a*b takes a away where there is no a:b
        terms = removed - {0}
        absent = any(offset not in self.offsets[:n_offsets] for offset in offsets)
        if absent or (terms and not terms & set(masks)):
            self.missed.append(bare)
        self.offsets = [offset for offset in self.offsets[:n_offsets] if offset not in offsets]
        self.intercept = keep and 0 not in removed
        return [mask for mask in masks if mask not in removed]

    def expand_product(self, expr: Binary) -> list[int]:
        if expr.op == "^":
            return self.expand_power(expr)
        left, right = self.expand(expr.left), self.expand(expr.right)
        if expr.op == ":":
            return self.cross(left, right)
        if expr.op == "*":
            return list(dict.fromkeys([*left, *right, *self.cross(left, right)]))
        if expr.op == "%in%":
            return self.cross(left, [_union(right)])
        return list(dict.fromkeys([*left, *self.cross([_union(left)], right)]))  # a/b

    def expand_power(self, expr: Binary) -> list[int]:
        power = strip_parens(expr.right)
        if not isinstance(power, Number) or power.value % 1 != 0 or power.value < 1:
            raise FormulaError(
                f"the power in {deparse(expr)} must be a whole number: "
                f"write I({deparse(expr)}) for arithmetic"
            )
        base = self.expand(expr.left)
        masks = base
        order = min(int(power.value), len(base))
        most = min(_combinations(len(base), order), 2 ** _union(base).bit_count() - 1)
        require_within(most, "terms", EXPANDS)
        for _ in range(order - 1):
            crossed = (a | b for a in masks for b in base)
            masks = list(dict.fromkeys([*masks, *crossed]))
        return masks

    def cross(self, left: list[int], right: list[int]) -> list[int]:
        # many pairs may be one term; they are formed while they are no more than a few of each
        require_within(len(left) * len(right) // MAX_PAIRS, "terms", EXPANDS)
        crossed = list(dict.fromkeys(a | b for a in left for b in right))
        require_within(len(crossed), "terms", EXPANDS)
        return crossed

    def add_offset(self, expr: Call, top: bool) -> list[int]:
        if len(expr.args) != 1 or expr.keywords:
            raise FormulaError(f"offset() takes one argument: {deparse(expr)}")
        if not top or not self.random_allowed:
            raise FormulaError(f"{deparse(expr)} must stand alone in the fixed part, after a +")
        self.offsets.append(expr.args[0])
        return []

    def add_structured(self, expr: Call, top: bool) -> list[int]:
        bar = strip_parens(expr.args[0])
        if expr.function not in structure_names():
            raise FormulaError(
                f"'{expr.function}' is not a covariance structure in {deparse(expr)}: "
                f"use one of {', '.join(structure_names())}"
            )
        if isinstance(bar, Binary) and bar.op == "||":
            raise FormulaError(f"write one bar in {deparse(expr)}: {expr.function}() says it all")
        arguments = {}
        for name, value in expr.keywords:
            if not isinstance(value, Truth) or value.value is None:
                raise FormulaError(
                    f"{name} = {deparse(value)} in {deparse(expr)} is not TRUE or FALSE"
                )
            arguments[name] = value.value
        return self.add_random(bar, structure_key(expr.function, arguments), top)

    def add_random(self, bar: Expr, structure: str, top: bool) -> list[int]:
        assert isinstance(bar, Binary)
        written = f"({deparse(bar)})"
        if not self.random_allowed:
            raise FormulaError(f"a random term cannot stand inside another one: {written}")
        if not top:
            raise FormulaError(
                f"the random term {written} must be added with +; it cannot be part of a product"
            )
        if _is_bar(bar.left):
            raise FormulaError(f"two bars in the random term {written}: remove one")
        groups = _count_groups(bar.right)
        what = "the random terms expand to"
        require_within(len(self.random) + groups, "random_terms", what)
        columns = _Expansion(random_allowed=False).run(bar.left)
        self.missed += columns.missed
        if bar.op == "||":
            pieces = len(columns.terms) + columns.intercept
            require_within(len(self.random) + groups * pieces, "random_terms", what)
        if not columns.intercept and not columns.terms:
            raise FormulaError(
                f"the random term {written} has no columns: write (1 | {deparse(bar.right)})"
            )
        for group in _expand_group(bar.right, written):
            if bar.op == "|":
                self.random.append(RandomPart(columns.intercept, columns.terms, group, structure))
                continue
            if columns.intercept:
                self.random.append(RandomPart(True, (), group, structure, True))
            for term in columns.terms:
                self.random.append(RandomPart(False, (term,), group, structure, True))
        return []


def _is_bar(expr: Expr) -> bool:
    return isinstance(expr, Binary) and expr.op in ("|", "||")


def _combinations(n: int, order: int) -> int:
    """Return how many terms of at most `order` variables out of n there are."""
    return sum(comb(n, k) for k in range(1, min(order, n) + 1))


def _count_groups(expr: Expr) -> int:
    """Return how many grouping factors an expression stands for, without expanding it."""
    expr = strip_parens(expr)
    if isinstance(expr, Binary) and expr.op in ("/", "*"):
        left, right = _count_groups(expr.left), _count_groups(expr.right)
        return left + right + (left * right if expr.op == "*" else 0)
    return 1


def _places(mask: int) -> Iterator[int]:
    while mask:
        lowest = mask & -mask
        yield lowest.bit_length() - 1
        mask ^= lowest


def _union(masks: list[int]) -> int:
    union = 0
    for mask in masks:
        union |= mask
    return union


def _expand_group(expr: Expr, written: str) -> list[Expr]:
    """Return the grouping factors in lme4's order: `a/b` is `b:a`, then `a`; `a*b` is a, b, a:b."""
    expr = strip_parens(expr)
    if isinstance(expr, Binary):
        if expr.op == "/":
            outer = _expand_group(expr.left, written)
            inner = _expand_group(expr.right, written)
            return [Binary(":", group, _nest(outer[0])) for group in inner] + outer
        if expr.op == "*":
            left, right = _expand_group(expr.left, written), _expand_group(expr.right, written)
            return left + right + [Binary(":", a, _nest(b)) for a in left for b in right]
        if expr.op == ":":
            return [expr]
        if expr.op == "+":
            names = deparse(expr.left), deparse(expr.right)
            raise FormulaError(
                f"'+' in the grouping factor of {written}: write one term for each factor, "
                f"(... | {names[0]}) + (... | {names[1]}), or {names[0]}:{names[1]} for "
                f"the combinations"
            )
        if expr.op in ("|", "||"):
            raise FormulaError(f"two bars in the random term {written}: remove one")
        raise FormulaError(
            f"'{expr.op}' in the grouping factor of {written}: compute the factor in the data frame"
        )
    if not isinstance(expr, Call) and not any(isinstance(node, Name) for node in walk(expr)):
        raise FormulaError(f"the grouping factor of {written} names no column")
    return [expr]


def _nest(group: Expr) -> Expr:
    return Paren(group) if isinstance(group, Binary) else group
