"""What a bootstrap gave: samples, their summary, intervals."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixlm_sparse.common.checks import listed, require_level, require_one_of
from mixlm_sparse.common.errors import OptionError
from mixlm_sparse.common.late import LatePlots
from mixlm_sparse.common.tables import PrintsAsTable, ResultTable, as_result, result_table
from mixlm_sparse.common.text import percent
from mixlm_sparse.common.types import Matrix
from mixlm_sparse.inference.resample.as_xarray import to_xarray
from mixlm_sparse.inference.resample.intervals import TYPES, interval
from mixlm_sparse.model.parameters import chosen_names
from mixlm_sparse.model.refit_rows import FAILED

__all__ = ["Bootstrap"]


@dataclass(frozen=True, eq=False, repr=False)
class Bootstrap(PrintsAsTable):
    """What a bootstrap gave.

    Parameters
    ----------
    method : "parametric", "semiparametric", "cases" or "groups".
    original : (k,) the statistic of the fit itself, by name.
    kinds : (k,) "sd", "cor", "sigma" or "beta"; "statistic" for a function of the user's own.
    samples : (replicates done, k) the statistic of each refit, NaN where it failed.
    status, message : of each refit: "converged", "singular", ... or "failed".
    nsim : replicates asked for.
    entropy : of the seed; `bootstrap(seed=entropy)` gives the same samples again.
    unknown : why, by name, for parameters of the fit that the data do not determine.  Their draws
        are those of the smallest variances that fit equally well; intervals have none.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> fit = mx.lmer("Reaction ~ Days + (Days | Subject)", mx.datasets.load("sleepstudy"))
    >>> draws = fit.bootstrap(50, seed=1)
    >>> draws.confint(parm=["Days", "sigma"]).round(2)
           lower  upper
    sigma  22.55  29.02
    Days    7.16  14.75
    >>> draws.samples.shape
    (50, 6)
    """

    plot = LatePlots()

    method: str
    original: pd.Series[float]
    kinds: tuple[str, ...]
    samples: pd.DataFrame
    status: tuple[str, ...]
    message: tuple[str, ...]
    nsim: int
    entropy: Any
    jackknife_values: Callable[[], Matrix] = field(repr=False)
    unknown: Mapping[str, str] = field(default_factory=dict, repr=False)
    _kept: dict[str, Matrix] = field(default_factory=dict, repr=False)

    @property
    def n_done(self) -> int:
        """Replicates that were made."""
        return len(self.status)

    @property
    def complete(self) -> bool:
        """Whether all replicates were made; False after an early end."""
        return self.n_done == self.nsim

    @property
    def n_failed(self) -> int:
        """Replicates without a fit or without a value of the statistic."""
        return sum(s == FAILED for s in self.status)

    @property
    @result_table("Replicates without a fit", labels=["replicate"])
    def failures(self) -> pd.DataFrame:
        """The replicates that failed, with the reason."""
        failed = [i for i, s in enumerate(self.status) if s == FAILED]
        return pd.DataFrame(
            {"replicate": failed, "message": [self.message[i] for i in failed]}
        )

    def to_frame(self, level: float = 0.95, type: str = "percentile") -> pd.DataFrame:
        """Return a row for each parameter: estimate, mean, bias, std_error, lower, upper, n.

        Parameters
        ----------
        level, type : of the interval, as in `confint`.
        """
        values = self.samples
        limits = self.confint(level, type)
        hidden = self._hidden(self.original.index)
        variances = hidden & (np.array(self.kinds) != "beta")
        original, mean = self.original.mask(variances), values.mean().mask(variances)
        return pd.DataFrame(
            {
                "estimate": original,
                "mean": mean,
                "bias": mean - original,
                "std_error": values.std(ddof=1).mask(hidden),
                "lower": limits["lower"],
                "upper": limits["upper"],
                "n": values.notna().sum(),
            },
            index=self.original.index,
        )

    def _hidden(self, names: Iterable[str]) -> NDArray[np.bool_]:
        return np.array([name in self.unknown for name in names], dtype=bool)

    @property
    def _reasons(self) -> list[str]:
        reason = {text: [n for n, t in self.unknown.items() if t == text] for text in
                  dict.fromkeys(self.unknown.values())}  # fmt: skip
        return [f"{listed(names, 8)}: {text}" for text, names in reason.items()]

    def to_xarray(self) -> Any:
        """Return the draws as an xarray Dataset of (chain, draw), which ArviZ reads.

        A variable for each parameter; replicates that failed are left out.
        """
        return to_xarray(self)

    @result_table()
    def confint(
        self, level: float = 0.95, type: str = "percentile", parm: Any = None
    ) -> pd.DataFrame:
        """Return intervals.

        Parameters
        ----------
        level : coverage between 0 and 1.
        type : "percentile"; "basic", the percentiles reflected at the estimate; "normal", estimate
            less bias with normal limits; "bca", percentiles corrected for bias and for the change
            of the standard error with the parameter (its acceleration comes from leaving out one
            group at a time, so that it costs as many fits as there are groups).
        parm : a name or names, "theta_" or "beta_"; None for all.

        Returns
        -------
        DataFrame with columns lower, upper.

        Raises
        ------
        OptionError : unknown type or name, or a level outside of (0, 1).
        """
        level = require_level("level", level)
        require_one_of("type", type, TYPES)
        if self.n_done - self.n_failed < 2:
            raise OptionError(
                f"only {self.n_done - self.n_failed} replicates gave a value, too few for an "
                "interval: look at .failures, or raise nsim"
            )
        kinds = dict(zip(self.original.index, self.kinds, strict=True))
        names = chosen_names(parm, kinds)
        left_out = self._jackknife() if type == "bca" else None
        limits = []
        for name in names:
            at = self.original.index.get_loc(name)
            limits.append(
                interval(
                    self.samples[name].to_numpy(),
                    float(self.original[name]),
                    level,
                    type,
                    None if left_out is None else left_out[:, at],
                )
            )
        out = pd.DataFrame(limits, index=names, columns=["lower", "upper"], dtype=np.float64)
        out = out.mask(pd.Series(self._hidden(names), index=names), axis=0)
        out.attrs["heading"] = f"{percent(level)} bootstrap intervals, {type}"
        return out

    def _jackknife(self) -> Matrix:
        if "jackknife" not in self._kept:
            self._kept["jackknife"] = self.jackknife_values()
        return self._kept["jackknife"]

    def _table(self) -> ResultTable:
        counts = ", ".join(
            f"{self.status.count(s)} {s}" for s in dict.fromkeys(self.status) if s != "converged"
        )
        early = "" if self.complete else f" of {self.nsim}, ended early"
        heading = (
            f"Bootstrap, {self.method}: {self.n_done} replicates{early}"
            f"{'; ' + counts if counts else ''}"
        )
        table = self.to_frame()
        # the mean is estimate + bias; the heading counts the replicates where all have a value
        hidden = ["mean", *(["n"] if (table["n"] == self.n_done).all() else [])]
        return as_result(
            table, heading=heading, note="95% percentile intervals", notes=self._reasons,
            hidden=hidden,
        )  # fmt: skip
