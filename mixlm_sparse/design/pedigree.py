"""Pedigrees: the inverse of the numerator relationship matrix, without forming the matrix.

With P the matrix that has 1/2 at an animal's known parents and D the diagonal of the Mendelian
sampling variances, the breeding values satisfy a = P a + m, Cov(m) = D, so that

    A^{-1} = (I - P)' D^{-1} (I - P),    W = D^{-1/2} (I - P)
    d_i = 1/2 - (F_sire + F_dam) / 4,    F = -1 for a parent that is not known

Inbreeding F_i = A_ii - 1 is half the relationship of the parents.  With T = (I - P)^{-1}, the
relationships of one animal with all others are T D T'e, two passes over the pedigree; animals are
taken by generations, and in each by the parents of that sex which has fewer of them.

References
----------
Henderson (1976), doi:10.2307/2529339; Quaas (1976), doi:10.2307/2529279; Colleau (2002),
doi:10.1186/1297-9686-34-4-409; Sargolzaei, Iwaisaki and Colleau (2005),
doi:10.1111/j.1439-0388.2005.00538.x.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import NDArray

from mixlm_sparse.common.checks import listed, shape_of, shown
from mixlm_sparse.common.errors import DataError
from mixlm_sparse.common.keywords import answering_calls
from mixlm_sparse.common.types import Vector
from mixlm_sparse.engines.compiled import njit

__all__ = ["Pedigree"]

Places = NDArray[np.int64]


@answering_calls
class Pedigree:
    """A pedigree, for `known={"animal": mx.Pedigree(id, sire, dam)}`.

    Parameters
    ----------
    id : (n,) animals, each once, in any order.
    sire, dam : (n,) their parents; missing (None, NaN, "" or 0 beside numbers that are not 0) where
        not known.  A parent that has no row of its own is a founder: it is added.

    Attributes
    ----------
    labels : (L,) all animals, parents before their offspring.
    inbreeding : (L,) Series of F by animal.
    precision : (L, L) CSC, A^{-1}.

    Raises
    ------
    DataError : an animal has two rows, or descends from itself.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> pedigree = mx.Pedigree(["c", "d", "e"], ["a", "a", "c"], ["b", "b", "d"])
    >>> float(pedigree.inbreeding["e"])
    0.25
    """

    def __init__(self, id: Any, sire: Any, dam: Any) -> None:
        columns = [_column(name, v) for name, v in (("id", id), ("sire", sire), ("dam", dam))]
        lengths = {len(values) for values, _ in columns}
        if len(lengths) != 1:
            raise DataError(
                f"id, sire and dam have {', '.join(str(len(v)) for v, _ in columns)} values: give "
                "one of each for every animal"
            )
        (own, no_id), (sires, no_sire), (dams, no_dam) = columns
        if not len(own) or no_id.any():
            raise DataError("the pedigree has animals without an id: every row needs one")
        index = pd.Index(own)
        twice = index[index.duplicated()].unique()
        if len(twice):
            raise DataError(f"the pedigree has '{twice[0]}' more than once: one row for an animal")
        parents = pd.Index(np.concatenate([sires[~no_sire], dams[~no_dam]])).unique()
        founders = parents[~parents.isin(index)]
        labels = index.append(founders) if len(founders) else index
        n = len(labels)
        s, d = np.full(n, -1, dtype=np.int64), np.full(n, -1, dtype=np.int64)
        s[np.flatnonzero(~no_sire)] = labels.get_indexer(pd.Index(sires[~no_sire]))
        d[np.flatnonzero(~no_dam)] = labels.get_indexer(pd.Index(dams[~no_dam]))
        order = _parents_first(s, d)
        if order.size < n:
            left = np.setdiff1d(np.arange(n), order)
            names = [str(labels[i]) for i in _a_loop(s, d, left)]
            raise DataError(
                f"the pedigree has a loop: {' is a parent of '.join([*names, names[0]])}; an "
                "animal cannot descend from itself"
                if len(names) < 8
                else f"the pedigree has a loop through {listed(names[:6], quoted=True)}, ...: an "
                "animal cannot descend from itself"
            )
        rank = np.empty(n + 1, dtype=np.int64)
        rank[order] = np.arange(n)
        rank[n] = -1  # of -1
        self._sire, self._dam = rank[s[order]], rank[d[order]]
        self.labels = labels[order].to_numpy()
        F, D = _inbreeding(self._sire, self._dam)
        self._F, self._D = F, D

    def __repr__(self) -> str:
        founders = int(((self._sire < 0) & (self._dam < 0)).sum())
        inbred = int((self._F > 1e-12).sum())
        return f"<Pedigree of {len(self.labels)} animals, {founders} founders, {inbred} inbred>"

    @property
    def inbreeding(self) -> pd.Series[float]:
        """Coefficients of inbreeding, by animal."""
        return pd.Series(self._F, index=pd.Index(self.labels), name="inbreeding")

    @property
    def variances(self) -> Vector:
        """(L,) diagonal of A: 1 + F."""
        return 1.0 + self._F

    @property
    def root(self) -> sp.csc_array:
        """W = D^{-1/2} (I - P), (L, L) with A^{-1} = W'W."""
        n = len(self.labels)
        rows, cols, values = [np.arange(n)], [np.arange(n)], [np.ones(n)]
        for parent in (self._sire, self._dam):
            known = np.flatnonzero(parent >= 0)
            rows.append(known)
            cols.append(parent[known])
            values.append(np.full(known.size, -0.5))
        at = np.concatenate(rows), np.concatenate(cols)
        B = sp.coo_array((np.concatenate(values), at), shape=(n, n)).tocsr()
        return sp.csc_array(sp.diags_array(1.0 / np.sqrt(self._D)) @ B)

    @property
    def precision(self) -> sp.csc_array:
        """A^{-1} = W'W, (L, L)."""
        W = self.root
        return sp.csc_array(W.T @ W)

    @property
    def log_det(self) -> float:
        """log|A^{-1}| = -sum log d_i."""
        return -float(np.log(self._D).sum())

    def relationship(self) -> pd.DataFrame:
        """Return A itself, (L, L): for small pedigrees, and to look at."""
        n = len(self.labels)
        A = np.zeros((n, n))
        for i in range(n):
            parents = [p for p in (self._sire[i], self._dam[i]) if p >= 0]
            row = 0.5 * sum((A[p, :i] for p in parents), np.zeros(i))
            A[i, :i] = A[:i, i] = row
            A[i, i] = 1.0 + self._F[i]
        return pd.DataFrame(A, index=self.labels, columns=self.labels)


