"""Known covariances of levels in a saved fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp

from mixlm_sparse.design.grouping import GroupingFactor
from mixlm_sparse.design.known import Known
from mixlm_sparse.design.saved import factor_from_dict
from mixlm_sparse.model.saved.archive import Archive, Arrays

PARTS = ("precision", "root")


def known_to(factors: Sequence[GroupingFactor], arrays: Arrays) -> list[Any]:
    """Return what is known of each factor's levels as plain data; matrices go to `arrays`."""
    out: list[Any] = []
    for g, factor in enumerate(factors):
        known = factor.known
        if known is None:
            out.append(None)
            continue
        for name, matrix in (("precision", known.precision), ("root", known.root)):
            arrays[f"known.{g}.{name}.values"] = matrix.data
            arrays[f"known.{g}.{name}.rows"] = matrix.indices.astype(np.int64)
            arrays[f"known.{g}.{name}.starts"] = matrix.indptr.astype(np.int64)
        arrays[f"known.{g}.variances"] = known.variances
        out.append(known.log_det)
    return out


def known_from(document: Mapping[str, Any], archive: Archive) -> dict[str, Known] | None:
    """Return what `known_to` wrote, by grouping factor; None where nothing was known."""
    saved = document.get("known")
    if saved is None:
        return None
    about = document["matrices"]
    levels = None if about["spec"] is None else about["spec"]["factors"]
    found: dict[str, Known] = {}
    for g, (factor, log_det) in enumerate(zip(about["factors"], saved, strict=True)):
        if log_det is None or levels is None:
            continue
        n = int(factor["n_levels"])
        precision, root = (_matrix(f"known.{g}.{name}", n, archive) for name in PARTS)
        labels = factor_from_dict(levels[g]).tables[0]
        variances = archive.numbers(f"known.{g}.variances", n)
        found[factor["label"]] = Known(labels, precision, root, float(log_det), variances)
    return found


def _matrix(name: str, n: int, archive: Archive) -> sp.csc_array:
    """Return a matrix (n, n) whose columns begin where they say, with rows in order."""
    starts = archive.starts(f"{name}.starts", n)
    count = int(starts[-1])
    rows = archive.positions(f"{name}.rows", count, n)
    values = archive.numbers(f"{name}.values", count)
    column = np.repeat(np.arange(n), np.diff(starts))
    if ((np.diff(rows) <= 0) & (np.diff(column) == 0)).any():
        raise archive.broken(f"the rows of {name!r} are not in order")
    matrix = sp.csc_array((values, rows.astype(np.int64), starts), shape=(n, n))
    matrix.has_canonical_format = True
    return matrix
