"""An order of least degree of the levels that remain, on sets of bits.

The graph of S joins all nodes (levels) that an eliminated level meets.  Row v of `joined` is the
set of those that v is joined with, itself among them, as bits.  Eliminating a node joins all
that it reaches; a node that then reaches nothing beyond them fills in nothing more, and is
eliminated at once with it.  What goes at once is a supernode, which is found in few operations on
whole rows: nothing is compiled, as a first fit would wait longer for that than for the order.

References
----------
George and Liu (1989), The evolution of the minimum degree ordering algorithm,
doi:10.1137/1031001: mass elimination and indistinguishable nodes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mixlm_sparse.common.types import IntVector

Bits = NDArray[np.uint64]
Nodes = tuple[IntVector, IntVector]
Factor = tuple[Bits, IntVector, NDArray[np.int64]]
Supernode = tuple[NDArray[np.int64], NDArray[np.int64]]

# Nodes at which it is seen how full S is.
SAMPLE = 64
# Nodes whose levels' sets are united in one call.
AT_ONCE = 16
_ONES_OF_BYTES = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(
    axis=1, dtype=np.uint8
)


def graph_of(
    cliques: Sequence[Sequence[Nodes]], edges: Sequence[Nodes], n: int, fullest: float
) -> Bits | None:
    """Return who is joined with whom, or None if nearly all are.

    Parameters
    ----------
    cliques : per eliminated factor, (level, node) of what meets; all nodes of a level are joined.
    edges : pairs of nodes that are joined.
    fullest : None is returned if a larger share of the pairs of some nodes is joined.

    Returns
    -------
    joined : (n, words of 64 bits)
    """
    words = -(-n // 64)
    joined = np.zeros((n, words), np.uint64)
    each = np.arange(n, dtype=np.int32)
    _meet(each, each, joined)
    for one, other in edges:
        _meet(one, other, joined)
        _meet(other, one, joined)
    # per factor: whom its levels meet as bits, its levels by node, where those of a node begin
    factors = []
    for some in cliques:
        level, node = (np.concatenate(of) for of in zip(*some, strict=True))
        met = np.zeros((int(level.max()) + 1, words), np.uint64)
        _meet(level, node, met)
        by_node = level[np.argsort(node.astype(np.int16), kind="stable")]
        starts = np.concatenate([[0], np.cumsum(np.bincount(node, minlength=n))])
        factors.append((met, by_node, starts))
    seen = np.arange(0, n, -(-n // SAMPLE))
    for v in seen.tolist():
        _join(v, v + 1, factors, joined)
    if factors and _count(joined[seen]).sum() > fullest * seen.size * n:
        return None
    for lo in range(0, n, AT_ONCE):
        _join(lo, min(lo + AT_ONCE, n), factors, joined)
    return joined


def least_degree(joined: Bits, budget: float) -> tuple[list[Supernode], NDArray[np.int64]]:
    """Return supernodes in the order of their elimination, and the nodes that come last.

    Those come last whose every pair is joined, or who are left when the budget is used up.

    Parameters
    ----------
    joined : (n, words) is overwritten.
    budget : words to look at.

    Returns
    -------
    supernodes : the nodes of each, and the later ones that they reach, both ascending.
    last : ascending.
    """
    n, words = joined.shape
    remains = np.ones(n, bool)
    degree = _count(joined)
    out: list[Supernode] = []
    left, spent = n, 0.0
    while left and spent < budget:
        v = int(degree.argmin())
        if degree[v] >= left:
            break
        live = _bits(remains, words)
        row = joined[v] & live
        near = _members(row, n)
        reach = joined.take(near, axis=0)
        reach |= row
        reach &= live
        count = _count(reach)
        at_once = count == near.size
        gone = near[at_once]
        out.append((gone, near[~at_once]))
        joined[near] = reach
        degree[near] = count - gone.size
        degree[gone] = n + 1
        remains[gone] = False
        left -= gone.size
        spent += near.size * words + n
    return out, np.flatnonzero(remains)


def by_tree(
    supernodes: Sequence[Supernode], n: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Put supernodes in postorder; they hold all n nodes.

    Returns
    -------
    nodes : (n,) in postorder.
    parent : (n,) by place: the next one of the supernode; at its end where that one begins of
        which a node is reached first, or -1.
    counts : (n,) entries of each column of the factor, its diagonal among them.
    owner : (n,) number of the supernode of each place.
    """
    step = np.empty(n, np.int64)
    for s, (gone, _) in enumerate(supernodes):
        step[gone] = s
    above = [int(step[reached].min()) if reached.size else -1 for _, reached in supernodes]
    below: list[list[int]] = [[] for _ in supernodes]
    for s, up in enumerate(above):
        if up >= 0:
            below[up].append(s)
    post: list[int] = []
    waiting = [s for s, up in enumerate(above) if up < 0]
    while waiting:  # parents before their children, backwards
        s = waiting.pop()
        post.append(s)
        waiting.extend(below[s])
    post.reverse()
    sizes = np.array([supernodes[s][0].size for s in post])
    beyond = np.array([supernodes[s][1].size for s in post])
    ends = np.cumsum(sizes)
    first = np.empty(len(post), np.int64)  # by number, not by place
    first[post] = ends - sizes
    parent = np.arange(1, n + 1)
    parent[ends - 1] = [first[above[s]] if above[s] >= 0 else -1 for s in post]
    counts = np.repeat(ends + beyond, sizes) - np.arange(n)
    nodes = np.concatenate([supernodes[s][0] for s in post])
    return nodes, parent, counts, np.repeat(post, sizes)


def _meet(row: IntVector, node: IntVector, met: Bits) -> None:
    bit = np.uint64(1) << (node & 63).astype(np.uint64)
    np.bitwise_or.at(met.reshape(-1), row.astype(np.int64) * met.shape[1] + (node >> 6), bit)


def _join(lo: int, hi: int, factors: Sequence[Factor], joined: Bits) -> None:
    for met, by_node, starts in factors:
        begin, end = starts[lo:hi], starts[lo + 1 : hi + 1]
        some = np.flatnonzero(end > begin)
        if some.size:
            reached = met.take(by_node[begin[0] : end[-1]], axis=0)
            joined[lo + some] |= np.bitwise_or.reduceat(reached, begin[some] - begin[0], axis=0)


def _bits(member: NDArray[np.bool_], words: int) -> Bits:
    out = np.zeros(8 * words, np.uint8)
    packed = np.packbits(member, bitorder="little")
    out[: packed.size] = packed
    return out.view(np.uint64)


def _members(bits: Bits, n: int) -> NDArray[np.int64]:
    return np.flatnonzero(np.unpackbits(bits.view(np.uint8), count=n, bitorder="little"))


def _count(rows: Bits) -> NDArray[np.int64]:
    """Return how many bits are set in each row."""
    if hasattr(np, "bitwise_count"):  # NumPy 2
        ones = np.bitwise_count(rows)
    else:
        ones = _ONES_OF_BYTES[rows.view(np.uint8)]
    return ones @ np.ones(ones.shape[1], np.uint16)  # at most 6,000 bits; quicker than a sum
