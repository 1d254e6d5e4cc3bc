"""One formula, many responses: `lmer_many`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from mixlm_sparse.api.fit import LinearMixedFit
from mixlm_sparse.api.keywords import answers_unknown_keywords
from mixlm_sparse.api.responses import Pattern, Responses, patterns_of, read_responses
from mixlm_sparse.common.checks import require_jobs, require_same_index, shown, unknown_name
from mixlm_sparse.common.errors import DataError, OptionError
from mixlm_sparse.common.parallel import Progress, run
from mixlm_sparse.common.progress import counter
from mixlm_sparse.common.tables import PrintsAsTable, ResultTable, as_result, result_table
from mixlm_sparse.common.types import Matrix, Vector
from mixlm_sparse.engines.threads import calm
from mixlm_sparse.model.base import announced, fit_of
from mixlm_sparse.model.call import FitOptions, ModelCall
from mixlm_sparse.model.data import held_call
from mixlm_sparse.model.designs import columns_of, right_side, with_given_response
from mixlm_sparse.model.refits import (
    FAILED,
    RefitBlock,
    Row,
    block_size,
    gather,
    quiet,
    threads_serve,
    warm_up,
)
from mixlm_sparse.solve.optimize import optimize
from mixlm_sparse.solve.search.control import Control, control_of
from mixlm_sparse.solve.system import PenalizedSystem, penalized_system

__all__ = ["ManyFits", "lmer_many"]

NOT_RUN = "not run"
FAILURES_SHOWN = 5  # responses without a fit that are named below the table


@dataclass(frozen=True, eq=False, repr=False)
class ManyFits(PrintsAsTable):
    """Fits of one formula to many responses; row i belongs to response i.

    Parameters
    ----------
    names : (r,) of the responses.
    theta : (r, m); theta_names : (m,).
    beta, bse : (r, p) coefficients and their standard errors; x_names : (p,).
    sigma, criterion : (r,).
    nobs : (r,) rows used.
    status : (r,) "converged", "singular", "perfect fit", "not converged", "evaluation limit",
        "failed" (no fit: see message) or "not run" (ended early).
    message : (r,) the status in words.
    reml : which criterion.

    What is not there is NaN.
    """

    _entry: ClassVar[str] = ".fit({key}) for the fit of a response, .to_frame() for a table of all"
    names: tuple[str, ...]
    theta: Matrix
    theta_names: tuple[str, ...]
    beta: Matrix
    bse: Matrix
    x_names: tuple[str, ...]
    sigma: Vector
    criterion: Vector
    nobs: np.ndarray
    status: tuple[str, ...]
    message: tuple[str, ...]
    reml: bool
    complete: bool
    _responses: Responses = field(repr=False)
    _patterns: tuple[Pattern, ...] = field(repr=False)
    _options: FitOptions = field(repr=False)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def formula(self) -> str:
        """The right side that all responses share; "" if none could be fitted."""
        return str(self._patterns[0].call.formula) if self._patterns else ""

    @property
    @result_table("Responses without a fit")
    def failures(self) -> pd.DataFrame:
        """The responses without a fit, with the reason."""
        failed = [i for i, s in enumerate(self.status) if s in (FAILED, NOT_RUN)]
        return pd.DataFrame(
            {
                "response": [self.names[i] for i in failed],
                "message": [self.message[i] for i in failed],
            },
            index=failed,
        )

    def to_frame(self) -> pd.DataFrame:
        """Return a row for each response.

        Columns: response, nobs, status, message, criterion, sigma, the coefficients by name, their
        standard errors as "se_NAME" and theta as "theta_NAME".
        """
        columns: dict[str, Any] = {
            "response": list(self.names),
            "nobs": self.nobs,
            "status": list(self.status),
            "message": list(self.message),
            "criterion": self.criterion,
            "sigma": self.sigma,
        }
        columns |= {name: self.beta[:, j] for j, name in enumerate(self.x_names)}
        columns |= {f"se_{name}": self.bse[:, j] for j, name in enumerate(self.x_names)}
        columns |= {f"theta_{name}": self.theta[:, j] for j, name in enumerate(self.theta_names)}
        return pd.DataFrame(columns)

    def fit(self, i: int | str) -> LinearMixedFit:
        """Return the whole fit of one response.

        Parameters
        ----------
        i : its position or its name.

        Raises
        ------
        OptionError : there is no such response.
        DataError : it has no fit; the message says why.
        """
        at = self._position(i)
        pattern = next(p for p in self._patterns if at in p.members)
        if pattern.system is None:
            raise DataError(f"response '{self.names[at]}' has no fit: {pattern.message}")
        name = self.names[at]
        matrices, call = with_given_response(pattern.call, self._responses.column(at), name)
        start = self.theta[at] if self.status[at] == "converged" else None
        system = penalized_system(matrices, self._options.engine)
        optimum = optimize(
            system,
            reml=self.reml,
            start=start,
            optimizer=self._options.optimizer,
            control=self._options.control,
        )
        call = replace(call, options=self._options)
        fit = fit_of(LinearMixedFit, system, optimum, self._options, call.formula, call)
        return announced(fit)

    def _position(self, i: int | str) -> int:
        if isinstance(i, str):
            if i not in self.names:
                raise unknown_name(i, self.names, "response")
            return self.names.index(i)
        whole = isinstance(i, int | np.integer) and not isinstance(i, bool)
        if not whole or not -len(self) <= i < len(self):
            raise OptionError(
                f"there is no response {shown(i)}: give a name, or a position of the {len(self)}, "
                "counted from 0"
            )
        return int(i) % len(self)

    def _table(self) -> ResultTable:
        table = self.to_frame().drop(columns=["message", "criterion"]).set_index("response")
        table = table.drop(columns=[f"theta_{name}" for name in self.theta_names])
        counts = [f"{self.status.count(s)} {s}" for s in dict.fromkeys(self.status)]
        if len(counts) == 1:
            table = table.drop(columns="status")
        if len(table) and len(set(self.nobs.tolist())) == 1:
            table = table.drop(columns="nobs")
            counts.append(f"{self.nobs[0]} rows each")
        failed = self.failures
        notes = [", ".join(counts) or "no responses"]
        notes += [
            f"{name}: {text}"
            for name, text in failed[["response", "message"]].head(FAILURES_SHOWN).to_numpy()
        ]
        if len(failed) > FAILURES_SHOWN:
            notes.append(f"{len(failed) - FAILURES_SHOWN} more in failures")
        kind = "REML" if self.reml else "ML"
        responses = "1 response" if len(self) == 1 else f"{len(self)} responses"
        return as_result(
            table, heading=f"Linear mixed models of {responses} by {kind}",
            formulas={"Formula": self.formula} if self.formula else {}, notes=notes,
        )  # fmt: skip


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
    reml, weights, offset, subset, contrasts, optimizer, engine, control, env : as in `lmer`.
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
    given = read_responses(formula, data, responses)
    call = ModelCall(
        formula=f"~ {right_side(formula)}",
        data=data,
        weights=weights,
        offset=offset,
        subset=subset,
        contrasts=contrasts,
        env=env,
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
    return _assembled(given, patterns, done, options, complete)


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
    work = _Refits(system, given, members, search_options, compiled)
    threads = threads_serve(system, search_options, compiled=compiled, count=len(members))
    if require_jobs(n_jobs) != 1 and len(members) > 1:
        # what is loaded and compiled here need not be in every process
        list(work(range(1)))
    size = block_size(system, given.stored)
    return run(
        work, len(members), size, n_jobs=n_jobs, threads=threads, progress=progress
    )


def _assembled(
    given: Responses,
    patterns: Sequence[Pattern],
    done: list[tuple[int, Row]],
    options: FitOptions,
    complete: bool,
) -> ManyFits:
    r = len(given.names)
    systems = [p.system for p in patterns if p.system is not None]
    first = systems[0] if systems else None
    # a pattern of missing rows can lose a column of X: the names of all that some response has
    x_names = tuple(dict.fromkeys(name for s in systems for name in s.x_names))
    theta_names = first.theta_names if first is not None else ()
    nobs = np.zeros(r, dtype=np.int64)
    place: dict[int, list[int]] = {}
    for pattern in patterns:
        for i in pattern.members:
            if pattern.system is not None:
                nobs[i] = pattern.system.n
                place[i] = [x_names.index(name) for name in pattern.system.x_names]
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
        _responses=given,
        _patterns=tuple(patterns),
        _options=options,
    )


def _widened(row: Row, place: list[int], p: int) -> Row:
    """Put the coefficients of a row where their names are among all."""
    if row.beta is None or row.bse is None or len(place) == p:
        return row
    beta, bse = np.full(p, np.nan), np.full(p, np.nan)
    beta[place], bse[place] = row.beta, row.bse
    return row._replace(beta=beta, bse=bse)
