"""Formulas of lme4: text to `MixedFormula`, nothing evaluated.

>>> formula = parse_formula("Reaction ~ Days + (Days | Subject)")
>>> formula.fixed.terms, str(formula.random[0])
(((Name(id='Days'),),), '(Days | Subject)')
"""

from __future__ import annotations

from functools import lru_cache

from mixlm_sparse.common.checks import require_bool, shown
from mixlm_sparse.common.errors import FormulaError
from mixlm_sparse.common.keywords import answers_unknown_keywords
from mixlm_sparse.formula.expand import expand_fixed
from mixlm_sparse.formula.grammar import parse_expression, read_expression
from mixlm_sparse.formula.syntax import Binary, Expr, Number, Unary, deparse, strip_parens, walk
from mixlm_sparse.formula.terms import (
    FixedPart,
    MixedFormula,
    RandomPart,
    Term,
)

__all__ = [
    "Expr",
    "FixedPart",
    "MixedFormula",
    "RandomPart",
    "Term",
    "deparse",
    "formula_text",
    "parse_expression",
    "parse_formula",
]


def formula_text(formula: object, example: str = "y ~ x + (1 | g)") -> str:
    """Return the text of a formula that was given as text, or read before.

    Raises
    ------
    FormulaError : it is neither.
    """
    if isinstance(formula, MixedFormula):
        return formula.text
    if not isinstance(formula, str):
        raise FormulaError(
            f"the formula is {shown(formula)}: the first argument is its text, such as '{example}'"
        )
    return formula


@answers_unknown_keywords
def parse_formula(
    text: str, *, require_response: bool = True, require_random: bool = True
) -> MixedFormula:
    """Read an lme4 formula.

    Parameters
    ----------
    text : for example ``"y ~ x * f + (x | g) + (1 | a/b)"``.
    require_response : whether a formula without a left side is an error; `predict` takes some.
    require_random : whether a formula without a random term is an error.

    Returns
    -------
    MixedFormula : the fixed part with its terms in R's order, and the random terms as written,
        with `a/b`, `a*b` and `||` expanded.

    Raises
    ------
    FormulaError : the text cannot be read, or asks for something that does not exist.

    Examples
    --------
    >>> [part.label for part in parse_formula("y ~ 1 + (1 | batch/cask)").random]
    ['cask:batch', 'batch']
    """
    require_response = require_bool("require_response", require_response)
    require_random = require_bool("require_random", require_random)
    return _parsed(formula_text(text), require_response, require_random)


@lru_cache(maxsize=512)
def _parsed(text: str, require_response: bool, require_random: bool) -> MixedFormula:
    tree = read_expression(text, what="formula")
    response, right = _sides(tree, text)
    if response is None and require_response:
        raise FormulaError(f"the formula '{text}' has no response: write 'y {text.strip()}'")
    fixed, random = expand_fixed(right)
    if require_random and not random:
        raise FormulaError(
            f"the formula '{text}' has no random term: add one such as (1 | group), "
            "or use mx.gls, for a linear model without"
        )
    return MixedFormula(text, response, fixed, random)


def _sides(tree: Expr, text: str) -> tuple[Expr | None, Expr]:
    tree = strip_parens(tree)
    if isinstance(tree, Unary) and tree.op == "~":
        return None, tree.operand
    if not (isinstance(tree, Binary) and tree.op == "~"):
        raise FormulaError(
            f"the formula '{text}' has no '~': write 'response ~ predictors + (1 | group)'"
        )
    response = strip_parens(tree.left)
    for node in walk(response):
        if isinstance(node, Binary) and node.op in ("~", "||"):
            raise FormulaError(f"'{node.op}' cannot stand left of the last '~': remove it")
    if isinstance(response, Number):
        raise FormulaError(f"the response {deparse(response)} names no column")
    return response, tree.right
