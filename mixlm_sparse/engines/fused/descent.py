"""The compiled search: criterion and gradient in phi, and the quasi-Newton descent on them.

The mathematics and the steps are those of `mixlm_sparse.solve.search`, where they are explained;
both are tested against each other.  A search is given up where an evaluation has no factor or loses
its digits: the caller then searches with the engines, which can do better.

numba takes seconds for a function, less for its work than for every argument and every array
expression: one `Model` goes through all of them, and loops stand where NumPy would be shorter.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mixlm_sparse.common.types import Array3, Matrix, Vector
from mixlm_sparse.engines.compiled import inlined, inside
from mixlm_sparse.engines.fused.classes import gradient_classes, sweep_classes
from mixlm_sparse.engines.fused.dense import gradient_dense, sweep_dense
from mixlm_sparse.engines.fused.levels import gradient_levels, sweep_levels
from mixlm_sparse.engines.fused.profile import profile
from mixlm_sparse.engines.fused.small import invert_symmetric


class Model(NamedTuple):
    """What all functions of one search share.

    Parameters
    ----------
    ztz, ztx : (N, K, K) and (N, K, P) over the levels of all grouping factors, padded with zeros.
    blocks, members : (C, K, K), and (C,) numbers of levels with them, of the classes (see
        `classes`); where there are none, `ztz` and ones.
    code, gram : (N,) and (C, KP, KP) of the classes; where there are none, empty.
    A, X : Z'WZ (q, q) and Z'W[X y] (q, P) of a system that is treated as dense, else (0, 0).
    layout : (4, G + 1): first level, width, first column and number of levels per factor.
    terms : (T, 1 + k, k), k at least 4. Row 0 of a term: its factor, first column there, number of
        columns, closure; then the parameter at each place of its factor T, -1 for a zero.
    scalars : yy, floor, nu, what does not depend on theta, least pivot, 1 for REML, tolerance,
        and, written here, pwrss of the last evaluation.
    factors : (2, G, K, K): Lambda, and the derivative of the criterion by it.
    turn : (T, k, k) rotation of the working columns of every term, in use if state[TURNED].
    state : counts of values and gradients, 1 if given up, entries of `history`, 1 if turned,
        evaluations of this descent, their limit, 1 if Lambda is set already, 1 if the last
        evaluation was at the point where the descent is.
    history : criterion at each evaluation, as far as there is room.
    S : (P, P) [X y]'V^{-1}[X y] of the last evaluation; its lower triangle is the Cholesky factor.
    """

    ztz: Array3
    ztx: Array3
    blocks: Array3
    members: Vector
    code: NDArray[np.int64]
    gram: Array3
    A: Matrix
    X: Matrix
    layout: NDArray[np.int64]
    terms: NDArray[np.int64]
    scalars: Vector
    factors: NDArray[np.float64]
    turn: Array3
    state: NDArray[np.int64]
    history: Vector
    S: Matrix


VALUES, GRADIENTS, GIVEN_UP, HISTORY, TURNED, USED, MOST, PROBING, HERE = range(9)
YY, FLOOR, NU, CONSTANT, LEAST_PIVOT, REML, TOLERANCE, PWRSS, PIVOT = range(9)
FIRST_LEVEL, WIDTH, FIRST_COLUMN, COUNT = range(4)
FACTOR, COLUMN, COLUMNS, CLOSURE = range(4)
CONVERGED, STALLED, LIMIT = range(3)

ARMIJO = 1e-4
CURVATURE = 0.9
EPS = float(np.finfo(np.float64).eps)
ROUNDING = 64.0 * EPS
UNITS = 4.0  # of rounding in a remainder of sums of squares
MAX_LINE_SEARCH = 25
MAX_STEP = 2.0
CLOSE, CLOSE_STEPS = 1e-3, 4  # as in `solve.search.bfgs`
SATURATED = 2e4  # as in `profiled.runaway`: beyond, the search in Python knows what to do


@inlined
def evaluate(model):  # type: ignore[no-untyped-def]
    # the criterion at factors[0]; its derivative goes to factors[1]
    scalars, state = model.scalars, model.state
    P = model.ztx.shape[2]
    S, Omega, out = model.S, np.empty((P, P)), np.empty(5)
    state[VALUES] += 1
    state[GRADIENTS] += 1
    lams, G = model.factors[0], model.factors[1]
    reml = scalars[REML] != 0.0
    q = model.A.shape[0]
    if model.gram.shape[0] > 0:
        X, Cinv = np.empty_like(model.blocks), np.empty_like(model.blocks)
        sweep_classes(
            model.blocks, model.members, model.gram, scalars[YY], lams[0], Cinv, X, S, out
        )
        if out[3] == 0.0:
            profile(S, scalars[FLOOR], scalars[NU], reml, Omega, out)
            gradient_classes(
                model.blocks, model.members, model.gram, lams[0], Cinv, X, Omega, G[0]
            )
    elif q == 0:
        U, Cinv = np.empty_like(model.ztx), np.empty_like(model.ztz)
        sweep_levels(model.ztz, model.ztx, scalars[YY], lams[0], U, Cinv, S, out)
        if out[3] == 0.0:
            profile(S, scalars[FLOOR], scalars[NU], reml, Omega, out)
            gradient_levels(model.ztz, model.ztx, lams[0], U, Cinv, Omega, G[0])
    else:
        n_factors = model.layout.shape[1] - 1
        width = model.layout[WIDTH, :n_factors]
        first, count = model.layout[FIRST_COLUMN, :n_factors], model.layout[COUNT, :n_factors]
        M, C, V = np.empty((q, q)), np.empty((q, q)), np.empty((q, P))
        sweep_dense(
            model.A, first, count, width, lams, model.X, scalars[YY], M, C, V, S, out
        )
        if out[3] == 0.0:
            profile(S, scalars[FLOOR], scalars[NU], reml, Omega, out)
            gradient_dense(first, count, width, model.X, M, C, V, Omega, G)
    if out[3] != 0.0 or not out[4] >= scalars[LEAST_PIVOT]:
        state[GIVEN_UP] = 1
        return np.inf
    nu = scalars[NU]
    value = out[0] + nu * (1.0 + np.log(2.0 * np.pi * out[2] / nu)) + scalars[CONSTANT]
    if reml:
        value += out[1]
    if not abs(value) < np.inf:
        state[GIVEN_UP] = 1
        return np.inf
    scalars[PWRSS] = out[2]
    scalars[PIVOT] = out[4]
    return value


@inside
def set_factors(phi, model):  # type: ignore[no-untyped-def]
    # Lambda at phi, in the working columns or those that they were turned to
    terms, turn, lams = model.terms, model.turn, model.factors
    turned = model.state[TURNED] != 0
    for t in range(terms.shape[0]):
        f, c, k = terms[t, 0, FACTOR], terms[t, 0, COLUMN], terms[t, 0, COLUMNS]
        for a in range(k):
            for b in range(k):
                value = 0.0
                if turned:
                    for d in range(k):
                        if terms[t, 1 + d, b] >= 0:
                            value += turn[t, a, d] * phi[terms[t, 1 + d, b]]
                elif terms[t, 1 + a, b] >= 0:
                    value = phi[terms[t, 1 + a, b]]
                lams[0, f, c + a, c + b] = value


@inside
def value_at(phi, slope, model):  # type: ignore[no-untyped-def]
    # the criterion at phi (m,), or at factors[0] as they are if state[PROBING]; its gradient goes
    # to slope (m,), its derivative by Lambda to factors[1]
    state, terms, turn, G = model.state, model.terms, model.turn, model.factors
    state[HERE] = 0
    for i in range(phi.shape[0]):
        slope[i] = 0.0
        if abs(phi[i]) > SATURATED:
            state[GIVEN_UP] = 1
            return np.inf
    if state[PROBING] == 0:
        set_factors(phi, model)
    value = evaluate(model)
    if state[GIVEN_UP] != 0:
        return value
    if state[PROBING] == 0 and state[HISTORY] < model.history.shape[0]:
        model.history[state[HISTORY]] = value
        state[HISTORY] += 1
    for t in range(terms.shape[0]):
        f, c, k = terms[t, 0, FACTOR], terms[t, 0, COLUMN], terms[t, 0, COLUMNS]
        for a in range(k):
            for b in range(k):
                if terms[t, 1 + a, b] < 0:
                    continue
                s = G[1, f, c + a, c + b]
                if state[TURNED] != 0:
                    s = 0.0
                    for d in range(k):
                        s += turn[t, d, a] * G[1, f, c + d, c + b]
                slope[terms[t, 1 + a, b]] += s
    return value


@inside
def interpolate(a, fa, da, b, fb, db):  # type: ignore[no-untyped-def]
    # the minimum of the cubic (or parabola) through two points, kept inside them
    width = b - a
    if not abs(fb) < np.inf:
        return a + 0.1 * width
    best = b
    if fb - fa != da * width:
        best = a - 0.5 * da * width * width / (fb - fa - da * width)
    if abs(db) < np.inf:
        theta = 3.0 * (fa - fb) / width + da + db
        inside = theta * theta - da * db
        if inside >= 0.0:
            root = np.sqrt(inside)
            if db - da + 2.0 * root != 0.0:
                best = b - width * (db + root - theta) / (db - da + 2.0 * root)
    if best < a + 0.1 * width:
        return a + 0.1 * width
    if best > a + 0.9 * width:
        return a + 0.9 * width
    return best


@inside
def newton_step(H, gradient, step):  # type: ignore[no-untyped-def]
    m = gradient.shape[0]
    slope = 0.0
    for i in range(m):
        s = 0.0
        for j in range(m):
            s -= H[i, j] * gradient[j]
        step[i] = s
        slope += gradient[i] * s
    return slope


@inlined
def rounding_of(value, model):  # type: ignore[no-untyped-def]
    # How uncertain the criterion that was evaluated last is: what remains of sums of squares has
    # their rounding, which is that much larger beside it.
    squares = UNITS * EPS * model.scalars[NU] / model.scalars[PIVOT]
    return max(ROUNDING * abs(value), squares)


@inlined
def line_search(x, value, slope, step, found, model):  # type: ignore[no-untyped-def]
    # found (2, m): the point, and its gradient. Returns its value (inf: none is lower), how far
    # it is along the step, and whether it is accepted.
    m = x.shape[0]
    state = model.state
    point, trial_gradient = np.empty(m), np.empty(m)
    noise = rounding_of(value, model)
    alpha, low, high = 1.0, 0.0, np.inf
    slope_low, value_low = slope, value
    best, best_alpha = np.inf, 0.0
    for _ in range(MAX_LINE_SEARCH):
        for i in range(m):
            point[i] = x[i] + alpha * step[i]
        trial = value_at(point, trial_gradient, model)
        state[USED] += 1
        if state[GIVEN_UP] != 0:
            return best, best_alpha, False
        trial_slope = 0.0
        for i in range(m):
            trial_slope += trial_gradient[i] * step[i]
        better = trial < value and trial < best
        armijo = trial <= value + ARMIJO * alpha * slope
        flat = trial <= value + noise and trial_slope <= (2.0 * ARMIJO - 1.0) * slope
        accepted = (armijo or flat) and not trial_slope < CURVATURE * slope
        if better or accepted:
            best, best_alpha = trial, alpha
            for i in range(m):
                found[0, i] = point[i]
                found[1, i] = trial_gradient[i]
        if accepted:
            return best, best_alpha, True
        if not (armijo or flat):
            high = alpha
            alpha = interpolate(low, value_low, slope_low, alpha, trial, trial_slope)
        else:
            low, value_low, slope_low = alpha, trial, trial_slope
            alpha = 0.5 * (low + high) if high < np.inf else 2.5 * alpha
        if state[USED] >= state[MOST]:
            break
    return best, best_alpha, False


@inlined
def bfgs(x, hessian, gradient, more, model):  # type: ignore[no-untyped-def]
    # From x (m,), which becomes the end; `more` evaluations where it is near. Returns value, Newton
    # decrement, status. Long, because every further function costs half a second to compile.
    m = x.shape[0]
    state = model.state
    H0, H = np.empty((m, m)), np.empty((m, m))
    step, y, Hy = np.empty(m), np.empty(m), np.empty(m)
    found = np.empty((2, m))
    value = value_at(x, gradient, model)
    if not invert_symmetric(hessian, m, H0):
        state[GIVEN_UP] = 1
    state[USED], state[HERE] = 1, 1
    fresh, restart = True, True
    while state[GIVEN_UP] == 0:
        if restart:
            for i in range(m):
                for j in range(m):
                    H[i, j] = H0[i, j]
            fresh, restart = True, False
        slope = newton_step(H, gradient, step)
        if not slope < 0.0:
            flat = True
            for i in range(m):
                flat = flat and gradient[i] == 0.0
            if flat:
                return value, 0.0, CONVERGED
            if fresh:
                return value, 0.0, STALLED
            restart = True
            continue
        decrement = -0.5 * slope
        if decrement <= model.scalars[TOLERANCE] or decrement <= EPS * abs(value):
            return value, decrement, CONVERGED
        if state[USED] >= state[MOST]:
            if more == 0 or decrement > CLOSE:
                return value, decrement, LIMIT
            state[MOST] += more
            more = 0
        longest = 0.0
        for i in range(m):
            size = abs(step[i])
            if abs(x[i]) > 1.0:
                size /= abs(x[i])
            if size > longest:
                longest = size
        if longest > MAX_STEP:
            for i in range(m):
                step[i] *= MAX_STEP / longest
            slope *= MAX_STEP / longest
        best, alpha, accepted = line_search(x, value, slope, step, found, model)
        if state[GIVEN_UP] != 0:
            break
        if not best < np.inf:
            if state[USED] >= state[MOST]:
                return value, -0.5 * slope, LIMIT
            if fresh:
                return value, -0.5 * slope, STALLED
            restart = True
            continue
        sy, ss, yy = 0.0, 0.0, 0.0
        for i in range(m):
            y[i] = found[1, i] - gradient[i]
            step[i] *= alpha
            sy += step[i] * y[i]
            ss += step[i] * step[i]
            yy += y[i] * y[i]
        if accepted and sy > 1e-10 * np.sqrt(ss * yy):
            yHy = 0.0
            for i in range(m):
                s = 0.0
                for j in range(m):
                    s += H[i, j] * y[j]
                Hy[i] = s
                yHy += y[i] * s
            for i in range(m):
                for j in range(m):
                    H[i, j] += (1.0 + yHy / sy) / sy * step[i] * step[j]
                    H[i, j] -= (Hy[i] * step[j] + step[i] * Hy[j]) / sy
            fresh = False
        for i in range(m):
            x[i] = found[0, i]
            gradient[i] = found[1, i]
        value = best
        state[HERE] = 1 if accepted else 0  # the last trial was the one that is taken
    return np.inf, np.inf, STALLED
