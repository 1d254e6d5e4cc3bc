"""The process of one Python package: loads data and fits when it is told to.

    python -m benchmarks.worker TOOL OPTIONS_AS_JSON

reads one JSON command a line, {"do": "load", "job": ...} or {"do": "fit", "at_least": seconds}, and
answers each with one line that starts with `MARK`. Waiting costs nothing, so processes of several
packages can take turns.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.adapters import Fit, Outcome, UnsupportedError, installed, prepare
from benchmarks.jobs import Job

MARK = "@bench "


def load_frame(job: Job) -> pd.DataFrame:
    """Return the data of a job, factors as categorical columns."""
    if job.parquet is not None:
        return pd.read_parquet(job.parquet)
    frame = pd.read_csv(
        job.csv,
        dtype=dict.fromkeys(job.factors, "str"),
        keep_default_na=False,
        na_values=[""],
        float_precision="round_trip",
    )
    for column, levels in job.factors.items():
        frame[column] = pd.Categorical(frame[column], categories=levels)
    return frame


class PeakMemory:
    """Resident memory above what the process held when its data were loaded.

    Linux keeps the peak of a process in /proc and lets it be reset; elsewhere `ru_maxrss` is used,
    which cannot be reset and so can miss a fit that needs less than loading the data did.
    """

    def __init__(self) -> None:
        self.resettable = Path("/proc/self/clear_refs").exists()
        gc.collect()
        if self.resettable:
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # 5: reset the peak
        self.baseline = self._read("VmRSS")

    def _read(self, field: str) -> float:
        if self.resettable:
            for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
                if line.startswith(field + ":"):
                    return int(line.split()[1]) / 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    def megabytes(self) -> float:
        """Return the peak since the data were loaded, less what was there then."""
        return max(0.0, self._read("VmHWM") - self.baseline)


def repeated(fit: Fit, at_least: float) -> tuple[Outcome, list[float]]:
    """Fit until `at_least` seconds have passed; return the last outcome and the times.

    A fit of a millisecond that follows a pause finds cold caches: several in a row show its speed.
    """
    gc.collect()
    times: list[float] = []
    while True:
        start = time.perf_counter()
        outcome = fit()
        times.append(time.perf_counter() - start)
        if sum(times) >= at_least:
            return outcome, times


def main() -> None:
    tool, options = sys.argv[1], json.loads(sys.argv[2])
    # Packages that print must not be taken for answers.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def answer(**fields: Any) -> None:
        answers.write(MARK + json.dumps(fields) + "\n")
        answers.flush()

    answer(ready=True, versions=installed())
    fit = memory = None
    settled = False
    for line in sys.stdin:
        command = json.loads(line)
        try:
            if command["do"] == "load":
                fit = memory = None
                job = Job.from_json(command["job"])
                frame = load_frame(job)
                fit = prepare(tool, job, frame, options)
                memory, settled = PeakMemory(), False
                answer(loaded=True, rows=len(frame))
            else:
                assert fit is not None
                assert memory is not None
                outcome, times = repeated(fit, command["at_least"])
                reached = outcome.criterion
                answer(
                    seconds=statistics.median(times),
                    calls=len(times),
                    criterion=reached if reached is not None and np.isfinite(reached) else None,
                    coefficients=outcome.coefficients,
                    note=outcome.note,
                    needed=outcome.needed,
                    megabytes=memory.megabytes(),
                )
                if memory.resettable and not settled:
                    # what the first call loads and compiles stays: later calls are on top of it
                    memory, settled = PeakMemory(), True
        except UnsupportedError as error:
            answer(unsupported=str(error))
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            # Whatever a package raises (Rust panics are BaseException) is a result of its own.
            answer(error=f"{type(error).__name__}: {error}"[:500])


if __name__ == "__main__":
    main()
