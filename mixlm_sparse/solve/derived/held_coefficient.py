"""Systems of a model with one coefficient held at a value.

The column x leaves X and b x leaves the response.  With the column ordered last, X = Q R and q the
last column of Q, the direction of x that the other columns do not have,

    y - b x = X_rest beta + y_f + delta q,    delta = R_pp (beta_ols - b)

so that the products of the rest follow from those at hand; nothing of length n is touched.  Z'WZ is
what it was, and so is the engine.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mixlm_sparse.engines.interface import BlockSystem, FactorBlock
from mixlm_sparse.solve.rows import Shifted
from mixlm_sparse.solve.system import PenalizedSystem


class HeldColumn:
    """Makes the systems of one column of X held.

    Parameters
    ----------
    system : of the whole model; not changed.
    column : its place among the kept columns.

    Attributes
    ----------
    rest : places of the other columns.
    turn : (p, p) orthogonal: brings q last among the working columns.
    """

    def __init__(self, system: PenalizedSystem, column: int) -> None:
        self._system = system
        self._column = column
        products = system.products
        self.rest = [j for j in range(products.p) if j != column]
        turn, R = np.linalg.qr(products.R_x[:, [*self.rest, column]])
        signs = np.where(np.diag(R) < 0.0, -1.0, 1.0)
        self.turn, self._R = turn * signs, R * signs[:, None]
        self._turned = [
            np.concatenate([np.matmul(f.ztx[:, :, :-1], self.turn), f.ztx[:, :, -1:]], axis=2)
            for f in products.blocks.factors
        ]
        self._last: tuple[float, PenalizedSystem] | None = None

    def delta(self, b: float) -> float:
        """Return the multiple of q that y - b x has beyond the other columns and y_f."""
        return float(self._R[-1, -1] * (self._system.products.beta_ols[self._column] - b))

    def at(self, b: float) -> PenalizedSystem:
        """Return the system without the column, for the response y - b x."""
        if self._last is not None and self._last[0] == b:
            return self._last[1]
        system, products = self._system, self._system.products
        shift = products.beta_ols[self._column] - b
        delta = self.delta(b)
        blocks = []
        for f, turned in zip(products.blocks.factors, self._turned, strict=True):
            ztx = np.delete(turned, -2, axis=2)
            ztx[:, :, -1] += delta * turned[:, :, -2]
            blocks.append(FactorBlock(f.label, f.ztz, ztx))
        beta_ols = np.empty(0)
        if self.rest:
            # X_rest beta + x beta_j - b x: the part of shift * x in the span of the rest
            part = np.linalg.solve(self._R[:-1, :-1], self._R[:-1, -1] * shift)
            beta_ols = products.beta_ols[self.rest] + part
        reduced = replace(
            products,
            kept=tuple(products.kept[j] for j in self.rest),
            R_x=self._R[:-1, :-1],
            D=np.zeros((len(self.rest), 0)),  # what is dropped has a part of the held column
            beta_ols=beta_ols,
            yy=products.yy + delta * delta,
            blocks=BlockSystem(tuple(blocks), products.blocks.pairs),
        )
        source = Shifted(system.row_source, products.kept[self._column], b)
        found = system.with_products(reduced, system.matrices, source)
        self._last = b, found
        return found
