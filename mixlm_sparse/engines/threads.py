"""How many threads BLAS uses while this package works.

NumPy and SciPy each bring a BLAS with threads of its own.  Threads pay for dense blocks of order
1,000 and more; below that they cost, and on a busy machine they cost a lot: those of one library
spin while they wait for one that has lost its core, or for the other library's to stop spinning.
So every public call (a fit, inference, prediction, resampling) holds both at one thread while it
runs, and large dense blocks, which go through SciPy's BLAS alone, get the cores that are idle at
that moment.

The limit is counted, not stacked: calls that overlap in several threads share it, and the last one
to end leaves the libraries as the first one found them.  What was found (from environment variables
such as OPENBLAS_NUM_THREADS, or threadpoolctl) is never exceeded.  Entering and leaving take about
10 microseconds, and less than one inside another such call.  `use_threads` says how many threads
such blocks get.
"""

from __future__ import annotations

import functools
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from types import FunctionType
from typing import Any, ParamSpec, TypeVar

import scipy
from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

from mixlm_sparse.common.checks import require_count
from mixlm_sparse.common.keywords import answers_unknown_keywords

# Order of a dense block from which more than one thread pays.
MANY_THREADS_FROM = 1_000

_OPENBLAS_SETTERS = [
    f"{prefix}openblas_set_num_threads{suffix}"
    for prefix in ("", "scipy_")
    for suffix in ("", "64_", "_64")
]

P = ParamSpec("P")
R = TypeVar("R")
C = TypeVar("C", bound=type)


class _Library:
    """One BLAS: read and set its number of threads from any thread."""

    def __init__(self, controller: Any) -> None:
        self.get: Callable[[], int] = controller.get_num_threads
        self.set: Callable[[int], object] = controller.set_num_threads
        # in wheels scipy.libs lies beside scipy
        place = os.path.dirname(os.path.dirname(scipy.__file__))
        self.scipys = os.path.relpath(str(controller.filepath), place).startswith("scipy")
        if getattr(controller, "threading_layer", None) == "pthreads":
            # One pool for the process: threadpoolctl lets one thread alone set it, and silently
            # ignores the others, which here share one counted limit.
            for name in _OPENBLAS_SETTERS:
                setter = getattr(controller.dynlib, name, None)
                if setter is not None:
                    self.set = setter
                    break


class _Limit:
    """One BLAS thread while anybody is inside; reentrant, and shared by threads."""

    def __init__(self) -> None:
        self.most: int | None = None  # threads for large blocks; None: as many as cores are idle
        self._lock = threading.Lock()
        self._inside: dict[int, int] = {}  # thread -> depth
        self._libraries: dict[bool, list[_Library]] = {}
        self._found: list[tuple[_Library, int]] = []  # libraries that had more than one thread

    def _known(self) -> list[_Library]:
        # CHOLMOD brings a BLAS of its own, which a controller made before it does not know.
        with_cholmod = "sksparse" in sys.modules
        if with_cholmod not in self._libraries:
            controller = ThreadpoolController().select(user_api="blas")
            self._libraries[with_cholmod] = [_Library(c) for c in controller.lib_controllers]
        return self._libraries[with_cholmod]

    def __enter__(self) -> None:
        me = threading.get_ident()
        with self._lock:
            if not self._inside:
                counts = [(library, library.get()) for library in self._known()]
                self._found = [(library, n) for library, n in counts if n > 1]
                for library, _ in self._found:
                    library.set(1)
            self._inside[me] = self._inside.get(me, 0) + 1

    def __exit__(self, *_: object) -> None:
        me = threading.get_ident()
        with self._lock:
            self._inside[me] -= 1
            if not self._inside[me]:
                del self._inside[me]
            if not self._inside:
                for library, n in self._found:
                    library.set(n)
                self._found = []

    @contextmanager
    def many_for(self, order: int) -> Iterator[None]:
        """Let SciPy's BLAS use the idle cores for a dense block of that order, if that pays."""
        raised = None
        if order >= MANY_THREADS_FROM:
            with self._lock:
                alone = list(self._inside) == [threading.get_ident()]
                scipys = [found for found in self._found if found[0].scipys]
                if len(self._found) == 1:  # NumPy and SciPy share it
                    scipys = self._found
                if alone and scipys:
                    raised, limit = scipys[0]
                    raised.set(min(limit, self.most or idle_cores()))
        try:
            yield
        finally:
            if raised is not None:
                raised.set(1)

    def forget(self) -> None:
        """Start anew in a forked process, where the threads that were inside do not exist."""
        me, depth = threading.get_ident(), self._inside.get(threading.get_ident(), 0)
        self._lock = threading.Lock()
        self._inside = {me: depth} if depth else {}


def idle_cores() -> int:
    """Return the number of cores that nothing else runs on now, at least 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    try:
        with open("/proc/loadavg") as file:
            running = int(file.read().split()[3].split("/")[0])
    except (OSError, ValueError, IndexError):  # not Linux: nothing to go by
        running = 1
    return max(1, (cores or 1) - (running - 1))


_limit = _Limit()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_limit.forget)


@answers_unknown_keywords
def use_threads(choice: int | None) -> None:
    """Say how many BLAS threads large dense blocks may use; everything else uses one.

    Parameters
    ----------
    choice : 1 for none but the caller's own, a number of threads, or None for as many as cores are
        idle, the automatic choice.  Never more than the library was found with
        (OPENBLAS_NUM_THREADS, threadpoolctl).

    Raises
    ------
    OptionError : not a whole number of at least 1.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> mx.use_threads(1)  # as many processes as cores do the work
    >>> mx.use_threads(None)
    """
    _limit.most = None if choice is None else require_count("choice", choice)


def one_blas_thread() -> _Limit:
    """Return the context in which BLAS uses one thread, but for large dense blocks."""
    return _limit


def large_block(order: int) -> Any:
    """Return the context of one call on a dense block of that order, by SciPy's BLAS."""
    return _limit.many_for(order)


def calm(function: Callable[P, R]) -> Callable[P, R]:
    """Run a public function with one BLAS thread."""

    @functools.wraps(function)
    def calm_function(*args: P.args, **kwargs: P.kwargs) -> R:
        with _limit:
            return function(*args, **kwargs)

    return calm_function


def calm_methods(cls: C) -> C:
    """Run every public method and property of a class, inherited ones too, with one BLAS thread."""
    for name in dir(cls):
        if name.startswith("_"):
            continue
        value = next(base.__dict__[name] for base in cls.__mro__ if name in base.__dict__)
        if isinstance(value, FunctionType):
            setattr(cls, name, calm(value))
        elif isinstance(value, cached_property):
            cached: cached_property[Any] = cached_property(calm(value.func))
            cached.__set_name__(cls, name)
            setattr(cls, name, cached)
        elif isinstance(value, property) and isinstance(value.fget, FunctionType):
            setattr(cls, name, type(value)(calm(value.fget)))
    return cls
