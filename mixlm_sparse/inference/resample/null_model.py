"""The smaller model of a simulated test: a mixed model or a linear one, by maximum likelihood."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from mixlm_sparse.common.checks import plain_name
from mixlm_sparse.common.errors import DataError, OptionError
from mixlm_sparse.common.types import Matrix, Vector
from mixlm_sparse.covariance.residual import Independent
from mixlm_sparse.design.build import model_matrices
from mixlm_sparse.design.matrices import ModelMatrices
from mixlm_sparse.formula.parse import parse_formula
from mixlm_sparse.formula.syntax import plain_text
from mixlm_sparse.model.draws import ResponseModel
from mixlm_sparse.model.fitted import FittedModel
from mixlm_sparse.model.refits import RefitBlock
from mixlm_sparse.model.simulate import model_of_fit
from mixlm_sparse.model.warm import options_of_refits
from mixlm_sparse.solve.products.basis import stack_qr
from mixlm_sparse.solve.products.final import kept_columns
from mixlm_sparse.solve.rows import InMemory, RowSource, Without

if TYPE_CHECKING:
    from mixlm_sparse.model.call import ModelCall

__all__ = ["LinearNull", "MixedNull", "null_model"]


@dataclass(frozen=True, slots=True)
class MixedNull:
    """A smaller model with random effects."""

    fit: FittedModel
    model: ResponseModel

    @property
    def n_par(self) -> int:
        return self.fit.n_determined

    @property
    def criterion(self) -> float:
        return self.fit.criterion

    @property
    def formula(self) -> str:
        return self.fit.formula

    def criteria(self, Y: Matrix, *, compiled: bool) -> Iterator[tuple[float, str]]:
        """Return the criterion of each response (n, r), and why there is none."""
        options = options_of_refits(self.fit, reml=False)
        return RefitBlock(self.fit.system, Y, options, compiled=compiled).criteria()


@dataclass(frozen=True, slots=True)
class LinearNull:
    """A smaller model without random effects: weighted least squares."""

    formula: str
    Q: Matrix  # (n, p) orthonormal columns of sqrt(W) X
    root_w: Vector
    offset: Vector
    log_weight_sum: float
    criterion: float
    model: ResponseModel

    @property
    def n_par(self) -> int:
        return int(self.Q.shape[1]) + 1

    def criteria(self, Y: Matrix, *, compiled: bool) -> Iterator[tuple[float, str]]:
        """Return the criterion of each response (n, r); there is always one."""
        rss = residual_squares(Y - self.offset[:, None], self.Q, self.root_w)[1]
        n = Y.shape[0]
        for value in rss.tolist():
            yield n * (1.0 + np.log(2.0 * np.pi * value / n)) - self.log_weight_sum, ""


def residual_squares(target: Matrix, Q: Matrix, root_w: Vector) -> tuple[Matrix, Vector]:
    """Return weighted fitted values (n, r) and residual sums of squares (r,)."""
    scaled = target * root_w[:, None]
    fitted = Q @ (Q.T @ scaled)
    rest = scaled - fitted
    more = Q @ (Q.T @ rest)
    rest = rest - more
    return fitted + more, (rest * rest).sum(axis=0)


def null_model(large: FittedModel, smaller: FittedModel | str) -> MixedNull | LinearNull:
    """Return the smaller model by maximum likelihood, for the rows of the larger one.

    Parameters
    ----------
    smaller : a fit, or a formula without random terms.

    Raises
    ------
    DataError : it belongs to other rows, another response, other weights or offsets.
    OptionError : it fits perfectly, or is neither a fit nor a formula without random terms.
    """
    if isinstance(smaller, FittedModel):
        require_same_data(large.matrices, smaller.matrices)
        fit = smaller.refit_ml()
        if not np.isfinite(fit.criterion):
            raise OptionError("the smaller model fits perfectly, sigma is zero: nothing to draw")
        return MixedNull(fit, model_of_fit(fit)[0])
    if not isinstance(smaller, str):
        raise OptionError(
            f"the smaller model is a {type(smaller).__name__}: give a fit, or a formula without "
            "random terms"
        )
    formula = parse_formula(smaller, require_random=False)
    if formula.random:
        raise OptionError(
            f"'{smaller}' has random terms: fit it with lmer first; only a formula without random "
            "terms is fitted here"
        )
    if large.call is None:
        raise OptionError("the larger model was made from matrices: give the smaller one as a fit")
    return _linear_null(large, smaller, large.call)


def _linear_null(large: FittedModel, text: str, call: ModelCall) -> LinearNull:
    matrices = _linear_matrices(large, text, call)
    source = _rows_of_large(matrices, large)
    (rows,) = source.blocks(size=matrices.nobs)
    y = rows.y
    if y.shape != large.matrices.y.shape or not np.array_equal(y, large.matrices.y):
        raise DataError(
            "the two models belong to different rows or responses: fit both to the rows that are "
            "complete in all their columns"
        )
    root_w, offset = rows.sqrt_w, rows.offset
    Q = _orthonormal(source)
    fitted, rss = residual_squares((y - offset)[:, None], Q, root_w)
    n = y.size
    if not rss[0] > 0.0:
        raise OptionError("the smaller model fits perfectly, sigma is zero: nothing to draw")
    sigma = float(np.sqrt(rss[0] / n))
    log_w = 2.0 * float(np.log(root_w).sum())
    return LinearNull(
        formula=text,
        Q=Q,
        root_w=root_w,
        offset=offset,
        log_weight_sum=log_w,
        criterion=float(n * (1.0 + np.log(2.0 * np.pi * rss[0] / n)) - log_w),
        model=ResponseModel(
            fitted[:, 0] / root_w + offset, (), sigma, Independent(root_w * root_w)
        ),
    )


def _linear_matrices(large: FittedModel, text: str, call: ModelCall) -> ModelMatrices:
    formula = parse_formula(text, require_random=False)
    # contrasts of a factor that is left out would be said to have no effect
    named = {plain_text(variable) for term in formula.fixed.terms for variable in term}
    matrices = model_matrices(
        formula,
        call.data,
        weights=call.weights,
        offset=call.offset,
        subset=call.subset,
        contrasts={
            name: value
            for name, value in (call.contrasts or {}).items()
            if plain_name(name) in named
        },
        env=call.env,
    )
    if call.response is not None and matrices.nobs == large.nobs:
        matrices = replace(matrices, y=call.response)
    return matrices


def _rows_of_large(matrices: ModelMatrices, large: FittedModel) -> RowSource:
    """Return the rows that the larger model has: cells are missing in its own columns too."""
    every, rows = InMemory.of(matrices), large.matrices.rows
    if matrices.nobs == large.nobs or rows is None:
        return every
    own = np.arange(matrices.n_input) if matrices.rows is None else matrices.rows
    return Without(every, np.flatnonzero(~np.isin(own, rows)))


def _orthonormal(source: RowSource) -> Matrix:
    """Return an orthonormal basis of the columns of sqrt(W) X (n, p), combinations left out."""
    R: Matrix | None = None
    pieces = []
    for rows in source.blocks():
        pieces.append(rows.root_weighted(rows.X))
        R = stack_qr(R, pieces[-1])
    assert R is not None
    return np.asarray(np.linalg.qr(np.vstack(pieces)[:, list(kept_columns(R))])[0])


def require_same_data(a: ModelMatrices, b: ModelMatrices) -> None:
    """Raise a DataError unless two designs have the same rows, response, weights and offset."""
    if a.nobs != b.nobs:
        raise DataError(
            f"the models belong to different rows, {a.nobs} and {b.nobs}: fit both to the rows "
            "that are complete in all their columns"
        )
    if not np.array_equal(a.y, b.y):
        raise DataError(
            f"the models have different responses, '{a.response_name}' and '{b.response_name}': "
            "fit both to the same one"
        )
    for what, first, second in (
        ("weights", a.weights, b.weights),
        ("offsets", a.offset, b.offset),
    ):
        same = first is second or (
            first is not None and second is not None and np.array_equal(first, second)
        )
        if not same:
            raise DataError(f"the models have different {what}: fit both with the same ones")
