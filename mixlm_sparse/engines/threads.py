"""How many threads BLAS may use during a fit.

Threads pay for dense blocks of order several hundred and more; below that they cost, and on a busy
machine they cost a lot: OpenBLAS threads spin while they wait for one that has lost its core.  So a
fit takes no more threads than there are idle cores when it starts.  The number found at import time
(environment variables such as OPENBLAS_NUM_THREADS, or threadpoolctl) is the upper limit and is
restored afterwards.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

# Order of the dense block from which more than one thread pays.
MANY_THREADS_FROM = 500
# Below this number of random effects a fit is over before threads matter.
SMALL_SYSTEM = 1_000

_controllers: dict[bool, ThreadpoolController] = {}


def _controller() -> ThreadpoolController:
    # CHOLMOD brings a BLAS of its own, which a controller made before it does not know.
    with_cholmod = "sksparse" in sys.modules
    if with_cholmod not in _controllers:
        _controllers[with_cholmod] = ThreadpoolController()
    return _controllers[with_cholmod]


def idle_cores() -> int:
    """Return the number of cores that nothing else runs on now, at least 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    try:
        with open("/proc/loadavg") as file:
            running = int(file.read().split()[3].split("/")[0])
    except (OSError, ValueError, IndexError):  # not Linux: nothing to go by
        running = 1
    return max(1, (cores or 1) - (running - 1))


@contextmanager
def _at_most(threads: int) -> Iterator[None]:
    controller = _controller()
    now = max((pool["num_threads"] for pool in controller.info()), default=1)
    with controller.limit(limits=min(threads, now), user_api="blas"):
        yield


def blas_threads(dense_order: int, q: int) -> AbstractContextManager[None]:
    """Return a context in which BLAS uses as many threads as the dense block repays.

    Parameters
    ----------
    dense_order : order of the largest dense block that is factored.
    q : number of random effects.
    """
    if q < SMALL_SYSTEM:
        return nullcontext()
    return _at_most(idle_cores() if dense_order >= MANY_THREADS_FROM else 1)
