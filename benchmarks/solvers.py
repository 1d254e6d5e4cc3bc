"""Map of solvers: users x items, degrees as in real ratings; seconds and memory by engine.

    python -m benchmarks.solvers                    # up to 10^5 x 10^4 levels and 10^6 ratings
    python -m benchmarks.solvers --size 0.1         # a tenth of the levels and of the ratings
    python -m benchmarks.solvers --large            # also 10^6 x 10^5 levels, 3 x 10^7 ratings
    python -m benchmarks.solvers --large --engine krylov
    python -m benchmarks.solvers --fit 160000 60000 25e6 --engine krylov     # one whole fit

The model is y ~ x + (1 | user) + (1 | item).  Every cell runs in a fresh process: the products are
formed, then the criterion with its gradient is evaluated twice at theta = (.5, .5), and the second
one counts (processor seconds).  Memory is what the peak of the process rises by beside the data and
their products; about 55 MB of it are machine code.
What does not fit, or takes longer than --limit seconds, is left blank.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.report import RESULTS, machine, table, write_json

ENGINES = ("blocked", "sparse", "krylov")
# users, items, ratings
CELLS = (
    (1_000, 100, 30_000),
    (1_000, 1_000, 30_000),
    (10_000, 100, 100_000),
    (10_000, 1_000, 100_000),
    (10_000, 1_000, 1_000_000),
    (10_000, 4_000, 1_000_000),
    (30_000, 10_000, 1_000_000),
    (100_000, 10_000, 1_000_000),
)
# ... and those of --large, in which a dense matrix of the items takes 0.8, 29 and 80 GB
LARGE = (
    (100_000, 10_000, 10_000_000),
    (160_000, 60_000, 25_000_000),
    (1_000_000, 100_000, 10_000_000),
    (1_000_000, 100_000, 30_000_000),
)
LEAST_RATINGS = 5  # of a user, at most: real collections leave out users with few
HEAD, SLOPE = 0.005, 2.07  # popularity of items: (rank + HEAD items)^-SLOPE


def ratings(n: int, users: int, items: int, seed: int = 0) -> pd.DataFrame:
    """Draw ratings: every user some, a few very many; items by a shifted power law.

    The shares are those of a public collection of 25 million film ratings: the most popular of
    59,047 films has a third of a per cent of all ratings, one in the middle six.
    """
    rng = np.random.default_rng(seed)
    n = min(n, users * items // 2)
    least = min(LEAST_RATINGS, n // users)
    activity = np.cumsum(rng.lognormal(0.0, 1.3, users))
    popular = np.cumsum((np.arange(items) + max(HEAD * items, 1.0)) ** -SLOPE)

    def drawn(cumulated: np.ndarray, size: int) -> np.ndarray:
        return np.searchsorted(cumulated, rng.uniform(high=cumulated[-1], size=size), side="right")

    # every user and every item has a rating
    user = np.concatenate([np.repeat(np.arange(users), least), drawn(activity, items)])
    item = np.concatenate([drawn(popular, least * users), rng.permutation(items)])
    key = np.unique(user * items + item)
    share = 1.3
    while key.size < n:  # a user rates an item once: popular ones are soon rated by all
        more = int(share * (n - key.size)) + 100
        share *= 2.0
        key = np.unique(np.concatenate([key, drawn(activity, more) * items + drawn(popular, more)]))
    if key.size > n:
        key = np.sort(rng.choice(key, n, replace=False))
    frame = pd.DataFrame(
        {"user": (key // items).astype(np.int32), "item": (key % items).astype(np.int32)}
    )
    x = rng.normal(size=key.size)
    frame["x"] = x
    frame["y"] = (
        3.5
        + 0.1 * x
        + (0.45 * rng.normal(size=users))[frame["user"]]
        + (0.5 * rng.normal(size=items))[frame["item"]]
        + 0.9 * rng.normal(size=key.size)
    )
    return frame


FORMULA = "y ~ x + (1 | user) + (1 | item)"


def peak() -> float:
    """Return the peak memory of this process so far, in bytes."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0


def evaluate(engine: str, users: int, items: int, n: int) -> dict[str, float]:
    """Form the products, evaluate criterion and gradient twice; runs in a process of its own."""
    import time

    import mixlm_sparse as mx
    from mixlm_sparse.solve.criterion import criterion_and_gradient

    frame = ratings(n, users, items)
    products = time.process_time()
    matrices = mx.model_matrices(FORMULA, frame)
    system = mx.penalized_system(matrices, engine="krylov")
    products = time.process_time() - products
    before = peak()
    began = time.process_time()
    if engine != "krylov":
        system = mx.penalized_system(matrices, engine=engine, cross=system.cross)
    symbolic = time.process_time() - began
    theta = np.full(system.n_theta, 0.5)
    criterion_and_gradient(theta, system)  # compilation, buffers
    wall, cpu = time.perf_counter(), time.process_time()
    value, _ = criterion_and_gradient(theta * 1.01, system)
    found = {
        "seconds": time.process_time() - cpu,
        "wall": time.perf_counter() - wall,
        "symbolic": symbolic,
        "products": products,
        "peak": peak(),
        "memory": max(peak() - before, 0.0),
        "criterion": value,
        "ratings": float(len(frame)),
        "fill": float(system.engine.fill),
    }
    if engine == "krylov":
        found["criterion_error"] = system.engine.logdet_error  # type: ignore[attr-defined]
    return found


