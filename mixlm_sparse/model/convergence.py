"""Where the search ended, and how that is known, for a user to read."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pandas as pd

from mixlm_sparse.common.checks import require_number
from mixlm_sparse.common.layout import described
from mixlm_sparse.common.tables import PrintsAsTable, ResultTable, as_result
from mixlm_sparse.common.text import format_number
from mixlm_sparse.common.types import Vector
from mixlm_sparse.model import singularity
from mixlm_sparse.model.base import FitBase
from mixlm_sparse.model.singularity import SINGULAR_TOL, singular_reasons
from mixlm_sparse.solve.curvature import hessian_eigenvalues
from mixlm_sparse.solve.identification import Identification
from mixlm_sparse.solve.search.optimum import ZERO_SIGMA, Optimum
from mixlm_sparse.solve.search.status import Status
from mixlm_sparse.solve.system import PenalizedSystem
from mixlm_sparse.solve.uncertainty import EstimationError, estimation_error


@dataclass(frozen=True, eq=False, repr=False)
class ConvergenceReport(PrintsAsTable):
    """Where the search ended and how that is known.

    Parameters
    ----------
    optimum : the search's own record.
    system : theta-free products, to compute curvature from.
    singular : (reasons) empty for a regular fit.
    identification : what the data determine; None if that has not been asked.

    Attributes
    ----------
    status : "converged", "singular", "perfect fit", "no residual", "local optimum", "no minimum",
        "not converged", "saddle", "evaluation limit" or "interrupted".
    gradient : (m,) exact gradient in working parameters of order one; zero where at a bound.
    hessian_eigenvalues : ascending, for the parameters that are free; computed when asked for.
    criterion_error : standard error of the criterion where it is estimated (engine="krylov"), or 0.
    theta_error, beta_error : (m,), (p,) what that, and where the search stopped, leave uncertain of
        theta and of coefficients, beside what the sample does.
    """

    optimum: Optimum
    system: PenalizedSystem = field(repr=False)
    singular: tuple[str, ...] = ()
    identification: Identification | None = None

    @property
    def undetermined(self) -> str:
        """What the data do not determine, in a sentence; empty if everything is determined."""
        return "" if self.identification is None else self.identification.sentence

    @property
    def status(self) -> Status:
        if self.singular and self.optimum.status is Status.CONVERGED:
            return Status.SINGULAR
        return self.optimum.status

    @property
    def _perfect(self) -> bool:
        return self.optimum.status == "perfect fit"

    @property
    def converged(self) -> bool:
        return self.optimum.converged

    @property
    def message(self) -> str:
        if self.singular and self.optimum.converged and self.status == "singular":
            found = f"optimum on the boundary: {'; '.join(self.singular)}"
        else:
            found = self.optimum.message
        return f"{found}; {self.undetermined}" if self.undetermined else found

    @property
    def advice(self) -> str:
        if self.identification is not None and not self.identification.complete:
            return self.identification.advice
        if self.status == "singular" and not self.optimum.advice:
            return "drop the term or the correlation if the model need not have it"
        return self.optimum.advice

    @property
    def gradient(self) -> Vector:
        return self.optimum.gradient.copy()

    @property
    def max_abs_gradient(self) -> float:
        return float(np.abs(self.optimum.gradient).max(initial=0.0))

    @property
    def predicted_decrease(self) -> float:
        return self.optimum.predicted_decrease

    @property
    def tried(self) -> tuple[str, ...]:
        """Where searches began and the criterion they ended with; empty if there was one."""
        return self.optimum.tried

    @property
    def second_valley(self) -> float | None:
        """Criterion of the second-best minimum that was found; None if there was none."""
        return self.optimum.second_valley

    @property
    def n_evaluations(self) -> int:
        return self.optimum.n_evaluations

    @property
    def n_gradients(self) -> int:
        return self.optimum.n_gradients

    @property
    def seconds(self) -> float:
        return self.optimum.seconds

    @property
    def optimizer(self) -> str:
        return self.optimum.optimizer

    @property
    def engine(self) -> str:
        return self.system.engine.name

    @cached_property
    def hessian_eigenvalues(self) -> Vector:
        """Eigenvalues, ascending, of the criterion's Hessian in working parameters."""
        if self._perfect:
            return np.empty(0)
        return hessian_eigenvalues(
            self.optimum.phi, self.system, reml=self.optimum.reml, sigma=self.optimum.sigma
        )

    @cached_property
    def _estimation(self) -> EstimationError:
        optimum = self.optimum
        return estimation_error(
            optimum.phi, optimum.gradient, self.system, reml=optimum.reml, sigma=optimum.sigma
        )

    @property
    def criterion_error(self) -> float:
        """Standard error of the criterion from the engine's random vectors; 0 if it is exact."""
        return self._estimation.criterion

    @property
    def theta_error(self) -> Vector:
        """(m,) what random vectors and the end of the search leave open of theta; 0 if exact."""
        return self._estimation.theta

    @property
    def beta_error(self) -> Vector:
        """(p,) what random vectors and the end of the search leave open of the coefficients."""
        return self._estimation.beta

    @property
    def estimated(self) -> str:
        """What of the fit is estimated from random vectors, in words; empty if nothing is."""
        if self.system.engine.exact or self._estimation.none:
            return ""
        error = self._estimation
        thetas = ", ".join(format_number(v, 2) for v in error.theta)
        text = (
            f"estimated from {error.vectors} random vectors, with the standard errors "
            f"{format_number(error.criterion, 2)} (criterion) and {thetas} (theta)"
        )
        if error.beta.size:
            text += (
                f"; coefficients are {format_number(100.0 * error.beta_share, 2)}% of their "
                "standard errors uncertain by that, at most"
            )
        return text

    @property
    def headline(self) -> str:
        """One line for the summary."""
        estimated = self.estimated
        return f"{self._ended}; {estimated}" if estimated else self._ended

    @property
    def _ended(self) -> str:
        """How the search ended."""
        search = f"{self.optimizer}, {self.n_evaluations} evaluations"
        if self.status == "no minimum":  # a note says what that means
            return f"{self.status}; {search}"
        if self.status in ("converged", "singular", "local optimum"):
            gain = format_number(self.predicted_decrease, 2)
            by = "exact gradient" if self.system.engine.exact else "gradient"
            return f"{self.status}; {search}; a Newton step by the {by} would gain {gain}"
        return f"{self.status} ({self.message}); {search}"

    def __bool__(self) -> bool:
        return self.converged

    def __repr__(self) -> str:
        return "\n".join(described(self._rows()))

    def to_frame(self) -> pd.DataFrame:
        """Return what is printed as a table of texts: item, value."""
        rows = [(name, value.strip()) for name, value in self._rows()]
        return pd.DataFrame(rows, columns=["item", "value"])

    def _table(self) -> ResultTable:
        return as_result(self.to_frame(), heading="Convergence")

    def _uncertain(self) -> list[tuple[str, str]]:
        """Rows on curvature or, where the criterion is estimated, on its error.

        Curvature would take many evaluations there, which are dear.
        """
        if self.system.engine.exact:
            eigenvalues = ", ".join(format_number(v, 4) for v in self.hessian_eigenvalues)
            return [("Hessian eigenvalues", eigenvalues or "none free")]
        rows = [
            ("standard error of it", format_number(self.criterion_error, 3)),
            ("... of theta", ", ".join(format_number(v, 2) for v in self.theta_error)),
        ]
        if self.beta_error.size:
            share = format_number(100.0 * self._estimation.beta_share, 2)
            rows.append(("... of coefficients", f"{share}% of their standard errors, at most"))
        rows.append(("", "by random vectors and where the search stopped"))
        return rows

    def _rows(self) -> list[tuple[str, str]]:
        rows = [
            ("status", self.status),
            ("message", self.message),
            ("advice", self.advice or "none needed"),
            ("criterion", "-Inf" if not np.isfinite(self.optimum.criterion)
                else format_number(self.optimum.criterion, 10)),
            ("largest gradient", format_number(self.max_abs_gradient, 3)),
            ("predicted decrease", format_number(self.predicted_decrease, 3)),
            *self._uncertain(),
            ("optimizer", self.optimizer),
            ("evaluations", f"{self.n_evaluations} ({self.n_gradients} with gradient)"),
            *(("searched from" if i == 0 else "", line) for i, line in enumerate(self.tried)),
            ("seconds", format_number(self.seconds, 3)),
        ]
        for i, line in enumerate(self.system.engine.describe().splitlines()):
            rows.append(("engine" if i == 0 else "", line))
        return rows


