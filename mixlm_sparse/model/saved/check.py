"""Whether the parts of a loaded fit belong together: a file may be damaged, or made by anyone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixlm_sparse.common.errors import SavedFitError
from mixlm_sparse.common.types import Vector
from mixlm_sparse.design.matrices import ModelMatrices
from mixlm_sparse.design.members import effect_matrix
from mixlm_sparse.model.fitted import FittedModel
from mixlm_sparse.model.rowless import AbsentValues
from mixlm_sparse.model.saved.archive import Archive
from mixlm_sparse.solve.criterion import joint_criterion, profiled_criterion
from mixlm_sparse.solve.products.basis import term_layout
from mixlm_sparse.solve.products.final import Products
from mixlm_sparse.solve.rows import RowBlock
from mixlm_sparse.solve.search.optimum import Optimum
from mixlm_sparse.solve.system import PenalizedSystem

__all__ = [
    "require_consistent",
    "require_point",
    "require_rows",
    "require_solution",
    "require_sums_of_columns",
    "require_weights",
]

# Rounding differs between engines and machines; what has been changed differs by far more.
CRITERION_RTOL = 1e-6
ROWS_RTOL = 1e-5
ROUNDING = 1e-20  # squares below are zero, of columns scaled to one or n
LARGEST = 1e100


def require_weights(matrices: ModelMatrices, products: Products, archive: Archive) -> None:
    """Raise a SavedFitError unless weights and offset are numbers that go with the products."""
    w, total = matrices.weights, products.log_weight_sum
    structured = matrices.law is not None
    if w is None:
        if total != 0.0 and not structured:
            raise archive.broken("the weights are missing")
        return
    if isinstance(w, AbsentValues):
        return
    if not (np.isfinite(w).all() and (w > 0.0).all()):
        raise archive.broken("weights are not positive")
    if structured:
        return
    logs = np.log(w)
    if abs(float(logs.sum()) - total) > CRITERION_RTOL * (1.0 + float(np.abs(logs).sum())):
        raise archive.broken("the weights are not those of the fit")


def require_consistent(system: PenalizedSystem, archive: Archive) -> None:
    """Raise a SavedFitError unless design and products speak of the same model."""
    matrices, products = system.matrices, system.products
    factors = [(f.label, f.n_levels) for f in matrices.factors]
    if factors != [(f.label, f.n_levels) for f in products.blocks.factors]:
        raise archive.broken("the levels are not those of the products")
    if products.n != matrices.nobs or products.kept[-1:] >= (len(matrices.fixed.names),):
        raise archive.broken("the rows or columns are not those of the products")
    if products.p and products.D.shape[1] != len(matrices.fixed.names) - products.p:
        raise archive.broken("the columns left out are not those of the products")
    # least squares splits the response in two orthogonal parts
    explained = float(((products.R_x @ products.beta_ols) ** 2).sum())
    whole = products.y_length**2  # of a response that was not whitened
    near = abs(explained + products.yy - whole) <= CRITERION_RTOL * whole
    if not near and system.whitened is None:
        raise archive.broken("the response is not that of the least-squares coefficients")
    if any(term.template.k != len(term.column_names) for term in matrices.terms):
        raise archive.broken("the columns of a term are not those of its covariance")
    if term_layout(matrices) != products.layout:
        raise archive.broken("the random terms are not those of the products")


def require_sums_of_columns(
    products: Products, archive: Archive, *, whitened: bool = False
) -> None:
    """Raise a SavedFitError unless the blocks are sums of products of columns.

    No product of two columns exceeds that of their lengths, and the columns of a term, whose mean
    square is one, are divided among its levels.  What these leave open the criterion, or nothing,
    depends on; but numbers out of all proportion end computations elsewhere.

    Parameters
    ----------
    whitened : whether the columns were whitened, so that their mean square is another.
    """
    blocks, n = products.blocks, float(products.n)
    lengths = [np.diagonal(f.ztz, axis1=1, axis2=2) for f in blocks.factors]
    fits = all(bool((own >= 0.0).all()) and own.max(initial=0.0) < LARGEST for own in lengths)
    with np.errstate(all="ignore"):  # what overflows is no number, and fails the comparison
        for g, (f, own) in enumerate(zip(blocks.factors, lengths, strict=True)):
            if (g, g) not in blocks.pairs and not whitened:  # each row has one level
                total = n * own.shape[1]
                fits &= abs(float(own.sum()) - total) <= CRITERION_RTOL * total
            wide = np.append(np.ones(products.p), max(products.yy, products.y_length**2))
            fits &= _within(f.ztz**2, own[:, :, None] * own[:, None, :])
            fits &= _within(f.ztx**2, own[:, :, None] * wide)
        for (g, h), pair in blocks.pairs.items():
            most = lengths[g][pair.rows][:, :, None] * lengths[h][pair.cols][:, None, :]
            fits &= _within(pair.values**2, most)
    if not fits:
        raise archive.broken("its sums are not those of any rows")


def _within(parts: NDArray[Any], whole: NDArray[Any]) -> bool:
    """Say whether no part exceeds its whole but by rounding."""
    return bool((parts <= whole + CRITERION_RTOL * (whole + ROUNDING)).all())


def require_point(system: PenalizedSystem, optimum: Optimum, archive: Archive) -> None:
    """Raise a SavedFitError unless theta and phi are one point of the model."""
    if optimum.theta.shape != (system.n_theta,) or optimum.phi.shape != (system.n_theta,):
        sizes = f"{optimum.theta.size} and {optimum.phi.size}"
        raise archive.broken(f"{sizes} values of theta and phi for {system.n_theta}")
    if not np.isfinite(optimum.phi).all():
        raise archive.broken("phi is not finite")
    if (optimum.theta < system.lower).any():
        raise archive.broken("theta is below its bounds")
    chart = system.chart
    for T, S in zip(
        chart.theta_factors(optimum.theta), chart.covariances(optimum.phi), strict=True
    ):
        near = np.abs(T @ T.T - S) <= CRITERION_RTOL * np.abs(S).max(initial=0.0)
        if not (np.isfinite(S).all() and near.all()):
            raise archive.broken("theta and phi are two covariances")


def require_solution(fit: FittedModel, archive: Archive, *, given: bool = False) -> None:
    """Raise a SavedFitError unless the criterion is the one that the search ended with.

    Parameters
    ----------
    given : the rows, and with them the products, are the user's.
    """
    if fit.optimum.status == "perfect fit":
        return
    if not np.isfinite(fit.optimum.criterion):
        if fit.optimum.no_residual:
            return
        raise archive.broken("the criterion is no number")
    if fit.optimum.sigma is not None:
        lambdas, _ = fit.system.chart.lambdas_of_theta(fit.theta)
        d = joint_criterion(lambdas, float(np.log(fit.optimum.sigma)), fit.system, reml=fit.reml)[0]
    else:
        d = profiled_criterion(fit.theta, fit.system, reml=fit.reml)
    if not abs(d - fit.optimum.criterion) <= CRITERION_RTOL * max(1.0, abs(d), fit.nobs):
        raise _other_data() if given else archive.broken(
            "the criterion is not that of the estimates"
        )


def require_rows(fit: FittedModel, archive: Archive, *, given: bool) -> None:
    """Raise a SavedFitError unless the estimates solve the equations of the rows.

    At the solution X'W(y - mu) = 0 and Lambda'Z'W(y - mu) = u; of a perfect fit y = mu.

    Parameters
    ----------
    given : the rows were given by the user, not read from the file.
    """
    if _fits_rows(fit) if fit.optimum.status == "perfect fit" else _solves_rows(fit):
        return
    raise _other_data() if given else archive.broken("the data are not those of the estimates")


def _other_data() -> SavedFitError:
    return SavedFitError(
        "the data do not go with the saved fit: they have other values; give the data that the "
        "model was fitted to"
    )


def _remainders(fit: FittedModel) -> Iterator[tuple[RowBlock, Vector]]:
    """Yield blocks of rows, whitened, with y - mu of each."""
    solution, terms = fit.solution, fit.system.matrices.terms
    b = [solution.b(t) for t in range(len(terms))]
    for block in fit.system.white_rows():
        r = block.target - block.fixed_part(solution.beta)
        for t, term in enumerate(terms):
            r = r - block.random_part(t, term.factor, b[t])
        yield block, r


def _fits_rows(fit: FittedModel) -> bool:
    left = total = 0.0
    for block, r in _remainders(fit):
        left += float((block.root_weighted(r) ** 2).sum())
        total += float((block.root_weighted(block.target) ** 2).sum())
    return left <= ROWS_RTOL**2 * total


def _solves_rows(fit: FittedModel) -> bool:
    system, solution = fit.system, fit.solution
    matrices = system.matrices
    score, lengths, total = np.zeros(system.p), np.zeros(system.p), 0.0
    sums = [np.zeros_like(solution.b(t)) for t in range(len(matrices.terms))]
    squares = [np.zeros(effects.shape[0]) for effects in sums]
    for block, r in _remainders(fit):
        weighted = block.weighted(r)
        X = block.design
        score += X.T @ weighted
        lengths += (X * X if isinstance(X, np.ndarray) else X.multiply(X)).T @ block.weights
        total += float((block.root_weighted(block.target) ** 2).sum())
        for t, term in enumerate(matrices.terms):
            z, levels = block.z(t), block.levels(term.factor)
            root = block.root_weighted(z)
            for a in range(sums[t].shape[1]):
                Z = effect_matrix(z, levels, a, sums[t].shape[0])
                sums[t][:, a] += Z.T @ weighted
                Z = effect_matrix(root, levels, a, sums[t].shape[0])
                squares[t] += np.asarray(Z.multiply(Z).sum(axis=0)).ravel()
    length = float(np.sqrt(total))
    if (np.abs(score) > ROWS_RTOL * length * np.sqrt(lengths)).any():
        return False
    for t, effects in enumerate(sums):
        T = solution.Lambda(t)
        scale = length * np.sqrt(float(squares[t].max(initial=0.0))) * float(np.abs(T).sum())
        u = solution.u(t)
        known = matrices.factors[matrices.terms[t].factor].known
        if known is not None:  # Lambda'Z'W(y - mu) = Q a, and u = W a
            u = np.asarray(known.root.T @ u)
        scale += float(np.abs(u).max(initial=0.0))
        if (np.abs(effects @ T - u) > ROWS_RTOL * scale).any():
            return False
    return True
