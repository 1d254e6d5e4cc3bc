"""Pictures of results that are tables: intervals, power."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from mixlm_sparse.common.text import percent
from mixlm_sparse.report.plots import canvas, marks
from mixlm_sparse.report.plots.backend import styled
from mixlm_sparse.report.plots.inks import ink

if TYPE_CHECKING:
    from mixlm_sparse.report.plots.backend import Axes, Figure

TITLES = {
    "sd": "standard deviations", "cor": "correlations", "residual": "residual structure",
    "beta": "coefficients",
}  # fmt: skip
INTERCEPT = "(Intercept)"


@styled
def intervals(table: pd.DataFrame, *, ax: Axes | None = None) -> Figure:
    """Draw the intervals of all parameters, each kind in a panel with a scale of its own.

    Panels stand below each other, as tall as their parameters need.  The intercept, which often
    stands far from the other coefficients, has a panel too.

    Parameters
    ----------
    table : from `fit.confint()`.
    ax : one panel to draw in, if the table has one kind of parameters.
    """
    kinds = table.attrs.get("kinds", {})
    panels: dict[str, list[str]] = {}
    for name in map(str, table.index):
        kind = "sd" if kinds.get(name) in ("sd", "sigma") else kinds.get(name, "beta")
        title = "intercept" if name == INTERCEPT else TITLES[kind]
        panels.setdefault(title, []).append(name)
    canvas.one_panel_only(ax, len(panels), "parm", list(panels))
    if ax is None:
        room = canvas.label_room(list(map(str, table.index)))
        heights = [canvas.tall(len(names), low=1.0, each=0.22) for names in panels.values()]
        figure, axes = canvas.panels(
            len(panels), columns=1, size=(5.2 + room, 1.0), heights=heights
        )
    else:
        figure, only = canvas.panel(ax)
        axes = [only]
    middle = table.attrs.get("estimates", {})
    for (title, names), one in zip(panels.items(), axes, strict=True):
        y = np.arange(len(names), 0.0, -1.0) - 1.0
        low, high = table.loc[names, ["lower", "upper"]].to_numpy(float).T
        marks.segments(one, np.column_stack([low, y]), np.column_stack([high, y]), color=ink().blue,
                       width=1.5)  # fmt: skip
        values = np.array([middle.get(name, np.nan) for name in names], dtype=np.float64)
        one.scatter(values, y, s=26, color=ink().blue, zorder=3)
        if title in ("coefficients", "correlations"):
            one.axvline(0.0, color=ink().front, lw=0.9, zorder=0.9)
        one.set_ylim(-0.6, len(names) - 0.4)
        canvas.label_levels(one, y, names)
        one.set_xlabel(title)
    if ax is None:  # one size of letters in all panels
        size = min(one.yaxis.get_ticklabels()[0].get_fontsize() for one in axes)
        for one in axes:
            one.tick_params(axis="y", labelsize=size)
    return figure


@styled
def power_curve(curve: Any, *, goal: float | None = 0.8, ax: Axes | None = None) -> Figure:
    """Draw power against the number of groups, with Monte-Carlo intervals.

    Parameters
    ----------
    curve : from `mx.power_curve()`.
    goal : power that is wanted, a line; None for none.
    ax : where to draw.
    """
    table = curve.to_frame()
    n, power, low, high = table[["n", "power", "lower", "upper"]].to_numpy(float).T
    figure, one = canvas.panel(ax, 5.6, 3.8)
    if goal is not None:
        one.axhline(float(goal), color=ink().front, lw=0.9, ls="--", zorder=0.9)
    one.plot(n, power, color=ink().blue, lw=1.2)
    marks.segments(one, np.column_stack([n, low]), np.column_stack([n, high]), color=ink().blue,
                   width=1.5)  # fmt: skip
    one.scatter(n, power, s=26, color=ink().blue, zorder=3)
    one.set_ylim(0.0, 1.02)
    one.set_xlabel(f"levels of {curve.along}")
    level = percent(curve.points[0].level)
    one.set_ylabel(f"power, {level} Monte-Carlo interval")
    return figure


@styled
def power_estimates(found: Any, *, effect: str | None = None, ax: Axes | None = None) -> Figure:
    """Draw the estimates of a power analysis, those that are significant apart.

    Where power is low, significant estimates are larger than the truth.

    Parameters
    ----------
    found : from `mx.power()`.
    effect : which, if several are tested together; by default the first.
    ax : where to draw.
    """
    names = list(found.effect)
    k = 0 if effect is None else names.index(effect) if effect in names else 0
    values, p = found.estimates[:, k], found.p_values
    known = np.isfinite(values) & np.isfinite(p)
    figure, one = canvas.panel(ax, 5.6, 3.8)
    if known.any():
        edges = np.histogram_bin_edges(values[known], bins=30).tolist()
        significant = known & (p < found.alpha)
        one.hist(
            [values[significant], values[known & ~significant]], bins=edges, stacked=True,
            color=[ink().blue, ink().orange], alpha=0.7, edgecolor=ink().back, linewidth=0.4,
            label=[f"p < {found.alpha:g}", "not significant"],
        )  # fmt: skip
    one.axvline(float(found.true[k]), color=ink().front, lw=1.3, label="true")
    one.set_xlabel(f"estimate of {names[k]}")
    one.set_ylabel("simulations")
    canvas.legend(one)
    return figure
