"""Profiles of the likelihood and bootstrap distributions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy

from mixlm_sparse.common.errors import OptionError
from mixlm_sparse.common.keywords import answers_unknown_keywords
from mixlm_sparse.common.text import percent
from mixlm_sparse.common.types import Vector
from mixlm_sparse.model.fitted import FittedModel
from mixlm_sparse.report.plots import canvas
from mixlm_sparse.report.plots.backend import new_figure, styled
from mixlm_sparse.report.plots.data import chosen_parameters, z_value
from mixlm_sparse.report.plots.inks import ink

if TYPE_CHECKING:
    from mixlm_sparse.report.plots.backend import Axes, Figure

LEVELS = (0.5, 0.8, 0.95, 0.99)
NOT_PARAMETERS = (".zeta", ".par", ".focal")
# Phase angles of 0 and pi are the ends of a contour that has shrunken to a line.
LEAST_ANGLE = 1e-3


def _interpolated(x: Vector, y: Vector, at: Vector) -> Vector:
    """Return y at x = at, monotone between the points; NaN beyond them."""
    out: Vector = scipy.interpolate.PchipInterpolator(x, y, extrapolate=False)(at)
    return out


@dataclass(frozen=True, eq=False, slots=True)
class Curve:
    """The profile of one parameter: value, zeta (both rising) and what the others do."""

    name: str
    value: Vector
    zeta: Vector
    table: pd.DataFrame

    @property
    def estimate(self) -> float:
        """The value where zeta is zero."""
        return float(self.backward(np.zeros(1))[0])

    def forward(self, value: Vector) -> Vector:
        """Return zeta at values; beyond the profile NaN."""
        return _interpolated(self.value, self.zeta, value)

    def backward(self, zeta: Vector) -> Vector:
        """Return values at zeta; beyond the profile NaN."""
        return _interpolated(self.zeta, self.value, zeta)


def _curves(profile: Any, parm: str | Sequence[str] | None) -> list[Curve]:
    """Return the curves of a profile, of the frame that it makes, or of a fit that is profiled."""
    if isinstance(profile, FittedModel):
        method: Any = profile
        profile = method.profile()
    frame: pd.DataFrame = profile if isinstance(profile, pd.DataFrame) else profile.to_frame()
    held = frame[".par"].astype(str)
    kinds = {curve.name: curve.kind for curve in getattr(profile, "curves", ())}
    names = chosen_parameters(parm, {name: kinds.get(name, "") for name in dict.fromkeys(held)})
    out = []
    for name in names:
        rows = frame[held == name]
        value, zeta = rows[name].to_numpy(float), rows[".zeta"].to_numpy(float)
        known = np.isfinite(value) & np.isfinite(zeta)
        order = np.argsort(value[known], kind="stable")
        table = rows[known].iloc[order]
        value, zeta = value[known][order], zeta[known][order]
        rising = np.concatenate([[True], np.diff(np.maximum.accumulate(zeta)) > 1e-10])
        rising &= np.concatenate([[True], np.diff(value) > 0.0])
        if rising.sum() < 3:
            continue  # a correlation that the data leave undefined
        columns = [c for c in frame.columns if c not in NOT_PARAMETERS]
        out.append(Curve(name, value[rising], zeta[rising], table.loc[rising, columns]))
    if not out:
        raise OptionError("none of the profiles has three points: there is nothing to draw")
    return out


def _panels_for(
    ax: Axes | None, curves: list[Curve], size: tuple[float, float]
) -> tuple[Figure, list[Axes]]:
    canvas.one_panel_only(ax, len(curves), "parm", [c.name for c in curves])
    if ax is not None:
        figure, only = canvas.panel(ax)
        return figure, [only]
    return canvas.panels(len(curves), columns=3, size=size)


@answers_unknown_keywords
@styled
def profile_zeta(
    profile: Any,
    parm: str | Sequence[str] | None = None,
    *,
    levels: Sequence[float] = LEVELS,
    absolute: bool = False,
    ax: Axes | None = None,
) -> Figure:
    """Draw the signed root of the rise of the deviance against each parameter.

    A straight line means that the Wald interval is right; the horizontal bars are the profile
    intervals.

    Parameters
    ----------
    profile : from `fit.profile()`; a fit is profiled first.
    parm : names of parameters, "theta_" or "beta_"; by default all.
    levels : of the intervals marked.
    absolute : draw |zeta|, a V.
    ax : one panel to draw in; needs a single `parm` if there are several.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> profile = mx.lmer("Yield ~ 1 + (1 | Batch)", mx.datasets.load("Dyestuff")).profile()
    >>> figure = profile.plot()
    >>> len(figure.axes)
    3
    """
    z = [z_value(level) for level in levels]
    curves = _curves(profile, parm)
    figure, axes = _panels_for(ax, curves, (3.1, 2.7))
    for curve, one in zip(curves, axes, strict=True):
        at = np.linspace(curve.value[0], curve.value[-1], 200)
        line = curve.forward(at)
        one.plot(at, np.abs(line) if absolute else line, color=ink().blue)
        for height in z:
            ends = curve.backward(np.array([-height, height]))
            for end, sign in zip(ends.tolist(), (-1.0, 1.0), strict=True):
                if np.isfinite(end):
                    top = height if absolute else sign * height
                    one.plot([end, end], [0.0, top], color=ink().orange, lw=1.0)
        one.axhline(0.0, color=ink().front, lw=0.8)
        one.set_title(curve.name)
        one.locator_params(axis="x", nbins=5)
        one.set_ylabel("|ζ|" if absolute else "ζ")
    if ax is None:
        shown = ", ".join(percent(level) for level in levels)
        gap = " " if len(curves) > 1 else "\n"
        figure.suptitle(f"profile ζ; vertical lines end the{gap}{shown} intervals", fontsize=8.5)
    return figure


@answers_unknown_keywords
@styled
def profile_density(
    profile: Any,
    parm: str | Sequence[str] | None = None,
    *,
    level: float = 0.95,
    ax: Axes | None = None,
) -> Figure:
    """Draw the density that each parameter would have if zeta were standard normal.

    Parameters
    ----------
    profile : from `fit.profile()`; a fit is profiled first.
    parm : names of parameters, "theta_" or "beta_"; by default all.
    level : of the interval that is shaded.
    ax : one panel to draw in; needs a single `parm` if there are several.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> profile = mx.lmer("Yield ~ 1 + (1 | Batch)", mx.datasets.load("Dyestuff")).profile()
    >>> figure = profile.plot.density("sigma")
    >>> len(figure.axes)
    1
    """
    z = z_value(level)
    curves = _curves(profile, parm)
    figure, axes = _panels_for(ax, curves, (3.1, 2.5))
    for curve, one in zip(curves, axes, strict=True):
        at = np.linspace(curve.value[0], curve.value[-1], 400)
        spline = scipy.interpolate.PchipInterpolator(curve.value, curve.zeta)
        zeta = spline(at)
        slope = scipy.interpolate.PchipInterpolator(curve.value, _slopes(curve))(at)
        density = np.exp(-0.5 * zeta**2) / np.sqrt(2.0 * np.pi) * slope
        inside = np.abs(zeta) <= z
        one.plot(at, density, color=ink().blue)
        one.fill_between(at, 0.0, density, where=inside, color=ink().blue, linewidth=0,
                         alpha=0.2 * ink().veil)  # fmt: skip
        one.axvline(curve.estimate, color=ink().front, lw=0.9)
        one.set_ylim(bottom=0.0)
        one.set_title(curve.name)
        one.locator_params(axis="x", nbins=5)
        one.set_ylabel("density")
    if ax is None:
        figure.suptitle(f"profile densities, {percent(level)} shaded", fontsize=8.5)
    return figure


def _slopes(curve: Curve) -> Vector:
    """Return d zeta / d value at the points of the curve; smoother than that of the interpolant."""
    n = curve.value.size
    if n < 4:
        return np.gradient(curve.zeta, curve.value)
    spline = scipy.interpolate.CubicSpline(curve.value, curve.zeta)
    return np.maximum(spline(curve.value, 1), 0.0)


@answers_unknown_keywords
@styled
def profile_pairs(
    profile: Any,
    parm: Sequence[str] | None = None,
    *,
    levels: Sequence[float] = LEVELS,
    max_parameters: int = 8,
) -> Figure:
    """Draw the contours of the deviance for each pair of parameters, and the profile traces.

    Below the diagonal on the scale of the parameters, above it on that of zeta, where the contours
    of a quadratic deviance are circles or ellipses.  Contours are interpolated from the traces as
    in Bates and Watts (1988), *Nonlinear Regression Analysis*, section 6.1.2 and appendix 6: a
    contour is x = L cos(a + d/2), y = L cos(a - d/2) with a phase d that is a smooth periodic
    function of a, known where the contour meets the four traces.

    Parameters
    ----------
    profile : from `fit.profile()`; a fit is profiled first.
    parm : names of parameters, "theta_" or "beta_"; by default all.
    levels : joint coverage (chi-squared with two degrees of freedom) of the contours.
    max_parameters : more are refused unless `parm` names them.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> profile = mx.lmer("Yield ~ 1 + (1 | Batch)", mx.datasets.load("Dyestuff")).profile()
    >>> figure = profile.plot.pairs()
    >>> len(figure.axes)
    9
    """
    for level in levels:
        z_value(level)
    curves = _curves(profile, parm)
    k = len(curves)
    if k < 2:
        raise OptionError("a pair needs two parameters: use profile_zeta")
    if k > max_parameters and parm is None:
        raise OptionError(
            f"{k} parameters make {k * (k - 1) // 2} pairs: name some with parm=, or raise "
            f"max_parameters={max_parameters}"
        )
    radii = [float(np.sqrt(-2.0 * np.log1p(-level))) for level in levels]
    side = float(np.clip(9.5 / k, 1.25, 2.6))
    figure = new_figure(side * k + 0.4, side * k + 0.4)
    grid = figure.subplots(k, k, squeeze=False)
    limit = 1.05 * max(radii)
    for i, row in enumerate(curves):
        for j, col in enumerate(curves):
            one: Axes = grid[i, j]
            one.tick_params(labelsize=6.5, length=2)
            if i == j:
                _name_panel(one, row.name, side)
            elif i < j:
                _zeta_panel(one, col, row, radii, limit)
            else:
                _value_panel(one, col, row, radii)
            one.tick_params(labelbottom=i == k - 1 and i != j, labelleft=j == 0 and i != j)
            if i < j:
                one.tick_params(labelright=j == k - 1, right=j == k - 1, left=False,
                                labeltop=i == 0, top=i == 0, bottom=False)  # fmt: skip
    shown = ", ".join(percent(level) for level in levels)
    figure.suptitle(f"contours at {shown}; below: parameters, above: ζ", fontsize=8.5)
    return figure


def _name_panel(ax: Axes, name: str, side: float) -> None:
    room = int(side * 9.5)
    text = name if len(name) <= room else name.replace("|", "|\n").replace("_", "_\n", 1)
    ax.text(0.5, 0.5, text, ha="center", va="center", transform=ax.transAxes,
            fontsize=8 if max(map(len, text.split("\n"))) <= room else 6.5)  # fmt: skip
    ax.set_xticks([])
    ax.set_yticks([])
    ax.set_facecolor(ink().faint)


def _trace(of: Curve, other: Curve) -> tuple[Vector, Vector]:
    """Return zeta of `of` and, where it is held there, zeta of the conditional `other`."""
    values = of.table[other.name].to_numpy(float)
    along = other.forward(np.clip(values, other.value[0], other.value[-1]))
    known = np.isfinite(along)
    return of.zeta[known], along[known]


def _at(trace: tuple[Vector, Vector], zeta: float) -> float:
    """Return the trace at one zeta; NaN beyond its end."""
    x, y = trace
    if x.size < 3 or not x[0] <= zeta <= x[-1]:
        return float("nan")
    return float(scipy.interpolate.PchipInterpolator(x, y)(zeta))


def contour(
    x_trace: tuple[Vector, Vector], y_trace: tuple[Vector, Vector], radius: float
) -> tuple[Vector, Vector] | None:
    """Return a contour in zeta coordinates, None if the traces do not reach it.

    Parameters
    ----------
    x_trace : zeta of x, and zeta of y given x; y_trace : the other way round.
    radius : root of the rise of the deviance.
    """
    known = np.array(
        [_at(x_trace, radius), _at(y_trace, radius), _at(x_trace, -radius), _at(y_trace, -radius)]
    )
    if np.isnan(known).any():
        return None
    angle = np.arccos(np.clip(known / radius, -1.0, 1.0))
    right, top, left, bottom = np.clip(angle, LEAST_ANGLE, np.pi - LEAST_ANGLE)
    # (a, d) and (-a, -d) are the same point; d is taken positive, which orders the four in a
    a = np.array([-0.5 * (np.pi + bottom), -0.5 * right, 0.5 * top, 0.5 * (np.pi + left)])
    d = np.array([np.pi - bottom, right, top, np.pi - left])
    phase = scipy.interpolate.CubicSpline(
        np.append(a, a[0] + 2.0 * np.pi), np.append(d, d[0]), bc_type="periodic"
    )
    at = a[0] + np.linspace(0.0, 2.0 * np.pi, 181)
    half = 0.5 * phase(at)
    return radius * np.cos(at + half), radius * np.cos(at - half)


def _zeta_panel(ax: Axes, x: Curve, y: Curve, radii: list[float], limit: float) -> None:
    x_trace, y_trace = _trace(x, y), _trace(y, x)
    ax.plot(*x_trace, color=ink().orange, lw=1.0)
    ax.plot(*y_trace[::-1], color=ink().orange, lw=1.0, ls="--")
    for radius in radii:
        found = contour(x_trace, y_trace, radius)
        if found is not None:
            ax.plot(*found, color=ink().blue, lw=1.0)
    ax.set_xlim(-limit, limit)
    ax.set_ylim(-limit, limit)


def _value_panel(ax: Axes, x: Curve, y: Curve, radii: list[float]) -> None:
    ax.plot(x.value, x.table[y.name], color=ink().orange, lw=1.0)
    ax.plot(y.table[x.name], y.value, color=ink().orange, lw=1.0, ls="--")
    for radius in radii:
        found = contour(_trace(x, y), _trace(y, x), radius)
        if found is not None:
            ax.plot(x.backward(found[0]), y.backward(found[1]), color=ink().blue, lw=1.0)
    ax.locator_params(axis="x", nbins=4)
    ax.locator_params(axis="y", nbins=4)
