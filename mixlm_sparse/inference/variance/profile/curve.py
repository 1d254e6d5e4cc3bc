"""Profiles as data: zeta against the parameter, splines both ways, limits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import scipy
from scipy.special import ndtri

from mixlm_sparse.common.checks import listed, require_array, require_level, shown
from mixlm_sparse.common.errors import OptionError, UnknownKeyError
from mixlm_sparse.common.late import LatePlots
from mixlm_sparse.common.tables import PrintsAsTable, ResultTable, as_result, result_table
from mixlm_sparse.common.text import format_number, percent
from mixlm_sparse.common.types import Matrix, Vector
from mixlm_sparse.model.parameters import chosen_names


@dataclass(frozen=True, eq=False, slots=True, repr=False)
class ParameterProfile(PrintsAsTable):
    """The profile of one parameter.

    Parameters
    ----------
    kind : "sd", "cor", "sigma", "residual" or "beta".
    name : of the parameter.
    estimate : where zeta is zero; NaN for a correlation that the fit leaves undefined.
    values, zeta : (r,) points of the curve, both ascending;
        zeta = sign(value - estimate) sqrt(d(value) - d(estimate)).
    others : (r, parameters) all parameters at each point, the held one included.
    bounds : least and greatest value that the parameter can have.
    reached : whether the curve was followed to the end of its range on the left, on the right;
        False where the criterion does not rise enough before the bound.
    note : what stands out, in words; empty if nothing does.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> fit = mx.lmer("Yield ~ 1 + (1 | Batch)", mx.datasets.load("Dyestuff"))
    >>> sigma = fit.profile("sigma")["sigma"]
    >>> low, high, note = sigma.limits(0.95)
    >>> round(low, 2), round(high, 2)
    (38.23, 67.66)
    """

    kind: str
    name: str
    estimate: float
    values: Vector
    zeta: Vector
    others: Matrix
    bounds: tuple[float, float]
    reached: tuple[bool, bool]
    note: str = ""

    def to_frame(self) -> pd.DataFrame:
        """Return the points of the curve: value and zeta."""
        return pd.DataFrame({"value": self.values, "zeta": self.zeta})

    def _table(self) -> ResultTable:
        notes = [f"estimate {format_number(self.estimate)}"] + ([self.note] if self.note else [])
        return as_result(
            self.to_frame(), heading=f"Profile of {self.name}", notes=notes, uncounted=True
        )

    def forward(self, value: Vector | float) -> Vector:
        """Return zeta at parameter values, by a cubic spline; NaN outside of the curve."""
        at = require_array("value", value, "give values of the parameter")
        spline = self._spline()
        if spline is None:
            return np.full(at.shape, np.nan)
        inside = (at >= spline.x[0]) & (at <= spline.x[-1])
        return np.where(inside, spline(np.clip(at, spline.x[0], spline.x[-1])), np.nan)

    def backward(self, zeta: Vector | float) -> Vector:
        """Return parameter values at zeta, by inverting `forward`; NaN outside of the curve.

        The forward spline is inverted, not a second one fitted: near a standard deviation of zero
        zeta is flat, and its inverse like a square root, which no cubic follows.
        """
        at = require_array("zeta", zeta, "give numbers")
        spline = self._spline()
        out = np.full(at.shape, np.nan)
        if spline is None:
            return out
        knots = np.asarray(spline(spline.x))
        for place in np.ndindex(at.shape):
            target = float(at[place])
            if not knots[0] <= target <= knots[-1]:
                continue
            right = int(np.clip(np.searchsorted(knots, target), 1, knots.size - 1))
            out[place] = scipy.optimize.brentq(
                lambda c, target=target: float(spline(c)) - target,
                spline.x[right - 1],
                spline.x[right],
                xtol=1e-13 * max(abs(float(spline.x[right])), 1e-300),
            )
        return out

    def _spline(self) -> scipy.interpolate.PPoly | None:
        """Return zeta as a piecewise cubic of the parameter, rising; None without a curve."""
        keep = _rising(self.zeta) & np.concatenate([[True], np.diff(self.values) > 0.0])
        x, y = self.values[keep], self.zeta[keep]
        if x.size < 2:
            return None
        if x.size < 4:
            return scipy.interpolate.PchipInterpolator(x, y)
        # the criterion is even in a standard deviation: zeta comes in flat at zero
        even = self.bounds[0] == 0.0 and x[0] == 0.0 and y[0] < 0.0
        left: Any = (1, 0.0) if even else "not-a-knot"
        spline = scipy.interpolate.CubicSpline(x, y, bc_type=(left, "not-a-knot"))
        fine = np.linspace(x[0], x[-1], 20 * x.size)
        steep = (y[-1] - y[0]) / (x[-1] - x[0])
        rising = bool((spline(fine, 1) >= -1e-9 * steep).all())
        return spline if rising else scipy.interpolate.PchipInterpolator(x, y)

    def limits(self, level: float) -> tuple[float, float, str]:
        """Return lower and upper limit, and a note where one of them is a bound."""
        level = require_level("level", level)
        if not self.values.size:
            return self.bounds[0], self.bounds[1], self.note
        z = float(ndtri(0.5 + 0.5 * level))
        lower, upper = (float(v) for v in self.backward(np.array([-z, z])))
        notes = [self.note] if self.note else []
        if np.isnan(lower):
            lower, text = self._end("lower", 0)
            notes.append(text)
        if np.isnan(upper):
            upper, text = self._end("upper", 1)
            notes.append(text)
        return lower, upper, "; ".join(notes)

    def _end(self, side: str, at: int) -> tuple[float, str]:
        if self.reached[at]:
            raise OptionError(
                f"the profile of {self.name} does not reach this level: profile again with a "
                "larger level_max"
            )
        bound = self.bounds[at]
        return bound, f"{side} limit is the bound {bound:g}: the profile does not reach the level"


def _rising(zeta: Vector) -> np.ndarray:
    """Return which points are strictly above all earlier ones."""
    highest = np.concatenate([[-np.inf], np.maximum.accumulate(zeta)[:-1]])
    out: np.ndarray = zeta > highest + 1e-10
    return out


@dataclass(frozen=True, eq=False, slots=True, repr=False)
class Profile(PrintsAsTable, Mapping[str, ParameterProfile]):
    """Profiles of several parameters; a mapping from name to `ParameterProfile`.

    Parameters
    ----------
    curves : in the order of the parameters.
    parameters : names of all parameters, the columns of `to_frame`.
    level_max : largest level for which limits can be read off.
    reml : whether the REML criterion was profiled (lme4 profiles the ML deviance).
    n_evaluations : of the criterion with gradient.
    seconds : that it took.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> fit = mx.lmer("Yield ~ 1 + (1 | Batch)", mx.datasets.load("Dyestuff"))
    >>> profile = fit.profile()
    >>> profile.confint(parm="sigma").round(2)
           lower  upper note
    sigma  38.23  67.66
    >>> list(profile)
    ['sd_(Intercept)|Batch', 'sigma', '(Intercept)']
    """

    plot = LatePlots()

    curves: tuple[ParameterProfile, ...]
    parameters: tuple[str, ...]
    level_max: float
    reml: bool
    n_evaluations: int
    seconds: float

    def __getitem__(self, name: str) -> ParameterProfile:
        for curve in self.curves:
            if isinstance(name, str) and curve.name == name:
                return curve
        known = listed((curve.name for curve in self.curves), 12, quoted=True)
        raise UnknownKeyError(f"there is no profile of {shown(name)}: use one of {known}")

    def __iter__(self) -> Iterator[str]:
        return iter(curve.name for curve in self.curves)

    def __len__(self) -> int:
        return len(self.curves)

    def to_frame(self) -> pd.DataFrame:
        """Return all points, as lme4's `as.data.frame(profile(fit))`.

        Returns
        -------
        DataFrame with a column for each parameter of the model (their values where the criterion
        is least with the held one as it is), `.zeta`, `.focal` (value of the held parameter) and
        `.par` (its name).  Coefficients are NaN if the REML criterion was profiled.
        """
        frames = []
        for curve in self.curves:
            frame = pd.DataFrame(curve.others, columns=list(self.parameters))
            frame[".zeta"] = curve.zeta
            frame[".focal"] = curve.values
            frame[".par"] = curve.name
            frames.append(frame)
        return pd.concat(frames, ignore_index=True)

    @property
    def zeta(self) -> dict[str, pd.DataFrame]:
        """Per parameter, a DataFrame with columns value and zeta."""
        return {
            curve.name: pd.DataFrame({"value": curve.values, "zeta": curve.zeta})
            for curve in self.curves
        }

    @result_table()
    def confint(self, level: float = 0.95, parm: object = None) -> pd.DataFrame:
        """Return the limits where |zeta| is the normal quantile of the level.

        Parameters
        ----------
        level : coverage, at most `level_max`.
        parm : names of the parameters; None for all.

        Returns
        -------
        DataFrame with columns lower, upper, note, a row for each parameter.
        """
        level = require_level("level", level)
        if level > self.level_max + 1e-12:
            raise OptionError(
                f"level is {level}, but the profile goes up to {self.level_max}: profile again "
                f"with level_max={level}"
            )
        names = chosen_names(parm, {curve.name: curve.kind for curve in self.curves})
        limits = [self[name].limits(level) for name in names]
        out = pd.DataFrame(limits, index=names, columns=["lower", "upper", "note"])
        out.attrs["heading"] = f"{percent(level)} profile-likelihood intervals"
        return out

    def _table(self) -> ResultTable:
        what = "REML criterion" if self.reml else "ML deviance"
        level = min(0.95, self.level_max)
        limits = self.confint(level)
        points = [curve.values.size for curve in self.curves]
        table = pd.DataFrame(
            {
                "estimate": [curve.estimate for curve in self.curves],
                "lower": limits["lower"], "upper": limits["upper"], "points": points,
                "note": limits["note"],
            },
            index=list(self),
        )  # fmt: skip
        return as_result(
            table,
            heading=f"Profile of the {what}, up to level {self.level_max:g}",
            notes=[f"{percent(level)} intervals; {self.n_evaluations} evaluations"],
        )
