"""The record of a search: where it ended, and how that is known."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace

import numpy as np

from mixlm_sparse.common.text import in_brackets
from mixlm_sparse.common.types import Vector
from mixlm_sparse.solve.search.bfgs import ROUNDING
from mixlm_sparse.solve.search.objective import Objective
from mixlm_sparse.solve.search.status import Status

ZERO_SIGMA = "sigma"  # among `at_boundary`: the residual standard deviation is zero


@dataclass(frozen=True, slots=True, repr=False)
class Optimum:
    """Where the search ended and what is known about the point.

    Parameters
    ----------
    theta : (m,) within bounds; criterion : its value.
    phi : (m,) the same covariance in working parameters of order one.
    gradient : (m,) exact gradient with respect to phi, zero in coordinates held at a bound.
    predicted_decrease : what a Newton step from here would win, by the exact gradient.
    status : how the search ended, a `Status`, which is its own text: "converged", "singular",
        "perfect fit", "no residual", "local optimum", "no minimum", "not converged", "evaluation
        limit", "saddle" or "interrupted".
    message, advice : the status in words, and what to do about it ("" if nothing).
    at_boundary : names of standard deviations that are zero, and of correlations at a bound;
        "sigma" where the residual is zero at a finite criterion.
    history : criterion at each evaluation.
    tried : where searches began and where they ended, in words.
    second_valley : criterion of the second-best minimum found; None if there was none.
    sigma : the residual standard deviation where it is not the best one at theta: because
        parameters are held, or because it is zero beside the random effects; else None.
    rho : working parameters of the residual structure; none without one.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> matrices = mx.model_matrices("Yield ~ 1 + (1 | Batch)", mx.datasets.load("Dyestuff2"))
    >>> optimum = mx.optimize(mx.penalized_system(matrices))
    >>> optimum.converged, optimum.at_boundary
    (True, ('Batch.(Intercept)',))
    """

    theta: Vector
    phi: Vector
    criterion: float
    gradient: Vector
    predicted_decrease: float
    status: Status
    message: str
    advice: str
    optimizer: str
    n_evaluations: int
    n_gradients: int
    seconds: float
    at_boundary: tuple[str, ...]
    history: tuple[float, ...]
    reml: bool
    tried: tuple[str, ...] = ()
    second_valley: float | None = None
    sigma: float | None = None
    rho: Vector = field(default_factory=lambda: np.zeros(0))

    def __post_init__(self) -> None:
        object.__setattr__(self, "status", Status(self.status))

    def __repr__(self) -> str:
        return in_brackets(
            f"Optimum: {self.status}, criterion {self.criterion:.8g}, {self.n_evaluations} "
            f"evaluations by {self.optimizer}"
        )

    @property
    def no_residual(self) -> bool:
        """Whether sigma is zero beside the random effects: `sigma` is then an arbitrary value.

        The criterion is -inf, or finite where the random effects can be the law of all rows.
        """
        nothing = ZERO_SIGMA in self.at_boundary or bool(np.isinf(self.criterion))
        return self.sigma is not None and nothing

    @property
    def converged(self) -> bool:
        """Whether the point is known to be an optimum."""
        return self.status.certified


def record(
    objective: Objective,
    phi: Vector,
    value: float,
    gradient: Vector,
    decrease: float,
    status: Status | None,
    method: str,
    began: float,
    **words: object,
) -> Optimum:
    """Return the record of a point; `status` None is an optimum, inside or on the boundary."""
    phi = objective.reflect(phi)
    theta = objective.theta_of(phi)
    zero, edge = objective.on_the_boundary(phi)
    if status is None:
        status = Status.SINGULAR if zero else Status.CONVERGED
    return Optimum(
        theta=theta,
        phi=phi,
        criterion=value,
        gradient=gradient,
        predicted_decrease=decrease,
        status=status,
        message=status.message.format(
            edge=edge, evaluations=objective.n_values, decrease=decrease, **words
        ),
        advice=status.advice,
        optimizer=method,
        n_evaluations=objective.n_values,
        n_gradients=objective.n_gradients,
        seconds=time.perf_counter() - began,
        at_boundary=zero,
        history=tuple(objective.history),
        reml=objective.reml,
    )


def perfect_fit(
    objective: Objective, why: str, method: str, began: float
) -> Optimum:
    """Return theta = 0 for a response that the fixed part fits exactly."""
    phi = objective.at_zero()
    value = objective.value(phi)
    return record(
        objective, phi, value, np.zeros_like(phi), 0.0, Status.PERFECT, method, began,
        why=why,
    )  # fmt: skip


def limit(
    objective: Objective, method: str, began: float
) -> Optimum:
    """Return the limit of sigma going to zero, in which the criterion has no minimum."""
    phi, sigma = objective.without_minimum()
    found = record(
        objective, phi, -np.inf, np.zeros_like(phi), 0.0, Status.NO_RESIDUAL, method, began
    )
    return replace(found, sigma=sigma)


def report(
    objective: Objective,
    phi: Vector,
    value: float,
    gradient: Vector,
    decrease: float,
    reached_limit: bool,
    method: str,
    tolerance: float,
    began: float,
) -> Optimum:
    """Say how good the point is where the search ended."""
    decrease = max(decrease, objective.radial_decrease(phi, gradient))
    status: Status | None = None
    if not decrease <= max(tolerance, ROUNDING * abs(value)):
        status = Status.LIMIT if reached_limit else Status.NOT_CONVERGED
    return record(objective, phi, value, gradient, decrease, status, method, began)
