"""Everything the criterion needs that does not depend on theta.

The data enter once, by blocks of rows, and leave as products whose size does not depend on n:

    [X y]'W[X y]      as a triangular factor, by tall-skinny QR: R factors of blocks are stacked
                      and factored again, never a Gram matrix of raw columns
    Z_g'W[X y]        (L_g, K_g, p + 1) by level of each grouping factor
    Z_g'WZ_h          blocks of the pairs of levels that occur together

Raw columns can hide what matters behind large common parts (years near 2000, raw polynomials, a
response near 1e8), so products are formed in a *basis*, found by a QR of the first data seen:

    X~ = X B          orthonormal columns
    y~ = y - offset - X d         the residual of least squares
    z~ = z Rz^{-1}                per random-effects term; orthonormal up to scale where the term's
                                  covariance is unstructured, scaled only where it is not

and no digit is lost to cancellation.  Accumulators with different bases can be added: the second is
mapped to the basis of the first.  Terms that share a grouping factor are merged into one block.
"""

from __future__ import annotations

from mixlm_sparse.crossproducts.accumulate import CrossProducts, cross_products
from mixlm_sparse.crossproducts.basis import Basis, TermLayout
from mixlm_sparse.crossproducts.final import Products, orthonormal_products
from mixlm_sparse.crossproducts.rows import BLOCK_ROWS, row_blocks

__all__ = [
    "BLOCK_ROWS",
    "Basis",
    "CrossProducts",
    "Products",
    "TermLayout",
    "cross_products",
    "orthonormal_products",
    "row_blocks",
]
