"""Grouping factors: rows to levels, and levels to names."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixlm_sparse.common.types import IntVector
from mixlm_sparse.design.evaluate import FactorValue
from mixlm_sparse.design.levels import factorize, level_labels
from mixlm_sparse.design.variables import Variables, used_levels
from mixlm_sparse.formula.syntax import Expr

__all__ = ["GroupingFactor", "encode_groups", "grouping_factor", "match_levels"]


@dataclass(frozen=True)
class GroupingFactor:
    """Levels of a grouping factor; only those that occur, in order, or those of a known matrix.

    Attributes
    ----------
    label : `Subject`, or `gen:popu` for the combinations of two factors.
    codes : (n,) int32, 0 to n_levels - 1.
    n_levels : number of levels.
    tables : values of the levels of every component, in order.
    keys : (n_levels,) for several components: position of each level among all combinations, the
        first component varying slowest; increasing.
    known : the known covariance of the levels (`design.known.Known`), or None.
    """

    label: str
    codes: IntVector
    n_levels: int
    tables: tuple[Any, ...] = field(default=(), repr=False, compare=False)
    keys: NDArray[np.int64] | None = field(default=None, repr=False, compare=False)
    known: Any = field(default=None, repr=False, compare=False)

    @cached_property
    def index(self) -> pd.Index[Any]:
        """The levels in the type that the data have (numbers, dates, truth values, text).

        An index of (n_levels,) named by the factor, so that results join with the data; names of
        combinations are text.
        """
        typed = len(self.tables) == 1 and self.keys is None
        values = self.tables[0] if typed else self.levels
        index: pd.Index[Any]
        try:
            index = pd.Index(values, name=self.label)
        except UnicodeEncodeError:  # pandas' text cannot hold lone surrogates
            index = pd.Index(np.asarray(values, dtype=object), dtype=object, name=self.label)
        return index

    @cached_property
    def levels(self) -> list[str]:
        """Names of the levels: "308", "4:1.SP"."""
        labels = [level_labels(table) for table in self.tables]
        if not labels:
            return [str(level) for level in range(1, self.n_levels + 1)]
        if self.keys is None:
            return list(labels[0])
        parts = np.unravel_index(self.keys, tuple(len(table) for table in labels))
        columns = [
            [table[place] for place in part.tolist()]
            for table, part in zip(labels, parts, strict=True)
        ]
        return [":".join(level) for level in zip(*columns, strict=True)]


def grouping_factor(
    label: str, components: tuple[Expr, ...], variables: Variables
) -> GroupingFactor:
    """Return the grouping factor of the given components on the rows of `variables`.

    Levels are ordered as in R: the categories where given, else sorted; of combinations the first
    factor varies slowest. Levels and combinations that do not occur are dropped.
    """
    factors = [_compressed(variables.factor_value(expr)) for expr in components]
    codes, levels = factors[0]
    if len(factors) == 1:
        return GroupingFactor(label, codes, len(levels), (levels,))
    tables = tuple(levels for _, levels in factors)
    combined = _combine([codes for codes, _ in factors], tables)
    codes, keys = factorize(combined)
    return GroupingFactor(label, codes, len(keys), tables, keys)


def _compressed(value: FactorValue) -> tuple[IntVector, Any]:
    """Return codes (n,) int32 into the levels that occur, and these levels."""
    used = used_levels(value.codes, len(value.levels))
    if used is None:
        return value.codes.astype(np.int32, copy=False), value.levels
    lookup = np.cumsum(used, dtype=np.int32) - 1
    return lookup[value.codes].astype(np.int32, copy=False), value.levels[np.flatnonzero(used)]


def _combine(codes: list[IntVector], tables: tuple[Any, ...]) -> NDArray[np.int64]:
    combined = codes[0].astype(np.int64)
    for component, table in zip(codes[1:], tables[1:], strict=True):
        combined *= len(table)
        combined += component
    return combined


def encode_groups(
    known: GroupingFactor, components: tuple[Expr, ...], variables: Variables
) -> tuple[IntVector, list[str]]:
    """Return the codes of new rows among known levels, -1 for others, and the labels of these.

    Levels are matched by name, so that the type of the column may have changed on the way.
    """
    positions = []
    parts = []
    for expr, table in zip(components, known.tables, strict=True):
        codes, levels = _compressed(variables.factor_value(expr))
        positions.append(match_levels(table, levels)[codes])
        parts.append((levels, codes))
    result = positions[0]
    if known.keys is not None:
        unknown = result < 0
        result = result.copy()
        for position, table in zip(positions[1:], known.tables[1:], strict=True):
            unknown |= position < 0
            result *= len(table)
            result += position
        place = np.minimum(np.searchsorted(known.keys, result), known.n_levels - 1)
        result = np.where(~unknown & (known.keys[place] == result), place, -1)
    outside = np.flatnonzero(result < 0)
    columns = []
    for levels, codes in parts:
        labels = np.asarray(level_labels(levels), dtype=object)
        columns.append(labels[codes[outside]])
    unknown_labels = (":".join(row) for row in zip(*columns, strict=True))
    return result.astype(np.int32), list(dict.fromkeys(unknown_labels))


def match_levels(known: Any, levels: Any) -> NDArray[np.int64]:
    """Return the place of each level among the known ones, -1 where it is not among them."""
    # pandas' hash table: quick for many levels, and made for each call only
    if np.asarray(known).dtype.kind in "iuf" and np.asarray(levels).dtype.kind in "iuf":
        found = pd.Index(known).get_indexer(pd.Index(levels))
    else:
        names, wanted = (
            pd.Index(np.asarray(level_labels(table), dtype=object), dtype=object)
            for table in (known, levels)
        )
        found = names.get_indexer(wanted)
    return np.asarray(found, dtype=np.int64)
