"""A design from arrays instead of a formula: what `fit_matrices` takes, checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse

from mixlm_sparse.common.checks import (
    listed,
    require_names,
    require_one_of,
    require_same_index,
    shape_of,
    shown,
)
from mixlm_sparse.common.errors import DataError, OptionError
from mixlm_sparse.common.keywords import answering_calls
from mixlm_sparse.common.text import in_brackets
from mixlm_sparse.common.types import IntVector, Matrix, Vector
from mixlm_sparse.covariance.random import covariance_structure, structure_class, structure_names
from mixlm_sparse.design.columns import ArrayColumns
from mixlm_sparse.design.finite import require_range, require_weight_range
from mixlm_sparse.design.grouping import GroupingFactor, member_factor
from mixlm_sparse.design.known import read_known, with_known
from mixlm_sparse.design.levels import native
from mixlm_sparse.design.matrices import ModelMatrices, RandomTerm
from mixlm_sparse.design.members import Members
from mixlm_sparse.design.membership import Membership, signed_membership
from mixlm_sparse.design.table import as_column


@answering_calls
@dataclass(frozen=True, eq=False, repr=False)
class RandomEffect:
    """One random-effects term for `fit_matrices`.

    Parameters
    ----------
    groups : (n,) label of each row's group, of any kind; or `mx.membership(...)`, for rows with
        several groups; or a SciPy sparse matrix (n, L) of any numbers, the term's own Z: one random
        effect for each of its columns, or one for each of `columns` times these.
    columns : (n, k) model columns of the term; None for a random intercept.
    name : of the grouping factor; terms with the same name share it.
    column_names : (k,) names of the columns.
    structure : its covariance structure: "us" (general), "diag", "id", "cs", "ar1", "toep"; one
        variance or several as "cs(hom = TRUE)", "toep(hom = TRUE)", "ar1(hom = FALSE)".

    Examples
    --------
    >>> import numpy as np, mixlm_sparse as mx
    >>> sleep = mx.datasets.load("sleepstudy")
    >>> X = np.column_stack([np.ones(len(sleep)), sleep["Days"]])
    >>> term = mx.RandomEffect(sleep["Subject"], X, name="Subject", structure="diag")
    >>> mx.fit_matrices(sleep["Reaction"], X, [term]).theta.round(4)
    array([0.9799, 0.2342])
    """

    groups: Any
    columns: Any = None
    name: str | None = None
    column_names: Sequence[str] | None = None
    structure: str = "us"

    def __post_init__(self) -> None:
        require_one_of("structure", self.structure, structure_names())

    def __repr__(self) -> str:
        return in_brackets(f"RandomEffect {self.structure}: groups are {shown(self.groups)}")


def array_matrices(
    y: Any,
    X: Any,
    terms: Sequence[RandomEffect | tuple[Any, ...]],
    x_names: Sequence[str] | None,
    y_name: str,
    weights: Any,
    offset: Any,
    known: Any = None,
) -> ModelMatrices:
    """Check the arrays and put them together; the arguments are those of `fit_matrices`."""
    response = numbers("y", y)
    n = response.shape[0]
    fixed, names = _columns("X", X, x_names, n, "x")
    if not isinstance(y_name, str):
        raise OptionError(f"y_name is {shown(y_name)}: use a name, as text")
    if not isinstance(terms, list | tuple):
        raise OptionError(f"terms is {shown(terms)}: give a list of random terms")
    if not terms:
        raise DataError("there is no random term: give at least one, such as (groups,)")
    factors, built = _random_terms(terms, n)
    factors = _with_known(factors, known)
    _require_one_index(y, X, terms, weights, offset)
    w = None if weights is None else numbers("weights", weights, n)
    if w is not None and not (w > 0.0).all():
        raise DataError("weights must be positive: drop rows with a weight of zero")
    if w is not None:
        require_weight_range(w, "weights")
    return ModelMatrices(
        y=response,
        fixed=ArrayColumns(names, fixed),
        factors=factors,
        terms=built,
        weights=w,
        offset=None if offset is None else numbers("offset", offset, n),
        nobs=n,
        n_input=n,
        response_name=y_name,
        index=y.index if isinstance(y, pd.Series) else None,
    )


def _with_known(factors: tuple[GroupingFactor, ...], known: Any) -> tuple[GroupingFactor, ...]:
    """Return the factors with the known covariances of their levels."""
    given = read_known(known) or {}
    labels = tuple(factor.label for factor in factors)
    unknown = [name for name in given if name not in labels]
    if unknown:
        raise OptionError(
            f"known names '{unknown[0]}', and the terms have the groups "
            f"{listed(labels, quoted=True)}: name them, as in (groups, None, '{unknown[0]}')"
        )
    return tuple(with_known(f, given[f.label]) if f.label in given else f for f in factors)


def _require_one_index(
    y: Any, X: Any, terms: Sequence[RandomEffect | tuple[Any, ...]], weights: Any, offset: Any
) -> None:
    """Refuse Series and frames of which the rows have different labels."""
    given = {"y": y, "X": X, "weights": weights, "offset": offset}
    for i, one in enumerate(terms):
        term = one if isinstance(one, RandomEffect) else _from_tuple(one)
        given[f"terms[{i}].groups"], given[f"terms[{i}].columns"] = term.groups, term.columns
    labelled = {k: v for k, v in given.items() if isinstance(v, pd.Series | pd.DataFrame)}
    first = next(iter(labelled), None)
    for name, value in labelled.items():
        require_same_index(name, value, labelled[str(first)].index, of=str(first))


def _random_terms(
    terms: Sequence[RandomEffect | tuple[Any, ...]], n: int
) -> tuple[tuple[GroupingFactor, ...], tuple[RandomTerm, ...]]:
    """Return the distinct grouping factors and the terms; terms of one name share a factor."""
    factors: dict[str, GroupingFactor] = {}
    built = []
    counts: dict[str, int] = {}
    for i, given in enumerate(terms):
        term = given if isinstance(given, RandomEffect) else _from_tuple(given)
        if not isinstance(term.name, str | None):
            raise OptionError(f"the name of terms[{i}] is {shown(term.name)}: use text")
        label = term.name or f"g{i + 1}"
        factor = _grouping(label, term.groups, n)
        first = factors.setdefault(label, factor)
        if not same_groups(first, factor):
            raise DataError(
                f"two terms are named {label!r} but have different groups: give them other names"
            )
        if term.columns is None:
            array = np.ones((n, 1))
            columns: tuple[str, ...] = ("(Intercept)",)
        else:
            what = f"the columns of term {label!r}"
            array, columns = _columns(what, term.columns, term.column_names, n, "z")
            if not columns:
                raise DataError(f"term {label!r} has no columns: leave it out")
        count = counts[label] = counts.get(label, -1) + 1
        covariance_structure(term.structure, len(columns))  # is there such a structure?
        built.append(
            RandomTerm(
                name=label if count == 0 else f"{label}.{count}",
                factor=list(factors).index(label),
                column_names=columns,
                structure=term.structure,
                columns=ArrayColumns(columns, array),
            )
        )
    return tuple(factors.values()), tuple(built)


def _from_tuple(given: tuple[Any, ...]) -> RandomEffect:
    if not isinstance(given, tuple) or not 1 <= len(given) <= 3:
        raise OptionError(
            "a random term is RandomEffect(...) or a tuple: (groups,), (groups, columns) or "
            "(groups, columns, name)"
        )
    return RandomEffect(*given)


def numbers(what: str, values: Any, n: int | None = None) -> Vector:
    """Return an array of one number for each row as a vector of its own.

    Parameters
    ----------
    what : name in messages.
    n : number of rows expected.

    Raises
    ------
    DataError : no numbers, a missing (or masked) or infinite value, or a wrong length.
    """
    shape = shape_of(values)
    if len(shape) != 1 and shape[1:] != (1,):
        of_shape = "" if shape and hasattr(values, "shape") else f", of shape {shape}"
        raise DataError(f"{what} is {shown(values)}{of_shape}: give one number for each row")
    column = as_column(what, values)
    if column.kind not in ("number", "bool"):
        kind = "dates or times" if column.kind == "datetime" else "text or categories"
        raise DataError(f"{what} is not numeric, but holds {kind}: convert it")
    if n is not None and column.values.shape != (n,):
        raise DataError(f"{what} has {len(column.values)} values for {n} rows")
    out = np.array(column.values, dtype=np.float64)
    bad = ~np.isfinite(out)
    if column.missing is not None:
        bad |= column.missing
    _refuse(what, int(bad.sum()))
    require_range(out, what)
    return out


def _refuse(what: str, bad: int) -> None:
    if bad:
        raise DataError(f"{what} has {bad} missing or infinite values: leave those rows out")


def _columns(
    what: str, values: Any, given: Sequence[str] | None, n: int, prefix: str
) -> tuple[Matrix, tuple[str, ...]]:
    if given is None and hasattr(values, "columns"):  # a frame of any library
        given = [str(c) for c in values.columns]
    array = _matrix(what, values, n)
    k = array.shape[1]
    if given is None:
        names = tuple(
            "(Intercept)" if j == 0 and bool((array[:, 0] == 1.0).all()) else f"{prefix}{j + 1}"
            for j in range(k)
        )
    else:
        names = tuple(require_names(f"the names of {what}", given))
    if len(names) != k or len(set(names)) != k:
        raise DataError(
            f"{what} has {k} columns and the names {listed(names)}: give {k} different names"
        )
    return array, names


def _matrix(what: str, values: Any, n: int | None = None) -> Matrix:
    """Return an (n, k) array of its own."""
    if scipy.sparse.issparse(values):
        values = values.toarray()  # type: ignore[attr-defined]
    masked = int(np.ma.getmaskarray(values).sum()) if np.ma.isMaskedArray(values) else 0
    _refuse(what, masked)
    try:
        raw = np.asarray(values)
        if raw.dtype.kind not in "iufbO":
            raise TypeError
        array = np.array(raw, dtype=np.float64, order="C")
    except (TypeError, ValueError, OverflowError, MemoryError):
        raise DataError(f"{what} is not numeric: convert it") from None
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2 or (n is not None and array.shape[0] != n):
        rows = "number of rows" if n is None else n
        raise DataError(f"{what} has shape {array.shape}, expected ({rows}, number of columns)")
    _refuse(what, int(array.size - np.isfinite(array).sum()))
    require_range(array, what)
    return array


def same_groups(first: GroupingFactor, second: GroupingFactor) -> bool:
    """Say whether two factors have the same levels in the same rows."""
    a, b = first.row_levels, second.row_levels
    if isinstance(a, Members) and isinstance(b, Members):
        return (
            np.array_equal(a.starts, b.starts)
            and np.array_equal(a.levels, b.levels)
            and np.array_equal(a.weights, b.weights)
        )
    return isinstance(a, np.ndarray) and isinstance(b, np.ndarray) and np.array_equal(a, b)


def _grouping(label: str, groups: Any, n: int) -> GroupingFactor:
    if isinstance(groups, Membership) or scipy.sparse.issparse(groups):
        return _several_groups(label, groups, n)
    listed_labels = isinstance(groups, list | tuple)
    shape = () if listed_labels else shape_of(groups)
    if not shape and not listed_labels:
        raise DataError(
            f"the groups of term {label!r} are {shown(groups)}: give one label for each row"
        )
    if len(shape) > 1 and shape[1:] != (1,):
        raise DataError(
            f"the groups of term {label!r} are of shape {shape}: give one label for each row, or "
            "the term's own Z as a SciPy sparse matrix, scipy.sparse.csr_array(Z)"
        )
    if any(scipy.sparse.issparse(one) for one in groups):
        raise DataError(
            f"the groups of term {label!r} are several matrices: a term has one Z, with a column "
            "for each level; give each matrix a term of its own, whose effects are independent of "
            "the others'"
        )
    try:
        codes, levels = _factorized(groups)
    except (TypeError, ValueError, ArithmeticError):  # lists, halves of characters, sNaN, no unit
        raise DataError(
            f"the groups of term {label!r} are {shown(groups)}, which cannot be told apart: give "
            "numbers or text"
        ) from None
    if codes.shape != (n,):
        raise DataError(f"the groups of term {label!r} have shape {codes.shape}, expected ({n},)")
    if (codes < 0).any():
        raise DataError(f"the groups of term {label!r} have missing values: leave those rows out")
    if len(levels) < 2:
        raise DataError(
            f"grouping factor {label!r} has {len(levels)} level; a random effect needs at least 2: "
            "remove the term"
        )
    return GroupingFactor(label, codes, len(levels), (levels,))


def _several_groups(label: str, groups: Any, n: int) -> GroupingFactor:
    given = groups if isinstance(groups, Membership) else signed_membership(groups)
    if len(given) != n:
        raise DataError(f"the groups of term {label!r} have {len(given)} rows, expected {n}")
    _refuse(f"Z of term {label!r}", int((~np.isfinite(given.members.weights)).sum()))
    factor = member_factor(label, given, np.arange(n, dtype=np.int32))
    if factor.n_levels < 2:
        raise DataError(
            f"grouping factor {label!r} has {factor.n_levels} level with a row; a random effect "
            "needs at least 2: remove the term"
        )
    return factor


def _factorized(groups: Any) -> tuple[IntVector, pd.Index[Any]]:
    """Return codes and levels; categories keep their order, unused ones are dropped."""
    categorical = pd.Categorical(native(groups)).remove_unused_categories()
    return np.ascontiguousarray(categorical.codes, dtype=np.int32), categorical.categories


def described(matrices: ModelMatrices) -> str:
    """Write a formula from the names of the columns."""
    fixed = ["1" if name == "(Intercept)" else name for name in matrices.fixed.names]
    if "1" not in fixed:
        fixed.insert(0, "0")
    random = []
    for term in matrices.terms:
        inner = ["1" if name == "(Intercept)" else name for name in term.column_names]
        if "1" not in inner:
            inner.insert(0, "0")
        bar = f"{' + '.join(inner)} | {matrices.factors[term.factor].label}"
        random.append(structure_class(term.structure).written(bar))
    return f"{matrices.response_name or 'y'} ~ {' + '.join([*fixed, *random])}"
