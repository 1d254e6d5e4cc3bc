"""Time tests, intervals and diagnostics beside lme4, lmerTest, pbkrtest and clubSandwich.

    python -m benchmarks.inference                  # everything; R where Rscript has the packages
    python -m benchmarks.inference --only kenward,profile
    python -m benchmarks.inference --timeout 300

Both sides start from a fit, which is not on the clock, and nothing that a fit keeps is there yet.
Numbers that both give are compared. One BLAS thread, one process for each side, task after task.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    # before numpy is imported
    for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ.setdefault(variable, "1")

import numpy as np
import pandas as pd

import mixlm_sparse as mx
from benchmarks.inference_tasks import MODELS, TASKS, Numbers, Task, fit_of, frame_of
from benchmarks.processes import REPOSITORY, START_SECONDS, ProcessFailedError, Session, Tool
from benchmarks.report import RESULTS, duration, machine, table, write_json
from benchmarks.worker import PeakMemory

FIT_SECONDS = 600.0  # R's fit is not on the clock
AT_LEAST, AT_MOST = 1.0, 20  # a quick task is repeated for a second, twenty times at most
ROUND_SECONDS = 5.0  # with the fits in between, which are not counted


# ------------------------------------------------------------------------------------ measuring


@dataclass
class Measured:
    """What one side did.

    Parameters
    ----------
    seconds : of each repetition, the first one first.
    megabytes : peak of resident memory of fit and task, above that with the data loaded.
    numbers : what is compared.
    message : why there are no seconds.
    tool : the R function, where there is a choice.
    """

    seconds: list[float] = field(default_factory=list)
    megabytes: float | None = None
    numbers: Numbers = field(default_factory=dict)
    message: str = ""
    tool: str = ""

    @property
    def first(self) -> float | None:
        """Seconds of the first call, which loads or compiles what it needs."""
        return self.seconds[0] if self.seconds else None

    @property
    def later(self) -> float | None:
        """Median seconds of the calls after the first, or of the only one."""
        return statistics.median(self.seconds[1:] or self.seconds) if self.seconds else None


def ours(task: Task) -> Measured:
    """Do a task here, with a new fit each time."""
    seconds: list[float] = []
    began = time.perf_counter()
    frame_of(task.model)
    while True:
        fit = fit_of(task.model)
        start = time.perf_counter()
        found = task.work(fit)
        seconds.append(time.perf_counter() - start)
        enough = sum(seconds) >= AT_LEAST or len(seconds) >= AT_MOST
        if enough or time.perf_counter() - began >= ROUND_SECONDS:
            break
    numbers = task.numbers(fit, found) if task.numbers else {}
    return Measured(seconds, peak_in_new_process(task) if task.weighed else None, numbers)


def peak_of(task: Task) -> float:
    """Return the peak of resident memory of fit and task in MB, above that with the data loaded."""
    fit_of("sleepstudy")  # what the first fit of a process imports is not counted
    frame_of(task.model)
    memory = PeakMemory()
    task.work(fit_of(task.model))
    return memory.megabytes()


def peak_in_new_process(task: Task) -> float:
    """Return `peak_of` a process that has done nothing else: none of its memory is free."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.inference", "--memory-of", task.name],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout)


