"""Time of one evaluation by structure: the objective, and the objective with its gradient.

    python -m benchmarks.evaluation --only W2,W4 --engines blocked,cholmod

Every engine is asked for the same theta; `lme4` is the function that lmer(devFunOnly = TRUE) gives.
Models with one grouping factor may be evaluated without an engine, and then show equal times.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import threadpoolctl

import mixlm_sparse as mx
from benchmarks.compare import start_sessions
from benchmarks.jobs import Job
from benchmarks.report import RESULTS, duration, machine, table, write_json
from benchmarks.worker import load_frame
from benchmarks.workloads import chosen
from mixlm_sparse.solve.criterion import criterion_and_gradient, profiled_criterion

# W9 and W12 take minutes to generate and add no structure that W7 and W8 do not have.
DEFAULT_WORKLOADS = "W1,W2,W3,W4,W5,W6,W7,W8,W10,W11,W13,W15"
AT_LEAST_SECONDS = 0.2
EVALUATION_TIMEOUT = 300.0  # seconds, for lme4


def median_seconds(evaluate: Callable[[np.ndarray], object], theta: np.ndarray) -> float:
    """Return the median time of evaluations at two thetas in turns, after one that warms up."""
    evaluate(theta)
    times: list[float] = []
    while sum(times) < AT_LEAST_SECONDS or len(times) < 4:
        # A second theta, so that nothing kept from the call before can be used.
        for point in (theta, 1.01 * theta):
            start = time.perf_counter()
            evaluate(point)
            times.append(time.perf_counter() - start)
    return statistics.median(times)


def regular_theta(dev: mx.DevianceFunction) -> np.ndarray:
    """Return a theta inside the bounds: 0.6 on diagonals, 0.1 below."""
    return np.where(np.asarray(dev.lower) == 0, 0.6, 0.1)


def rows_of(job: Job, title: str, engines: list[str], lme4: Any) -> list[dict[str, Any]]:
    """Return one row for every engine, and one for lme4 where its session is given."""
    frame = load_frame(job)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mx.MixedModelWarning)
        matrices = mx.model_matrices(job.formula, frame)
    rows: list[dict[str, Any]] = []

    def add(engine: str, **fields: Any) -> None:
        rows.append({"workload": job.name, "title": title, "engine": engine, **fields})

    theta = None
    for engine in engines:
        start = time.perf_counter()
        try:
            system = mx.penalized_system(matrices, engine=engine)
        except mx.EngineError as error:
            add(engine, message=str(error))
            continue
        setup = time.perf_counter() - start
        dev = mx.DevianceFunction(system, reml=job.reml)
        theta = regular_theta(dev)

        def objective(point: np.ndarray, system: mx.PenalizedSystem = system) -> float:
            return profiled_criterion(point, system, reml=job.reml)

        def both(point: np.ndarray, system: mx.PenalizedSystem = system) -> object:
            return criterion_and_gradient(point, system, reml=job.reml)

        add(
            engine,
            n_theta=theta.size,
            q=system.q,
            setup_seconds=setup,
            objective_seconds=median_seconds(objective, theta),
            gradient_seconds=median_seconds(both, theta),
            criterion=dev(theta),
            structure=system.engine.describe(),
        )
    if lme4 is not None and theta is not None:
        loaded = lme4.ask({"do": "load", "job": job.as_json()}, EVALUATION_TIMEOUT)
        command = {"do": "evaluate", "theta": theta.tolist(), "at_least": AT_LEAST_SECONDS}
        answer = loaded and lme4.ask(command, EVALUATION_TIMEOUT)
        if answer and "evaluation_seconds" in answer:
            seconds, criterion = answer["evaluation_seconds"], answer["criterion"]
            add("lme4", objective_seconds=seconds, criterion=criterion)
        else:
            add("lme4", message=(answer or {}).get("error", "timeout"))
    return rows


def text_rows(rows: list[dict[str, Any]]) -> list[list[str]]:
    """Return the rows of one workload as text; criteria as differences from the first."""
    base = next((row["criterion"] for row in rows if "criterion" in row), None)
    return [
        [
            row["workload"] if row is rows[0] else "",
            row["engine"],
            str(row.get("q", "")),
            str(row.get("n_theta", "")),
            duration(row.get("setup_seconds")),
            duration(row.get("objective_seconds")),
            duration(row.get("gradient_seconds")),
            f"{row['gradient_seconds'] / row['objective_seconds']:.1f}"
            if "gradient_seconds" in row
            else "–",
            f"{row['criterion'] - base:+.1e}" if "criterion" in row else row.get("message", "–"),
        ]
        for row in rows
    ]


HEADER = [
    "workload", "engine", "q", "theta", "set-up", "objective", "with gradient", "ratio",
    "criterion",
]  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", default=DEFAULT_WORKLOADS, help="default: %(default)s")
    parser.add_argument("--scale", type=float, default=1.0, help="of the simulated workloads")
    parser.add_argument("--engines", default="blocked,cholmod,lme4", help="default: %(default)s")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--structure", action="store_true", help="print what engines describe")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the JSON")
    arguments = parser.parse_args()
    engines = arguments.engines.split(",")
    sessions = {}
    if "lme4" in engines:
        engines.remove("lme4")
        sessions = start_sessions(
            ["lme4"], threads=arguments.threads, peers_python=sys.executable, say_missing=True
        )
    rows: list[dict[str, Any]] = []
    lines: list[list[str]] = []
    try:
        with threadpoolctl.threadpool_limits(limits=arguments.threads):
            for workload in chosen(arguments.only):
                print(f"{workload.name}: {workload.title}", file=sys.stderr, flush=True)
                session = sessions.get("lme4")
                if session is not None and not session.alive:
                    session = None
                job = workload.job(arguments.scale)
                new = rows_of(job, workload.title, list(engines), session)
                rows += new
                lines += text_rows(new)
    finally:
        for session in sessions.values():
            session.close()
    print(table(HEADER, lines, left=2))
    if arguments.structure:
        for row in rows:
            if "structure" in row:
                print(f"\n{row['workload']} {row['engine']}: {row['structure']}")
    content = {"machine": machine(arguments.threads), "scale": arguments.scale, "results": rows}
    write_json(arguments.out / "evaluation.json", content)
    print(f"written to {arguments.out / 'evaluation.json'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
