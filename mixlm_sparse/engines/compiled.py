"""Kernels in machine code: when they are used, and what happens where they cannot be.

A kernel is plain Python that numba turns into machine code, kept on disk, the first time it is
called.  Loading numba costs about 0.3 s, so that it is loaded when the work repays that; tiny
problems run in NumPy.  No kernel is needed for a right answer: where numba does not load, NumPy
answers, and where the kept code cannot be read or written, the kernel is compiled for this process.
Either is said once.  This is the only module that imports numba.
"""

from __future__ import annotations

import hashlib
import importlib
import sys
import threading
import types
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Generic, TypeVar

from mixlm_sparse.common.checks import require_bool
from mixlm_sparse.common.errors import CompilationWarning, MissingPackageError, caller_level
from mixlm_sparse.common.progress import saying

# Loading numba costs about 0.3 s, the price of roughly this many multiply-adds in NumPy form.
LOADING_REPAID_BY = 3e7

# Making the machine code of the whole search takes some 25 s, once for a machine; a search in
# Python takes about 5 ms longer than a compiled one.
SEARCH_REPAID_BY = 5000

T = TypeVar("T")

_switch: bool | None = None
_spent = 0.0
_searches = 0
_said: set[str] = set()
# Whether machine code of slow kernels lies on disk, by the kernel's name, as first looked up.
_kept: dict[str, bool] = {}
_slow: list[LazyKernel] = []
_entries: list[LazyKernel] = []
_now = threading.local()  # `steady`: the decision that holds for the work in hand


@lru_cache(maxsize=1)
def _numba() -> Any:
    """Return numba, or None where it does not load."""
    try:
        return importlib.import_module("numba")
    except Exception as error:  # not for this Python or NumPy, a broken library, not installed
        _say(
            "numba",
            f"numba does not load ({type(error).__name__}: {error}): NumPy does the work, with the "
            "same results but several times slower on large data. Reinstall it with "
            "pip install --upgrade numba",
        )
        return None


def _say(what: str, message: str) -> None:
    if what not in _said:
        _said.add(what)
        warnings.warn(message, CompilationWarning, stacklevel=caller_level())


def have_numba() -> bool:
    """Say whether machine code can be made here."""
    return _numba() is not None


def use_compiled(choice: bool | None) -> None:
    """Force the compiled kernels on or off; None returns to the automatic choice.

    Raises
    ------
    MissingPackageError : True is asked for and numba does not load.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> mx.use_compiled(False)  # NumPy alone
    >>> fit = mx.lmer("Yield ~ 1 + (1 | Batch)", mx.datasets.load("Dyestuff"))
    >>> mx.use_compiled(None)
    >>> round(fit.criterion, 4)
    319.6543
    """
    global _switch
    choice = None if choice is None else require_bool("choice", choice)
    if choice and not have_numba():
        raise MissingPackageError(
            "compiled kernels need numba, which does not load: pip install --upgrade numba"
        )
    _switch = choice


@contextmanager
def forced() -> Iterator[None]:
    """Use the compiled kernels wherever there is one.

    Raises
    ------
    MissingPackageError : numba does not load.
    """
    global _switch
    before = _switch
    use_compiled(True)
    try:
        yield
    finally:
        _switch = before


def kernels() -> tuple[LazyKernel, ...]:
    """Return the kernels that Python calls, of the modules that are loaded."""
    return tuple(_entries)


def compiled_pays(work: float) -> bool:
    """Say whether the compiled form is to be used for `work` multiply-adds (all evaluations)."""
    global _spent
    if _switch is not None:
        return _switch
    steady: Steady[Any] | None = getattr(_now, "steady", None)
    if steady is not None:
        return steady.compiled and have_numba()
    # What many small fits spend adds up as one large fit does.
    _spent += work
    return ("numba" in sys.modules or _spent > LOADING_REPAID_BY) and have_numba()


def expect_searches(count: int) -> None:
    """Say that a call will make `count` searches; single ones add up.

    What one call decides holds for all later ones, and smaller calls decide nothing, so that a seed
    gives the same digits again in a process.
    """
    global _searches
    if getattr(_now, "steady", None) is not None:
        return
    if count == 1:
        _searches += 1
    elif count > SEARCH_REPAID_BY:
        _searches += count


