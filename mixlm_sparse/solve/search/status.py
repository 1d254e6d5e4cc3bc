"""How a search can end: each status is its text, its message and its advice."""

from __future__ import annotations

from enum import Enum


class Status(str, Enum):
    """Where a search ended.  A member is its own text: `status == "converged"`.

    Attributes
    ----------
    message : what it means; `{...}` are filled in by `Optimum`.
    advice : what to do about it; empty if nothing.
    certified : whether the point is known to be an optimum.
    """

    message: str
    advice: str
    certified: bool

    CONVERGED = "converged", "certified by the exact gradient", "", True
    SINGULAR = (
        "singular",
        "optimum on the boundary: {edge}",
        "the data do not support this many random effects: drop a term or a correlation, "
        "or keep the fit knowing that its variance estimate is zero",
        True,
    )
    PERFECT = (
        "perfect fit",
        "{why}: sigma is zero",
        "check the response and the fixed part; tests and intervals mean nothing here",
        True,
    )
    NO_RESIDUAL = (
        "no residual",
        "fixed and random effects together fit the response exactly: sigma is zero beside them",
        "variances and coefficients are those of the limit, in which sigma is held at a small "
        "value; if residuals were expected, use a coarser grouping factor or fewer effects",
        True,
    )
    LOCAL = (
        "local optimum",
        "certified by the exact gradient; elsewhere, though, the likelihood has no maximum: it "
        "grows without end as {edge}",
        "the estimates are those of the lowest optimum that was found besides: keep them if they "
        "are plausible, or, for a likelihood that has a maximum, {remedy}",
        True,
    )
    NO_MINIMUM = (
        "no minimum",
        "the likelihood has no maximum: it grows without end as {edge}",
        "these are values on the way, and mean nothing; {remedy}",
        False,
    )
    LIMIT = (
        "evaluation limit",
        "stopped after {evaluations} evaluations",
        "raise control.max_evaluations, or start from this theta",
        False,
    )
    NOT_CONVERGED = (
        "not converged",
        "a Newton step still predicts a decrease of {decrease:.2g}",
        "try another optimizer or start, rescale predictors, or simplify the random part",
        False,
    )
    SADDLE = (
        "saddle",
        "the gradient is zero, but the criterion falls from here in both directions",
        "start elsewhere, with start=",
        False,
    )
    INTERRUPTED = (
        "interrupted",
        "stopped after {evaluations} evaluations, at the best point so far",
        "go on from here with start=fit.theta",
        False,
    )

    def __new__(  # type: ignore[no-untyped-def]
        cls, text: str, message: str = "", advice: str = "", certified: bool = False
    ):
        """Return the member; `Status("converged")` finds it by its text."""
        self = str.__new__(cls, text)
        self._value_ = text
        self.message = message
        self.advice = advice
        self.certified = certified
        return self

    def __str__(self) -> str:
        return str.__str__(self)

    def __repr__(self) -> str:
        return str.__repr__(self)

    def __format__(self, spec: str) -> str:
        return str.__format__(self, spec)
