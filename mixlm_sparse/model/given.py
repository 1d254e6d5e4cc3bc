"""Parameters of a model as a user gives them, checked against a design."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mixlm_sparse.common.checks import (
    listed,
    require_array,
    require_number,
    require_vector,
    shown,
)
from mixlm_sparse.common.errors import OptionError
from mixlm_sparse.common.types import Vector
from mixlm_sparse.design.matrices import ModelMatrices

__all__ = ["Parameters", "given_parameters"]

LARGEST = 1e150  # standard deviation: its square is a number still


@dataclass(frozen=True, slots=True)
class Parameters:
    """Parameters of a model: beta (p_all,), theta (m,) relative to sigma, and sigma."""

    beta: Vector
    theta: Vector
    sigma: float


def given_parameters(
    matrices: ModelMatrices,
    *,
    beta: Any,
    theta: Any = None,
    sigma: Any = 1.0,
    sd: Mapping[str, Any] | None = None,
    cov: Mapping[str, Any] | None = None,
) -> Parameters:
    """Check parameters against a design.

    Parameters
    ----------
    beta : (p,) in the order of the columns, or a mapping from all of their names.
    theta : (m,) relative covariance parameters in lme4's order.
    sigma : residual standard deviation.
    sd, cov : in the place of theta, by name of the term ("Subject", "Subject.1"): standard
        deviations (k,) of independent effects, or their covariance matrix (k, k), in the units of
        the response.

    Raises
    ------
    OptionError : wrong length or names, a negative standard deviation, a matrix that is no
        covariance.
    """
    scale = require_number("sigma", sigma, above=0.0)
    if not 1.0 / LARGEST <= scale <= LARGEST:
        raise OptionError(f"sigma is {shown(sigma)}, whose square is no number: use another unit")
    coefficients = _beta(beta, matrices.fixed.names)
    given = [name for name, v in (("theta", theta), ("sd", sd), ("cov", cov)) if v is not None]
    if not given or ("theta" in given and len(given) > 1):
        raise OptionError(
            "give the random effects once: theta= (relative to sigma), or sd= and cov= by term"
        )
    if theta is not None:
        return Parameters(coefficients, _theta(theta, matrices), scale)
    return Parameters(coefficients, _theta_of(matrices, sd or {}, cov or {}, scale), scale)


def _beta(beta: Any, names: tuple[str, ...]) -> Vector:
    keys = getattr(beta, "keys", None)
    if keys is not None:
        labels = [str(key) for key in keys()]
        absent = [name for name in names if name not in labels]
        unknown = [name for name in labels if name not in names]
        if absent or unknown:
            what = (
                f"lacks {listed(absent, quoted=True)}"
                if absent
                else f"has {listed(unknown, quoted=True)}, no coefficient"
            )
            raise OptionError(f"beta {what}: the coefficients are {listed(names, quoted=True)}")
        beta = [beta[name] for name in names]
    return require_vector("beta", beta, len(names), of=listed(names, quoted=True))


def _theta(theta: Any, matrices: ModelMatrices) -> Vector:
    names: list[str] = []
    lower: list[float] = []
    for term in matrices.terms:
        template = term.template
        names += template.names(matrices.factors[term.factor].label, term.column_names)
        lower += template.lower.tolist()
    values = require_vector("theta", theta, len(names), of=listed(names, quoted=True))
    if (values < lower).any():
        raise OptionError(
            f"theta must not be below the bounds {lower} of {listed(names, quoted=True)}"
        )
    return values


def _theta_of(
    matrices: ModelMatrices, sd: Mapping[str, Any], cov: Mapping[str, Any], sigma: float
) -> Vector:
    names = [term.name for term in matrices.terms]
    for role, mapping in (("sd", sd), ("cov", cov)):
        unknown = [name for name in mapping if name not in names]
        if unknown:
            raise OptionError(
                f"{role} has {listed(unknown, quoted=True)}, but the random terms are "
                f"{listed(names, quoted=True)}"
            )
    out = []
    for term in matrices.terms:
        k = len(term.column_names)
        if (term.name in sd) == (term.name in cov):
            raise OptionError(
                f"give the random term '{term.name}' once, in sd= or in cov=; it has the effects "
                f"{listed(term.column_names, quoted=True)}"
            )
        if term.name in sd:
            remedy = f"give {k} standard deviations, for {listed(term.column_names, quoted=True)}"
            what = f"sd['{term.name}']"
            deviations = np.atleast_1d(require_array(what, sd[term.name], remedy))
            if deviations.shape != (k,) or not (
                np.isfinite(deviations) & (deviations >= 0.0) & (deviations <= LARGEST)
            ).all():
                raise OptionError(f"{what} is {shown(sd[term.name])}: {remedy}")
            covariance = np.diag(deviations**2)
        else:
            remedy = f"give a covariance matrix ({k}, {k})"
            what = f"cov['{term.name}']"
            covariance = np.atleast_2d(require_array(what, cov[term.name], remedy))
            symmetric = (
                covariance.shape == (k, k)
                and bool(np.isfinite(covariance).all())
                and np.allclose(covariance, covariance.T)
            )
            if not symmetric or np.linalg.eigvalsh(covariance)[0] < -1e-10 * np.trace(covariance):
                raise OptionError(
                    f"cov['{term.name}'] is no covariance matrix ({k}, {k}) of "
                    f"{listed(term.column_names, quoted=True)}: it must be symmetric, without "
                    "negative eigenvalues"
                )
        values, vectors = np.linalg.eigh(covariance)
        root = vectors * np.sqrt(np.maximum(values, 0.0)) / sigma
        template = term.template
        if not np.allclose(covariance, np.diag(np.diag(covariance))):
            part = template.theta_of(root)
        else:
            part = template.theta_of(np.sqrt(np.diag(np.diag(covariance))) / sigma)
        T = sigma * template.factor(part)
        if not np.allclose(T @ T.T, covariance, atol=1e-8 * max(np.trace(covariance), 1e-300)):
            raise OptionError(
                f"the covariance given for '{term.name}' does not have the structure "
                f"{term.structure}: change it, or use (x | g) in the formula"
            )
        out.append(part)
    return np.concatenate(out)
