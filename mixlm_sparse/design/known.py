"""Known covariances between the levels of a grouping factor: `known={"animal": A}`.

    Cov(b) = sigma^2 A (x) T T',    A (L, L) known, T (k, k) estimated

Whatever form A comes in, it is held as its inverse Q = A^{-1}, a root of that, Q = W'W, log|Q| and
the diagonal of A.  With b = (I (x) T) a, a ~ N(0, sigma^2 A (x) I), the penalty a'(Q (x) I)a takes
the place of u'u, and

    C = Lambda'Z'WZ Lambda + Q (x) I,    log|C| - k log|Q|

that of C with the identity: only Q enters, which for a pedigree is sparse where A is not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import scipy.linalg
import scipy.sparse as sp
from numpy.typing import NDArray

from mixlm_sparse.common.checks import listed, require_sound, shape_of, shown
from mixlm_sparse.common.errors import DataError, MissingArgumentError, OptionError
from mixlm_sparse.common.keywords import answering_calls
from mixlm_sparse.common.types import Matrix, Vector
from mixlm_sparse.design.grouping import GroupingFactor, MemberFactor, match_levels
from mixlm_sparse.design.levels import level_labels, native
from mixlm_sparse.design.pedigree import Pedigree

__all__ = [
    "Known", "Precision", "Relationship", "as_known", "places_among", "read_known",
    "require_factors", "with_known",
]  # fmt: skip

# Two halves of a symmetric matrix may differ by this share of its largest element.
SYMMETRIC_RTOL = 1e-8
# An eigenvalue below this share of the largest is zero: the matrix has no inverse.
SINGULAR_RTOL = 1e-10
# Above this order the roots of a sparse precision are found by its own sparse factor.
DENSE_ORDER = 3000


@dataclass(frozen=True, eq=False)
class Known:
    """A known covariance A of levels, by its inverse.

    Attributes
    ----------
    labels : (L,) the levels, in the order of the matrices.
    precision : (L, L) CSC, Q = A^{-1}.
    root : (L, L) CSC, W with Q = W'W; b = W^{-1} u has the covariance A.
    log_det : log|Q|.
    variances : (L,) diagonal of A.
    """

    labels: Any
    precision: sp.csc_array
    root: sp.csc_array
    log_det: float
    variances: Vector

    @property
    def n_levels(self) -> int:
        """Number of levels."""
        return len(self.labels)


@answering_calls
@dataclass(frozen=True, eq=False)
class Precision:
    """The inverse of a known covariance between levels, for `known=`.

    Parameters
    ----------
    Q : (L, L) symmetric positive definite, a SciPy sparse matrix or an array.
    labels : (L,) which level each row is; None takes those of a DataFrame.

    Examples
    --------
    >>> import numpy as np, scipy.sparse as sp
    >>> import mixlm_sparse as mx
    >>> Q = sp.csc_array(np.array([[1.2, -0.4, 0.0], [-0.4, 1.2, -0.4], [0.0, -0.4, 1.2]]))
    >>> mx.Precision(Q, ["a", "b", "c"]).labels
    ['a', 'b', 'c']
    """

    Q: Any
    labels: Any = None

    def __post_init__(self) -> None:
        Q, labels = _with_labels(self.Q, self.labels, "Precision", "Q")
        object.__setattr__(self, "Q", Q)
        object.__setattr__(self, "labels", labels)


@answering_calls
@dataclass(frozen=True, eq=False)
class Relationship:
    """A known covariance between levels, for `known=`: a matrix that is no frame, with its labels.

    Parameters
    ----------
    A : (L, L) symmetric positive definite, a SciPy sparse matrix or an array.
    labels : (L,) which level each row is; None takes those of a DataFrame.

    Examples
    --------
    >>> import numpy as np, mixlm_sparse as mx
    >>> batches = mx.datasets.load("Dyestuff")
    >>> A = mx.Relationship(0.5 * np.eye(6) + 0.5, list("ABCDEF"))
    >>> fit = mx.lmer("Yield ~ 1 + (1 | Batch)", batches, known={"Batch": A})
    >>> round(fit.criterion, 4)
    319.6543
    """

    A: Any
    labels: Any = None

    def __post_init__(self) -> None:
        A, labels = _with_labels(self.A, self.labels, "Relationship", "A")
        object.__setattr__(self, "A", A)
        object.__setattr__(self, "labels", labels)


def _with_labels(matrix: Any, labels: Any, kind: str, name: str) -> tuple[Any, Any]:
    """Return a matrix with its labels, which may be those of a frame."""
    if not isinstance(matrix, pd.DataFrame):
        if labels is None:
            raise MissingArgumentError(
                f"{kind} needs labels, which say the level of each row: write "
                f"mx.{kind}({name}, labels), or give a DataFrame with labels on both axes"
            )
        return matrix, labels
    own = _frame_of(matrix, f"{name} of {kind}") if labels is None else matrix
    if labels is None:
        return own.to_numpy(), own.index
    counted = isinstance(matrix.index, pd.RangeIndex)
    if not counted and shape_of(labels) == matrix.index.shape:
        if list(map(str, matrix.index)) != list(map(str, labels)):
            raise DataError(
                f"labels of {kind} are not those that the rows of {name} have: leave labels out, "
                f"or give {name}.to_numpy() if they are right"
            )
    return matrix.to_numpy(), labels


def _frame_of(frame: pd.DataFrame, what: str) -> pd.DataFrame:
    """Return a matrix with labels on both axes, its columns in the order of its rows."""
    if frame.shape[0] != frame.shape[1] or frame.index.equals(frame.columns):
        return frame
    if set(frame.index) != set(frame.columns):
        counted = isinstance(frame.index, pd.RangeIndex)
        remedy = ": set its index to its columns, if they are in one order" if counted else ""
        raise DataError(f"the rows and the columns of {what} have different labels{remedy}")
    return frame[list(frame.index)]


def read_known(known: Any) -> dict[str, Known] | None:
    """Return known matrices by grouping factor, each as `Known`; None for none.

    Raises
    ------
    OptionError, DataError : what is wrong, with the name of the factor.
    """
    if known is None:
        return None
    if not isinstance(known, Mapping) or not known:
        raise OptionError(
            f"known is {shown(known)}: give a dict from a grouping factor to its matrix, such as "
            "{'animal': A}, or leave it out"
        )
    return {str(name): as_known(str(name), given) for name, given in known.items()}


def as_known(name: str, given: Any) -> Known:
    """Return the known covariance of the levels of factor `name`.

    Parameters
    ----------
    given : DataFrame with labels on both axes, `Relationship`, `Precision` or `Pedigree`.
    """
    what = f"known['{name}']"
    if isinstance(given, Known):
        return given
    if isinstance(given, Pedigree):
        return Known(given.labels, given.precision, given.root, given.log_det, given.variances)
    if isinstance(given, Precision):
        Q = _symmetric(given.Q, what)
        labels = _labels(given.labels, Q.shape[0], what)
        return _of_precision(Q, labels, what)
    if isinstance(given, Relationship):
        A = _symmetric(given.A, what)
        labels = _labels(given.labels, A.shape[0], what)
    elif isinstance(given, pd.DataFrame):
        given = _frame_of(given, what)
        A = _symmetric(given.to_numpy(), what)
        labels = _labels(given.index, A.shape[0], what)
    else:
        raise OptionError(
            f"{what} is {shown(given)}: give a DataFrame with labels, mx.Relationship(A, labels), "
            "mx.Precision(Q, labels) or mx.Pedigree(id, sire, dam)"
        )
    return _of_covariance(A, labels, what)


def _symmetric(matrix: Any, what: str) -> Any:
    """Return a symmetric matrix of finite numbers, (L, L), dense or CSC."""
    sparse = sp.issparse(matrix)
    found: Any
    require_sound(what, matrix)
    try:
        found = (
            sp.csc_array(matrix).astype(np.float64)
            if sparse
            else np.array(matrix, dtype=np.float64)
        )
    except (TypeError, ValueError):
        raise DataError(f"{what} holds values that are not numbers") from None
    if found.ndim != 2 or found.shape[0] != found.shape[1] or not found.shape[0]:
        raise DataError(f"{what} has the shape {found.shape}: a square matrix is needed")
    values = found.data if sparse else found
    if not np.isfinite(values).all():
        raise DataError(f"{what} holds missing or infinite values")
    largest = float(np.abs(values).max(initial=0.0))
    if float(np.abs(found - found.T).max()) > SYMMETRIC_RTOL * largest:
        raise DataError(f"{what} is not symmetric: give the whole matrix, both halves")
    return 0.5 * (found + found.T)


def _labels(labels: Any, n: int, what: str) -> Any:
    values = native(pd.Index(labels).to_numpy())
    if len(values) != n:
        raise DataError(f"{what} has {n} rows and {len(values)} labels")
    names = pd.Index(np.asarray(level_labels(values), dtype=object))
    twice = names[names.duplicated()].unique()
    if len(twice):
        raise DataError(f"{what} has the label '{twice[0]}' more than once")
    return values


def _not_positive(what: str, least: float) -> DataError:
    problem = "not positive definite" if least < -SINGULAR_RTOL else "singular"
    remedy = (
        "a covariance matrix has no negative ones; look for a mistake in how it was computed"
        if least < -SINGULAR_RTOL
        else "levels that are the same (twins, clones) must be one level; or blend a little of the "
        "identity in, 0.99 A + 0.01 I"
    )
    return DataError(
        f"{what} is {problem} (its smallest eigenvalue is {least:.2g} of the largest): {remedy}"
    )


def _of_covariance(A: Any, labels: Any, what: str) -> Known:
    """Invert A by an eigenvalue decomposition, which judges it as well."""
    sparse = sp.issparse(A)
    if sparse and (A - sp.diags_array(A.diagonal())).count_nonzero() == 0:
        values = A.diagonal()
        if not (values > 0.0).all():
            raise _not_positive(what, float(values.min() / max(values.max(), 1e-300)))
        inverse = sp.csc_array(sp.diags_array(1.0 / values))
        root = sp.csc_array(sp.diags_array(1.0 / np.sqrt(values)))
        return Known(labels, inverse, root, -float(np.log(values).sum()), values.copy())
    dense: Matrix = A.toarray() if sparse else A
    values = scipy.linalg.eigvalsh(dense)
    if values[0] <= SINGULAR_RTOL * values[-1]:
        raise _not_positive(what, float(values[0] / max(abs(values[-1]), 1e-300)))
    L = np.linalg.cholesky(dense)
    W = scipy.linalg.solve_triangular(L, np.eye(L.shape[0]), lower=True)
    Q = W.T @ W
    log_det = -2.0 * float(np.log(np.diag(L)).sum())
    # what rounding leaves of a zero would fill the factor
    Q[np.abs(Q) < 1e-14 * np.sqrt(np.outer(np.diag(Q), np.diag(Q)))] = 0.0
    return Known(labels, sp.csc_array(Q), sp.csc_array(W), log_det, np.diag(dense).copy())


def _of_precision(Q: Any, labels: Any, what: str) -> Known:
    """Factor Q; a root W = L'P comes of its sparse Cholesky factor."""
    n = Q.shape[0]
    sparse = sp.csc_array(Q)
    if n > DENSE_ORDER:
        return _of_sparse_precision(sparse, labels, what)
    dense = sparse.toarray()
    values = scipy.linalg.eigvalsh(dense)
    if values[0] <= SINGULAR_RTOL * values[-1]:
        raise _not_positive(what, float(values[0] / max(abs(values[-1]), 1e-300)))
    L = np.linalg.cholesky(dense)
    inverse = scipy.linalg.solve_triangular(L, np.eye(n), lower=True)
    log_det = 2.0 * float(np.log(np.diag(L)).sum())
    return Known(labels, sparse, sp.csc_array(L.T), log_det, (inverse**2).sum(axis=0))


