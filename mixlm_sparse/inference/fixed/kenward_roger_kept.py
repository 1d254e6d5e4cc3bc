"""Kenward and Roger's moments of a fit whose file has no rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mixlm_sparse.inference.fixed.kenward_roger import (
    KEPT_AS,
    KenwardRogerMoments,
    found_before,
    kenward_roger,
    needs_rows,
    structured_work,
)
from mixlm_sparse.model.fitted import FittedModel
from mixlm_sparse.model.saved.archive import Archive, Arrays
from mixlm_sparse.model.saved.kept import Keeper

__all__ = ["KEEPER"]

# Multiply-adds, of some seconds, that are done unasked when a fit is saved.
MOST_WORK = 2e10
MOST_RELATED = 100_000
SAME_RTOL = 1e-6
PARTS = ("beta", "half", "adjusted", "P", "W")


def _compute(fit: FittedModel) -> KenwardRogerMoments | None:
    """Return the moments, where they need rows; those of a fit by ML only if they are at hand."""
    found = found_before(fit)
    if found is not None or not needs_rows(fit) or fit.perfect or not fit.system.p:
        return found if needs_rows(fit) else None
    # the rows of a known covariance are related all together
    if not fit.reml or (fit.matrices.law is None and fit.nobs > MOST_RELATED):
        return None
    return kenward_roger(fit) if structured_work(fit) <= MOST_WORK else None


def _write(found: KenwardRogerMoments, prefix: str, arrays: Arrays) -> dict[str, Any]:
    arrays |= {prefix + name: getattr(found, name) for name in PARTS}
    return {"sigma": found.sigma, "note": found.note}


def _read(
    fit: FittedModel, saved: Mapping[str, Any], prefix: str, archive: Archive
) -> KenwardRogerMoments:
    p = fit.system.p
    r = len(archive.array(prefix + "W", None, None))
    shapes = {"beta": (p,), "half": (p, p), "adjusted": (p, p), "P": (r, p, p), "W": (r, r)}
    values = {name: archive.numbers(prefix + name, *shape) for name, shape in shapes.items()}
    sigma, note = saved["sigma"], saved["note"]
    if type(sigma) is not float or not 0.0 < sigma < np.inf or type(note) is not str:
        raise archive.broken("the Kenward-Roger moments are incomplete")
    size = max(float(np.abs(values[name]).max(initial=0.0)) for name in shapes)
    symmetric = all(
        np.allclose(values[n], np.swapaxes(values[n], -1, -2), rtol=0.0, atol=SAME_RTOL * size)
        for n in ("adjusted", "P", "W")
    )
    own = fit.solution.beta
    near = not fit.reml or np.allclose(values["beta"], own, rtol=SAME_RTOL, atol=1e-300)
    if not (size < 1e80 and symmetric and near):
        raise archive.broken("the Kenward-Roger moments are not those of the fit")
    return KenwardRogerMoments(
        beta=values["beta"], half=values["half"], adjusted=values["adjusted"], sigma=sigma,
        P=values["P"], W=values["W"], note=note,
    )  # fmt: skip


KEEPER = Keeper(KEPT_AS, _compute, _write, _read)
