"""Further fits of a fit: to another response, by the other criterion, with arguments changed.

`refit`, `refit_ml`, `refit_reml` and `update` are methods of the fit; the next call is the same
one with some arguments changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any, TypeVar

from mixlm_sparse.common.errors import OptionError
from mixlm_sparse.design.membership import joined
from mixlm_sparse.formula.update import updated_formula
from mixlm_sparse.model.base import FitBase, announced, fit_of
from mixlm_sparse.model.call import FitOptions, ModelCall
from mixlm_sparse.model.responses import response_for
from mixlm_sparse.model.run import assemble, solve_system
from mixlm_sparse.model.warm import warm_start
from mixlm_sparse.solve.derived.other_response import with_response
from mixlm_sparse.solve.search.control import control_of
from mixlm_sparse.solve.system import PenalizedSystem

F = TypeVar("F", bound=FitBase)

__all__ = [
    "changed_call", "options_for_another", "refit", "refit_ml", "refit_reml", "split_changes",
    "update",
]  # fmt: skip

OPTION_NAMES = tuple(f.name for f in fields(FitOptions))
# What can be changed without a formula and data.
SEARCH_NAMES = tuple(sorted(name for name in OPTION_NAMES if name != "engine"))
MODEL_NAMES = tuple(
    f.name for f in fields(ModelCall)
    if f.name not in ("options", "response", "formula", "data")
)  # fmt: skip


def options_for_another(options: FitOptions, **changes: Any) -> FitOptions:
    """Return the options of a fit for the next; what was said for one search is left out."""
    return replace(options, **{"start": None, "progress": False, **changes})


def split_changes(
    options: FitOptions, changes: Mapping[str, Any]
) -> tuple[FitOptions, dict[str, Any]]:
    """Tell what concerns the search from what concerns the model.

    Returns
    -------
    options, of_model : the options with their changes worked in, and the other changes.

    Raises
    ------
    OptionError : an argument that `lmer` does not have.
    """
    unknown = sorted(set(changes) - set(OPTION_NAMES) - set(MODEL_NAMES))
    if unknown:
        near = [name for name in (*OPTION_NAMES, *MODEL_NAMES) if name == unknown[0].lower()]
        if near:
            raise OptionError(f"update has no argument {unknown[0]!r}: write {near[0]}=")
        raise OptionError(
            f"update knows no argument {', '.join(map(repr, unknown))}: use formula, data, "
            + ", ".join(sorted({*OPTION_NAMES, *MODEL_NAMES} - {"random"}))
        )
    of_search = {name: value for name, value in changes.items() if name in OPTION_NAMES}
    if "control" in of_search:
        of_search["control"] = control_of(of_search["control"])
    of_search.setdefault("progress", None)
    of_model = {name: value for name, value in changes.items() if name in MODEL_NAMES}
    return options_for_another(options, **of_search).checked(), of_model


def changed_call(
    call: ModelCall,
    options: FitOptions,
    formula: str | None,
    data: Any,
    of_model: Mapping[str, Any],
) -> ModelCall:
    """Return the call with a formula (`.` stands for the old side), data or arguments changed.

    A response of `refit` stays as long as the formula's does and the data are the same.
    """
    new = replace(call, options=options, **of_model)
    if formula is not None:
        text = updated_formula(call.formula, formula)
        same_response = _left_side(text) == _left_side(call.formula)
        new = replace(new, formula=text, response=call.response if same_response else None)
    return new if data is None else replace(new, data=data, response=None)


def _left_side(formula: str) -> str:
    """Return the response as the formula's reader writes it."""
    return updated_formula(formula, ". ~ .").partition("~")[0].strip()


def refit(fit: F, y: Any) -> F:
    """Fit the same model to another response.

    Parameters
    ----------
    y : (n,) one value for each row used, or for each row of the data.

    Returns
    -------
    A fit of the same class: the design, the products without y and the symbolic work are
    shared.  What is to be said about it is in its `messages`; no warning is emitted, for refits
    come by the thousand.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> fit = mx.lmer("Reaction ~ Days + (Days | Subject)", mx.datasets.load("sleepstudy"))
    >>> y = fit.simulate(1, seed=1)[:, 0]
    >>> fit.refit(y).fixef.round(2)
    (Intercept)    260.52
    Days            12.37
    dtype: float64
    """
    response = response_for(fit.matrices, y)
    call = None if fit.call is None else replace(fit.call, response=response)
    options = options_for_another(fit.options, start=warm_start(fit))
    return _solved(fit, with_response(fit.system, response), options, call)


def refit_ml(fit: F) -> F:
    """Return the fit by maximum likelihood, as model comparisons need it.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> fit = mx.lmer("Reaction ~ Days + (Days | Subject)", mx.datasets.load("sleepstudy"))
    >>> round(fit.refit_ml().deviance, 4)
    1751.9393
    """
    return fit if not fit.reml else _refit_reml(fit, False)


def refit_reml(fit: F) -> F:
    """Return the fit by restricted maximum likelihood.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> sleepstudy = mx.datasets.load("sleepstudy")
    >>> fit = mx.lmer("Reaction ~ Days + (Days | Subject)", sleepstudy, reml=False)
    >>> round(fit.refit_reml().criterion, 4)
    1743.6283
    """
    return fit if fit.reml else _refit_reml(fit, True)


def _refit_reml(fit: F, reml: bool) -> F:
    options = options_for_another(fit.options, reml=reml, start=warm_start(fit))
    return _solved(fit, fit.system, options, fit.call)



def _solved(fit: F, system: PenalizedSystem, options: FitOptions, call: ModelCall | None) -> F:
    """Return the fit of `system`, of the same class as this one."""
    optimum, solution = solve_system(system, options)
    options = replace(options, start=None)
    call = None if call is None else replace(call, options=options)
    formula = fit.formula if call is None else call.formula
    return fit_of(type(fit), system, optimum, options, formula, call, solution=solution)


def update(fit: F, formula: str | None = None, data: Any = None, **changes: Any) -> F:
    """Fit again with some arguments changed; warns as `lmer` does.

    Parameters
    ----------
    formula : a formula, in which `.` stands for the old side: ". ~ . + x",
        "log(.) ~ . - (x | g) + (1 | g)".
    data : other data.
    **changes : any other argument of `lmer`: reml, weights, offset, subset, na_action,
        contrasts, start, optimizer, engine, control, progress, env, residual, variance, known,
        membership (which belongs to the data and is given again with other data).

    Raises
    ------
    OptionError : an argument that `lmer` does not have.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> fit = mx.lmer("Reaction ~ Days + (Days | Subject)", mx.datasets.load("sleepstudy"))
    >>> fit.update(". ~ . + I(Days^2)").fixef.round(3)
    (Intercept)    255.449
    Days             7.434
    I(Days^2)        0.337
    dtype: float64
    >>> fit.update(reml=False, subset="Days > 1").nobs
    144
    """
    membership = changes.pop("membership", None)
    if membership is not None and fit.call is not None:
        data = joined(fit.call.data if data is None else data, membership)
    options, of_model = split_changes(fit.options, changes)
    same_engine = options.engine == fit.options.engine
    if formula is None and data is None and not of_model and same_engine:
        return announced(_solved(fit, fit.system, options, fit.call))
    if fit.call is None:
        raise OptionError(
            "this fit was made from matrices, without a formula and data: make it again with "
            f"fit_matrices; update can change {', '.join(SEARCH_NAMES)}"
        )
    call = changed_call(fit.call, options, formula, data, of_model)
    system, call = assemble(call)
    return announced(_solved(fit, system, options, call))