def _of_sparse_precision(Q: sp.csc_array, labels: Any, what: str) -> Known:
    """Factor a large Q by SuperLU without pivoting, in its symmetric mode."""
    from scipy.sparse.linalg import splu

    try:
        factor = splu(
            Q, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True}
        )
    except RuntimeError:
        raise _not_positive(what, 0.0) from None
    pivots = factor.U.diagonal()
    if not np.array_equal(factor.perm_r, factor.perm_c) or not (pivots > 0.0).all():
        raise _not_positive(what, float(pivots.min() / max(pivots.max(), 1e-300)))
    if pivots.min() <= SINGULAR_RTOL * pivots.max():
        raise _not_positive(what, float(pivots.min() / pivots.max()))
    n = Q.shape[0]
    # rows and columns permuted alike: Q[order][:, order] = L D L'
    order = np.argsort(factor.perm_c)
    P = sp.csc_array((np.ones(n), (np.arange(n), order)), shape=(n, n))
    W = sp.csc_array(sp.diags_array(np.sqrt(pivots)) @ factor.L.T @ P)
    variances = np.empty(n)
    for first in range(0, n, 512):
        unit = np.zeros((n, min(512, n - first)))
        unit[first + np.arange(unit.shape[1]), np.arange(unit.shape[1])] = 1.0
        solved = factor.solve(unit)
        variances[first : first + unit.shape[1]] = solved[
            first + np.arange(unit.shape[1]), np.arange(unit.shape[1])
        ]
    return Known(labels, Q, W, float(np.log(pivots).sum()), variances)


