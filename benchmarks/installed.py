"""What a user gets, beside the other packages: one command, one table, one picture.

    python -m benchmarks.installed                          # all 15 workloads; half an hour
    python -m benchmarks.installed --only W1,W4,W10 --tools glmm --no-growth
    python -m benchmarks.installed --python env/bin/python --peers-python peers/bin/python --publish

Every tool runs as its user has it: no thread variables, later calls in turns. Columns: the very
first fit with an empty cache of machine code, and the longest of a process that begins so, which is
the one that makes it; then, with what these left in the cache, the first fit of a process and later
ones; this package with one thread, and the ratio of the two; the other packages, and our time over
the best of them; how far our criterion is from the best; peak memory of the first call (with the
libraries that it loads) and of later ones, and what a fit cannot do without: the columns that it
reads and twice the Schur complement. `--busy` lets another process compute beside. `--resume` takes
what a run that was cut short has measured already, of the same state of the code, and measures the
rest.
`--publish` puts the table and the picture of growth into docs/benchmarks.md, with the state of the
code that printed them, and the short table into README.md.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import readme
from benchmarks.compare import timeouts_of, tools_of
from benchmarks.processes import (
    REPOSITORY,
    THREAD_VARIABLES,
    TOOLS,
    Effort,
    Measurement,
    ProcessFailedError,
    Session,
    measure,
)
from benchmarks.report import RESULTS, duration, machine, table, write_json
from benchmarks.workloads import chosen

PEERS = ["lme4", "lme4-noderivs", "glmm", "mixedlm"]
OWN = ("default", "one thread")
BUSY = "while True: sum(range(100000))"
# Fits of a process that begins with an empty cache, and the seconds that they may take.
WARMING, WARMING_SECONDS = 20, 15.0
PAGE = REPOSITORY / "docs" / "benchmarks.md"
PICTURE = REPOSITORY / "docs" / "static" / "growth.png"
BEGIN, END = "<!-- installed: begin -->", "<!-- installed: end -->"


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


def first_ever(
    job: Any, python: str | None, timeout: float, cache: str
) -> tuple[float | None, float | None]:
    """Return the seconds of the first fit with an empty cache of machine code, and of the longest.

    Machine code is made by one of the fits after the first, or by none.
    """
    session = Session(
        TOOLS["mixlm"],
        threads=None,
        peers_python=sys.executable,
        python=python,
        environment={"NUMBA_CACHE_DIR": cache},
    )
    try:
        (found,) = measure(job, {"mixlm": session}, Effort(WARMING, WARMING_SECONDS, timeout))
    finally:
        session.close()
    return found.first, max(found.seconds, default=None)


def sessions_of(
    peers: list[str], arguments: argparse.Namespace, cache: str
) -> dict[str, Session]:
    """Start this package twice, and every other one that is installed."""
    out = {}
    for name, threads in zip(OWN, (None, 1), strict=True):
        out[name] = Session(
            TOOLS["mixlm"],
            threads=threads,
            peers_python=sys.executable,
            python=arguments.python,
            environment={"NUMBA_CACHE_DIR": cache},
        )
    for name in peers:
        with contextlib.suppress(ProcessFailedError):
            out[name] = Session(
                TOOLS[name], threads=None, peers_python=arguments.peers_python
            )
    return out


def later(found: Measurement | None) -> str:
    """Return the time of later calls, or why there is none."""
    if found is None:
        return "–"
    if found.status == "ok":
        return duration(found.later)
    return {"timeout": found.message.replace("more than ", "> ")}.get(found.status, found.status)


def row_of(
    title: str,
    ever: tuple[float | None, float | None],
    results: dict[str, Measurement],
    peers: list[str],
) -> list[str]:
    """Return one row of the table."""
    default, pinned = (results[name] for name in OWN)
    others = [m for name, m in results.items() if name not in OWN and m.status == "ok"]
    times = [m.later for m in others if m.later]
    reached = [m.criterion for m in others if m.criterion is not None]
    memory, after, needed = default.megabytes, default.later_megabytes, default.needed
    return [
        default.job,
        title,
        *map(duration, ever),
        duration(default.first),
        later(default),
        later(pinned),
        ratio(default.later, pinned.later),
        *(later(results.get(name)) for name in peers),
        ratio(default.later, min(times, default=None)),
        "–" if not reached or default.criterion is None
        else f"{default.criterion - min(reached):+.1g}",
        "–" if memory is None else f"{memory:.0f} MB",
        "–" if after is None else f"{after:.0f} MB",
        "–" if needed is None else f"{needed:.0f} MB",
    ]  # fmt: skip


def ratio(above: float | None, below: float | None) -> str:
    """Return a ratio of times as text."""
    return f"{above / below:.2f}" if above and below else "–"


def header_of(peers: list[str]) -> list[str]:
    """Return the heads of the columns."""
    return [
        "workload", "shape", "first ever", "longest", "first call", "later", "one thread",
        "default / one",
        *peers, "later / best peer", "criterion - best peer's", "memory, first",
        "memory, later", "input + 2 Schur",
    ]  # fmt: skip


def state_of_code() -> str:
    """Return the commit that is measured, and whether the files differ from it."""
    def git(*words: str) -> str:
        return subprocess.run(
            ["git", *words], cwd=REPOSITORY, capture_output=True, text=True, check=False
        ).stdout.strip()

    commit = git("log", "-1", "--format=%h of %cs")
    changed = git("status", "--porcelain", "--", "mixlm_sparse")
    return f"commit {commit or 'unknown'}" + (", with changes" if changed else "")


def heading_of(arguments: argparse.Namespace, environment: dict[str, Any], seconds: float) -> str:
    """Say what printed the table."""
    scaled = "" if arguments.scale == 1 else f", simulated workloads at scale {arguments.scale:g}"
    load = environment["load_average"]
    return (
        f"Printed by `python -m benchmarks.installed`, {state_of_code()}, in "
        f"{seconds / 60:.0f} minutes on {environment['processor']}, "
        f"{environment['cores']} cores, Python {environment['python']}, load at the start "
        f"{'unknown' if load is None else format(load, '.1f')}{scaled}"
        + (", beside a busy process" if arguments.busy else "") + "."
    )


def grow(out: Path) -> None:
    """Draw growth in an environment as a user has it."""
    free = {k: v for k, v in os.environ.items() if k not in THREAD_VARIABLES}
    subprocess.run(
        [sys.executable, "-m", "benchmarks.scaling", "--out", str(out)],
        cwd=REPOSITORY, env=free, check=True,
    )  # fmt: skip


def publish(text: str, out: Path) -> None:
    """Put the table and the picture into the page of the documentation.

    Raises
    ------
    SystemExit : the page has no place for it.
    """
    page = PAGE.read_text(encoding="utf-8")
    if BEGIN not in page or END not in page:
        raise SystemExit(f"{PAGE} has no lines {BEGIN} and {END}")
    before, rest = page.split(BEGIN, 1)
    _, after = rest.split(END, 1)
    if (out / "scaling.png").exists():
        PICTURE.parent.mkdir(exist_ok=True)
        PICTURE.write_bytes((out / "scaling.png").read_bytes())
        text += "\n\n![Time against rows, levels, parameters and responses](static/growth.png)"
    PAGE.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}", encoding="utf-8")
    print(f"published in {PAGE}")


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    out = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    out.add_argument("--only", help="workloads, such as W1,W4 (default: all)")
    out.add_argument("--tools", default=",".join(PEERS), help="beside it; default: %(default)s")
    out.add_argument("--scale", type=float, default=1.0, help="of the simulated workloads")
    out.add_argument("--python", help="interpreter that has the package installed")
    out.add_argument(
        "--peers-python",
        default=os.environ.get("MIXLM_PEERS_PYTHON", sys.executable),
        help="interpreter that has the other packages (default: $MIXLM_PEERS_PYTHON, else this)",
    )
    out.add_argument("--busy", action="store_true", help="beside a process that computes")
    out.add_argument("--resume", action="store_true", help="go on with a run that was cut short")
    out.add_argument("--repetitions", type=int, default=7)
    out.add_argument("--budget", type=float, default=20.0, help="seconds for all calls of one")
    out.add_argument("--timeout", type=float, default=120.0, help="seconds, for one call")
    out.add_argument("--timeouts", default="", help="for single tools, such as lme4=600")
    out.add_argument("--no-growth", action="store_true", help="without the picture of growth")
    out.add_argument("--publish", action="store_true", help="write docs/benchmarks.md, README.md")
    out.add_argument("--out", type=Path, default=RESULTS, help="folder of JSON and picture")
    return out


def measured_before(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return what a run that was cut short has written, if this one would measure the same."""
    try:
        content: dict[str, Any] = json.loads((arguments.out / "installed.json").read_text())
    except FileNotFoundError:
        return {}
    wanted = (state_of_code(), arguments.busy, arguments.scale)
    same = tuple(content.get(key) for key in ("state", "busy", "scale")) == wanted
    if not same or "with changes" in wanted[0]:
        raise SystemExit("--resume: what was measured is of another state: run without --resume")
    return content


