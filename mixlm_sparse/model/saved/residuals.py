"""A residual structure without its rows, to an archive and back.

The products in the file are those of the rows whitened at the optimum's rho.  Beside them stand
what reads new rows (visits, strata, levels), the sizes of the groups, and what of the curvature
needs rows: its Hessian, and the derivatives of [X y]'V^{-1}[X y] by rho.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixlm_sparse.common.errors import NotPositiveDefiniteError
from mixlm_sparse.common.types import Matrix, Vector
from mixlm_sparse.covariance.correlation import Correlation, Places
from mixlm_sparse.covariance.law import ResidualLaw
from mixlm_sparse.covariance.variance import Values, VarIdent
from mixlm_sparse.covariance.visits import Unstructured
from mixlm_sparse.design.matrices import ModelMatrices
from mixlm_sparse.design.residuals import ResidualState
from mixlm_sparse.model.fitted import FittedModel
from mixlm_sparse.model.rowless import MatricesWithoutRows
from mixlm_sparse.model.rowless_residuals import (
    LawWithoutRows,
    law_without_rows,
    whitened_without_rows,
)
from mixlm_sparse.model.saved.archive import Archive, Arrays
from mixlm_sparse.model.saved.parts import basis_from, finite
from mixlm_sparse.model.saved.structure import structure_from
from mixlm_sparse.solve.criterion import residual_df
from mixlm_sparse.solve.information import generators
from mixlm_sparse.solve.judging import hidden_in
from mixlm_sparse.solve.products.final import Products
from mixlm_sparse.solve.search.optimum import Optimum
from mixlm_sparse.solve.whitened.curvature import curvature_without_rows
from mixlm_sparse.solve.whitened.frame import Hidden, Whitened

__all__ = [
    "curvature_from", "curvature_to", "law_from", "law_rows_to", "require_hidden", "residuals_to",
    "whitened_from",
]  # fmt: skip

# Where a fit has no curvature, its file need not be large to name many parameters.
MOST_WITHOUT_CURVATURE = 2000
SAME_RTOL = 1e-6  # numbers that are computed again
LARGEST = 1e200  # of squares
LARGEST_SLOPE = 1e80  # of numbers that are multiplied with one another


def residuals_to(fit: FittedModel, arrays: Arrays) -> dict[str, Any]:
    """Return what the structure has learned as plain data; arrays are added to `arrays`."""
    state, whitened = fit.matrices.residuals, fit.system.whitened
    assert state is not None
    assert whitened is not None
    law = whitened.law
    if law.correlated:
        arrays["residuals.sizes"] = law.sizes
    arrays["residuals.open"] = whitened.whitening.without_influence()
    arrays["residuals.R_x"] = whitened.frame.plain.R_x
    hidden = hidden_in(fit.system, reml=fit.reml)
    if hidden.changes.shape[1]:
        arrays["residuals.hidden"] = hidden.changes.T
        arrays["residuals.hidden_within"] = hidden.within.reshape(hidden.within.shape[0], -1)
    products = fit.system.products
    explained = float(((products.R_x @ products.beta_ols) ** 2).sum())
    return {
        "length": float(np.sqrt(explained + products.yy)),
        "labels": list(state.places.labels),
        "visits": list(state.places.visits),
        "scale": state.places.scale,
        "step": list(state.step),
        "strata": list(state.strata),
        "levels": list(state.values.levels),
        "level_scale": state.values.scale,
        "crossed": list(whitened.frame.grown),
    }


def law_rows_to(law: ResidualLaw, arrays: Arrays) -> None:
    """Add the places of the rows of a design from matrices to `arrays`."""
    arrays["residuals.order"] = law.order
    arrays["residuals.stratum"] = law.stratum
    if law.correlated:
        arrays["residuals.t"] = law.t
    if law.variance is not None:
        arrays["residuals.x"] = law.x


def law_from(
    document: Mapping[str, Any], matrices: ModelMatrices, archive: Archive
) -> tuple[ResidualLaw, ResidualState]:
    """Return the law of the rows, or without them, and what reads new ones."""
    n = matrices.nobs
    sizes, state = _learned_from(document, n, archive)
    if isinstance(matrices, MatricesWithoutRows):
        return law_without_rows(state, sizes, n, matrices.why), state
    correlation, none = state.correlation, np.zeros(0)
    order = archive.positions("residuals.order", n, n).astype(np.intp)
    if (np.bincount(order, minlength=n) != 1).any():
        raise archive.broken("the rows of the residuals are incomplete")
    if correlation is None:
        sizes = np.ones(n, dtype=np.intp)
    t = none if correlation is None else archive.numbers("residuals.t", *_shape(n, correlation))
    groups, strata, levels = sizes.size, len(state.strata), len(state.values.levels)
    x: Any = none
    if isinstance(state.variance, VarIdent):
        x = archive.positions("residuals.x", n, levels).astype(np.intp)
    elif state.variance is not None:
        x = archive.numbers("residuals.x", n)
    return ResidualLaw(
        n=n, correlation=correlation, places=state.places, t=t, order=order,
        starts=np.append(0, np.cumsum(sizes)).astype(np.intp), strata=state.strata,
        stratum=archive.positions("residuals.stratum", groups, strata).astype(np.intp),
        variance=state.variance, values=state.values, x=x, weights=matrices.weights,
    ), state  # fmt: skip


def _shape(n: int, correlation: Correlation) -> tuple[int, ...]:
    """Return the shape of the places of rows."""
    positions = correlation.time_kind == "position"
    return (n, len(correlation.columns("position"))) if positions else (n,)


def _learned_from(
    document: Mapping[str, Any], n: int, archive: Archive
) -> tuple[NDArray[np.intp], ResidualState]:
    """Return the sizes of the groups (none without correlation), and what reads rows."""
    saved, structure = document["residuals"], structure_from(document.get("structure"))
    correlation, variance = structure.get("residual"), structure.get("variance")
    if correlation is None and variance is None:
        raise archive.broken("the residual structure is missing")
    sizes = np.zeros(0, dtype=np.intp)
    if correlation is not None:
        sizes = archive.positions("residuals.sizes", None, n + 1).astype(np.intp)
        if not sizes.size or (sizes < 1).any() or int(sizes.sum()) != n:
            raise archive.broken("the groups of the residuals are not of the rows")
    labels, strata, levels = (tuple(saved[key]) for key in ("labels", "strata", "levels"))
    visits = tuple(finite(value, archive, "visits") for value in saved["visits"])
    step = tuple(finite(value, archive, "step") for value in saved["step"])
    if len(step) != 2 or len(labels) > n or len(visits) not in (0, len(labels)):
        raise archive.broken("the visits of the residuals are incomplete")
    if visits != tuple(sorted(set(visits))):
        raise archive.broken("the visits of the residuals are out of order")
    for names in (labels, strata, levels):
        if len(set(names)) != len(names):
            raise archive.broken("the levels of the residuals occur twice")
    by = () if correlation is None else correlation.columns("by")
    if not strata or len(strata) > n or (not by and strata != ("",)):
        raise archive.broken("the strata of the residuals are incomplete")
    if isinstance(variance, VarIdent) != bool(levels) or len(levels) == 1:
        raise archive.broken("the levels of the variances are incomplete")
    scales = [finite(saved[key], archive, key) for key in ("scale", "level_scale")]
    if min(scales) <= 0.0:
        raise archive.broken("a scale of the residuals is not positive")
    state = ResidualState(
        correlation, variance,
        Places(labels, visits, scales[0], int(sizes.max(initial=1))),
        (step[0], step[1]), strata, Values(levels, scales[1]),
    )  # fmt: skip
    return sizes, state


def rho_to(law: ResidualLaw | None, rho: Vector) -> Vector:
    """Return rho as a file has it: of `Unstructured` the w of its factor, not their arcsinh."""
    return _pairs_as(np.sinh, law, rho)


def rho_from(law: ResidualLaw | None, rho: Vector) -> Vector:
    """Return the rho of `rho_to`."""
    return _pairs_as(np.arcsinh, law, rho)


def _pairs_as(
    function: Callable[[Vector], Vector], law: ResidualLaw | None, rho: Vector
) -> Vector:
    if law is None:
        return rho
    pairs = _pairs_of_visits(law)
    return np.concatenate([function(rho[:pairs]), rho[pairs:]])


def _pairs_of_visits(law: ResidualLaw) -> int:
    """Return how many of rho are w of `Unstructured`; they are the first."""
    T = law.places.T
    return T * (T - 1) // 2 * len(law.strata) if isinstance(law.correlation, Unstructured) else 0


def _steps(law: ResidualLaw, rho: Vector, m: int) -> Vector:
    """Return d rho / d omega, of rho as a file has it: (m + r,), with m ones before."""
    out, pairs = np.ones(m + rho.size), _pairs_of_visits(law)
    out[m : m + pairs] = np.cosh(rho[:pairs])
    return out


def whitened_from(
    saved: Mapping[str, Any],
    law: LawWithoutRows,
    products: Products,
    optimum: Optimum,
    archive: Archive,
) -> Whitened:
    """Return what is left of the whitened rows; what does not go together is a SavedFitError."""
    rho, T = optimum.rho, len(law.places.labels)
    # least squares splits the response in two orthogonal parts
    length = finite(saved["length"], archive, "length")
    explained = float(((products.R_x @ products.beta_ols) ** 2).sum())
    if not abs(explained + products.yy - length**2) <= SAME_RTOL * length**2 < LARGEST:
        raise archive.broken("the response is not that of the least-squares coefficients")
    k = optimum.phi.size + rho.size + 1
    if "curvature.hessian" in archive:
        archive.array("curvature.hessian", k, k)
    elif rho.size > MOST_WITHOUT_CURVATURE:
        raise archive.broken("the curvature is missing")
    # the number of pairs of visits before their names are made
    many = isinstance(law.correlation, Unstructured) and T * (T - 1) // 2 > rho.size
    if many or rho.shape != (law.n_rho,):
        raise archive.broken("the number of parameters is not that of the residuals")
    with np.errstate(over="raise", invalid="raise"):  # an error of `load_fit`
        natural = law.natural(rho)
    if not all(np.isfinite(values).all() for values in (rho, *natural)):
        raise archive.broken("the parameters of the residuals are no numbers")
    open_ = archive.array("residuals.open", rho.size)
    if open_.dtype != np.bool_:
        raise archive.broken("the array 'residuals.open' is not of truth values")
    return whitened_without_rows(
        law, rho, products,
        plain_R_x=basis_from("residuals.R_x", products.p, archive),
        open_=open_, crossed=tuple(str(label) for label in saved["crossed"]),
        hidden=_hidden_from(rho.size, products.p, archive),
    )  # fmt: skip


def _hidden_from(r: int, p: int, archive: Archive) -> Hidden:
    """Return the directions that the data do not determine."""
    if "residuals.hidden" not in archive:
        return Hidden(np.zeros((r + 1, 0)), np.zeros((0, p, p)))
    changes = archive.numbers("residuals.hidden", None, None)
    count, size = changes.shape
    within = archive.numbers("residuals.hidden_within", count, p * p)
    if not 0 < count <= r < size or (np.abs(changes).max(axis=1) != 1.0).any():
        raise archive.broken("the directions that the data do not determine are none")
    if (np.abs(within) > LARGEST_SLOPE).any():
        raise archive.broken("the array 'residuals.hidden_within' is out of range")
    return Hidden(changes.T, within.reshape(count, p, p))


def require_hidden(fit: FittedModel, archive: Archive) -> None:
    """Refuse a file whose hidden directions are not of its parameters."""
    whitened, system = fit.system.whitened, fit.system
    assert whitened is not None
    hidden = whitened.hidden
    if hidden is not None and hidden.changes.shape[1]:
        size = len(generators(system, known=True)) + system.n_rho + 1
        if hidden.changes.shape[0] != size:
            raise archive.broken("the directions that the data do not determine are of no model")


def curvature_to(fit: FittedModel, arrays: Arrays) -> None:
    """Add what of the curvature needs rows to `arrays`, unless the fit has none."""
    if fit.perfect:
        return
    try:
        curvature = fit.curvature
    except NotPositiveDefiniteError:  # and the loaded fit has none either
        return
    m, derivatives = fit.theta.size, curvature.derivatives
    whitened = fit.system.whitened
    assert whitened is not None
    steps = np.append(_steps(whitened.law, fit.optimum.rho, m), 1.0)
    own = steps[m:-1]
    parts = {
        "hessian": curvature.hessian / np.outer(steps, steps),
        "units": curvature.units * steps,
        "products": derivatives.products[m:] / own[:, None, None],
        "pwrss": derivatives.pwrss[m:] / own,
    }
    if all((np.abs(part) < LARGEST_SLOPE).all() for part in parts.values()):
        arrays |= {f"curvature.{name}": part for name, part in parts.items()}


def curvature_from(fit: FittedModel, archive: Archive) -> None:
    """Give a loaded fit its curvature, a cached property, if the file has one."""
    if "curvature.hessian" not in archive:
        return
    system, optimum = fit.system, fit.optimum
    r, P = system.n_rho, system.p + 1
    k = optimum.phi.size + r + 1
    H = archive.numbers("curvature.hessian", k, k)
    units = archive.numbers("curvature.units", k)
    forms = archive.numbers("curvature.products", r, P, P)
    pwrss = archive.numbers("curvature.pwrss", r)
    if not all(np.abs(part).max(initial=0.0) < LARGEST_SLOPE for part in (H, units, forms, pwrss)):
        raise archive.broken("the curvature is out of all proportion")
    size = np.sqrt(np.abs(np.diag(H)))
    if not (units > 0.0).all() or not _near(H, H.T, np.outer(size, size)):
        raise archive.broken("the curvature is no symmetric matrix")
    sizes = np.abs(forms).max(axis=(1, 2), initial=0.0)
    if not _near(forms, np.swapaxes(forms, 1, 2), sizes[:, None, None]):
        raise archive.broken("the derivatives of the products are not symmetric")
    whitened = system.whitened
    assert whitened is not None
    steps = np.append(_steps(whitened.law, optimum.rho, optimum.phi.size), 1.0)
    own = steps[optimum.phi.size : -1]
    H = H * np.outer(steps, steps)
    curvature = curvature_without_rows(
        optimum.phi, system, H, units / steps,
        (forms * own[:, None, None], pwrss * own), reml=fit.reml, sigma=optimum.sigma,
    )  # fmt: skip
    nu = residual_df(system, reml=fit.reml)
    last = np.append(np.zeros(k - 1), 4.0 * nu)
    if optimum.sigma is None:
        found = curvature.derivatives
        last[:-1] = -2.0 * nu / found.solution.pwrss * found.pwrss
    if not _near(H[-1], last, np.abs(last) + 4.0 * nu):
        raise archive.broken("the curvature is not that of the products")
    vars(fit)["curvature"] = curvature


def _near(a: Matrix, b: Matrix, size: Matrix) -> bool:
    """Say whether numbers are the same but for rounding of numbers of this size."""
    return bool((np.abs(a - b) <= SAME_RTOL * size + 1e-300).all())
