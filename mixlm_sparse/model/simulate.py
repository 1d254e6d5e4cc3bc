"""New responses from a fitted model or from given parameters; `draws` says how they are made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mixlm_sparse.common.checks import (
    MAX_REPLICATES,
    require_bool,
    require_count,
)
from mixlm_sparse.common.errors import DataError, OptionError
from mixlm_sparse.common.keywords import answers_unknown_keywords
from mixlm_sparse.common.types import Matrix
from mixlm_sparse.covariance.residual import Independent
from mixlm_sparse.design.matrices import ModelMatrices
from mixlm_sparse.design.membership import joined
from mixlm_sparse.model.base import unit_of_theta
from mixlm_sparse.model.call import ModelCall
from mixlm_sparse.model.designs import with_given_response
from mixlm_sparse.model.draws import (
    RandomPiece,
    ResponseModel,
    Seed,
    seed_sequence,
    symmetric_factor,
)
from mixlm_sparse.model.given import Parameters, given_parameters
from mixlm_sparse.model.predict.effects import (
    Selection,
    all_effects,
    no_effects,
    select_effects,
    whole_terms,
)
from mixlm_sparse.model.predict.estimable import estimable_rows, warn_of_cells
from mixlm_sparse.model.predict.predict import linear_predictor
from mixlm_sparse.model.predict.residuals import DrawnResiduals, whitening_of_rows
from mixlm_sparse.model.predict.rows import (
    DesignRows,
    design_rows,
    joined_rows,
    new_group_codes,
    prior_weights,
    refuse_unknown_levels,
)
from mixlm_sparse.solve.products.basis import term_bases
from mixlm_sparse.solve.rows import rows_of

if TYPE_CHECKING:
    from mixlm_sparse.model.fitted import FittedModel

__all__ = ["model_of_fit", "model_of_parameters", "simulate", "simulate_fit"]

# ---------------------------------------------------------------------------------------------
# From a fit
# ---------------------------------------------------------------------------------------------


def fixed_effects_of(re_form: str | None, use_u: bool, fit: FittedModel) -> Selection:
    """Return the random effects that are held at their fitted values."""
    if re_form is not None and not isinstance(re_form, str):
        raise OptionError(
            f"re_form is {re_form!r}: use None (new random effects), \"fitted\" (those of the fit)"
            ' or a formula such as "~ (1 | g)" of the terms to hold at their fitted values'
        )
    if require_bool("use_u", use_u) and re_form not in (None, "fitted"):
        raise OptionError(
            f"use_u=True holds all random effects and re_form {re_form!r} some of them: give one "
            "of the two"
        )
    if use_u or re_form == "fitted":
        return all_effects(fit.matrices)
    if re_form is None:
        return no_effects(fit.matrices)
    selection = select_effects(re_form, fit.matrices)
    for t, chosen in enumerate(selection):
        if chosen.any() and not chosen.all():
            name = fit.matrices.terms[t].name
            raise OptionError(
                f"re_form '{re_form}' holds some effects of '{name}' and not others, but a term is "
                "drawn as a whole: name all of its columns, or none"
            )
    return selection


def model_of_fit(
    fit: FittedModel,
    re_form: str | None = None,
    *,
    use_u: bool = False,
    newdata: Any = None,
    offset: Any = None,
    weights: Any = None,
    allow_new_levels: bool = False,
) -> tuple[ResponseModel, DesignRows]:
    """Return the distribution of a new response, and the rows that it belongs to."""
    held = fixed_effects_of(re_form, use_u, fit)
    m = fit.matrices
    terms = list(range(len(m.terms)))
    rows = design_rows(fit, newdata, fixed=True, terms=terms, offset=offset)
    held_rows = replace(
        rows,
        terms={t: rows.terms[t] for t in whole_terms(held)},
        unknown={g: rows.unknown[g] for g in {m.terms[t].factor for t in whole_terms(held)}},
    )
    if not allow_new_levels:
        refuse_unknown_levels(held_rows, fit)
    mean = linear_predictor(fit, held_rows, held)
    estimable = estimable_rows(fit, rows)
    if estimable is not None:
        warn_of_cells(fit, newdata, rows, estimable)
        mean[~estimable] = np.nan
    pieces = []
    for t in terms:
        g = m.terms[t].factor
        T = unit_of_theta(fit) * symmetric_factor(fit.solution.Lambda(t), fit.system.chart.Rz[t])
        codes, n_levels = rows.codes[g], m.factors[g].n_levels
        if newdata is not None:
            codes, n_levels = new_group_codes(fit, newdata, rows, g)
        if not held[t].any():
            known = m.factors[g].known
            root = None if known is None else known.root
            pieces.append(RandomPiece(rows.terms[t], codes, n_levels, T, root))
    residual: Independent | DrawnResiduals
    if m.law is not None:
        residual = DrawnResiduals(whitening_of_rows(fit, newdata, rows, weights))
    else:
        residual = Independent(prior_weights(fit, newdata, rows, weights))
    return ResponseModel(mean, tuple(pieces), fit.sigma, residual), rows


def simulate_fit(
    fit: FittedModel,
    nsim: int = 1,
    seed: Seed = None,
    re_form: str | None = None,
    newdata: Any = None,
    *,
    use_u: bool = False,
    offset: Any = None,
    weights: Any = None,
    allow_new_levels: bool = False,
    membership: Any = None,
) -> Matrix:
    """Simulate responses from the fitted model.

    Parameters
    ----------
    nsim : number of responses.
    seed : whole number, numpy Generator or SeedSequence.  Response i of a seed is always the
        same, however many are drawn and whatever engine made the fit.
    re_form : None draws all random effects anew; "fitted" holds them at their fitted values; a
        formula such as "~ (1 | g)" holds these terms and draws the others.
    newdata : rows to simulate for; None for those of the fit.  Groups that the fit has not seen
        get random effects of their own.
    use_u : True is the same as re_form="fitted".
    offset, weights : of new rows, as in `predict`; Var(e) = sigma^2 / w.
    allow_new_levels : with effects held at their fitted values, unknown groups get zero.
    membership : of new rows in several levels, as in `predict`.

    Returns
    -------
    (n, nsim) array.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> fit = mx.lmer("Yield ~ 1 + (1 | Batch)", mx.datasets.load("Dyestuff"))
    >>> fit.simulate(3, seed=1).shape
    (30, 3)
    """
    use_u = require_bool("use_u", use_u)
    allow_new_levels = require_bool("allow_new_levels", allow_new_levels)
    count = require_count("nsim", nsim, most=MAX_REPLICATES)
    newdata = joined_rows(newdata, membership)
    model, rows = model_of_fit(
        fit,
        re_form,
        use_u=use_u,
        newdata=newdata,
        offset=offset,
        weights=weights,
        allow_new_levels=allow_new_levels,
    )
    return rows.align(model.draw(seed_sequence(seed), 0, count))


# ---------------------------------------------------------------------------------------------
# From given parameters
# ---------------------------------------------------------------------------------------------


def model_of_parameters(matrices: ModelMatrices, parameters: Parameters) -> ResponseModel:
    """Return the distribution of a response of a design with given parameters."""
    mean = np.empty(matrices.nobs)
    with np.errstate(over="ignore", invalid="ignore"):  # `responses` refuses what is infinite
        for block in rows_of(matrices):
            mean[block.slice] = block.fixed_part(parameters.beta) + block.offset
    pieces = []
    first = 0
    bases = term_bases(matrices)
    for t, term in enumerate(matrices.terms):
        template = term.template
        T = template.factor(parameters.theta[first : first + template.n_theta])
        T = symmetric_factor(T, bases[t])
        first += template.n_theta
        factor = matrices.factors[term.factor]
        pieces.append(
            RandomPiece(
                term.columns,
                factor.row_levels,
                factor.n_levels,
                parameters.sigma * T,
                None if factor.known is None else factor.known.root,
            )
        )
    return ResponseModel(mean, tuple(pieces), parameters.sigma, matrices.residual)


@answers_unknown_keywords
def simulate(
    formula: str,
    data: Any,
    *,
    beta: Any,
    theta: Any = None,
    sigma: float = 1.0,
    sd: Mapping[str, Any] | None = None,
    cov: Mapping[str, Any] | None = None,
    nsim: int = 1,
    seed: Seed = None,
    weights: Any = None,
    offset: Any = None,
    subset: Any = None,
    contrasts: Mapping[str, Any] | None = None,
    env: Mapping[str, Any] | None = None,
    known: Mapping[str, Any] | None = None,
    membership: Mapping[str, Any] | None = None,
) -> Matrix:
    """Simulate responses of a model with given parameters.

    Parameters
    ----------
    formula : lme4's syntax; a response is not needed, and not read if there is one.
    data : a frame with the columns of the right side.
    beta : (p,) fixed effects in the order of the columns, or a mapping from their names.
    theta : (m,) relative covariance parameters in lme4's order (Lambda, dimensionless).
    sd, cov : in the place of theta, by name of the term: standard deviations of independent
        effects, or a covariance matrix, in the units of the response.
    sigma : residual standard deviation.
    nsim : number of responses.
    seed : whole number, numpy Generator or SeedSequence.  Response i of a seed is always the same,
        however many are drawn.
    weights, offset, subset, contrasts, env, known, membership : as in `lmer`; Var(e) = sigma^2 / w.

    Returns
    -------
    (n, nsim) array, one row for each row of the data, NaN where cells are missing.

    Raises
    ------
    OptionError, DataError, FormulaError : with the remedy.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> plan = {"x": [0.0, 1.0] * 6, "g": ["a"] * 4 + ["b"] * 4 + ["c"] * 4}
    >>> y = mx.simulate("~ x + (1 | g)", plan, beta=[1.0, 0.5], sd={"g": 0.7}, nsim=3, seed=1)
    >>> y.shape
    (12, 3)
    """
    call = ModelCall(
        formula=formula,
        data=joined(data, membership),
        weights=weights,
        offset=offset,
        subset=subset,
        contrasts=contrasts,
        env=env,
        known=known,
    ).checked()
    matrices, _ = with_given_response(call)
    parameters = given_parameters(
        matrices, beta=beta, theta=theta, sigma=sigma, sd=sd, cov=cov
    )
    count = require_count("nsim", nsim, most=MAX_REPLICATES)
    y = model_of_parameters(matrices, parameters).draw(seed_sequence(seed), 0, count)
    if matrices.rows is None:
        return y
    if not matrices.rows.size:
        raise DataError("no rows are left to simulate: check the missing cells")
    out = np.full((matrices.n_input, y.shape[1]), np.nan)
    out[matrices.rows] = y
    return out
