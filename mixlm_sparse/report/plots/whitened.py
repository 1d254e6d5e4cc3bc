"""Residuals of a fit with a residual structure, before and after they are whitened."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mixlm_sparse.common.text import percent
from mixlm_sparse.inference.models.serial import acf, variogram
from mixlm_sparse.model.fitted import FittedModel
from mixlm_sparse.report.plots import canvas
from mixlm_sparse.report.plots.inks import ink

if TYPE_CHECKING:
    from mixlm_sparse.report.plots.backend import Axes, Figure


def acf_before_and_after(
    fit: FittedModel, figure: Figure, one: Axes, time: Any, max_lag: int | None, level: float
) -> Figure:
    """Draw the autocorrelation of residuals before and after they are whitened."""
    if max_lag is None:
        max_lag = int(acf(fit, None, time)["lag"].max())
    for kind, color, place in (("pearson", ink().grey, -0.12), ("normalized", ink().blue, 0.12)):
        table = acf(fit, None, time, type=kind, max_lag=max_lag, level=level)
        lag = table["lag"].to_numpy(dtype=float) + place
        one.vlines(lag, 0.0, table["acf"], color=color, lw=1.6)
        said = "before" if kind == "pearson" else "after whitening"
        one.scatter(lag, table["acf"], s=20, color=color, zorder=3, label=said)
    for sign in (-1.0, 1.0):
        one.plot(table["lag"][1:], sign * table["limit"][1:], color=ink().orange, ls="--", lw=1.1)
    one.axhline(0.0, color=ink().front, lw=0.9)
    one.locator_params(axis="x", integer=True)
    one.set_xlabel(f"lag ({table.attrs['note'].partition('within ')[2]})")
    one.set_ylabel("correlation of residuals")
    one.set_title(f"dashes: {percent(level)} limits for independent residuals")
    canvas.legend(one)
    return figure


def variograms(fit: FittedModel, figure: Figure, one: Axes, time: Any, bins: int) -> Figure:
    """Draw the semivariogram of residuals before and after they are whitened."""
    one.axhline(1.0, color=ink().front, lw=0.9)
    top = 1.15
    for kind, color in (("pearson", ink().grey), ("normalized", ink().blue)):
        table = variogram(fit, None, time, type=kind, bins=bins)
        size = 15.0 + 60.0 * table["pairs"] / table["pairs"].max()
        said = "before" if kind == "pearson" else "after whitening"
        one.plot(table["distance"], table["variogram"], color=color, lw=1.0, zorder=1)
        one.scatter(
            table["distance"], table["variogram"], s=size, color=color, zorder=3, label=said
        )
        top = max(top, 1.1 * float(table["variogram"].max()))
    one.set_ylim(0.0, top)
    one.set_xlabel(f"distance ({table.attrs['note'].partition('within ')[2]})")
    one.set_ylabel("semivariogram")
    canvas.legend(one)
    return figure
