"""A residual structure without the rows that it is of: its parameters, names and what it learned.

A fit whose rows are gone keeps the products of its whitened rows at its own rho.  Everything that
follows from these, and everything that is said of the structure itself, is there; what whitens rows
again, or is about one of them, says why it is not.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mixlm_sparse.common.types import Matrix, Vector
from mixlm_sparse.covariance.law import ResidualLaw
from mixlm_sparse.covariance.whitening import Whitening
from mixlm_sparse.design.residuals import ResidualState
from mixlm_sparse.model.rowless import SAVED, Reason, Rowless
from mixlm_sparse.solve.products.final import Products
from mixlm_sparse.solve.whitened.frame import Hidden, Whitened, WhitenedFrame

__all__ = ["LawWithoutRows", "law_without_rows", "whitened_without_rows"]


class _Part(Rowless):
    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


@dataclass(frozen=True, eq=False, repr=False)
class LawWithoutRows(_Part, ResidualLaw):
    """The law of rows that are not there; the sizes of its groups are known."""

    ROWS = frozenset({"t", "order", "stratum", "x", "weights"})
    why: Reason = SAVED


@dataclass(frozen=True, eq=False, repr=False)
class WhiteningWithoutRows(_Part, Whitening):
    """What whitened the rows.

    Parameters
    ----------
    open : (n_rho,) natural parameters that the rows left open.
    """

    ROWS = frozenset({"log_sd", "factors", "steps", "step_slopes"})
    open: NDArray[np.bool_] | None = None
    why: Reason = SAVED

    def without_influence(self) -> NDArray[np.bool_]:
        assert self.open is not None
        return self.open.copy()


@dataclass(frozen=True, eq=False, repr=False)
class FrameWithoutRows(_Part, WhitenedFrame):
    """The columns that were whitened.

    Parameters
    ----------
    crossed : labels of the factors whose levels residual groups mix.
    """

    ROWS = frozenset({"A", "Z", "levels", "spread", "meetings"})
    crossed: tuple[str, ...] = ()
    why: Reason = SAVED

    @property
    def grown(self) -> tuple[str, ...]:
        return self.crossed


@dataclass(frozen=True, eq=False, repr=False)
class WhitenedWithoutRows(_Part, Whitened):
    """The rows at one rho, of which the products are left."""

    ROWS = frozenset({"A", "Z", "M"})
    why: Reason = SAVED


def law_without_rows(
    state: ResidualState, sizes: NDArray[np.intp], n: int, why: Reason
) -> LawWithoutRows:
    """Return the law of n rows.

    Parameters
    ----------
    sizes : (groups,) rows of every group; none where there is no correlation.
    """
    none = np.zeros(0)
    return LawWithoutRows(
        n=n, correlation=state.correlation, places=state.places, t=none,
        order=np.zeros(0, dtype=np.intp), starts=np.append(0, np.cumsum(sizes)).astype(np.intp),
        strata=state.strata, stratum=np.zeros(0, dtype=np.intp), variance=state.variance,
        values=state.values, x=none, weights=None, why=why,
    )  # fmt: skip


def whitened_without_rows(
    law: LawWithoutRows,
    rho: Vector,
    products: Products,
    *,
    plain_R_x: Matrix,
    open_: NDArray[np.bool_],
    crossed: tuple[str, ...],
    hidden: Hidden,
) -> WhitenedWithoutRows:
    """Return what is left of whitened rows.

    Parameters
    ----------
    products : of the rows, whitened at rho (n_rho,).
    plain_R_x : (p, p) of the columns of X without structure.
    open_ : (n_rho,) natural parameters that the rows left open.
    crossed : labels of the factors whose levels residual groups mix.
    hidden : what the rows do not determine.
    """
    whitening = WhiteningWithoutRows(
        law=law, rho=rho, log_sd=None, factors=(), steps=None, step_slopes=(),
        log_det=-products.log_weight_sum, center=0.0, centered=False, open=open_, why=law.why,
    )  # fmt: skip
    none = np.zeros((0, products.p + 1))
    frame = FrameWithoutRows(
        law=law, plain=replace(products, R_x=plain_R_x), A=none, Z=(), levels=(), spread=(),
        meetings={}, crossed=crossed, why=law.why,
    )  # fmt: skip
    return WhitenedWithoutRows(
        frame=frame, whitening=whitening, A=none, Z=(), M=np.eye(products.p + 1),
        products=products, hidden=hidden, why=law.why,
    )  # fmt: skip
