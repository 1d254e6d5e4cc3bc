"""Stateful transforms: what is learned from the data once, and the columns it gives on any rows.

The only module that imports patsy: its cubic regression splines and its contrast matrices are used
through their public protocols. States are plain frozen data, so that a fit can be copied and saved;
new rows give the columns that the same rows had in the fit.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray

from mixlm_sparse.common.errors import DataError, FormulaError
from mixlm_sparse.common.types import Matrix, Vector
from mixlm_sparse.design.arguments import Argument, flag_of, number_of, sequence_of, whole_of
from mixlm_sparse.design.finite import powers_within_range
from mixlm_sparse.design.moments import Moments, moments_of

__all__ = [
    "TRANSFORMS",
    "State",
    "helmert_matrix",
    "learn",
    "polynomial_matrix",
    "sum_matrix",
]

# Below this share of the spread a direction counts as spanned by the lower powers.
POLYNOMIAL_RANK_RTOL = 1e-12
# Knots closer than this share of their range are one but for rounding.
KNOTS_RTOL = 1e-12


def sum_matrix(size: int) -> Matrix:
    """Return R's `contr.sum`: (size, size - 1)."""
    return _patsy_matrix("Sum", size)


def helmert_matrix(size: int) -> Matrix:
    """Return R's `contr.helmert`: (size, size - 1)."""
    return _patsy_matrix("Helmert", size)


def polynomial_matrix(size: int) -> Matrix:
    """Return R's `contr.poly`: (size, size - 1), orthonormal."""
    return _patsy_matrix("Poly", size)


def _patsy_matrix(contrast: str, size: int) -> Matrix:
    import patsy  # few formulas need it

    coded = getattr(patsy, contrast)().code_without_intercept(list(range(size)))
    return np.ascontiguousarray(coded.matrix, dtype=np.float64)


@dataclass(frozen=True)
class ScaleState:
    """`(x - center) / spread`; either may be left out."""

    center: float | None
    spread: float | None

    def apply(self, x: Vector) -> NDArray[np.float64]:
        centered = x if self.center is None else x - self.center
        return centered if self.spread is None else centered / self.spread


@dataclass(frozen=True)
class PolyState:
    """Orthogonal polynomials by their three-term recurrence (R's `poly`), or raw powers.

    p_0 = 1, p_{j+1} = (x - alpha_j) p_j - (norm_j / norm_{j-1}) p_{j-1}, with norm_j = |p_j|^2 on
    the rows of the fit; column j is p_j / sqrt(norm_j).
    """

    degree: int
    alpha: tuple[float, ...] = ()
    norms: tuple[float, ...] = ()

    def apply(self, x: Vector) -> NDArray[np.float64]:
        columns = np.empty((x.size, self.degree))
        if not self.alpha:
            columns[:, 0] = x
            for j in range(1, self.degree):
                np.multiply(columns[:, j - 1], x, out=columns[:, j])
            return columns
        before, now = np.zeros(x.size), np.ones(x.size)
        for j, alpha in enumerate(self.alpha):
            ratio = self.norms[j] / self.norms[j - 1] if j else 0.0
            before, now = now, (x - alpha) * now - ratio * before
            columns[:, j] = now / np.sqrt(self.norms[j + 1])
        return columns


@dataclass(frozen=True)
class SplineState:
    """B-splines over a full sequence of knots, or natural splines (`constraint`).

    `constraint` (basis, k) maps the B-splines to the space whose second derivatives vanish at the
    boundary. Outside of the boundary a B-spline goes on as a polynomial and a natural spline as a
    straight line, as in R.
    """

    knots: tuple[float, ...]
    degree: int
    intercept: bool
    constraint: Matrix | None = field(default=None, compare=False)

    def apply(self, x: Vector) -> NDArray[np.float64]:
        knots = np.asarray(self.knots)
        size = knots.size - self.degree - 1
        spline = scipy.interpolate.BSpline(knots, np.eye(size), self.degree, extrapolate=True)
        if self.constraint is None:
            return np.asarray(spline(x)[:, 0 if self.intercept else 1 :])
        low, high = knots[0], knots[-1]
        inside = np.clip(x, low, high)
        basis = spline(inside)
        beyond = x - inside
        outside = np.flatnonzero(beyond)
        if outside.size:
            basis[outside] += beyond[outside, None] * spline(inside[outside], nu=1)
        return np.asarray(basis[:, 0 if self.intercept else 1 :] @ self.constraint)


@dataclass(frozen=True)
class CubicState:
    """patsy's natural cubic regression spline (mgcv's "cr"), parametrized by values at knots."""

    inner: tuple[float, ...]
    low: float
    high: float
    constraint: tuple[float, ...] | None

    def apply(self, x: Vector) -> NDArray[np.float64]:
        arguments = {
            "knots": list(self.inner),
            "lower_bound": self.low,
            "upper_bound": self.high,
            "constraints": None if self.constraint is None else np.asarray([self.constraint]),
        }
        import patsy  # few formulas need it

        # the documented attribute of a stateful transform: its class
        spline = patsy.cr.__patsy_stateful_transform__()
        spline.memorize_chunk(np.array([self.low, self.high]), **arguments)
        spline.memorize_finish()
        return np.asarray(spline.transform(x, **arguments), dtype=np.float64)


