"""Plots as methods: `fit.plot.caterpillar()`, or `fit.plot("caterpillar")`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from difflib import get_close_matches
from functools import partial, update_wrapper
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, TypeVar, overload

from mixlm_sparse.common.checks import require_one_of
from mixlm_sparse.report.plots import (
    checks,
    coefficients,
    effects,
    fixed,
    influences,
    lines,
    means,
    predicted,
    replicates,
    results,
    shrinking,
    uncertainty,
    within,
)

if TYPE_CHECKING:
    from mixlm_sparse.report.plots.backend import Figure

P = ParamSpec("P")
S = TypeVar("S")


class _Bound(partial["Figure"]):
    """A plot of an object, which says how it is called."""

    def __repr__(self) -> str:
        signature = inspect.signature(self)
        plain = [p.replace(annotation=p.empty) for p in signature.parameters.values()]
        arguments = signature.replace(parameters=plain, return_annotation=signature.empty)
        return f"<plot {self.func.__name__}{arguments}>"


class _Plot(Generic[S, P]):
    """A plot function, called with the object that the accessor belongs to."""

    def __init__(self, draw: Callable[Concatenate[S, P], Figure]) -> None:
        self.draw = draw
        self.__doc__ = draw.__doc__

    @overload
    def __get__(self, accessor: None, owner: type) -> _Plot[S, P]: ...

    @overload
    def __get__(self, accessor: Plots, owner: type) -> Callable[P, Figure]: ...

    def __get__(self, accessor: Plots | None, owner: type) -> Any:
        if accessor is None:
            return self
        bound = update_wrapper(_Bound(self.draw, accessor.source), self.draw)
        del bound.__wrapped__  # whose signature has the source as well
        return bound


class Plots:
    """Plots of one object; calling it with the name of a plot draws that.

    Parameters
    ----------
    source : what is drawn.
    default : plot that a call without a name draws.
    """

    default = ""

    def __init__(self, source: Any) -> None:
        self.source = source

    @classmethod
    def kinds(cls) -> list[str]:
        """Return the names of all plots."""
        return sorted(name for name in dir(cls) if isinstance(getattr(cls, name), _Plot))

    def __call__(self, kind: str | None = None, /, *args: Any, **kwargs: Any) -> Figure:
        """Draw one plot by name.

        Parameters
        ----------
        kind : name of the plot; see `kinds()`.
        args, kwargs : its arguments.
        """
        kind = str(require_one_of("kind", self.default if kind is None else kind, self.kinds()))
        figure: Figure = getattr(self, kind)(*args, **kwargs)
        return figure

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        near = get_close_matches(name, self.kinds(), n=1)
        near = near or [kind for kind in self.kinds() if name.startswith(kind)][-1:]
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        kinds = ", ".join(self.kinds())
        raise AttributeError(f"there is no plot {name!r}{hint}: there are {kinds}")

    def __repr__(self) -> str:
        return f"<plots: {', '.join(self.kinds())}>"


class FitPlots(Plots):
    """Plots of the fit: `fit.plot.caterpillar()` or `fit.plot("caterpillar")`.

    `fit.plot.kinds()` lists them; each is the function of the same name in `mx.plots`.  They need
    matplotlib, are its figures, and are never shown by themselves.
    """

    default = "diagnostics"

    autocorrelation = _Plot(within.autocorrelation)
    caterpillar = _Plot(effects.caterpillar)
    coefficient_by = _Plot(coefficients.coefficient_by)
    coefficient_by_size = _Plot(coefficients.coefficient_by_size)
    coefficient_histograms = _Plot(coefficients.coefficient_histograms)
    coefficient_intervals = _Plot(coefficients.coefficient_intervals)
    coefficient_scatter = _Plot(coefficients.coefficient_scatter)
    deletion = _Plot(influences.deletion)
    diagnostics = _Plot(checks.diagnostics)
    effects_by = _Plot(effects.effects_by)
    fixed_effects = _Plot(fixed.fixed_effects)
    influence = _Plot(influences.influence)
    optimization_path = _Plot(influences.optimization_path)
    predictions = _Plot(predicted.predictions)
    profile_density = _Plot(uncertainty.profile_density)
    profile_pairs = _Plot(uncertainty.profile_pairs)
    profile_zeta = _Plot(uncertainty.profile_zeta)
    qq = _Plot(checks.qq)
    qq_random = _Plot(checks.qq_random)
    ranked_intercepts = _Plot(effects.ranked_intercepts)
    residuals = _Plot(checks.residuals)
    scale_location = _Plot(checks.scale_location)
    semivariogram = _Plot(within.semivariogram)
    shrinkage = _Plot(shrinking.shrinkage)
    trajectories = _Plot(lines.trajectories)
    trellis = _Plot(lines.trellis)


class LmListPlots(Plots):
    """Plots of separate least-squares fits: `fits.plot.intervals()`, `fits.plot("scatter")`.

    `fits.plot.kinds()` lists them.
    """

    default = "intervals"

    by = _Plot(coefficients.coefficient_by)
    by_size = _Plot(coefficients.coefficient_by_size)
    histograms = _Plot(coefficients.coefficient_histograms)
    intervals = _Plot(coefficients.coefficient_intervals)
    scatter = _Plot(coefficients.coefficient_scatter)
    trellis = _Plot(lines.least_squares_trellis)


class ProfilePlots(Plots):
    """Plots of a profile: `profile.plot()`, `profile.plot.density("sigma")`."""

    default = "zeta"

    density = _Plot(uncertainty.profile_density)
    pairs = _Plot(uncertainty.profile_pairs)
    zeta = _Plot(uncertainty.profile_zeta)


class BootstrapPlots(Plots):
    """Plots of bootstrap replicates: `replicates.plot()`."""

    default = "histograms"

    histograms = _Plot(replicates.bootstrap)


class MeansPlots(Plots):
    """Plots of marginal means and slopes: `fit.emmeans("group").plot()`."""

    default = "intervals"

    intervals = _Plot(means.marginal_means)
    interaction = _Plot(means.interaction)


class IntervalPlots(Plots):
    """Plots of intervals: `fit.confint().plot()`."""

    default = "intervals"

    intervals = _Plot(results.intervals)


class PowerPlots(Plots):
    """Plots of a power analysis: `mx.power(...).plot()`."""

    default = "estimates"

    estimates = _Plot(results.power_estimates)


class PowerCurvePlots(Plots):
    """Plots of power against numbers of groups: `mx.power_curve(...).plot()`."""

    default = "curve"

    curve = _Plot(results.power_curve)


class InfluencePlots(Plots):
    """Plots of deletions: `fit.influence("group").plot()`."""

    default = "deletion"

    deletion = _Plot(influences.deletion)