def places_among(group: GroupingFactor, known: Known) -> NDArray[np.int64]:
    """Return where the levels of a factor are among those of a known matrix, (n_levels,).

    Raises
    ------
    DataError : a level is not among them.
    """
    if group.keys is not None:
        raise DataError(
            f"known['{group.label}'] is for combinations of factors: make one column of their "
            "names and use it as the grouping factor"
        )
    place = match_levels(known.labels, group.tables[0])
    absent = np.flatnonzero(place < 0)
    if absent.size:
        names = [group.levels[i] for i in absent[:6].tolist()]
        raise DataError(
            f"known['{group.label}'] lacks {absent.size} of the {group.n_levels} levels in the "
            f"data: {listed(names, quoted=True)}{', ...' if absent.size > 6 else ''}; are the "
            "labels those of the column?"
        )
    return place


def require_factors(known: Mapping[str, Known] | None, labels: Sequence[str]) -> None:
    """Raise an OptionError unless known matrices are of grouping factors of the formula."""
    unknown = [name for name in known or {} if name not in labels]
    if unknown:
        raise OptionError(
            f"known names '{unknown[0]}', which is no grouping factor of the formula: it has "
            f"{listed(tuple(dict.fromkeys(labels)), quoted=True)}"
        )


def with_known(group: GroupingFactor, known: Known) -> GroupingFactor:
    """Return the grouping factor with the levels of a known covariance, also those without rows.

    Raises
    ------
    DataError : a level of the data is not among those of the matrix.
    """
    place = places_among(group, known)
    if isinstance(group, MemberFactor):
        assert group.members is not None
        members = group.members.relabelled(place, known.n_levels)
        return group.of_members(members, known.n_levels, (known.labels,), known)
    codes = place[group.codes].astype(np.int32)
    return GroupingFactor(
        group.label, codes, known.n_levels, (known.labels,), None, known=known
    )
