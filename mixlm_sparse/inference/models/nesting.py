"""Whether the covariance structure of one model is a special case of another one's.

Structures of the same effects, or of the same residual groups, are compared by what they say of a
covariance; terms that are there or not are nested as they always are.  What is not known to be
nested is not: its likelihoods have no chi-squared.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from mixlm_sparse.covariance.correlation import Correlation
from mixlm_sparse.covariance.variance import VarianceFunction, VarIdent
from mixlm_sparse.design.matrices import RandomTerm
from mixlm_sparse.model.fitted import FittedModel

__all__ = ["Nesting", "nesting"]


class Nesting(Enum):
    """What a smaller model is to a larger one."""

    INSIDE = "a special case, with parameters inside of their ranges"
    BOUNDARY = "a special case, at the end of a parameter's range"
    NOT = "no special case"

    def __and__(self, other: Nesting) -> Nesting:
        """Return what both together are: the worse of the two."""
        order = list(Nesting)
        return order[max(order.index(self), order.index(other))]


# Structures of random effects, each with those that say the same and one thing more.
RANDOM: dict[str, tuple[str, ...]] = {
    "id": ("diag", "cs(hom = TRUE)", "ar1", "toep(hom = TRUE)"),
    "diag": ("us", "cs", "ar1(hom = FALSE)", "toep"),
    "cs(hom = TRUE)": ("cs", "toep(hom = TRUE)"),
    "ar1": ("ar1(hom = FALSE)", "toep(hom = TRUE)"),
    "toep(hom = TRUE)": ("toep",),
    "cs": ("toep",),
    "ar1(hom = FALSE)": ("toep",),
    "toep": ("us",),
}
# The same of residual correlations, by their names in files; "" is independence.
RESIDUAL: dict[str, tuple[str, ...]] = {
    "": ("cs", "ar1", "car1", "toep", "ante", "un", "exp", "gau"),
    "cs": ("toep", "un"),
    "ar1": ("toep", "ante", "un"),
    "car1": ("ar1", "ante", "un"),
    "toep": ("un",),
    "ante": ("un",),
}
AT_EDGE = ("car1", "exp", "gau")  # whose correlation is zero at the end of their range only
TIMELESS = ("", "cs")


def nesting(smaller: FittedModel, larger: FittedModel) -> Nesting:
    """Say whether the covariance of the smaller model is one of those of the larger model."""
    return _random(smaller, larger) & _residual(smaller, larger)


def _above(name: str, table: Mapping[str, tuple[str, ...]]) -> set[str]:
    """Return all structures that have this one as a special case, itself included."""
    found, new = {name}, [name]
    while new:
        for other in table.get(new.pop(), ()):
            if other not in found:
                found.add(other)
                new.append(other)
    return found


# -- random effects ------------------------------------------------------------------------------


def _random(smaller: FittedModel, larger: FittedModel) -> Nesting:
    """Compare structures of terms for the same effects; else terms as they are."""
    out = Nesting.INSIDE
    others = list(larger.matrices.terms)
    for term in smaller.matrices.terms:
        same = [
            other
            for other in others
            if _group(larger, other) == _group(smaller, term)
            and len(other.column_names) == len(term.column_names)
        ]
        if not same:
            continue
        own = _structure(term)
        exact = [other for other in same if _structure(other) == own]
        other = (exact or same)[0]
        others.remove(other)
        if _structure(other) not in _above(own, RANDOM):
            out &= Nesting.NOT
    return out


def _structure(term: RandomTerm) -> str:
    """Return the structure as `RANDOM` calls it: how a term is parameterized does not count."""
    return term.structure.removesuffix("(natural)")


def _group(fit: FittedModel, term: RandomTerm) -> str:
    return fit.matrices.factors[term.factor].label


# -- residuals -----------------------------------------------------------------------------------


def _residual(smaller: FittedModel, larger: FittedModel) -> Nesting:
    small, large = _structures(smaller), _structures(larger)
    out = _variances(small[1], large[1])
    first, second = small[0], large[0]
    if str(first) == str(second):
        return out
    intercepts = _intercepts_only(smaller, larger)
    if intercepts is not None and first is None and second is not None:
        # a random intercept is compound symmetry with a correlation that is not negative
        nested = second.columns("group") == (intercepts,) and second.name in _above("cs", RESIDUAL)
        return out & (Nesting.BOUNDARY if nested else Nesting.NOT)
    return out & _correlations(first, second)


def _structures(fit: FittedModel) -> tuple[Correlation | None, VarianceFunction | None]:
    state = fit.matrices.residuals
    return (None, None) if state is None else (state.correlation, state.variance)


def _intercepts_only(smaller: FittedModel, larger: FittedModel) -> str | None:
    """Return the group of a random intercept that is all random effects of the smaller model."""
    terms = smaller.matrices.terms
    if larger.matrices.terms or len(terms) != 1 or terms[0].column_names != ("(Intercept)",):
        return None
    return _group(smaller, terms[0])


def _correlations(small: Correlation | None, large: Correlation | None) -> Nesting:
    name, other = ("" if one is None else one.name for one in (small, large))
    if other not in _above(name, RESIDUAL) or large is None:
        return Nesting.NOT
    if small is None:
        return Nesting.BOUNDARY if other in AT_EDGE else Nesting.INSIDE
    same_group = small.columns("group") == large.columns("group")
    times = {one.columns("time") for one in (small, large) if one.name not in TIMELESS}
    by = set(small.columns("by")) <= set(large.columns("by"))
    same_times = len(times) <= 1 or "car1" in (name, other)
    return Nesting.INSIDE if same_group and same_times and by else Nesting.NOT


def _variances(small: VarianceFunction | None, large: VarianceFunction | None) -> Nesting:
    if small is None or str(small) == str(large):
        return Nesting.INSIDE
    both = isinstance(small, VarIdent) and isinstance(large, VarIdent)
    if both and large is not None and set(small.columns) <= set(large.columns):
        return Nesting.INSIDE
    return Nesting.NOT
