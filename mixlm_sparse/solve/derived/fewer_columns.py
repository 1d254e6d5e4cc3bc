"""Systems of models whose fixed part spans less.

With X = Q R, Q'WQ = I, and y = Q c + y_f, let B (p, s) be an orthonormal basis, in the coordinates
of Q, of what the smaller model spans, and C (p, p - s) of what it does not.  Then

    y = (Q B) B'c + y_f',    y_f' = y_f + Q C C'c,    |y_f'|^2 = |y_f|^2 + |C'c|^2

so that its products follow from those at hand; nothing of length n is touched.  Z'WZ is what it
was, and so is the engine.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mixlm_sparse.common.types import Matrix
from mixlm_sparse.engines.interface import BlockSystem, FactorBlock
from mixlm_sparse.solve.system import PenalizedSystem

__all__ = ["with_fewer_columns"]


def with_fewer_columns(system: PenalizedSystem, B: Matrix, C: Matrix) -> PenalizedSystem:
    """Return the system whose fixed part is X~ = Q B.

    Its coefficients belong to the columns of Q B, which have no names of the formula; the criterion
    by maximum likelihood is that of any columns with this span.

    Parameters
    ----------
    system : of the whole model, without a residual structure; not changed.
    B : (p, s) orthonormal basis of what stays, in the coordinates Q'W of columns.
    C : (p, p - s) of what is left out.
    """
    products = system.products
    c = products.R_x @ products.beta_ols
    gone = C.T @ c
    blocks = []
    for f in products.blocks.factors:
        of_columns, of_response = f.ztx[:, :, :-1], f.ztx[:, :, -1:]
        moved = of_response + np.matmul(of_columns, (C @ gone)[:, None])
        ztx = np.concatenate([np.matmul(of_columns, B), moved], axis=2)
        blocks.append(FactorBlock(f.label, f.ztz, ztx))
    s = B.shape[1]
    reduced = replace(
        products,
        kept=tuple(range(s)),
        R_x=np.eye(s),
        D=np.zeros((s, 0)),
        beta_ols=B.T @ c,
        yy=products.yy + float(gone @ gone),
        blocks=BlockSystem(tuple(blocks), products.blocks.pairs),
    )
    return system.with_products(reduced, system.matrices, system.row_source)
