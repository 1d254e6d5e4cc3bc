"""This package, lme4 and other packages side by side, on the workloads.

python -m benchmarks.compare --only W1,W2 --tools mixlm,lme4
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from benchmarks.processes import (
    DEFAULT_TOOLS,
    TOOLS,
    Effort,
    Measurement,
    ProcessFailedError,
    Session,
    measure,
)
from benchmarks.report import (
    COMPARISON_HEADER,
    RESULTS,
    comparison_picture,
    comparison_rows,
    machine,
    table,
    write_json,
)
from benchmarks.workloads import WORKLOADS, chosen


def add_common_options(parser: argparse.ArgumentParser, tools: list[str]) -> None:
    """Add the options that every comparing command has."""
    parser.add_argument(
        "--tools", default=",".join(tools), help=f"of {', '.join(TOOLS)}; default: %(default)s"
    )
    parser.add_argument("--threads", type=int, default=1, help="of every tool (default 1)")
    parser.add_argument(
        "--repetitions", type=int, default=7, help="turns after the first call, at most"
    )
    parser.add_argument(
        "--budget", type=float, default=20.0, help="seconds for all calls of a tool on a workload"
    )
    parser.add_argument("--timeout", type=float, default=300.0, help="seconds, for one call")
    parser.add_argument(
        "--peers-python",
        default=os.environ.get("MIXLM_PEERS_PYTHON", sys.executable),
        help="interpreter that has the other packages (default: $MIXLM_PEERS_PYTHON, else this)",
    )
    parser.add_argument("--out", type=Path, help="folder of JSON and picture")


def effort_of(arguments: argparse.Namespace) -> Effort:
    """Return what `--repetitions`, `--budget` and `--timeout` say."""
    return Effort(arguments.repetitions, arguments.budget, arguments.timeout)


def timeouts_of(text: str, default: float) -> dict[str, float]:
    """Return tool -> seconds of "lme4=600,statsmodels=60".

    Raises
    ------
    SystemExit : a tool is unknown or a number is none.
    """
    timeouts = dict.fromkeys(TOOLS, default)
    for piece in filter(None, text.split(",")):
        name, _, seconds = piece.partition("=")
        if name not in TOOLS or not seconds.replace(".", "", 1).isdigit():
            raise SystemExit(f"--timeouts takes tool=seconds of known tools, not {piece!r}")
        timeouts[name] = float(seconds)
    return timeouts


def tools_of(text: str) -> list[str]:
    """Return the tools of a list such as "mixlm,lme4".

    Raises
    ------
    SystemExit : a name is not known.
    """
    names = [name.strip() for name in text.split(",")]
    unknown = [name for name in names if name not in TOOLS]
    if unknown:
        raise SystemExit(f"no tool {', '.join(unknown)}; there are {', '.join(TOOLS)}")
    return names


def start_sessions(
    names: list[str], *, threads: int, peers_python: str, say_missing: bool
) -> dict[str, Session]:
    """Start a process of every tool that is installed."""
    sessions = {}
    for name in names:
        try:
            sessions[name] = Session(TOOLS[name], threads=threads, peers_python=peers_python)
        except ProcessFailedError as error:
            if say_missing:
                print(f"{name} left out: {error}", file=sys.stderr)
    return sessions


def show(
    results: list[list[Measurement]],
    environment: dict[str, Any],
    versions: dict[str, str],
    scale: float,
    out: Path,
) -> None:
    """Print the table and draw the picture."""
    rows = [row for job_results in results for row in comparison_rows(job_results)]
    print(table(COMPARISON_HEADER, rows, left=2))
    print("\nratio and criterion: to the first tool that fits; criterion above 0 is worse.")
    scaled = "" if scale == 1 else f"simulated workloads at scale {scale:g}; "
    print(f"{scaled}{environment['processor']}, {environment['threads']} thread(s); {versions}")
    try:
        comparison_picture(
            out / "compare.png",
            results,
            {workload.name: workload.title for workload in WORKLOADS},
            f"{environment['processor']}, {environment['threads']} thread(s)"
            + ("" if scale == 1 else f", scale {scale:g}"),
        )
    except ImportError:
        print("no picture: matplotlib is not installed", file=sys.stderr)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", help="workloads, such as W1,W4 (default: all)")
    parser.add_argument(
        "--scale", type=float, default=1.0, help="of the simulated workloads; 0.1 for a quick look"
    )
    add_common_options(parser, DEFAULT_TOOLS)
    parser.add_argument(
        "--timeouts", default="", help="for single tools, such as lme4=600,statsmodels=60"
    )
    arguments = parser.parse_args()
    workloads, names = chosen(arguments.only), tools_of(arguments.tools)
    timeouts = timeouts_of(arguments.timeouts, arguments.timeout)
    out = arguments.out or RESULTS
    effort = effort_of(arguments)

    results: list[list[Measurement]] = []
    versions: dict[str, str] = {}
    environment = machine(arguments.threads)
    for workload in workloads:
        print(f"{workload.name}: {workload.title}", file=sys.stderr, flush=True)
        job = workload.job(arguments.scale)
        # New processes for every workload: peak memory and what is cached are its own.
        sessions = start_sessions(
            names,
            threads=arguments.threads,
            peers_python=arguments.peers_python,
            say_missing=workload is workloads[0],
        )
        if not sessions:
            raise SystemExit("none of the tools is installed")
        try:
            for session in sessions.values():
                package = session.tool.package
                versions[package] = session.versions[package]
            results.append(
                measure(job, sessions, effort, {name: timeouts[name] for name in sessions})
            )
        finally:
            for session in sessions.values():
                session.close()
        names = [name for name in names if name in sessions]
        write_json(
            out / "compare.json",
            {
                "machine": environment,
                "versions": versions,
                "scale": arguments.scale,
                "results": [m.as_json() for job_results in results for m in job_results],
            },
        )
    show(results, environment, versions, arguments.scale, out)
    print(f"written to {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
