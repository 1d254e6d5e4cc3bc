"""Tests of each fixed term that can be left out."""

from __future__ import annotations

import numpy as np
import pandas as pd

from mixlm_sparse.common.checks import require_one_of
from mixlm_sparse.common.tables import result_table
from mixlm_sparse.inference.fixed.anova import removal_table
from mixlm_sparse.inference.fixed.methods import IN_TITLES, require_ddf
from mixlm_sparse.inference.models.compare import likelihood_ratio
from mixlm_sparse.inference.models.linear import LR_TEST, require_imperfect
from mixlm_sparse.inference.models.smaller import (
    chosen_terms,
    deleted,
    formula_of,
    term_label,
)
from mixlm_sparse.model.fitted import FittedModel


@result_table()
def drop1(
    fit: FittedModel,
    scope: object = None,
    test: str = "lrt",
    ddf: str = "satterthwaite",
) -> pd.DataFrame:
    """Test each fixed term that can be left out without breaking a margin.

    Parameters
    ----------
    scope : labels of terms; None for all that are part of no other term.
    test : "lrt" (both models by ML), "F" (tests in this fit) or "none" (AIC alone).
    ddf : method of the F tests: "satterthwaite" or "kenward-roger".

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> cake = mx.datasets.load("cake")
    >>> fit = mx.lmer("angle ~ recipe * temperature + (1 | recipe:replicate)", cake)
    >>> fit.drop1()
    Single term deletions, likelihood-ratio tests
                        npar  logLik     AIC     LRT  Df  Pr(>Chisq)
    <none>                20  -839.5  1719.1
    recipe:temperature    10  -844.8  1709.6  10.530  10      0.3953
    Note: all models fitted by ML
    """
    if isinstance(test, str):  # as R calls them
        test = {"chisq": "lrt", "chi": "lrt", "f": "F"}.get(test.lower(), test)
    require_one_of("test", test, ("lrt", "F", "none"))
    name = require_ddf(ddf)
    formula = formula_of(fit, "drop1")
    terms = chosen_terms(formula, scope)
    labels = [term_label(term) for term in terms]
    if test == "F":
        table, note = removal_table(fit, labels, name)
        table.attrs["heading"] = f"Single term deletions, F tests {IN_TITLES[name]}"
        table.attrs["note"] = note
        return table
    require_imperfect(fit)
    full = fit.refit_ml()
    lines: list[tuple[float, ...]] = [(full.n_par, full.llf, full.aic, np.nan, np.nan, np.nan)]
    for term in terms:
        smaller = deleted(full, fit, formula, term)
        statistic, df, p_value = likelihood_ratio(smaller, full)
        lines.append((smaller.n_par, smaller.llf, smaller.aic, statistic, float(df), p_value))
    columns = ["npar", "logLik", "AIC", "LRT", "Df", "Pr(>Chisq)"]
    table = pd.DataFrame(lines, columns=columns, index=["<none>", *labels])
    table = table.astype({"npar": np.int64})
    if test == "none":
        table = table.drop(columns=["LRT", "Pr(>Chisq)"])
    table.attrs["blank"] = dict.fromkeys(LR_TEST, ("<none>",))
    table.attrs["heading"] = "Single term deletions, likelihood-ratio tests"
    table.attrs["note"] = "all models fitted by ML" if fit.reml else ""
    return table
