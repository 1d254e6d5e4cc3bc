"""How many threads BLAS may use during a fit.

Threads pay for dense blocks of order several hundred and more; below that they cost, and on a busy
machine they cost a lot: OpenBLAS threads spin while they wait.  The number found at import time
(environment variables such as OPENBLAS_NUM_THREADS, or threadpoolctl) is the upper limit and is
restored afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

# Order of the dense block from which more than one thread pays.
MANY_THREADS_FROM = 500
# Below this number of random effects a fit is over before threads matter.
SMALL_SYSTEM = 1_000

_controller: ThreadpoolController | None = None


@contextmanager
def _one_thread() -> Iterator[None]:
    global _controller
    if _controller is None:
        _controller = ThreadpoolController()
    with _controller.limit(limits=1, user_api="blas"):
        yield


def blas_threads(dense_order: int, q: int) -> AbstractContextManager[None]:
    """Return a context in which BLAS uses as many threads as the dense block repays.

    Parameters
    ----------
    dense_order : order of the largest dense block that is factored.
    q : number of random effects.
    """
    if dense_order >= MANY_THREADS_FROM or q < SMALL_SYSTEM:
        return nullcontext()
    return _one_thread()
