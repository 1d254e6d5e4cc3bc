"""`membership=`: a factor of which rows have several levels, given as a matrix of weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import NDArray

from mixlm_sparse.common.checks import plain_name, require_bool, require_sound, shape_of, shown
from mixlm_sparse.common.errors import DataError, OptionError
from mixlm_sparse.common.keywords import answers_unknown_keywords
from mixlm_sparse.design.levels import level_labels, native
from mixlm_sparse.design.members import Members

__all__ = ["Joined", "Membership", "joined", "membership", "signed_membership"]


@dataclass(frozen=True, eq=False)
class Membership:
    """Levels and weights of rows that belong to several levels; made by `mx.membership`.

    Attributes
    ----------
    labels : (L,) values of the levels.
    members : the weights by row.
    index : row labels of the frame that it was made of, or None.
    signed : weights may be negative, and rows may have no level: columns of one's own.
    """

    labels: Any
    members: Members
    index: Any = None
    signed: bool = False

    def __len__(self) -> int:
        return len(self.members)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and levels."""
        return len(self.members), self.members.n_levels

    def __repr__(self) -> str:
        n, L = self.shape
        most = int(self.members.counts.max(initial=0))
        return f"<membership: {n} rows in {L} levels, up to {most} a row>"


@answers_unknown_keywords
def membership(
    matrix: Any = None,
    labels: Any = None,
    *,
    levels: Any = None,
    weights: Any = None,
    normalize: bool = False,
) -> Membership:
    """Say to which levels of a grouping factor each row belongs, with weights.

    The random effect of a row is the weighted sum of those of its levels, as for pupils who have
    been to several schools, or papers with several authors.  Give it to
    ``lmer(..., membership={"school": ...})``, where `school` is the name in the formula.

    Parameters
    ----------
    matrix : (n, L) weights, a DataFrame with the levels as columns, a SciPy sparse matrix or an
        array.  Zero: the row does not belong to that level.
    labels : (L,) the levels, where `matrix` has no names of columns.
    levels : in the place of `matrix`, (n, k) the levels that each row has, a DataFrame or an
        array; missing where a row has fewer than k.
    weights : (n, k) of `levels`; by default one each.
    normalize : divide the weights of every row by their sum.  They are taken as they are by
        default: a row with weights 1, 1 has the sum of two effects, one with .5, .5 their mean.

    Raises
    ------
    DataError : weights that are missing, negative or no numbers, labels that are not unique.

    Notes
    -----
    Z'WZ of such a factor is not block diagonal: it has a block for every two levels that share a
    row.  It is factored as a sparse matrix; memory and time grow with those pairs, in a row with s
    levels s (s - 1) / 2 of them.

    Examples
    --------
    >>> import mixlm_sparse as mx, pandas as pd
    >>> W = pd.DataFrame({"a": [1, 0.5, 0, 0], "b": [0, 0.5, 1, 0.2], "c": [0, 0, 0, 0.8]})
    >>> mx.membership(W)
    <membership: 4 rows in 3 levels, up to 2 a row>
    >>> mx.membership(levels=[["a", None], ["a", "b"]], normalize=True).members.weights
    array([1. , 0.5, 0.5])
    """
    require_bool("normalize", normalize)
    if (matrix is None) == (levels is None):
        raise OptionError(
            "membership needs one of two: matrix, the weights of all levels, or levels, those that "
            "each row has"
        )
    if isinstance(matrix, Membership):
        return matrix
    if levels is not None:
        if labels is not None:
            raise OptionError("labels go with matrix: leave them out beside levels")
        found = _of_levels(levels, weights)
    elif weights is not None:
        raise OptionError("weights go with levels: the numbers of matrix are the weights")
    else:
        found = _of_matrix(matrix, labels)
    _require_weights(found)
    if not normalize:
        return found
    members = found.members
    total = np.bincount(members.row, members.weights, minlength=len(members))
    scaled = members.weights / np.repeat(total, members.counts)
    own = Members(members.starts, members.levels, scaled, members.n_levels)
    return Membership(found.labels, own, found.index)


def signed_membership(matrix: Any, labels: Any = None) -> Membership:
    """Return a random term's own matrix Z (n, L), with any weights, also rows of zeros."""
    found = _of_matrix(matrix, labels)
    return Membership(found.labels, found.members, found.index, signed=True)


