"""All that is computed of the rows before a fit is saved without them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mixlm_sparse.common.types import Matrix
from mixlm_sparse.inference.fixed import estimable, terms
from mixlm_sparse.inference.fixed.kenward_roger_kept import KEEPER as KENWARD_ROGER
from mixlm_sparse.inference.means.predictors_kept import KEEPER as PREDICTORS
from mixlm_sparse.inference.variance import shares
from mixlm_sparse.model.fitted import FittedModel
from mixlm_sparse.model.saved.kept import Keeper, keeper_of_arrays

__all__ = ["KEEPERS"]

SAME_RTOL = 1e-6  # sums of products of columns that are formed in two ways


def _coordinates(fit: FittedModel) -> Mapping[str, Matrix] | None:
    return {"C": estimable.column_coordinates(fit)} if fit.system.dropped else None


def _coordinates_shapes(fit: FittedModel) -> Mapping[str, tuple[int, ...]]:
    return {"C": (fit.system.p, len(fit.matrices.fixed.names))}


def _same_columns(fit: FittedModel, found: Mapping[str, Matrix]) -> bool:
    """Say whether the coordinates of the columns kept have the products of these columns."""
    products = fit.system.products
    C, R = found["C"][:, list(products.kept)], products.R_x
    lengths = np.sqrt((R * R).sum(axis=0))
    return bool((np.abs(C.T @ C - R.T @ R) <= SAME_RTOL * np.outer(lengths, lengths)).all())


def _unweighted(fit: FittedModel) -> Mapping[str, Matrix] | None:
    """Return U with U'U = Q'Q, where it is not the identity."""
    if fit.matrices.weights is None and fit.matrices.law is None:
        return None
    return {"U": terms.unweighted_root(terms.fixed_terms(fit))} if fit.system.p else None


def _unweighted_shapes(fit: FittedModel) -> Mapping[str, tuple[int, ...]]:
    return {"U": (fit.system.p, fit.system.p)}


def _shares_shapes(fit: FittedModel) -> Mapping[str, tuple[int, ...]]:
    widths = [len(term.column_names) for term in fit.matrices.terms]
    return {
        "cov_X": (fit.system.p, fit.system.p),
        **{f"moment.{t}": (k, k) for t, k in enumerate(widths)},
        "residual": (1 + fit.system.n_rho,),
    }


KEEPERS: tuple[Keeper, ...] = (
    KENWARD_ROGER,
    PREDICTORS,
    keeper_of_arrays(estimable.KEPT_AS, _coordinates, _coordinates_shapes, _same_columns),
    keeper_of_arrays(terms.KEPT_AS, _unweighted, _unweighted_shapes),
    keeper_of_arrays(shares.KEPT_AS, shares.row_sums, _shares_shapes),
)
