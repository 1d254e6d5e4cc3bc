"""Fixed effects of one or several models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mixlm_sparse.common.checks import entries
from mixlm_sparse.common.errors import OptionError
from mixlm_sparse.common.keywords import answers_unknown_keywords
from mixlm_sparse.common.text import percent, shorten_all
from mixlm_sparse.inference.models.compare import require_fits
from mixlm_sparse.model.fitted import FittedModel
from mixlm_sparse.report.plots import canvas, marks
from mixlm_sparse.report.plots.backend import MARKERS, styled
from mixlm_sparse.report.plots.data import choose, z_value
from mixlm_sparse.report.plots.inks import ink

if TYPE_CHECKING:
    from mixlm_sparse.report.plots.backend import Axes, Figure


@answers_unknown_keywords
@styled
def fixed_effects(
    *fits: FittedModel,
    names: Sequence[str] | None = None,
    level: float = 0.95,
    intercept: bool = False,
    only: str | Sequence[str] | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Draw the fixed effects of one or several models with their (Wald) intervals.

    Parameters
    ----------
    fits : models side by side.
    names : one name for each model; by default their formulas.
    level : coverage of the intervals.
    intercept : also draw the intercept, which often stands far from the rest.
    only : coefficients to draw, in this order.
    ax : where to draw.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> fit = mx.lmer("distance ~ age * Sex + (age | Subject)", mx.datasets.load("Orthodont"))
    >>> smaller = fit.update(". ~ . - age:Sex")
    >>> figure = mx.plots.fixed_effects(smaller, fit, names=["parallel", "slopes by sex"])
    >>> len(figure.axes)
    1
    """
    if not fits:
        raise OptionError("fixed_effects needs a model: pass one or several fits")
    fits = tuple(require_fits("fixed_effects", *fits))
    if names is not None and len(names) != len(fits):
        raise OptionError(
            f"names has {len(names)} entries for {len(fits)} models: give one for each"
        )
    titles = shorten_all(names or [fit.formula for fit in fits], 44)
    terms = list(dict.fromkeys(name for fit in fits for name in fit.fixef.index))
    if only is not None:
        terms = [terms[choose(terms, name, "only")[0]] for name in entries("only", only)]
    elif not intercept and len(terms) > 1:
        terms = [name for name in terms if name != "(Intercept)"]
    z = z_value(level)
    count = len(fits)
    figure, one = canvas.panel(
        ax, 5.6 if count == 1 else 7.2, canvas.tall(len(terms), each=0.16 + 0.14 * count, high=11.0)
    )
    heights = {name: float(len(terms) - 1 - i) for i, name in enumerate(terms)}
    for place, (fit, title) in enumerate(zip(fits, titles, strict=True)):
        mine = [name for name in fit.fixef.index if name in heights]
        shift = 0.0 if count == 1 else 0.6 * (0.5 - (place + 0.5) / count)
        y = np.array([heights[name] + shift for name in mine])
        middle = fit.fixef[mine].to_numpy()
        half = z * fit.bse[mine].to_numpy()
        color = ink().series(place)
        marks.segments(
            one, np.column_stack([middle - half, y]), np.column_stack([middle + half, y]),
            color=color, width=1.5,
        )  # fmt: skip
        one.scatter(middle, y, s=26, color=color, marker=MARKERS[place % len(MARKERS)], zorder=3,
                    label=title if count > 1 else None)  # fmt: skip
    one.axvline(0.0, color=ink().front, lw=0.9, zorder=0.9)
    one.set_ylim(-0.6, len(terms) - 0.4)
    canvas.label_levels(one, np.array(list(heights.values())), terms)
    one.set_xlabel(f"fixed effect, {percent(level)} interval")
    if count > 1:
        canvas.legend(one, above=True)
    elif names is not None:
        one.set_title(titles[0])
    return figure
