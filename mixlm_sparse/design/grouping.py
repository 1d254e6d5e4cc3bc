"""Grouping factors: rows to levels, and levels to names."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixlm_sparse.common.errors import DataError, OptionError
from mixlm_sparse.common.text import shorten
from mixlm_sparse.common.types import IntVector
from mixlm_sparse.design.evaluate import FactorValue
from mixlm_sparse.design.levels import MAX_INT64, factorize, level_labels
from mixlm_sparse.design.members import Members, RowLevels
from mixlm_sparse.design.membership import Membership
from mixlm_sparse.design.variables import Variables, used_levels
from mixlm_sparse.formula.syntax import Expr, Name

__all__ = [
    "GroupingFactor", "MemberFactor", "combined_keys", "components_of", "encode_groups",
    "grouping_factor", "match_levels", "member_factor", "placed_members", "require_countable",
]  # fmt: skip


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

    @property
    def row_levels(self) -> RowLevels:
        """The levels of the n rows: their codes, or several with weights."""
        return self.codes

    @property
    def row_counts(self) -> NDArray[np.int64]:
        """(n_levels,) rows that have each level."""
        return np.bincount(self.codes, minlength=self.n_levels)

    def take(self, rows: NDArray[np.integer[Any]]) -> GroupingFactor:
        """Return the factor on some of the rows; levels stay, also those without rows."""
        return replace(self, codes=self.codes[rows])

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
        parts = components_of(self.keys, labels)
        columns = [
            [table[place] for place in part.tolist()]
            for table, part in zip(labels, parts, strict=True)
        ]
        return [":".join(level) for level in zip(*columns, strict=True)]


@dataclass(frozen=True, eq=False, repr=False)
class MemberFactor(GroupingFactor):
    """A grouping factor of which rows have several levels; what asks for one is refused."""

    members: Members | None = None

    def __getattribute__(self, name: str) -> Any:
        if name == "codes":
            raise OptionError(
                f"this looks at the rows of every level of '{self.label}' by themselves, and its "
                "rows belong to several levels (membership): it is not available for such a factor"
            )
        return super().__getattribute__(name)

    def __repr__(self) -> str:
        return f"<MemberFactor '{self.label}': {self.n_levels} levels>"

    @property
    def row_levels(self) -> RowLevels:
        """The levels of the n rows, with weights."""
        assert self.members is not None
        return self.members

    @property
    def row_counts(self) -> NDArray[np.int64]:
        """(n_levels,) rows that have each level."""
        assert self.members is not None
        return np.bincount(self.members.levels, minlength=self.n_levels)

    def take(self, rows: NDArray[np.integer[Any]]) -> GroupingFactor:
        """Return the factor on some of the rows; levels stay, also those without rows."""
        assert self.members is not None
        return self.of_members(self.members[rows], self.n_levels, self.tables, self.known)

    def of_members(
        self, members: Members, n_levels: int, tables: tuple[Any, ...], known: Any
    ) -> MemberFactor:
        """Return the factor with other rows or levels."""
        none = np.empty(0, dtype=np.int32)
        return MemberFactor(self.label, none, n_levels, tables, self.keys, known, members)


def member_factor(label: str, given: Membership, rows: NDArray[np.integer[Any]]) -> MemberFactor:
    """Return the factor of a membership on some of its rows; levels without rows are dropped.

    Raises
    ------
    DataError : a row has no level.
    """
    members = given.members[rows]
    if not given.signed:
        _require_a_level(label, members, rows)
    used = np.bincount(members.levels, minlength=members.n_levels) > 0
    count = int(used.sum())
    members = members.relabelled(np.cumsum(used) - 1, count)
    none = np.empty(0, dtype=np.int32)
    tables = (np.asarray(given.labels)[used],)
    return MemberFactor(label, none, count, tables, None, None, members)


def _require_a_level(label: str, members: Members, rows: NDArray[np.integer[Any]]) -> None:
    empty = np.flatnonzero(members.counts == 0)
    if empty.size:
        more = f" (and {empty.size - 1} more)" if empty.size > 1 else ""
        raise DataError(
            f"row {int(rows[empty[0]])}{more} of the membership of '{label}' belongs to no level: "
            "leave such rows out with subset=, or give them a level of their own"
        )


def _membership_of(
    label: str, components: tuple[Expr, ...], variables: Variables
) -> tuple[int, Membership, IntVector] | None:
    """Return which component of a grouping factor is a membership, and its rows; None for none."""
    found: tuple[int, Membership, IntVector] | None = None
    for place, expr in enumerate(components):
        column = variables.scope.columns.get(expr.id) if isinstance(expr, Name) else None
        if column is None or column.kind != "membership":
            continue
        if found is not None:
            raise DataError(
                f"'{label}' combines two memberships: make one of their combinations, with a name "
                "of its own and the weights that a row has in each"
            )
        found = place, column.levels, column.values
    return found


def _parts_of_entries(
    label: str,
    components: tuple[Expr, ...],
    variables: Variables,
    found: tuple[int, Membership, IntVector],
) -> tuple[Members, list[tuple[IntVector, Any]]]:
    """Return the members of a combination, and its components' codes (entries,) and levels.

    A row in several levels of one component has as many combinations, with the same weights.
    """
    place, given, rows = found
    members = given.members[rows]
    _require_a_level(label, members, rows)
    row, parts = members.row, []
    for at, expr in enumerate(components):
        if at == place:
            parts.append((members.levels, np.asarray(given.labels)))
        else:
            codes, levels = _compressed(variables.factor_value(expr))
            parts.append((codes[row], levels))
    return members, parts


def _combined_members(
    label: str,
    components: tuple[Expr, ...],
    variables: Variables,
    found: tuple[int, Membership, IntVector],
) -> MemberFactor:
    """Return the factor of the combinations of a membership with other factors."""
    members, parts = _parts_of_entries(label, components, variables, found)
    tables = tuple(levels for _, levels in parts)
    require_countable(label, tables)
    codes, keys = factorize(combined_keys([codes for codes, _ in parts], tables))
    none = np.empty(0, dtype=np.int32)
    own = members.with_levels(codes, len(keys))
    return MemberFactor(label, none, len(keys), tables, keys, None, own)


def grouping_factor(
    label: str, components: tuple[Expr, ...], variables: Variables
) -> GroupingFactor:
    """Return the grouping factor of the given components on the rows of `variables`.

    Levels are ordered as in R: the categories where given, else sorted; of combinations the first
    factor varies slowest. Levels and combinations that do not occur are dropped.
    """
    membership = _membership_of(label, components, variables)
    if membership is not None:
        if len(components) > 1:
            return _combined_members(label, components, variables, membership)
        return member_factor(label, *membership[1:])
    factors = [_compressed(variables.factor_value(expr)) for expr in components]
    codes, levels = factors[0]
    if len(factors) == 1:
        return GroupingFactor(label, codes, len(levels), (levels,))
    tables = tuple(levels for _, levels in factors)
    require_countable(label, tables)
    combined = combined_keys([codes for codes, _ in factors], tables)
    codes, keys = factorize(combined)
    return GroupingFactor(label, codes, len(keys), tables, keys)


def _compressed(value: FactorValue) -> tuple[IntVector, Any]:
    """Return codes (n,) int32 into the levels that occur, and these levels."""
    used = used_levels(value.codes, len(value.levels))
    if used is None:
        return value.codes.astype(np.int32, copy=False), value.levels
    lookup = np.cumsum(used, dtype=np.int32) - 1
    return lookup[value.codes].astype(np.int32, copy=False), value.levels[np.flatnonzero(used)]


def require_countable(label: str, tables: Sequence[Any]) -> None:
    """Refuse combinations of factors whose number no key has room for.

    Parameters
    ----------
    tables : levels of every component.
    """
    sizes = [len(table) for table in tables]
    if math.prod(sizes) > MAX_INT64:
        raise DataError(
            f"'{shorten(label, 60)}' combines {len(sizes)} factors with more than 10^18 possible "
            "combinations of levels: make a column of the combinations in the data, or combine "
            "fewer factors"
        )


def combined_keys(codes: Sequence[IntVector], tables: Sequence[Any]) -> NDArray[np.int64]:
    """Return positions among all combinations, the first component varying slowest.

    Parameters
    ----------
    codes : per component, into its table.
    """
    combined = codes[0].astype(np.int64)
    for component, table in zip(codes[1:], tables[1:], strict=True):
        combined *= len(table)
        combined += component
    return combined


def components_of(keys: NDArray[np.int64], tables: Sequence[Any]) -> list[NDArray[np.int64]]:
    """Return the codes of every component from positions among all combinations."""
    out = []
    for table in reversed(tables):
        keys, code = np.divmod(keys, len(table))
        out.append(code)
    return out[::-1]


def encode_groups(
    known: GroupingFactor, components: tuple[Expr, ...], variables: Variables
) -> tuple[RowLevels, list[str]]:
    """Return the codes of new rows among known levels, -1 for others, and the labels of these.

    Levels are matched by name, so that the type of the column may have changed on the way.  Those
    of a membership are numbered from `known.n_levels` on where they are not known.
    """
    membership = _membership_of(known.label, components, variables)
    if membership is not None and len(components) == 1:
        return placed_members(known, *membership[1:])
    if membership is not None:
        members, parts = _parts_of_entries(known.label, components, variables, membership)
        place, names = _placed(known, parts)
        unknown = {name: known.n_levels + i for i, name in enumerate(dict.fromkeys(names))}
        place[place < 0] = [unknown[name] for name in names]
        return members.with_levels(place, known.n_levels + len(unknown)), list(unknown)
    place, names = _placed(known, [_compressed(variables.factor_value(e)) for e in components])
    return place.astype(np.int32), list(dict.fromkeys(names))


def _placed(
    known: GroupingFactor, parts: list[tuple[IntVector, Any]]
) -> tuple[NDArray[np.int64], list[str]]:
    """Return the known level of codes by component, -1 for none, and the names of these others.

    Parameters
    ----------
    parts : per component, codes (m,) and what they stand for.
    """
    positions = [
        match_levels(table, levels)[codes]
        for table, (codes, levels) in zip(known.tables, parts, strict=True)
    ]
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
    for codes, levels in parts:
        labels = np.asarray(level_labels(levels), dtype=object)
        columns.append(labels[codes[outside]])
    return result, [":".join(row) for row in zip(*columns, strict=True)]


def placed_members(
    known: GroupingFactor, given: Membership, rows: NDArray[np.integer[Any]]
) -> tuple[Members, list[str]]:
    """Return the levels of new rows of a membership among known ones, and the labels of others."""
    members = given.members[rows]
    if not given.signed:
        _require_a_level(known.label, members, rows)
    place = match_levels(known.tables[0], given.labels)
    used = np.bincount(members.levels, minlength=members.n_levels) > 0
    others = np.flatnonzero(used & (place < 0))
    place = place.copy()
    place[others] = known.n_levels + np.arange(others.size)
    place[place < 0] = 0  # without rows
    labels = level_labels(np.asarray(given.labels)[others])
    return members.relabelled(place, known.n_levels + others.size), list(labels)


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
