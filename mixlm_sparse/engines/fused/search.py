"""The whole search of a fused system as one compiled call: no Python between two evaluations.

`FusedSearch` holds what responses share; `minimize` searches for one response, `minimize_many` for
a block of them.  Buffers belong to the call and the interpreter's lock is released, so that threads
may search at the same time, with the same digits.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mixlm_sparse.common.types import Array3, Matrix, Vector
from mixlm_sparse.engines.compiled import inlined, inside, slow_to_compile
from mixlm_sparse.engines.fused.boundary import principal_axes, settle, unturn, without_small
from mixlm_sparse.engines.fused.dense import SmallDense
from mixlm_sparse.engines.fused.descent import (
    CLOSE_STEPS,
    COUNT,
    FIRST_COLUMN,
    FIRST_LEVEL,
    FLOOR,
    GIVEN_UP,
    GRADIENTS,
    HERE,
    HISTORY,
    LIMIT,
    MOST,
    PWRSS,
    TOLERANCE,
    TURNED,
    VALUES,
    WIDTH,
    YY,
    Model,
    bfgs,
    value_at,
)
from mixlm_sparse.engines.fused.differences import MULTIPLES, derivative, put_differences
from mixlm_sparse.engines.fused.found import Found, FoundMany, Term
from mixlm_sparse.engines.fused.levels import SingleFactor
from mixlm_sparse.engines.fused.products import CLOSURES
from mixlm_sparse.engines.fused.small import invert_symmetric
from mixlm_sparse.engines.fused.start import expected_hessian, moment_start

LEG_EVALUATIONS = 8
MAX_PASSES = 5
SMALL = (0.05, 0.01)
# A search goes on from the boundary where a Newton step would win more: the step there may leave a
# slope behind.
SLOPE_LEFT = 1e-7


@inlined
def descend(phi, hessian, limit, check_boundary, gradient, model):  # type: ignore[no-untyped-def]
    # Quasi-Newton, turning to the principal axes when a leg takes long. Returns value, decrement.
    m = phi.shape[0]
    state = model.state
    end = state[VALUES] + limit
    leg = LEG_EVALUATIONS
    if 6 + m // 8 > leg:
        leg = 6 + m // 8
    candidate, tried, slope = np.empty(m), np.empty(m), np.empty(m)
    while True:
        left = end - state[VALUES]
        state[MOST] = leg if leg < left else left
        more = left - leg
        if more > CLOSE_STEPS:
            more = CLOSE_STEPS
        value, decrement, status = bfgs(phi, hessian, gradient, more if more > 0 else 0, model)
        if state[GIVEN_UP] != 0 or status != LIMIT or left <= leg or state[VALUES] >= end:
            break
        principal_axes(phi, model)
        for i in range(m):
            tried[i] = phi[i]
        for cut in SMALL:
            if not check_boundary:
                break
            without_small(phi, cut, model.terms, candidate)
            new, any_small = False, False
            for i in range(m):
                new = new or candidate[i] != tried[i]
                any_small = any_small or candidate[i] != phi[i]
                tried[i] = candidate[i]
            if not any_small:
                break
            if new and value_at(candidate, slope, model) < value:
                for i in range(m):
                    phi[i] = candidate[i]
                break
        if state[GIVEN_UP] != 0:
            break
        if not expected_hessian(phi, hessian, model):
            state[GIVEN_UP] = 1
            break
        leg += 2
    if state[TURNED] != 0:
        unturn(phi, model)
        if state[GIVEN_UP] == 0:
            value = value_at(phi, gradient, model)
            state[HERE] = 1
    return value, decrement


@inside
def look(phi, gradient, numbers, hessian, H, model):  # type: ignore[no-untyped-def]
    # Put down the criterion, its gradient and the decrement at phi (m,).
    m = phi.shape[0]
    numbers[0] = value_at(phi, gradient, model)
    if not (expected_hessian(phi, hessian, model) and invert_symmetric(hessian, m, H)):
        model.state[GIVEN_UP] = 1
        return
    numbers[1] = 0.0
    for i in range(m):
        for j in range(m):
            numbers[1] += 0.5 * gradient[i] * H[i, j] * gradient[j]


@inside
def search(phi, limit, check_boundary, gradient, numbers, model):  # type: ignore[no-untyped-def]
    # From phi (m,), which becomes the end, with its gradient (m,); numbers (4,): value, predicted
    # decrease, 1 if the limit was reached, pwrss.
    m = phi.shape[0]
    state = model.state
    hessian, H = np.empty((m, m)), np.empty((m, m))
    moved, escaped, looked = False, True, False
    numbers[2] = 0.0
    n_passes = 0
    while escaped and n_passes < MAX_PASSES:  # each pass but the last left a false boundary
        n_passes += 1
        if not expected_hessian(phi, hessian, model):
            state[GIVEN_UP] = 1
            return
        left = limit - state[VALUES]
        numbers[0], numbers[1] = descend(
            phi, hessian, left if left > 1 else 1, check_boundary, gradient, model
        )
        if state[VALUES] >= limit:
            numbers[2] = 1.0
        moved, escaped = False, False
        if check_boundary and state[GIVEN_UP] == 0:
            numbers[0], moved, escaped = settle(phi, numbers[0], model)
        if state[GIVEN_UP] != 0:
            return
        looked = moved and not escaped
        if looked:
            look(phi, gradient, numbers, hessian, H, model)
            if state[GIVEN_UP] != 0:
                return
            escaped = numbers[1] > SLOPE_LEFT
        escaped = escaped and numbers[2] == 0.0
    if moved and not looked:
        look(phi, gradient, numbers, hessian, H, model)
    elif state[HERE] == 0 and not moved:  # pwrss of this phi, which is not counted
        value_at(phi, gradient, model)
        state[VALUES] -= 1
        state[GRADIENTS] -= 1
        if state[HISTORY] > 0:
            state[HISTORY] -= 1
    numbers[3] = model.scalars[PWRSS]


@inside
def put_response(model):  # type: ignore[no-untyped-def]
    # the rows and columns of the response in the sums of every class
    ztx, gram, code = model.ztx, model.gram, model.code
    N, K, P = ztx.shape
    y = P - 1
    for c in range(gram.shape[0]):
        for a in range(K):
            for i in range(K * P):
                gram[c, a * P + y, i] = 0.0
    for j in range(N):
        for a in range(K):
            z = ztx[j, a, y]
            for b in range(K):
                for d in range(P):
                    gram[code[j], a * P + y, b * P + d] += z * ztx[j, b, d]
    for c in range(gram.shape[0]):
        for a in range(K):
            for i in range(K * P):
                gram[c, i, a * P + y] = gram[c, a * P + y, i]


@slow_to_compile
def search_many(moments, zy, yy, floor, df, limit, check_boundary, phi, gradient, numbers, counts, S, floors, scales, slopes, products, model):  # type: ignore[no-untyped-def]  # fmt: skip  # noqa: E501
    # One search for each response: zy (r, N, K), yy, floor (r,); starts, unless by moments, and
    # results per row of phi, gradient (r, m), numbers (r, 4), counts (r, 9) and S (r, P, P). Where
    # slopes (r, 4m, m) have room, `put_differences` fills the rows of them, scales and products.
    ztx, X, layout, state = model.ztx, model.X, model.layout, model.state
    y = ztx.shape[2] - 1
    for r in range(zy.shape[0]):
        for j in range(zy.shape[1]):
            for a in range(zy.shape[2]):
                ztx[j, a, y] = zy[r, j, a]
        if X.shape[0] > 0:
            for g in range(layout.shape[1] - 1):
                K = layout[WIDTH, g]
                for i in range(layout[COUNT, g]):
                    for a in range(K):
                        at = layout[FIRST_COLUMN, g] + i * K + a
                        X[at, y] = zy[r, layout[FIRST_LEVEL, g] + i, a]
        if model.gram.shape[0] > 0:
            put_response(model)
        model.scalars[YY] = yy[r]
        model.scalars[FLOOR] = floor[r]
        for i in range(state.shape[0]):
            state[i] = 0
        if moments:
            moment_start(df, phi[r], model)
        search(phi[r], limit, check_boundary, gradient[r], numbers[r], model)
        for i in range(state.shape[0]):
            counts[r, i] = state[i]
        for a in range(y + 1):
            for b in range(y + 1):
                S[r, a, b] = model.S[a, b]
        if slopes.shape[1] > 0 and state[GIVEN_UP] == 0:
            put_differences(phi[r], floors, scales[r], slopes[r], products[r], model)


class FusedSearch:
    """The compiled search of a model with one grouping factor or few random effects.

    Parameters
    ----------
    fused : the fused evaluation, whose products are searched.
    ztz, ztx : per grouping factor, (L, K, K) and (L, K, P).
    terms : the random terms.
    nu : n or n - p; df : n - p.
    constant : what the criterion has beside log|C|, log|R_X|^2 of the working columns and pwrss.
    least_pivot : pivots of [X y]'V^{-1}[X y] below this lose too many digits.
    """

    def __init__(
        self,
        fused: SingleFactor | SmallDense,
        ztz: Sequence[Array3],
        ztx: Sequence[Array3],
        terms: Sequence[Term],
        *,
        nu: int,
        df: int,
        constant: float,
        least_pivot: float,
        reml: bool,
    ) -> None:
        self._df = float(max(df, 1))
        self._scalars = np.array(
            [fused.yy, fused.floor, nu, constant, least_pivot, float(reml), 0.0, np.nan, 1.0]
        )
        n_factors, P = len(ztz), ztx[0].shape[2]
        levels = np.array([a.shape[0] for a in ztz])
        widths = np.array([a.shape[1] for a in ztz])
        K = int(widths.max())
        layout = np.zeros((4, n_factors + 1), dtype=np.int64)
        layout[FIRST_LEVEL, 1:] = np.cumsum(levels)
        layout[WIDTH, :-1] = widths
        layout[FIRST_COLUMN, 1:] = np.cumsum(levels * widths)
        layout[COUNT, :-1] = levels
        self._layout = layout
        if n_factors == 1:
            self._ztz, self._ztx = np.ascontiguousarray(ztz[0]), np.ascontiguousarray(ztx[0])
        else:
            self._ztz = np.zeros((levels.sum(), K, K))
            self._ztx = np.zeros((levels.sum(), K, P))
            for g, (a, x) in enumerate(zip(ztz, ztx, strict=True)):
                at = slice(layout[FIRST_LEVEL, g], layout[FIRST_LEVEL, g + 1])
                self._ztz[at, : a.shape[1], : a.shape[1]] = a
                self._ztx[at, : a.shape[1]] = x
        self._A, self._X = np.zeros((0, 0)), np.zeros((0, 0))
        self._blocks, self._members = self._ztz, np.ones(self._ztz.shape[0])
        self._code, self._gram = np.zeros(0, dtype=np.int64), np.zeros((0, 0, 0))
        if isinstance(fused, SmallDense):
            self._A, self._X = fused.A, fused.X
        elif fused.classes is not None:
            self._blocks, self._members = fused.classes.blocks, fused.classes.count
            self._code, self._gram = fused.classes.code, fused.gram
        kmax = max(4, *(t.position.shape[0] for t in terms))  # four numbers stand in a first row
        self._terms = np.full((len(terms), 1 + kmax, kmax), -1, dtype=np.int64)
        for t, term in enumerate(terms):
            k = term.position.shape[0]
            self._terms[t, 0, :4] = term.factor, term.column, k, CLOSURES[term.closure]
            self._terms[t, 1 : 1 + k, :k] = term.position
        self.m = 1 + max(int(t.position.max()) for t in terms)

    def _model(self, tolerance: float, room: int) -> Model:
        """Return buffers of one call; what depends on the response is its own."""
        scalars = self._scalars.copy()
        scalars[TOLERANCE] = tolerance
        K, (n_terms, _, kmax) = self._ztz.shape[1], self._terms.shape
        return Model(
            ztz=self._ztz,
            ztx=self._ztx.copy(),
            blocks=self._blocks,
            members=self._members,
            code=self._code,
            gram=self._gram.copy(),
            A=self._A,
            X=self._X.copy(),
            layout=self._layout,
            terms=self._terms,
            scalars=scalars,
            factors=np.zeros((2, self._layout.shape[1] - 1, K, K)),
            turn=np.zeros((n_terms, kmax, kmax)),
            state=np.zeros(9, dtype=np.int64),
            history=np.empty(room),
            S=np.zeros((self._ztx.shape[2], self._ztx.shape[2])),
        )

    def minimize(
        self,
        start: Vector | None,
        *,
        tolerance: float,
        limit: int,
        check_boundary: bool,
        floors: Vector | None = None,
    ) -> Found | None:
        """Search from phi (m,), or from a moment estimate.

        Parameters
        ----------
        floors : as in `minimize_many`; with them the Hessian is formed, too.

        Returns
        -------
        where the search ended, or None where it was given up: the engines can do better there.
        """
        y = self._ztx.shape[2] - 1
        found, history = self._search(
            None if start is None else start[None], self._ztx[None, :, :, y],
            self._scalars[[YY]], self._scalars[[FLOOR]], tolerance, limit,
            check_boundary=check_boundary, room=limit + 50 * (1 + len(self._terms)), floors=floors,
        )  # fmt: skip
        numbers, counts = found.numbers[0], found.counts[0]
        if counts[GIVEN_UP]:
            return None
        hessian, scales = None, found.scales[0]
        if floors is not None:
            slopes = found.slopes[0].reshape(self.m, len(MULTIPLES), self.m)
            H = derivative(np.swapaxes(slopes, 0, 1), scales[:, None])
            hessian = 0.5 * (H + H.T)
        return Found(
            found.phi[0], found.gradient[0], float(numbers[0]), float(numbers[1]),
            bool(numbers[2]), int(counts[VALUES]), int(counts[GRADIENTS]),
            history[: counts[HISTORY]], hessian, scales,
        )  # fmt: skip

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
        """Search for each of r responses.

        Parameters
        ----------
        starts : (r, m) phi, or None for moment estimates.
        zy : (r, N, K) Z'W y_f over the levels of all factors, padded with zeros.
        yy, floor : (r,).
        floors : per term, the least size of a step (see `differences`); None for no differences.
        """
        return self._search(
            starts, zy, yy, floor, tolerance, limit, check_boundary=True, room=0, floors=floors
        )[0]

    def _search(
        self, starts: Matrix | None, zy: Array3, yy: Vector, floor: Vector, tolerance: float,
        limit: int, *, check_boundary: bool, room: int, floors: Vector | None,
    ) -> tuple[FoundMany, Vector]:  # fmt: skip
        """Search, and return so many entries of the last search's history as there is room for."""
        r, m, P = yy.size, self.m, self._ztx.shape[2]
        points = 0 if floors is None else 4 * m
        found = FoundMany(
            phi=np.zeros((r, m)) if starts is None else np.array(starts, dtype=np.float64),
            gradient=np.full((r, m), np.nan),
            numbers=np.full((r, 4), np.nan),
            counts=np.zeros((r, 9), dtype=np.int64),
            factors=np.zeros((r, P, P)),
            scales=np.full((r, m), np.nan),
            slopes=np.zeros((r, points, m)),
            products=np.zeros((r, points, P, P)),
        )
        model = self._model(tolerance, room)
        search_many(
            starts is None, np.ascontiguousarray(zy), yy, floor, self._df, limit, check_boundary,
            *found[:5], np.zeros(0) if floors is None else floors, *found[5:], model,
        )  # fmt: skip
        return found, model.history