def search_pays(kernel: LazyKernel, work: float) -> bool:
    """Say whether the compiled search is to be used, whose calls save `work` multiply-adds.

    It is where its machine code is kept from before, or where enough searches have been expected:
    one large fit does not repay it, for its time goes into evaluations, compiled or not.
    """
    if _switch is not None:
        return _switch
    steady: Steady[Any] | None = getattr(_now, "steady", None)
    expected = _searches if steady is None else steady.searches
    return compiled_pays(work) and (kernel.kept() or expected > SEARCH_REPAID_BY)


def made_again(kind: Callable[..., T], compiled: bool, *args: Any) -> T:
    """Return an object as it was before it was pickled or copied, with kernels in the same form."""
    return kind(*args, compiled=compiled and have_numba())


def twin_of(thing: T) -> T:
    """Return an object that shares what this one has, where `copy.copy` would make it again."""
    twin = object.__new__(type(thing))
    vars(twin).update(vars(thing))
    return twin


def loaded() -> bool:
    """Say whether numba is in use in this process."""
    return "numba" in sys.modules and have_numba()


@dataclass(frozen=True, slots=True)
class Steady(Generic[T]):
    """Work by ranges of tasks that takes one form of the kernels, from the first task to the last.

    Single fits add up until loading numba is repaid; here, a task's form would depend on how many
    came before it in its process, and so would its last digits.

    Parameters
    ----------
    work : range of tasks -> their results in order.
    compiled : whether the compiled form is taken where there is one.
    searches : number of searches that were expected when this was decided.
    """

    work: Callable[[range], Iterable[T]]
    compiled: bool
    searches: int

    def __call__(self, tasks: range) -> Iterator[T]:
        results: Iterator[T] | None = None
        while True:
            # set and set back by hand: a context manager costs as much as a refit's bookkeeping
            outside, _now.steady = getattr(_now, "steady", None), self
            try:
                if results is None:
                    results = iter(self.work(tasks))
                result = next(results)
            except StopIteration:
                return
            finally:
                _now.steady = outside
            yield result


def steady(work: Callable[[range], Iterable[T]], *, compiled: bool) -> Steady[T]:
    """Return work that takes one form of the kernels, in whatever process a task is done."""
    return Steady(work, compiled, _searches)


def decisions() -> tuple[bool, bool | None, float, int, dict[str, bool]]:
    """Return all that decides which form of a kernel runs, for a process that is to do the same."""
    if "numba" in sys.modules:
        for kernel in _slow:
            kernel.kept()  # another process may write it at any time: what is seen now holds
    return loaded(), _switch, _spent, _searches, dict(_kept)


def adopt(decided: tuple[bool, bool | None, float, int, dict[str, bool]]) -> None:
    """Decide from now on as the process did whose `decisions` these are."""
    global _switch, _spent, _searches
    in_use, _switch, _spent, _searches, kept = decided
    _kept.update(kept)
    if in_use:
        _numba()


