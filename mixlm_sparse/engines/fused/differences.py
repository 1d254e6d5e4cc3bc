"""Central differences of fourth order, and those about the optimum of a compiled search.

What `mixlm_sparse.solve.curvature` does for one response with the engines, for each of many.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mixlm_sparse.engines.compiled import inlined
from mixlm_sparse.engines.fused.descent import COLUMNS, GIVEN_UP, value_at

# Relative step of the differences, and its multiples.  They are of fourth order: the error of the
# formula is below 1e-10, that of rounding about 1e-16 / 1e-3.
HESSIAN_STEP = 1e-3
MULTIPLES = (1.0, -1.0, 2.0, -2.0)


def derivative(values: ArrayLike, scales: Any) -> NDArray[np.float64]:
    """Return the derivative (...) from values (4, ...) at steps HESSIAN_STEP scales MULTIPLES."""
    up, down, far_up, far_down = np.asarray(values, dtype=np.float64)
    out: NDArray[np.float64] = (8.0 * (up - down) - (far_up - far_down)) / (
        12.0 * HESSIAN_STEP * scales
    )
    return out


@inlined
def put_differences(phi, floors, scales, slopes, products, model):  # type: ignore[no-untyped-def]
    # Gradients (4m, m) and S (4m, P, P) at phi (m,) moved by the steps, `scales` (m,) times
    # HESSIAN_STEP times MULTIPLES. Scales as `phi_scales` has them, from floors (T,) per term; NaN
    # where an evaluation has failed.
    terms, state = model.terms, model.state
    m, P = phi.shape[0], model.S.shape[0]
    point = np.empty(m)
    for i in range(m):
        scales[i] = np.inf
    for t in range(terms.shape[0]):
        k = terms[t, 0, COLUMNS]
        for a in range(k):
            size = 0.0
            for b in range(k):
                if terms[t, 1 + a, b] >= 0:
                    size += phi[terms[t, 1 + a, b]] * phi[terms[t, 1 + a, b]]
            size = max(np.sqrt(size), floors[t])
            for b in range(k):
                i = terms[t, 1 + a, b]
                if i >= 0 and size < scales[i]:
                    scales[i] = size
    for e in range(4 * m):
        for j in range(m):
            point[j] = phi[j]
        point[e // 4] += MULTIPLES[e % 4] * HESSIAN_STEP * scales[e // 4]
        value_at(point, slopes[e], model)
        for a in range(P):
            for b in range(P):
                products[e, a, b] = model.S[a, b]
    if state[GIVEN_UP] != 0:
        for i in range(m):
            scales[i] = np.nan
