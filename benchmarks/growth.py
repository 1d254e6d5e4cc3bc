"""How the time of a fit grows: with rows at a fixed number of levels, with levels at fixed n/q.

    python -m benchmarks.growth --tools mixlm,lme4 --largest 1e5

Prints times and the slope of log time against log size, and draws both.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.compare import (
    add_common_options,
    effort_of,
    start_sessions,
    tools_of,
)
from benchmarks.jobs import Term
from benchmarks.processes import Measurement, measure
from benchmarks.report import RESULTS, duration, growth_picture, machine, table, write_json
from benchmarks.workloads import Workload, nested_slopes, one_factor, two_crossed

FIXED_LEVELS = 1_000
ROWS_PER_LEVEL = 20


@dataclass(frozen=True)
class Shape:
    """A structure that can have any size.

    Parameters
    ----------
    generate : (rows, levels of the largest factor) -> data.
    """

    name: str
    formula: str
    terms: tuple[Term, ...]
    generate: Callable[[int, int], pd.DataFrame]

    def workload(self, n: int, levels: int) -> Workload:
        """Return the workload of one size."""
        name = f"growth_{self.name.replace(' ', '_')}_{n}_{levels}"
        return Workload(
            name, self.name, self.formula, self.terms, lambda scale: self.generate(n, levels)
        )


SHAPES = (
    Shape(
        "one intercept", "y ~ x + (1 | g)", (Term(("g",)),),
        lambda n, q: one_factor(101, n, q, [], [0.5]),
    ),
    Shape(
        "one slope", "y ~ x + (1 + x | g)", (Term(("g",), ("x",)),),
        lambda n, q: one_factor(102, n, q, [0.4], [0.5]),
    ),
    Shape(
        "two crossed", "y ~ x + (1 | user) + (1 | item)", (Term(("user",)), Term(("item",))),
        lambda n, q: two_crossed(103, n, q, max(4, q // 10)),
    ),
    Shape(
        "nested slopes", "y ~ x + (1 + x | school) + (1 + x | cls)",
        (Term(("school",), ("x",)), Term(("cls",), ("x",))),
        lambda n, q: nested_slopes(104, n, max(4, q // 10), q),
    ),
)  # fmt: skip


def sizes(smallest: float, largest: float) -> list[int]:
    """Return sizes from `smallest` to `largest`, two a decade."""
    count = max(2, 1 + round(2 * np.log10(largest / smallest)))
    return [round(size) for size in np.geomspace(smallest, largest, count)]


def slope(points: list[tuple[int, float]]) -> float | None:
    """Return the least-squares slope of log time against log size of the larger half."""
    points = points[len(points) // 2 - 1 :] if len(points) > 3 else points
    if len(points) < 2:
        return None
    x, y = np.log([size for size, _ in points]), np.log([seconds for _, seconds in points])
    return float(np.polyfit(x, y, 1)[0])


Curves = dict[str, list[tuple[int, float]]]  # tool -> (size, seconds)


def measure_shape(
    shape: Shape,
    points: list[tuple[int, int, int]],
    names: list[str],
    arguments: argparse.Namespace,
) -> tuple[Curves, list[Measurement]]:
    """Time one shape at every (rows, levels, size); a tool that failed does not go on."""
    curves: Curves = {}
    measurements: list[Measurement] = []
    active = list(names)
    for n, levels, size in points:
        print(f"{shape.name}: {n} rows, {levels} levels", file=sys.stderr, flush=True)
        sessions = start_sessions(
            active,
            threads=arguments.threads,
            peers_python=arguments.peers_python,
            say_missing=size == points[0][2],
        )
        try:
            found = measure(shape.workload(n, levels).job(), sessions, effort_of(arguments))
        finally:
            for session in sessions.values():
                session.close()
        measurements += found
        for result in found:
            if result.status == "ok" and result.later is not None:
                curves.setdefault(result.tool, []).append((size, result.later))
        # What gave up or failed would do so at the next size too.
        active = [result.tool for result in found if result.status == "ok"]
    return curves, measurements


def curve_rows(axis: str, shape: str, curves: Curves) -> list[list[str]]:
    """Return a row of text for every tool."""
    rows = []
    for tool, curve in curves.items():
        steep = slope(curve)
        (low, at_low), (high, at_high) = curve[0], curve[-1]
        exponent = "–" if steep is None else f"{steep:.2f}"
        rows.append(
            [axis, shape, tool, f"{low}", duration(at_low), f"{high}", duration(at_high), exponent]
        )
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--largest", type=float, default=1e6, help="rows (default 1e6)")
    parser.add_argument(
        "--shapes", default=",".join(s.name for s in SHAPES), help="default: %(default)s"
    )
    add_common_options(parser, ["mixlm", "lme4"])
    parser.set_defaults(repetitions=3, budget=10.0, timeout=120.0)
    arguments = parser.parse_args()
    known = {shape.name: shape for shape in SHAPES}
    wanted = [name.strip() for name in arguments.shapes.split(",")]
    if unknown := [name for name in wanted if name not in known]:
        raise SystemExit(f"no shape {', '.join(unknown)}; there are {', '.join(known)}")
    names, out = tools_of(arguments.tools), arguments.out or RESULTS
    rows_axis = sizes(5 * FIXED_LEVELS, arguments.largest)
    levels_axis = sizes(100, arguments.largest / ROWS_PER_LEVEL)
    series = [
        (f"rows, {FIXED_LEVELS} levels", [(n, FIXED_LEVELS, n) for n in rows_axis]),
        (f"levels, {ROWS_PER_LEVEL} rows each", [(q * ROWS_PER_LEVEL, q, q) for q in levels_axis]),
    ]
    results: dict[str, dict[str, Curves]] = {}
    measurements: list[Measurement] = []
    lines = []
    for axis, points in series:
        for shape in (known[name] for name in wanted):
            curves, found = measure_shape(shape, points, names, arguments)
            measurements += found
            results.setdefault(axis, {})[shape.name] = curves
            lines += curve_rows(axis, shape.name, curves)
    header = ["against", "shape", "tool", "from", "time", "to", "time", "exponent"]
    print(table(header, lines, left=3))
    write_json(
        out / "growth.json",
        {
            "machine": machine(arguments.threads),
            "curves": results,
            "results": [m.as_json() for m in measurements],
        },
    )
    try:
        growth_picture(Path(out) / "growth.png", results)
    except ImportError:
        print("no picture: matplotlib is not installed", file=sys.stderr)
    print(f"written to {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
