"""Rows and groups that bear much on the fit, and the path of the search."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mixlm_sparse.common.errors import OptionError
from mixlm_sparse.common.keywords import answers_unknown_keywords
from mixlm_sparse.common.types import Vector
from mixlm_sparse.model.fitted import FittedModel
from mixlm_sparse.report.plots import canvas, marks
from mixlm_sparse.report.plots.backend import new_figure, styled
from mixlm_sparse.report.plots.checks import scaled
from mixlm_sparse.report.plots.data import choose, factor_index
from mixlm_sparse.report.plots.inks import ink

if TYPE_CHECKING:
    from mixlm_sparse.report.plots.backend import Axes, Figure


@answers_unknown_keywords
@styled
def influence(fit: FittedModel, *, label: int = 5, ax: Axes | None = None) -> Figure:
    """Draw scaled residuals against leverage; the area of a point is Cook's distance.

    Parameters
    ----------
    label : how many of the largest distances are named by their row.
    ax : where to draw.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> fit = mx.lmer("Reaction ~ Days + (Days | Subject)", mx.datasets.load("sleepstudy"))
    >>> figure = fit.plot.influence(label=3)
    >>> figure.axes[0].get_xlabel()
    'leverage'
    """
    figure, one = canvas.panel(ax, 5.8, 4.0)
    r = scaled(fit)
    matrices = fit.matrices
    used = (
        slice(None) if matrices.na_action != "exclude" or matrices.rows is None else matrices.rows
    )
    h, d = (
        np.asarray(values, dtype=np.float64)[used]
        for values in (fit.hatvalues(), fit.cooks_distance())
    )
    known = np.isfinite(d)
    top = float(d[known].max()) if known.any() else 1.0
    order = np.argsort(np.where(known, d, -1.0), kind="stable")
    size = 4.0 + 220.0 * np.where(known, d, 0.0) / (top or 1.0)
    largest = np.zeros(d.size, dtype=bool)
    largest[order[::-1][: max(label, 0)]] = True
    many = d.size > 3000
    one.scatter(h[~largest], r[~largest], s=size[~largest], color=ink().blue, linewidths=0,
                alpha=max(0.2, marks.opacity(d.size)), rasterized=many)  # fmt: skip
    one.scatter(h[largest], r[largest], s=size[largest], facecolors="none", edgecolors=ink().orange,
                linewidths=1.2, zorder=3)  # fmt: skip
    names = _row_names(fit)
    _name_points(one, h, r, size, [(int(i), names[int(i)]) for i in np.flatnonzero(largest)])
    one.axhline(0.0, color=ink().front, lw=0.9, zorder=0.9)
    one.margins(0.08)
    one.set_xlabel("leverage")
    one.set_ylabel("scaled residual")
    one.set_title(f"area: Cook's distance, largest {top:.3g}")
    return figure


def _row_names(fit: FittedModel) -> list[str]:
    matrices = fit.matrices
    rows = np.arange(matrices.n_input) if matrices.rows is None else matrices.rows
    if matrices.index is not None:
        return [str(name) for name in np.asarray(matrices.index)[rows]]
    return [str(row) for row in rows]


def _name_points(
    ax: Axes, x: Vector, y: Vector, size: Vector, named: list[tuple[int, str]]
) -> None:
    """Write names beside points, from bottom to top and never over one another.

    Parameters
    ----------
    size : areas of the points in points^2.
    """
    gap = 0.04 * (float(np.ptp(y)) or 1.0)
    centre = 0.5 * (float(x.min()) + float(x.max()))
    last = -np.inf
    for i, name in sorted(named, key=lambda pair: float(y[pair[0]])):
        last = max(float(y[i]), last + gap)
        away = np.sqrt(size[i] / np.pi) + 3.0
        left = x[i] > centre
        ax.annotate(name, (x[i], last), xytext=(-away if left else away, 0.0),
                    textcoords="offset points", fontsize=7, color=ink().front, va="center",
                    ha="right" if left else "left", zorder=4)  # fmt: skip


@answers_unknown_keywords
@styled
def deletion(
    source: Any, group: Any = None, *, show: int = 30, effects: str | Sequence[str] | None = None
) -> Figure:
    """Draw what leaving out each group does: Cook's distance, and DFBETAS of each coefficient.

    Groups are ranked by Cook's distance.  The dashes are at 2 / sqrt(number of groups), beyond
    which a DFBETAS is usually looked at.

    Parameters
    ----------
    source : from `fit.influence(group)`, or a fit, of which that is computed first.
    group : grouping factor, for a fit; by default the first.
    show : so many groups with the largest distances are drawn.
    effects : coefficients to draw; by default the first four.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> fit = mx.lmer("Reaction ~ Days + (Days | Subject)", mx.datasets.load("sleepstudy"))
    >>> figure = fit.plot.deletion("Subject", effects="Days")
    >>> [ax.get_title() for ax in figure.axes]
    ["Cook's distance", 'Days']
    """
    if isinstance(source, FittedModel):
        method: Any = source
        if group is None:
            group = source.matrices.factors[factor_index(source, None)].label
        source = method.influence(group)
    distance = source.deletion_distance()
    dfbetas = source.dfbetas()
    names = [str(name) for name in dfbetas.columns]
    if effects is None:
        drawn = list(range(min(4, len(names))))
    else:
        wanted = [effects] if isinstance(effects, str) else effects
        drawn = [choose(names, name, "effects")[0] for name in wanted]
    values = distance.to_numpy(float)
    order = np.argsort(np.where(np.isnan(values), -1.0, values), kind="stable")
    order = order[-max(int(show), 1) :]
    labels = [str(distance.index[i]) for i in order]
    y = np.arange(order.size, dtype=float)
    n = order.size
    figure = new_figure(2.6 + 1.7 * len(drawn), canvas.tall(n))
    axes = figure.subplots(1, 1 + len(drawn), squeeze=False, sharey=True)[0]
    columns = [("Cook's distance", values[order])]
    columns += [(names[j], dfbetas.to_numpy(float)[order, j]) for j in drawn]
    cut = 2.0 / np.sqrt(values.size)
    for place, (one, (title, x)) in enumerate(zip(axes, columns, strict=True)):
        beyond = np.abs(x) > cut if place else np.zeros(n, dtype=bool)
        one.hlines(y, 0.0, x, color=np.where(beyond, ink().orange, ink().blue), lw=1.2)
        one.scatter(x, y, s=16, color=np.where(beyond, ink().orange, ink().blue), zorder=3)
        one.axvline(0.0, color=ink().front, lw=0.8)
        if place:
            for sign in (-1.0, 1.0):
                one.axvline(sign * cut, color=ink().grey, ls="--", lw=0.8)
        one.set_title(title)
        one.set_xlabel("DFBETAS" if place else "distance")
        one.locator_params(axis="x", nbins=4)
    canvas.label_levels(axes[0], y, labels)
    some = f" ({n} of {values.size})" if n < values.size else ""
    axes[0].set_ylabel(f"{distance.index.name or 'left out'}{some}")
    return figure


@answers_unknown_keywords
@styled
def optimization_path(fit: FittedModel, *, ax: Axes | None = None) -> Figure:
    """Draw how far the criterion was above its optimum at each evaluation, on a log axis.

    Parameters
    ----------
    ax : where to draw.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> fit = mx.lmer("Reaction ~ Days + (Days | Subject)", mx.datasets.load("sleepstudy"))
    >>> figure = fit.plot.optimization_path()
    >>> figure.axes[0].get_xlabel()
    'evaluation'
    """
    history = np.asarray(fit.optimum.history, dtype=float)
    if not history.size:
        raise OptionError(
            "the model was not searched for (a perfect fit): there is no path to draw"
        )
    figure, one = canvas.panel(ax, 5.4, 3.6)
    finite = np.isfinite(history)
    best = min(float(history[finite].min()), fit.optimum.criterion)
    # what rounding leaves of a criterion of this size
    floor = max(np.spacing(abs(best)), 1e-13)
    above = np.where(finite, np.maximum(history - best, floor), np.nan)
    at = np.arange(1, history.size + 1)
    one.semilogy(at, above, color=ink().pale, lw=1.0, zorder=1)
    one.scatter(at, above, s=marks.marker_size(history.size), color=ink().blue, linewidths=0,
                zorder=3)  # fmt: skip
    one.semilogy(at, np.fmin.accumulate(above), color=ink().orange, lw=1.4)
    one.locator_params(axis="x", integer=True)
    one.set_xlabel("evaluation")
    one.set_ylabel("criterion above its optimum")
    one.set_title(
        f"{fit.optimum.optimizer}: {fit.optimum.status}, {history.size} evaluations "
        "(line: best so far)"
    )
    return figure
