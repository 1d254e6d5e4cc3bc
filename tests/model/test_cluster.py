"""A Dask DataFrame on a cluster of several processes gives the fit of its rows in memory."""

from __future__ import annotations

import os
import signal
import threading
import time

import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from distributed import Client, LocalCluster

import mixlm_sparse as mx
from tests.model.test_batches import QUIET, same_fit

pytestmark = pytest.mark.filterwarnings("ignore")  # of the libraries that run the cluster

FORMULA = "y ~ scale(x) * f + (x | g) + (1 | h)"


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(2)
    n = 4000
    frame = pd.DataFrame(
        {
            "x": rng.normal(size=n) + 10.0,
            "f": rng.choice(list("abc"), n),
            "g": [f"group {i:03d}" for i in rng.integers(0, 200, n)],
            "h": rng.integers(0, 15, n),
            "w": rng.uniform(0.5, 2.0, n),
            "other": "not read",
        }
    )
    y = frame["x"] + rng.normal(size=200)[frame["g"].str[6:].astype(int)]
    frame["y"] = y + rng.normal(size=15)[frame["h"]] + rng.normal(size=n)
    frame.loc[rng.choice(n, 40), "x"] = np.nan
    return frame.sort_values("f", ignore_index=True)  # partitions differ in their levels


@pytest.fixture(scope="module")
def whole(data):
    return mx.lmer(FORMULA, data, weights="w", control=QUIET)


@pytest.fixture(scope="module")
def cluster():
    with (
        LocalCluster(
            n_workers=3, threads_per_worker=1, processes=True, dashboard_address=None
        ) as workers,
        Client(workers) as client,
    ):
        yield client


def test_partitions_on_several_processes(data, whole, cluster):
    frame = dd.from_pandas(data, npartitions=7)
    same_fit(mx.lmer(FORMULA, frame, weights="w", control=QUIET), whole)
    pids = set(cluster.run(os.getpid).values())
    assert len(pids) == 3
    assert os.getpid() not in pids


def test_products_are_those_of_the_rows(data, whole, cluster):
    frame = dd.from_pandas(data, npartitions=5)
    products = mx.cross_products(FORMULA, frame, weights="w")
    assert products.nobs == whole.nobs
    same_fit(mx.fit_products(products, control=QUIET), whole)


def test_a_worker_is_killed_in_the_middle(data, whole, cluster):
    began = threading.Event()

    def slow(part):
        time.sleep(0.3)
        return part

    def kill():
        began.wait()
        time.sleep(1.0)
        os.kill(next(iter(cluster.run(os.getpid).values())), signal.SIGKILL)

    before = set(cluster.run(os.getpid).values())
    frame = dd.from_pandas(data, npartitions=24).map_partitions(slow, meta=data.head(0))
    killer = threading.Thread(target=kill)
    killer.start()
    began.set()
    fit = mx.lmer(FORMULA, frame, weights="w", control=QUIET)
    killer.join()
    same_fit(fit, whole)
    cluster.wait_for_workers(3)
    assert set(cluster.run(os.getpid).values()) != before


def test_without_a_cluster(data, whole):
    frame = dd.from_pandas(data, npartitions=3)
    same_fit(mx.lmer(FORMULA, frame, weights="w", control=QUIET), whole)


def test_faults(data, cluster):
    frame = dd.from_pandas(data, npartitions=4)
    with pytest.raises(mx.DataError, match="no column 'z'"):
        mx.lmer("y ~ z + (1 | g)", frame)
    with pytest.raises(mx.DataError, match="no rows are left"):
        mx.lmer("y ~ x + (1 | g)", frame, subset="x > 1000")
    with pytest.raises(mx.OptionError, match="weights is an array"):
        mx.lmer("y ~ x + (1 | g)", frame, weights=np.ones(4000))
    fit = mx.lmer("y ~ x + (1 | g)", frame, control=QUIET)
    with pytest.raises(mx.RowsAbsentError, match="partitions of a Dask DataFrame"):
        fit.resid  # noqa: B018
    empty = frame[frame["x"] > 1000]
    same_fit(
        mx.lmer("y ~ x + (1 | g)", dd.concat([empty, frame]), control=QUIET),
        mx.lmer("y ~ x + (1 | g)", data, control=QUIET),
    )
