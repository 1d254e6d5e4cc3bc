"""What the user asked for, as data: `update` is the same call with a few fields changed."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from mixlm_sparse.common.checks import NA_ACTIONS, require_bool, require_one_of
from mixlm_sparse.common.progress import SearchProgress, fit_progress
from mixlm_sparse.common.text import in_brackets
from mixlm_sparse.common.types import Vector
from mixlm_sparse.covariance.correlation import Correlation
from mixlm_sparse.covariance.variance import VarianceFunction
from mixlm_sparse.design.residuals import require_structures
from mixlm_sparse.engines.names import ENGINES
from mixlm_sparse.solve.search.control import Control, control_of
from mixlm_sparse.solve.search.names import OPTIMIZERS

__all__ = ["FitOptions", "ModelCall"]


@dataclass(frozen=True, slots=True)
class FitOptions:
    """How a model is fitted, apart from what it is.

    Parameters
    ----------
    reml : restricted likelihood instead of the likelihood.
    start : (m,) theta to start from, or None for a moment estimate.
    optimizer, engine : names; "auto" chooses.
    control : tolerances, limits and whether to warn.
    progress : as in `lmer`; False, the default here, shows nothing.
    """

    reml: bool = True
    start: Vector | None = None
    optimizer: str = "auto"
    engine: str = "auto"
    control: Control = field(default_factory=Control)
    progress: SearchProgress = False

    def checked(self) -> FitOptions:
        """Return self.

        Raises
        ------
        OptionError : a name is not known or a value has the wrong type.
        """
        require_one_of("optimizer", self.optimizer, OPTIMIZERS)
        require_one_of("engine", self.engine, ENGINES)
        require_bool("reml", self.reml)
        control_of(self.control)
        fit_progress(self.progress)
        return self

    def for_further_fits(self) -> FitOptions:
        """Return the options of further fits: a checkpoint is of one search."""
        if self.control.checkpoint is None:
            return self
        return replace(self, control=replace(self.control, checkpoint=None))


@dataclass(frozen=True, slots=True, repr=False)
class ModelCall:
    """The arguments of `lmer` that say what the model is, and the options of the fit.

    Parameters
    ----------
    response : (n,) a response that replaces the formula's, as `refit` uses it.
    residual, variance : structure of the residuals, or None.
    random : whether the formula must have random terms (`lmer`) or must not (`gls`).
    """

    formula: str
    data: Any
    weights: Any = None
    offset: Any = None
    subset: Any = None
    na_action: str = "omit"
    contrasts: Any = None
    env: Any = None
    fixed: Any = None
    known: Any = None
    response: Vector | None = None
    residual: Correlation | None = None
    variance: VarianceFunction | None = None
    random: bool = True
    options: FitOptions = field(default_factory=FitOptions)

    def __repr__(self) -> str:
        return in_brackets(f"ModelCall: {self.formula}")

    def checked(self) -> ModelCall:
        """Return self; an unknown name of an option is an OptionError."""
        require_one_of("na_action", self.na_action, NA_ACTIONS)
        require_structures(self.residual, self.variance)
        self.options.checked()
        return self
