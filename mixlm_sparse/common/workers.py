"""Fresh interpreters that do pieces of work: both ends of the pipe.

    parent  ->  (decisions, pickled work), then ranges of tasks, then nothing
    worker  ->  (results, None) or (None, exception) for each range

A worker belongs to its parent: it does not hear Ctrl-C, which is for the parent to act on, and it
ends when the pipe closes.
"""

from __future__ import annotations

import importlib
import io
import os
import pickle
import queue
import subprocess
import sys
import types
import warnings
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, BinaryIO, TypeVar

from mixlm_sparse.common.errors import OptionError, WorkerError

__all__ = ["elsewhere", "main"]

T = TypeVar("T")

# One thread each: the processes are the parallel part.
ONE_THREAD = dict.fromkeys(
    (
        "OPENBLAS_NUM_THREADS",
        "OMP_NUM_THREADS",
        "MKL_NUM_THREADS",
        "VECLIB_MAXIMUM_THREADS",
        "NUMBA_NUM_THREADS",
    ),
    "1",
)
# A module whose state decides which form of a computation runs: its `decisions` here are the ones
# that it adopts there, so that the results are the same to the last digit.
DECISIVE = "mixlm_sparse.engines.decisions"


def elsewhere(
    work: Callable[[range], Iterable[T]], pieces: list[range], jobs: int
) -> Generator[list[T], None, None]:
    """Do pieces of work in `jobs` fresh interpreters; yield the results in order.

    Closing the generator ends the interpreters.

    Raises
    ------
    OptionError : the work does not pickle.
    WorkerError : an interpreter did not start, or ended before its work was done.
    """
    decided = sys.modules[DECISIVE].decisions() if DECISIVE in sys.modules else None
    setup = pickle.dumps((decided, _pickled(work)))
    workers = [_Worker(setup) for _ in range(jobs)]
    free: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
    for worker in workers:
        free.put(worker)

    def do(piece: range) -> list[T]:
        worker = free.get()
        try:
            return worker.do(piece)
        finally:
            free.put(worker)

    threads = ThreadPoolExecutor(jobs, thread_name_prefix="mixlm-worker")
    try:
        futures = [threads.submit(do, piece) for piece in pieces]
        for future in futures:
            yield future.result()
    finally:
        for worker in workers:
            worker.end()
        threads.shutdown(wait=True, cancel_futures=True)


class _Worker:
    """The parent's end."""

    def __init__(self, setup: bytes) -> None:
        code = (
            f"import sys; sys.path[:] = {sys.path!r}; "
            "from mixlm_sparse.common.workers import main; main()"
        )
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-c", code],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**os.environ, **ONE_THREAD},
                start_new_session=True,  # Ctrl-C in a terminal goes to its whole group
            )
        except OSError as error:
            raise WorkerError(
                f"no further Python process could be started ({error}): use n_jobs=1"
            ) from error
        self._setup: bytes | None = setup

    def do(self, piece: range) -> list[Any]:
        """Send a piece, wait for its results."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        try:
            if self._setup is not None:
                setup, self._setup = self._setup, None
                stdin.write(setup)
            pickle.dump(piece, stdin)
            stdin.flush()
            results, error = pickle.load(stdout)
        except (OSError, EOFError, ValueError, pickle.UnpicklingError) as error:
            code = self._process.wait()
            raise WorkerError(
                f"a process of n_jobs ended before its work was done (exit code {code}; a negative "
                "one is a signal, and -9 usually means that the memory was full): use fewer "
                "processes, or n_jobs=1"
            ) from error
        if error is not None:
            raise error
        return list(results)

    def end(self) -> None:
        """End the process, whatever it is doing."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            try:
                if pipe is not None:
                    pipe.close()
            except OSError:  # what was still to be written has no reader
                pass


# ---------------------------------------------------------------------------------------------
# What is sent
# ---------------------------------------------------------------------------------------------


class _Pickler(pickle.Pickler):
    """Pickles what another interpreter can read: nothing of the script that runs."""

    def reducer_override(self, obj: Any) -> Any:
        own = isinstance(obj, types.FunctionType | type) and obj.__module__ == "__main__"
        if own:
            raise pickle.PicklingError(f"{obj.__qualname__} is defined in the running script")
        return NotImplemented


def _pickled(work: Any) -> bytes:
    """Return the work as bytes, by cloudpickle where it is installed."""
    try:
        cloudpickle = importlib.import_module("cloudpickle")
    except ImportError:
        cloudpickle = None
    try:
        if cloudpickle is not None:
            return bytes(cloudpickle.dumps(work))
        out = io.BytesIO()
        _Pickler(out, protocol=pickle.HIGHEST_PROTOCOL).dump(work)
        return out.getvalue()
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        remedy = "" if cloudpickle is not None else "install cloudpickle, "
        raise OptionError(
            f"n_jobs above 1 sends the work to other processes, and it cannot be sent: {error}; "
            f"define functions in a module that can be imported, {remedy}or use n_jobs=1"
        ) from error


# ---------------------------------------------------------------------------------------------
# The worker's end
# ---------------------------------------------------------------------------------------------


def main() -> None:
    """Do what comes through standard input, until it closes."""
    # what the user's functions print must not get between the results
    results = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    try:
        _serve(sys.stdin.buffer, results)
    except (EOFError, BrokenPipeError, KeyboardInterrupt):
        pass
    os._exit(0)  # nothing to tidy up, and nobody to read it


def _serve(tasks: BinaryIO, results: BinaryIO) -> None:
    decided, pickled = pickle.load(tasks)
    # refits do not warn; what else comes up came up in the parent
    warnings.simplefilter("ignore")
    work, failure = None, None
    try:
        if decided is not None:
            importlib.import_module(DECISIVE).adopt(decided)
        work = pickle.loads(pickled)
    except Exception as error:
        failure = OptionError(
            f"the work could not be read in another process ({type(error).__name__}: {error}): "
            "define functions in a module that can be imported, or use n_jobs=1"
        )
    while True:
        piece = pickle.load(tasks)
        answer: tuple[Any, Any]
        try:
            answer = (None, failure) if failure is not None else (list(work(piece)), None)  # type: ignore[misc]
            message = pickle.dumps(answer, protocol=pickle.HIGHEST_PROTOCOL)
        except Exception as error:
            message = _pickled_error(error)
        results.write(message)
        results.flush()


def _pickled_error(error: Exception) -> bytes:
    try:
        message = pickle.dumps((None, error))
        pickle.loads(message)
    except Exception:  # an exception of the user's own may not come back as it went
        message = pickle.dumps((None, WorkerError(f"{type(error).__name__}: {error}")))
    return message
