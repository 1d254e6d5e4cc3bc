"""One formula, many responses: `lmer_many`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mixlm_sparse.api.many_result import NOT_RUN, ManyFits
from mixlm_sparse.api.responses import Pattern, Responses, patterns_of, read_responses
from mixlm_sparse.common.checks import require_jobs, require_same_index
from mixlm_sparse.common.errors import DataError
from mixlm_sparse.common.keywords import answers_unknown_keywords
from mixlm_sparse.common.parallel import Progress, run
from mixlm_sparse.common.progress import counter
from mixlm_sparse.design.membership import joined
from mixlm_sparse.engines.decisions import steady
from mixlm_sparse.engines.threads import calm
from mixlm_sparse.model.call import FitOptions, ModelCall
from mixlm_sparse.model.data import held_call
from mixlm_sparse.model.designs import columns_of, right_side, with_given_response
from mixlm_sparse.model.notes import warn_of
from mixlm_sparse.model.refit_rows import FAILED, Row, gather
from mixlm_sparse.model.refits import RefitBlock, block_size, threads_serve, warm_up
from mixlm_sparse.model.shared_design import design_notes, determined_rows
from mixlm_sparse.model.warm import quiet
from mixlm_sparse.solve.search.control import Control, control_of
from mixlm_sparse.solve.system import PenalizedSystem

__all__ = ["lmer_many"]



@answers_unknown_keywords
@calm
def lmer_many(
    formula: str,
    data: Any,
    responses: Any,
    reml: bool = True,
    weights: Any = None,
    offset: Any = None,
    subset: Any = None,
    contrasts: Mapping[str, Any] | None = None,
    *,
    optimizer: str = "auto",
    engine: str = "auto",
    control: Control | None = None,
    n_jobs: int = 1,
    progress: Progress = None,
    env: Mapping[str, Callable[..., Any]] | None = None,
    known: Mapping[str, Any] | None = None,
    membership: Mapping[str, Any] | None = None,
) -> ManyFits:
    """Fit one model to many responses.

    The design, its products and the symbolic work are made once; a response costs its own products
    and its search.  A response that cannot be fitted is reported in `status` and `message`, and
    does not stop the others.

    Parameters
    ----------
    formula : as for `lmer`; a left side is not needed, and not read if there is one.
    data : a frame with the columns of the right side (and the responses, if they are given by
        name).
    responses : names of columns, or an (n, r) matrix or data frame with a row for each row of the
        data.  Rows in which a response is missing are left out for that response; responses that
        are missing in the same rows share a design.  A SciPy sparse matrix, or a frame of sparse
        columns, is never made dense; it too has a row for each row of the data: cells by genes, as
        in AnnData (give `counts.T` of a matrix of genes by cells).  What it does not store is zero.
    reml, weights, offset, subset, contrasts, optimizer, engine, control, env, known, membership :
        as in `lmer`.
    n_jobs : threads where the searches are compiled calls (one grouping factor, or few random
        effects), else processes; -1 takes all processors.  The digits are the same.
    progress : None for a bar in terminals and notebooks, False for silence, or a function of (done,
        total) that returns False to end early; what is done is kept.

    Returns
    -------
    ManyFits : arrays `theta`, `beta`, `bse`, `sigma`, `criterion`, with `status` and `message`;
        `to_frame()`; `fit(i)`.

    Raises
    ------
    FormulaError, DataError, OptionError : about what all responses share.

    Examples
    --------
    >>> import numpy as np, mixlm_sparse as mx
    >>> sleep = mx.datasets.load("sleepstudy")
    >>> Y = np.column_stack([sleep["Reaction"], np.log(sleep["Reaction"])])
    >>> many = mx.lmer_many("~ Days + (Days | Subject)", sleep, Y)
    >>> many.criterion.round(3).tolist(), many.status
    ([1743.628, -298.481], ('converged', 'converged'))
    """
    options = FitOptions(
        reml=reml,
        optimizer=optimizer,
        engine=engine,
        control=control_of(control),
    ).checked()
    right = right_side(formula)
    given = read_responses(formula, data, responses)
    call = ModelCall(
        formula=f"~ {right}",
        data=joined(data, membership),
        weights=weights,
        offset=offset,
        subset=subset,
        contrasts=contrasts,
        env=env,
        known=known,
        options=options,
    ).checked()
    columns = columns_of(call)
    if given.n != columns.table.n:
        raise DataError(
            f"the responses have {given.n} rows, the data have {columns.table.n}: give one row for "
            + ("each, responses.T" if len(given.names) == columns.table.n else "each")
        )
    require_same_index("responses", responses, columns.table.index)
    call = held_call(replace(call, data=columns))
    # an error here is one of the right side, which all responses share
    shared, _ = with_given_response(call, None, "y", columns)
    patterns = patterns_of(call, columns, given, shared)

    done: list[tuple[int, Row]] = []
    complete = True
    with counter(progress, "responses", "fits") as report:
        for pattern in patterns:
            if pattern.system is None:
                failed = Row(None, None, None, np.nan, np.nan, FAILED, pattern.message)
                done += [(i, failed) for i in pattern.members]
                continue
            progress_here = _Shifted(report, len(done), len(given.names))
            rows, complete = _fit_pattern(pattern, given, options, n_jobs, progress_here)
            done += list(zip(pattern.members, rows, strict=False))
            if not complete:
                break
    if options.control.warn:
        warn_of(design_notes((p.system for p in patterns if p.system is not None), reml=reml))
    return _assembled(given, patterns, done, call, complete)


@dataclass(frozen=True, slots=True)
class _Shifted:
    """Reports on one pattern as a part of the whole."""

    report: Callable[[int, int], bool]
    before: int
    total: int

    def __call__(self, done: int, _: int) -> bool:
        return self.report(self.before + done, self.total)


@dataclass(frozen=True, eq=False, slots=True)
class _Refits:
    """Refits to a range of the responses; plain data, so that it can go to other processes."""

    system: PenalizedSystem
    given: Responses
    members: Sequence[int]
    options: FitOptions
    compiled: bool

    def __call__(self, tasks: range) -> Iterator[Row]:
        members = [self.members[i] for i in tasks]
        Y = self.given.block(members, self.system.matrices.rows)
        yield from RefitBlock(self.system, Y, self.options, compiled=self.compiled).rows()


def _fit_pattern(
    pattern: Pattern,
    given: Responses,
    options: FitOptions,
    n_jobs: int,
    progress: Callable[[int, int], object],
) -> tuple[list[Row], bool]:
    system = pattern.system
    assert system is not None
    compiled = warm_up(system, len(pattern.members))
    search_options = quiet(options)
    members = pattern.members
    refits = _Refits(system, given, members, search_options, compiled)
    work = steady(refits, compiled=compiled)
    threads = threads_serve(system, search_options, compiled=compiled, count=len(members))
    if require_jobs(n_jobs) != 1 and len(members) > 1:
        # what is loaded and compiled here need not be in every process
        list(work(range(1)))
    size = block_size(system, given.stored, compiled=compiled)
    rows, complete = run(
        work, len(members), size, n_jobs=n_jobs, threads=threads, progress=progress
    )
    return determined_rows(rows, system, reml=options.reml), complete


def _assembled(
    given: Responses,
    patterns: Sequence[Pattern],
    done: list[tuple[int, Row]],
    call: ModelCall,
    complete: bool,
) -> ManyFits:
    options = call.options
    r = len(given.names)
    systems = [p.system for p in patterns if p.system is not None]
    first = systems[0] if systems else None
    # a pattern of missing rows can lose a column of X: the names of all that some response has
    x_names = tuple(dict.fromkeys(name for s in systems for name in s.x_names))
    theta_names = first.theta_names if first is not None else ()
    nobs = np.zeros(r, dtype=np.int64)
    place: dict[int, list[int]] = {}
    for pattern in patterns:
        if pattern.system is not None:
            nobs[list(pattern.members)] = pattern.system.n
            own = [x_names.index(name) for name in pattern.system.x_names]
            place |= dict.fromkeys(pattern.members, own)
    empty = Row(None, None, None, np.nan, np.nan, NOT_RUN, "ended before its turn")
    rows = [empty] * r
    for i, row in done:
        rows[i] = _widened(row, place.get(i, []), len(x_names))
    arrays = gather(rows, len(theta_names), len(x_names))
    return ManyFits(
        names=given.names,
        theta=arrays.theta,
        theta_names=theta_names,
        beta=arrays.beta,
        bse=arrays.bse,
        x_names=x_names,
        sigma=arrays.sigma,
        criterion=arrays.criterion,
        nobs=nobs,
        status=arrays.status,
        message=arrays.message,
        reml=options.reml,
        complete=complete,
        formula=call.formula,
        _responses=given,
        _call=call,
        _options=options,
    )


def _widened(row: Row, place: list[int], p: int) -> Row:
    """Put the coefficients of a row where their names are among all."""
    if row.beta is None or row.bse is None or len(place) == p:
        return row
    beta, bse = np.full(p, np.nan), np.full(p, np.nan)
    beta[place], bse[place] = row.beta, row.bse
    return row._replace(beta=beta, bse=bse)
