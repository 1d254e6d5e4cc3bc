"""A fill-reducing order of a symmetric sparse matrix: approximate minimum degree.

SuperLU, which SciPy carries, orders by exact minimum degree: two minutes for 40,000 x 8,000
crossed levels, where the approximate degree takes a fraction of a second.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from mixlm_sparse.common.types import IntVector
from mixlm_sparse.engines.kernels import compiled_pays, njit

# A node with more neighbours than this multiple of sqrt(n) is ordered last at once: its degree
# never gets small, and every elimination would walk through it.
DENSE_ROW_FACTOR = 10.0


@njit
def _minimum_degree(n, ptr, idx, dense_limit):  # type: ignore[no-untyped-def]
    # Quotient graph of Amestoy, Davis and Duff (1996).  A live variable i keeps a list of
    # elements (eliminated cliques), its first n_el[i] entries, and of variables, the rest; an
    # element keeps the list of its variables.  weight[i] counts the indistinguishable variables
    # that i stands for: 0 when i is gone, negative while i is a member of the pivot's clique.
    nnz = ptr[n]
    room = nnz + nnz // 4 + 4 * n + 16
    work = np.empty(room, np.int64)
    start = np.empty(n, np.int64)
    length = np.empty(n, np.int64)
    n_el = np.zeros(n, np.int64)
    weight = np.ones(n, np.int64)
    degree = np.empty(n, np.int64)
    is_element = np.zeros(n, np.bool_)
    mark = np.ones(n, np.int64)  # of an element: 0 absorbed, else |Le \ Lp| + flag
    flag = 2
    head = np.full(n + 1, -1, np.int64)  # live variables by degree, doubly linked
    after = np.full(n, -1, np.int64)
    before = np.full(n, -1, np.int64)
    bucket = np.full(n + 1, -1, np.int64)  # candidates for indistinguishability by hash
    chain = np.full(n, -1, np.int64)
    hashed = np.zeros(n, np.int64)
    seen = np.zeros(n, np.int64)
    stamp = 0
    member = np.full(n, -1, np.int64)  # what a variable stands for, as linked lists
    tail = np.arange(n)
    order = np.empty(n, np.int64)
    n_ordered = 0
    n_dense = 0
    dense = np.empty(n, np.int64)

    end = 0
    for i in range(n):
        start[i] = end
        if ptr[i + 1] - ptr[i] > dense_limit:
            weight[i] = 0
            dense[n_dense] = i
            n_dense += 1
        for t in range(ptr[i], ptr[i + 1]):
            work[end] = idx[t]
            end += 1
    for i in range(n):
        # dense neighbours leave the graph before anything is counted
        q = start[i]
        for t in range(ptr[i], ptr[i + 1]):
            j = idx[t]
            if weight[j] != 0:
                work[q] = j
                q += 1
        length[i] = q - start[i]
        degree[i] = length[i]
        if weight[i] != 0:
            d = degree[i]
            after[i] = head[d]
            if head[d] >= 0:
                before[head[d]] = i
            head[d] = i
    left = n - n_dense
    total = left
    low = 0
    while left > 0:
        while head[low] < 0:
            low += 1
        p = head[low]
        head[low] = after[p]
        if after[p] >= 0:
            before[after[p]] = -1
        wp = weight[p]
        weight[p] = -wp

        # room for the new clique at the end of the workspace: pack the live lists if need be
        if end + total + 1 > room:
            alive = np.empty(n, np.int64)
            n_alive = 0
            for i in range(n):
                if (is_element[i] and mark[i] != 0) or (not is_element[i] and weight[i] != 0):
                    alive[n_alive] = i
                    n_alive += 1
            begins = np.empty(n_alive, np.int64)
            for t in range(n_alive):
                begins[t] = start[alive[t]]
            q = 0
            for t in np.argsort(begins):
                i = alive[t]
                s = start[i]
                start[i] = q
                for u in range(length[i]):
                    work[q] = work[s + u]
                    q += 1
            end = q
            if end + total + 1 > room:
                bigger = np.empty(2 * room + total, np.int64)
                bigger[:end] = work[:end]
                work = bigger
                room = work.shape[0]

        # Lp: the variables of p and of its elements, which p absorbs
        first = end
        size = 0
        for t in range(start[p], start[p] + length[p]):
            e = work[t]
            if t < start[p] + n_el[p]:
                s0 = start[e]
                s1 = start[e] + length[e]
                mark[e] = 0
            else:
                s0 = t
                s1 = t + 1
            for u in range(s0, s1):
                i = work[u]
                wi = weight[i]
                if wi > 0:
                    weight[i] = -wi
                    size += wi
                    work[end] = i
                    end += 1
                    # out of its degree list
                    if before[i] >= 0:
                        after[before[i]] = after[i]
                    else:
                        head[degree[i]] = after[i]
                    if after[i] >= 0:
                        before[after[i]] = before[i]
                    before[i] = -1
        is_element[p] = True
        start[p] = first
        length[p] = end - first
        mark[p] = 1

        # first scan: mark[e] - flag = |Le \ Lp| for each element met
        for t in range(first, end):
            i = work[t]
            wi = -weight[i]
            for u in range(start[i], start[i] + n_el[i]):
                e = work[u]
                if mark[e] >= flag:
                    mark[e] -= wi
                elif mark[e] != 0:
                    mark[e] = degree[e] + flag - wi

        # second scan: prune the lists, bound the degrees, hash
        for t in range(first, end):
            i = work[t]
            wi = -weight[i]
            s = start[i]
            q = s
            d = 0
            h = p
            for u in range(s, s + n_el[i]):
                e = work[u]
                if mark[e] == 0:
                    continue
                outside = mark[e] - flag
                if outside > 0:
                    d += outside
                    h += e
                    work[q] = e
                    q += 1
                else:
                    mark[e] = 0  # Le lies within Lp: absorbed
            slot = q
            for u in range(s + n_el[i], s + length[i]):
                j = work[u]
                if weight[j] > 0:
                    d += weight[j]
                    h += j
                    work[q] = j
                    q += 1
            if d == 0:
                # nothing but p is left: eliminated along with it
                wp += wi
                size -= wi
                weight[i] = 0
                member[tail[p]] = i
                tail[p] = tail[i]
                continue
            # p becomes the last element; i lost p or an element of p, so the list has room
            work[q] = work[slot]
            work[slot] = p
            n_el[i] = slot - s + 1
            length[i] = q + 1 - s
            degree[i] = min(degree[i], d)
            h %= n
            hashed[i] = h
            chain[i] = bucket[h]
            bucket[h] = i

        # variables with equal lists stay indistinguishable for good: merge them
        for t in range(first, end):
            i = work[t]
            if weight[i] == 0:
                continue
            i = bucket[hashed[i]]
            if i < 0:
                continue
            bucket[hashed[i]] = -1
            while i >= 0 and chain[i] >= 0:
                stamp += 1
                for u in range(start[i], start[i] + length[i]):
                    seen[work[u]] = stamp
                last = i
                j = chain[i]
                while j >= 0:
                    same = length[j] == length[i] and n_el[j] == n_el[i]
                    if same:
                        for u in range(start[j], start[j] + length[j]):
                            if seen[work[u]] != stamp:
                                same = False
                                break
                    if same:
                        weight[i] += weight[j]
                        weight[j] = 0
                        member[tail[i]] = j
                        tail[i] = tail[j]
                        chain[last] = chain[j]
                    else:
                        last = j
                    j = chain[j]
                i = chain[i]

        left -= wp
        q = first
        for t in range(first, end):
            i = work[t]
            wi = -weight[i]
            if wi <= 0:
                continue
            weight[i] = wi
            d = max(0, min(degree[i] + size - wi, left - wi))
            degree[i] = d
            after[i] = head[d]
            before[i] = -1
            if head[d] >= 0:
                before[head[d]] = i
            head[d] = i
            low = min(low, d)
            work[q] = i
            q += 1
        weight[p] = 0
        degree[p] = size
        length[p] = q - first
        end = q
        if q == first:
            mark[p] = 0
        flag += total + 1
        i = p
        while i >= 0:
            order[n_ordered] = i
            n_ordered += 1
            i = member[i]
    for t in range(n_dense):
        order[n_ordered] = dense[t]
        n_ordered += 1
    return order


def minimum_degree_order(pattern: sp.csc_array) -> IntVector:
    """Order the rows of a symmetric matrix so that its Cholesky factor fills in little.

    Parameters
    ----------
    pattern : (n, n), both triangles or one; the values are ignored.

    Returns
    -------
    order : (n,) `order[k]` is the row eliminated as number k.

    References
    ----------
    Amestoy, Davis and Duff (1996), doi:10.1137/S0895479894278952.
    """
    n = int(pattern.shape[0])
    coo = pattern.tocoo()
    off = coo.row != coo.col
    row, col = coo.row[off], coo.col[off]
    ones = np.ones(2 * row.size, dtype=np.int8)
    graph = sp.csc_array(
        (ones, (np.concatenate((row, col)), np.concatenate((col, row)))), shape=(n, n)
    )  # duplicates are summed: one entry an edge
    limit = max(16.0, DENSE_ROW_FACTOR * np.sqrt(n))
    # an edge costs the plain form about 20 microseconds, the price of 2000 multiply-adds
    run = _minimum_degree if compiled_pays(2000.0 * graph.nnz) else _minimum_degree.python
    order = run(n, graph.indptr.astype(np.int64), graph.indices.astype(np.int64), limit)
    out: IntVector = order.astype(np.int32)
    return out
