"""What a user gets: the default environment beside one thread, and the first call ever.

    python -m benchmarks.installed --only W1,W4,W10
    python -m benchmarks.installed --python env/bin/python --busy

Columns: the very first fit with an empty cache of machine code, the first fit of a process, later
fits in the default environment (no thread variables) and with one thread, in turns, their ratio,
and peak memory. `--busy` lets another process compute beside.
"""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.processes import TOOLS, Effort, Measurement, ProcessFailedError, Session, measure
from benchmarks.report import RESULTS, duration, machine, table, write_json
from benchmarks.workloads import chosen

HEADER = [
    "workload", "shape", "first ever", "first call", "later", "one thread", "ratio", "memory",
]  # fmt: skip
BUSY = "while True: sum(range(100000))"


@contextlib.contextmanager
def another_process(wanted: bool) -> Iterator[None]:
    """Let another process compute meanwhile."""
    if not wanted:
        yield
        return
    process = subprocess.Popen([sys.executable, "-c", BUSY])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def first_ever(job: Any, python: str | None, timeout: float) -> float | None:
    """Return the seconds of the first fit with an empty cache of machine code."""
    with tempfile.TemporaryDirectory() as cache:
        session = Session(
            TOOLS["mixlm"],
            threads=None,
            peers_python=sys.executable,
            python=python,
            environment={"NUMBA_CACHE_DIR": cache},
        )
        try:
            (found,) = measure(job, {"mixlm": session}, Effort(0, timeout, timeout))
        finally:
            session.close()
    return found.first


def row_of(title: str, ever: float | None, default: Measurement, pinned: Measurement) -> list[str]:
    """Return one row of the table."""
    ratio = f"{default.later / pinned.later:.2f}" if default.later and pinned.later else "–"
    return [
        default.job,
        title,
        duration(ever),
        duration(default.first),
        duration(default.later) if default.status == "ok" else default.status,
        duration(pinned.later) if pinned.status == "ok" else pinned.status,
        ratio,
        "–" if default.megabytes is None else f"{default.megabytes:.0f} MB",
    ]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", help="workloads, such as W1,W4 (default: all)")
    parser.add_argument("--scale", type=float, default=1.0, help="of the simulated workloads")
    parser.add_argument("--python", help="interpreter that has the package installed")
    parser.add_argument("--busy", action="store_true", help="beside a process that computes")
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--budget", type=float, default=20.0, help="seconds for all calls of one")
    parser.add_argument("--timeout", type=float, default=300.0, help="seconds, for one call")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the JSON")
    arguments = parser.parse_args()
    effort = Effort(arguments.repetitions, arguments.budget, arguments.timeout)
    rows: list[list[str]] = []
    results: list[dict[str, Any]] = []
    environment = machine(0)
    with another_process(arguments.busy):
        for workload in chosen(arguments.only):
            print(f"{workload.name}: {workload.title}", file=sys.stderr, flush=True)
            job = workload.job(arguments.scale)
            ever = first_ever(job, arguments.python, arguments.timeout)
            sessions = {}
            try:
                for name, threads in (("default", None), ("one thread", 1)):
                    sessions[name] = Session(
                        TOOLS["mixlm"],
                        threads=threads,
                        peers_python=sys.executable,
                        python=arguments.python,
                    )
                default, pinned = measure(job, sessions, effort)
            except ProcessFailedError as error:
                raise SystemExit(str(error)) from error
            finally:
                for session in sessions.values():
                    session.close()
            rows.append(row_of(workload.title, ever, default, pinned))
            results += [
                {"first_ever_seconds": ever, "environment": name, **found.as_json()}
                for name, found in (("default", default), ("one thread", pinned))
            ]
            content = {"machine": environment, "busy": arguments.busy, "results": results}
            write_json(arguments.out / "installed.json", content)
    print(table(HEADER, rows, left=2))
    print(f"\nratio: default environment to one thread. {environment['processor']}, "
          f"{environment['cores']} cores" + (", beside a busy process" if arguments.busy else ""))
    print(f"written to {arguments.out / 'installed.json'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