class RSession(Session):
    """The process of inference.R.

    Parameters
    ----------
    folder : where data for R are written.

    Raises
    ------
    ProcessFailedError : there is no Rscript, or no lme4 or jsonlite.
    """

    def __init__(self, folder: Path) -> None:
        rscript = shutil.which("Rscript")
        if rscript is None:
            raise ProcessFailedError("Rscript is not installed")
        self.tool = Tool("R", "lme4")
        self.folder = folder
        self._pending = b""
        self._process = subprocess.Popen(
            [rscript, str(Path(__file__).with_suffix(".R"))],
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        ready = self._answer(START_SECONDS)
        if ready is None:
            raise ProcessFailedError(f"no answer in {START_SECONDS:g} s")
        self.versions = ready["versions"]

    def do(self, task: Task, timeout: float) -> Measured:
        """Do a task; after `timeout` seconds the process is ended and there is no time."""
        order = {"task": task.kind, "at_least": AT_LEAST, "at_most": AT_MOST}
        try:
            answer = self.ask({"do": "fit", "model": self._model(task.model), **order}, FIT_SECONDS)
            if answer is not None and "fitted" in answer:
                answer = self.ask({"do": "work", **order}, timeout)
        except ProcessFailedError as error:
            return Measured(message=str(error))
        if answer is None:
            return Measured(message=f"> {timeout:g} s")
        for problem, said in (("missing", "no "), ("error", "failed: ")):
            if problem in answer:
                return Measured(message=said + answer[problem])
        seconds = answer["seconds"]
        return Measured(
            seconds if isinstance(seconds, list) else [seconds],
            answer["megabytes"] if task.weighed else None,
            answer["numbers"],
            tool=answer["with"],
        )

    def _model(self, name: str) -> dict[str, Any]:
        """Write the data once and return what R needs to read and fit them."""
        frame = frame_of(name)
        csv = self.folder / f"{list(MODELS).index(name)}.csv"
        if not csv.exists():
            frame.to_csv(csv, index=False)
        factors = {
            str(column): [str(level) for level in frame[column].cat.categories]
            for column in frame
            if isinstance(frame[column].dtype, pd.CategoricalDtype)
        }
        return {
            "name": name,
            "formula": MODELS[name].formula,
            "csv": str(csv),
            "factors": factors,
        }


def differences(mine: Numbers, theirs: Numbers) -> dict[str, tuple[float, int]]:
    """Return the largest difference of each column and how many numbers were compared.

    A difference is |a - b| / max(1, |b|): absolute for small numbers such as p, relative for large
    ones such as degrees of freedom.
    """
    out = {}
    for column, values in mine.items():
        other = theirs.get(column, {})
        pairs = [(a, other[label]) for label, a in values.items() if other.get(label) is not None]
        found = [abs(a - float(b)) / max(1.0, abs(float(b))) for a, b in pairs if np.isfinite(a)]
        out[column] = (max(found, default=float("nan")), len(found))
    return out


# ------------------------------------------------------------------------------------ reporting

HEADER = [
    "task", "model", "first", "later", "R first", "R later", "ratio", "largest difference", "MB",
    "R MB",
]  # fmt: skip


def row_of(task: Task, mine: Measured, theirs: Measured | None) -> list[str]:
    """Return one row of the table."""
    what = task.what + (f" (R: {theirs.tool})" if theirs is not None and theirs.tool else "")
    row = [what, task.model, duration(mine.first), duration(mine.later)]
    memory = [_megabytes(mine.megabytes), _megabytes(None if theirs is None else theirs.megabytes)]
    if theirs is None or theirs.later is None or mine.later is None:
        shown = "–" if theirs is None else theirs.message
        return [*row, "–", shown, "–", "–", *memory]
    compared = differences(mine.numbers, theirs.numbers)
    usable = {column: pair for column, pair in compared.items() if pair[1]}
    largest = max(usable, key=lambda column: usable[column][0], default=None)
    said = "nothing in common" if largest is None else f"{usable[largest][0]:.0e} {largest}"
    return [
        *row,
        duration(theirs.first),
        duration(theirs.later),
        f"{theirs.later / mine.later:.3g}",
        said,
        *memory,
    ]


def _megabytes(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.0f}" if value >= 1.0 else "< 1"


def comparison_lines(
    results: list[tuple[Task, Measured, Measured | None]],
) -> list[str]:
    """Return, task by task, the largest difference of every column that both sides have."""
    lines = []
    for task, mine, theirs in results:
        if theirs is None or not theirs.seconds:
            continue
        parts = [
            f"{column} {value:.1e} ({count})" if count else f"{column} -"
            for column, (value, count) in differences(mine.numbers, theirs.numbers).items()
        ]
        lines.append(f"{task.name}: {', '.join(parts)}")
    return lines


def as_json(task: Task, mine: Measured, theirs: Measured | None) -> dict[str, Any]:
    """Return all that was measured."""
    compared = {} if theirs is None else differences(mine.numbers, theirs.numbers)
    return {
        "task": task.name,
        "what": task.what,
        "formula": MODELS[task.model].formula,
        "mixlm_sparse": vars(mine),
        "R": None if theirs is None else vars(theirs),
        "differences": {column: pair[0] for column, pair in compared.items() if pair[1]},
    }


def start_r(folder: Path) -> RSession | None:
    """Start R; None, and a line on standard error, where that is impossible."""
    try:
        return RSession(folder)
    except ProcessFailedError as error:
        print(f"R left out: {error}", file=sys.stderr)
        return None


def run(
    tasks: list[Task], *, timeout: float, use_r: bool
) -> tuple[list[tuple[Task, Measured, Measured | None]], dict[str, str]]:
    """Do every task on both sides, one after the other; return results and R's versions."""
    results: list[tuple[Task, Measured, Measured | None]] = []
    versions: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        fit_of("sleepstudy")  # what the first fit of a process imports counts for no task
        session = start_r(Path(folder)) if use_r else None
        if session is not None:
            versions = session.versions
        try:
            for task in tasks:
                print(task.name, file=sys.stderr, flush=True)
                mine = ours(task)
                theirs = None
                if session is not None and task.numbers is not None:
                    if task.weighed:
                        session.close()  # memory that R freed would hide the peak
                    if not session.alive:
                        session = start_r(Path(folder))
                    theirs = None if session is None else session.do(task, timeout)
                results.append((task, mine, theirs))
        finally:
            if session is not None:
                session.close()
    return results, versions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", help="tasks whose name contains one of these, such as step,HSB")
    parser.add_argument(
        "--timeout", type=float, default=60.0, help="seconds for a task of R (default 60)"
    )
    parser.add_argument("--no-r", action="store_true", help="leave R out")
    parser.add_argument(
        "--json", type=Path, default=RESULTS / "inference.json", help="default: %(default)s"
    )
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)  # used by peak_in_new_process
    options = parser.parse_args()
    if options.memory_of:
        print(peak_of(next(task for task in TASKS if task.name == options.memory_of)))
        return
    wanted = options.only.split(",") if options.only else [""]
    tasks = [task for task in TASKS if any(part in task.name for part in wanted)]
    if not tasks:
        raise SystemExit(f"no such task; there are {', '.join(task.name for task in TASKS)}")
    environment = machine(int(os.environ.get("OPENBLAS_NUM_THREADS", "1")))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mx.MixedModelWarning)
        results, versions = run(tasks, timeout=options.timeout, use_r=not options.no_r)
    print(table(HEADER, [row_of(*result) for result in results], left=2))
    lines = comparison_lines(results)
    if lines:
        print(
            "\nlargest |a - b| / max(1, |b|) of the numbers that both sides give (how many):\n"
            + "\n".join(lines)
        )
    print("\nMB: peak of fit and task in a new process, above that with the data loaded.")
    print(
        f"ratio: R's later calls to ours. {environment['processor']}, {environment['threads']} "
        f"thread(s), load {environment['load_average']:.1f}; {versions}"
    )
    write_json(
        options.json,
        {
            "machine": environment,
            "versions": {"mixlm_sparse": mx.__version__, **versions},
            "results": [as_json(*result) for result in results],
        },
    )
    print(f"written to {options.json}")


if __name__ == "__main__":
    main()
