"""Residual structures whose time and group may have changed places.

`AR1("patient", "visit")` fits without an error: every visit is a group then, in which the patients
follow each other.  There are more times than groups in it, and one of the columns is not what it
would be the other way round.
"""

from __future__ import annotations

import re
import warnings

import numpy as np

from mixlm_sparse.common.errors import FormulaWarning, caller_level
from mixlm_sparse.design.matrices import ModelMatrices
from mixlm_sparse.design.table import Column
from mixlm_sparse.formula.terms import names_of

__all__ = ["swapped_messages", "warn_of_swapped"]

NUMBERED = re.compile(r"(\D*)(\d+)(\D*)")
FEWEST = 3  # levels with numbers in their names that may be times


def swapped_messages(matrices: ModelMatrices) -> list[str]:
    """Return a message if the time of a residual structure looks like its group."""
    law, spec = matrices.law, matrices.spec
    if law is None or law.correlation is None or spec is None:
        return []
    correlation = law.correlation
    times, groups = correlation.columns("time"), correlation.columns("group")
    if len(times) != 1 or len(groups) != 1 or matrices.data is None:
        return []
    time, group, count = times[0], groups[0], np.unique(law.t).size
    if count <= law.sizes.size:
        return []
    formula, columns = spec.formula, matrices.data.table.columns
    fixed = names_of(variable for term in formula.fixed.terms for variable in term)
    grouping = names_of(part for random in formula.random for part in random.components)
    suspect = (
        columns[time].kind == "factor"
        or (time in grouping and group not in grouping)
        or (group in fixed and time not in fixed and _are_times(columns[group]))
    )
    if not suspect:
        return []
    kind = type(correlation).__name__
    return [
        f"{kind} takes '{time}' as the time and '{group}' as the group: {law.sizes.size} groups "
        f"with up to {int(law.sizes.max())} of {count} times each. If '{time}' are the subjects, "
        f'write {kind}(time="{group}", group="{time}")'
    ]


def _are_times(column: Column) -> bool:
    """Say whether the cells may be times: numbers, dates, or levels in an order (VIS1, VIS2, ...).

    Arms in the fixed part, each with one long series, are groups.
    """
    if column.kind != "factor" or column.ordered:
        return True
    found = [NUMBERED.fullmatch(str(level)) for level in column.levels]
    kinds = {(match[1], match[3]) for match in found if match is not None}
    return len(found) >= FEWEST and None not in found and len(kinds) == 1


def warn_of_swapped(matrices: ModelMatrices) -> None:
    """Emit the messages as warnings."""
    for message in swapped_messages(matrices):
        warnings.warn(message, FormulaWarning, stacklevel=caller_level())
