"""Methods of a fit that predict, simulate and resample."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import pandas as pd

from mixlm_sparse.common.parallel import Progress
from mixlm_sparse.common.types import Matrix, Vector
from mixlm_sparse.inference.resample.bootstrap import bootstrap
from mixlm_sparse.inference.resample.result import Bootstrap
from mixlm_sparse.model.predict.predict import predict
from mixlm_sparse.model.simulate import Seed, simulate_fit

if TYPE_CHECKING:
    from mixlm_sparse.model.fitted import FittedModel

__all__ = ["PredictionMethods"]


class PredictionMethods:
    """Predictions, simulated responses and the bootstrap, as methods of a fit."""

    def predict(
        self,
        newdata: Any = None,
        re_form: str | None = None,
        allow_new_levels: bool = False,
        random_only: bool = False,
        se: bool = False,
        interval: str | None = None,
        level: float = 0.95,
        offset: Any = None,
        na_action: str | None = None,
        weights: Any = None,
    ) -> Vector | pd.DataFrame:
        """Predict the response, on the rows of the fit or on new ones.

        Parameters
        ----------
        newdata : a frame of any supported kind; None for the rows of the fit.
        re_form : random effects that count: None for all, "population" for none, or random terms
            of the model such as "~ (1 | Subject)", of which columns may be left out.
        allow_new_levels : predict for groups that the fit has not seen with random effects of
            zero; their variance counts in `se` and intervals.  By default they are refused.
        random_only : the random effects only, without fixed part and offset.
        se : standard errors too.
        interval : "confidence" for the mean x'beta + z'b, "prediction" for a new response, which
            adds the residual variance (divided by its prior weight) and the variance of the random
            effects that `re_form` leaves out.
        level : coverage of the interval.
        offset : replaces the offset of the call: a number, the name of a column of `newdata`, or an
            array.  Needed for new data if the call's offset was an array.
        na_action : new rows with missing cells: "pass" (the default) gives NaN, "omit" leaves them
            out, "raise" refuses them.
        weights : prior weights of new rows, for "prediction": a number, a name or an array; by
            default the column that the fit used.

        Returns
        -------
        (n,) array; with `se` or `interval` a DataFrame with columns fit, se, lower, upper.  `se` is
        that of the mean, also beside a prediction interval; without `interval` the limits are those
        of the mean.

        Raises
        ------
        DataError : a column does not exist, or a level is not known to the fit.
        FormulaError : `re_form` names what the fit does not have.
        OptionError : an unknown interval, level or na_action.

        Notes
        -----
        Standard errors come from the joint covariance of (beta^ - beta, b^ - b) given theta and
        sigma: that these are estimated is not counted.

        Examples
        --------
        >>> import mixlm_sparse as mx
        >>> fit = mx.lmer("Reaction ~ Days + (Days | Subject)", mx.datasets.load("sleepstudy"))
        >>> new = {"Days": [0.0, 10.0], "Subject": ["308", "309"]}
        >>> fit.predict(new).round(2)
        array([253.66, 229.48])
        >>> fit.predict(new, interval="confidence").round(1)
             fit    se  lower  upper
        0  253.7  12.3  229.6  277.7
        1  229.5  15.9  198.4  260.5
        """
        return predict(
            cast("FittedModel", self),
            newdata,
            re_form,
            allow_new_levels=allow_new_levels,
            random_only=random_only,
            se=se,
            interval=interval,
            level=level,
            offset=offset,
            weights=weights,
            na_action=na_action,
        )

    def simulate(
        self,
        nsim: int = 1,
        seed: Seed = None,
        re_form: str | None = None,
        newdata: Any = None,
        *,
        use_u: bool = False,
        offset: Any = None,
        weights: Any = None,
        allow_new_levels: bool = False,
    ) -> Matrix:
        """Simulate responses from the fitted model.

        Parameters
        ----------
        nsim : number of responses.
        seed : whole number, numpy Generator or SeedSequence.  Response i of a seed is always the
            same, however many are drawn and whatever engine made the fit.
        re_form : None draws all random effects anew; "fitted" holds them at their fitted values; a
            formula such as "~ (1 | g)" holds these terms and draws the others.
        newdata : rows to simulate for; None for those of the fit.  Groups that the fit has not seen
            get random effects of their own.
        use_u : True is the same as re_form="fitted".
        offset, weights : of new rows, as in `predict`; Var(e) = sigma^2 / w.
        allow_new_levels : with effects held at their fitted values, unknown groups get zero.

        Returns
        -------
        (n, nsim) array.

        Examples
        --------
        >>> import mixlm_sparse as mx
        >>> fit = mx.lmer("Yield ~ 1 + (1 | Batch)", mx.datasets.load("Dyestuff"))
        >>> fit.simulate(3, seed=1).shape
        (30, 3)
        """
        return simulate_fit(
            cast("FittedModel", self),
            nsim,
            seed,
            re_form,
            use_u=use_u,
            newdata=newdata,
            offset=offset,
            weights=weights,
            allow_new_levels=allow_new_levels,
        )

    def bootstrap(
        self,
        nsim: int = 1000,
        statistic: Callable[[Any], Any] | None = None,
        method: str = "parametric",
        seed: Seed = None,
        n_jobs: int = 1,
        progress: Progress = None,
        *,
        use_u: bool = False,
        by: str | None = None,
    ) -> Bootstrap:
        """Bootstrap the fit.

        Parameters
        ----------
        nsim : number of replicates.
        statistic : function of a fit that returns a number, an array, a Series or a dict; None for
            all parameters, by the names of `confint`.
        method : "parametric" draws from the fitted model; "semiparametric" resamples predicted
            random effects and residuals, reflated to the estimated covariances; "cases" resamples
            rows, "groups" whole groups.
        seed : whole number, numpy Generator or SeedSequence; the samples are the same for any
            `n_jobs`.
        n_jobs : processes; -1 takes all processors.
        progress : None for a bar in terminals and notebooks, False for silence, or a function of
            (done, total) that returns False to end early; what is done is kept, as it is after
            Ctrl-C.
        use_u : hold the random effects at their fitted values ("parametric", "semiparametric").
        by : the grouping factor whose groups are drawn (method "groups"); by default the one in
            which the others are nested.

        Returns
        -------
        Bootstrap : `samples`, `confint(level, type)`, `to_frame()`, `failures`.

        Examples
        --------
        >>> import mixlm_sparse as mx
        >>> fit = mx.lmer("Yield ~ 1 + (1 | Batch)", mx.datasets.load("Dyestuff"))
        >>> boot = fit.bootstrap(50, seed=1)
        >>> boot.samples.shape, list(boot.samples.columns)
        ((50, 3), ['sd_(Intercept)|Batch', 'sigma', '(Intercept)'])
        """
        return bootstrap(
            cast("FittedModel", self),
            nsim,
            statistic,
            method,
            seed,
            n_jobs,
            progress,
            use_u=use_u,
            by=by,
        )
