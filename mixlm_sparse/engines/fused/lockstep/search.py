"""The whole search of a block of responses in NumPy (see `engines.fused.search`)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mixlm_sparse.common.types import Array3, Matrix, Vector
from mixlm_sparse.engines.fused.classes import classes_of
from mixlm_sparse.engines.fused.dense import DenseProducts
from mixlm_sparse.engines.fused.descent import CLOSE_STEPS, GIVEN_UP, GRADIENTS, LIMIT, VALUES
from mixlm_sparse.engines.fused.differences import HESSIAN_STEP, MULTIPLES
from mixlm_sparse.engines.fused.found import FoundMany, Term
from mixlm_sparse.engines.fused.lockstep.arrays import along, inverse, product
from mixlm_sparse.engines.fused.lockstep.boundary import (
    hardly_off,
    principal_axes,
    settle,
    small_ones,
    unturn,
    without_small,
)
from mixlm_sparse.engines.fused.lockstep.dense import DenseSums
from mixlm_sparse.engines.fused.lockstep.descent import descend
from mixlm_sparse.engines.fused.lockstep.levels import LevelSums
from mixlm_sparse.engines.fused.lockstep.model import Law, Model, Places, Sums
from mixlm_sparse.engines.fused.lockstep.start import (
    Curvature,
    SquaresEquations,
    moment_starts,
    squares_starts,
)
from mixlm_sparse.engines.fused.search import LEG_EVALUATIONS, MAX_PASSES, SLOPE_LEFT, SMALL

Flags = NDArray[np.bool_]

# What is held of a block of responses may take so much; a few are always searched for together.
BLOCK_BYTES = 48_000_000
LEAST_BLOCK = 16
# Blocks of levels that differ by less, relative to their largest entry, are the same.
SAME_BLOCK = 1e-9


class LockstepSearch:
    """The search of many responses of a model with one grouping factor, or few random effects.

    Parameters
    ----------
    ztz, ztx : per grouping factor, (L, K, K) and (L, K, P); their responses are not read.
    dense : the products of several grouping factors together; None for one.
    terms : the random terms.
    nu, df, constant, least_pivot : as in `FusedSearch`.
    squares : equations that starts solve, where they tell the variances apart.
    """

    def __init__(
        self,
        ztz: Sequence[Array3],
        ztx: Sequence[Array3],
        terms: Sequence[Term],
        *,
        dense: DenseProducts | None = None,
        nu: int,
        df: int,
        constant: float,
        least_pivot: float,
        reml: bool,
        squares: SquaresEquations | None = None,
    ) -> None:
        self._ztz, self._ztx, self._df = ztz, ztx, float(max(df, 1))
        self._dense, self._squares = dense, squares
        widths = [A.shape[1] for A in ztz]
        self._law = Law(terms, widths, float(nu), constant, least_pivot, reml)
        blocks, members = list(ztz), [np.ones(A.shape[0]) for A in ztz]
        classes = classes_of(ztz[0], ztx[0].shape[2]) if len(ztz) == 1 else None
        if classes is not None:
            blocks, members = [classes.blocks], [classes.count]
        self._curvature = Curvature(blocks, members, terms, float(nu))
        self.m = 1 + max(int(term.position.max()) for term in terms)
        # of one response: its products and those that are left, N and B of all levels or blocks
        levels = sum(A.shape[0] * A.shape[1] for A in ztz)
        squares = sum(A.shape[0] * A.shape[1] ** 2 for A in blocks)
        self._bytes = 8 * (2 * levels + 2 * squares * (1 + ztx[0].shape[2]) + max(widths) ** 4)
        if dense is not None:
            self._bytes += 64 * dense.order * (dense.order + ztx[0].shape[2])

    @property
    def begins_close(self) -> bool:
        """Whether searches without a start begin at the optimum, or next to it.

        They do where all levels of a grouping factor have the same block, as in balanced designs.
        """
        return self._squares is not None and all(
            bool((np.abs(A - A[:1]) <= SAME_BLOCK * np.abs(A[0]).max()).all()) for A in self._ztz
        )

    def minimize_many(
        self,
        starts: Matrix | None,
        zy: Array3,
        yy: Vector,
        floor: Vector,
        *,
        tolerance: float,
        limit: int,
        floors: Vector | None = None,
    ) -> FoundMany:
        """Search for each of r responses; see `FusedSearch.minimize_many`."""
        if yy.size == 1:  # sums over one column would be taken in another order
            begin = None if starts is None else starts.repeat(2, axis=0)
            twice = self.minimize_many(
                begin, zy.repeat(2, axis=0), yy.repeat(2), floor.repeat(2), tolerance=tolerance,
                limit=limit, floors=floors,
            )  # fmt: skip
            return FoundMany._make(part[:1] for part in twice)
        step = max(LEAST_BLOCK, BLOCK_BYTES // self._bytes)
        found = []
        with np.errstate(all="ignore"):  # what fails is given up
            for lo in range(0, max(yy.size - 1, 1), step):
                own = slice(lo, lo + step if lo + step < yy.size - 1 else yy.size)
                begin = None if starts is None else starts[own]
                found.append(
                    self._minimize(begin, zy[own], yy[own], floor[own], tolerance, limit, floors)
                )
        if len(found) == 1:
            return found[0]
        return FoundMany._make(np.concatenate(parts) for parts in zip(*found, strict=True))

    def _minimize(
        self, starts: Matrix | None, zy: Array3, yy: Vector, floor: Vector, tolerance: float,
        limit: int, floors: Vector | None,
    ) -> FoundMany:  # fmt: skip
        r, m, P = yy.size, self.m, self._ztx[0].shape[2]
        points = 0 if floors is None else 4 * m
        own = self._by_factor(zy)
        model = Model(self._law, self._sums(own), yy, floor, P - 1)
        phi = self._begun(own, yy) if starts is None else starts.T.copy()
        at = np.arange(r)
        numbers, gradient = np.full((4, r), np.nan), np.full((m, r), np.nan)
        if r:
            phi = self._search(phi, gradient, numbers, tolerance, limit, model, at)
            good = np.flatnonzero(~model.given_up)
            model.given_up[good] = hardly_off(phi[:, good], numbers[0, good], model, good)
        counts = np.zeros((r, 9), dtype=np.int64)
        counts[:, VALUES] = counts[:, GRADIENTS] = model.values
        counts[:, GIVEN_UP] = model.given_up
        found = FoundMany(
            phi=phi.T.copy(),
            gradient=gradient.T.copy(),
            numbers=numbers.T.copy(),
            counts=counts,
            factors=np.moveaxis(model.factors, 2, 0).copy(),
            scales=np.full((r, m), np.nan),
            slopes=np.zeros((r, points, m)),
            products=np.zeros((r, points, P, P)),
        )
        if floors is not None:
            self._put_differences(phi, floors, found, model)
        return found

    def _by_factor(self, zy: Array3) -> list[Array3]:
        """Return Z'W y_f of every grouping factor, (L, K, r), of zy (r, N, K)."""
        out, first = [], 0
        for A in self._ztz:
            part = zy[:, first : first + A.shape[0], : A.shape[1]]
            out.append(np.ascontiguousarray(np.moveaxis(part, 0, 2)))
            first += A.shape[0]
        return out

    def hardly_off(self, phi: Matrix, zy: Array3, yy: Vector, floor: Vector) -> Flags:
        """Say of which ends phi (r, m) of other searches a small standard deviation wants more.

        Parameters
        ----------
        zy, yy, floor : as in `minimize_many`.
        """
        out = np.zeros(yy.size, dtype=bool)
        look = np.flatnonzero(small_ones(phi.T, self._law.terms))
        step = max(LEAST_BLOCK, BLOCK_BYTES // self._bytes)
        with np.errstate(all="ignore"):
            for lo in range(0, look.size, step):
                own = look[lo : lo + step]
                at, there = np.arange(own.size), phi[own].T
                sums = self._sums(self._by_factor(zy[own]))
                model = Model(self._law, sums, yy[own], floor[own], self._ztx[0].shape[2] - 1)
                out[own] = hardly_off(there, model.value_at(there, at)[0], model, at)
        return out

    def _begun(self, zy: list[Array3], yy: Vector) -> Matrix:
        """Return where searches begin, (m, r)."""
        terms = self._law.terms
        phi = moment_starts(self._ztz, self._ztx, zy, yy, self._df, terms)
        if self._squares is not None:
            found, good = squares_starts(self._squares, zy, yy, terms, self.m)
            phi[:, good] = found[:, good]
        return phi

    def _sums(self, zy: list[Array3]) -> Sums:
        if self._dense is not None:
            return DenseSums(self._dense, zy)
        return LevelSums(self._ztz[0], self._ztx[0], zy[0])

    # -- the search ---------------------------------------------------------------------------

    def _search(
        self, phi: Matrix, gradient: Matrix, numbers: Matrix, tolerance: float, limit: int,
        model: Model, at: Places,
    ) -> Matrix:  # fmt: skip
        """Search from phi (m, r); fill gradient and numbers, and return where searches ended."""
        moved, here = np.zeros(at.size, dtype=bool), np.zeros(at.size, dtype=bool)
        numbers[2] = 0.0
        todo = at
        for _ in range(MAX_PASSES):  # each pass but the last left a false boundary
            left = np.maximum(limit - model.values[todo], 1)
            phi[:, todo], numbers[0, todo], gradient[:, todo], numbers[1, todo], here[todo] = (
                self._descended(phi[:, todo], left, tolerance, model, todo)
            )
            numbers[2, todo] = np.where(model.values[todo] >= limit, 1.0, numbers[2, todo])
            todo = todo[~model.given_up[todo]]
            before = model.values[todo]
            phi[:, todo], numbers[0, todo], moved[todo], escaped = settle(
                phi[:, todo], numbers[0, todo], model, todo
            )
            here[todo] &= model.values[todo] == before
            looked = moved[todo] & ~escaped & ~model.given_up[todo]
            self._look(phi, gradient, numbers, model, todo[looked])
            here[todo] |= looked
            # the step onto the boundary may leave a slope behind
            escaped |= looked & (numbers[1, todo] > SLOPE_LEFT)
            todo = todo[escaped & (numbers[2, todo] == 0.0) & ~model.given_up[todo]]
            if not todo.size:
                break
        left_out = ~model.given_up & ~here
        self._look(phi, gradient, numbers, model, np.flatnonzero(left_out & moved))
        there = np.flatnonzero(left_out & ~moved)
        if there.size:
            model.value_at(phi[:, there], there)  # for the pwrss of this phi
            model.values[there] -= 1
        numbers[3] = model.pwrss
        return phi

    def _look(
        self, phi: Matrix, gradient: Matrix, numbers: Matrix, model: Model, at: Places
    ) -> None:
        """Put down the criterion, its gradient and the decrement at phi, where `settle` moved."""
        if not at.size:
            return
        numbers[0, at], gradient[:, at] = model.value_at(phi[:, at], at)
        H, good = inverse(self._curvature.at(phi[:, at], model, at))
        model.given_up[at] |= ~good
        g = gradient[:, at]
        numbers[1, at] = along(0.5 * g * product(H, g[:, None])[:, 0])

    def _descended(
        self, phi: Matrix, limit: NDArray[np.int64], tolerance: float, model: Model, at: Places
    ) -> tuple[Matrix, Vector, Matrix, Vector, Flags]:
        """Descend from phi (m, s), turning to the principal axes when a leg takes long.

        Returns
        -------
        phi, value, gradient, decrement, and whether the last evaluation was there.
        """
        m, s = phi.shape
        end = model.values[at] + limit
        leg = max(LEG_EVALUATIONS, 6 + m // 8)
        out, value, gradient = phi.copy(), np.full(s, np.inf), np.zeros((m, s))
        decrement, here = np.full(s, np.inf), np.zeros(s, dtype=bool)
        todo = np.arange(s)
        while todo.size:
            own = at[todo]
            left = end[todo] - model.values[own]
            more = np.clip(left - leg, 0, CLOSE_STEPS)
            hessian = self._curvature.at(out[:, todo], model, own)
            found = descend(
                out[:, todo], hessian, np.minimum(leg, left), more, tolerance, model, own
            )
            out[:, todo], value[todo], gradient[:, todo] = found.x, found.value, found.gradient
            decrement[todo], here[todo] = found.decrement, found.here
            again = (found.status == LIMIT) & (left > leg) & (model.values[own] < end[todo])
            todo = todo[again & ~model.given_up[own]]
            own = at[todo]
            if todo.size:
                out[:, todo] = principal_axes(out[:, todo], model, own)
                out[:, todo] = self._without_small(out[:, todo], value[todo], model, own)
            leg += 2
        turned = np.flatnonzero(model.turned[at])
        if turned.size:
            out[:, turned] = unturn(out[:, turned], model, at[turned])
            last = turned[~model.given_up[at[turned]]]
            if last.size:
                value[last], gradient[:, last] = model.value_at(out[:, last], at[last])
                here[last] = True
        return out, value, gradient, decrement, here

    def _without_small(
        self, phi: Matrix, value: Vector, model: Model, at: Places
    ) -> Matrix:
        """Return phi (m, s) without small directions where the criterion is lower, else phi."""
        out, tried = phi.copy(), phi
        left = np.ones(at.size, dtype=bool)
        for cut in SMALL:
            candidate = without_small(phi, cut, model)
            left &= (candidate != phi).any(axis=0)
            go = np.flatnonzero(left & (candidate != tried).any(axis=0))
            tried = candidate
            if not go.size:
                continue
            lower, _ = model.value_at(candidate[:, go], at[go])
            better = go[lower < value[go]]
            out[:, better] = candidate[:, better]
            left[better] = False
        return out

    def _put_differences(
        self, phi: Matrix, floors: Vector, found: FoundMany, model: Model
    ) -> None:
        """Fill scales, slopes and products of the searches that ended (see `differences`)."""
        at = np.flatnonzero(~model.given_up)
        if not at.size:
            return
        scales = np.full((self.m, at.size), np.inf)
        for t, (term, T) in enumerate(
            zip(self._law.terms, model.factors_of(phi[:, at]), strict=True)
        ):
            for a, row in enumerate(term.position):
                size = np.maximum(np.sqrt(along(T[a] * T[a])), floors[t])
                for i in row[row >= 0].tolist():
                    scales[i] = np.minimum(scales[i], size)
        values, pwrss = model.values.copy(), model.pwrss.copy()
        factors = model.factors.copy()
        for e in range(len(MULTIPLES) * self.m):
            i, multiple = divmod(e, len(MULTIPLES))
            point = phi[:, at].copy()
            point[i] += MULTIPLES[multiple] * HESSIAN_STEP * scales[i]
            found.slopes[at, e] = model.value_at(point, at)[1].T
            found.products[at, e] = np.moveaxis(model.factors[..., at], 2, 0)
        bad = model.given_up[at]
        found.scales[at] = np.where(bad, np.nan, scales).T
        model.values, model.pwrss, model.factors = values, pwrss, factors
