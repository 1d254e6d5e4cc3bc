"""What a formula says, read but not evaluated: fixed part, random terms, and their names."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

from mixlm_sparse.common.text import in_brackets
from mixlm_sparse.covariance.random import structure_class
from mixlm_sparse.formula.syntax import (
    Binary,
    Call,
    Expr,
    Name,
    deparse,
    plain_text,
    strip_parens,
    walk,
)

__all__ = [
    "FixedPart",
    "MixedFormula",
    "RandomPart",
    "Term",
    "group_labels",
    "names_of",
]

Term = tuple[Expr, ...]  # the variables of one term; several make an interaction


@dataclass(frozen=True)
class FixedPart:
    """Fixed effects: terms by degree of interaction, then as written, as R orders them.

    The variables within a term are ordered by first appearance in the formula.

    Attributes
    ----------
    missed : what was to be removed and is not there, such as `z` in `x - z`.
    """

    intercept: bool
    terms: tuple[Term, ...]
    offsets: tuple[Expr, ...] = ()
    missed: tuple[Expr, ...] = field(default=(), compare=False)

    def __str__(self) -> str:
        written = ["1" if self.intercept else "0"]
        written += [":".join(deparse(variable) for variable in term) for term in self.terms]
        written += [f"offset({deparse(offset)})" for offset in self.offsets]
        if self.intercept and len(written) > 1:
            written = written[1:]
        return " + ".join(written)


@dataclass(frozen=True)
class RandomPart:
    """One random term, `(columns | group)`.

    Attributes
    ----------
    intercept, terms : the columns, as in the fixed part.
    group : the grouping factor as an expression, an interaction for nested or crossed factors.
    structure : name of the covariance structure; "us" where the formula names none.
    from_double_bar : the term is a piece of `(... || group)`.
    """

    intercept: bool
    terms: tuple[Term, ...]
    group: Expr
    structure: str = "us"
    from_double_bar: bool = False

    @cached_property
    def components(self) -> tuple[Expr, ...]:
        """The factors whose observed combinations are the levels, as written."""
        return tuple(components_of(self.group))

    @cached_property
    def label(self) -> str:
        """The name of the grouping factor, without backticks: `Subject`, `gen:popu`."""
        return plain_text(self.group)

    @property
    def columns_text(self) -> str:
        """The left side of the bar, in canonical form."""
        return str(FixedPart(self.intercept, self.terms))

    def __str__(self) -> str:
        written = f"{self.columns_text} | {deparse(self.group)}"
        return structure_class(self.structure).written(written)


@dataclass(frozen=True, repr=False)
class MixedFormula:
    """An lme4 formula, read but not evaluated.

    Attributes
    ----------
    text : the formula as written.
    response : expression left of `~`, or None.
    fixed : fixed effects.
    random : random terms in the order in which they are written, nesting and `||` expanded.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> formula = mx.parse_formula("y ~ x + (x || a/b)")
    >>> print(formula)
    y ~ x + (1 | b:a) + (0 + x | b:a) + (1 | a) + (0 + x | a)
    >>> formula.names
    ('y', 'x', 'b', 'a')
    """

    text: str
    response: Expr | None
    fixed: FixedPart
    random: tuple[RandomPart, ...]

    def __repr__(self) -> str:
        return in_brackets(f"MixedFormula: {self.text}")

    def __hash__(self) -> int:
        return hash(self.text)

    def __str__(self) -> str:
        left = "" if self.response is None else deparse(self.response) + " "
        pieces = [str(self.fixed), *(str(part) for part in self.random)]
        return f"{left}~ {' + '.join(pieces)}"

    @cached_property
    def response_name(self) -> str:
        """The response as R writes it, `log(Reaction)`, without backticks; empty without one."""
        return "" if self.response is None else plain_text(self.response)

    @cached_property
    def expressions(self) -> tuple[Expr, ...]:
        """All expressions to be evaluated, each once: response, fixed, offsets, random, groups."""
        found: list[Expr] = [] if self.response is None else [self.response]
        found.extend(variable for term in self.fixed.terms for variable in term)
        found.extend(self.fixed.offsets)
        for part in self.random:
            found.extend(variable for term in part.terms for variable in term)
            found.extend(part.components)
        return tuple(dict.fromkeys(found))

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The columns that the formula names, each once."""
        return names_of(self.expressions)


def group_labels(random: tuple[RandomPart, ...]) -> list[str]:
    """Return what the grouping factor of each term is called: plain, but different if they are."""
    labels = [part.label for part in random]
    distinct = {(part.label, part.components) for part in random}
    if len(distinct) > len(set(labels)):  # a column is called `a:b` beside the groups a:b
        labels = [deparse(part.group) for part in random]
    return labels


def names_of(expressions: Iterable[Expr]) -> tuple[str, ...]:
    """Return the columns named in `expressions`; the second argument of `C()` is no column."""
    found: dict[str, None] = {}
    for expr in expressions:
        if isinstance(expr, Name):
            found[expr.id] = None
            continue
        ignored: set[int] = set()
        for node in walk(expr):
            if isinstance(node, Call) and node.function == "C":
                contrast = [*node.args[1:], *(value for _, value in node.keywords)]
                ignored.update(id(inner) for arg in contrast for inner in walk(arg))
            if isinstance(node, Name) and id(node) not in ignored:
                found[node.id] = None
    return tuple(found)


def components_of(group: Expr) -> list[Expr]:
    """Return the factors of `a:b:c`, in the order written."""
    found: list[Expr] = []
    stack = [group]
    while stack:
        expr = strip_parens(stack.pop())
        if isinstance(expr, Binary) and expr.op == ":":
            stack += [expr.right, expr.left]
        else:
            found.append(expr)
    return found
