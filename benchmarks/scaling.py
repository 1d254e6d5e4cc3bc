"""How time grows with rows, levels, parameters and responses, as a user has it.

    python -m benchmarks.scaling --largest 1e6

Each point is the median of later calls in this process, with all machine code made; draws four
panels.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.growth import slope
from benchmarks.report import RESULTS, duration, machine, table, write_json
from benchmarks.workloads import one_factor, two_crossed

Curve = list[tuple[int, float]]
LEVELS, ROWS_PER_LEVEL = 1_000, 20


def seconds(work: Callable[[], object]) -> float:
    """Return the median time of later calls, three or as many as take a second."""
    work()
    times: list[float] = []
    while len(times) < 3 or (sum(times) < 1.0 and len(times) < 20):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
        if sum(times) > 20.0:
            break
    return statistics.median(times)


def fit(formula: str, data: pd.DataFrame) -> Callable[[], object]:
    import mixlm_sparse as mx

    return lambda: mx.lmer(formula, data)


def points(smallest: float, largest: float) -> list[int]:
    """Return sizes, two a decade."""
    count = max(2, 1 + round(2 * np.log10(largest / smallest)))
    return [round(size) for size in np.geomspace(smallest, largest, count)]


def curves_of(largest: float) -> dict[str, dict[str, Curve]]:
    """Measure: axis -> shape -> (size, seconds)."""
    import mixlm_sparse as mx

    out: dict[str, dict[str, Curve]] = {}

    def note(axis: str, shape: str, size: int, work: Callable[[], object]) -> None:
        print(f"{axis}: {shape}, {size}", file=sys.stderr, flush=True)
        out.setdefault(axis, {}).setdefault(shape, []).append((size, seconds(work)))

    intercept, slopes = "y ~ x + (1 | g)", "y ~ x + (x | g)"
    crossed = "y ~ x + (1 | user) + (1 | item)"
    axis = f"rows ({LEVELS} levels)"
    for n in points(5 * LEVELS, largest):
        note(axis, "one intercept", n, fit(intercept, one_factor(1, n, LEVELS, [], [0.5])))
        note(axis, "one slope", n, fit(slopes, one_factor(2, n, LEVELS, [0.4], [0.5])))
        note(axis, "two crossed", n, fit(crossed, two_crossed(3, n, LEVELS, 100)))
    axis = f"levels ({ROWS_PER_LEVEL} rows each)"
    for q in points(100, largest / ROWS_PER_LEVEL):
        n = q * ROWS_PER_LEVEL
        note(axis, "one intercept", q, fit(intercept, one_factor(1, n, q, [], [0.5])))
        note(axis, "one slope", q, fit(slopes, one_factor(2, n, q, [0.4], [0.5])))
        note(axis, "two crossed", q, fit(crossed, two_crossed(3, n, q, max(4, q // 10))))
    axis = "parameters of one term"
    rng = np.random.default_rng(4)
    n = 20_000
    x = {f"x{i + 1}": rng.normal(size=n) for i in range(8)}
    g = rng.integers(400, size=n)
    y = rng.normal(size=n) + sum(0.4 * rng.normal(size=400)[g] * v for v in x.values())
    data = pd.DataFrame({**x, "y": y + rng.normal(size=400)[g], "g": g})
    for k in range(1, 9):
        terms = " + ".join(list(x)[: k - 1]) or "1"
        formula = f"y ~ {terms} + ({terms} | g)"
        note(axis, f"400 levels, {n:,} rows", k * (k + 1) // 2, fit(formula, data))
    axis = "responses"
    sleep = mx.datasets.load("sleepstudy")
    start = mx.lmer("Reaction ~ Days + (Days | Subject)", sleep)
    # the machine code of many searches is made once for a machine: no point of the curve has it
    mx.lmer_many("~ Days + (Days | Subject)", sleep, start.simulate(6_000, seed=2))
    for r in points(10, 10_000):
        Y = start.simulate(r, seed=1)
        note(axis, "sleepstudy", r, lambda Y=Y: mx.lmer_many("~ Days + (Days | Subject)", sleep, Y))
    return out


def picture(path: Path, curves: dict[str, dict[str, Curve]]) -> None:
    """Draw one panel an axis.

    Raises
    ------
    ImportError : matplotlib is not installed.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.0 * len(curves), 3.2), layout="constrained")
    for axes, (axis, shapes) in zip(figure.subplots(1, len(curves)), curves.items(), strict=True):
        for mark, (shape, curve) in zip("osD^", shapes.items(), strict=False):
            axes.plot(*zip(*curve, strict=True), marker=mark, ms=4, label=shape)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel(axis, fontsize=8)
        axes.grid(color="#e5e5e5")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(fontsize=7, frameon=False)
        axes.tick_params(labelsize=8)
    figure.supylabel("seconds", fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--largest", type=float, default=1e6, help="rows (default 1e6)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of JSON and picture")
    arguments = parser.parse_args()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        curves = curves_of(arguments.largest)
    rows = []
    for axis, shapes in curves.items():
        for shape, curve in shapes.items():
            steep = slope(curve)
            (low, at_low), (high, at_high) = curve[0], curve[-1]
            rows.append([axis, shape, f"{low}", duration(at_low), f"{high}", duration(at_high),
                         "–" if steep is None else f"{steep:.2f}"])  # fmt: skip
    print(table(["against", "shape", "from", "time", "to", "time", "exponent"], rows, left=2))
    write_json(arguments.out / "scaling.json", {"machine": machine(0), "curves": curves})
    try:
        picture(arguments.out / "scaling.png", curves)
    except ImportError:
        print("no picture: matplotlib is not installed", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