State = ScaleState | PolyState | SplineState | CubicState


def _learn_scale(x: Vector, arguments: dict[str, Argument], text: str) -> ScaleState:
    return _scale_of(moments_of(x), arguments, text)


def _scale_of(found: Moments, arguments: dict[str, Argument], text: str) -> ScaleState:
    center, spread = arguments.get("center", True), arguments.get("scale", True)
    mean = found.mean if center is True else None
    if center not in (True, False):
        mean = number_of("center", center, text)
    sd = None
    if spread is True:
        # R divides by n - 1, and takes the root mean square if it did not centre
        squares = found.squares_about(0.0 if mean is None else mean)
        sd = float(np.sqrt(squares / max(found.n - 1, 1)))
    elif spread is not False:
        sd = number_of("scale", spread, text)
    return _check_scale(ScaleState(mean, sd), text)


def _learn_standardize(x: Vector, arguments: dict[str, Argument], text: str) -> ScaleState:
    return _standardize_of(moments_of(x), arguments, text)


def _standardize_of(found: Moments, arguments: dict[str, Argument], text: str) -> ScaleState:
    ddof = whole_of("ddof", arguments.get("ddof", 0.0), text, 0)
    mean = found.mean if flag_of("center", arguments.get("center", True), text) else None
    rescale = flag_of("rescale", arguments.get("rescale", True), text)
    spread = None
    if rescale:
        spread = math.sqrt(found.squares / (found.n - ddof)) if found.n > ddof else math.nan
    return _check_scale(ScaleState(mean, spread), text)


def _check_scale(state: ScaleState, text: str) -> ScaleState:
    if state.spread is not None and not state.spread > 0:
        raise DataError(f"{text} divides by zero: the variable is constant; remove the term")
    return state


def _learn_center(x: Vector, arguments: dict[str, Argument], text: str) -> ScaleState:
    return _center_of(moments_of(x), arguments, text)


def _center_of(found: Moments, arguments: dict[str, Argument], text: str) -> ScaleState:
    return ScaleState(found.mean, None)


def _learn_poly(x: Vector, arguments: dict[str, Argument], text: str) -> PolyState:
    degree = whole_of("degree", arguments.get("degree", 1.0), text, 1)
    if flag_of("raw", arguments.get("raw", False), text):
        return PolyState(degree)
    before, now = np.zeros(x.size), np.ones(x.size)
    alpha: list[float] = []
    norms = [float(x.size)]
    shifted = x - x.mean()
    spread = float(np.sqrt(np.mean(shifted**2)))
    for j in range(degree):
        # alpha from centred x: years near 2000 must lose no digits
        alpha.append(float(np.dot(shifted, now**2) / norms[-1] + x.mean()))
        ratio = norms[j] / norms[j - 1] if j else 0.0
        before, now = now, (x - alpha[-1]) * now - ratio * before
        norms.append(float(np.dot(now, now)))
        if not norms[-1] > POLYNOMIAL_RANK_RTOL * norms[-2] * spread**2:
            raise DataError(
                f"the degree in {text} must be less than the number of distinct values: "
                f"use at most {j}"
                if j
                else f"{text} needs a variable that is not constant"
            )
    return PolyState(degree, tuple(alpha), tuple(norms))


def _learn_spline(x: Vector, arguments: dict[str, Argument], text: str, natural: bool) -> Any:
    degree = 3 if natural else whole_of("degree", arguments.get("degree", 3.0), text, 1)
    intercept = flag_of(
        "intercept", arguments.get("intercept", arguments.get("include_intercept", False)), text
    )
    low, high = float(x.min()), float(x.max())
    if arguments.get("Boundary.knots") is not None:
        boundary = sequence_of("Boundary.knots", arguments["Boundary.knots"], text)
        low, high = min(boundary), max(boundary)
    if arguments.get("lower_bound") is not None:
        low = number_of("lower_bound", arguments["lower_bound"], text)
    if arguments.get("upper_bound") is not None:
        high = number_of("upper_bound", arguments["upper_bound"], text)
    if not low < high:
        raise DataError(f"{text} needs a variable that is not constant")
    # columns of the basis without inner knots
    least = (1 if natural else degree) + intercept
    if arguments.get("knots") is not None:
        inner = tuple(sorted(sequence_of("knots", arguments["knots"], text)))
    elif arguments.get("df") is not None:
        count = whole_of("df", arguments["df"], text, 1) - least
        if count < 0:
            raise FormulaError(f"df in {text} is too small: use at least {least}")
        within = x[(x >= low) & (x <= high)]
        inner = tuple(np.quantile(within, np.linspace(0, 1, count + 2)[1:-1]).tolist())
    else:
        inner = ()
    if any(not low < knot < high for knot in inner):
        raise FormulaError(f"the knots of {text} must lie inside of {low:g} and {high:g}")
    knots = (low,) * (degree + 1) + inner + (high,) * (degree + 1)
    state = SplineState(knots, degree, intercept)
    if not natural:
        return state
    size = len(knots) - degree - 1
    spline = scipy.interpolate.BSpline(np.asarray(knots), np.eye(size), degree)
    curvature = spline(np.array([low, high]), nu=2)[:, 0 if intercept else 1 :]
    # the columns of Q past the first two span the null space of the two conditions
    orthogonal = np.linalg.qr(curvature.T, mode="complete")[0]
    return SplineState(knots, degree, intercept, np.ascontiguousarray(orthogonal[:, 2:]))


