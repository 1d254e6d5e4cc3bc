"""Compact letter displays: means that share a letter do not differ significantly.

The letters are the maximal sets of means of which no two differ, each once: what the method of
inserting and absorbing columns arrives at.

References
----------
Piepho (2004), doi:10.1198/1061860043515; Gramm et al. (2007), doi:10.1109/TCBB.2006.1.
"""

from __future__ import annotations

import numpy as np

from mixlm_sparse.common.errors import OptionError

MOST_SETS = 5000
ALPHABET = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


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
