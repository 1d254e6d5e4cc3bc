"""Rows in a Parquet file, streamed: rows a second, peak memory, ratio to a plain scan.

    python -m benchmarks.stream                              # 1 million rows, 10,000 groups
    python -m benchmarks.stream --rows 1e8 --levels 1e6      # 3 GB of Parquet

The model is y ~ x1 + x2 + f + (1 | g).  The yardstick reads the same columns by pyarrow and does
nothing with them.  Both run in fresh processes; the ratio is that of processor seconds, which a
busy machine does not change much, beside that of the clock.  The first run on a machine compiles
kernels: `--warm` fits a small file first.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.report import RESULTS, machine, table, write_json

CACHE = Path(__file__).parent / "cache"
ROW_GROUP = 1_000_000
FORMULA = "y ~ x1 + x2 + f + (1 | g)"
COLUMNS = ["y", "x1", "x2", "f", "g"]

SCAN = f"""
import pyarrow.dataset as ds
for batch in ds.dataset(path).to_batches(columns={COLUMNS!r}):
    pass
found = {{}}
"""
FIT = f"""
import mixlm_sparse as mx
fit = mx.lmer({FORMULA!r}, path, progress=False)
found = {{
    "criterion": fit.criterion,
    "evaluations": fit.optimum.n_evaluations,
    "fixef": fit.fixef.round(4).to_list(),
}}
"""
SUM = f"""
import mixlm_sparse as mx
products = mx.cross_products({FORMULA!r}, path, progress=False)
found = {{"nobs": products.nobs}}
"""
AROUND = """
import json, resource, sys, time
path = sys.argv[1]
wall, cpu = time.perf_counter(), time.process_time()
{body}
wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps({{"wall": wall, "cpu": cpu, "peak": peak, **found}}))
"""


def generate(path: Path, rows: int, levels: int) -> None:
    """Write a Parquet file of that many rows and groups."""
    rng = np.random.default_rng(0)
    effects = np.array([0.0, 0.5, -0.3, 0.2])
    names = pa.array(["control", "a", "b", "c"])
    groups = 0.7 * rng.normal(size=levels)
    writer = None
    for start in range(0, rows, ROW_GROUP):
        m = min(ROW_GROUP, rows - start)
        x1, x2 = rng.normal(size=m), rng.uniform(size=m) + 2000.0
        f, g = rng.integers(0, 4, m), rng.integers(0, levels, m)
        y = 1.0 + 0.3 * x1 - 0.1 * (x2 - 2000.0) + effects[f] + groups[g] + rng.normal(size=m)
        text = pa.DictionaryArray.from_arrays(pa.array(f.astype(np.int32)), names)
        piece = pa.table({"y": y, "x1": x1, "x2": x2, "f": text.cast(pa.string()), "g": g})
        if writer is None:
            writer = pq.ParquetWriter(path, piece.schema)
        writer.write_table(piece)
    if writer is not None:
        writer.close()


def run(body: str, path: Path) -> dict[str, object]:
    """Run `body` in a fresh process, and return what it took and found."""
    done = subprocess.run(
        [sys.executable, "-c", AROUND.format(body=body), str(path)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(done.stderr)
    found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=float, default=1e6, help="rows of the file")
    parser.add_argument("--levels", type=float, default=None, help="groups; by default rows / 100")
    parser.add_argument("--path", type=Path, help="a file that exists, with the columns above")
    parser.add_argument("--warm", action="store_true", help="fit a small file first")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    options = parser.parse_args()
    rows = int(options.rows)
    levels = int(options.levels or max(rows // 100, 2))
    CACHE.mkdir(exist_ok=True)
    path = options.path or CACHE / f"stream_{rows}_{levels}.parquet"
    if not path.exists():
        generate(path, rows, levels)
    rows = pq.read_metadata(path).num_rows
    if options.warm:
        small = CACHE / "stream_small.parquet"
        generate(small, 100_000, 1_000)
        run(FIT, small)
    run(SCAN, path)  # the file comes into the cache of the system
    results = {name: run(body, path) for name, body in (("plain scan", SCAN), ("sums", SUM),
                                                        ("fit", FIT))}  # fmt: skip
    scan = results["plain scan"]
    lines = [["", "wall s", "cpu s", "million rows/s", "peak MB", "cpu / scan", "wall / scan"]]
    for name, one in results.items():
        wall, cpu = float(one["wall"]), float(one["cpu"])  # type: ignore[arg-type]
        lines.append(
            [
                name, f"{wall:.2f}", f"{cpu:.2f}", f"{rows / wall / 1e6:.2f}",
                f"{float(one['peak']) / 1e6:.0f}",  # type: ignore[arg-type]
                f"{cpu / float(scan['cpu']):.1f}",  # type: ignore[arg-type]
                f"{wall / float(scan['wall']):.1f}",  # type: ignore[arg-type]
            ]
        )  # fmt: skip
    print(f"{rows} rows, {path.stat().st_size / 1e6:.0f} MB of Parquet; {FORMULA}")
    print(table(lines[0], lines[1:]))
    print("fixed effects", results["fit"]["fixef"])
    about = {"machine": machine(os.cpu_count() or 1), "rows": rows}
    write_json(options.out / "stream.json", {**about, **results})


if __name__ == "__main__":
    main()
