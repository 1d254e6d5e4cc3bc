"""From data to a fitted model: `lmer`, its stages, and the way in with matrices of one's own.

formula  = parse_formula("y ~ x + (x | g)")
matrices = model_matrices(formula, data)
system   = penalized_system(matrices)
optimum  = optimize(system)
fit      = make_fit(system, optimum)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mixlm_sparse.api.fit import LinearMixedFit
from mixlm_sparse.common.checks import require_instance
from mixlm_sparse.common.errors import OptionError
from mixlm_sparse.common.keywords import answers_unknown_keywords
from mixlm_sparse.common.progress import SearchProgress
from mixlm_sparse.covariance.correlation import Correlation
from mixlm_sparse.covariance.variance import VarianceFunction
from mixlm_sparse.design.arrays import RandomEffect, array_matrices, described
from mixlm_sparse.design.membership import joined
from mixlm_sparse.engines.threads import calm
from mixlm_sparse.formula.parse import formula_text
from mixlm_sparse.formula.terms import MixedFormula
from mixlm_sparse.model.base import announced, fit_of
from mixlm_sparse.model.call import FitOptions, ModelCall
from mixlm_sparse.model.run import assemble, solve_system
from mixlm_sparse.solve.criterion import DevianceFunction
from mixlm_sparse.solve.search.control import Control, control_of
from mixlm_sparse.solve.search.optimum import Optimum
from mixlm_sparse.solve.system import PenalizedSystem, penalized_system


@answers_unknown_keywords
@calm
def lmer(
    formula: str | MixedFormula,
    data: Any,
    reml: bool = True,
    weights: Any = None,
    offset: Any = None,
    subset: Any = None,
    na_action: str = "omit",
    contrasts: Mapping[str, Any] | None = None,
    start: Any = None,
    optimizer: str = "auto",
    engine: str = "auto",
    control: Control | None = None,
    progress: SearchProgress = None,
    env: Mapping[str, Callable[..., Any]] | None = None,
    residual: Correlation | None = None,
    variance: VarianceFunction | None = None,
    fixed: Mapping[str, float] | None = None,
    known: Mapping[str, Any] | None = None,
    membership: Mapping[str, Any] | None = None,
) -> LinearMixedFit:
    """Fit a linear mixed model.

    Parameters
    ----------
    formula : lme4's syntax, for example "Reaction ~ Days + (Days | Subject)".
    data : a pandas, polars or pyarrow table, a duckdb relation, or a dict of columns; or rows in
        batches: a path (of a Parquet file, a folder of them or a pattern), a pyarrow dataset or
        reader, a polars LazyFrame, an iterator of frames or a function that returns one.
    reml : restricted maximum likelihood (True) or maximum likelihood.
    weights : name of a column, or an array with one positive number for each row: the residual
        variance of row i is sigma^2 / weights[i].
    offset : name of a column, or an array; added to the linear predictor with coefficient one.
    subset : rows to use: a boolean array, or an expression in the columns.
    na_action : "omit" leaves rows with missing cells out, "exclude" as well, but pads per-row
        results with NaN to the length of the data, "raise" makes them an error.
    contrasts : per factor of the fixed part: "treatment", ("treatment", level) with another base,
        "sum", "helmert", "poly", or a matrix.
    start : (m,) theta to start from; by default a moment estimate.
    optimizer : "auto" and "bfgs" use the exact gradient, "lbfgsb" is SciPy's; "bobyqa" and "cobyqa"
        work without derivatives.
    engine : "auto", "blocked", "sparse" or "cholmod" factor, with the same results; "krylov" needs
        no factor, for crossed factors too large for one, and estimates the criterion (see
        `fit.convergence.criterion_error`).
    control : `mx.Control(...)`: tolerances, limits, warnings.
    progress : None shows a bar in terminals and notebooks if the fit takes longer than a second,
        False none.  A function is called with (evaluation, criterion, theta) at every evaluation;
        if it returns False, the fit ends at the best point so far, with the status "interrupted",
        and so it does after Ctrl-C.  An exception that it raises ends the call.
    env : functions that the formula may call, by name.
    residual : correlation of the residuals within groups, such as
        ``mx.AR1(time="visit", group="patient")``; independent ones by default.
    variance : standard deviations of the residuals that differ, such as ``mx.VarIdent(by="arm")``.
    fixed : variance parameters held at values, by the names of `fit.confint()`: {"sigma": 1.0},
        {"sd_(Intercept)|g": 2.0}, {"phi|g": 0.5}.  They count as known: n_par, standard errors,
        degrees of freedom and intervals are those of what is left.
    known : known covariances between the levels of grouping factors, {"animal": A}: A is a
        DataFrame with labels, `mx.Pedigree(id, sire, dam)`, `mx.Relationship(A, labels)` or the
        inverse, `mx.Precision(Q, labels)`.  All its levels get random effects, also those without
        rows.
    membership : grouping factors of which a row has several levels, {"school": W}: W is
        `mx.membership(...)` or a DataFrame of weights, rows by levels.  The formula has the name,
        (1 | school) or (x | school); a column of that name in `data` is not read.

    Returns
    -------
    LinearMixedFit

    Raises
    ------
    FormulaError, DataError, OptionError : with the remedy.

    Warns
    -----
    SingularFitWarning, RankDeficiencyWarning, ScalingWarning, ConvergenceWarning : once for each
        fit, unless ``control=mx.Control(warn=False)``; the texts stay in `fit.messages`.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> fit = mx.lmer("Reaction ~ Days + (Days | Subject)", mx.datasets.load("sleepstudy"))
    >>> round(fit.criterion, 4), round(fit.sigma, 4)
    (1743.6283, 25.5918)
    """
    options = FitOptions(
        reml=reml,
        start=start,
        optimizer=optimizer,
        engine=engine,
        control=control_of(control),
        progress=progress,
    )
    call = ModelCall(
        formula=formula_text(formula),
        data=joined(data, membership),
        weights=weights,
        offset=offset,
        subset=subset,
        na_action=na_action,
        contrasts=contrasts,
        env=env,
        fixed=fixed,
        known=known,
        options=options,
        residual=residual,
        variance=variance,
    )
    system, call = assemble(call)
    optimum, solution = solve_system(system, call.options)
    fit = fit_of(
        LinearMixedFit, system, optimum, call.options, call.formula, call, solution=solution
    )
    return announced(fit)


@answers_unknown_keywords
@calm
def make_fit(
    system: PenalizedSystem,
    optimum: Optimum,
    *,
    formula: str | MixedFormula | None = None,
    options: FitOptions | None = None,
) -> LinearMixedFit:
    """Make a fitted model of a penalized system and its optimum, the last stage of `lmer`.

    Parameters
    ----------
    system : from `penalized_system`.
    optimum : from `optimize` on the same system; says whether it is REML or ML.
    formula : how the model is to be called; by default it is written from the names of its columns.
    options : settings for further fits from this one.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> formula = mx.parse_formula("Reaction ~ Days + (Days | Subject)")
    >>> system = mx.penalized_system(mx.model_matrices(formula, mx.datasets.load("sleepstudy")))
    >>> fit = mx.make_fit(system, mx.optimize(system), formula=formula)
    >>> fit.fixef.round(3)
    (Intercept)    251.405
    Days            10.467
    dtype: float64
    """
    require_instance("system", system, PenalizedSystem, "use mx.penalized_system(matrices)")
    require_instance("optimum", optimum, Optimum, "use mx.optimize(system)")
    if optimum.theta.shape != (system.n_theta,):
        raise OptionError(
            f"optimum has {optimum.theta.size} parameters, system {system.n_theta}: use the "
            "optimum of this system, mx.optimize(system)"
        )
    if options is not None:
        remedy = "leave it out, or use the options of another fit"
        require_instance("options", options, FitOptions, remedy).checked()
    else:
        options = FitOptions(reml=optimum.reml, optimizer=optimum.optimizer)
    text = described(system.matrices) if formula is None else formula_text(formula)
    fit = fit_of(LinearMixedFit, system, optimum, options, text)
    return announced(fit)


@answers_unknown_keywords
def deviance_function(
    formula: str | MixedFormula,
    data: Any,
    reml: bool = True,
    weights: Any = None,
    offset: Any = None,
    contrasts: Mapping[str, Any] | None = None,
    subset: Any = None,
    na_action: str = "omit",
    engine: str = "auto",
    env: Mapping[str, Callable[..., Any]] | None = None,
    known: Mapping[str, Any] | None = None,
    membership: Mapping[str, Any] | None = None,
) -> DevianceFunction:
    """Return the profiled criterion as a function of theta, lme4's `devFunOnly`.

    Returns
    -------
    DevianceFunction : called with theta (m,) gives the criterion; has `theta0`, `lower`,
        `gradient(theta)` and `parts(theta)`.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> d = mx.deviance_function(
    ...     "Reaction ~ Days + (Days | Subject)", mx.datasets.load("sleepstudy"), reml=False
    ... )
    >>> round(d([1.0, 0.0, 1.0]), 6)
    1784.642296
    """
    call = ModelCall(
        formula=formula_text(formula),
        data=joined(data, membership),
        weights=weights,
        offset=offset,
        subset=subset,
        na_action=na_action,
        contrasts=contrasts,
        env=env,
        known=known,
        options=FitOptions(reml=reml, engine=engine),
    )
    return DevianceFunction(assemble(call)[0], reml=reml)


@answers_unknown_keywords
@calm
def fit_matrices(
    y: Any,
    X: Any,
    terms: Sequence[RandomEffect | tuple[Any, ...]],
    *,
    x_names: Sequence[str] | None = None,
    y_name: str = "y",
    reml: bool = True,
    weights: Any = None,
    offset: Any = None,
    start: Any = None,
    optimizer: str = "auto",
    engine: str = "auto",
    control: Control | None = None,
    progress: SearchProgress = None,
    known: Mapping[str, Any] | None = None,
) -> LinearMixedFit:
    """Fit a model given by matrices instead of a formula.

    Parameters
    ----------
    y : (n,) response.
    X : (n, p) fixed-effects matrix; a column of ones is the intercept, none is added.
    terms : random terms: `RandomEffect`, or tuples (groups,), (groups, columns) or
        (groups, columns, name).  Theta keeps their order.  In the place of the labels of groups, a
        SciPy sparse matrix (n, L) is the term's own Z, and `mx.membership(...)` gives rows several
        groups.
    x_names : (p,) names of the columns of X; by default those of a DataFrame, else x1, x2, ...
    weights, offset : (n,) or None.
    reml, start, optimizer, engine, control, progress : as in `lmer`.
    known : known covariances between the levels, by the name of the term's groups, as in `lmer`.

    Raises
    ------
    DataError : lengths that differ, values that are missing or infinite.

    Examples
    --------
    >>> import numpy as np, mixlm_sparse as mx
    >>> sleep = mx.datasets.load("sleepstudy")
    >>> X = np.column_stack([np.ones(len(sleep)), sleep["Days"]])
    >>> fit = mx.fit_matrices(sleep["Reaction"], X, [(sleep["Subject"], X, "Subject")])
    >>> round(fit.criterion, 4)
    1743.6283
    """
    options = FitOptions(
        reml=reml,
        start=start,
        optimizer=optimizer,
        engine=engine,
        control=control_of(control),
        progress=progress,
    ).checked()
    matrices = array_matrices(y, X, terms, x_names, y_name, weights, offset, known)
    system = penalized_system(matrices, engine, estimation=options.control.estimation)
    optimum, solution = solve_system(system, options)
    text = described(matrices)
    fit = fit_of(LinearMixedFit, system, optimum, options, text, solution=solution)
    return announced(fit)
