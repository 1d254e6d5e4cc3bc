"""A fit as plain JSON, in lme4's shapes, for tools in other languages.

The form is `fit.schema.json` beside this file, a JSON Schema, which the wheel holds:
`importlib.resources.files("mixlm_sparse.report.tables") / "fit.schema.json"`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from mixlm_sparse.common.checks import require_bool
from mixlm_sparse.inference.fixed.methods import linear_tests, require_ddf
from mixlm_sparse.inference.variance.residual_structure import residual_table
from mixlm_sparse.model.fitted import FittedModel

__all__ = ["FORMAT", "to_dict"]

FORMAT = "mixlm_sparse/fit/1"  # the number changes where a reader of the form before would fail


def to_dict(
    fit: FittedModel, *, ddf: str | None = "satterthwaite", cond_var: bool = False
) -> dict[str, Any]:
    """Return the fit as plain JSON in lme4's shapes: dicts, lists, text, numbers, None.

    Numbers that are missing, undetermined or infinite are None (a bound in `lower`: none).

    Parameters
    ----------
    ddf : of the tests of coefficients: "satterthwaite", "kenward-roger", "normal" or "none".
    cond_var : whether `ranef` has conditional covariances of the random effects (lme4's postVar).

    Returns
    -------
    dict : `json.dumps(fit.to_dict(), allow_nan=False)` works, and the result is valid under the
        JSON Schema that the package holds (report/tables/fit.schema.json).  Results by row are not
        in it: see `augment`.

    Examples
    --------
    >>> import json, mixlm_sparse as mx
    >>> fit = mx.lmer("Reaction ~ Days + (Days | Subject)", mx.datasets.load("sleepstudy"))
    >>> found = json.loads(json.dumps(fit.to_dict(), allow_nan=False))
    >>> found["format"], found["fixef"]["names"], found["ngrps"]
    ('mixlm_sparse/fit/1', ['(Intercept)', 'Days'], {'Subject': 18})
    """
    ddf, cond_var = require_ddf(ddf), require_bool("cond_var", cond_var)
    names = list(fit.system.x_names)
    optimum = fit.optimum
    return {
        "format": FORMAT,
        "formula": fit.formula,
        "isREML": fit.reml,
        "nobs": fit.nobs,
        "npar": fit.n_par,
        "ngrps": {str(label): int(count) for label, count in fit.ngroups.items()},
        "criterion": _number(fit.criterion),
        "logLik": _number(fit.llf),
        "AIC": _number(fit.aic),
        "BIC": _number(fit.bic),
        "sigma": _number(fit.sigma),
        "theta": _numbers(fit.theta),
        "lower": _numbers(fit.lower),
        "fixef": {"names": names, "values": _numbers(fit.solution.beta)},
        "vcov": {"names": names, "values": _matrix(fit.cov_params().to_numpy())},
        "coefficients": _coefficients(fit, ddf),
        "VarCorr": [
            {
                "name": term.name,
                "group": term.group,
                "columns": list(term.columns),
                "stddev": _numbers(term.sd),
                "correlation": _matrix(term.correlation),
                "covariance": _matrix(term.covariance),
            }
            for term in fit.varcorr.terms
        ],
        "residual_structure": _residual(fit),
        "ranef": _random_effects(fit, cond_var),
        "optinfo": {
            "optimizer": optimum.optimizer,
            "status": str(fit.convergence.status),
            "evaluations": int(optimum.n_evaluations),
            "singular": bool(fit.is_singular()),
        },
        "messages": list(fit.messages),
    }


def _coefficients(fit: FittedModel, ddf: str) -> dict[str, Any]:
    """Return the table of coefficients, the matrix of lme4's `coef(summary(fit))`."""
    names = list(fit.system.x_names)
    table = linear_tests(fit, np.eye(len(names)), ddf=ddf).columns()
    kept = ("estimate", "std_error", "df", "statistic", "p_value")
    return {
        "ddf": ddf,
        "names": names,
        "columns": list(kept),
        "values": _matrix(np.column_stack([table[name] for name in kept])),
    }


def _residual(fit: FittedModel) -> dict[str, Any]:
    """Return the parameters of the residual structure; none for independent residuals."""
    table = residual_table(fit)
    values = _numbers(table["estimate"])
    return {"names": [str(name) for name in table["parameter"]], "values": values}


def _random_effects(fit: FittedModel, cond_var: bool) -> dict[str, Any]:
    """Return the conditional modes of each grouping factor, a matrix of levels by columns."""
    variances = fit.ranef(cond_var=True)[1] if cond_var else {}
    out: dict[str, Any] = {}
    for group, frame in fit.ranef().items():
        out[group] = {
            "levels": [str(level) for level in frame.index],
            "columns": [str(column) for column in frame.columns],
            "values": _matrix(frame.to_numpy()),
        }
        if cond_var:
            out[group]["postVar"] = [_matrix(V) for V in variances[group]]
    return out


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _numbers(values: Iterable[float]) -> list[float | None]:
    return [_number(value) for value in values]


def _matrix(values: Any) -> list[list[float | None]]:
    return [_numbers(row) for row in values]
