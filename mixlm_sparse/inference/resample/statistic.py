"""What a replicate is worth: all parameters, or a statistic of the user's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from mixlm_sparse.common.errors import OptionError
from mixlm_sparse.common.types import Vector
from mixlm_sparse.model.parameters import (
    parameter_kinds,
    parameter_values,
    residual_values,
    variance_parameters,
)
from mixlm_sparse.model.refit_rows import FAILED
from mixlm_sparse.model.refits import Refit, RefitBlock

if TYPE_CHECKING:
    from mixlm_sparse.model.fitted import FittedModel

__all__ = ["Replicate", "Statistic", "StatisticReader", "as_values"]

Statistic = Callable[[Any], Any]
# values, status, message
Replicate = tuple[Vector | None, str, str]


class StatisticReader:
    """Reads the statistic off a fit: all parameters, or what the user's function returns."""

    def __init__(self, fit: FittedModel, statistic: Statistic | None) -> None:
        self._fit = fit
        self._statistic = statistic
        self._parameters = variance_parameters(fit.system)
        if statistic is None:
            kinds = parameter_kinds(fit)
            self.names, self.kinds = list(kinds), tuple(kinds.values())
            self.original = self._values(
                Refit(fit.system, fit.optimum, fit.solution, fit.optimum.message)
            )
            return
        names, self.original = as_values(statistic(fit))
        self.names = [f"t{i + 1}" for i in range(self.original.size)] if names is None else names
        self.kinds = ("statistic",) * len(self.names)

    @property
    def pickles(self) -> bool:
        """Whether another process could find the statistic: it has a name in a module."""
        if self._statistic is None:
            return True
        names = getattr(self._statistic, "__qualname__", type(self._statistic).__qualname__)
        module = getattr(self._statistic, "__module__", None)
        return module != "__main__" and "<" not in names

    def _values(self, refit: Refit) -> Vector:
        assert refit.solution is not None
        assert refit.optimum is not None
        if self._statistic is None:
            factors = refit.system.chart.theta_factors(refit.optimum.theta)
            spread = parameter_values(self._parameters, factors, refit.unit_of_theta)
            spread[[par.kind == "sigma" for par in self._parameters]] = refit.sigma
            beta = refit.solution.beta
            if refit.system.x_names != self._fit.system.x_names:
                # other columns may be combinations of earlier ones in rows drawn again
                found = dict(zip(refit.system.x_names, beta.tolist(), strict=True))
                beta = np.array([found.get(name, np.nan) for name in self._fit.system.x_names])
            return np.concatenate([spread, residual_values(refit.system), beta])
        return as_values(self._statistic(self.fit_of(refit)))[1]

    def replicates(self, block: RefitBlock) -> Iterator[Replicate]:
        """Return the replicate of every response of a block; parameters come out of its arrays."""
        numbers = block.values
        if numbers is None or self._statistic is not None:
            for refit in block:
                yield self.replicate(refit)
            return
        factors = self._fit.system.chart.stacked_factors(numbers.theta)
        spread = parameter_values(self._parameters, factors, numbers.sigma)
        samples = np.concatenate([spread, numbers.beta], axis=1)
        for i, here in enumerate(block.at_once.tolist()):
            if here:
                yield samples[i], numbers.status[i], numbers.message[i]
            else:
                yield self.replicate(block.refit(i))

    def fit_of(self, refit: Refit) -> FittedModel:
        """Return a fit of the same class as the original's."""
        assert refit.optimum is not None
        assert refit.solution is not None
        call = self._fit.call
        if call is not None:
            call = replace(call, response=refit.system.matrices.y)
        return replace(
            self._fit,
            system=refit.system,
            optimum=refit.optimum,
            solution=refit.solution,
            call=call,
            notes=(),
        )

    def replicate(self, refit: Refit) -> Replicate:
        """Return the statistic of a refit, its status and message; None where there is none."""
        if refit.optimum is None:
            return None, FAILED, refit.message
        try:
            values = self._values(refit)
        except Exception as error:  # the user's function may raise anything
            return None, FAILED, f"the statistic raised {type(error).__name__}: {error}"
        if values.shape != self.original.shape:
            return (
                None,
                FAILED,
                f"the statistic has {values.size} values, that of the fit has {self.original.size}",
            )
        return values, refit.optimum.status, refit.message


def as_values(value: Any) -> tuple[list[str] | None, Vector]:
    """Return names (if there are any) and values of what a statistic returned."""
    names: list[str] | None = None
    if isinstance(value, pd.DataFrame):
        names = [f"{row}.{column}" for row in value.index for column in value.columns]
        value = value.to_numpy()
    elif isinstance(value, pd.Series):
        names = [str(name) for name in value.index]
        value = value.to_numpy()
    elif isinstance(value, Mapping):
        names = [str(name) for name in value]
        value = list(value.values())
    try:
        values = np.asarray(value, dtype=np.float64).ravel()
    except (TypeError, ValueError):
        raise OptionError(
            f"the statistic returned {type(value).__name__}: return a number, an array of numbers, "
            "a Series or a dict"
        ) from None
    return names, values
