"""The population mean over a predictor, with a band, at chosen values of the others."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from mixlm_sparse.common.errors import OptionError
from mixlm_sparse.common.keywords import answers_unknown_keywords
from mixlm_sparse.common.text import percent, shorten_all
from mixlm_sparse.common.types import Vector
from mixlm_sparse.design.table import Column, as_column
from mixlm_sparse.formula.terms import names_of
from mixlm_sparse.inference.means.emmeans import emmeans
from mixlm_sparse.inference.means.estimates import NO_MORE_THAN_ROUNDING
from mixlm_sparse.model.fitted import FittedModel
from mixlm_sparse.model.predict.predict import predict
from mixlm_sparse.report.plots import canvas, marks
from mixlm_sparse.report.plots.backend import DASHES, MARKERS, styled
from mixlm_sparse.report.plots.curves import (
    coded_numbers,
    numeric_names,
    offset_columns,
    parts_of,
    typical_rows,
    weight_columns,
)
from mixlm_sparse.report.plots.data import column, z_value
from mixlm_sparse.report.plots.inks import ink

if TYPE_CHECKING:
    from mixlm_sparse.report.plots.backend import Axes, Figure


@answers_unknown_keywords
@styled
def predictions(
    fit: FittedModel,
    x: str | None = None,
    at: Mapping[str, Any] | None = None,
    *,
    level: float = 0.95,
    interval: str | None = "confidence",
    points: bool = False,
    offset: float | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Draw the population line over a predictor, with a band, at chosen values of others.

    Numbers that are not named in `at` are held at their means.  Factors are averaged over, as
    `emmeans` does, or held at their most frequent level where a prediction interval is asked for
    or the offset is an array.  The panel says so.

    Parameters
    ----------
    x : column on the horizontal axis: a number, or a factor (points with error bars); by default
        the first numeric predictor.
    at : values of other columns, one or several each: a line for every combination.  "quartiles"
        stands for the three quartiles of a number, "levels" for all levels of a factor.
    level, interval : of the band: "confidence" for the mean, "prediction" for a new observation in
        a new group, None for none.
    points : draw the observations as well.
    offset : to be added to the lines; needed if the offset of the fit was an array.
    ax : where to draw.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> fit = mx.lmer("distance ~ age * Sex + (age | Subject)", mx.datasets.load("Orthodont"))
    >>> figure = fit.plot.predictions("age", at={"Sex": "levels"})
    >>> figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()
    ('age', 'distance')
    """
    z_value(level)
    if interval not in ("confidence", "prediction", None):
        raise OptionError(f"interval is {interval!r}: use 'confidence', 'prediction' or None")
    x, needed = _axis(fit, x, interval)
    chosen = _chosen_values(fit, at or {}, x, needed)
    horizontal = column(fit, x, "x")
    factor_x = horizontal.kind not in ("number", "bool")
    if x in coded_numbers(fit):
        grid: Any = np.unique(horizontal.values)
        horizontal = as_column(x, pd.Categorical(horizontal.values))
        factor_x = True
    elif factor_x:
        grid = pd.Categorical(list(horizontal.levels), categories=list(horizontal.levels))
    else:
        grid = np.linspace(float(horizontal.values.min()), float(horizontal.values.max()), 60)
    typical = typical_rows(fit, needed, x, None, [0])
    over = _averaged_over(fit, [n for n in typical.columns if n not in chosen], interval, offset)
    means = _marginal(fit, x, grid, chosen, level) if over else None
    figure, one = canvas.panel(ax, 6.4 if chosen else 5.4, 4.0)
    combinations = list(itertools.product(*chosen.values()))
    if points:
        _observations(one, horizontal, fit.matrices.y)
    for place, values in enumerate(combinations):
        held = dict(zip(chosen, values, strict=True))
        if means is not None:
            fit_line, low, high = _picked(means, held, interval)
        else:
            frame = typical.loc[[0] * len(grid)].reset_index(drop=True).assign(**{x: grid}, **held)
            fit_line, low, high = _band(fit, frame, interval, level, offset)
        label = ", ".join(f"{name} {_shown(value)}" for name, value in held.items())
        _draw_line(one, grid, factor_x, fit_line, low, high, place, len(combinations), label)
    if factor_x:
        names = [f"{g:g}" if isinstance(g, float) else str(g) for g in grid]
        one.set_xticks(np.arange(len(grid)), shorten_all(names, 16))
        one.set_xlim(-0.5, len(grid) - 0.5)
    one.set_xlabel(x)
    one.set_ylabel(fit.matrices.response_name)
    rest = [n for n in typical.columns if n not in chosen and n not in over]
    one.set_title(_heading(interval, level, over, typical[rest]), fontsize=8.5)
    canvas.legend(one)
    return figure


def _axis(fit: FittedModel, x: str | None, interval: str | None) -> tuple[str, list[str]]:
    """Return the column on the horizontal axis, and all columns that predictions need."""
    fixed = parts_of(fit)[0]
    spec = fit.matrices.spec
    assert spec is not None
    names = names_of([o.variable for term in fixed.terms for o in term])
    # a prediction interval needs the columns of random slopes as well
    parts = parts_of(fit) if interval == "prediction" else [fixed]
    needed = list(names_of([o.variable for part in parts for term in part.terms for o in term]))
    needed += [name for name in offset_columns(spec) if name not in needed]
    needed += [
        name for name in weight_columns(spec) if interval == "prediction" and name not in needed
    ]
    if x is None:
        found = numeric_names(fixed) or list(names)
        if not found:
            raise OptionError("the fixed part has an intercept only: there is no line to draw")
        x = found[0]
    if x not in needed:
        raise OptionError(
            f"x is {x!r}, which the fixed part does not have: use one of "
            + ", ".join(map(repr, names))
        )
    return x, needed


