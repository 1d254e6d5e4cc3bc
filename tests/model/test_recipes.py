"""The recipes of the documentation for other clusters, run where those are installed."""

from __future__ import annotations

import os
import pickle
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import mixlm_sparse as mx
from tests.model.test_batches import QUIET, same_fit

pytestmark = pytest.mark.filterwarnings("ignore")  # of the libraries that run the cluster

FORMULA = "y ~ x + f + (1 | g)"
LEVELS = {"f": ["a", "b", "c"]}


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(5)
    n = 3000
    frame = pd.DataFrame(
        {"x": rng.normal(size=n), "f": rng.choice(list("abc"), n), "g": rng.integers(0, 60, n)}
    )
    frame["y"] = frame["x"] + rng.normal(size=60)[frame["g"]] + rng.normal(size=n)
    return frame.sort_values("f", ignore_index=True)  # parts differ in their levels


@pytest.fixture(scope="module")
def whole(data):
    return mx.lmer(FORMULA, data, control=QUIET)


def arrow_sums():
    """The function of the page: Arrow batches of a partition to one row with its products."""
    formula, levels = FORMULA, LEVELS

    def sums(batches):
        import pyarrow as pa

        batches = [batch for batch in batches if batch.num_rows]
        if batches:  # a partition may have no rows
            rows = pa.Table.from_batches(batches)
            products = mx.cross_products(formula, rows, levels=levels)
            yield pa.RecordBatch.from_pydict({"products": [pickle.dumps(products)]})

    return sums  # made here, so that it is sent by value


def test_spark(data, whole, monkeypatch):
    pytest.importorskip("pyspark", reason="pyspark is not installed: pip install pyspark")
    if shutil.which("java") is None and "JAVA_HOME" not in os.environ:
        pytest.skip("Spark needs Java, which is not installed")
    # its workers run this Python with this copy of the package
    monkeypatch.setenv("PYSPARK_PYTHON", sys.executable)
    monkeypatch.setenv("PYTHONPATH", str(Path(mx.__file__).parents[1]))
    from pyspark.sql import SparkSession

    builder = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false")
    session = builder.config("spark.sql.shuffle.partitions", "8").getOrCreate()
    try:
        frame = session.createDataFrame(data).repartition(8, "f")  # more parts than levels
        found = frame.mapInArrow(arrow_sums(), "products binary").collect()
        total = sum(pickle.loads(row["products"]) for row in found)
    finally:
        session.stop()
    assert 1 <= len(found) < 8
    same_fit(mx.fit_products(total), whole)


def test_ray(data, whole, monkeypatch):
    ray = pytest.importorskip("ray", reason="ray is not installed: pip install ray")
    monkeypatch.setenv("PYTHONPATH", str(Path(mx.__file__).parents[1]))
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        blocks = [data.iloc[i : i + 700] for i in range(0, len(data), 700)]
        each = ray.remote(mx.cross_products)
        parts = [each.remote(FORMULA, block, levels=LEVELS) for block in blocks]
        total = sum(ray.get(parts))
    finally:
        ray.shutdown()
    same_fit(mx.fit_products(total), whole)


def test_arrow_batches_in_any_number_of_partitions(data, whole):
    pa = pytest.importorskip("pyarrow")
    parts = pa.Table.from_pandas(data).to_batches(max_chunksize=400)
    sums = arrow_sums()
    found = [
        row for part in ([], parts[:3], [parts[0].slice(0, 0)], parts[3:]) for row in sums(part)
    ]
    total = sum(pickle.loads(batch.to_pylist()[0]["products"]) for batch in found)
    assert len(found) == 2
    same_fit(mx.fit_products(total), whole)
