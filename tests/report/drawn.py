"""Fits that are drawn, and what their pictures hold."""

from __future__ import annotations

from functools import cache

import numpy as np
import pandas as pd
import pytest

import mixlm_sparse as mx

mpl = pytest.importorskip("matplotlib")
mpl.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402
from matplotlib.collections import LineCollection  # noqa: E402


@pytest.fixture(autouse=True)
def no_figure_stays_open(monkeypatch):
    def show(*args, **kwargs):
        raise AssertionError("a plot shows itself")

    monkeypatch.setattr(plt, "show", show)
    yield
    plt.close("all")


@cache
def data(name):
    return mx.datasets.load(name)


@cache
def sleep():
    return mx.lmer("Reaction ~ Days + (Days | Subject)", data("sleepstudy"))


@cache
def schools():
    return mx.lmer("mathach ~ meanses + sector * cses + (cses | school)", data("HSB"))


@cache
def by_school():
    return mx.lm_list("mathach ~ cses | school", data("HSB"))


@cache
def thousands():
    """A fit with 3,000 groups with long names."""
    return mx.lmer("y ~ x + (1 | place)", long_names())


def questionnaire(item):
    return f"the long name that a questionnaire gives to its item {item}"


@cache
def questions():
    """A fit whose columns have long names, alike but for their ends, as have levels of a factor."""
    pupils = data("HSB")[lambda d: d["school"].isin(d["school"].unique()[:20])]
    sector = pupils["sector"].map(lambda s: f"a school of the sector {s}, as the office calls it")
    wide = pupils.assign(sector=sector.astype("category")).rename(columns=questionnaire)
    y, f, x, g = (f"`{questionnaire(n)}`" for n in ("mathach", "sector", "cses", "school"))
    return mx.lmer(f"{y} ~ {f} * {x} + ({x} | {g})", wide, control=mx.Control(warn=False))


def long_names():
    rng = np.random.default_rng(5)
    group = np.repeat(np.arange(3000), 4)
    x = rng.normal(size=group.size)
    y = rng.normal(size=3000)[group] + 0.5 * x + rng.normal(size=group.size)
    return pd.DataFrame({"y": y, "x": x, "place": [f"place number {g:04d}" for g in group]})


@cache
def profile():
    return sleep().profile()


@cache
def replicates():
    return sleep().bootstrap(60, seed=1)



def models():
    return [
        mx.lmer("mathach ~ ses + (1 | school)", data("HSB")),
        mx.lmer("mathach ~ ses + meanses + sector + (1 | school)", data("HSB")),
    ]


def segments_of(ax):
    return sum(len(c.get_segments()) for c in ax.collections if isinstance(c, LineCollection))


def names_on(axis):
    return [t.get_text() for t in axis.get_ticklabels()]


def scattered(ax):
    """All points of scatter plots, (n, 2)."""
    parts = [c.get_offsets() for c in ax.collections if not isinstance(c, LineCollection)]
    return np.vstack([np.asarray(part) for part in parts])
