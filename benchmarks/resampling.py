"""Time predictions, simulation and resampling beside lme4's predict, bootMer and PBmodcomp.

    python -m benchmarks.resampling                   # everything; lme4 where Rscript has it
    python -m benchmarks.resampling --scale 0.1       # a tenth of the replicates
    python -m benchmarks.resampling --json out.json --no-r

Both run on one BLAS thread and one process, one after the other; the table shows seconds for one
replicate (or for the task), and the ratio.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    # before numpy is imported
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import pandas as pd

import mixlm_sparse as mx

TASKS = {
    "simulate_sleepstudy": "sleepstudy: simulate, one response",
    "boot_sleepstudy": "sleepstudy: parametric bootstrap, one refit",
    "many_sleepstudy": "sleepstudy: many responses, one fit",
    "many_sleepstudy_two": "sleepstudy: many responses, two processes, one fit",
    "pb_sleepstudy": "sleepstudy: PB test, one simulation",
    "predict_insteval": "InstEval: predict 1,000,000 new rows",
    "predict_se_insteval": "InstEval: the same with standard errors",
    "warm_insteval": "InstEval: one warm refit",
    "boot_insteval": "InstEval: parametric bootstrap, one refit",
}


def seconds(task: Callable[[], object]) -> float:
    """Return the seconds that a call takes."""
    began = time.perf_counter()
    task()
    return time.perf_counter() - began


def ours(scale: float) -> dict[str, float]:
    """Return the seconds of every task here."""
    out: dict[str, float] = {}
    sleepstudy = mx.datasets.load("sleepstudy")
    formula = "Reaction ~ Days + (Days | Subject)"
    small = mx.lmer(formula, sleepstudy)
    n = max(3, round(1000 * scale))
    # the first bootstrap pays for loading compiled code; that is part of it
    out["boot_sleepstudy"] = seconds(lambda: small.bootstrap(n, seed=1)) / n
    out["simulate_sleepstudy"] = seconds(lambda: small.simulate(1000, seed=1)) / 1000
    r = max(3, round(10_000 * scale))
    Y = small.simulate(r, seed=2)
    out["many_sleepstudy"] = seconds(lambda: mx.lmer_many(formula, sleepstudy, Y)) / r
    out["many_sleepstudy_two"] = (
        seconds(lambda: mx.lmer_many(formula, sleepstudy, Y, n_jobs=2)) / r
    )
    null = mx.lmer("Reaction ~ 1 + (Days | Subject)", sleepstudy, control=mx.Control(warn=False))
    n = max(3, round(200 * scale))
    out["pb_sleepstudy"] = seconds(lambda: mx.pb_modcomp(small, null, nsim=n, seed=1)) / n

    data = mx.datasets.load("InstEval")
    big = mx.lmer("y ~ service + (1 | s) + (1 | d)", data)
    rng = np.random.default_rng(1)
    new = pd.DataFrame(
        {name: data[name].array.take(rng.integers(len(data), size=10**6))
         for name in ("service", "s", "d")}
    )  # fmt: skip
    out["predict_insteval"] = seconds(lambda: big.predict(new))
    out["predict_se_insteval"] = seconds(lambda: big.predict(new, se=True))
    n = max(3, round(20 * scale))
    responses = big.simulate(n, seed=1)
    out["warm_insteval"] = seconds(lambda: [big.refit(y) for y in responses.T]) / n
    out["boot_insteval"] = seconds(lambda: big.bootstrap(n, seed=1)) / n
    return out


def theirs(scale: float) -> dict[str, Any] | None:
    """Return the seconds of lme4, None where it is not installed."""
    rscript = shutil.which("Rscript")
    if rscript is None:
        return None
    script = Path(__file__).with_suffix(".R")
    done = subprocess.run(
        [rscript, str(script), str(scale)],
        capture_output=True,
        text=True,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        check=False,
    )
    if done.returncode:
        print(f"lme4 did not run: {done.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
        return None
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def table(mine: dict[str, float], lme4: dict[str, Any] | None) -> str:
    """Return the comparison as text."""
    lines = [f"{'task':52s} {'mixlm_sparse':>13s} {'lme4':>10s} {'ratio':>7s}"]
    for name, what in TASKS.items():
        other = None if lme4 is None else lme4.get(name)
        shown = "-" if other is None else f"{other:10.4g}"
        ratio = "-" if other is None else f"{other / mine[name]:7.1f}"
        lines.append(f"{what:52s} {mine[name]:13.4g} {shown:>10s} {ratio:>7s}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scale", type=float, default=1.0, help="share of the replicates, 0 to 1")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--no-r", action="store_true", help="leave lme4 out")
    options = parser.parse_args()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mx.MixedModelWarning)
        mine = ours(options.scale)
    lme4 = None if options.no_r else theirs(options.scale)
    print(table(mine, lme4))
    if options.json:
        options.json.write_text(json.dumps({"mixlm_sparse": mine, "lme4": lme4}, indent=1))


if __name__ == "__main__":
    main()