def fit(engine: str, users: int, items: int, n: int) -> dict[str, float]:
    """Make and fit ratings, and say what it took; in this process."""
    import time

    import mixlm_sparse as mx

    frame = ratings(n, users, items)
    levels = f"{frame['user'].nunique()} x {frame['item'].nunique()}"
    print(f"{len(frame)} ratings, {levels}", flush=True)
    before = peak()
    wall, cpu = time.perf_counter(), time.process_time()

    def progress(evaluation: int, criterion: float, theta: np.ndarray) -> None:
        passed = time.perf_counter() - wall
        print(f"{passed:8.1f} s  {evaluation:3d}  {criterion:.4f}  {theta}", flush=True)

    found = mx.lmer(FORMULA, frame, engine=engine, progress=progress)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(found.varcorr, found.fixef, found.convergence, sep="\n", flush=True)
    return {
        "wall": wall, "cpu": cpu, "peak": peak(), "before": before,
        "criterion": found.criterion, "ratings": float(len(frame)),
        "evaluations": float(found.optimum.n_evaluations),
        "criterion_error": found.convergence.criterion_error,
    }  # fmt: skip


def cell(engine: str, users: int, items: int, n: int, limit: float) -> dict[str, float] | None:
    """Return what one engine takes, None if it cannot or takes too long."""
    call = f"print(json.dumps(evaluate({engine!r}, {users}, {items}, {n})))"
    code = f"import json\nfrom benchmarks.solvers import evaluate\n{call}"
    try:
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=limit
        )
    except subprocess.TimeoutExpired:
        return None
    if done.returncode:
        print(done.stderr.strip().splitlines()[-1], file=sys.stderr)
        return None
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def picture(rows: list[dict[str, object]], path: Path) -> None:
    """Draw seconds and memory against items: engines by color, numbers of ratings by mark."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9.0, 3.6), dpi=150, layout="constrained")
    colors = dict(zip(ENGINES, ("#0072b2", "#e69f00", "#009e73"), strict=True))
    measured = [row for row in rows if row["seconds"] is not None]
    sizes = sorted({int(row["n"]) for row in measured})  # type: ignore[call-overload]
    marks = {n: "os^Dv<>"[i % 7] for i, n in enumerate(sizes)}
    for row in measured:
        place = float(row["items"])  # type: ignore[arg-type]
        style = {"color": colors[str(row["engine"])], "marker": marks[int(row["n"])], "s": 26}  # type: ignore[call-overload]
        # what was not measured is left out; less than a MB cannot be told
        for ax, name, unit, least in zip(
            axes, ("seconds", "memory"), (1.0, 1e6), (1e-3, 1.0), strict=True
        ):
            if row.get(name) is not None:
                ax.scatter(place, max(float(row[name]) / unit, least), **style)  # type: ignore[arg-type]
    for ax, text in zip(axes, ("processor seconds an evaluation", "memory, MB"), strict=True):
        ax.set(xscale="log", yscale="log", xlabel="levels of the smaller factor", ylabel=text)
        ax.spines[["top", "right"]].set_visible(False)
    for engine, color in colors.items():
        axes[0].scatter([], [], color=color, marker="o", label=engine)
    for n, mark in marks.items():
        axes[0].scatter([], [], color="0.4", marker=mark, label=f"{n:,} ratings")
    axes[0].legend(frameon=False, fontsize=8)
    figure.savefig(path)
    plt.close(figure)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", type=float, default=1.0, help="share of levels and ratings")
    parser.add_argument("--large", action="store_true", help="the large cells as well")
    parser.add_argument("--limit", type=float, default=1800.0, help="seconds a cell may take")
    parser.add_argument("--engine", choices=ENGINES, help="one engine alone")
    parser.add_argument("--fit", nargs=3, type=float, metavar=("USERS", "ITEMS", "RATINGS"))
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    about = {"machine": machine(os.cpu_count() or 1)}
    if options.fit:
        users, items, n = (int(value) for value in options.fit)
        found = fit(options.engine or "krylov", users, items, n)
        print(json.dumps(found))
        write_json(options.out / "solvers_fit.json", {**about, **found})
        return
    engines = (options.engine,) if options.engine else ENGINES
    rows: list[dict[str, object]] = []
    if options.engine and (options.out / "solvers.json").exists():  # others stay as they were
        kept = json.loads((options.out / "solvers.json").read_text())["rows"]
        rows = [row for row in kept if row["engine"] != options.engine]
    lines = []
    for cell_size in (*CELLS, *LARGE) if options.large else CELLS:
        users, items, n = (max(int(value * options.size), 20) for value in cell_size)
        for engine in engines:
            found_here = cell(engine, users, items, n, options.limit)
            row = {"engine": engine, "users": users, "items": items, "n": n, "seconds": None}
            rows.append({**row, **(found_here or {})})
            lines.append(_line(engine, users, items, n, found_here))
            print("  ".join(lines[-1]), flush=True)
    print(
        table(
            ["users", "items", "ratings", "engine", "cpu s", "symbolic s", "MB", "fill"], lines
        )
    )
    picture(rows, options.out / "solvers.png")
    write_json(options.out / "solvers.json", {**about, "rows": rows})


def _line(
    engine: str, users: int, items: int, n: int, found: dict[str, float] | None
) -> list[str]:
    first = [str(users), str(items), str(n), engine]
    if found is None:
        return [*first, "", "", "", ""]
    return [
        *first, f"{found['seconds']:.3f}", f"{found['symbolic']:.2f}",
        f"{found['memory'] / 1e6:.0f}", f"{found['fill']:.3g}",
    ]  # fmt: skip


if __name__ == "__main__":
    main()
