"""How large a formula may be: a formula may come from a web form, and text is cheap to write.

Everything is checked before it is expanded.  A program that needs more says so once:

    from mixlm_sparse.formula.limits import LIMITS
    LIMITS.terms = 10_000
"""

from __future__ import annotations

from dataclasses import dataclass

from mixlm_sparse.common.errors import FormulaError

__all__ = ["LIMITS", "Limits", "require_within"]


@dataclass(slots=True)
class Limits:
    """Largest sizes of a formula and of what it expands to.

    Attributes
    ----------
    characters : of the text.
    terms : of the fixed part, and left of a bar, after `*`, `/` and `^` are expanded.
    random_terms : after `/`, `*` and `||` are expanded.
    columns : of the fixed part or of one random term.
    basis_columns : of one call of poly(), bs(), ns() or cr().
    """

    characters: int = 100_000
    terms: int = 5_000
    random_terms: int = 200
    columns: int = 20_000
    basis_columns: int = 1_000


LIMITS = Limits()


def require_within(count: int, limit: str, what: str) -> None:
    """Refuse `count` of `what` above the limit of that name.

    Raises
    ------
    FormulaError : says the limit, and how to raise it.
    """
    most = getattr(LIMITS, limit)
    if count > most:
        shown = f"{count:,}" if count < 10**15 else "more than 10^15"
        raise FormulaError(
            f"{what} {shown} {limit.replace('_', ' ')}, and the limit is {most:,}: simplify it, or "
            f"set mixlm_sparse.formula.limits.LIMITS.{limit} before"
        )
