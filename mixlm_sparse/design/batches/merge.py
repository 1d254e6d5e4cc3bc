"""Whether two designs are of one model, and the levels of both together."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixlm_sparse.common.checks import listed
from mixlm_sparse.common.errors import DataError
from mixlm_sparse.common.types import IntVector
from mixlm_sparse.design.batches.design import BatchDesign
from mixlm_sparse.design.columns import Part
from mixlm_sparse.design.grouping import (
    GroupingFactor,
    combined_keys,
    components_of,
    require_countable,
)
from mixlm_sparse.design.saved import part_to_dict, state_to_dict
from mixlm_sparse.formula.syntax import deparse

__all__ = ["require_same_model", "together"]


def require_same_model(a: BatchDesign, b: BatchDesign) -> None:
    """Raise a DataError unless two designs have the same columns, made in the same way."""
    if str(a.formula) != str(b.formula):
        raise DataError(
            f"products of two models cannot be added: one is of {a.formula}, the other of "
            f"{b.formula}; form both with one formula"
        )
    for role in ("weights", "offset", "subset", "na_action"):
        one, other = getattr(a.arguments, role), getattr(b.arguments, role)
        if one != other:
            raise DataError(
                f"products with {role}={one!r} and with {role}={other!r} cannot be added: form "
                "both with the same arguments"
            )
    for part_a, part_b in zip((a.fixed, *a.parts), (b.fixed, *b.parts), strict=True):
        _require_same_columns(part_a, part_b)
    for call, state in a.states.items():
        if state_to_dict(state) != state_to_dict(b.states[call]):
            raise DataError(
                f"{deparse(call)} has learned other values from one part of the data than from the "
                "other, so that their columns are not the same: write the numbers into the formula "
                "(for example I((x - 10) / 2)), or make the column in the data"
            )


def _require_same_columns(a: Part, b: Part) -> None:
    if part_to_dict(a) == part_to_dict(b):
        return
    for term_a, term_b in zip(a.terms, b.terms, strict=False):
        for one, other in zip(term_a, term_b, strict=False):
            if one.levels != other.levels:
                name = deparse(one.variable)
                raise DataError(
                    f"the factor '{name}' has the levels {listed(one.levels, quoted=True)} in one "
                    f"part of the data and {listed(other.levels, quoted=True)} in the other, so "
                    "that their columns are not the same: give both all levels, "
                    f'levels={{"{name}": [...]}}'
                )
    raise DataError(
        "the columns of the two parts are not coded in the same way: use the same contrasts"
    )


def together(
    a: GroupingFactor, b: GroupingFactor
) -> tuple[GroupingFactor, IntVector, IntVector]:
    """Return the factor with the levels of both, and the places of the levels of each in it."""
    tables: list[Any] = []
    maps: list[tuple[IntVector, IntVector]] = []
    for one, other in zip(a.tables, b.tables, strict=True):
        table, *places = _union(a.label, np.asarray(one), np.asarray(other))
        tables.append(table)
        maps.append((places[0], places[1]))
    none = np.empty(0, dtype=np.int32)
    if a.keys is None:
        return GroupingFactor(a.label, none, len(tables[0]), tuple(tables)), *maps[0]
    require_countable(a.label, tables)
    keys = [_rekeyed(f, [places[i] for places in maps], tables) for i, f in enumerate((a, b))]
    everything = np.union1d(*keys)
    at = [np.searchsorted(everything, own).astype(np.int32) for own in keys]
    factor = GroupingFactor(a.label, none, everything.size, tuple(tables), everything)
    return factor, at[0], at[1]


def _union(
    label: str, one: NDArray[Any], other: NDArray[Any]
) -> tuple[NDArray[Any], IntVector, IntVector]:
    if (one.dtype.kind in "iufb") != (other.dtype.kind in "iufb"):
        raise DataError(
            f"the levels of '{label}' are numbers in one part of the data and text in the other: "
            "give both one type"
        )
    if one.dtype.kind in "iuf" and other.dtype.kind in "iuf":
        values = np.union1d(one, other)
        places = [np.searchsorted(values, own).astype(np.int32) for own in (one, other)]
        return values, places[0], places[1]
    at = {value: place for place, value in enumerate(one.tolist())}
    new = [value for value in other.tolist() if value not in at]
    if not new:
        values = one
    else:
        if list(one) == sorted(one.tolist()):
            values = np.unique(np.concatenate([one, other]))
        else:  # an order of their own: what is new comes last
            fresh = np.empty(len(new), dtype=one.dtype)
            fresh[:] = new
            values = np.concatenate([one, fresh])
    at = {value: place for place, value in enumerate(values.tolist())}
    places = [np.array([at[v] for v in own.tolist()], dtype=np.int32) for own in (one, other)]
    return values, places[0], places[1]


def _rekeyed(
    factor: GroupingFactor, places: list[IntVector], tables: list[Any]
) -> NDArray[np.int64]:
    assert factor.keys is not None
    parts = components_of(factor.keys, factor.tables)
    own = [place[part] for place, part in zip(places, parts, strict=True)]
    return combined_keys(own, tables)
