"""Plots of mixed models, with matplotlib (extra `plots`).

Every function draws one figure and returns it; nothing is shown or saved by itself.  Plots of one
panel, and those of several of which one is named, draw into the axes given as `ax`.  matplotlib is
imported when the first plot is drawn.  The same plots are methods of a fit, such as
`fit.plot.caterpillar()`.
"""

from __future__ import annotations

from mixlm_sparse.report.plots.checks import (
    diagnostics,
    qq,
    qq_random,
    residuals,
    scale_location,
)
from mixlm_sparse.report.plots.coefficients import (
    coefficient_by,
    coefficient_by_size,
    coefficient_histograms,
    coefficient_intervals,
    coefficient_scatter,
)
from mixlm_sparse.report.plots.effects import caterpillar, effects_by, ranked_intercepts
from mixlm_sparse.report.plots.fixed import fixed_effects
from mixlm_sparse.report.plots.influences import deletion, influence, optimization_path
from mixlm_sparse.report.plots.lines import (
    least_squares_trellis,
    trajectories,
    trellis,
)
from mixlm_sparse.report.plots.means import interaction, marginal_means
from mixlm_sparse.report.plots.predicted import predictions
from mixlm_sparse.report.plots.replicates import bootstrap
from mixlm_sparse.report.plots.shrinking import shrinkage
from mixlm_sparse.report.plots.uncertainty import (
    profile_density,
    profile_pairs,
    profile_zeta,
)
from mixlm_sparse.report.plots.within import autocorrelation, semivariogram

__all__ = [
    "autocorrelation",
    "bootstrap",
    "caterpillar",
    "coefficient_by",
    "coefficient_by_size",
    "coefficient_histograms",
    "coefficient_intervals",
    "coefficient_scatter",
    "deletion",
    "diagnostics",
    "effects_by",
    "fixed_effects",
    "influence",
    "interaction",
    "least_squares_trellis",
    "marginal_means",
    "optimization_path",
    "predictions",
    "profile_density",
    "profile_pairs",
    "profile_zeta",
    "qq",
    "qq_random",
    "ranked_intercepts",
    "residuals",
    "scale_location",
    "semivariogram",
    "shrinkage",
    "trajectories",
    "trellis",
]
