"""Kernels in machine code: how they are made and kept, and what happens where they cannot be.

A kernel is plain Python that numba turns into machine code, kept on disk, the first time it is
called; `decisions` says when that is done.  No kernel is needed for a right answer: where numba
does not load, NumPy answers, and where the kept code cannot be read or written, the kernel is
compiled for this process.  Either is said once.  This is the only module that imports numba.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import sys
import types
import warnings
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from mixlm_sparse.common.errors import CompilationWarning, caller_level
from mixlm_sparse.common.progress import saying

T = TypeVar("T")

_said: set[str] = set()
# Whether machine code of slow kernels lies on disk, by the kernel's name, as first looked up.
_kept: dict[str, bool] = {}
_slow: list[LazyKernel] = []
_entries: list[LazyKernel] = []


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


def kernels() -> tuple[LazyKernel, ...]:
    """Return the kernels that Python calls, of the modules that are loaded."""
    return tuple(_entries)


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


def kept_now() -> dict[str, bool]:
    """Return whether machine code of slow kernels lies on disk, by the kernel's name.

    Another process may write it at any time: what is seen now holds in this one.
    """
    if "numba" in sys.modules:
        for kernel in _slow:
            kernel.kept()
    return dict(_kept)


def take_as_kept(kept: dict[str, bool]) -> None:
    """Believe from now on what another process saw on the disk."""
    _kept.update(kept)


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

    @property
    def name(self) -> str:
        """What it is known by."""
        return self._name

    def may_be_kept(self) -> bool:
        """Say whether machine code of this kernel may lie on disk, without loading numba."""
        if self._name in _kept or "numba" in sys.modules:
            return self.kept()
        source = Path(self.python.__code__.co_filename)
        index = f"{source.stem}.{self._kept_as()}-*.nbi"
        given = os.environ.get("NUMBA_CACHE_DIR")
        if given:
            return any(Path(given).glob(f"*/{index}"))
        beside = source.parent / "__pycache__"
        if not os.access(beside, os.W_OK):
            return True  # numba knows other places
        return any(beside.glob(index))

    def at_hand(self) -> bool:
        """Say whether machine code of this kernel need not be made; loads numba to make sure."""
        if self._name not in _kept and not self.may_be_kept():
            _kept[self._name] = False
        return _kept.get(self._name) is not False and have_numba() and self.kept()

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
        made.__qualname__ = self._kept_as()
        return made

    def _kept_as(self) -> str:
        """Return the name of its machine code on disk, which tells what it calls, if anything."""
        python = self.python
        called = (python.__globals__.get(name) for name in python.__code__.co_names)
        calls = any(isinstance(value, LazyKernel) for value in called)
        return python.__qualname__ + (f"_{self.fingerprint()}" if calls else "")

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