def _learn_bs(x: Vector, arguments: dict[str, Argument], text: str) -> Any:
    return _learn_spline(x, arguments, text, natural=False)


def _learn_ns(x: Vector, arguments: dict[str, Argument], text: str) -> Any:
    return _learn_spline(x, arguments, text, natural=True)


def _learn_cr(x: Vector, arguments: dict[str, Argument], text: str) -> CubicState:
    constraints = arguments.get("constraints")
    if constraints not in (None, "center"):
        raise FormulaError(f"the constraints in {text} can only be 'center'")
    low = number_of("lower_bound", arguments.get("lower_bound", float(x.min())), text)
    high = number_of("upper_bound", arguments.get("upper_bound", float(x.max())), text)
    if not low < high:
        raise DataError(f"{text} needs a variable that is not constant")
    if arguments.get("knots") is not None:
        inner = tuple(sorted(sequence_of("knots", arguments["knots"], text)))
    elif arguments.get("df") is not None:
        ends = 2 - (constraints is not None)
        count = whole_of("df", arguments["df"], text, 1) - ends
        if count < 1:
            raise FormulaError(f"df in {text} is too small: use at least {ends + 1}")
        distinct = np.unique(x[(x >= low) & (x <= high)])
        inner = tuple(np.quantile(distinct, np.linspace(0, 1, count + 2)[1:-1]).tolist())
    else:
        raise FormulaError(f"{text} needs df= or knots=")
    if any(not low < knot < high for knot in inner):
        raise FormulaError(f"the knots of {text} must lie inside of {low:g} and {high:g}")
    gaps = np.diff(np.unique([low, *inner, high]))
    if gaps.size < 2 or not gaps.min() > KNOTS_RTOL * (high - low):
        raise FormulaError(
            f"{text} needs a knot inside of {low:g} and {high:g}, and no two closer than rounding: "
            "use another df= or knots="
        )
    state = CubicState(inner, low, high, None)
    if constraints is None:
        return state
    return CubicState(inner, low, high, tuple(state.apply(x).mean(axis=0).tolist()))


@dataclass(frozen=True)
class Transform:
    """How one function learns, and the names of its arguments after the variable.

    `of_moments` learns from moments alone, where these will do.
    """

    learn: Callable[[Vector, dict[str, Argument], str], Any]
    parameters: tuple[str, ...]
    of_moments: Callable[[Moments, dict[str, Argument], str], Any] | None = None


_SPLINE = ("df", "knots", "degree", "intercept", "Boundary.knots")
_BOUNDS = ("lower_bound", "upper_bound")
TRANSFORMS = {
    "center": Transform(_learn_center, (), _center_of),
    "scale": Transform(_learn_scale, ("center", "scale"), _scale_of),
    "standardize": Transform(
        _learn_standardize, ("center", "rescale", "ddof"), _standardize_of
    ),
    "poly": Transform(_learn_poly, ("degree", "raw")),
    "bs": Transform(_learn_bs, (*_SPLINE, "include_intercept", *_BOUNDS)),
    "ns": Transform(_learn_ns, ("df", "knots", "intercept", "Boundary.knots", *_BOUNDS)),
    "cr": Transform(_learn_cr, ("df", "knots", *_BOUNDS, "constraints")),
}


def learn(
    function: str,
    x: Vector | Moments,
    positional: list[Argument],
    named: dict[str, Argument],
    text: str,
) -> State:
    """Learn the state of `function` from the rows `x` of a fit.

    Parameters
    ----------
    x : (n,) the variable; its moments will do for a function that has `of_moments`.
    positional, named : the other arguments.
    text : the call as the user wrote it, for messages.
    """
    transform = TRANSFORMS[function]
    parameters = transform.parameters
    if len(positional) > len(parameters):
        raise FormulaError(f"{text} has too many arguments: it takes {', '.join(parameters)}")
    arguments = dict(zip(parameters, positional, strict=False))
    for name, value in named.items():
        if name not in parameters:
            raise FormulaError(
                f"{text} has no argument '{name}': it takes {', '.join(parameters) or 'none'}"
            )
        if name in arguments:
            raise FormulaError(f"{text} has the argument '{name}' twice")
        arguments[name] = value
    if (x.n if isinstance(x, Moments) else x.size) == 0:
        raise DataError(f"{text} has no rows to learn from")
    state: State
    if isinstance(x, Moments):
        assert transform.of_moments is not None
        state = transform.of_moments(x, arguments, text)
    else:
        with powers_within_range(text):
            state = transform.learn(x, arguments, text)
    return state
