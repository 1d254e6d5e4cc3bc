"""What rooms above compute of the rows before a fit is saved without them, in its file and back.

A `Keeper` belongs to one computation.  Its result is put into `fit.kept` of the loaded fit, where
the computation finds it in the place of rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mixlm_sparse.common.errors import MixedModelError
from mixlm_sparse.common.types import Matrix
from mixlm_sparse.model.fitted import FittedModel
from mixlm_sparse.model.rowless import MatricesWithoutRows
from mixlm_sparse.model.saved.archive import Archive, Arrays

__all__ = ["Keeper", "keeper_of_arrays", "kept_from", "kept_to"]

LARGEST = 1e100  # of numbers whose squares are summed


@dataclass(frozen=True, slots=True)
class Keeper:
    """One computation whose result stands for rows.

    Parameters
    ----------
    name : of the result in `fit.kept` and in the file.
    compute : the result of a fit with rows; None where it is not needed, or costs too much.
    write : the result as plain data; arrays are added, under names that begin with the second
        argument.
    read : the result of what `write` made; what does not go together is a SavedFitError.
    """

    name: str
    compute: Callable[[FittedModel], Any]
    write: Callable[[Any, str, Arrays], dict[str, Any]]
    read: Callable[[FittedModel, Mapping[str, Any], str, Archive], Any]


def keeper_of_arrays(
    name: str,
    compute: Callable[[FittedModel], Mapping[str, Matrix] | None],
    shapes: Callable[[FittedModel], Mapping[str, tuple[int, ...]]],
    holds: Callable[[FittedModel, Mapping[str, Matrix]], bool] | None = None,
) -> Keeper:
    """Return the keeper of a result that is a few arrays by name.

    Parameters
    ----------
    shapes : of these arrays, which a file is held against.
    holds : says whether they are those of the fit, as far as it can tell.
    """

    def write(found: Mapping[str, Matrix], prefix: str, arrays: Arrays) -> dict[str, Any]:
        arrays |= {prefix + one: np.asarray(values) for one, values in found.items()}
        return {}

    def read(
        fit: FittedModel, saved: Mapping[str, Any], prefix: str, archive: Archive
    ) -> dict[str, Matrix]:
        out = {
            one: archive.numbers(prefix + one, *shape) for one, shape in shapes(fit).items()
        }
        if not all(np.abs(values).max(initial=0.0) < LARGEST for values in out.values()):
            raise archive.broken(f"the sums of {name} are out of all proportion")
        if holds is not None and not holds(fit, out):
            raise archive.broken(f"the sums of {name} are not those of the fit")
        return out

    return Keeper(name, compute, write, read)


def kept_to(fit: FittedModel, keepers: Sequence[Keeper], arrays: Arrays) -> dict[str, Any]:
    """Return the results of a fit as plain data by name; arrays are added to `arrays`."""
    has_rows = not isinstance(fit.matrices, MatricesWithoutRows)
    out = {}
    for keeper in keepers:
        found, own = fit.kept.get(keeper.name), dict[str, Any]()
        try:
            if found is None and has_rows:
                found = keeper.compute(fit)
            if found is not None:
                out[keeper.name] = keeper.write(found, _prefix(keeper), own)
        except (MixedModelError, ArithmeticError, np.linalg.LinAlgError):
            continue  # the fit itself has no such result, or none that can be written
        arrays |= own
    return out


def kept_from(
    fit: FittedModel, saved: Mapping[str, Any], keepers: Sequence[Keeper], archive: Archive
) -> None:
    """Give a loaded fit the results that its file has; others are of a later version."""
    for keeper in keepers:
        if keeper.name in saved:
            fit.kept[keeper.name] = keeper.read(fit, saved[keeper.name], _prefix(keeper), archive)


def _prefix(keeper: Keeper) -> str:
    return f"kept.{keeper.name}."