def measured(
    job: Any,
    peers: list[str],
    arguments: argparse.Namespace,
    effort: Effort,
    timeouts: dict[str, float],
    versions: dict[str, str],
) -> list[dict[str, Any]]:
    """Measure one workload with every tool; note the tools' versions."""
    sessions: dict[str, Session] = {}
    with tempfile.TemporaryDirectory() as cache:
        try:
            ever = first_ever(job, arguments.python, arguments.timeout, cache)
            sessions = sessions_of(peers, arguments, cache)
            for session in sessions.values():
                versions[session.tool.package] = session.versions[session.tool.package]
            limits = {name: timeouts.get(name, arguments.timeout) for name in sessions}
            found = measure(job, sessions, effort, limits)
        except ProcessFailedError as error:
            raise SystemExit(str(error)) from error
        finally:
            for session in sessions.values():
                session.close()
    return [{"first_ever_seconds": ever, **m.as_json()} for m in found]


def main() -> int:
    arguments = parser().parse_args()
    effort = Effort(arguments.repetitions, arguments.budget, arguments.timeout)
    peers = tools_of(arguments.tools) if arguments.tools else []
    timeouts = timeouts_of(arguments.timeouts, arguments.timeout)
    rows: list[list[str]] = []
    before = measured_before(arguments) if arguments.resume else {}
    kept: list[dict[str, Any]] = []
    versions: dict[str, str] = dict(before.get("versions", {}))
    environment, began = before.get("machine") or machine(0), time.monotonic()
    spent = before.get("seconds", 0.0)
    workloads = chosen(arguments.only)
    # all data first: what is missing for one is said before an hour has gone
    jobs = [workload.job(arguments.scale) for workload in workloads]
    with another_process(arguments.busy):
        for workload, job in zip(workloads, jobs, strict=True):
            found = [m for m in before.get("results", []) if m["job"] == workload.name]
            if not found:
                print(f"{workload.name}: {workload.title}", file=sys.stderr, flush=True)
                found = measured(job, peers, arguments, effort, timeouts, versions)
            results = {m["tool"]: Measurement.from_json(m) for m in found}
            rows.append(row_of(workload.title, found[0]["first_ever_seconds"], results, peers))
            kept += found
            seconds = spent + time.monotonic() - began
            content = {
                "machine": environment, "state": state_of_code(), "busy": arguments.busy,
                "versions": versions, "scale": arguments.scale, "seconds": seconds,
                "results": kept,
            }  # fmt: skip
            write_json(arguments.out / "installed.json", content)
    listed = ", ".join(f"{name} {version}" for name, version in versions.items())
    text = "\n\n".join(
        [heading_of(arguments, environment, seconds), listed + ".",
         table(header_of(peers), rows, left=2)]
    )  # fmt: skip
    print(text)
    if not arguments.no_growth:
        grow(arguments.out)
    if arguments.publish:
        publish(text, arguments.out)
        readme.publish(content)
    print(f"written to {arguments.out / 'installed.json'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
