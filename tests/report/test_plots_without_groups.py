"""Plots of models without random effects: drawn, or refused in the package's words."""

from __future__ import annotations

import pytest

import mixlm_sparse as mx
from mixlm_sparse.report.plots.methods import FitPlots

plt = pytest.importorskip("matplotlib.pyplot")


@pytest.fixture(scope="module")
def trial():
    return mx.gls(
        "FEV1 ~ RACE + ARMCD * AVISIT", mx.datasets.load("fev_data"),
        residual=mx.Unstructured(time="AVISIT", group="USUBJID"),
        variance=mx.VarIdent(by="AVISIT"),
    )  # fmt: skip


@pytest.fixture(autouse=True)
def _closed():
    yield
    plt.close("all")


NEED_AN_ARGUMENT = {
    "coefficient_by": {"by": "RACE"},
    "effects_by": {"by": "RACE"},
    "profile_pairs": {"parm": ["sigma", "rho(1,2)"]},
}


@pytest.mark.parametrize("kind", FitPlots.kinds())
def test_every_plot_is_drawn_or_says_why_not(trial, kind):
    try:
        figure = trial.plot(kind, **NEED_AN_ARGUMENT.get(kind, {}))
    except mx.OptionError as error:
        assert "random effects" in str(error) or "residual structure" in str(error)
    else:
        assert figure.axes


def test_diagnostics_have_three_panels_or_the_first_three_given(trial):
    assert len(trial.plot.diagnostics().axes) == 3
    figure, axes = plt.subplots(2, 2)
    assert trial.plot.diagnostics(axes=axes) is figure
    assert axes[0, 0].get_title() == "residuals"
    with pytest.raises(mx.OptionError, match="give four"):
        trial.plot.diagnostics(axes=axes[0])


# ------------------------------------------------------------------------ numbers as categories


@pytest.fixture(scope="module")
def ages():
    data = mx.datasets.load("Orthodont")
    return mx.lmer("distance ~ factor(age) * Sex + (1 | Subject)", data)


def test_numbers_that_are_factors_are_points(ages):
    (axes,) = ages.plot.predictions("age", at={"Sex": "levels"}).axes
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["8", "10", "12", "14"]
    means = ages.emmeans(["age", "Sex"]).to_frame()
    male = means.loc[means["Sex"] == "Male", "emmean"].to_list()
    drawn = axes.collections[1].get_offsets()[:, 1]
    assert drawn.tolist() == pytest.approx(male)


def test_numbers_that_are_factors_are_averaged_over(ages):
    (axes,) = ages.plot.predictions("Sex").axes
    assert "averaged over age" in axes.get_title()
    drawn = axes.collections[1].get_offsets()[:, 1]
    assert drawn.tolist() == pytest.approx(ages.emmeans("Sex").to_frame()["emmean"].to_list())


def test_trajectories_over_numbers_that_are_factors(ages):
    (axes,) = ages.plot.trajectories().axes
    assert axes.get_xlabel() == "age"
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["8", "10", "12", "14"]