def convergence(fit: FitBase) -> ConvergenceReport:
    """Where the search ended: status, exact gradient, curvature, evaluations, advice.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> fit = mx.lmer("Reaction ~ Days + (Days | Subject)", mx.datasets.load("sleepstudy"))
    >>> fit.convergence.status, fit.convergence.n_evaluations < 30
    ('converged', True)
    """
    judged = fit.identification
    reasons = () if fit.perfect else singular_reasons(fit.system, fit.theta, judged=judged)
    return ConvergenceReport(fit.optimum, fit.system, reasons, judged)


def is_singular(fit: FitBase, tol: float = SINGULAR_TOL) -> bool:
    """Return whether a variance is (almost) zero or a correlation (almost) one.

    Parameters
    ----------
    tol : a standard deviation below this share of the residual's counts as zero.  It is taken over
        columns brought to length one, so that the answer does not depend on the unit of a
        predictor; lme4 looks at theta as it is.

    Raises
    ------
    OptionError : `tol` is not a number, or negative.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> flat, yields = mx.datasets.load("Dyestuff2"), mx.datasets.load("Dyestuff")
    >>> quiet = mx.Control(warn=False)
    >>> mx.lmer("Yield ~ 1 + (1 | Batch)", flat, control=quiet).is_singular()
    True
    >>> mx.lmer("Yield ~ 1 + (1 | Batch)", yields).is_singular()
    False
    """
    tol = require_number("tol", tol, least=0.0, example="1e-4")
    if ZERO_SIGMA in fit.optimum.at_boundary:
        return True
    return singularity.is_singular(fit.system, fit.theta, tol, fit.identification)
