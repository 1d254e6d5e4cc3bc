"""Which methods of degrees of freedom there are, and single tests by any of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mixlm_sparse.common.checks import require_one_of
from mixlm_sparse.common.types import Matrix, Vector
from mixlm_sparse.inference.fixed.kenward_roger import kenward_roger
from mixlm_sparse.inference.fixed.moments import CoefficientMoments, JointTest, NormalMoments
from mixlm_sparse.inference.fixed.satterthwaite import rowwise, satterthwaite
from mixlm_sparse.inference.fixed.tests import SingleTests, single_tests
from mixlm_sparse.model.base import unit_of_theta
from mixlm_sparse.model.fitted import FittedModel

DDF = ("satterthwaite", "kenward-roger", "sas", "normal", "none")
HEADINGS = {
    "satterthwaite": "t tests with Satterthwaite's degrees of freedom",
    "kenward-roger": "t tests with Kenward-Roger's covariance and degrees of freedom",
    "sas": "t tests with Satterthwaite's degrees of freedom",
    "normal": "z tests, from the normal distribution",
    "none": "",
}
IN_TITLES = {
    "satterthwaite": "with Satterthwaite's method",
    "kenward-roger": "with Kenward-Roger's method",
    "sas": "with Satterthwaite's method, for several rows as in SAS",
    "normal": "by the normal distribution",
    "none": "without tests",
}


def require_ddf(ddf: str | None) -> str:
    """Return the canonical name of a method; unique beginnings and "KR" are taken for the name.

    Raises
    ------
    OptionError : the method is not known, or the beginning is that of several.
    """
    if ddf is None:
        return "none"
    if isinstance(ddf, str):
        folded = ddf.strip().lower().replace("_", "-").replace(" ", "-")
        folded = "kenward-roger" if folded == "kr" else folded
        meant = [name for name in DDF if folded and name.startswith(folded)]
        if len(meant) == 1:
            return meant[0]
    return str(require_one_of("ddf", ddf, DDF))


def moments(fit: FittedModel, ddf: str | None = "satterthwaite") -> CoefficientMoments:
    """Return estimates, covariance and degrees of freedom of `fit` by one of the methods.

    Parameters
    ----------
    ddf : "satterthwaite", "kenward-roger", "sas" (Satterthwaite's, for several rows together as
        SAS and mmrm combine them), "normal" or "none" (the last two are the same here).
    """
    name = require_ddf(ddf)
    if name in ("normal", "none") or fit.perfect or fit.system.p == 0:
        return NormalMoments(solution=fit.solution, sigma=unit_of_theta(fit), label=name)
    if name == "sas":
        return rowwise(fit)
    return kenward_roger(fit) if name == "kenward-roger" else satterthwaite(fit)


def linear_tests(
    fit: FittedModel, L: Matrix, rhs: Vector | float = 0.0, *, ddf: str | None = "satterthwaite"
) -> SingleTests:
    """Test each row of L beta = rhs on its own; L (r, p), rows with NaN are not estimable.

    Where the data do not determine the variance of a combination, only its estimate is given.
    """
    name = require_ddf(ddf)
    method = moments(fit, name)
    known = np.isfinite(L).all(axis=1)
    note = method.note
    estimate, error, df = (np.full(L.shape[0], np.nan) for _ in range(3))
    used = L[known]
    estimate[known] = used @ method.beta
    error[known] = method.std_error(used)
    if name != "none" and not fit.perfect:
        df[known] = method.df(used)
    lost = np.flatnonzero(known)[~fit.has_error(used)]
    if lost.size:
        error[lost] = df[lost] = np.nan
        note = "; ".join(text for text in (note, fit.error_reason) if text)
    found = single_tests(
        estimate, error, df, np.nan if fit.perfect else rhs,
        heading=HEADINGS[name], note=note,
    )  # fmt: skip
    return found


def joint_test(
    fit: FittedModel, method: CoefficientMoments, L: Matrix, rhs: Vector | None = None
) -> JointTest:
    """Test L beta = rhs (zero) together; L (q, p).

    Where the data do not determine the covariance of these combinations, F and its denominator df
    are NaN.
    """
    found = method.joint(L, np.zeros(L.shape[0]) if rhs is None else rhs)
    if found.num_df and not (fit.identification.hypothesis(L) and fit.has_error(L).all()):
        return JointTest(float("nan"), found.num_df, float("nan"))
    return found


def reason_of(fit: FittedModel, found: Sequence[JointTest]) -> str:
    """Return why some of the tests have no F although there is something to test, or ""."""
    lost = any(one.num_df and np.isnan(one.F) for one in found)
    return fit.error_reason if lost else ""
