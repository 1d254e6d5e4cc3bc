"""Compact letter displays: means that share a letter do not differ significantly.

The letters are the maximal sets of means of which no two differ, each once: what the method of
inserting and absorbing columns arrives at.

References
----------
Piepho (2004), doi:10.1198/1061860043515; Gramm et al. (2007), doi:10.1109/TCBB.2006.1.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from mixlm_sparse.common.errors import OptionError
from mixlm_sparse.common.types import Vector
from mixlm_sparse.inference.means.estimates import Estimates

MOST_SETS = 5000
ALPHABET = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


def lettered(
    means: Estimates, table: pd.DataFrame, p: Vector, *, alpha: float, reverse: bool
) -> pd.DataFrame:
    """Return the table of means with their letters, sorted by the estimate in each family.

    Parameters
    ----------
    table : of the means; p : of all pairs of each family, in the order of the upper triangle.
    """
    middle = means.tested().estimate
    pieces, start = [], 0
    for _, rows in means.families():
        k = len(rows)
        differ = np.zeros((k, k), dtype=bool)
        count = k * (k - 1) // 2
        differ[np.triu_indices(k, 1)] = p[start : start + count] < alpha
        differ |= differ.T
        start += count
        known = np.flatnonzero(np.isfinite(middle[rows]))
        sign = -1.0 if reverse else 1.0
        order = known[np.argsort(sign * middle[rows][known], kind="stable")]
        found = compact_letters(differ[np.ix_(order, order)])
        rest = np.setdiff1d(np.arange(k), known)
        piece = table.iloc[rows[np.r_[order, rest]]].copy()
        piece["letters"] = [*found, *[""] * len(rest)]
        pieces.append(piece)
    return pd.concat(pieces, ignore_index=True)


def compact_letters(differ: np.ndarray) -> list[str]:
    """Return the letters of k means, in the order given.

    Parameters
    ----------
    differ : (k, k) symmetric, whether two means differ.

    Raises
    ------
    OptionError : more than `MOST_SETS` letters.

    Examples
    --------
    >>> far = np.abs(np.subtract.outer(range(4), range(4))) > 1
    >>> compact_letters(far)
    ['a', 'ab', 'bc', 'c']
    """
    k = differ.shape[0]
    sets: list[frozenset[int]] = [frozenset(range(k))]
    for i in range(k):
        for j in range(i):
            if not differ[i, j]:
                continue
            pieces = []
            for one in sets:
                pieces += [one - {i}, one - {j}] if i in one and j in one else [one]
            # what lies within another says nothing more
            distinct = sorted(dict.fromkeys(pieces), key=len, reverse=True)
            sets = []
            for one in distinct:
                if not any(one <= other for other in sets):
                    sets.append(one)
            if len(sets) > MOST_SETS:
                raise OptionError(
                    f"more than {MOST_SETS} letters would be needed: look at pairs() instead"
                )
    sets.sort(key=sorted)
    names = [_letter(i) for i in range(len(sets))]
    return ["".join(n for n, s in zip(names, sets, strict=True) if i in s) for i in range(k)]


def _letter(i: int) -> str:
    return ALPHABET[i] if i < len(ALPHABET) else f"({i + 1})"