class LazyKernel:
    """A function that is compiled at its first call; `python` is the function itself.

    `slow` tells users when that takes long; what has no `entry` is called by kernels alone.
    """

    def __init__(
        self,
        python: Callable[..., Any],
        *,
        inline: bool = False,
        slow: bool = False,
        entry: bool = True,
    ) -> None:
        self.python = python
        self.slow = slow
        self._inline = inline
        self._entry = entry
        self._name = f"{python.__module__}.{python.__qualname__}"
        self._compiled: Callable[..., Any] | None = None

    def __call__(self, *args: Any) -> Any:
        if not self._entry:
            return self.python(*args)
        if self.slow and not self.kept():
            with saying("compiling the search, once on this machine (about half a minute)"):
                return self._call(args)
        return self._call(args)

    def _call(self, args: tuple[Any, ...]) -> Any:
        try:
            out = (self._compiled or self.dispatcher())(*args)
            _kept[self._name] = True
            return out
        except MemoryError:
            raise
        except Exception as error:
            # Kernels raise nothing themselves: this comes from keeping or reading machine code,
            # before anything was computed.
            return self._for_this_process(error, args)

    def dispatcher(self, *, keep: bool = True) -> Callable[..., Any]:
        """Return the function that numba made; kernels that it calls are made as well."""
        if self._compiled is None:
            self._compiled = self._made(keep)
        return self._compiled

    def kept(self) -> bool:
        """Say whether machine code of this kernel lies on disk, made by this version of it."""
        if self._name not in _kept:
            try:
                cache = self.dispatcher()._cache._cache_file  # type: ignore[attr-defined]
                _kept[self._name] = bool(cache._load_index())
            except Exception:  # not kept in files, or kept in another way than this numba does
                _kept[self._name] = False
        return _kept[self._name]

    def compilations(self) -> int:
        """Return how often this process has compiled it, and not read it from the disk."""
        stats = getattr(self._compiled, "stats", None)
        return 0 if stats is None else sum(stats.cache_misses.values())

    def keeps(self) -> bool:
        """Say whether its machine code, where it was made, is on disk or can go there."""
        stats = getattr(self._compiled, "stats", None)
        return self._compiled is None or (stats is not None and stats.cache_path is not None)

    def fingerprint(self) -> str:
        """Name the code of this kernel, of those that it calls, and the constants they read."""
        code = self.python.__code__
        parts = [code.co_code.hex(), repr([c for c in code.co_consts if not hasattr(c, "co_code")])]
        for name in code.co_names:
            value = self.python.__globals__.get(name)
            if isinstance(value, LazyKernel):
                parts.append(value.fingerprint())
            elif isinstance(value, int | float | tuple):
                parts.append(repr(value))
        return hashlib.sha1("|".join(parts).encode(), usedforsecurity=False).hexdigest()[:12]

    def _made(self, keep: bool) -> Callable[..., Any]:
        numba = _numba()
        if numba is None:
            return self.python
        function = self._with_compiled_callees(keep)
        options: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
        if not self._entry:
            options |= {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
        if self._inline:
            options["inline"] = "always"
        if keep:
            try:
                made: Callable[..., Any] = numba.njit(cache=True, **options)(function)
                return made
            except RuntimeError:  # no place to keep the machine code: it is made in each process
                pass
        made = numba.njit(**options)(function)
        return made

    def _with_compiled_callees(self, keep: bool) -> Callable[..., Any]:
        """Return the function with the kernels among its globals replaced by their dispatchers."""
        python = self.python
        called = {
            name: value.dispatcher(keep=keep)
            for name in python.__code__.co_names
            if isinstance(value := python.__globals__.get(name), LazyKernel)
        }
        if not called:
            return python
        made = types.FunctionType(
            python.__code__,
            {**python.__globals__, **called},
            python.__name__,
            python.__defaults__,
            python.__closure__,
        )
        # numba looks at the file of this function only to see whether kept code is still right
        made.__module__ = python.__module__
        made.__qualname__ = f"{python.__qualname__}_{self.fingerprint()}"
        return made

    def _for_this_process(self, error: Exception, args: tuple[Any, ...]) -> Any:
        _say(
            "cache",
            "machine code cannot be kept or read back "
            f"({type(error).__name__}: {error}): kernels are compiled again in every process, "
            "which costs seconds; set NUMBA_CACHE_DIR to a folder that can be written, or empty it",
        )
        self._compiled = None
        try:
            return self.dispatcher(keep=False)(*args)
        except Exception:  # numba cannot compile it here: plain Python is slow, and right
            self._compiled = self.python
            return self.python(*args)


def njit(function: Callable[..., Any]) -> LazyKernel:
    """Mark a kernel for compilation at its first call; it may call other kernels."""
    kernel = LazyKernel(function)
    _entries.append(kernel)
    return kernel


def slow_to_compile(function: Callable[..., Any]) -> LazyKernel:
    """Mark a kernel whose compilation takes so long that users are told."""
    kernel = LazyKernel(function, slow=True)
    _slow.append(kernel)
    _entries.append(kernel)
    return kernel


def inside(function: Callable[..., Any]) -> LazyKernel:
    """Mark a kernel that kernels alone call: it gets no entry for Python, whose compilation for
    structures of many arrays takes longer than the kernel's own.
    """
    return LazyKernel(function, entry=False)


def inlined(function: Callable[..., Any]) -> LazyKernel:
    """Mark a kernel that becomes part of its caller: code of each call is made once, not again."""
    return LazyKernel(function, inline=True)
