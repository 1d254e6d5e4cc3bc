"""What random effects cannot reach of the data, for fits whose products have too few digits.

Where random effects explain nearly everything (a perfect fit, as many effects as rows), a solution
is made of the rows themselves or of what is apart from the columns of Z (`solve.separate`).  A file
without data holds the latter.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mixlm_sparse.model.fitted import FittedModel
from mixlm_sparse.model.saved.archive import Archive, Arrays
from mixlm_sparse.model.saved.parts import finite, whole
from mixlm_sparse.solve.pls import solve_at
from mixlm_sparse.solve.products.final import Products
from mixlm_sparse.solve.separate import Separated

__all__ = ["separated_from", "separated_to"]

# [X y] has columns of length one, and its two parts are orthogonal but for rounding.
PARTS_RTOL = 1e-6


def separated_to(fit: FittedModel, arrays: Arrays) -> dict[str, Any] | None:
    """Return the parts as plain data, arrays added to `arrays`; None where they are not needed."""
    system = fit.system
    dense = all(f.sparse is None for f in system.products.blocks.factors)
    can = dense and system.engine.exact
    if not can or not (system.separated is not None or _needed(fit)):
        return None
    apart = system.apart
    arrays["apart.R"] = apart.R
    for g, part in enumerate(apart.B):
        arrays[f"apart.B.{g}"] = part
    return {
        "rank": apart.rank,
        "rank_within": apart.rank_within,
        "rounding": apart.rounding,
    }


def _needed(fit: FittedModel) -> bool:
    """Say whether products alone have too few digits here, or for a search on this model."""
    system = fit.system
    if system.n_theta and system.q + system.p >= system.n:
        return True
    lambdas, _ = system.chart.lambdas_of_theta(fit.theta)
    return solve_at(lambdas, system).exactly


def separated_from(
    saved: Mapping[str, Any] | None, products: Products, archive: Archive
) -> Separated | None:
    """Return the parts of `separated_to`; what does not go together is a SavedFitError."""
    if saved is None:
        return None
    P = products.p + 1
    R = archive.numbers("apart.R", P, P)
    if np.tril(R, -1).any():
        raise archive.broken("the array 'apart.R' is no triangle")
    B = [
        archive.numbers(f"apart.B.{g}", f.n_levels, f.width, P)
        for g, f in enumerate(products.blocks.factors)
    ]
    rank, within = (whole(saved[name], archive, name) for name in ("rank", "rank_within"))
    rounding = finite(saved["rounding"], archive, "rounding")
    if rank > min(products.blocks.q, products.n) or within > products.p or rounding < 0.0:
        raise archive.broken("the ranks are not those of the products")
    # R'R + B'Z'W[X y] = [X y]'W[X y], which is diag(1, ..., 1, yy)
    form = R.T @ R
    for f, part in zip(products.blocks.factors, B, strict=True):
        form += part.reshape(-1, P).T @ f.ztx.reshape(-1, P)
    want = np.ones(P)
    want[-1] = products.yy
    size = np.sqrt(want)
    size[-1] = max(size[-1], products.y_length)
    if not (np.abs(form - np.diag(want)) <= PARTS_RTOL * np.outer(size, size)).all():
        raise archive.broken("what random effects cannot reach is not of these products")
    return Separated(R=R, B=B, rank=rank, rank_within=within, rounding=rounding)
