"""Interaction plots hold the numbers of the table, and stay within the axes given."""

from __future__ import annotations

import numpy as np
import pytest

import mixlm_sparse as mx

mpl = pytest.importorskip("matplotlib")

import matplotlib.pyplot as plt  # noqa: E402

from tests.report.drawn import data, names_on, schools  # noqa: E402
from tests.report.drawn import no_figure_stays_open as _no_figure_stays_open  # noqa: E402, F401


def cake():
    return mx.lmer("angle ~ recipe * temperature + (1 | recipe:replicate)", data("cake"))


def test_lines_join_the_means_of_each_level():
    means = cake().emmeans(["recipe", "temperature"])
    table = means.to_frame()
    (ax,) = means.plot.interaction().axes
    assert ax.get_xlabel() == "temperature"
    lines = [line for line in ax.lines if len(line.get_xdata())]
    assert len(lines) == 3
    for line, level in zip(lines, "ABC", strict=True):
        mine = table[table["recipe"] == level]
        np.testing.assert_allclose(line.get_ydata(), mine["emmean"])
        assert line.get_label() == level
    assert names_on(ax.xaxis) == [str(value) for value in table["temperature"].unique()]
    assert ax.get_legend().get_title().get_text() == "recipe"
    # the other way round
    (ax,) = means.plot.interaction("recipe", intervals=False).axes
    assert ax.get_xlabel() == "recipe"
    assert len([line for line in ax.lines if len(line.get_xdata())]) == 6
    assert not ax.collections


def test_families_are_on_the_axis_and_further_predictors_have_panels():
    fit = schools()
    means = fit.emmeans("sector", by="cses", at={"cses": [-1.0, 1.0]})
    (ax,) = means.plot.interaction().axes
    assert ax.get_xlabel() == "cses"
    np.testing.assert_array_equal(ax.lines[0].get_xdata(), [-1.0, 1.0])
    at = {"cses": [-1.0, 1.0], "meanses": [-0.5, 0.0, 0.5]}
    figure = fit.emmeans(["sector", "cses", "meanses"], at=at).plot.interaction("cses", "sector")
    assert [ax.get_title() for ax in figure.axes] == ["meanses -0.5", "meanses 0", "meanses 0.5"]
    one = fit.emmeans("sector").plot.interaction().axes[0]
    assert one.get_legend() is None


def test_given_axes_hold_the_legend():
    figure, ax = plt.subplots()
    means = schools().emmeans("sector", by="cses", at={"cses": [-1, 1]})
    assert mx.plots.interaction(means, ax=ax) is figure
    figure.canvas.draw()
    box = ax.get_legend().get_window_extent()
    assert ax.bbox.contains(box.x0, box.y0)
    assert ax.bbox.contains(box.x1, box.y1)


def test_what_cannot_be_joined():
    means = schools().emmeans("sector", by="cses", at={"cses": [-1, 1]})
    with pytest.raises(mx.OptionError, match="lines join means, and these are contrasts"):
        means.pairs().estimates.plot.interaction()
    with pytest.raises(mx.OptionError, match="x is 'zz': use one of 'sector', 'cses'"):
        means.plot.interaction("zz")
    with pytest.raises(mx.OptionError, match="trace is 'cses': use one of 'sector'"):
        means.plot.interaction("cses", "cses")
