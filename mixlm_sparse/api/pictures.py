"""Plots of results that are made below the plots, as their attribute `plot`."""

from __future__ import annotations

from mixlm_sparse.api.attribute import Attribute
from mixlm_sparse.api.power_result import Power, PowerCurve
from mixlm_sparse.inference.cases.influence import Influence
from mixlm_sparse.inference.means.contrast_table import Contrasts
from mixlm_sparse.inference.means.marginal_means import MarginalMeans
from mixlm_sparse.inference.resample.result import Bootstrap
from mixlm_sparse.inference.variance.confint import Intervals
from mixlm_sparse.inference.variance.profile.curve import Profile
from mixlm_sparse.report.plots.methods import (
    BootstrapPlots,
    InfluencePlots,
    IntervalPlots,
    MeansPlots,
    PowerCurvePlots,
    PowerPlots,
    ProfilePlots,
)

PLOTS = {
    Profile: ProfilePlots,
    Bootstrap: BootstrapPlots,
    MarginalMeans: MeansPlots,
    Influence: InfluencePlots,
    Intervals: IntervalPlots,
    Power: PowerPlots,
    PowerCurve: PowerCurvePlots,
}


def attach_plots() -> None:
    """Give each result its plots: `fit.profile().plot()`, `fit.emmeans("group").plot()`."""
    for result, plots in PLOTS.items():
        setattr(result, "plot", Attribute(plots))  # noqa: B010 (not declared below)
    setattr(Contrasts, "plot", Attribute(lambda table: MeansPlots(table.estimates)))  # noqa: B010
