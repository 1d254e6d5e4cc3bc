"""The compiled search at the boundary: certify optima there, or leave them.

See `mixlm_sparse.solve.profiled.boundary` for the mathematics.
"""

from __future__ import annotations

import numpy as np

from mixlm_sparse.engines.compiled import inlined, inside
from mixlm_sparse.engines.fused.descent import (
    CLOSURE,
    COLUMN,
    COLUMNS,
    EPS,
    FACTOR,
    GIVEN_UP,
    PROBING,
    ROUNDING,
    TURNED,
    rounding_of,
    value_at,
)
from mixlm_sparse.engines.fused.small import lower_triangular, symmetric_eigen

NULL_ATOL = 1e-3
PROBE = 1e-3
ESCAPE_STEP = 0.1
LINEAR, SCALES, ONE_SCALE = range(3)
SAME_ENTRY = 16.0 * EPS  # covariances that differ by less are the same
SHRINK = (1.0, 0.3, 0.1, 0.03, 0.01)
VALLEYS = (0.25, 0.5, 1.0, 2.0, 4.0)


@inside
def factors_of(phi, terms, T):  # type: ignore[no-untyped-def]
    for t in range(terms.shape[0]):
        for a in range(terms[t, 0, COLUMNS]):
            for b in range(terms[t, 0, COLUMNS]):
                T[t, a, b] = phi[terms[t, 1 + a, b]] if terms[t, 1 + a, b] >= 0 else 0.0


@inside
def parameters_of(T, terms, phi):  # type: ignore[no-untyped-def]
    # phi (m,) in bounds with the covariances of T (T, k, k), any square factors; T is overwritten
    for t in range(terms.shape[0]):
        k = terms[t, 0, COLUMNS]
        if terms[t, 0, CLOSURE] == LINEAR:
            lower_triangular(T[t], k)
        for a in range(k - 1, -1, -1):
            for b in range(k):
                if terms[t, 1 + a, b] >= 0:
                    value = T[t, a, b]
                    if terms[t, 0, CLOSURE] != LINEAR and value < 0.0:
                        value = -value
                    phi[terms[t, 1 + a, b]] = value


@inside
def principal_axes(phi, model):  # type: ignore[no-untyped-def]
    # Turn the working columns to the principal axes of every unstructured term, and phi (m,).
    terms, turn = model.terms, model.turn
    turned = model.state[TURNED] != 0
    kmax = terms.shape[2]
    T = np.zeros((terms.shape[0], kmax, kmax))
    factors_of(phi, terms, T)
    M, S = np.empty((kmax, kmax)), np.empty((kmax, kmax))
    sizes, axes = np.empty(kmax), np.empty((kmax, kmax))
    for t in range(terms.shape[0]):
        k = terms[t, 0, COLUMNS]
        for a in range(k):
            for b in range(k):
                axes[a, b] = 1.0 if a == b else 0.0
        if terms[t, 0, CLOSURE] == LINEAR and k > 1:
            for a in range(k):
                for b in range(k):
                    M[a, b] = T[t, a, b]
                    if turned:
                        M[a, b] = 0.0
                        for d in range(k):
                            M[a, b] += turn[t, a, d] * T[t, d, b]
            for a in range(k):
                for b in range(k):
                    S[a, b] = 0.0
                    for d in range(k):
                        S[a, b] += M[a, d] * M[b, d]
            symmetric_eigen(S, k, sizes, axes)
            for a in range(k):
                for b in range(k):
                    T[t, a, b] = 0.0
                if sizes[a] > 0.0:
                    T[t, a, a] = np.sqrt(sizes[a])
        for a in range(k):
            for b in range(k):
                turn[t, a, b] = axes[a, b]
    model.state[TURNED] = 1
    parameters_of(T, terms, phi)


@inside
def without_small(phi, cut, terms, out):  # type: ignore[no-untyped-def]
    # out (m,): phi with zero columns of T for those whose diagonal is below the cut
    for i in range(phi.shape[0]):
        out[i] = phi[i]
    for t in range(terms.shape[0]):
        if terms[t, 0, CLOSURE] == ONE_SCALE:
            continue
        k = terms[t, 0, COLUMNS]
        for b in range(k):
            if abs(phi[terms[t, 1 + b, b]]) < cut:
                for a in range(k):
                    if terms[t, 1 + a, b] >= 0:
                        out[terms[t, 1 + a, b]] = 0.0


