"""Processes that fit, taking turns.

Every package runs in a process of its own with the same number of threads. Fits of different
packages alternate, so that a slow minute of the machine is shared by all.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import IO, Any

from benchmarks.jobs import Job
from benchmarks.worker import MARK

REPOSITORY = Path(__file__).parents[1]
START_SECONDS = 120.0  # loading R or a package with compiled code on a busy machine
LOAD_SECONDS = 600.0
THREAD_VARIABLES = (
    "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS",
    "RAYON_NUM_THREADS", "POLARS_MAX_THREADS",
)  # fmt: skip
QUICK_TURN_SECONDS = 0.05  # a quick fit is repeated that long within its turn


@dataclass(frozen=True)
class Tool:
    """One column of a comparison.

    Parameters
    ----------
    name : what the user types and the tables show.
    package : of `adapters`, or "lme4".
    options : given to the adapter or to R.
    """

    name: str
    package: str
    options: dict[str, Any] = field(default_factory=dict)


TOOLS = {
    tool.name: tool
    for tool in (
        Tool("mixlm", "mixlm_sparse"),
        Tool("mixlm-compiled", "mixlm_sparse", {"compiled": True}),
        Tool("mixlm-blocked", "mixlm_sparse", {"engine": "blocked"}),
        Tool("mixlm-cholmod", "mixlm_sparse", {"engine": "cholmod"}),
        Tool("mixlm-bobyqa", "mixlm_sparse", {"optimizer": "bobyqa"}),
        Tool("lme4", "lme4"),
        Tool("lme4-noderivs", "lme4", {"calc_derivs": False}),
        Tool("glmm", "glmm"),
        Tool("mixedlm", "mixedlm"),
        Tool("mixedlm-rs", "mixedlm_rs"),
        Tool("lme-python", "lme_python"),
        Tool("gpboost", "gpboost"),
        Tool("statsmodels", "statsmodels"),
    )
}
DEFAULT_TOOLS = [name for name in TOOLS if not name.startswith("mixlm-")]


@dataclass
class Measurement:
    """What one tool did on one job.

    Parameters
    ----------
    seconds : of the first call, which pays for what a process does once, then of each turn (the
        median where a quick fit was repeated in its turn).
    status : "ok", "timeout", "unsupported", "error".
    criterion, coefficients, note : of the last fit.
    megabytes : peak resident memory above the process with its data loaded.
    later_megabytes : the same in later calls, above what the first left, where that can be told.
    needed : megabytes that the fit cannot do without, where the tool says so.
    message : why, where the status is not "ok".
    """

    tool: str
    job: str
    seconds: list[float] = field(default_factory=list)
    status: str = "ok"
    criterion: float | None = None
    coefficients: list[float] = field(default_factory=list)
    note: str = ""
    megabytes: float | None = None
    later_megabytes: float | None = None
    needed: float | None = None
    message: str = ""

    @property
    def first(self) -> float | None:
        """Seconds of the first call."""
        return self.seconds[0] if self.seconds else None

    @property
    def later(self) -> float | None:
        """Median seconds of the calls after the first, or of the only one."""
        return statistics.median(self.seconds[1:] or self.seconds) if self.seconds else None

    def as_json(self) -> dict[str, Any]:
        """Return all fields and both times."""
        return {**vars(self), "first_seconds": self.first, "later_seconds": self.later}

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> Measurement:
        """Return the measurement of which `as_json` made this."""
        return cls(**{f.name: stored[f.name] for f in fields(cls)})


class ProcessFailedError(Exception):
    """The process ended or did not start."""


class Session:
    """A process of one tool.

    Parameters
    ----------
    tool : what runs in it.
    threads : of BLAS, OpenMP and numba; None leaves the environment as a user has it, without any
        variable that sets threads.
    peers_python : interpreter that has the other Python packages.
    python : interpreter with this package installed, which is then what runs, not the repository;
        by default this interpreter in the repository.
    environment : more variables.

    Raises
    ------
    ProcessFailedError : it does not start, or lacks the package.
    """

    def __init__(
        self,
        tool: Tool,
        *,
        threads: int | None,
        peers_python: str,
        python: str | None = None,
        environment: dict[str, str] | None = None,
    ) -> None:
        self.tool = tool
        options = json.dumps(
            {**tool.options, **({"threads": threads} if tool.package == "gpboost" else {})}
        )
        if tool.package == "lme4":
            rscript = shutil.which("Rscript")
            if rscript is None:
                raise ProcessFailedError("Rscript is not installed")
            command = [rscript, str(Path(__file__).parent / "lme4_worker.R"), options]
        else:
            own = tool.package == "mixlm_sparse"
            interpreter = (python or sys.executable) if own else peers_python
            command = [interpreter, "-m", "benchmarks.worker", tool.package, options]
        variables = {k: v for k, v in os.environ.items() if k not in THREAD_VARIABLES}
        if threads is not None:
            variables |= dict.fromkeys(THREAD_VARIABLES, str(threads))
        variables |= environment or {}
        folder = str(REPOSITORY)
        if python is not None:
            # a folder with the benchmarks alone, so that the installed package is imported
            self._folder = tempfile.TemporaryDirectory()
            folder = self._folder.name
            os.symlink(REPOSITORY / "benchmarks", Path(folder) / "benchmarks")
            variables.pop("PYTHONPATH", None)
        self._process = subprocess.Popen(
            command,
            cwd=folder,
            env=variables,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self._pending = b""
        ready = self._answer(START_SECONDS)
        if ready is None:
            raise ProcessFailedError(f"{tool.name}: no answer in {START_SECONDS:g} s")
        self.versions: dict[str, str] = ready["versions"]
        if tool.package not in self.versions:
            self.close()
            raise ProcessFailedError("not installed")

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def ask(self, command: dict[str, Any], seconds: float) -> dict[str, Any] | None:
        """Send one command and return the answer, or None (and a dead process) after `seconds`."""
        stdin = self._process.stdin
        assert stdin is not None
        try:
            stdin.write(json.dumps(command).encode() + b"\n")
            stdin.flush()
        except BrokenPipeError as error:
            raise ProcessFailedError(self._epitaph()) from error
        return self._answer(seconds)

    def close(self) -> None:
        """End the process."""
        if self.alive:
            self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                _close_quietly(stream)

    def _answer(self, seconds: float) -> dict[str, Any] | None:
        stdout = self._process.stdout
        assert stdout is not None
        deadline = time.monotonic() + seconds
        while True:
            *lines, self._pending = self._pending.split(b"\n")
            for index, line in enumerate(lines):
                if line.startswith(MARK.encode()):
                    self._pending = b"\n".join([*lines[index + 1 :], self._pending])
                    answer: dict[str, Any] = json.loads(line[len(MARK) :])
                    return answer
            readable, _, _ = select.select([stdout], [], [], max(0.0, deadline - time.monotonic()))
            if not readable:
                self.close()
                return None
            chunk = os.read(stdout.fileno(), 1 << 16)
            if not chunk:
                self._process.wait()
                raise ProcessFailedError(self._epitaph())
            self._pending += chunk

    def _epitaph(self) -> str:
        code = self._process.poll()
        if code is not None and code < 0:
            return f"the process was ended by signal {-code}"
        return f"the process ended with code {code}"


def _close_quietly(stream: IO[bytes]) -> None:
    try:
        stream.close()
    except BrokenPipeError:
        pass


@dataclass(frozen=True)
class Effort:
    """How long to measure.

    Parameters
    ----------
    repetitions : turns after the first call, at most.
    budget : seconds that the calls of one tool on one job may take together; the first call and one
        more are made regardless unless the first alone took longer.
    timeout : seconds after which a call is given up.
    """

    repetitions: int = 7
    budget: float = 20.0
    timeout: float = 300.0


def measure(
    job: Job,
    sessions: dict[str, Session],
    effort: Effort,
    timeouts: dict[str, float] | None = None,
) -> list[Measurement]:
    """Let every session fit `job`, in turns; `timeouts` are for single tools.

    Each turn goes the other way round than the one before: who comes after a tool that fills caches
    or warms a core changes.

    A session whose process ended is left as it is; start another one for the next job.
    """
    results = {name: Measurement(name, job.name) for name in sessions}

    def do(name: str, command: dict[str, Any], seconds: float) -> bool:
        result = results[name]
        try:
            answer = sessions[name].ask(command, seconds)
        except ProcessFailedError as error:
            result.status, result.message = "error", str(error)
            return False
        if answer is None:
            result.status, result.message = "timeout", f"more than {seconds:g} s"
            return False
        for problem in ("unsupported", "error"):
            if problem in answer:
                result.status, result.message = problem, str(answer[problem])
                return False
        if "seconds" in answer:
            result.seconds.append(answer["seconds"])
            result.criterion, result.note = answer["criterion"], answer["note"]
            coefficients = answer["coefficients"]
            result.coefficients = coefficients if isinstance(coefficients, list) else [coefficients]
            peak = answer["megabytes"] or 0.0
            result.megabytes = max(result.megabytes or 0.0, peak)
            if len(result.seconds) > 1:
                result.later_megabytes = max(result.later_megabytes or 0.0, peak)
            if answer.get("needed") is not None:
                result.needed = answer["needed"] / 2**20
        return True

    load = {"do": "load", "job": job.as_json()}
    first, fit = {"do": "fit", "at_least": 0.0}, {"do": "fit", "at_least": QUICK_TURN_SECONDS}
    active = [name for name in sessions if do(name, load, LOAD_SECONDS)]
    for call in range(1 + effort.repetitions):
        active = [
            name
            for name in (reversed(active) if call else active)
            if (call == 0 or _worth_another(results[name], effort))
            and do(name, fit if call else first, (timeouts or {}).get(name, effort.timeout))
        ]
    return list(results.values())


def _worth_another(result: Measurement, effort: Effort) -> bool:
    spent, last = sum(result.seconds), result.seconds[-1]
    if len(result.seconds) == 1:
        return spent <= effort.budget
    return spent + last <= effort.budget
