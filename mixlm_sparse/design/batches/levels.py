"""Levels of factors and groups that are met batch by batch, in any order."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixlm_sparse.common.checks import listed
from mixlm_sparse.common.errors import DataError
from mixlm_sparse.common.types import IntVector
from mixlm_sparse.design.batches.arrow import TextLevels, arrow, text_positions
from mixlm_sparse.design.evaluate import FactorValue
from mixlm_sparse.design.grouping import GroupingFactor, require_countable
from mixlm_sparse.design.table import Column
from mixlm_sparse.design.variables import Variables, used_levels
from mixlm_sparse.engines.keys import KeyMap
from mixlm_sparse.formula.syntax import Expr, Name, deparse

__all__ = ["GroupLevels", "LevelMap"]

EXACT_IN_FLOAT = 2**53
PAIR = np.int64(2**32)
NANOSECONDS = {
    "D": 86_400 * 10**9, "h": 3_600 * 10**9, "m": 60 * 10**9, "s": 10**9, "ms": 10**6, "us": 1000,
    "ns": 1,
}  # fmt: skip
TIMES = {"M": "datetime", "m": "timedelta"}  # kinds of arrays, and what they are called


class LevelMap:
    """Values of one variable to codes in the order of their appearance; it grows.

    Numbers of all types are one kind, texts another; a variable must keep to one of them.  Of
    categories those that occur become levels, in the order that the data declare.

    Parameters
    ----------
    order_matters : batches that declare different orders are refused; else levels are sorted then,
        unless their order is meant (an ordered factor).
    """

    def __init__(self, name: str, *, order_matters: bool = True) -> None:
        self.name = name
        self._order_matters = order_matters
        self.kind: str | None = None
        self.ordered = False
        self._lock = threading.Lock()
        self._keys = KeyMap()
        self._floats = False
        self._integers = False  # in some batch: whole numbers keep the names they have there
        self._texts: Any = None
        self._places: dict[Any, int] = {}
        self._declared: tuple[Any, ...] | None = None
        self._undeclared = False

    def __len__(self) -> int:
        if self.kind in ("number", "bool"):
            return len(self._keys)
        return len(self._places) if self._texts is None else len(self._texts)

    def encode(self, column: Column) -> IntVector:
        """Return codes (m,) of a column without missing cells."""
        if column.kind in ("number", "bool"):
            with self._lock:
                self._require_kind(column.kind)
                keys = self._keys_of(column.values)  # which may put another map in place
                return self._keys.encode(keys)
        if column.kind == "datetime":
            codes, values = pd.factorize(column.values)
            return self.encode_levels(codes, np.asarray(values), False)
        return self.encode_levels(column.values, column.levels, column.ordered)

    def encode_value(self, value: FactorValue) -> IntVector:
        """Return codes (m,) of the value of an expression."""
        levels = np.asarray(value.levels)
        if levels.dtype.kind in "iufb":
            kind = "bool" if levels.dtype.kind == "b" else "number"
            used = used_levels(value.codes, len(levels))
            places = np.full(len(levels), -1, dtype=np.int32)
            chosen = slice(None) if used is None else np.flatnonzero(used)
            places[chosen] = self.encode(Column(self.name, kind, levels[chosen]))
            found: IntVector = places[value.codes]
            return found
        return self.encode_levels(value.codes, value.levels, value.ordered)

    def encode_levels(self, codes: NDArray[Any], levels: Any, ordered: bool) -> IntVector:
        """Return codes (m,) of a factor given by codes into levels of its own."""
        used = used_levels(codes, len(levels))
        with self._lock:
            if isinstance(levels, pd.Index) and levels.dtype.kind in "iuf":
                self._require_kind("category of numbers")
            elif isinstance(levels, np.ndarray) and levels.dtype.kind in TIMES:
                self._require_kind(TIMES[levels.dtype.kind])
            else:
                self._require_kind("text")
            self.ordered |= ordered
            self._declare(levels)
            places = np.full(len(levels) + 1, -1, dtype=np.int32)
            chosen = np.arange(len(levels)) if used is None else np.flatnonzero(used)
            if isinstance(levels, TextLevels) and not self._places:
                places[chosen] = self._text_codes(levels, None if used is None else chosen)
            else:
                places[chosen] = self._object_codes(levels, chosen)
        found: IntVector = places[codes]
        return found

    def _text_codes(self, levels: TextLevels, chosen: NDArray[Any] | None) -> IntVector:
        pa = arrow()
        texts = levels.values if chosen is None else levels.values.take(pa.array(chosen))
        if self._texts is None:
            self._texts = texts.slice(0, 0)
        found = text_positions(self._texts, texts)
        new = np.flatnonzero(found < 0)
        if new.size:
            found = found.copy()
            found[new] = len(self._texts) + np.arange(new.size, dtype=np.int32)
            fresh = texts.take(pa.array(new))
            self._texts = pa.concat_arrays([self._texts, fresh.cast(self._texts.type)])
        return found

    def _object_codes(self, levels: Any, chosen: NDArray[Any]) -> list[int]:
        if self._texts is not None:  # frames of two kinds in one source
            self._places = {text: i for i, text in enumerate(self._texts.to_pylist())}
            self._texts = None
        own = np.asarray(levels)[chosen]
        values = _nanoseconds(own) if own.dtype.kind in TIMES else own.tolist()
        places = self._places
        return [places.setdefault(value, len(places)) for value in values]

    def _require_kind(self, kind: str) -> None:
        if self.kind is None:
            self.kind = kind
        if self.kind != kind:
            raise DataError(
                f"column '{self.name}' is {self.kind} in some batches and {kind} in others: give "
                "it one type, for example by astype in what makes the batches"
            )

    def _keys_of(self, values: NDArray[Any]) -> NDArray[np.int64]:
        if values.dtype.kind == "u" and values.size and int(values.max()) > np.iinfo(np.int64).max:
            raise DataError(
                f"column '{self.name}' has numbers of more than 63 bits: convert it to text"
            )
        self._integers |= values.dtype.kind in "iu"
        if values.dtype.kind == "f" and not self._floats:
            self._to_floats()
        if not self._floats:
            return values.astype(np.int64, copy=False)
        if values.dtype.kind in "iu":
            self._require_exact(values)
        keys: NDArray[np.int64] = (values.astype(np.float64) + 0.0).view(np.int64)
        return keys

    def _to_floats(self) -> None:
        """Go over to keys that stand for floats: a batch has decimal numbers, or missing ones."""
        self._floats = True
        old = self._keys.values.copy()
        self._require_exact(old)
        self._keys = KeyMap()
        self._keys.encode(old.astype(np.float64).view(np.int64))

    def _require_exact(self, values: NDArray[Any]) -> None:
        if values.size and max(abs(int(values.min())), abs(int(values.max()))) > EXACT_IN_FLOAT:
            raise DataError(
                f"column '{self.name}' has whole numbers of more than 53 bits in some batches and "
                "decimal numbers in others, which cannot be told apart: convert it to text"
            )

    def _declare(self, levels: Any) -> None:
        declared = isinstance(levels, pd.Index) or (
            isinstance(levels, TextLevels) and levels.declared
        )
        if not declared:
            self._undeclared = True
            return
        before = self._declared
        if before is not None and len(before) == len(levels) and levels is self._last:
            return
        self._last = levels
        now = tuple(levels)
        if before is None or _follows(before, now):
            self._declared = now
        elif _follows(now, before):
            pass
        elif not (self._order_matters or self.ordered):
            self._undeclared = True
        else:
            raise DataError(
                f"column '{self.name}' has its categories in different orders in different "
                f"batches: {listed(before, 6, quoted=True)}, and {listed(now, 6, quoted=True)}: "
                "give all batches the same categories, or text, whose levels are sorted"
            )

    _last: Any = None

    # -- what was found -------------------------------------------------------------------------

    def finish(self) -> tuple[Any, IntVector]:
        """Return the levels in order, and the place of each code among them."""
        values = self.levels_seen()
        size = len(values)
        if self._declared is not None and not self._undeclared:
            at = {value: place for place, value in enumerate(self._declared)}
            order = np.argsort([at[value] for value in np.asarray(values).tolist()], kind="stable")
        elif self._texts is not None:
            order = arrow("compute").sort_indices(self._texts).to_numpy()
        else:
            order = np.argsort(values, kind="stable")
        places = np.empty(size, dtype=np.int32)
        places[order] = np.arange(size, dtype=np.int32)
        return values[order], places

    def levels_seen(self) -> Any:
        """Return the levels in the order of their appearance."""
        if self.kind in ("number", "bool"):
            keys = self._keys.values.copy()
            if self.kind == "bool":
                return keys.astype(bool)
            if not self._floats:
                return keys
            floats = keys.view(np.float64)
            whole = self._integers and (np.abs(floats) <= EXACT_IN_FLOAT).all()
            integers = floats.astype(np.int64) if whole else keys
            return integers if whole and (integers == floats).all() else floats
        if self._texts is not None:
            return np.asarray(self._texts.to_pylist(), dtype=object)
        values = list(self._places)
        if self.kind == "text":
            out = np.empty(len(values), dtype=object)
            out[:] = values
            return out
        if self.kind in TIMES.values():
            return _times(values, str(self.kind))
        return np.asarray(values)

    @property
    def declared(self) -> tuple[Any, ...] | None:
        """The categories that the data declare, used or not; None if they declare none."""
        return None if self._undeclared else self._declared


def _nanoseconds(times: NDArray[Any]) -> list[int]:
    """Return times, or differences of them, of any unit as whole numbers of nanoseconds."""
    unit, count = np.datetime_data(times.dtype)
    size = count * NANOSECONDS[unit]
    return [size * value for value in times.astype(np.int64).tolist()]


def _times(values: list[int], kind: str) -> NDArray[Any]:
    """Return what `_nanoseconds` made of times, in microseconds if these are fine enough."""
    fine = any(value % 1000 for value in values)
    whole = np.array(values if fine else [value // 1000 for value in values], dtype=np.int64)
    return whole.astype(f"{kind}64[{'ns' if fine else 'us'}]")


def _follows(few: tuple[Any, ...], many: tuple[Any, ...]) -> bool:
    """Say whether `few` are among `many` in the same order."""
    walk = iter(many)
    return len(few) <= len(many) and all(any(a == b for b in walk) for a in few)


class GroupLevels:
    """Levels of one grouping factor, of one component or the combinations of several."""

    def __init__(self, label: str, components: tuple[Expr, ...]) -> None:
        self.label = label
        self.components = components
        self._pairs = [KeyMap() for _ in components[1:]]
        self._maps: list[LevelMap] = []

    def encode(self, variables: Variables, maps: dict[Expr, LevelMap]) -> IntVector:
        """Return codes (m,) in the order of appearance.

        Parameters
        ----------
        maps : of the components, by expression; shared by the factors of a model.
        """
        self._maps = [maps[expr] for expr in self.components]
        codes = [_encoded(expr, maps[expr], variables) for expr in self.components]
        combined = codes[0]
        for pairs, other in zip(self._pairs, codes[1:], strict=True):
            combined = pairs.encode(combined.astype(np.int64) * PAIR + other)
        return combined

    def __len__(self) -> int:
        if self._pairs:
            return len(self._pairs[-1])
        return len(self._maps[0]) if self._maps else 0

    def finish(self) -> tuple[GroupingFactor, IntVector]:
        """Return the factor, without codes of rows, and the place of each code in its levels."""
        found = [known.finish() for known in self._maps]
        tables = tuple(levels for levels, _ in found)
        none = np.empty(0, dtype=np.int32)
        if len(found) == 1:
            return GroupingFactor(self.label, none, len(tables[0]), tables), found[0][1]
        require_countable(self.label, tables)
        keys = _combination_keys([pairs.values for pairs in self._pairs], found)
        order = np.argsort(keys, kind="stable")
        places = np.empty(order.size, dtype=np.int32)
        places[order] = np.arange(order.size, dtype=np.int32)
        return GroupingFactor(self.label, none, keys.size, tables, keys[order]), places


def _combination_keys(
    pairs: list[NDArray[np.int64]], found: list[tuple[Any, IntVector]]
) -> NDArray[np.int64]:
    """Return, by code, the position of each combination among all; the first varies slowest."""
    codes = [np.arange(pairs[-1].size, dtype=np.int64)]
    for values in pairs[::-1]:  # unfold ((a, b), c) from the right
        first, last = np.divmod(values[codes[0]], PAIR)
        codes = [first, last, *codes[1:]]
    keys = found[0][1][codes[0]].astype(np.int64)
    for (levels, places), own in zip(found[1:], codes[1:], strict=True):
        keys = keys * len(levels) + places[own]
    return keys


def _encoded(expr: Expr, known: LevelMap, variables: Variables) -> IntVector:
    column = variables.scope.columns.get(expr.id) if isinstance(expr, Name) else None
    if column is not None:
        return known.encode(column)
    return known.encode_value(variables.factor_value(expr))


def level_map(expr: Expr) -> LevelMap:
    """Return an empty map for a grouping expression, whose levels have no first one."""
    name = expr.id if isinstance(expr, Name) else deparse(expr)
    return LevelMap(name, order_matters=False)
