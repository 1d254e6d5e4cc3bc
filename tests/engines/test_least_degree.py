"""An order of least degree against elimination on a dense graph: the fill and the tree."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixlm_sparse.engines.blocked import least_degree as ld


def random_graph(seed: int) -> tuple[list[list[ld.Nodes]], list[ld.Nodes], np.ndarray]:
    """Levels of one or two factors that meet few of n nodes, and pairs of nodes; dense as well."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 150))
    cliques, dense = [], np.eye(n, dtype=bool)
    for _ in range(rng.integers(1, 3)):
        met = rng.random((int(rng.integers(1, 40)), n)) < rng.choice([0.005, 0.02, 0.1])
        met[0, 0] = True
        cut = int(rng.integers(1, n + 1))
        some = [np.nonzero(met[:, :cut])]
        if cut < n:
            level, node = np.nonzero(met[:, cut:])
            some.append((level, node + cut))
        cliques.append(some)
        dense |= (met.T.astype(int) @ met) > 0
    one, other = rng.integers(0, n, (2, int(rng.integers(0, n))))
    dense[one, other] = dense[other, one] = True
    return cliques, [(one, other)], dense


@given(st.integers(0, 10_000))
def test_supernodes_are_those_of_elimination(seed: int) -> None:
    cliques, edges, dense = random_graph(seed)
    n = dense.shape[0]
    joined = ld.graph_of(cliques, edges, n, fullest=1.0)
    assert joined is not None
    bits = np.unpackbits(joined.view(np.uint8), axis=1, count=n, bitorder="little").astype(bool)
    np.testing.assert_array_equal(bits, dense)
    found, last = ld.least_degree(joined, float("inf"))
    supernodes = [*found, (last, last[:0])] if last.size else found
    nodes, parent, counts, owner = ld.by_tree(supernodes, n)
    np.testing.assert_array_equal(np.sort(nodes), np.arange(n))

    filled = dense[np.ix_(nodes, nodes)]
    for k in range(n):  # a column's fill, and the tree that it makes
        below = k + 1 + np.flatnonzero(filled[k + 1 :, k])
        filled[np.ix_(below, below)] = True
        assert counts[k] == below.size + 1
        if k < n - 1 and owner[k + 1] == owner[k]:
            assert parent[k] == k + 1
        else:
            assert (owner[parent[k]] == owner[below[0]]) if below.size else (parent[k] == -1)
            np.testing.assert_array_equal(np.sort(nodes[below]), supernodes[owner[k]][1])


@given(st.integers(0, 10_000))
def test_no_node_of_less_degree_is_passed_over(seed: int) -> None:
    cliques, edges, dense = random_graph(seed)
    joined = ld.graph_of(cliques, edges, dense.shape[0], fullest=1.0)
    assert joined is not None
    graph, remains = dense.copy(), np.ones(dense.shape[0], bool)
    for gone, reached in ld.least_degree(joined, float("inf"))[0]:
        degrees = graph[:, remains].sum(axis=1)[remains]
        assert gone.size + reached.size == degrees.min()
        graph[np.ix_(reached, reached)] = True
        remains[gone] = False


def test_a_budget_leaves_the_rest_for_last() -> None:
    joined = ld.graph_of([], [(np.arange(99), np.arange(1, 100))], 100, fullest=1.0)
    assert joined is not None
    found, last = ld.least_degree(joined, 500.0)
    assert 0 < len(found) < 10
    np.testing.assert_array_equal(
        np.sort(np.concatenate([last, *(gone for gone, _ in found)])), np.arange(100)
    )


def test_a_full_graph_is_told_from_some_of_its_nodes() -> None:
    everyone = [(np.zeros(300, int), np.arange(300))]
    assert ld.graph_of([everyone], [], 300, fullest=0.9) is None
    assert ld.graph_of([everyone], [], 300, fullest=1.0) is not None


def test_bits_are_counted_without_numpy_2(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.random.default_rng(1).integers(0, 2**64, (5, 94), dtype=np.uint64)
    expected = [sum(int(word).bit_count() for word in row) for row in rows]
    monkeypatch.delattr(np, "bitwise_count", raising=False)
    assert ld._count(rows).tolist() == expected
