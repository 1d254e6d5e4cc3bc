"""Fits of products, and fits to which rows are added."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from mixlm_sparse.common.errors import OptionError
from mixlm_sparse.common.types import IntVector
from mixlm_sparse.design.batches.design import BatchArguments, BatchDesign
from mixlm_sparse.design.batches.sources import batch_source
from mixlm_sparse.design.build import columns_asked
from mixlm_sparse.design.grouping import GroupingFactor
from mixlm_sparse.design.random_terms import term_order
from mixlm_sparse.design.recipe import FormulaRecipe
from mixlm_sparse.formula.terms import group_labels
from mixlm_sparse.model.base import announced, fit_of
from mixlm_sparse.model.batches.products import ModelProducts
from mixlm_sparse.model.batches.sums import sum_more
from mixlm_sparse.model.batches.without_rows import draft_matrices
from mixlm_sparse.model.call import FitOptions, ModelCall
from mixlm_sparse.model.fitted import FittedModel
from mixlm_sparse.model.held import held_system
from mixlm_sparse.model.rowless import PRODUCTS, AbsentFrame, NoRows
from mixlm_sparse.model.run import solve_system
from mixlm_sparse.solve.products.accumulate import cross_products
from mixlm_sparse.solve.products.arrange import arranged

__all__ = ["append", "fit_of_products"]

F = TypeVar("F", bound=FittedModel)


def fit_of_products(
    cls: type[F], products: ModelProducts, options: FitOptions, fixed: Any = None
) -> F:
    """Fit the model of products, with the parameters of `fixed` held; warns as `lmer` does."""
    options.checked()
    matrices, cross, _, _ = products.in_model_order()
    rows = NoRows(cross.n, PRODUCTS)
    system = held_system(
        matrices, options.engine, fixed, cross=cross, source=rows,
        estimation=options.control.estimation,
    )  # fmt: skip
    optimum, solution = solve_system(system, options)
    arguments = products.design.arguments
    call = ModelCall(
        formula=products.formula,
        data=AbsentFrame(PRODUCTS),
        weights=arguments.weights,
        offset=arguments.offset,
        subset=arguments.subset,
        na_action=arguments.na_action,
        env=dict(products.design.env) or None,
        fixed=fixed,
        options=replace(options, start=None),
    )
    fit = fit_of(
        cls, system, optimum, call.options, products.formula, call, solution=solution
    )
    return announced(fit)


def append(fit: F, rows: Any) -> F:
    """Return the fit of the same model with more rows.

    Parameters
    ----------
    rows : a frame, or rows in batches, with the columns of the model.  Levels of grouping factors
        may be new; levels of the fixed part may not, and what `scale`, `poly` and other transforms
        have learned stays as it is.

    Returns
    -------
    A fit of the same class, with the same parameters held.  It is made from sums, in time that
    depends on the new rows and on the number of random effects, and holds no rows: what needs them
    says so.

    Raises
    ------
    DataError : a level of the fixed part is not known to the fit, a column is missing, ...
    OptionError : the fit was made from matrices, with arrays as weights, offset or subset, with
        known covariances of levels, or holds a parameter that sums cannot hold.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> sleepstudy = mx.datasets.load("sleepstudy")
    >>> early = mx.lmer("Reaction ~ Days + (Days | Subject)", sleepstudy.iloc[:90])
    >>> early.append(sleepstudy.iloc[90:]).fixef.round(3)
    (Intercept)    251.405
    Days            10.467
    dtype: float64
    """
    if fit.call is None or fit.matrices.spec is None:
        raise OptionError(
            "this fit was made from matrices, which say nothing of new rows: make it by lmer with "
            "a formula and data"
        )
    if fit.call.known is not None:
        raise OptionError(
            "append is not possible for a fit with known=, whose covariances of levels need the "
            "data at once: fit all rows together by lmer"
        )
    old = _products_of(fit, fit.call, fit.matrices.spec)
    total = old + sum_more(old.design, batch_source(rows))
    options = replace(fit.options, start=None)
    if not fit.is_singular():
        options = replace(options, start=_theta_for(fit, total))
    return fit_of_products(type(fit), total, options, fit.call.fixed)


def _theta_for(fit: FittedModel, total: ModelProducts) -> Any:
    """Return theta of a fit in the order of the terms that the sum will have, if it is the same."""
    spec = total.design.recipe({factor.label: factor for factor in total.factors})
    before = fit.matrices.spec
    assert before is not None
    same = [term.name for term in spec.terms] == [term.name for term in before.terms]
    # the criterion of other structures can have several valleys: search them from the usual start
    plain = all(template.name in ("us", "diag", "id") for template in fit.system.templates)
    return fit.theta if same and plain else None


def _products_of(fit: FittedModel, call: ModelCall, spec: FormulaRecipe) -> ModelProducts:
    """Return the sums that a fit was made of, in the order of its formula."""
    arguments = BatchArguments.of(call.weights, call.offset, call.subset, "omit")
    formula = spec.formula
    labels = group_labels(formula.random)
    factors = {factor.label: factor.known for factor in spec.factors}
    order = term_order([factors[label].n_levels for label in labels])
    places = [order.index(place) for place in range(len(order))]  # of each term in the design
    names, optional = columns_asked(formula, arguments.given())
    design = BatchDesign(
        formula, arguments, dict(spec.env), tuple(names), tuple(optional), dict(spec.states),
        spec.fixed, tuple(spec.terms[place].part for place in places), frozenset(names),
    )  # fmt: skip
    distinct = tuple(dict.fromkeys(labels))
    at = [factor.label for factor in spec.factors]
    cross = fit.system.cross
    if cross is None:
        cross = cross_products(fit.matrices, source=fit.system.row_source)
    draft = draft_matrices(design, distinct, PRODUCTS)
    same: list[IntVector] = [
        np.arange(factor.known.n_levels, dtype=np.int32) for factor in spec.factors
    ]
    cross = arranged(cross, draft, places, [at.index(label) for label in distinct], same)
    none = np.empty(0, dtype=np.int32)
    known = [factors[label] for label in distinct]
    return ModelProducts(
        design,
        tuple(GroupingFactor(f.label, none, f.n_levels, f.tables, f.keys) for f in known),
        cross,
        fit.matrices.n_input,
    )
