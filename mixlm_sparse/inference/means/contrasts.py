"""Contrasts of estimates: families by name, given weights, interaction contrasts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from itertools import product
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from mixlm_sparse.common.checks import require_count, require_names, shown
from mixlm_sparse.common.errors import OptionError
from mixlm_sparse.common.types import Matrix, Vector
from mixlm_sparse.inference.means.estimates import Estimates, written
from mixlm_sparse.inference.means.families import (
    MOST_DEGREES,
    USUAL,
    Coefficients,
    given_contrasts,
    named_family,
    require_method,
)

E = TypeVar("E", bound=Estimates)

EACH = "each"  # asks for the simple contrasts of every factor in turn
COMPARED = "."  # stands in the column of the factor whose levels are compared
NOTHING_TO_COMPARE = (
    "there is only one cell in each group, so that there is nothing to compare: name a "
    "factor, or values of a covariate with at="
)


def contrasts_of(
    means: E,
    method: Any,
    *,
    by: Any = "same",
    ref: Any = None,
    reverse: bool = False,
    max_degree: int = MOST_DEGREES,
) -> E:
    """Return contrasts of the cells of each family.

    Parameters
    ----------
    means : means, slopes, or contrasts themselves.
    method : name of a family, or weights in any form of `given_contrasts`; weights for all rows of
        the table cross the families.
    by : columns of the cells that separate families; "same" as in `means`.
    ref, reverse, max_degree : see `named_family`.
    """
    max_degree = require_count("max_degree", max_degree, most=MOST_DEGREES)
    columns = tuple(_by(means, by))
    named = require_method(method) if isinstance(method, str) else ""
    families = means.families(columns)
    labels = means.labels(columns)
    if not named and len(families) > 1 and _width(method) == len(means.cells):
        columns, families = (), [({}, np.arange(len(means.cells)))]
        labels = means.labels(())
    pieces: list[tuple[dict[str, Any], np.ndarray, Coefficients]] = []
    for key, rows in families:
        mine = [labels[i] for i in rows.tolist()]
        if named:
            if len(rows) < 2 and named != "identity":
                continue
            found = named_family(
                named, mine, ref=ref, reverse=reverse, max_degree=max_degree
            )
        else:
            if ref is not None:
                raise OptionError("ref is for method='trt.vs.ctrl': weights have no reference")
            found = given_contrasts(method, mine)
            found = replace(found, M=-found.M) if reverse else found
        if _is_ratio(means):
            found = replace(found, labels=_as_ratios(found, mine))
        pieces.append((key, rows, found))
    if not pieces:
        raise OptionError(NOTHING_TO_COMPARE)
    cells = _stacked([(key, {_free(columns): list(c.labels)}) for key, _, c in pieces])
    M = np.zeros((len(cells), len(means.cells)))
    start = 0
    for _, rows, found in pieces:
        stop = start + len(found.labels)
        M[start:stop, rows] = found.M
        start = stop
    return _combined(means, M, cells, columns, named or "given weights")


def is_each(means: Estimates, simple: Any) -> bool:
    """Return whether `simple` asks for every factor in turn, and names none of them."""
    return isinstance(simple, str) and simple == EACH and EACH not in means.cells.columns


def contrasts_in_turn(means: E, method: Any, **options: Any) -> E:
    """Return the simple contrasts of every factor, within each combination of the others.

    The families of the table are those of all factors; in the column of the factor that is compared
    stands `COMPARED`.

    Parameters
    ----------
    method : name of a family.
    options : as in `contrasts_of`.
    """
    if not isinstance(method, str):
        raise OptionError(
            "simple='each' is for a family by name: with weights of your own, name the factor that "
            "they compare"
        )
    factors = list(map(str, means.cells.columns))
    if len(factors) == 1:
        return contrasts_of(means, method, by=None, **options)
    several = [name for name in factors if means.cells[name].nunique() > 1]
    if not several:
        raise OptionError(NOTHING_TO_COMPARE)
    name = _free(tuple(factors))
    parts, frames = [], []
    for factor in several:
        part = contrasts_of(means, method, by=without(means, factor), **options)
        own = {other: part.cells[other].astype(object) for other in part.by}
        own[factor] = pd.Series([COMPARED] * len(part.cells), dtype=object)
        frames.append(pd.DataFrame({**own, name: part.cells.iloc[:, -1]})[[*factors, name]])
        parts.append(part)
    return replace(
        parts[0],
        cells=pd.concat(frames, ignore_index=True),
        by=tuple(factors),
        L=np.vstack([part.L for part in parts]),
        offset=np.concatenate([part.offset for part in parts]),
        sums=np.concatenate([part.sums for part in parts if part.sums is not None]),
    )


def interaction_contrasts(means: E, methods: Any, *, by: Any = "same") -> E:
    """Return products of contrasts of each factor of the table.

    Parameters
    ----------
    methods : a family for all factors, or one for each of them in their order.
    """
    columns = tuple(_by(means, by))
    factors = [name for name in means.cells.columns if name not in columns]
    several = not isinstance(methods, str) and isinstance(methods, Sequence)
    if several and len(methods) != len(factors):
        raise OptionError(
            f"interaction has {len(methods)} families, the table has the factors "
            f"{', '.join(factors)}: give one for each, or one for all"
        )
    given = list(methods) if several else [methods] * len(factors)
    names = [require_method(one) for one in given]
    if not factors:
        raise OptionError(NOTHING_TO_COMPARE)
    parts: list[tuple[dict[str, Any], np.ndarray, Matrix, list[tuple[str, ...]]]] = []
    for key, rows in means.families(columns):
        cells = means.cells.iloc[rows]
        levels = [list(dict.fromkeys(cells[name])) for name in factors]
        found = map(tuple, cells[factors].to_numpy(dtype=object))
        place = dict(zip(found, rows.tolist(), strict=True))
        whole = list(product(*levels))
        if any(cell not in place for cell in whole):
            raise OptionError(
                "interaction contrasts need every combination of "
                f"{' and '.join(factors)}, and some do not exist: use contrast with by="
            )
        if any(len(own) < 2 for own in levels):
            raise OptionError(NOTHING_TO_COMPARE)
        own = [
            named_family(name, [written(v) for v in values])
            for name, values in zip(names, levels, strict=True)
        ]
        order = np.array([place[cell] for cell in whole])
        parts.append((
            key, order, reduce(_kron, [c.M for c in own]),
            list(product(*(c.labels for c in own))),
        ))  # fmt: skip
    heads = [f"{factor}_{name}" for factor, name in zip(factors, names, strict=True)]
    frame = _stacked([
        (key, dict(zip(heads, map(list, zip(*labels, strict=True)), strict=True)))
        for key, _, _, labels in parts
    ])  # fmt: skip
    M = np.zeros((len(frame), len(means.cells)))
    start = 0
    for _, order, own_M, labels in parts:
        M[start : start + len(labels), order] = own_M
        start += len(labels)
    return _combined(means, M, frame, columns, "interaction")


def _stacked(pieces: list[tuple[dict[str, Any], dict[str, list[str]]]]) -> pd.DataFrame:
    """Return the names of contrasts of all groups, each beside the values of its group."""
    frames = []
    for key, names in pieces:
        count = len(next(iter(names.values())))
        frames.append(pd.DataFrame({**{k: [v] * count for k, v in key.items()}, **names}))
    return pd.concat(frames, ignore_index=True)


def _kron(A: Matrix, B: Matrix) -> Matrix:
    out: Matrix = np.kron(A, B).astype(np.float64, copy=False)
    return out


def usual_adjustment(means: Estimates) -> str:
    """Return how contrasts are adjusted unless the user says otherwise."""
    return USUAL.get(means.method, "none")


def _combined(
    means: E, M: Matrix, cells: pd.DataFrame, by: tuple[str, ...], method: str
) -> E:
    # a row that is not estimable makes those that it takes part in so, and no others
    def combine(values: Matrix) -> Matrix:
        bad = ~np.isfinite(values).reshape(len(values), -1).all(axis=1)
        out = M @ np.where(bad.reshape((-1,) + (1,) * (values.ndim - 1)), 0.0, values)
        out[(M[:, bad] != 0.0).any(axis=1)] = np.nan
        return np.asarray(out)

    sums: Vector = np.ones(len(means.cells)) if means.sums is None else means.sums
    return replace(
        means,
        what="estimate",
        cells=cells,
        by=by,
        L=combine(means.L),
        offset=combine(means.offset),
        method=method,
        sums=M @ sums,
    )


def _by(means: Estimates, by: Any) -> list[str]:
    if isinstance(by, str) and by == "same" and "same" not in means.cells.columns:
        return list(means.by)
    if by is None:
        return []
    return require_names("by", by, list(map(str, means.cells.columns)), "column", empty=True)


def _free(columns: tuple[str, ...]) -> str:
    name = "contrast"
    while name in columns:
        name += "1"
    return name


def _width(method: Any) -> int:
    """Return how many means the weights are for."""
    if isinstance(method, dict):
        values = list(method.values())
        return _width(values[0]) if values and not np.isscalar(values[0]) else 0
    try:
        return int(np.asarray(method, dtype=np.float64).shape[-1])
    except (TypeError, ValueError, IndexError, OverflowError, MemoryError):
        return 0


def _is_ratio(means: Estimates) -> bool:
    back = means.transform
    return means.type == "response" and back is not None and back.ratio


def _as_ratios(found: Coefficients, labels: list[str]) -> tuple[str, ...]:
    """Return "a / b" for what is called "a - b"."""
    by_difference = {f"{a} - {b}": f"{a} / {b}" for a in labels for b in labels}
    return tuple(by_difference.get(label, label) for label in found.labels)


def without(means: Estimates, names: Any) -> list[str]:
    """Return the columns beside those named, which `simple=` compares."""
    columns = list(map(str, means.cells.columns))
    simple = require_names("simple", names, columns, "column")
    left = [name for name in columns if name not in simple]
    if len(simple) == len(columns) and not left:
        return []
    if not left and not simple:
        raise OptionError(f"simple is {shown(names)}: name the factor to compare")
    return left
