"""When kernels are used in machine code.

Loading numba costs about 0.3 s, so that it is loaded when the work repays that; tiny problems run
in NumPy.  Kernels whose machine code is not on disk take seconds to make: that waits until as much
has been spent on doing without.  What a call decides for many fits holds from the first of them to
the last, in whatever process a fit is made.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from mixlm_sparse.common.checks import require_bool
from mixlm_sparse.common.errors import MissingPackageError
from mixlm_sparse.common.keywords import answers_unknown_keywords
from mixlm_sparse.engines.compiled import (
    LazyKernel,
    have_numba,
    kept_now,
    loaded,
    take_as_kept,
)

__all__ = [
    "BLOCKS_REPAID_BY",
    "LOADING_REPAID_BY",
    "SEARCH_REPAID_BY",
    "Steady",
    "adopt",
    "compiled_pays",
    "decisions",
    "expect_searches",
    "forced",
    "search_at_hand",
    "search_pays",
    "steady",
    "use_compiled",
]

# Loading numba costs about 0.3 s, the price of roughly this many multiply-adds in NumPy form.
LOADING_REPAID_BY = 3e7

# Machine code that is not on disk takes a second or more to make, the price of so much work in
# NumPy form.  NumPy does the work until so much has been asked for: at worst both are paid once.
MAKING_REPAID_BY = 1.5e8

# Making the machine code of the whole search takes some 25 s, once for a machine; a search in
# Python takes about 5 ms longer than a compiled one.
SEARCH_REPAID_BY = 5000

# Where NumPy searches for many responses in step, that takes hardly longer than compiled searches:
# its machine code is made when so many responses are expected.
BLOCKS_REPAID_BY = 500_000

T = TypeVar("T")

_switch: bool | None = None
_spent = 0.0
_searches = 0
_asked: dict[str, float] = {}  # work that NumPy did, by the kernel whose code would have to be made
_now = threading.local()  # `steady`: the decision that holds for the work in hand


@answers_unknown_keywords
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


def compiled_pays(work: float, kernel: LazyKernel | None = None) -> bool:
    """Say whether the compiled form is to be used for `work` multiply-adds (all evaluations).

    Parameters
    ----------
    kernel : one that is used for it.  Where its machine code has to be made first, NumPy does what
        does not repay that: the first fits on a machine wait for no compilation.
    """
    global _spent
    if _switch is not None:
        return _switch
    steady: Steady[Any] | None = getattr(_now, "steady", None)
    if steady is not None:
        return steady.compiled and have_numba()
    # What many small fits spend adds up as one large fit does.
    _spent += work
    if not ("numba" in sys.modules or _spent > LOADING_REPAID_BY):
        return False
    return have_numba() if kernel is None or kernel.at_hand() else _repays_making(kernel, work)


def _repays_making(kernel: LazyKernel, work: float) -> bool:
    """Say whether machine code is to be made, of which as much use as before is expected."""
    asked = _asked.get(kernel.name, 0.0) + work
    if asked <= MAKING_REPAID_BY:
        _asked[kernel.name] = asked
        return False
    return have_numba()


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


def search_at_hand(kernel: LazyKernel, count: int, least: int) -> bool:
    """Say whether the compiled search is to be used where NumPy can search for many in step.

    It is where its machine code is kept from before, else it would have to be made, and where so
    many searches repay loading it.  That it has been loaded already does not count: a seed gives
    the same digits again.

    Parameters
    ----------
    count : searches that are to be made; least : from which number on loading is repaid.
    """
    if _switch is not None:
        return _switch
    if count > BLOCKS_REPAID_BY:
        return have_numba()
    return count > least and kernel.may_be_kept() and have_numba() and kernel.kept()


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


Decided = tuple[bool, bool | None, float, int, dict[str, float], dict[str, bool]]


def decisions() -> Decided:
    """Return all that decides which form of a kernel runs, for a process that is to do the same."""
    kept = kept_now()
    return loaded(), _switch, _spent, _searches, dict(_asked), kept


def adopt(decided: Decided) -> None:
    """Decide from now on as the process did whose `decisions` these are."""
    global _switch, _spent, _searches
    in_use, _switch, _spent, _searches, asked, kept = decided
    _asked.clear()
    _asked.update(asked)
    take_as_kept(kept)
    if in_use:
        have_numba()