@inside
def unturn(phi, model):  # type: ignore[no-untyped-def]
    # phi (m,) in the working columns as they were, which come back
    terms, turn = model.terms, model.turn
    kmax = terms.shape[2]
    T = np.zeros((terms.shape[0], kmax, kmax))
    M = np.zeros((terms.shape[0], kmax, kmax))
    factors_of(phi, terms, T)
    for t in range(terms.shape[0]):
        k = terms[t, 0, COLUMNS]
        for a in range(k):
            for b in range(k):
                for d in range(k):
                    M[t, a, b] += turn[t, a, d] * T[t, d, b]
    model.state[TURNED] = 0
    parameters_of(M, terms, phi)


@inside
def null_part(T, terms, directions, columns, n_null):  # type: ignore[no-untyped-def]
    # Take the null part out of T (T, k, k): its directions as columns, the columns of T that are
    # zero now, and their number per term. Returns whether there is any.
    kmax = T.shape[1]
    S, sizes, vectors = np.empty((kmax, kmax)), np.empty(kmax), np.empty((kmax, kmax))
    found = False
    for t in range(terms.shape[0]):
        k = terms[t, 0, COLUMNS]
        n_null[t] = 0
        if terms[t, 0, CLOSURE] == LINEAR and k > 1:
            for a in range(k):
                for b in range(k):
                    s = 0.0
                    for d in range(k):
                        s += T[t, a, d] * T[t, b, d]
                    S[a, b] = s
            symmetric_eigen(S, k, sizes, vectors)
            for i in range(k):
                sizes[i] = np.sqrt(sizes[i]) if sizes[i] > 0.0 else 0.0
                if sizes[i] < NULL_ATOL:
                    columns[t, n_null[t]] = i
                    for a in range(k):
                        directions[t, a, n_null[t]] = vectors[a, i]
                    n_null[t] += 1
            if n_null[t] > 0:
                for i in range(k):
                    for a in range(k):
                        T[t, a, i] = sizes[i] * vectors[a, i] if sizes[i] >= NULL_ATOL else 0.0
        else:
            for i in range(k):
                if abs(T[t, i, i]) < NULL_ATOL:
                    columns[t, n_null[t]] = i
                    for a in range(k):
                        directions[t, a, n_null[t]] = 1.0 if a == i else 0.0
                        T[t, a, i] = 0.0
                    n_null[t] += 1
        found = found or n_null[t] > 0
    return found


@inside
def escape_steps(value, model, directions, columns, n_null, step):  # type: ignore[no-untyped-def]
    # Put steps off a false boundary into step (T, k, k), which holds the factors there; returns
    # whether there are any. The derivative by Lambda is that at the probes.
    terms, G = model.terms, model.factors
    kmax = step.shape[1]
    M, sizes, vectors = np.empty((kmax, kmax)), np.empty(kmax), np.empty((kmax, kmax))
    S = np.empty((kmax, kmax))
    threshold = -ROUNDING * abs(value) / (ESCAPE_STEP * ESCAPE_STEP) - 1e-7
    escaped = False
    for t in range(terms.shape[0]):
        n, c, k, f = n_null[t], terms[t, 0, COLUMN], terms[t, 0, COLUMNS], terms[t, 0, FACTOR]
        if n == 0:
            continue
        trace = 0.0
        for i in range(n):
            for j in range(n):
                s = 0.0
                for a in range(k):
                    s += directions[t, a, i] * G[1, f, c + a, c + columns[t, j]]
                M[i, j] = s / (2.0 * PROBE)
            trace += M[i, i]
        for i in range(n):
            for j in range(n):
                S[i, j] = 0.5 * (M[i, j] + M[j, i])
        if terms[t, 0, CLOSURE] == LINEAR:
            symmetric_eigen(S, n, sizes, vectors)
        else:
            for i in range(n):
                sizes[i] = M[i, i] if terms[t, 0, CLOSURE] == SCALES else trace
                for j in range(n):
                    vectors[i, j] = 1.0 if i == j else 0.0
        for i in range(n):
            if sizes[i] < threshold:
                escaped = True
                for a in range(k):
                    s = 0.0
                    for j in range(n):
                        s += directions[t, a, j] * vectors[j, i]
                    step[t, a, columns[t, i]] = ESCAPE_STEP * s
    return escaped


@inside
def blend(T, shrink, step, out):  # type: ignore[no-untyped-def]
    for t in range(T.shape[0]):
        for a in range(T.shape[1]):
            for b in range(T.shape[2]):
                out[t, a, b] = T[t, a, b] + shrink * (step[t, a, b] - T[t, a, b])


