"""What a power analysis found: `Power`, and the interval of a share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import betaincinv, ndtri

from mixlm_sparse.common.late import LatePlots
from mixlm_sparse.common.tables import PrintsAsTable, ResultTable, as_result
from mixlm_sparse.common.text import percent
from mixlm_sparse.common.types import Matrix, Vector

__all__ = ["Power", "PowerCurve", "binomial_interval"]

DECIMALS = {"power": 3, "lower": 3, "upper": 3}  # simulations tell no more


@dataclass(frozen=True, eq=False, repr=False)
class Power(PrintsAsTable):
    """Result of a power analysis.

    Parameters
    ----------
    effect : names of the coefficients tested (jointly).
    test, alpha : the test and its level.
    p_values : (simulations done,), NaN where the fit failed.
    estimates, std_errors : (simulations done, number of effects).
    true : (number of effects,) the values simulated from.
    status, message : of each simulation.
    nsim : simulations asked for.
    level, interval : of the Monte-Carlo interval.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> plan = {"x": [0.0, 1.0] * 30, "g": [f"g{i // 6}" for i in range(60)]}
    >>> truth = {"beta": {"(Intercept)": 0.0, "x": 0.8}, "sd": {"g": 0.5}, "sigma": 1.0}
    >>> found = mx.power("~ x + (1 | g)", plan, truth, effect="x", nsim=50, seed=1)
    >>> found.power, found.n_significant, found.n_failed
    (0.86, 43, 0)
    """

    effect: tuple[str, ...]
    test: str
    alpha: float
    p_values: Vector
    estimates: Matrix
    std_errors: Matrix
    true: Vector
    status: tuple[str, ...]
    message: tuple[str, ...]
    nsim: int
    level: float
    interval: str

    plot = LatePlots()

    @property
    def n_failed(self) -> int:
        """Simulations without a p-value; they do not count in the power."""
        return int(np.isnan(self.p_values).sum())

    @property
    def n_significant(self) -> int:
        """Simulations with p below alpha."""
        return int((self.p_values < self.alpha).sum())

    @property
    def power(self) -> float:
        """Share of significant simulations."""
        used = self.p_values.size - self.n_failed
        return self.n_significant / used if used else float("nan")

    @property
    def conf_int(self) -> tuple[float, float]:
        """Monte-Carlo interval of the power."""
        return binomial_interval(
            self.n_significant, self.p_values.size - self.n_failed, self.level, self.interval
        )

    def to_frame(self) -> pd.DataFrame:
        """Return one row: effect, test, alpha, power, lower, upper, n_sim, n_failed."""
        lower, upper = self.conf_int
        return pd.DataFrame(
            {
                "effect": [" + ".join(self.effect)],
                "test": [self.test],
                "alpha": [self.alpha],
                "power": [self.power],
                "lower": [lower],
                "upper": [upper],
                "n_sim": [self.p_values.size],
                "n_failed": [self.n_failed],
            }
        )

    def _table(self) -> ResultTable:
        table = self.to_frame().drop(columns=["test", "alpha"])
        return as_result(table, heading="Power by simulation", notes=self._notes, decimals=DECIMALS)

    @property
    def _notes(self) -> list[str]:
        name = "Wilson's" if self.interval == "wilson" else "Clopper and Pearson's"
        return [
            f"test: {self.test}, alpha {self.alpha:g}",
            f"{percent(self.level)} Monte-Carlo interval ({name})",
        ]


@dataclass(frozen=True, eq=False, repr=False)
class PowerCurve(PrintsAsTable):
    """Power for several numbers of groups.

    Parameters
    ----------
    along : the grouping factor.
    n : numbers of its levels.
    points : the analysis for each of them.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> plan = {"x": [0.0, 1.0] * 30, "g": [f"g{i // 6}" for i in range(60)]}
    >>> truth = {"beta": {"(Intercept)": 0.0, "x": 0.8}, "sd": {"g": 0.5}, "sigma": 1.0}
    >>> curve = mx.power_curve("~ x + (1 | g)", plan, truth, "x", [5, 15], nsim=50, seed=1)
    >>> curve.to_frame()[["n", "power"]]
        n  power
    0   5   0.46
    1  15   0.96
    """

    along: str
    n: tuple[int, ...]
    points: tuple[Power, ...]

    plot = LatePlots()

    def to_frame(self) -> pd.DataFrame:
        """Return a row for each n: n, then the columns of `Power.to_frame`."""
        table = pd.concat([point.to_frame() for point in self.points], ignore_index=True)
        table.insert(0, "n", list(self.n))
        return table

    def _table(self) -> ResultTable:
        table = self.to_frame().drop(columns=["effect", "test", "alpha"]).set_index("n")
        first = self.points[0]
        return as_result(
            table,
            heading=f"Power of {' + '.join(first.effect)} against levels of {self.along}",
            notes=first._notes,
            decimals=DECIMALS,
        )


def binomial_interval(k: int, n: int, level: float, kind: str) -> tuple[float, float]:
    """Return Wilson's or Clopper and Pearson's interval of a share of k in n."""
    if not n:
        return float("nan"), float("nan")
    tail = (1.0 - level) / 2.0
    if kind == "wilson":
        # Wilson (1927); 0 and 1 exactly where none or all are counted
        z = -float(ndtri(tail))
        share = k / n
        centre = share + z**2 / (2.0 * n)
        half = z * np.sqrt(share * (1.0 - share) / n + z**2 / (4.0 * n**2))
        lower, upper = (centre - half) / (1.0 + z**2 / n), (centre + half) / (1.0 + z**2 / n)
    else:
        # Clopper and Pearson (1934)
        lower = betaincinv(k, n - k + 1, tail) if k else 0.0
        upper = betaincinv(k + 1, n - k, 1.0 - tail) if k < n else 1.0
    return (float(lower) if k else 0.0), (float(upper) if k < n else 1.0)
