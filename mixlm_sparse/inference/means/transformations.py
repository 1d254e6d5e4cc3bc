"""Transformed responses: from the scale of the model, eta, back to that of the data, h(eta).

    estimate    h(eta)          standard error  |h'(eta)| se (delta method)     limits  h(limits)
    bias        h(eta) + s^2 h''(eta) / 2, with s the standard deviation of a row around eta: the
                mean of the data instead of (for a symmetric error) their median

Differences of logarithms are logarithms of ratios: exp of a contrast whose weights add up to zero
is a ratio of (geometric) means.

References
----------
Duan (1983), doi:10.1080/01621459.1983.10478017; Miller (1984), doi:10.1080/00031305.1984.10483193.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mixlm_sparse.common.errors import OptionError
from mixlm_sparse.common.types import Vector
from mixlm_sparse.formula.syntax import Binary, Call, Expr, Number, Paren, Unary, deparse
from mixlm_sparse.formula.syntax import strip_parens as bare

NAMED = ("log", "log2", "log10", "log1p", "sqrt", "exp", "inverse", "none")
STEP = 1e-4  # of numerical derivatives, relative


@dataclass(frozen=True, slots=True)
class Transformation:
    """What was done to the response.

    Parameters
    ----------
    name : for notes, "log" or "log(mu + 1)".
    kind : "log", eta = log(y + shift) / log_base; "power", eta = y^power; "exp", eta = exp(y).
    """

    name: str
    kind: str
    log_base: float = 1.0
    shift: float = 0.0
    power: float = 1.0

    @property
    def ratio(self) -> bool:
        """Whether differences are logarithms of ratios."""
        return self.kind == "log"

    def mean(self, eta: Vector, sd: float = 0.0) -> Vector:
        """Return h(eta), corrected for the spread `sd` of rows around eta; (r,).

        What no response can be transformed to (the root of a number is not negative) counts as the
        nearest that one can.
        """
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            if self.kind == "log":
                y = np.exp(self.log_base * eta)
                return np.asarray(y * (1.0 + 0.5 * (sd * self.log_base) ** 2) - self.shift)
            eta = np.maximum(eta, 0.0)
            if self.kind == "exp":
                return np.asarray(np.log(eta) - (0.5 * (sd / eta) ** 2 if sd else 0.0))
            q = 1.0 / self.power
            bend = q * (q - 1.0) * eta ** (q - 2.0) if sd else 0.0
            return np.asarray(eta**q + 0.5 * sd**2 * bend)

    def rate(self, eta: Vector, sd: float = 0.0) -> Vector:
        """Return the derivative of `mean` by eta, (r,)."""
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            if self.kind == "log":
                return self.log_base * (self.mean(eta, sd) + self.shift)
            if sd:
                step = STEP * np.abs(eta)
                return (self.mean(eta + step, sd) - self.mean(eta - step, sd)) / (2.0 * step)
            eta = np.maximum(eta, 0.0)
            if self.kind == "exp":
                return 1.0 / eta
            q = 1.0 / self.power
            return np.asarray(q * eta ** (q - 1.0))


_KNOWN = {
    "log": Transformation("log", "log"),
    "log2": Transformation("log2", "log", log_base=float(np.log(2.0))),
    "log10": Transformation("log10", "log", log_base=float(np.log(10.0))),
    "log1p": Transformation("log(mu + 1)", "log", shift=1.0),
    "sqrt": Transformation("sqrt", "power", power=0.5),
    "inverse": Transformation("inverse", "power", power=-1.0),
    "exp": Transformation("exp", "exp"),
}


def named_transformation(name: str) -> Transformation | None:
    """Return a transformation by the name of its function; None if it is not known."""
    return _KNOWN.get(name)


def transformation_of(response: Expr | None) -> Transformation | None:
    """Return how the response of a formula was transformed; None if it is a column.

    Raises
    ------
    OptionError : it is an expression that is not known here.
    """
    expr = _inside(response)
    found = None
    if isinstance(expr, Call):
        name, argument = expr.function.removeprefix("np."), _inside(expr.args[0])
        found = named_transformation(name) if len(expr.args) == 1 and not expr.keywords else None
        shift = _added(argument)
        if found is not None and shift is not None and name in ("log", "log2", "log10"):
            return Transformation(
                f"{name}(mu + {shift:g})", "log", log_base=found.log_base, shift=shift
            )
        if isinstance(argument, Binary | Call | Unary):
            found = None
    elif isinstance(expr, Binary):
        plain = not isinstance(_inside(expr.left), Binary | Call | Unary)
        power = _number(expr.right)
        if expr.op == "^" and power and plain:
            found = Transformation(f"power {power:g}", "power", power=power)
        elif expr.op == "/" and _number(expr.left) == 1.0:
            found = named_transformation("inverse")
    elif not isinstance(expr, Unary):
        return None
    if found is None and expr is not None:
        raise OptionError(
            f"it is not known how to go back from {deparse(expr)!r} to the scale of the data: "
            f"leave out type='response', or name the transformation with tran=, one of "
            f"{', '.join(NAMED)}"
        )
    return found


def _inside(expr: Expr | None) -> Expr | None:
    """Return an expression without parentheses and `I()`."""
    while expr is not None:
        inner = bare(expr)
        if isinstance(inner, Call) and inner.function == "I" and len(inner.args) == 1:
            inner = inner.args[0]
        if inner == expr:
            return expr
        expr = inner
    return None


def _added(expr: Expr | None) -> float | None:
    """Return the number that is added to a column, or None."""
    if not isinstance(expr, Binary) or expr.op not in ("+", "-"):
        return None
    left, right = _number(expr.left), _number(expr.right)
    if right is not None:
        return right if expr.op == "+" else -right
    return left if expr.op == "+" else None


def _number(expr: Expr | None) -> float | None:
    if isinstance(expr, Paren):
        return _number(expr.inner)
    if isinstance(expr, Number):
        return float(expr.value)
    if isinstance(expr, Unary) and expr.op == "-":
        inner = _number(expr.operand)
        return None if inner is None else -inner
    if isinstance(expr, Binary) and expr.op == "/":
        top, bottom = _number(expr.left), _number(expr.right)
        return top / bottom if top is not None and bottom else None
    return None
