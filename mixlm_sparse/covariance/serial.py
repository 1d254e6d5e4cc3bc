"""Serial correlation: a row depends on the past of its group through the row before it alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mixlm_sparse.common.keywords import answering_calls
from mixlm_sparse.common.types import Array3, Matrix, Vector
from mixlm_sparse.covariance.correlation import (
    HARDLY_ANY,
    Correlation,
    PairMoments,
    Places,
    correlation_structure,
)

__all__ = ["AR1", "CAR1", "AnteDependence"]

# Working parameters are kept within these: phi closer to one cannot be told from one.
LARGEST_OMEGA = 18.0
LARGEST_LOG = 705.0  # a limit of an interval may be farther out than any number
BELOW_ONE = 1.0 - 2.0**-50  # a correlation of neighbours
LARGEST_START = 0.9  # a correlation that a search begins with


def lags(t: NDArray[np.float64]) -> Array3:
    """Return |t_i - t_j| (groups, m, m) of times (groups, m)."""
    out: Array3 = np.abs(t[:, :, None] - t[:, None, :])
    return out


class Lagged(Correlation):
    """C depends on the distance in time through one parameter: C = f(d, omega)."""

    __slots__ = ()

    def of_lag(self, d: Vector, omega: float, places: Places) -> tuple[Vector, Vector]:
        """Return f(d) and df / d omega, of the shape of d."""
        raise NotImplementedError

    def distance(self, t: NDArray[np.float64]) -> Array3:
        """Return the distances (groups, m, m)."""
        return lags(t)

    def correlation(self, t: NDArray[np.float64], omega: Vector, places: Places) -> Array3:
        return self.of_lag(self.distance(t), float(omega[0]), places)[0]

    def slopes(self, t: NDArray[np.float64], omega: Vector, places: Places) -> NDArray[np.float64]:
        return self.of_lag(self.distance(t), float(omega[0]), places)[1][:, None]

    def contract(
        self, t: NDArray[np.float64], omega: Vector, places: Places, core: Array3
    ) -> Vector:
        slope = self.of_lag(self.distance(t), float(omega[0]), places)[1]
        return np.array([float((core * slope).sum())])


class AutoRegressive(Lagged):
    """Times on a line, and one parameter phi: a row depends on the row before it."""

    __slots__ = ()

    def parameters(self, places: Places) -> tuple[str, ...]:
        return ("phi",)

    def steps(
        self, t: Vector, before: Vector, omega: Vector, places: Places
    ) -> tuple[Vector, list[tuple[int, NDArray[np.intp] | slice, Vector]]]:
        a, slope = self.of_lag(np.abs(t - before), float(omega[0]), places)
        return a, [(0, slice(None), slope)]


@answering_calls
@correlation_structure("ar1")
@dataclass(frozen=True, slots=True)
class AR1(AutoRegressive):
    """Autoregressive residuals: Cor(e_s, e_t) = phi^|s - t|, -1 < phi < 1.

    Parameters
    ----------
    time : column of visits: a factor (levels in their order) or whole numbers.  A visit without a
        row is a gap, not the next one's place.
    group : column (or columns) whose levels are independent of each other; None for one series.
    by : column (or columns) each of whose levels has a phi of its own.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> boys = mx.datasets.load("Oxboys")
    >>> fit = mx.gls("height ~ age", boys, residual=mx.AR1(time="Occasion", group="Subject"))
    >>> fit.residual_structure.round(3)
      parameter  estimate  std_error  lower  upper
    0       phi     0.995      0.001  0.992  0.997
    """

    words = "autoregressive of order one"
    time_kind = "whole"

    time: str
    group: str | tuple[str, ...] | None = None
    by: str | tuple[str, ...] | None = None

    def near(self, moments: PairMoments, places: Places) -> Vector:
        r = float(np.clip(moments.serial, -LARGEST_START, LARGEST_START))
        phi = np.sign(r) * abs(r) ** (1.0 / max(moments.step, 1.0))
        return np.array([np.arctanh(np.clip(phi, -BELOW_ONE, BELOW_ONE))])

    def natural(self, omega: Vector, places: Places) -> tuple[Vector, Matrix]:
        phi = np.tanh(omega)
        return phi, np.diag(1.0 - phi**2)

    def of_lag(self, d: Vector, omega: float, places: Places) -> tuple[Vector, Vector]:
        phi = np.tanh(np.clip(omega, -LARGEST_OMEGA, LARGEST_OMEGA))
        change = (1.0 - phi) * (1.0 + phi)
        with np.errstate(divide="ignore"):
            slope = np.where(d > 0.0, d * np.power(phi, np.maximum(d - 1.0, 0.0)), 0.0)
        return np.power(phi, d), slope * change


@answering_calls
@correlation_structure("car1")
@dataclass(frozen=True, slots=True)
class CAR1(AutoRegressive):
    """Autoregressive residuals in continuous time: Cor(e_s, e_t) = phi^|s - t|, 0 < phi < 1.

    Parameters
    ----------
    time : column of numbers, the times in any unit; phi is the correlation one unit apart.
    group, by : as in `AR1`.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> rats = mx.datasets.load("BodyWeight")
    >>> fit = mx.gls("weight ~ Time * Diet", rats, residual=mx.CAR1(time="Time", group="Rat"))
    >>> fit.residual_structure.round(4)
      parameter  estimate  std_error   lower  upper
    0       phi    0.9979     0.0008  0.9956  0.999
    """

    words = "autoregressive in continuous time"
    time_kind = "number"

    time: str
    group: str | tuple[str, ...] | None = None
    by: str | tuple[str, ...] | None = None

    def near(self, moments: PairMoments, places: Places) -> Vector:
        r = float(np.clip(moments.serial, 0.05, LARGEST_START))
        rate = -np.log(r) * places.scale / moments.step
        return np.array([-np.log(rate)])

    def weak(self, places: Places) -> Vector:
        return np.array([-np.log(-np.log(HARDLY_ANY))])

    def natural(self, omega: Vector, places: Places) -> tuple[Vector, Matrix]:
        rate = np.exp(-np.clip(omega, -LARGEST_LOG, LARGEST_LOG)) / places.scale
        phi = np.exp(-rate)
        return phi, np.diag(phi * rate)

    def of_lag(self, d: Vector, omega: float, places: Places) -> tuple[Vector, Vector]:
        scaled = d * (np.exp(-np.clip(omega, -40.0, 40.0)) / places.scale)
        value = np.exp(-scaled)
        return value, value * scaled


@answering_calls
@correlation_structure("ante")
@dataclass(frozen=True, slots=True)
class AnteDependence(Correlation):
    """First-order ante-dependence: a correlation for every two successive visits.

    Cor(e_s, e_t) is the product of the correlations of the steps between s and t.

    Parameters
    ----------
    time, group, by : as in `AR1`.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> teeth = mx.datasets.load("Orthodont")
    >>> steps = mx.AnteDependence(time="age", group="Subject")
    >>> mx.gls("distance ~ age * Sex", teeth, residual=steps).residual_structure.round(3)
      parameter  estimate  std_error  lower  upper
    0  rho(1,2)     0.591      0.126  0.291  0.785
    1  rho(2,3)     0.560      0.128  0.262  0.761
    2  rho(3,4)     0.712      0.087  0.497  0.845
    """

    words = "ante-dependence of order one"
    time_kind = "visits"

    time: str
    group: str | tuple[str, ...] | None = None
    by: str | tuple[str, ...] | None = None

    def near(self, moments: PairMoments, places: Places) -> Vector | None:
        if moments.by_visit is None:
            return None
        out: Vector = np.arctanh(
            np.clip(np.diag(moments.by_visit, 1), -LARGEST_START, LARGEST_START)
        )
        return out

    def parameters(self, places: Places) -> tuple[str, ...]:
        return tuple(f"rho({i + 1},{i + 2})" for i in range(places.T - 1))

    def natural(self, omega: Vector, places: Places) -> tuple[Vector, Matrix]:
        rho = np.tanh(omega)
        return rho, np.diag(1.0 - rho**2)

    def _full(self, omega: Vector, T: int) -> tuple[Matrix, Array3]:
        """Return C (T, T) and its derivatives (T - 1, T, T)."""
        rho = np.tanh(omega)
        C = np.eye(T)
        slopes = np.zeros((T - 1, T, T))
        for s in range(T):
            for t in range(s + 1, T):
                C[s, t] = C[t, s] = C[s, t - 1] * rho[t - 1]
                for k in range(s, t):
                    others = np.delete(rho[s:t], k - s)
                    slopes[k, s, t] = slopes[k, t, s] = others.prod() * (1.0 - rho[k] ** 2)
        return C, slopes

    def correlation(self, t: NDArray[np.float64], omega: Vector, places: Places) -> Array3:
        at = t.astype(np.intp)
        return self._full(omega, places.T)[0][at[:, :, None], at[:, None, :]]

    def slopes(self, t: NDArray[np.float64], omega: Vector, places: Places) -> NDArray[np.float64]:
        at = t.astype(np.intp)
        found = self._full(omega, places.T)[1][:, at[:, :, None], at[:, None, :]]
        return np.moveaxis(found, 0, 1)

    def contract(
        self, t: NDArray[np.float64], omega: Vector, places: Places, core: Array3
    ) -> Vector:
        out: Vector = np.einsum("gkij,gij->k", self.slopes(t, omega, places), core)
        return out

    def steps(
        self, t: Vector, before: Vector, omega: Vector, places: Places
    ) -> tuple[Vector, list[tuple[int, NDArray[np.intp] | slice, Vector]]]:
        C, slopes = self._full(omega, places.T)
        now, then = t.astype(np.intp), before.astype(np.intp)
        found: list[tuple[int, NDArray[np.intp] | slice, Vector]] = []
        for k in range(places.T - 1):
            rows = np.flatnonzero((then <= k) & (k < now))
            found.append((k, rows, slopes[k, then[rows], now[rows]]))
        return C[then, now], found
