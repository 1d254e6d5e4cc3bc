"""Where the time of a later small fit goes, stage by stage.

    python -m benchmarks.breakdown --only W1,W2,W3,W6

Fits of one model after another in this process, by its processor time: `lmer` as a whole, and its
stages called one by one.  Stages of the search are timed inside it, each without those within it;
timing takes a few tenths of a microsecond a call.  All is done in NumPy, as the first hundreds of
fits of a process are; with `--compiled` in machine code, as after `mixlm compile`.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import process_time_ns
from typing import Any
from unittest.mock import patch

import pandas as pd

import mixlm_sparse as mx
from benchmarks.worker import load_frame
from benchmarks.workloads import BY_NAME, chosen
from mixlm_sparse.api.fit import LinearMixedFit
from mixlm_sparse.engines.threads import one_blas_thread
from mixlm_sparse.model.base import announced, fit_of
from mixlm_sparse.model.call import FitOptions, ModelCall
from mixlm_sparse.model.data import held_call
from mixlm_sparse.model.held import held_system
from mixlm_sparse.model.run import matrices_of
from mixlm_sparse.solve.optimize import optimize
from mixlm_sparse.solve.profiled.objective import ProfiledObjective
from mixlm_sparse.solve.whitened.search import solution_at

SMALL = "W1,W2,W3,W6"
# Methods of the objective, and what they are to a reader.
PARTS = {
    "start": "  start",
    "value_and_gradient": "  value and gradient",
    "value": "  value",
    "guess": "  Hessian",
    "sharpen": "  Hessian",
    "settle": "  look at the boundary",
    "downhill": "  look for a saddle",
    "other_starts": "  look for other valleys",
}
REST = "  the rest of the search"


class Clock:
    """Processor time by stage; a stage within another one does not count for it."""

    def __init__(self) -> None:
        self.microseconds: defaultdict[str, float] = defaultdict(float)
        self._inner: list[int] = []

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count what is done inside for `name`."""
        self._inner.append(0)
        began = process_time_ns()
        try:
            yield
        finally:
            took = process_time_ns() - began
            self.microseconds[name] += (took - self._inner.pop()) / 1e3
            if self._inner:
                self._inner[-1] += took

    def timed(self, function: Callable[..., Any], name: str) -> Callable[..., Any]:
        """Return the function, its time counted for `name`."""

        @functools.wraps(function)
        def counted(*args: Any, **kwargs: Any) -> Any:
            with self.stage(name):
                return function(*args, **kwargs)

        return counted


def stages(formula: str, data: pd.DataFrame) -> defaultdict[str, float]:
    """Fit once and return the microseconds of each stage."""
    clock = Clock()
    inside: dict[str, Any] = {
        method: clock.timed(getattr(ProfiledObjective, method), name)
        for method, name in PARTS.items()
    }
    with one_blas_thread(), patch.multiple(ProfiledObjective, **inside):
        options = FitOptions(progress=None)
        with clock.stage("columns of the frame"):
            call = held_call(ModelCall(formula=formula, data=data, options=options).checked())
        with clock.stage("design"):
            matrices = matrices_of(call)
        with clock.stage("products"):
            system = held_system(matrices, "auto", None)
        with clock.stage(REST):
            optimum = optimize(system)
        with clock.stage("solution"):
            solution = solution_at(optimum, system)
        with clock.stage("fit and notes"):
            announced(
                fit_of(LinearMixedFit, system, optimum, options, formula, call, solution=solution)
            )
    return clock.microseconds


def whole(formula: str, data: pd.DataFrame) -> float:
    """Fit once and return the microseconds that `lmer` takes."""
    began = process_time_ns()
    mx.lmer(formula, data)
    return (process_time_ns() - began) / 1e3


def breakdown(formula: str, data: pd.DataFrame, fits: int) -> dict[str, float]:
    """Return the median microseconds of each stage, and of `lmer`."""
    for _ in range(20):  # what is loaded and kept is, then
        whole(formula, data)
    taken = [(whole(formula, data), stages(formula, data)) for _ in range(fits)]
    names = ["columns of the frame", "design", "products", *dict.fromkeys(PARTS.values())]
    names += [REST, "solution", "fit and notes"]
    out = {name: statistics.median(by_stage[name] for _, by_stage in taken) for name in names}
    return {**out, "lmer as a whole": statistics.median(total for total, _ in taken)}


def main() -> None:
    """Print a table, a column for each workload."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default=SMALL, help=f"workloads of {', '.join(BY_NAME)}")
    parser.add_argument("--fits", type=int, default=300, help="fits of each")
    parser.add_argument("--compiled", action="store_true", help="in machine code")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    mx.use_compiled(arguments.compiled)
    found = {
        workload.name: breakdown(workload.formula, load_frame(workload.job()), arguments.fits)
        for workload in chosen(arguments.only)
    }
    print(f"{'microseconds':26s}" + "".join(f"{name:>8s}" for name in found))
    for stage in next(iter(found.values())):
        print(f"{stage:26s}" + "".join(f"{one[stage]:8.0f}" for one in found.values()))


if __name__ == "__main__":
    main()
