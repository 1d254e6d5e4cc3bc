"""Marginal means and slopes with their intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mixlm_sparse.common.text import as_written, percent
from mixlm_sparse.inference.means.marginal_means import MarginalMeans
from mixlm_sparse.report.plots import canvas, marks
from mixlm_sparse.report.plots.backend import BLACK, MARKERS, PALETTE, styled

if TYPE_CHECKING:
    from mixlm_sparse.report.plots.backend import Axes, Figure


@styled
def marginal_means(means: MarginalMeans, *, ax: Axes | None = None) -> Figure:
    """Draw marginal means or slopes with their intervals, families side by side.

    Parameters
    ----------
    means : from `fit.emmeans()` or `fit.emtrends()`.
    ax : where to draw.
    """
    table = means.to_frame()
    shown = str(table.columns[means.cells.shape[1]])  # emmean, x.trend, response, ratio, ...
    rows = [name for name in means.cells.columns if name not in means.by]
    labels = [" ".join(map(as_written, row)) for row in table[rows].to_numpy(dtype=object)]
    families = [", ".join(map(as_written, row)) for row in table[list(means.by)].to_numpy(object)]
    places = {label: float(i) for i, label in enumerate(dict.fromkeys(labels))}
    kinds = list(dict.fromkeys(families))
    figure, one = canvas.panel(ax, 5.6, canvas.tall(len(places), each=0.2 + 0.14 * len(kinds)))
    for k, family in enumerate(kinds):
        mine = [i for i, other in enumerate(families) if other == family]
        shift = 0.0 if len(kinds) == 1 else 0.6 * (0.5 - (k + 0.5) / len(kinds))
        y = len(places) - 1.0 - np.array([places[labels[i]] for i in mine]) + shift
        middle, low, high = table.iloc[mine][[shown, "lower", "upper"]].to_numpy(float).T
        color = PALETTE[k % len(PALETTE)]
        marks.segments(one, np.column_stack([low, y]), np.column_stack([high, y]), color=color,
                       width=1.5)  # fmt: skip
        one.scatter(middle, y, s=26, color=color, marker=MARKERS[k % len(MARKERS)], zorder=3,
                    label=family or None)  # fmt: skip
    one.set_ylim(-0.6, len(places) - 0.4)
    canvas.label_levels(one, len(places) - 1.0 - np.array(list(places.values())), list(places))
    if means.method and means.method != "identity":  # no difference
        one.axvline(1.0 if shown == "ratio" else 0.0, color=BLACK, lw=0.9, zorder=0.9)
    what = "marginal mean" if shown == "emmean" else shown
    one.set_xlabel(f"{what}, {percent(means.level)} interval")
    canvas.legend(one, title=", ".join(means.by) or None)
    return figure