def _column(name: str, values: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return (n,) values and which of them are missing."""
    if isinstance(values, str):
        raise DataError(f"{name} is the text {shown(values)}: give the column, data[{values!r}]")
    if len(shape_of(values)) > 1:
        raise DataError(
            f"{name} is {shown(values)}: give three columns, mx.Pedigree(data['id'], data['sire'], "
            "data['dam'])"
        )
    series = pd.Series(values) if not isinstance(values, pd.Series) else values
    if isinstance(series.dtype, pd.CategoricalDtype):
        series = series.astype(series.cat.categories.dtype)
    missing = series.isna().to_numpy()
    if pd.api.types.is_numeric_dtype(series.dtype):
        numbers = series.to_numpy(dtype=np.float64, na_value=np.nan)
        if not np.array_equal(numbers[~missing], np.round(numbers[~missing])):
            raise DataError(f"{name} of the pedigree has numbers that are not whole: use labels")
        if name != "id":
            missing = missing | (numbers == 0.0)
        whole = np.where(missing, 0, np.nan_to_num(numbers)).astype(np.int64)
        return whole, missing
    objects = series.to_numpy(dtype=object)
    if name != "id":
        missing = missing | np.array([isinstance(v, str) and v == "" for v in objects])
    return objects, missing


def _parents_first(sire: Places, dam: Places) -> Places:
    """Return an order in which parents come first; animals on loops, and what follows, are not in.

    Where the order given has parents first, it is kept.
    """
    n = sire.size
    own = np.arange(n, dtype=np.int64)
    if (sire < own).all() and (dam < own).all():
        return own
    return np.asarray(_sorted(sire, dam))


@njit
def _sorted(sire, dam):  # type: ignore[no-untyped-def]
    n = sire.shape[0]
    waiting = np.zeros(n, dtype=np.int64)
    first = np.full(n, -1, dtype=np.int64)  # linked lists of offspring, two entries an animal
    following = np.full(2 * n, -1, dtype=np.int64)
    for i in range(n):
        for which in range(2):
            p = sire[i] if which == 0 else dam[i]
            if p >= 0:
                waiting[i] += 1
                following[2 * i + which] = first[p]
                first[p] = 2 * i + which
    order = np.empty(n, dtype=np.int64)
    filled = 0
    for i in range(n):
        if waiting[i] == 0:
            order[filled] = i
            filled += 1
    done = 0
    while done < filled:
        at = first[order[done]]
        done += 1
        while at >= 0:
            child = at // 2
            waiting[child] -= 1
            if waiting[child] == 0:
                order[filled] = child
                filled += 1
            at = following[at]
    return order[:filled]


def _a_loop(sire: Places, dam: Places, left: Places) -> list[int]:
    """Return the animals of one loop, each a parent of the next."""
    among = set(left.tolist())
    seen: dict[int, int] = {}
    path: list[int] = []
    at = int(left[0])
    while at not in seen:
        seen[at] = len(path)
        path.append(at)
        at = next(int(p) for p in (sire[at], dam[at]) if int(p) in among)
    return path[seen[at] :][::-1]


def _inbreeding(sire: Places, dam: Places) -> tuple[Vector, Vector]:
    """Return F and D, (n,) each, of animals in an order with parents first.

    By generations: the Mendelian variances of all that came before are known then.
    """
    n = sire.size
    generation = np.asarray(_generations(sire, dam))
    F, D = np.zeros(n), np.ones(n)
    x = np.zeros(n)
    both = (sire >= 0) & (dam >= 0)
    order = np.argsort(generation, kind="stable")
    bounds = np.searchsorted(generation[order], np.arange(int(generation.max()) + 2))
    for g in range(1, bounds.size - 1):
        members = order[bounds[g] : bounds[g + 1]]
        D[members] = 0.5 - 0.25 * (
            np.where(sire[members] >= 0, F[sire[members]], -1.0)
            + np.where(dam[members] >= 0, F[dam[members]], -1.0)
        )
        members = members[both[members]]
        if not members.size:
            continue
        one, other = sire[members], dam[members]
        if np.unique(other).size < np.unique(one).size:
            one, other = other, one
        by = np.lexsort((other, one))
        _related(one[by], other[by], members[by], sire, dam, D, x, F)
    return F, D


@njit
def _generations(sire, dam):  # type: ignore[no-untyped-def]
    n = sire.shape[0]
    out = np.zeros(n, dtype=np.int64)
    for i in range(n):
        for p in (sire[i], dam[i]):
            if p >= 0 and out[p] + 1 > out[i]:
                out[i] = out[p] + 1
    return out


@njit
def _related(one, other, members, sire, dam, D, x, F):  # type: ignore[no-untyped-def]
    # F_i = a(one, other) / 2, with a(., one) = T D T' e_one by one pass up and one down for each
    # animal `one`, all of whose mates are together
    m = members.shape[0]
    start = 0
    while start < m:
        a = one[start]
        stop = start
        while stop < m and one[stop] == a:
            stop += 1
        last = other[stop - 1]  # mates ascend
        top = max(a, last)
        for j in range(top + 1):
            x[j] = 0.0
        x[a] = 1.0
        for j in range(a, -1, -1):  # T'e: shares in the ancestors
            v = x[j]
            if v != 0.0:
                if sire[j] >= 0:
                    x[sire[j]] += 0.5 * v
                if dam[j] >= 0:
                    x[dam[j]] += 0.5 * v
        for j in range(last + 1):  # T D: covariances
            v = x[j] * D[j]
            if sire[j] >= 0:
                v += 0.5 * x[sire[j]]
            if dam[j] >= 0:
                v += 0.5 * x[dam[j]]
            x[j] = v
        for k in range(start, stop):
            F[members[k]] = 0.5 * x[other[k]]
        start = stop