def _heading(
    interval: str | None, level: float, over: Sequence[str], typical: pd.DataFrame
) -> str:
    """Say what the band is, and where the other predictors are."""
    lines = [
        f"population mean, {percent(level)} {interval} band" if interval else "population mean"
    ]
    if len(typical.columns):
        lines.append("at " + ", ".join(f"{n} = {_shown(typical[n].iloc[0])}" for n in typical))
    if over:
        lines.append(f"averaged over {', '.join(over)}")
    return "\n".join(lines)


def _averaged_over(
    fit: FittedModel, names: Sequence[str], interval: str | None, offset: float | None
) -> list[str]:
    """Return the factors to be averaged over; none where `emmeans` has no answer."""
    call = fit.call
    array = call is not None and call.offset is not None and not isinstance(call.offset, str)
    if interval == "prediction" or offset is not None or array:
        return []
    columns = {name: column(fit, name, "x") for name in names}
    coded = coded_numbers(fit)
    several = [n for n, c in columns.items() if c.kind == "factor" and len(c.levels) > 1]
    return [n for n in names if n in several or n in coded]


def _marginal(
    fit: FittedModel, x: str, grid: Any, chosen: Mapping[str, list[Any]], level: float
) -> pd.DataFrame:
    """Return marginal means over x at the chosen values, by the normal distribution."""
    at: dict[str, Any] = {name: list(values) for name, values in chosen.items()}
    if not isinstance(grid, pd.Categorical) and x not in coded_numbers(fit):
        at[x] = grid.tolist()
    return emmeans(fit, [x, *chosen], at=at, ddf="normal", level=level).to_frame()


def _picked(
    means: pd.DataFrame, held: Mapping[str, Any], interval: str | None
) -> tuple[Vector, Vector | None, Vector | None]:
    """Return the means at some values of other predictors, and their limits if asked for."""
    rows = np.ones(len(means), dtype=bool)
    for name, value in held.items():
        rows &= (means[name] == value).to_numpy()
    middle, low, high = means.loc[rows, ["emmean", "lower", "upper"]].to_numpy().T
    return (middle, low, high) if interval else (middle, None, None)


def _observations(ax: Axes, horizontal: Column, y: Vector) -> None:
    """Draw the rows; over a factor, beside its level."""
    x = np.asarray(horizontal.values, dtype=np.float64)
    if horizontal.kind == "factor":
        x = x + marks.spread(x.size, 0.12)
    marks.points(ax, x, y, color=ink().grey)


def _chosen_values(
    fit: FittedModel, at: Mapping[str, Any], x: str, needed: Sequence[str]
) -> dict[str, list[Any]]:
    """Return the values of each column named in `at`, as lists."""
    out: dict[str, list[Any]] = {}
    for name, wanted in at.items():
        if name == x or name not in needed:
            others = [n for n in needed if n != x]
            raise OptionError(
                f"at: {name!r} is {'on the horizontal axis' if name == x else 'no predictor'}: use "
                + (", ".join(map(repr, others)) or "no other")
            )
        found = column(fit, name, "at")
        if isinstance(wanted, str) and wanted == "quartiles" and found.kind == "number":
            values: list[Any] = np.quantile(found.values, [0.25, 0.5, 0.75]).tolist()
        elif isinstance(wanted, str) and wanted == "levels" and found.kind == "factor":
            values = list(found.levels)
        else:
            single = isinstance(wanted, str) or not np.iterable(wanted)
            values = [wanted] if single else list(wanted)
        out[name] = values
    return out


def _shown(value: Any) -> str:
    if not isinstance(value, float | np.floating):
        return str(value)
    return f"{value:.3g}" if abs(float(value)) > NO_MORE_THAN_ROUNDING else "0"


def _band(
    fit: FittedModel, frame: pd.DataFrame, interval: str | None, level: float, offset: float | None
) -> tuple[Vector, Vector | None, Vector | None]:
    """Return the population mean and its limits on the rows of `frame`."""
    found = predict(fit, frame, "population", interval=interval, level=level, offset=offset)
    if isinstance(found, pd.DataFrame):
        middle, low, high = found[["fit", "lower", "upper"]].to_numpy().T
        return middle, low, high
    return np.asarray(found, dtype=np.float64), None, None


def _draw_line(
    ax: Axes, grid: Any, factor_x: bool, line: Vector, low: Vector | None, high: Vector | None,
    place: int, count: int, label: str,
) -> None:  # fmt: skip
    color = ink().series(place)
    if factor_x:
        shift = 0.0 if count == 1 else 0.5 * ((place + 0.5) / count - 0.5)
        at = np.arange(len(grid)) + shift
        if low is not None and high is not None:
            lower, upper = np.column_stack([at, low]), np.column_stack([at, high])
            marks.segments(ax, lower, upper, color=color, width=1.6)  # fmt: skip
        ax.scatter(at, line, s=28, color=color, marker=MARKERS[place % 7], zorder=3,
                   label=label or None)  # fmt: skip
        return
    if low is not None and high is not None:
        ax.fill_between(grid, low, high, color=color, alpha=0.18 * ink().veil, linewidth=0)
    ax.plot(grid, line, color=color, ls=DASHES[place % len(DASHES)], lw=1.8, label=label or None)
