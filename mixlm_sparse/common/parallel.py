"""Long work in pieces: in order, on one process or several, with progress and an early end.

Work in machine code may take threads of this process instead.

The other processes are fresh interpreters.  They share nothing with this one, so that locks held by
its threads, the threads of its libraries and its open files do not matter; they import the package
and never the user's script, so that a script needs no `if __name__ == "__main__"`.  What is to be
done is pickled and sent once; the results come back in order.  The pieces do not depend on the
number of processes, nor do their results.

A fresh interpreter takes about as long as importing the package before it does its first piece
(a second or two), all of them at once: processes pay for work that takes several times as long.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TypeVar

from mixlm_sparse.common.checks import require_jobs
from mixlm_sparse.common.progress import CountProgress, counter
from mixlm_sparse.common.workers import elsewhere

__all__ = ["Progress", "run"]

T = TypeVar("T")
# None, True and "auto" show a bar in terminals and notebooks; a function of (done, total) that
# returns False ends the work.
Progress = CountProgress


def run(
    work: Callable[[range], Iterable[T]],
    total: int,
    size: int,
    *,
    n_jobs: int = 1,
    threads: bool = False,
    progress: Progress = None,
    label: str = "refits",
    unit: str = "",
) -> tuple[list[T], bool]:
    """Do `total` tasks by pieces of `size`.

    Parameters
    ----------
    work : range of tasks -> their results in order; for several processes it must pickle.
    n_jobs : processes; -1 takes all processors.  Not more are started than there are processors
        (two at least) or pieces.
    threads : take threads of this process instead: for work in machine code, which runs without the
        interpreter's lock.
    progress : None, True or "auto" for a bar in terminals and notebooks, False for silence, or a
        function of (done, total), called after every piece (every task on one process).
    label, unit : what the bar says is done, and counted.

    Returns
    -------
    results, complete : results of the first tasks, and whether these are all; a KeyboardInterrupt
        or a progress function that returns False ends the work early.

    Raises
    ------
    OptionError : n_jobs is no number of processes, or the work cannot be sent to other processes.
    WorkerError : a process ended before its work was done.
    """
    pieces = [range(start, min(start + size, total)) for start in range(0, total, size)]
    jobs = min(_jobs(n_jobs), len(pieces))
    results: list[T] = []
    with counter(progress, label, unit) as report:
        try:
            with closing(_pieces(work, pieces, jobs, threads)) as found:
                for result in found:
                    results.extend(result)
                    if not report(len(results), total):
                        break
        except KeyboardInterrupt:
            pass
    return results, len(results) == total


def _jobs(n_jobs: int) -> int:
    count = require_jobs(n_jobs)
    # more than there are processors wait for each other
    return processors() if count == -1 else min(count, max(processors(), 2))


def processors() -> int:
    """Return how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _pieces(
    work: Callable[[range], Iterable[T]], pieces: list[range], jobs: int, threads: bool
) -> Generator[list[T], None, None]:
    if jobs <= 1:
        return _here(work, pieces)
    return _beside(work, pieces, jobs) if threads else elsewhere(work, pieces, jobs)


def _beside(
    work: Callable[[range], Iterable[T]], pieces: list[range], jobs: int
) -> Generator[list[T], None, None]:
    """Do pieces in threads of this process; yield the results in order."""
    pool = ThreadPoolExecutor(jobs, thread_name_prefix="mixlm-thread")
    try:
        ahead = deque(pool.submit(lambda piece: list(work(piece)), p) for p in pieces[: 2 * jobs])
        for piece in [*pieces[2 * jobs :], *[None] * len(ahead)]:
            found = ahead.popleft().result()
            if piece is not None:
                ahead.append(pool.submit(lambda piece: list(work(piece)), piece))
            yield found
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _here(
    work: Callable[[range], Iterable[T]], pieces: list[range]
) -> Generator[list[T], None, None]:
    for piece in pieces:
        for result in work(piece):
            yield [result]
