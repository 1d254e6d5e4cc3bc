"""Known covariances of levels beside rows in batches: `known=` after the rows are summed.

A covariance of levels says nothing of the rows.  The sums by level are put where the matrix has the
levels; those that no row has get blocks of zeros, and random effects by their relatives.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from mixlm_sparse.common.types import IntVector
from mixlm_sparse.design.known import Known, places_among, require_factors, with_known
from mixlm_sparse.model.batches.products import ModelProducts
from mixlm_sparse.solve.products.arrange import with_levels

__all__ = ["related"]


def related(
    products: ModelProducts, known: Mapping[str, Known]
) -> tuple[ModelProducts, list[IntVector]]:
    """Return products with the levels of known matrices, and the place of every old level.

    Raises
    ------
    OptionError, DataError : a matrix is of no grouping factor, or lacks a level of the data.
    """
    require_factors(known, [factor.label for factor in products.factors])
    factors, places = [], []
    for factor in products.factors:
        own = known.get(factor.label)
        if own is None:
            places.append(np.arange(factor.n_levels, dtype=np.int32))
            factors.append(factor)
            continue
        places.append(places_among(factor, own).astype(np.int32))
        factors.append(with_known(factor, own))
    sizes = [factor.n_levels for factor in factors]
    cross = replace(
        products.cross, blocks=with_levels(products.cross.blocks, places, sizes), levels=None
    )
    return replace(products, factors=tuple(factors), cross=cross), places
