"""Long work in pieces: in order, on one process or several, with progress and an early end.

Processes are forked, so that the design and the user's functions need not be sent to them; what
comes back must be plain data.  The pieces do not depend on the number of processes, nor do their
results.
"""

from __future__ import annotations

import multiprocessing
import signal
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import numpy as np
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from mixlm_sparse.common.errors import OptionError
from mixlm_sparse.common.progress import CountProgress, counter

__all__ = ["Progress", "run"]

T = TypeVar("T")
# None, True and "auto" show a bar in terminals and notebooks; a function of (done, total) that
# returns False ends the work.
Progress = CountProgress

_work: Callable[[range], Iterable[object]] | None = None


def run(
    work: Callable[[range], Iterable[T]],
    total: int,
    size: int,
    *,
    n_jobs: int = 1,
    progress: Progress = None,
    label: str = "refits",
    unit: str = "",
) -> tuple[list[T], bool]:
    """Do `total` tasks by pieces of `size`.

    Parameters
    ----------
    work : range of tasks -> their results in order.
    n_jobs : processes; -1 takes all processors.
    progress : None, True or "auto" for a bar in terminals and notebooks, False for silence, or a
        function of (done, total), called after every piece (every task on one process).
    label, unit : what the bar says is done, and counted.

    Returns
    -------
    results, complete : results of the first tasks, and whether these are all; a KeyboardInterrupt
        or a progress function that returns False ends the work early.

    Raises
    ------
    OptionError : n_jobs is no number of processes, or the system cannot fork.
    """
    jobs = _jobs(n_jobs)
    pieces = [range(start, min(start + size, total)) for start in range(0, total, size)]
    results: list[T] = []
    with counter(progress, label, unit) as report:
        try:
            for result in _serial(work, pieces) if jobs == 1 else _forked(work, pieces, jobs):
                results.extend(result)
                if not report(len(results), total):
                    break
        except KeyboardInterrupt:
            pass
    return results, len(results) == total


def _jobs(n_jobs: int) -> int:
    if isinstance(n_jobs, bool) or not isinstance(n_jobs, int | np.integer) or (
        n_jobs < 1 and n_jobs != -1
    ):  # fmt: skip
        raise OptionError(f"n_jobs is {n_jobs!r}: use a number of processes, or -1 for all")
    if n_jobs == 1:
        return 1
    if "fork" not in multiprocessing.get_all_start_methods():
        raise OptionError(
            "n_jobs above 1 needs a system that can fork processes (Linux or macOS): use n_jobs=1"
        )
    return multiprocessing.cpu_count() if n_jobs == -1 else int(n_jobs)


def _serial(work: Callable[[range], Iterable[T]], pieces: list[range]) -> Iterator[list[T]]:
    for piece in pieces:
        for result in work(piece):
            yield [result]


def _forked(
    work: Callable[[range], Iterable[T]], pieces: list[range], jobs: int
) -> Iterator[list[T]]:
    global _work
    context = multiprocessing.get_context("fork")
    before, _work = _work, work
    try:
        with warnings.catch_warnings():
            # Python 3.12 warns of forks beside threads; those of BLAS are idle and made for it.
            warnings.filterwarnings("ignore", category=DeprecationWarning, message=".*fork.*")
            pool = context.Pool(min(jobs, len(pieces)) or 1, initializer=_start)
        # leaving the context ends the processes, also when the work ends early
        with pool:
            yield from pool.imap(_piece, pieces)
    finally:
        _work = before


def _start() -> None:
    # Ctrl-C is for the parent, which ends the others
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threadpool_limits(1)


def _piece(tasks: range) -> list[object]:
    assert _work is not None
    return list(_work(tasks))
