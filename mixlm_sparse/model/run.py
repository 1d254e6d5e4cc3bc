"""From a call to the parts of a fit.

    ModelCall ──assemble──▶ PenalizedSystem ──solve_system──▶ Optimum, PlsSolution
"""

from __future__ import annotations

from dataclasses import replace

from mixlm_sparse.common.errors import FormulaError, OptionError
from mixlm_sparse.common.progress import FitProgress, SearchStopped, fit_progress
from mixlm_sparse.design.batches.sources import is_batched
from mixlm_sparse.design.build import model_matrices
from mixlm_sparse.design.matrices import ModelMatrices
from mixlm_sparse.design.membership import Joined
from mixlm_sparse.formula.parse import parse_formula
from mixlm_sparse.formula.terms import MixedFormula
from mixlm_sparse.model.call import FitOptions, ModelCall
from mixlm_sparse.model.data import held_call
from mixlm_sparse.model.held import held_system
from mixlm_sparse.model.responses import response_for
from mixlm_sparse.solve.optimize import optimize
from mixlm_sparse.solve.search.optimum import Optimum
from mixlm_sparse.solve.search.status import Status
from mixlm_sparse.solve.solution import PlsSolution
from mixlm_sparse.solve.system import PenalizedSystem
from mixlm_sparse.solve.whitened.search import solution_at


def formula_of(call: ModelCall) -> MixedFormula:
    """Read the call's formula; only `lmer` takes random terms, and it needs one.

    Raises
    ------
    FormulaError : also for a random term in `gls`.
    """
    formula = parse_formula(call.formula, require_random=call.random)
    if not call.random and formula.random:
        raise FormulaError(
            f"gls has no random effects, but the formula has {formula.random[0]}: use lmer, which "
            "takes residual= and variance= as well, or leave the term out"
        )
    return formula


def matrices_of(call: ModelCall, *, warn: bool = True) -> ModelMatrices:
    """Evaluate the call's formula in its data; `warn` of what the formula means."""
    matrices = model_matrices(
        formula_of(call),
        call.data,
        weights=call.weights,
        offset=call.offset,
        subset=call.subset,
        na_action=call.na_action,
        contrasts=call.contrasts,
        env=call.env,
        warn=warn,
        residual=call.residual,
        variance=call.variance,
        known=call.known,
    )
    if call.response is None:
        return matrices
    return replace(matrices, y=response_for(matrices, call.response))


def assemble(call: ModelCall) -> tuple[PenalizedSystem, ModelCall]:
    """Do everything that precedes the search; the call returned holds its own data."""
    if isinstance(call.data, Joined) and is_batched(call.data.data):
        raise OptionError("membership= needs the data at once: read them into a frame first")
    if is_batched(call.data):
        if call.residual is not None or call.variance is not None or not call.random:
            raise OptionError(
                "residual=, variance= and gls need all rows of a group together: read the data "
                "into a frame first"
            )
        from mixlm_sparse.model.batches.assemble import assemble_batches  # a tenth of the package

        return assemble_batches(call)
    held = held_call(call.checked())
    options = held.options
    matrices = matrices_of(held, warn=options.control.warn)
    estimation = options.control.estimation
    return held_system(matrices, options.engine, held.fixed, estimation=estimation), held


def solve_system(system: PenalizedSystem, options: FitOptions) -> tuple[Optimum, PlsSolution]:
    """Search for the optimum and solve there.

    A search that is interrupted (Ctrl-C, or a progress function that returns False) ends at the
    best point that it has seen, with the status "interrupted".
    """
    watch = fit_progress(options.progress)
    if watch is None:
        optimum = _search(system, options)
        return optimum, solution_at(optimum, system)
    try:
        optimum = _search(system, options, watch)
    except (KeyboardInterrupt, SearchStopped) as reason:
        if not watch.keeps(reason):
            raise
        optimum = _interrupted(system, options, watch)
    finally:
        watch.close()
    return optimum, solution_at(optimum, system)


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
        status=Status.INTERRUPTED,
        message=Status.INTERRUPTED.message.format(evaluations=evaluations),
        advice=Status.INTERRUPTED.advice,
        optimizer="bfgs" if options.optimizer == "auto" else options.optimizer,
        n_evaluations=evaluations,
        n_gradients=evaluations if options.optimizer in ("auto", "bfgs", "lbfgsb") else 0,
        seconds=seconds,
        history=tuple(watch.history),
    )
