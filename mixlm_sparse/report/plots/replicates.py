"""Histograms of bootstrap replicates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mixlm_sparse.common.errors import OptionError
from mixlm_sparse.common.keywords import answers_unknown_keywords
from mixlm_sparse.common.text import percent
from mixlm_sparse.model.fitted import FittedModel
from mixlm_sparse.report.plots import canvas
from mixlm_sparse.report.plots.backend import styled
from mixlm_sparse.report.plots.data import chosen_parameters, z_value
from mixlm_sparse.report.plots.inks import ink

if TYPE_CHECKING:
    from mixlm_sparse.report.plots.backend import Axes, Figure



@answers_unknown_keywords
@styled
def bootstrap(
    boot: Any,
    parm: str | Sequence[str] | None = None,
    *,
    level: float = 0.95,
    type: str = "percentile",
    bins: int | str = "auto",
    ax: Axes | None = None,
) -> Figure:
    """Draw the bootstrap distribution of each parameter with its estimate and interval.

    Parameters
    ----------
    boot : from `fit.bootstrap()`.
    parm : names of parameters, "theta_" or "beta_"; by default all.
    level, type : of the interval, as in `boot.confint`.
    bins : as in numpy.histogram.
    ax : one panel to draw in; needs a single `parm` if there are several.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> fit = mx.lmer("Reaction ~ Days + (Days | Subject)", mx.datasets.load("sleepstudy"))
    >>> figure = fit.bootstrap(50, seed=1).plot(parm=["sigma", "Days"])
    >>> [ax.get_title() for ax in figure.axes]
    ['sigma', 'Days']
    """
    if isinstance(boot, FittedModel):
        raise OptionError(
            "the plot needs replicates: call fit.bootstrap(...) first, and pass those"
        )
    z_value(level)
    columns = [str(name) for name in boot.samples.columns]
    names = chosen_parameters(parm, dict(zip(columns, boot.kinds, strict=True)))
    limits = boot.confint(level, type)
    canvas.one_panel_only(ax, len(names), "parm", names)
    if ax is None:
        figure, axes = canvas.panels(len(names), columns=3, size=(3.1, 2.6))
    else:
        figure, only = canvas.panel(ax)
        axes = [only]
    for name, one in zip(names, axes, strict=True):
        values = boot.samples[name].to_numpy(float)
        values = values[np.isfinite(values)]
        if values.size:
            # a scale that rounding alone fills has no bins
            same = np.ptp(values) <= 1e-9 * max(1.0, float(np.abs(values).max()))
            one.hist(values, bins=1 if same else bins, color=ink().blue, alpha=0.6,
                     edgecolor=ink().back, linewidth=0.4)  # fmt: skip
        one.axvline(float(boot.original[name]), color=ink().front, lw=1.3)
        for end in limits.loc[name, ["lower", "upper"]]:
            one.axvline(float(end), color=ink().orange, lw=1.2, ls="--")
        one.set_title(name)
        one.set_ylabel("replicates")
        one.locator_params(axis="x", nbins=5)
        one.grid(visible=False, axis="x")
    if ax is None:
        gap = " " if len(names) > 1 else "\n"
        figure.suptitle(
            f"{len(boot.samples)} replicates; line: estimate,{gap}"
            f"dashes: {percent(level)} {type} interval",
            fontsize=8.5,
        )
    return figure
