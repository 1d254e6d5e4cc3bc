"""Systems of a model with a residual structure in which one coefficient is held at a value.

The column x leaves X and b x leaves the response, before rows are whitened: with the column last in
X = X~ R_x, R_x = T R and q the last column of X~ T,

    y - b x = X_rest beta + y~ + delta q,    delta = R_pp (beta_ols - b)

so that the frame for the rest follows from the frame at hand, for every rho.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mixlm_sparse.common.types import Vector
from mixlm_sparse.solve.derived.held_coefficient import HeldColumn
from mixlm_sparse.solve.system import PenalizedSystem
from mixlm_sparse.solve.whitened.frame import WhitenedFrame

__all__ = ["HeldWhitenedColumn"]


class HeldWhitenedColumn:
    """Makes the systems of one column of X held, for any rho.

    Parameters
    ----------
    system : of the whole model, at any rho; not changed.
    column : its place among the kept columns.

    Attributes
    ----------
    rest : places of the other columns.
    """

    def __init__(self, system: PenalizedSystem, column: int) -> None:
        assert system.whitened is not None
        self._system = system
        self._frame = system.whitened.frame
        self._plain = HeldColumn(replace(system, products=self._frame.plain), column)
        self.rest = self._plain.rest
        turned = self._frame.A[:, :-1] @ self._plain.turn
        self._X, self._q = turned[:, :-1], turned[:, -1]
        self._last: tuple[float, WhitenedFrame] | None = None

    def at(self, b: float, rho: Vector) -> PenalizedSystem:
        """Return the system without the column, for y - b x, with the centered law at rho.

        Raises
        ------
        NotPositiveDefiniteError : rho is too far out.
        """
        if self._last is None or self._last[0] != b:
            y = self._frame.A[:, -1] + self._plain.delta(b) * self._q
            frame = replace(
                self._frame, plain=self._plain.at(b).products, A=np.column_stack([self._X, y])
            )
            self._last = b, frame
        system = self._system
        whitened = self._last[1].at(rho, centered=True)
        return PenalizedSystem(
            system.matrices, whitened.products, system.templates,
            system.engine.reload(whitened.products.blocks), system.may_fuse, whitened=whitened,
        )  # fmt: skip
