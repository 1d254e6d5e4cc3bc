"""A start for the parameters of a residual law, from least-squares residuals.

Products of residuals of one group, in units of the standard deviations of their rows, estimate
correlations: by pairs of visits, of neighbours in time, of all pairs.  It decides how many
evaluations a search takes, and which valley it begins in.
"""

from __future__ import annotations

import numpy as np

from mixlm_sparse.common.types import Array3, Matrix, Vector
from mixlm_sparse.covariance.correlation import PairMoments
from mixlm_sparse.covariance.law import ResidualLaw
from mixlm_sparse.covariance.variance import VarIdent

__all__ = ["moment_start"]

# Correlations are taken towards zero as if so many further pairs had none.
PRIOR_PAIRS = 2.0
MAX_LOG_RATIO = 4.0  # of standard deviations
MAX_LINKS = 200_000  # neighbours looked at; more would not change the start


def moment_start(law: ResidualLaw, e: Vector) -> Vector:
    """Return omega (n_rho,) near the moments of residuals e (n,)."""
    out = law.start.copy()
    scaled = e if law.weights is None else e * np.sqrt(law.weights)
    if isinstance(law.variance, VarIdent):
        levels = len(law.values.levels)
        squares = np.bincount(law.x, weights=scaled**2, minlength=levels)
        counts = np.bincount(law.x, minlength=levels)
        sd = np.sqrt(squares / counts)
        if not sd.min() > 1e-8 * sd.max():
            return law.start
        out[law.variance_part] = np.clip(np.log(sd[1:] / sd[0]), -MAX_LOG_RATIO, MAX_LOG_RATIO)
        scaled = scaled / sd[law.x]
    else:
        scaled = scaled / max(float(np.sqrt(np.mean(scaled**2))), 1e-300)
    known = law.correlation is not None and law.correlation.time_kind != "position"
    if law.correlation is None or not known or not np.isfinite(scaled).all():
        return out
    for s in range(len(law.strata)):
        found = law.correlation.near(_pairs(law, scaled, s), law.places)
        if found is not None and np.isfinite(found).all():
            out[law.part(s)] = found
    return out


def _pairs(law: ResidualLaw, e: Vector, stratum: int) -> PairMoments:
    by_visit: Matrix | None = None
    T = law.places.T
    products, squares, counts = np.zeros((T, T)), np.zeros((T, T)), np.zeros((T, T))
    total, number = 0.0, 0.0
    assert law.correlation is not None
    kind = law.correlation.time_kind
    for batch in law.batches if kind in ("none", "visits") else ():
        if batch.stratum != stratum:
            continue
        own = e[batch.rows]
        total += float((own.sum(axis=1) ** 2 - (own**2).sum(axis=1)).sum())
        number += own.shape[0] * own.shape[1] * (own.shape[1] - 1)
        if kind == "visits":
            at = np.broadcast_to(batch.t.astype(np.intp), own.shape)
            place = at[:, :, None], at[:, None, :]
            outer: Array3 = own[:, :, None] * own[:, None, :]
            np.add.at(products, place, outer)
            np.add.at(squares, place, np.broadcast_to((own**2)[:, :, None], outer.shape))
            np.add.at(counts, place, 1.0)
            by_visit = products
    if by_visit is not None:
        size = np.sqrt(squares * squares.T) * (1.0 + PRIOR_PAIRS / np.maximum(counts, 1.0))
        with np.errstate(divide="ignore", invalid="ignore"):
            by_visit = np.where(size > 0.0, products / size, 0.0)
        np.fill_diagonal(by_visit, 1.0)
    serial, step = 0.0, 1.0
    if kind in ("whole", "number"):
        rows, before = law.before
        here = law.link_strata == stratum
        rows, before = rows[here][:MAX_LINKS], before[here][:MAX_LINKS]
        if rows.size:
            d = np.abs(law.t[rows] - law.t[before])
            near = d <= np.median(d)
            rows, before, d = rows[near], before[near], d[near]
            length = float(np.sqrt((e[rows] ** 2).sum() * (e[before] ** 2).sum()))
            length *= 1.0 + PRIOR_PAIRS / rows.size
            serial = float(e[rows] @ e[before]) / length if length > 0.0 else 0.0
            step = float(d.mean())
    return PairMoments(by_visit, serial, step, total / (number + PRIOR_PAIRS))