def _of_matrix(matrix: Any, labels: Any) -> Membership:
    index = matrix.index if isinstance(matrix, pd.DataFrame) else None
    if isinstance(matrix, pd.DataFrame):
        labels = matrix.columns if labels is None else labels
        sparse = all(isinstance(dtype, pd.SparseDtype) for dtype in matrix.dtypes)
        stored: Any = matrix.sparse if sparse and matrix.shape[1] else None
        matrix = matrix.to_numpy() if stored is None else stored.to_coo()
    if not sp.issparse(matrix) and len(shape_of(matrix)) != 2:
        raise OptionError(
            f"membership is {shown(matrix)}: give an (n, levels) DataFrame, SciPy sparse matrix or "
            "array of weights"
        )
    kind = getattr(matrix, "dtype", None)
    if sp.issparse(matrix) and np.dtype(kind).kind not in "iufb":
        raise DataError(f"membership is a sparse matrix of {kind}: give one of numbers")
    require_sound("membership", matrix)
    members = Members.of(matrix if sp.issparse(matrix) else _numbers(matrix, "membership"))
    L = members.n_levels
    values = np.arange(1, L + 1) if labels is None else _labels(labels)
    if len(values) != L:
        raise DataError(f"membership has {L} columns and {len(values)} labels")
    twice = [name for name, count in Counter(level_labels(values)).items() if count > 1]
    if twice:
        raise DataError(f"membership has the level '{twice[0]}' more than once: add its columns up")
    return Membership(values, members, index)


def _numbers(values: Any, what: str) -> NDArray[np.float64]:
    """Return an array of numbers, NaN where they are masked."""
    try:
        raw = np.ma.filled(values, np.nan) if np.ma.isMaskedArray(values) else np.asarray(values)
        if raw.dtype.kind not in "iufbO":
            raise TypeError
        return np.asarray(raw, dtype=np.float64)
    except (TypeError, ValueError, OverflowError, MemoryError):
        raise DataError(f"{what} holds values that are not numbers: give weights") from None


def _labels(labels: Any) -> Any:
    if len(shape_of(labels)) != 1:
        raise OptionError(f"labels is {shown(labels)}: give the levels, one for each column")
    try:
        return native(pd.Index(labels).to_numpy())
    except (UnicodeEncodeError, OverflowError):  # lone surrogates; numbers beyond all floats
        return np.asarray(list(labels), dtype=object)


def _of_levels(levels: Any, weights: Any) -> Membership:
    if len(shape_of(levels)) != 2:
        raise OptionError(
            f"levels is {shown(levels)}: give the levels that each row has, an (n, k) DataFrame or "
            "array"
        )
    frame = pd.DataFrame(levels)
    index = levels.index if isinstance(levels, pd.DataFrame) else None
    try:
        codes, values = pd.factorize(frame.to_numpy(dtype=object).ravel(), sort=True)
    except TypeError:
        raise DataError(
            "the levels of membership are of different types, such as numbers and text: convert "
            "them to text"
        ) from None
    there = codes >= 0
    if weights is None:
        w = np.ones(codes.size)
    else:
        given = _numbers(weights, "weights")
        if given.shape != shape_of(frame):
            raise DataError(
                f"membership has levels of shape {frame.shape} and weights of shape {given.shape}: "
                "give a weight for each"
            )
        w = given.ravel()
        lost = ~there & np.isfinite(w) & (w != 0.0)
        if lost.any():
            first = int(np.flatnonzero(lost)[0]) // frame.shape[1]
            raise DataError(
                f"row {first} of membership has a weight without a level: name the level, or make "
                "the weight 0"
            )
    row = np.repeat(np.arange(len(frame)), frame.shape[1])
    shape = (len(frame), len(values))
    matrix = sp.csr_array((w[there], (row[there], codes[there])), shape=shape)
    return Membership(np.asarray(values), Members.of(matrix), index)


def _require_weights(found: Membership) -> None:
    w = found.members.weights
    bad = ~np.isfinite(w)
    if bad.any():
        row = int(found.members.row[np.flatnonzero(bad)[0]])
        raise DataError(
            f"row {row} of membership has a missing or infinite weight: write 0 for levels that it "
            "does not belong to"
        )
    if (w < 0.0).any():
        at = int(np.flatnonzero(w < 0.0)[0])
        raise DataError(
            f"row {int(found.members.row[at])} of membership has the negative weight {w[at]:g}: "
            "weights are shares; a matrix Z of any numbers goes into mx.fit_matrices"
        )


@dataclass(frozen=True, eq=False)
class Joined:
    """A frame, and columns beside it that no frame can hold.

    Attributes
    ----------
    data : the frame, of any kind.
    memberships : by the name of the column; they stand before a column of the frame.
    """

    data: Any
    memberships: Mapping[str, Membership]


def joined(data: Any, given: Any, argument: str = "membership") -> Any:
    """Return data with memberships beside them; the data as they are without.

    Raises
    ------
    OptionError : `given` is no dictionary of memberships.
    """
    if given is None:
        return data
    if not isinstance(given, Mapping) or not given:
        raise OptionError(
            f"{argument} is {shown(given)}: give a dict from a grouping factor to its membership, "
            "such as {'school': mx.membership(W)}, or leave it out"
        )
    read = {}
    for name, value in given.items():
        if not isinstance(name, str):
            raise OptionError(f"{argument} has the key {shown(name)}: use names of factors")
        read[plain_name(name)] = membership(value)
    return Joined(data, read)
