"""The fitted model as users see it: what `fitted.FittedModel` holds, and methods for the rest.

Every method here is one call of a function of another module, which takes the fit as its first
argument.  Those modules know `FittedModel` only; they reach further fits through its methods
`refit`, `refit_ml` and `update`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mixlm_sparse.api.methods import InferenceMethods
from mixlm_sparse.api.methods_more import VarianceInferenceMethods
from mixlm_sparse.api.prediction_methods import PredictionMethods
from mixlm_sparse.api.saving_methods import SavingMethods
from mixlm_sparse.inference.fixed.coefficients import coefficient_tests
from mixlm_sparse.model.fitted import FittedModel
from mixlm_sparse.model.lme4_parts import get_component
from mixlm_sparse.report.plots.methods import PlotMethods
from mixlm_sparse.report.tables.for_maketables import MaketablesMethods
from mixlm_sparse.report.tables.summary import Summary, summarize


@dataclass(frozen=True, eq=False, repr=False)
class LinearMixedFit(
    InferenceMethods, VarianceInferenceMethods, PredictionMethods, PlotMethods, MaketablesMethods,
    SavingMethods, FittedModel
):
    """A fitted linear mixed model.

        y | b ~ N(X beta + Z b + o, sigma^2 W^{-1}),  b ~ N(0, sigma^2 Lambda Lambda')

    Made by `lmer`, `fit_matrices` or `make_fit`; never changed afterwards.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> fit = mx.lmer("Reaction ~ Days + (Days | Subject)", mx.datasets.load("sleepstudy"))
    >>> fit.fixef.round(3)
    (Intercept)    251.405
    Days            10.467
    dtype: float64
    >>> fit.varcorr
     Groups    Name         Variance  Std.Dev.  Corr
     Subject   (Intercept)    612.09    24.740
               Days            35.07     5.922  0.07
     Residual                 654.94    25.592
    """

    # -- print --------------------------------------------------------------------------------

    def summary(
        self, *, correlation: bool | None = None, ddf: str | None = "auto"
    ) -> Summary:
        """Return the summary as text (a notebook shows tables).

        Parameters
        ----------
        correlation : print the correlations of the fixed effects; by default up to 12 of them.
        ddf : tests in the table of fixed effects: "satterthwaite", "kenward-roger", "normal", or
            None for t values alone.  "auto" is Satterthwaite where that takes a few seconds at
            most; otherwise the summary says that it left the tests out.
        """
        return summarize(self, correlation=correlation, tests=coefficient_tests(self, ddf))

    def _repr_html_(self) -> str:
        return self.summary().html

    def describe_engine(self) -> str:
        """Say in words how the system is factored and evaluated."""
        return self.system.describe()

    # -- components ---------------------------------------------------------------------------

    def getME(self, name: str) -> Any:
        """Return a component by lme4's name: "X", "Z", "Lambda", "L", "RX", "devcomp", ...

        `L` is the sparse lower Cholesky factor of Lambda'Z'WZ Lambda + I in natural order, so no
        permutation applies.  Indices count from 0.  An unknown name is an error that lists them
        all.
        """
        return get_component(self, name)
