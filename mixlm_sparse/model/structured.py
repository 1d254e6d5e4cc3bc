"""What fits with a residual structure, or without random effects, do not answer, said clearly."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mixlm_sparse.common.errors import OptionError

if TYPE_CHECKING:
    from mixlm_sparse.model.base import FitBase

__all__ = ["require_independent", "require_random_effects", "require_unrelated"]


def require_independent(fit: FitBase, what: str, instead: str = "") -> None:
    """Raise an OptionError where the residuals have a structure.

    Parameters
    ----------
    what : what was asked for, as the user wrote it.
    instead : what to do.
    """
    if fit.matrices.law is None:
        return
    remedy = instead or "fit without residual= and variance= for it"
    raise OptionError(
        f"{what} is not available for a fit with a residual structure, whose rows are not "
        f"independent: {remedy}"
    )


def require_unrelated(fit: FitBase, what: str, instead: str) -> None:
    """Raise an OptionError where the levels of a grouping factor have a known covariance.

    Parameters
    ----------
    what : what was asked for, as the user wrote it.
    instead : what to do.
    """
    for factor in fit.matrices.factors:
        if factor.known is not None:
            raise OptionError(
                f"{what} works group by group, and the levels of '{factor.label}' are related by "
                f"known=: {instead}"
            )


def require_random_effects(fit: FitBase, what: str) -> None:
    """Raise an OptionError where the model has no random effects."""
    if not fit.matrices.terms:
        raise OptionError(
            f"{what} is about random effects, and this model has none: fit with lmer and a term "
            "such as (1 | group)"
        )
