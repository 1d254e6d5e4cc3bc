"""Time fits with residual structures, beside nlme::gls where R is there.

    python -m benchmarks.residuals             # all workloads, CPU seconds of this process
    python -m benchmarks.residuals --nlme      # and nlme::gls on the trials

Workloads: AR(1) residuals in long groups, with and without a random intercept, and the MMRM
(unstructured by visit, with missed visits).  A fit is made twice; the second counts.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

import mixlm_sparse as mx

PHI = 0.6
NLME = """
library(nlme)
d <- read.csv("{path}", stringsAsFactors = TRUE)
d$k <- as.integer(d$visit)
f <- function() gls(y ~ base + arm * visit, d, correlation = corSymm(form = ~ k | id),
                    weights = varIdent(form = ~ 1 | visit))
invisible(f())
t <- system.time(fit <- f())
cat(sprintf("%.3f %.6f\\n", t[["user.self"]] + t[["sys.self"]], as.numeric(logLik(fit))))
"""


def series(groups: int, rows: int) -> pd.DataFrame:
    """Return groups of equally spaced rows with autoregressive residuals and an intercept each."""
    rng = np.random.default_rng(1)
    e = np.empty((groups, rows))
    e[:, 0] = rng.normal(size=groups)
    for t in range(1, rows):
        e[:, t] = PHI * e[:, t - 1] + np.sqrt(1.0 - PHI**2) * rng.normal(size=groups)
    x = rng.normal(size=groups * rows)
    return pd.DataFrame(
        {
            "g": np.repeat(np.arange(groups), rows),
            "t": np.tile(np.arange(rows), groups),
            "x": x,
            "y": 1.0 + 0.5 * x + e.ravel() + np.repeat(rng.normal(size=groups), rows),
        }
    )


def trial(patients: int, visits: int) -> pd.DataFrame:
    """Return a trial of two arms from which patients drop out."""
    rng = np.random.default_rng(1)
    root = 0.4 * rng.normal(size=(visits, visits)) + np.eye(visits)
    e = rng.normal(size=(patients, visits)) @ root.T
    base = rng.normal(size=patients)
    data = pd.DataFrame(
        {
            "id": np.repeat(np.arange(patients), visits),
            "v": np.tile(np.arange(visits), patients),
            "base": np.repeat(base, visits),
        }
    )
    data["arm"] = np.where(data["id"] % 2 == 0, "placebo", "treated")
    data["visit"] = pd.Categorical([f"V{v:02d}" for v in data["v"]])
    data["y"] = e.ravel() + 0.3 * data["v"] + 0.5 * data["base"]
    last = rng.integers(2, visits + 6, size=patients)
    return data[data["v"] < last[data["id"]]].reset_index(drop=True)


def mmrm(data: pd.DataFrame) -> mx.LinearMixedFit:
    return mx.gls(
        "y ~ base + arm * visit", data, residual=mx.Unstructured("visit", "id"),
        variance=mx.VarIdent("visit"),
    )  # fmt: skip


def timed(fit: Callable[[], mx.LinearMixedFit]) -> tuple[float, mx.LinearMixedFit]:
    """Return the CPU seconds of the second fit."""
    fit()
    began = time.process_time()
    found = fit()
    return time.process_time() - began, found


def nlme(data: pd.DataFrame) -> tuple[float, float]:
    """Return the CPU seconds and the log-likelihood of nlme::gls."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trial.csv"
        data.to_csv(path, index=False)
        done = subprocess.run(
            ["Rscript", "-e", NLME.format(path=path)], capture_output=True, text=True, check=True
        )
    seconds, value = done.stdout.split()
    return float(seconds), float(value)


def main() -> None:
    """Print a line for each workload."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nlme", action="store_true", help="also run nlme::gls")
    beside = parser.parse_args().nlme
    for groups, rows in ((2000, 100), (20_000, 50)):
        data = series(groups, rows)
        residual = mx.AR1(time="t", group="g")
        for name, fit in (
            ("gls", lambda d=data, r=residual: mx.gls("y ~ x", d, residual=r)),
            ("lmer", lambda d=data, r=residual: mx.lmer("y ~ x + (1 | g)", d, residual=r)),
        ):
            seconds, found = timed(fit)
            count = found.optimum.n_evaluations
            print(f"AR(1) {name:<5}{groups * rows:>9,} rows {groups:>7,} groups "
                  f"{seconds:7.2f} s, {count} evaluations", flush=True)  # fmt: skip
    for patients, visits in ((200, 4), (2000, 10)):
        data = trial(patients, visits)
        seconds, found = timed(lambda d=data: mmrm(d))
        line = f"MMRM  {patients:>6,} x {visits:<3} {seconds:8.3f} s"
        if beside and patients <= 200:
            other, value = nlme(data)
            line += f", nlme::gls {other:.2f} s ({other / seconds:.0f} times)"
            line += f", log-likelihoods {found.llf:.4f} and {value:.4f}"
        print(line, flush=True)


if __name__ == "__main__":
    main()
