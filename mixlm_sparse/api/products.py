"""Models from sums over rows: formed in one place or several, added, saved, fitted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from mixlm_sparse.api.fit import LinearMixedFit
from mixlm_sparse.common.keywords import answers_unknown_keywords
from mixlm_sparse.common.progress import CountProgress, SearchProgress
from mixlm_sparse.engines.threads import calm
from mixlm_sparse.formula.parse import formula_text
from mixlm_sparse.formula.terms import MixedFormula
from mixlm_sparse.model.batches.fits import fit_of_products
from mixlm_sparse.model.batches.products import ModelProducts, require_products
from mixlm_sparse.model.batches.sums import products_of
from mixlm_sparse.model.call import FitOptions, ModelCall
from mixlm_sparse.solve.search.control import Control

__all__ = ["cross_products", "fit_products"]


@answers_unknown_keywords
@calm
def cross_products(
    formula: str | MixedFormula,
    data: Any,
    *,
    levels: Mapping[str, Any] | None = None,
    weights: str | None = None,
    offset: str | None = None,
    subset: str | None = None,
    na_action: str = "omit",
    contrasts: Mapping[str, Any] | None = None,
    env: Mapping[str, Callable[..., Any]] | None = None,
    progress: CountProgress = None,
) -> ModelProducts:
    """Sum a model over rows: everything that its fit needs of them.

    Parameters
    ----------
    formula : lme4's syntax.
    data : a frame or rows in batches, as in `lmer`.
    levels : all levels of factors of the fixed part in order, by column, such as
        ``{"arm": ["control", "drug"]}``.  Needed where parts of the data may lack a level, and
        where the data can be read once only.
    weights, offset, subset : names of columns, or expressions in them.
    na_action, contrasts, env : as in `lmer`.
    progress : None shows a bar in terminals and notebooks, False none.

    Returns
    -------
    ModelProducts : of the same size whatever the number of rows.  ``a + b`` are the products of
        the rows of both; ``sum(parts)`` and ``save(path)`` work; `fit_products` fits them.

    Raises
    ------
    FormulaError, DataError, OptionError : with the remedy.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> sleep = mx.datasets.load("sleepstudy")
    >>> formula = "Reaction ~ Days + (Days | Subject)"
    >>> first = mx.cross_products(formula, sleep[:100])
    >>> rest = mx.cross_products(formula, sleep[100:])
    >>> fit = mx.fit_products(first + rest)
    >>> round(fit.criterion, 4)
    1743.6283
    """
    call = ModelCall(
        formula=formula_text(formula),
        data=data,
        weights=weights,
        offset=offset,
        subset=subset,
        na_action=na_action,
        contrasts=contrasts,
        env=env,
    )
    return products_of(call, levels, progress)


@answers_unknown_keywords
@calm
def fit_products(
    products: ModelProducts,
    reml: bool = True,
    *,
    start: Any = None,
    optimizer: str = "auto",
    engine: str = "auto",
    control: Control | None = None,
    progress: SearchProgress = None,
) -> LinearMixedFit:
    """Fit the model of products.

    Parameters
    ----------
    products : of `cross_products`, `load_products`, or a sum of these.
    reml, start, optimizer, engine, control, progress : as in `lmer`.

    Returns
    -------
    LinearMixedFit : the fit of all rows that were summed.  What needs the rows themselves
        (residuals, influence, ...) says so.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> sleepstudy = mx.datasets.load("sleepstudy")
    >>> products = mx.cross_products("Reaction ~ Days + (Days | Subject)", sleepstudy)
    >>> mx.fit_products(products).fixef.round(3)
    (Intercept)    251.405
    Days            10.467
    dtype: float64
    """
    options = FitOptions(
        reml=reml,
        start=start,
        optimizer=optimizer,
        engine=engine,
        control=Control() if control is None else control,
        progress=progress,
    )
    return fit_of_products(LinearMixedFit, require_products(products), options)
