"""Likelihood-ratio comparison of fits to the same rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from scipy.special import chdtrc

from mixlm_sparse.common.checks import require_bool, shown
from mixlm_sparse.common.errors import DataError, OptionError
from mixlm_sparse.common.keywords import answers_unknown_keywords
from mixlm_sparse.common.tables import result_table
from mixlm_sparse.inference.fixed.anova import anova_table
from mixlm_sparse.inference.models.mixture import lr_statistic
from mixlm_sparse.inference.models.nesting import Nesting, nesting
from mixlm_sparse.model.fitted import FittedModel
from mixlm_sparse.model.rowless import MatricesWithoutRows

Fit = TypeVar("Fit", bound=FittedModel)

# Lengths of one response, summed in different orders, differ by rounding alone.
SAME_LENGTH_RTOL = 1e-12

COLUMNS = ["npar", "AIC", "BIC", "logLik", "deviance", "Chisq", "Df", "Pr(>Chisq)"]


@result_table("Comparison of models by likelihood ratios")
def compare_models(
    *fits: FittedModel, refit: bool = True, names: Sequence[str] | None = None
) -> pd.DataFrame:
    """Compare nested models by likelihood-ratio tests, as lme4's `anova(a, b, ...)`.

    Parameters
    ----------
    *fits : two or more fits to the same response in the same rows.
    refit : fit REML models again by ML first, which comparisons of fixed effects need.
    names : of the models, in the order given; by default "m1", "m2", ...

    Returns
    -------
    DataFrame, one row for each model in ascending order of its number of parameters, with columns
    npar, AIC, BIC, logLik, deviance, Chisq, Df, Pr(>Chisq).  Each row is tested against the row
    above; a negative statistic counts as zero, and models of equal size have no p-value, nor have
    covariance structures of which none is a special case of the other.
    `attrs["formulas"]` holds the formulas by name, `attrs["note"]` says what was refitted and which
    structures are not nested.

    Notes
    -----
    If the models differ in a variance, the hypothesis is on the boundary of the parameter space,
    and this p-value is too large.

    Raises
    ------
    DataError : the models were fitted to different rows or different responses.
    OptionError : fewer than two fits; with refit=False, REML beside ML or REML criteria of models
        whose fixed parts differ.
    """
    for position, fit in enumerate(fits):
        if not isinstance(fit, FittedModel):
            raise OptionError(
                f"argument {position + 1} of anova is a {type(fit).__name__}, not a fitted model: "
                "give the results of lmer"
            )
    if len(fits) < 2:
        raise OptionError("a comparison needs at least two models: anova(a, b)")
    labels = _labels(len(fits), names)
    require_comparable(fits, labels)
    if not refit:
        _require_same_criterion(fits, labels)
    refitted = [label for label, fit in zip(labels, fits, strict=True) if refit and fit.reml]
    used = [fit.refit_ml() if refit else fit for fit in fits]
    for label, fit in zip(labels, used, strict=True):
        if not np.isfinite(fit.criterion):
            raise DataError(
                f"model {label} fits the response perfectly (sigma is zero), so that it has no "
                "likelihood to compare: leave it out"
            )
    order = sorted(range(len(used)), key=lambda i: used[i].n_par)
    rows = []
    edges, apart = [], []
    for place, i in enumerate(order):
        fit = used[i]
        statistic, df, p = np.nan, np.nan, np.nan
        if place:
            before = order[place - 1]
            how = nesting(used[before], fit)
            pair = f"{labels[before]} and {labels[i]}"
            if how is Nesting.NOT and fit.n_par > used[before].n_par:
                apart.append(pair)
            else:
                statistic, df, p = likelihood_ratio(used[before], fit)
            if how is Nesting.BOUNDARY:
                edges.append(pair)
        rows.append((fit.n_par, fit.aic, fit.bic, fit.llf, fit.deviance, statistic, df, p))
    table = pd.DataFrame(rows, columns=COLUMNS, index=[labels[i] for i in order])
    table.attrs["blank"] = dict.fromkeys(COLUMNS[-3:], (labels[order[0]],))
    table.attrs["formulas"] = {labels[i]: used[i].formula for i in order}
    again = f"fitted again by ML for the comparison: {', '.join(refitted)}" if refitted else ""
    table.attrs["note"] = "; ".join(text for text in (again, *_said_of(apart, edges)) if text)
    return table


def _said_of(apart: Sequence[str], edges: Sequence[str]) -> list[str]:
    """Return the notes on structures of which none is a special case, or one at its edge."""
    notes = []
    if apart:
        notes.append(
            f"{', '.join(apart)}: the covariance structure of one is no special case of the "
            "other's, so that there is no chi-squared: compare AIC or BIC"
        )
    if edges:
        notes.append(
            f"{', '.join(edges)}: the smaller model is at the end of a parameter's range, where p "
            "is too large"
        )
    return notes


def likelihood_ratio(smaller: FittedModel, larger: FittedModel) -> tuple[float, int, float]:
    """Return chi-squared, its degrees of freedom and p of the larger against the smaller model.

    The criteria of the fits are taken as they are; p is NaN for models of equal size.  Parameters
    that the data do not determine have no degrees of freedom.
    """
    statistic = lr_statistic(smaller.criterion, larger.criterion)
    df = larger.n_determined - smaller.n_determined
    return statistic, df, float(chdtrc(df, statistic)) if df > 0 else float("nan")


def require_comparable(fits: Sequence[FittedModel], labels: Sequence[str] | None = None) -> None:
    """Raise a DataError unless all fits are to the same response in the same rows."""
    labels = _labels(len(fits), labels)
    first = fits[0]
    for label, fit in zip(labels[1:], fits[1:], strict=True):
        if fit.nobs != first.nobs or not _same_rows(first, fit):
            raise DataError(
                f"models {labels[0]} and {label} were fitted to different rows ({first.nobs} and "
                f"{fit.nobs} of {first.matrices.n_input} and {fit.matrices.n_input}), probably "
                "because cells are missing in a column that only one of them uses: drop these rows "
                "from the data first and fit both again"
            )
        if not _same_response(first, fit):
            responses = first.matrices.response_name, fit.matrices.response_name
            different = responses[0] != responses[1]
            what = f"{responses[0]} and {responses[1]}" if different else "other values or an order"
            raise DataError(
                f"models {labels[0]} and {label} have different responses ({what}), so that their "
                "likelihoods cannot be compared: fit both to the same response in the same data"
            )


def same_fixed_part(a: FittedModel, b: FittedModel) -> bool:
    """Return whether two fits have the same columns of X."""
    return a.system.x_names == b.system.x_names


def _require_same_criterion(fits: Sequence[FittedModel], labels: Sequence[str]) -> None:
    if len({fit.reml for fit in fits}) > 1:
        raise OptionError(
            "some of the models were fitted by REML, others by ML: use refit=True, or fit all of "
            "them in the same way"
        )
    if not fits[0].reml:
        return
    for label, fit in zip(labels[1:], fits[1:], strict=True):
        if not same_fixed_part(fits[0], fit):
            raise OptionError(
                f"models {labels[0]} and {label} have different fixed effects, and REML criteria "
                "of such models cannot be compared: use refit=True, which compares by ML"
            )


def _same_rows(a: FittedModel, b: FittedModel) -> bool:
    rows_a, rows_b = a.matrices.rows, b.matrices.rows
    if rows_a is None or rows_b is None:
        # one of them has no frame around its rows, or uses all of them
        return a.nobs == b.nobs
    return a.matrices.n_input != b.matrices.n_input or bool(np.array_equal(rows_a, rows_b))


def _same_response(a: FittedModel, b: FittedModel) -> bool:
    if not any(isinstance(fit.matrices, MatricesWithoutRows) for fit in (a, b)):
        return bool(np.array_equal(a.matrices.y, b.matrices.y))
    # without rows: the response has the same length, and so have the weights
    one, other = a.system.products, b.system.products
    return math.isclose(one.y_length, other.y_length, rel_tol=SAME_LENGTH_RTOL) and math.isclose(
        one.log_weight_sum, other.log_weight_sum, rel_tol=SAME_LENGTH_RTOL
    )


def _labels(count: int, names: Sequence[str] | None) -> list[str]:
    if names is None:
        return [f"m{i + 1}" for i in range(count)]
    labels = [str(name) for name in names]
    if len(labels) != count or len(set(labels)) != count:
        raise OptionError(f"names are {labels} for {count} models: give {count} different names")
    return labels


@answers_unknown_keywords
def anova(
    fit: FittedModel | Sequence[FittedModel],
    *others: FittedModel,
    type: Any = 3,
    ddf: str | None = "satterthwaite",
    refit: bool = True,
    names: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Test each term of the fixed part of one fit or, with other fits, compare the models.

    Parameters
    ----------
    fit : a fit, or a list of several.
    *others : further fits to the same rows: likelihood-ratio tests of nested models, as lme4's
        `anova(a, b)`.
    type : 1, "I" or "sequential" tests the terms one after the other, 2 or "II" each after those
        that do not contain it, 3, "III" or "marginal" each by marginal contrasts,
        whatever the coding of factors.
    ddf : "satterthwaite"; "kenward-roger" (a fit by ML is fitted again by REML, with a warning);
        "sas", Satterthwaite's with the degrees of freedom of several rows together as in SAS;
        "normal" for chi-squared tests; None for none.
    refit : of a comparison: fit REML models again by ML first, which comparisons of fixed effects
        need.
    names : of the models compared, in the order given; by default "m1", "m2", ...

    Returns
    -------
    DataFrame.  For one fit a row for each term and the columns Sum Sq, Mean Sq, NumDF, DenDF,
    F value, Pr(>F); `attrs["heading"]` says what it is.  For several a row for each model in
    ascending order of its number of parameters and the columns npar, AIC, BIC, logLik, deviance,
    Chisq, Df, Pr(>Chisq): each row is tested against the row above; a negative statistic counts
    as zero, and models of equal size have no p-value.  `attrs["formulas"]` holds the formulas by
    name, `attrs["note"]` says what was refitted.

    Raises
    ------
    DataError : the models were fitted to different rows or different responses.
    OptionError : what is given is no fit; an unknown type or method; with refit=False, REML beside
        ML or REML criteria of models whose fixed parts differ.

    Notes
    -----
    If the models differ in a variance, the hypothesis is on the boundary of the parameter space,
    and the p-value of the comparison is too large.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> sleep = mx.datasets.load("sleepstudy")
    >>> small = mx.lmer("Reaction ~ 1 + (Days | Subject)", sleep)
    >>> large = mx.lmer("Reaction ~ Days + (Days | Subject)", sleep)
    >>> mx.anova(large)[["NumDF", "DenDF", "F value"]].round(2)
          NumDF  DenDF  F value
    Days      1   17.0    45.85
    >>> mx.anova(small, large)[["npar", "Chisq", "Df"]].round(3)
        npar   Chisq   Df
    m1     5     NaN  NaN
    m2     6  23.537  1.0
    """
    fits = require_fits("anova", fit, *others)
    refit = require_bool("refit", refit)
    if len(fits) == 1 and not isinstance(fit, Sequence):
        return anova_table(fits[0], type=type, ddf=ddf)
    return compare_models(*fits, refit=refit, names=names)


def require_fits(function: str, *given: object) -> list[FittedModel]:
    """Return the fits among the arguments of a function; lists of fits are taken apart.

    Raises
    ------
    OptionError : something is no fit; the message names what it is.
    """
    fits: list[FittedModel] = []
    for item in given:
        if isinstance(item, FittedModel):
            fits.append(item)
        elif isinstance(item, list | tuple):
            fits += require_fits(function, *item)
        else:
            raise OptionError(
                f"{function} takes fits of lmer or a list of them, but was given {shown(item)}"
            )
    return fits
