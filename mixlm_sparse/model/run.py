"""From a call to the parts of a fit, and from one response to the next.

    ModelCall ──assemble──▶ PenalizedSystem ──solve_system──▶ Optimum, PlsSolution

What the user asked for is kept as data (`ModelCall`), so that `update` is the same call with a few
fields changed.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
import scipy.linalg

from mixlm_sparse.common.checks import NA_ACTIONS, require_bool, require_one_of
from mixlm_sparse.common.errors import DataError, OptionError
from mixlm_sparse.common.progress import FitProgress, SearchProgress, SearchStopped, fit_progress
from mixlm_sparse.common.types import Vector
from mixlm_sparse.design.build import ModelMatrices, model_matrices
from mixlm_sparse.engines.choose import ENGINES
from mixlm_sparse.engines.interface import BlockSystem, FactorBlock
from mixlm_sparse.engines.kernels import sum_by_group
from mixlm_sparse.formula.parse import parse_formula
from mixlm_sparse.solve.rows import BLOCK_ROWS, row_blocks
from mixlm_sparse.solve.search.search import OPTIMIZERS, Control, Optimum, optimize
from mixlm_sparse.solve.solution import PlsSolution, solve_pls
from mixlm_sparse.solve.system import PenalizedSystem, penalized_system


@dataclass(frozen=True, slots=True)
class FitOptions:
    """How a model is fitted, apart from what it is.

    Parameters
    ----------
    reml : restricted likelihood instead of the likelihood.
    start : (m,) theta to start from, or None for a moment estimate.
    optimizer, engine : names; "auto" chooses.
    control : tolerances, limits and whether to warn.
    progress : as in `lmer`; False, the default here, shows nothing.
    """

    reml: bool = True
    start: Vector | None = None
    optimizer: str = "auto"
    engine: str = "auto"
    control: Control = field(default_factory=Control)
    progress: SearchProgress = False

    def checked(self) -> FitOptions:
        """Return self.

        Raises
        ------
        OptionError : a name is not known or a value has the wrong type.
        """
        require_one_of("optimizer", self.optimizer, OPTIMIZERS)
        require_one_of("engine", self.engine, ENGINES)
        require_bool("reml", self.reml)
        if not isinstance(self.control, Control):
            raise OptionError(
                f"control is a {type(self.control).__name__}: use mx.Control(...), for example "
                "mx.Control(max_evaluations=1000)"
            )
        fit_progress(self.progress)
        return self


@dataclass(frozen=True, slots=True)
class ModelCall:
    """The arguments of `lmer` that say what the model is, and the options of the fit.

    Parameters
    ----------
    response : (n,) a response that replaces the formula's, as `refit` uses it.
    """

    formula: str
    data: Any
    weights: Any = None
    offset: Any = None
    subset: Any = None
    na_action: str = "omit"
    contrasts: Any = None
    env: Any = None
    response: Vector | None = None
    options: FitOptions = field(default_factory=FitOptions)

    def checked(self) -> ModelCall:
        """Return self; an unknown name of an option is an OptionError."""
        require_one_of("na_action", self.na_action, NA_ACTIONS)
        self.options.checked()
        return self


def matrices_of(call: ModelCall) -> ModelMatrices:
    """Evaluate the call's formula in its data."""
    matrices = model_matrices(
        parse_formula(call.formula),
        call.data,
        weights=call.weights,
        offset=call.offset,
        subset=call.subset,
        na_action=call.na_action,
        contrasts=call.contrasts,
        env=call.env,
    )
    if call.response is None:
        return matrices
    return replace(matrices, y=response_for(matrices, call.response))


def assemble(call: ModelCall) -> PenalizedSystem:
    """Do everything that precedes the search."""
    return penalized_system(matrices_of(call.checked()), call.options.engine)


def solve_system(system: PenalizedSystem, options: FitOptions) -> tuple[Optimum, PlsSolution]:
    """Search for the optimum and solve there.

    A search that is interrupted (Ctrl-C, or a progress function that returns False) ends at the
    best point that it has seen, with the status "interrupted".
    """
    watch = fit_progress(options.progress)
    if watch is None:
        optimum = _search(system, options)
        return optimum, solve_pls(optimum.theta, system)
    try:
        optimum = _search(system, options, watch)
    except (KeyboardInterrupt, SearchStopped) as reason:
        if not watch.keeps(reason):
            raise
        optimum = _interrupted(system, options, watch)
    finally:
        watch.close()
    return optimum, solve_pls(optimum.theta, system)


def _search(
    system: PenalizedSystem, options: FitOptions, watch: FitProgress | None = None
) -> Optimum:
    return optimize(
        system,
        reml=options.reml,
        start=options.start,
        optimizer=options.optimizer,
        control=options.control,
        progress=watch,
    )


