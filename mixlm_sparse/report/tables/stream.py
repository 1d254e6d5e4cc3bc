"""Results by row of a fit whose rows come in batches, one frame for each batch."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from mixlm_sparse.common.checks import require_one_of
from mixlm_sparse.model.batches.rows import Batches
from mixlm_sparse.model.fitted import FittedModel
from mixlm_sparse.report.tables.tidy import augment, plain_values
from mixlm_sparse.solve.rows import InMemory
from mixlm_sparse.solve.solution import fitted_rows, leverage_rows

__all__ = ["stream"]

RESULTS = {
    "augment": None,
    "fittedvalues": (".fitted",),
    "resid": (".resid",),
    "hatvalues": (".hat",),
}


def stream(fit: FittedModel, what: str = "augment") -> Iterator[pd.DataFrame]:
    """Walk over the rows again, and yield what the fit says of them, a frame for each batch.

    Parameters
    ----------
    what : "augment" for the columns of the formula with .fitted, .resid, .fixed, .hat, .std_resid
        and .cooksd as in `augment`; "fittedvalues", "resid" or "hatvalues" for one of them.

    Yields
    ------
    DataFrame : the rows used of one batch, indexed by their places in the data, counted from 0.
        A fit whose rows are in memory gives one frame.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> sleep = mx.datasets.load("sleepstudy")
    >>> batches = lambda: (sleep[start : start + 50] for start in range(0, 180, 50))
    >>> fit = mx.lmer("Reaction ~ Days + (Days | Subject)", batches)
    >>> [len(frame) for frame in fit.stream("augment")]
    [50, 50, 50, 30]
    """
    require_one_of("what", what, tuple(RESULTS))
    columns = RESULTS[what]
    source = fit.system.source
    if not isinstance(source, Batches):
        frame = augment(fit)
        return iter([frame if columns is None else frame[list(columns)]])
    return _frames(fit, source, columns)


def _frames(
    fit: FittedModel, source: Batches, columns: tuple[str, ...] | None
) -> Iterator[pd.DataFrame]:
    names = source.opened.names
    for rows, table, places, start in source.walk():
        frame = pd.DataFrame(index=pd.Index(places.astype(np.int64) + start))
        if columns is None:
            for name in names:
                frame[name] = plain_values(table.columns[name].take(places))
        _describe(fit, rows, frame, columns)
        yield frame


def _describe(
    fit: FittedModel, rows: InMemory, frame: pd.DataFrame, columns: tuple[str, ...] | None
) -> None:
    kept = fit.system.products.kept
    fitted = fitted_rows(fit.solution, rows.blocks(kept), rows.n)
    resid = rows.y - fitted
    wanted = columns or (".fitted", ".resid", ".fixed", ".hat", ".std_resid", ".cooksd")
    hat = np.empty(0)
    if {".hat", ".cooksd"} & set(wanted):
        hat = leverage_rows(fit.solution, rows.blocks(kept), rows.n)
    pearson = rows.whole().root_weighted(resid)
    with np.errstate(divide="ignore", invalid="ignore"):
        for name in wanted:
            if name == ".fitted":
                frame[name] = fitted
            elif name == ".resid":
                frame[name] = resid
            elif name == ".fixed":
                frame[name] = fitted_rows(fit.solution, rows.blocks(kept), rows.n, False)
            elif name == ".hat":
                frame[name] = hat
            elif name == ".std_resid":
                frame[name] = pearson / fit.sigma if fit.sigma > 0 else np.nan
            else:
                distance = (pearson / (1.0 - hat)) ** 2 * hat / (fit.scale * fit.system.p)
                frame[name] = distance if fit.sigma > 0 else np.nan
