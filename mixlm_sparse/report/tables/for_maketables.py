"""What the package maketables asks of a model, so that its `ETable` can show a fit.

maketables reads attributes of its plug-in format, and needs not be installed here.  Objects with
`params`, `bse` and `pvalues`, which a fit has, it takes for results of statsmodels, and then shows
neither degrees of freedom nor groups; `MaketablesModel` has the plug-in's attributes alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd

from mixlm_sparse.common.text import in_brackets
from mixlm_sparse.inference.fixed.methods import require_ddf
from mixlm_sparse.inference.variance.shares import icc, r2
from mixlm_sparse.model.fitted import FittedModel
from mixlm_sparse.report.tables.tidy import tidy

__all__ = ["MaketablesModel", "for_maketables"]


def _estimate(table: pd.DataFrame, row: str) -> float:
    return float(table["estimate"].to_dict()[row])


STAT_LABELS = {
    "groups": "Groups",
    "icc": "ICC",
    "r2": "R² (conditional)",
    "r2_marginal": "R² (marginal)",
    "r2_conditional": "R² (conditional)",
    "sigma": "Residual SD",
    "method": "Method",
}
DEFAULT_STATS = ["N", "groups", "icc", "r2_marginal", "r2_conditional", "aic", "ll"]
_STATS: dict[str, Callable[[FittedModel], Any]] = {
    "N": lambda fit: fit.nobs,
    "groups": lambda fit: ", ".join(f"{label} {count}" for label, count in fit.ngroups.items()),
    "n_clusters": lambda fit: max(fit.ngroups.values(), default=0),
    "icc": lambda fit: _estimate(icc(fit), "adjusted"),
    "r2": lambda fit: _estimate(r2(fit), "conditional"),
    "r2_marginal": lambda fit: _estimate(r2(fit), "marginal"),
    "r2_conditional": lambda fit: _estimate(r2(fit), "conditional"),
    "ll": lambda fit: fit.llf,
    "aic": lambda fit: fit.aic,
    "bic": lambda fit: fit.bic,
    "deviance": lambda fit: fit.deviance,
    "df_model": lambda fit: fit.n_par,
    "df_resid": lambda fit: fit.df_resid,
    "sigma": lambda fit: fit.sigma,
    "method": lambda fit: "REML" if fit.reml else "ML",
    "se_type": lambda fit: "model-based",
}


class MaketablesModel:
    """A fit with the attributes of maketables' plug-in format, and no others.

    Parameters
    ----------
    fit : the fitted model.
    ddf : degrees of freedom of the tests: "satterthwaite", "kenward-roger" or "normal".
    """

    def __init__(self, fit: FittedModel, ddf: str = "satterthwaite") -> None:
        self._fit, self._ddf = fit, ddf

    def __repr__(self) -> str:
        return in_brackets(f"MaketablesModel of {self._fit.formula}")

    @property
    def __maketables_coef_table__(self) -> pd.DataFrame:
        """Coefficients: b, se, t, p, and df, ci95l, ci95u."""
        table = tidy(self._fit, "fixed", ddf=self._ddf, conf_int=True)
        columns = {
            "estimate": "b",
            "std_error": "se",
            "statistic": "t",
            "p_value": "p",
            "df": "df",
            "conf_low": "ci95l",
            "conf_high": "ci95u",
        }
        out = table[list(columns)].rename(columns=columns)
        out.index = pd.Index(table["term"].to_list(), name="Coefficient")
        return out

    def __maketables_stat__(self, key: str) -> Any:
        """Return the statistic `key`, None if there is none of this name."""
        if key not in _STATS or (self._fit.perfect and key.startswith(("icc", "r2"))):
            return None
        return _STATS[key](self._fit)

    @property
    def __maketables_depvar__(self) -> str:
        """Name of the response."""
        return self._fit.matrices.response_name or "y"

    @property
    def __maketables_fixef_string__(self) -> str | None:
        """Fixed effects that are absorbed: a mixed model has none."""
        return None

    @property
    def __maketables_var_labels__(self) -> dict[str, str] | None:
        """Labels of variables: the names are shown as they are."""
        return None

    @property
    def __maketables_stat_labels__(self) -> dict[str, str]:
        """Labels of the statistics that maketables does not know."""
        return dict(STAT_LABELS)

    @property
    def __maketables_default_stat_keys__(self) -> list[str]:
        """Statistics shown unless the user chooses."""
        return list(DEFAULT_STATS)

    @property
    def __maketables_vcov_info__(self) -> dict[str, Any]:
        """How standard errors were found."""
        return {"vcov_type": "model-based", "clustervar": None}


# ---------------------------------------------------------------------------------------------
# On the fit itself
# ---------------------------------------------------------------------------------------------


def for_maketables(fit: FittedModel, ddf: str = "satterthwaite") -> MaketablesModel:
    """Return the fit as `maketables.ETable` reads it.

    ETable takes a fit given as it is for a result of statsmodels, by its attributes, and leaves
    out groups, ICC and R².

    Parameters
    ----------
    ddf : degrees of freedom of the tests: "satterthwaite", "kenward-roger" or "normal".

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> fit = mx.lmer("Yield ~ 1 + (1 | Batch)", mx.datasets.load("Dyestuff"))
    >>> fit.for_maketables().__maketables_stat__("groups")
    'Batch 6'
    """
    require_ddf(ddf)
    return MaketablesModel(fit, ddf)


def endog_names(fit: FittedModel) -> str:
    """Name of the response, as statsmodels calls it.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> fit = mx.lmer("Reaction ~ Days + (Days | Subject)", mx.datasets.load("sleepstudy"))
    >>> fit.endog_names
    'Reaction'
    """
    return fit.matrices.response_name or "y"