@inside
def put_probes(T, directions, columns, n_null, model):  # type: ignore[no-untyped-def]
    # Lambda with small steps in the place of its null columns
    terms, lams = model.terms, model.factors
    for t in range(terms.shape[0]):
        f, c, k = terms[t, 0, FACTOR], terms[t, 0, COLUMN], terms[t, 0, COLUMNS]
        for a in range(k):
            for b in range(k):
                lams[0, f, c + a, c + b] = T[t, a, b]
            for i in range(n_null[t]):
                lams[0, f, c + a, c + columns[t, i]] = PROBE * directions[t, a, i]


@inside
def put_candidate(number, false_boundary, T, step, directions, columns, n_null, model, trial):  # type: ignore[no-untyped-def]
    # Put the factors of a candidate into trial (T, k, k): 0 is the boundary itself, others are
    # points off a false boundary, or beyond a true one. Returns whether there is such a point.
    terms = model.terms
    blend(T, 0.0, T, trial)
    if number > 0 and false_boundary:
        blend(T, SHRINK[number - 1], step, trial)
    elif number > 0:
        t, size = (number - 1) // len(VALLEYS), VALLEYS[(number - 1) % len(VALLEYS)]
        for i in range(n_null[t]):
            for a in range(terms[t, 0, COLUMNS]):
                if terms[t, 0, CLOSURE] == LINEAR:
                    trial[t, a, columns[t, i]] = size * directions[t, a, i]
                else:
                    trial[t, a, a] += size * directions[t, a, i] * directions[t, a, i]
        return n_null[t] > 0
    return True


@inside
def same_covariance(phi, T, terms):  # type: ignore[no-untyped-def]
    # Whether T T' (T, k, k) is the covariance of phi (m,), up to rounding of every entry.
    kmax = T.shape[1]
    own = np.zeros((terms.shape[0], kmax, kmax))
    factors_of(phi, terms, own)
    for t in range(terms.shape[0]):
        k = terms[t, 0, COLUMNS]
        for a in range(k):
            for b in range(a + 1):
                v, w, va, vb = 0.0, 0.0, 0.0, 0.0
                for d in range(k):
                    v += own[t, a, d] * own[t, b, d]
                    w += T[t, a, d] * T[t, b, d]
                    va += own[t, a, d] * own[t, a, d]
                    vb += own[t, b, d] * own[t, b, d]
                if abs(v - w) > SAME_ENTRY * np.sqrt(va * vb):
                    return False
    return True


@inlined
def settle(phi, value, model):  # type: ignore[no-untyped-def]
    # Certify phi (m,) on the boundary or find the way off. Returns value, moved, escaped.
    terms, state = model.terms, model.state
    n_terms, kmax, m = terms.shape[0], terms.shape[2], phi.shape[0]
    T, step = np.zeros((n_terms, kmax, kmax)), np.zeros((n_terms, kmax, kmax))
    trial, directions = np.zeros((n_terms, kmax, kmax)), np.zeros((n_terms, kmax, kmax))
    columns = np.zeros((n_terms, kmax), np.int64)
    n_null = np.zeros(n_terms, np.int64)
    candidate, slope = np.empty(m), np.empty(m)
    factors_of(phi, terms, T)
    if not null_part(T, terms, directions, columns, n_null):
        return value, False, False
    noise = rounding_of(value, model)
    there = same_covariance(phi, T, terms)
    at, false_boundary, last, number = value, False, 0, 0
    while number <= last:
        there_is = put_candidate(
            number, false_boundary, T, step, directions, columns, n_null, model, trial
        )
        if there_is:
            parameters_of(trial, terms, candidate)
            lower = value_at(candidate, slope, model)
            if state[GIVEN_UP] != 0:
                break
            if number == 0 and not there and lower > value + noise:
                break  # small, yet not zero: an ordinary optimum; at zero it would be rounding
            if number == 0 or lower < at - noise:
                for i in range(m):
                    phi[i] = candidate[i]
                at = lower
                if number > 0:
                    return at, True, True
        if number == 0:
            put_probes(T, directions, columns, n_null, model)
            state[PROBING] = 1
            value_at(phi, slope, model)
            state[PROBING] = 0
            blend(T, 0.0, T, step)
            false_boundary = escape_steps(value, model, directions, columns, n_null, step)
            last = len(SHRINK) if false_boundary else n_terms * len(VALLEYS)
            if state[GIVEN_UP] != 0:
                break
        number += 1
    return at, number > 0, False
