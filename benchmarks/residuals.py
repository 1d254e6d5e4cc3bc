"""Time fits with covariance structures, beside nlme::gls and glmmTMB where R is there.

    python -m benchmarks.residuals             # all workloads, CPU seconds of this process
    python -m benchmarks.residuals --peers     # and nlme::gls and glmmTMB on the smaller ones

Workloads: AR(1) residuals in long groups, with and without a random intercept; the MMRM
(unstructured by visit, with missed visits); the animal model of a pedigree.  A fit is made twice;
the second counts.
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
IN_R = """
suppressMessages(library({package}))
d <- read.csv("{path}", stringsAsFactors = TRUE)
{prepare}
f <- function() {call}
invisible(f())
t <- system.time(fit <- f())
cat(sprintf("%.3f %.6f\\n", t[["user.self"]] + t[["sys.self"]], as.numeric(logLik(fit))))
"""
MMRM_IN_R = {
    "nlme": (
        "d$k <- as.integer(d$visit)",
        "gls(y ~ base + arm * visit, d, correlation = corSymm(form = ~ k | id), "
        "weights = varIdent(form = ~ 1 | visit))",
    ),
    "glmmTMB": (
        "",
        "glmmTMB(y ~ base + arm * visit + us(0 + visit | id), d, REML = TRUE, dispformula = ~ 0)",
    ),
}
SERIES_IN_R = {
    "nlme": ("", "gls(y ~ x, d, correlation = corAR1(form = ~ t | g))"),
    "glmmTMB": (
        "d$time <- factor(d$t); d$g <- factor(d$g)",
        "glmmTMB(y ~ x + ar1(0 + time | g), d, REML = TRUE, dispformula = ~ 0)",
    ),
}


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


def pedigree(animals: int) -> tuple[pd.DataFrame, float]:
    """Return records of a pedigree's animals, with the CPU seconds of the pedigree in attrs."""
    rng = np.random.default_rng(1)
    founders = animals // 10
    sire, dam = np.full(animals, -1), np.full(animals, -1)
    born = np.arange(founders, animals)
    sire[founders:] = 2 * rng.integers(0, born // 2)
    dam[founders:] = 2 * rng.integers(0, born // 2) + 1
    value = rng.normal(size=animals)
    for i in born.tolist():
        middle = 0.5 * (value[sire[i]] + value[dam[i]])
        value[i] = middle + np.sqrt(0.5) * value[i]
    names = np.array([f"a{i}" for i in range(animals)], dtype=object)
    known = [np.where(parent >= 0, names[parent], None) for parent in (sire, dam)]
    began = time.process_time()
    tree = mx.Pedigree(names, *known)
    seconds = time.process_time() - began
    data = pd.DataFrame({"animal": names, "herd": rng.integers(0, animals // 100, animals)})
    data["y"] = value + rng.normal(size=animals // 100)[data["herd"]] + rng.normal(size=animals)
    data.attrs["pedigree"] = tree
    return data, seconds


def beside(data: pd.DataFrame, seconds: float, calls: dict[str, tuple[str, str]]) -> str:
    """Return CPU seconds and log-likelihoods of packages of R, as text."""
    out = ""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.csv"
        data.to_csv(path, index=False)
        for package, (prepare, call) in calls.items():
            script = IN_R.format(package=package, path=path, prepare=prepare, call=call)
            done = subprocess.run(["Rscript", "-e", script], capture_output=True, text=True)
            if done.returncode:
                reason = done.stderr.strip().splitlines()
                out += f"\n    {package}: not run ({reason[-1] if reason else 'no reason'})"
                continue
            other, value = (float(piece) for piece in done.stdout.split()[-2:])
            out += f"\n    {package}: {other:.2f} s ({other / seconds:.0f} times), llf {value:.4f}"
    return out


def main() -> None:
    """Print a line for each workload."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers", action="store_true", help="also run nlme::gls and glmmTMB")
    parser.add_argument("--animals", type=float, default=1e5, help="of the pedigree; 0 for none")
    options = parser.parse_args()
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
    data = series(100, 20)
    seconds, found = timed(lambda: mx.gls("y ~ x", data, residual=mx.AR1(time="t", group="g")))
    line = f"AR(1) gls      2,000 rows     100 groups {seconds:7.3f} s, llf {found.llf:.4f}"
    print(line + (beside(data, seconds, SERIES_IN_R) if options.peers else ""), flush=True)
    for patients, visits in ((200, 4), (2000, 10)):
        data = trial(patients, visits)
        seconds, found = timed(lambda d=data: mmrm(d))
        line = f"MMRM  {patients:>6,} x {visits:<3} {seconds:8.3f} s"
        line += f", llf {found.llf:.4f}"
        if options.peers and patients <= 200:
            line += beside(data, seconds, MMRM_IN_R)
        print(line, flush=True)
    if options.animals:
        data, first = pedigree(int(options.animals))
        tree = {"animal": data.attrs["pedigree"]}
        formula = "y ~ 1 + (1 | animal) + (1 | herd)"
        seconds, found = timed(lambda: mx.lmer(formula, data, known=tree))
        print(f"Pedigree {len(data):>9,} animals {first:7.2f} s, fit {seconds:.2f} s, "
              f"{found.optimum.n_evaluations} evaluations")  # fmt: skip


if __name__ == "__main__":
    main()
