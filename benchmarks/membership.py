"""Time fits of rows in several levels, and of residual groups that cross a factor.

    python -m benchmarks.membership               # all workloads, CPU seconds of this process
    python -m benchmarks.membership --size 0.1    # a tenth of the rows and levels

Pupils in one to three schools, with and without a second, crossed factor; patients with
autoregressive residuals whose raters change.  A fit is made twice; the second counts.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import pandas as pd
import scipy.sparse as sp

import mixlm_sparse as mx


def pupils(n: int, schools: int, neighbours: int) -> tuple[pd.DataFrame, sp.csr_array]:
    """Return pupils and their shares of schools; those who change go to one nearby."""
    rng = np.random.default_rng(1)
    first = rng.integers(schools, size=n)
    moves = np.where(rng.random(n) < 0.3, rng.integers(1, neighbours + 1, n), 0)
    second = (first + moves) % schools
    share = np.where(moves > 0, rng.uniform(0.2, 0.8, n), 1.0)
    rows = np.concatenate([np.arange(n), np.arange(n)])
    columns = np.concatenate([first, second])
    W = sp.csr_array((np.concatenate([share, 1.0 - share]), (rows, columns)), shape=(n, schools))
    x = rng.normal(size=n)
    y = 0.5 * x + W @ rng.normal(size=schools) + rng.normal(size=n)
    return pd.DataFrame({"y": y, "x": x, "area": rng.integers(schools // 4 + 2, size=n)}), W


def patients(n: int, visits: int, raters: int) -> pd.DataFrame:
    """Return patients with autoregressive residuals, rated by whoever is there."""
    rng = np.random.default_rng(1)
    e = np.empty((n, visits))
    e[:, 0] = rng.normal(size=n)
    for t in range(1, visits):
        e[:, t] = 0.6 * e[:, t - 1] + 0.8 * rng.normal(size=n)
    rater = rng.integers(raters, size=n * visits)
    x = rng.normal(size=n * visits)
    return pd.DataFrame(
        {
            "id": np.repeat(np.arange(n), visits),
            "t": np.tile(np.arange(visits), n),
            "rater": rater,
            "x": x,
            "y": 0.5 * x + rng.normal(size=raters)[rater] + e.ravel(),
        }
    )


def timed(fit: Callable[[], mx.LinearMixedFit]) -> tuple[float, mx.LinearMixedFit]:
    """Return the CPU seconds of the second of two fits."""
    fit()
    began = time.process_time()
    found = fit()
    return time.process_time() - began, found


def main() -> None:
    """Print a line for each workload."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=float, default=1.0, help="share of rows and levels")
    size = parser.parse_args().size
    n, schools = round(100_000 * size), max(round(2_000 * size), 20)
    frame, W = pupils(n, schools, 10)
    membership = {"school": mx.membership(W)}
    crossed = patients(max(round(2_000 * size), 50), 8, max(round(60 * size), 6))
    workloads: dict[str, Callable[[], mx.LinearMixedFit]] = {
        f"{n} pupils, {schools} schools": lambda: mx.lmer(
            "y ~ x + (1 | school)", frame, membership=membership
        ),
        f"{n} pupils, {schools} schools, slopes": lambda: mx.lmer(
            "y ~ x + (x | school)", frame, membership=membership
        ),
        f"{n} pupils, {schools} schools and areas": lambda: mx.lmer(
            "y ~ x + (1 | school) + (1 | area)", frame, membership=membership
        ),
        f"{len(crossed)} ratings, AR(1) within patients, raters crossed": lambda: mx.lmer(
            "y ~ x + (1 | rater)", crossed, residual=mx.AR1("t", "id")
        ),
    }
    for name, workload in workloads.items():
        seconds, fit = timed(workload)
        print(f"{name:60s} {seconds:8.2f} s  criterion {fit.criterion:.4f}")


if __name__ == "__main__":
    main()
