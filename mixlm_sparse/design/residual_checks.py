"""What the data must carry for a residual structure, and the scale of its distances."""

from __future__ import annotations

import numpy as np

from mixlm_sparse.common.errors import DataError
from mixlm_sparse.covariance.correlation import Correlation
from mixlm_sparse.covariance.law import ResidualLaw
from mixlm_sparse.covariance.serial import CAR1, AnteDependence
from mixlm_sparse.covariance.visits import Toeplitz, Unstructured

__all__ = ["require_carried", "typical_distance"]

LEAST = 1e-100  # distances below are zero


def typical_distance(correlation: Correlation, law: ResidualLaw) -> float:
    """Return a typical distance of neighbours in time, or of rows in space."""
    if correlation.time_kind == "position":
        sums = np.zeros((law.sizes.size, law.t.shape[1]))
        np.add.at(sums, law.group_of, law.t)
        centre = (sums / law.sizes[:, None])[law.group_of]
        spread = float(np.sqrt(((law.t - centre) ** 2).sum(axis=1).mean()))
        return spread if spread > LEAST else 1.0
    if isinstance(correlation, CAR1):
        rows, before = law.before
        gap = float(np.abs(law.t[rows] - law.t[before]).mean()) if rows.size else 1.0
        return gap if gap > LEAST else 1.0
    return 1.0


def require_carried(correlation: Correlation, law: ResidualLaw) -> None:
    """Raise a DataError where a parameter has no pair of rows that could tell it."""
    kind = type(correlation).__name__
    for s, label in enumerate(law.strata):
        where = f" of '{label}'" if label else ""
        sizes = law.sizes[law.stratum == s]
        if not (sizes > 1).any():
            raise DataError(
                f"every group{where} has one row, so that {kind} has nothing to tell a correlation "
                "from: name the column of the subjects in group, or leave the structure out"
            )
        if isinstance(correlation, (Unstructured, Toeplitz, AnteDependence)):
            _require_pairs(correlation, law, s, where)


def _require_pairs(
    correlation: Unstructured | Toeplitz | AnteDependence, law: ResidualLaw, s: int, where: str
) -> None:
    kind, T, labels = type(correlation).__name__, law.places.T, law.places.labels
    if T < 2:
        raise DataError(f"the time of {kind} has one visit: leave the structure out")
    met = np.zeros((T, T), dtype=bool)
    for batch in law.batches:
        if batch.stratum == s:
            at = batch.t.astype(np.intp)
            met[at[:, :, None], at[:, None, :]] = True
    if isinstance(correlation, Toeplitz):
        lag = np.abs(np.subtract.outer(np.arange(T), np.arange(T)))
        absent = sorted(set(range(1, T)) - set(lag[met].tolist()))
        if absent:
            raise DataError(
                f"no group{where} has two visits that are {absent[0]} apart, so that "
                f"rho({absent[0]}) of Toeplitz cannot be told: use AR1, or fewer visits"
            )
        return
    if isinstance(correlation, AnteDependence):
        for k in range(T - 1):
            if not met[: k + 1, k + 1 :].any():
                raise DataError(
                    f"no group{where} has rows before and after the step from visit {labels[k]} to "
                    f"{labels[k + 1]}, so that its correlation cannot be told: leave visits out"
                )
        return
    apart = np.argwhere(~met & np.tri(T, k=-1, dtype=bool).T)
    if apart.size:
        i, j = apart[0].tolist()
        raise DataError(
            f"no group{where} has both visit {labels[i]} and visit {labels[j]}, so that their "
            "correlation cannot be told: use a structure with fewer parameters, such as "
            "AnteDependence, Toeplitz or AR1"
        )
    count = int((law.stratum == s).sum())
    if count <= T:
        raise DataError(
            f"Unstructured has {T * (T - 1) // 2} correlations of {T} visits, more than the "
            f"{count} groups{where} carry: use a structure with fewer parameters, such as AR1 or "
            "Toeplitz"
        )