def _interrupted(system: PenalizedSystem, options: FitOptions, watch: FitProgress) -> Optimum:
    """Return the best point of a search that did not come to its end."""
    evaluations, seconds = watch.evaluations, watch.seconds
    # one evaluation there gives the gradient and what is at a bound
    here = optimize(
        system,
        reml=options.reml,
        start=watch.theta,
        optimizer="bfgs",
        control=replace(options.control, max_evaluations=1, check_boundary=False),
    )
    return replace(
        here,
        status="interrupted",
        message=f"stopped after {evaluations} evaluations, at the best point so far",
        advice="go on from here with start=fit.theta",
        optimizer="bfgs" if options.optimizer == "auto" else options.optimizer,
        n_evaluations=evaluations,
        n_gradients=evaluations if options.optimizer in ("auto", "bfgs", "lbfgsb") else 0,
        seconds=seconds,
        history=tuple(watch.history),
    )


# ---------------------------------------------------------------------------------------------
# Another response
# ---------------------------------------------------------------------------------------------


def response_for(matrices: ModelMatrices, y: Any) -> Vector:
    """Check a new response and bring it to the rows used.

    Parameters
    ----------
    y : (n,) for the rows used, or one value for each row of the data, of which the rows used are
        taken.

    Returns
    -------
    (n,) array.

    Raises
    ------
    DataError : wrong length, or values that are missing or infinite.
    """
    try:
        values = np.asarray(y, dtype=np.float64)
    except (TypeError, ValueError):
        raise DataError("the new response is not numeric: give one number for each row") from None
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    n, n_input = matrices.nobs, matrices.n_input
    _require_same_index(y, matrices)
    if values.shape == (n_input,) and n_input != n and matrices.rows is not None:
        values = values[matrices.rows]
    if values.shape != (n,):
        expected = f"{n} rows" if n == n_input else f"{n} rows used of {n_input} rows in the data"
        raise DataError(
            f"the new response has shape {values.shape}, the model has {expected}: give one value "
            "for each"
        )
    bad = int(values.size - np.isfinite(values).sum())
    if bad:
        raise DataError(
            f"the new response has {bad} missing or infinite values in the rows used: fill them, "
            "or use update(data=...) to leave those rows out"
        )
    return np.ascontiguousarray(values)


def _require_same_index(y: Any, matrices: ModelMatrices) -> None:
    """Refuse a Series whose labels are not those of the data: its order would be taken silently."""
    if matrices.index is None or not isinstance(y, pd.Series):
        return
    labels = matrices.index
    if len(y) != len(labels) and matrices.rows is not None:
        labels = labels[matrices.rows]
    if len(y) == len(labels) and not y.index.equals(labels):
        raise DataError(
            "the new response is a Series whose index differs from that of the data: align it, or "
            "pass its to_numpy() if the rows are in the same order"
        )


def with_response(system: PenalizedSystem, y: Vector) -> PenalizedSystem:
    """Return the system for another response (n,); the design and the engine are shared.

    Only products with y are formed anew: one pass over the rows, no factorization.
    """
    old = system.products
    matrices = replace(system.matrices, y=y)
    target = y if matrices.offset is None else y - matrices.offset
    w = matrices.weights
    n = matrices.nobs
    kept = list(old.kept)

    def fixed(rows: slice) -> Vector:
        X = matrices.fixed.block(rows)
        return X if len(kept) == X.shape[1] else X[:, kept]

    def weighted(values: Vector, rows: slice) -> Vector:
        return values[rows] if w is None else values[rows] * w[rows]

    # least squares twice: the second pass takes out what rounding left in the first
    residual = np.array(target, dtype=np.float64)
    beta = np.zeros(len(kept))
    for _ in range(2 if kept else 0):
        right = np.zeros(len(kept))
        for rows in row_blocks(n, BLOCK_ROWS):
            right += fixed(rows).T @ weighted(residual, rows)
        half = scipy.linalg.solve_triangular(old.R_x, right, trans="T")
        step = scipy.linalg.solve_triangular(old.R_x, half)
        beta += step
        for rows in row_blocks(n, BLOCK_ROWS):
            residual[rows] -= fixed(rows) @ step

    zy = [np.zeros((f.n_levels, f.width)) for f in old.blocks.factors]
    for term, place, Rz in zip(matrices.terms, old.layout, old.Rz, strict=True):
        sums = np.zeros((zy[place.factor].shape[0], place.width))
        codes = matrices.factors[term.factor].codes
        for rows in row_blocks(n, BLOCK_ROWS):
            values = term.columns.block(rows) * weighted(residual, rows)[:, None]
            sums += sum_by_group(codes[rows], values, sums.shape[0])
        # z~ = z Rz^{-1}
        zy[place.factor][:, place.columns] = scipy.linalg.solve_triangular(
            Rz, sums.T, trans="T", check_finite=False
        ).T
    blocks = []
    for f, column in zip(old.blocks.factors, zy, strict=True):
        ztx = f.ztx.copy()
        ztx[:, :, -1] = column
        blocks.append(FactorBlock(f.label, f.ztz, ztx))
    weighted_residual = residual if w is None else residual * w
    weighted_target = target if w is None else target * w
    products = replace(
        old,
        beta_ols=beta,
        yy=float(residual @ weighted_residual),
        y_length=float(np.sqrt(target @ weighted_target)),
        blocks=BlockSystem(tuple(blocks), old.blocks.pairs),
    )
    return system.with_products(products, matrices)
