"""What tables of means do not show: what is named interacts with what is averaged over or held."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mixlm_sparse.common.checks import listed
from mixlm_sparse.formula.terms import names_of
from mixlm_sparse.inference.means.averages import Averages
from mixlm_sparse.inference.means.estimates import written
from mixlm_sparse.model.fitted import FittedModel

__all__ = ["cautions"]


def cautions(
    fit: FittedModel,
    names: Sequence[str],
    found: Averages,
    within: Mapping[str, Sequence[str]],
) -> tuple[str, ...]:
    """Return notes on interactions of predictors that a table names with those that it does not.

    Parameters
    ----------
    names : predictors of the table, and the one whose slopes it has.
    found : what is averaged over, and what is held.
    within : factors that lie within others: averages over their own levels are meant.
    """
    spec = fit.matrices.spec
    if spec is None:
        return ()
    terms = [set(names_of(term)) for term in spec.formula.fixed.terms]

    def partners(other: str) -> list[str]:
        """Return the names that interact with another predictor, in their order."""
        return [
            name
            for name in names
            if not {(other, name), (name, other)} & nested
            and any({name, other} <= term for term in terms)
        ]

    nested = {(inner, outer) for inner, own in within.items() for outer in own}
    out = []
    several = [*found.averaged_over, *(name for name, held in found.at.items() if len(held) > 1)]
    for other in several:
        if own := partners(other):
            verb = "interacts" if len(own) == 1 else "interact"
            out.append(f"{listed(own)} {verb} with {other}: averages over it may mislead")
    for other, held in found.at.items():
        if other in names:  # a slope is at a value of its own covariate
            continue
        if len(held) == 1 and (own := partners(other)):
            verb = "interacts" if len(own) == 1 else "interact"
            value = written(held[0])
            out.append(f"{listed(own)} {verb} with {other}: this is at {other} = {value} only")
    return tuple(out)
