"""Shrinkage: least squares in each group, joined to the coefficients of the mixed model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mixlm_sparse.common.errors import OptionError
from mixlm_sparse.common.keywords import answers_unknown_keywords
from mixlm_sparse.common.types import Matrix, Vector
from mixlm_sparse.model.fitted import FittedModel
from mixlm_sparse.report.plots import canvas, marks
from mixlm_sparse.report.plots.backend import styled
from mixlm_sparse.report.plots.data import (
    choose,
    factor_index,
    random_columns,
)
from mixlm_sparse.report.plots.inks import ink
from mixlm_sparse.solve.groupwise import fit_groups
from mixlm_sparse.solve.rows import InMemory

if TYPE_CHECKING:
    from mixlm_sparse.report.plots.backend import Axes, Figure

FAR = 2.0  # spreads beyond the middle eight tenths from which a group is cut off
POPULATION = "population"
MANY_POPULATIONS = 6  # more different population values than this are not marked one by one



@answers_unknown_keywords
@styled
def shrinkage(
    fit: FittedModel,
    group: str | None = None,
    effects: str | tuple[str, str] | None = None,
    *,
    ax: Axes | None = None,
) -> Figure:
    """Join the least-squares coefficients of each group to those of the mixed model.

    Both are the coefficients of the random columns in the group: from the response, and from the
    fitted values.  Groups in which least squares cannot be had are left out and counted.

    Parameters
    ----------
    group : grouping factor; by default the first.
    effects : a pair of effects for a plane, one for a line per group; by default the first two.
    ax : where to draw.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> fit = mx.lmer("Reaction ~ Days + (Days | Subject)", mx.datasets.load("sleepstudy"))
    >>> figure = fit.plot.shrinkage()
    >>> figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()
    ('(Intercept)', 'Days')
    """
    g = factor_index(fit, group)
    factor = fit.matrices.factors[g]
    names, Z = random_columns(fit, g)
    pair = _pair(names, effects)
    offset = InMemory.of(fit.matrices).whole().offset
    population = fit.solution.fitted(include_random=False)
    three = np.column_stack([fit.matrices.y, fit.fitted_used, population])
    three = three - np.reshape(offset, (-1, 1))
    fits = fit_groups(three, Z, factor.codes, factor.n_levels, fit.matrices.weights)
    full = fits.full_rank
    if not full.any():
        raise OptionError(
            f"no level of '{factor.label}' has enough rows for least squares on "
            f"{', '.join(names)}: there is no shrinkage to draw"
        )
    raw, shrunk, middle = (fits.coefficients[full][:, pair, j] for j in range(3))
    labels = [label for label, ok in zip(factor.levels, full.tolist(), strict=True) if ok]
    if len(pair) == 1:
        n = len(labels)
        figure, ax = canvas.panel(ax, 6.4 + canvas.label_room(labels), canvas.tall(n))
        _shrink_line(ax, labels, raw[:, 0], shrunk[:, 0], middle[:, 0])
        ax.set_xlabel(f"{names[pair[0]]} in each group")
        few = len(ax.get_yticks()) == n
        ax.set_ylabel(factor.label if few else f"{factor.label} ({n} levels, some are named)")
    else:
        figure, ax = canvas.panel(ax, 6.8, 4.8)
        _shrink_plane(ax, raw, shrunk, middle)
        ax.set_xlabel(names[pair[0]])
        ax.set_ylabel(names[pair[1]])
    missing = int((~full).sum())
    notes = []
    if missing:
        notes.append(f"{missing} of {factor.n_levels} without least squares left out")
    beyond = _keep_near(ax, raw, shrunk, middle, both=len(pair) == 2)
    if beyond:
        gone = " and the population" if _hide_population_outside(ax, middle) else ""
        notes.append(f"{beyond}{gone} far beyond the edges")
    title = f"shrinkage by {factor.label}"
    ax.set_title(title + (f" ({', '.join(notes)})" if notes else ""))
    canvas.legend(ax)
    return figure


def _keep_near(ax: Axes, raw: Matrix, shrunk: Matrix, middle: Matrix, *, both: bool) -> int:
    """Let a few far groups run out of the panel, so that they do not squash the others.

    What all groups shrink to stays in it, unless that is far as well.  Returns how many groups run
    out.
    """
    outside = np.zeros(len(raw), dtype=bool)
    limits: list[Any] = [ax.set_xlim, ax.set_ylim] if both else [ax.set_xlim]
    for k, limit in enumerate(limits):
        low, high = np.quantile(raw[:, k], [0.1, 0.9])
        reach = FAR * float(high - low)
        far = (raw[:, k] < low - reach) | (raw[:, k] > high + reach)
        if reach > 0.0 and far.any():
            others = np.concatenate([shrunk[:, k], middle[:, k]])
            kept = (others >= low - reach) & (others <= high + reach)
            near = np.concatenate([raw[~far, k], others[kept]])
            edge = 0.04 * float(np.ptp(near))
            limit(float(near.min()) - edge, float(near.max()) + edge)
        outside |= far
    return int(outside.sum())


def _hide_population_outside(ax: Axes, middle: Matrix) -> bool:
    """Leave the population out of the legend, if none of its marks is in the panel."""
    limits = [ax.get_xlim(), ax.get_ylim()][: middle.shape[1]]
    inside = np.ones(len(middle), dtype=bool)
    for k, (low, high) in enumerate(limits):
        inside &= (middle[:, k] >= low) & (middle[:, k] <= high)
    marks_of = [artist for artist in ax.get_children() if artist.get_label() == POPULATION]
    if inside.any() or not marks_of:
        return False
    for artist in marks_of:
        artist.set_label("_")
    return True


def _pair(names: list[str], effects: str | tuple[str, str] | None) -> list[int]:
    if effects is None:
        return list(range(min(2, len(names))))
    wanted = [effects] if isinstance(effects, str) else list(effects)
    if len(wanted) not in (1, 2):
        raise OptionError(f"effects has {len(wanted)} names: give one or two")
    return [choose(names, name, "effects")[0] for name in wanted]


def _shrink_line(ax: Axes, labels: list[str], raw: Vector, shrunk: Vector, middle: Vector) -> None:
    rank = np.argsort(raw, kind="stable")
    raw, shrunk, middle = raw[rank], shrunk[rank], middle[rank]
    n = raw.size
    y = np.arange(n, dtype=float)
    size = float(np.clip(1500.0 / n, 1.5, 24.0))
    marks.segments(
        ax, np.column_stack([raw, y]), np.column_stack([shrunk, y]), color=ink().pale,
        width=float(np.clip(90.0 / n, 0.3, 1.2)), zorder=1, rasterized=n > 1500,
    )  # fmt: skip
    ax.scatter(raw, y, s=size, facecolors="none", edgecolors=ink().orange,
               linewidths=0.8 if n < 500 else 0.4,
               label="least squares", zorder=2, rasterized=n > 1500)  # fmt: skip
    ax.scatter(shrunk, y, s=size, color=ink().blue, linewidths=0, label="mixed model", zorder=3,
               rasterized=n > 1500)  # fmt: skip
    if np.ptp(middle) <= 1e-8 * max(1.0, float(np.abs(middle).max())):
        ax.axvline(float(middle[0]), color=ink().front, lw=1.0, label=POPULATION, zorder=0.9)
    canvas.label_levels(ax, y, [labels[i] for i in rank])
    ax.set_ylim(-0.02 * n - 0.6, n - 1 + 0.02 * n + 0.6)


def _shrink_plane(ax: Axes, raw: Any, shrunk: Any, middle: Any) -> None:
    n = len(raw)
    size = float(np.clip(2600.0 / n, 2.5, 30.0))
    marks.segments(
        ax, raw, shrunk, color=ink().pale if n < 500 else ink().paler,
        width=float(np.clip(120.0 / n, 0.25, 1.2)), zorder=1, rasterized=n > 1500,
    )  # fmt: skip
    ax.scatter(raw[:, 0], raw[:, 1], s=size, facecolors="none", edgecolors=ink().orange,
               linewidths=0.9 if n < 500 else 0.4, label="least squares", zorder=2,
               rasterized=n > 1500)  # fmt: skip
    ax.scatter(shrunk[:, 0], shrunk[:, 1], s=size, color=ink().blue, linewidths=0,
               label="mixed model", zorder=3, rasterized=n > 1500)  # fmt: skip
    scale = np.maximum(np.abs(middle).max(axis=0), 1e-300)
    distinct = np.unique(np.round(middle / scale, 8), axis=0) * scale
    if len(distinct) <= MANY_POPULATIONS:
        ax.scatter(distinct[:, 0], distinct[:, 1], s=70, marker="D", color=ink().front,
                   edgecolors=ink().back, linewidths=0.8, label=POPULATION, zorder=4)  # fmt: skip
