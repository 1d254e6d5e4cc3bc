"""What can be estimated where columns of X are combinations of others.

A combination l'beta of the coefficients of all columns is estimable if l lies in the row space of
X, and only then does it have a value that does not depend on which columns a fit leaves out, on the
names of levels or on their coding.  With C = Q'WX the coordinates of all columns in an orthonormal
basis of the kept ones, l is in the row space if l = C'a for some a; the kept columns tell which a,
the others whether it is true of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from weakref import WeakKeyDictionary

import numpy as np

from mixlm_sparse.common.errors import RankDeficiencyWarning
from mixlm_sparse.common.types import Matrix
from mixlm_sparse.inference.fixed.spans import column_lengths, span_and_complement
from mixlm_sparse.model.fitted import FittedModel
from mixlm_sparse.model.notes import warn_of
from mixlm_sparse.solve.products.basis import stack_qr

# A combination that misses what it must be by more than this share is not estimable.
ESTIMABLE_RTOL = 1e-7
ROUNDING = 1e-12  # entries below this share of the largest of a combination are rounding errors

KEPT_AS = "coordinates"  # of `fit.kept`, where the rows are gone

_KEPT: WeakKeyDictionary[FittedModel, Matrix] = WeakKeyDictionary()


def column_coordinates(fit: FittedModel) -> Matrix:
    """Return all columns of X, dropped ones too, in an orthonormal basis of the kept ones.

    Returns
    -------
    C (p, p_all), Q'WX with X[:, kept] = Q C[:, kept] and Q'WQ = I; do not change it.
    """
    found = _KEPT.get(fit)
    if found is not None:
        return found
    products = fit.system.products
    if not fit.system.dropped:
        return products.R_x
    kept: Mapping[str, Matrix] | None = fit.kept.get(KEPT_AS)
    if kept is not None:
        return kept["C"]
    # to the last digit, for what has no rows must come out as zero
    R: Matrix | None = None
    for block in fit.system.white_source.blocks():
        R = stack_qr(R, block.root_weighted(block.X))
    assert R is not None
    Q = np.linalg.qr(R[:, list(products.kept)])[0]
    out: Matrix = Q.T @ R
    _KEPT[fit] = out
    return out


def estimable(fit: FittedModel, L: Matrix) -> np.ndarray:
    """Return which rows of L (r, p_all), about the coefficients of all columns, are estimable."""
    kept = list(fit.system.products.kept)
    dropped = [j for j in range(L.shape[1]) if j not in set(kept)]
    if not dropped:
        return np.ones(L.shape[0], dtype=bool)
    C = column_coordinates(fit)
    a = np.zeros((len(kept), L.shape[0]))
    if kept:
        a[:] = np.linalg.solve(C[:, kept].T, L[:, kept].T)
    missed = np.abs(L[:, dropped] - a.T @ C[:, dropped])
    size = np.outer(column_lengths(a), column_lengths(C[:, dropped]))
    noise = ROUNDING * np.abs(L).max(axis=1, initial=0.0)[:, None]
    out: np.ndarray = (missed <= ESTIMABLE_RTOL * size + noise).all(axis=1)
    return out


def kept_part(fit: FittedModel, L: Matrix) -> Matrix:
    """Return L (r, p_all) for the kept columns, (r, p); rows of NaN where not estimable."""
    out = L[:, list(fit.system.products.kept)].copy()
    out[~estimable(fit, L)] = np.nan
    return out


def warn_not_estimable(fit: FittedModel, what: Sequence[str], why: str) -> str:
    """Warn, unless the fit's control is silent, that results are NaN; return the sentence.

    Parameters
    ----------
    what : the cells, hypotheses or terms; why : the reason and the remedy.
    """
    from_few = ", ".join(what[:3]) + (f" and {len(what) - 3} more" if len(what) > 3 else "")
    text = f"not estimable, so NaN: {from_few}; {why}"
    if fit.options.control.warn:
        warn_of(((RankDeficiencyWarning, text),))
    return text


def estimable_part(fit: FittedModel, L: Matrix) -> Matrix:
    """Return combinations of the rows of L (r, p_all) that are estimable, all of them, (s, p).

    Rows of NaN are left out; s = r where everything is estimable.
    """
    L = L[np.isfinite(L).all(axis=1)]
    if estimable(fit, L).all():
        return kept_part(fit, L)
    kept = list(fit.system.products.kept)
    dropped = [j for j in range(L.shape[1]) if j not in set(kept)]
    C = column_coordinates(fit)
    a: Matrix = np.zeros((len(kept), L.shape[0]))
    if kept:
        a[:] = np.linalg.solve(C[:, kept].T, L[:, kept].T)
    missed = L[:, dropped] - a.T @ C[:, dropped]
    size = np.outer(column_lengths(a), column_lengths(C[:, dropped])).max()
    missed[np.abs(missed) <= ESTIMABLE_RTOL * size] = 0.0
    out: Matrix = span_and_complement(missed)[1].T @ L[:, kept]
    return out
