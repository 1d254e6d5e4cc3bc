"""What every walk over rows sees: kept columns, response less offset, weights."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mixlm_sparse as mx
from mixlm_sparse.solve.rows import InMemory, Shifted, Without, rows_of


@pytest.fixture(scope="module")
def frame() -> dict[str, object]:
    rng = np.random.default_rng(4)
    n = 23
    x = rng.normal(size=n)
    return {
        "y": rng.normal(size=n),
        "x": x,
        "twice": 2.0 * x,
        "o": rng.normal(size=n),
        "w": rng.uniform(0.5, 2.0, n),
        "g": np.array(list("abcd"))[rng.integers(0, 4, n)],
        "h": np.array(list("rst"))[rng.integers(0, 3, n)],
    }


@pytest.mark.parametrize("size", [1, 5, 23, 100])
def test_blocks_put_together_are_the_model(frame: dict[str, object], size: int) -> None:
    matrices = mx.model_matrices(
        "y ~ x + twice + (x | g) + (1 | h)", frame, weights="w", offset="o"
    )
    blocks = list(rows_of(matrices, (0, 1), size=size))
    assert [len(block) for block in blocks[:-1]] == [size] * (len(blocks) - 1)
    x, y, o, w = (np.asarray(frame[name]) for name in "xyow")
    np.testing.assert_array_equal(np.vstack([b.X for b in blocks]), np.c_[np.ones(23), x])
    np.testing.assert_array_equal(np.hstack([b.target for b in blocks]), y - o)
    np.testing.assert_array_equal(np.hstack([b.weights for b in blocks]), w)
    np.testing.assert_allclose(np.hstack([b.sqrt_w**2 for b in blocks]), w, rtol=1e-15)
    np.testing.assert_allclose(sum(b.log_weight_sum for b in blocks), np.log(w).sum())
    np.testing.assert_array_equal(np.vstack([b.weighted(b.X) for b in blocks])[:, 1], w * x)
    np.testing.assert_array_equal(np.vstack([b.z(0) for b in blocks]), np.c_[np.ones(23), x])
    labels = np.array(matrices.factors[1].levels)[np.hstack([b.codes(1) for b in blocks])]
    np.testing.assert_array_equal(labels, frame[matrices.factors[1].label])


def test_without_weights_and_offset(frame: dict[str, object]) -> None:
    (block,) = rows_of(mx.model_matrices("y ~ x + twice + (1 | g)", frame))
    assert block.X.shape == (23, 3)
    np.testing.assert_array_equal(block.target, frame["y"])
    np.testing.assert_array_equal(block.weights, np.ones(23))
    np.testing.assert_array_equal(block.offset, np.zeros(23))
    assert block.weighted(block.X) is block.X
    assert block.log_weight_sum == 0.0


@given(left_out=st.sets(st.integers(0, 22), max_size=22), size=st.sampled_from([1, 4, 23]))
def test_rows_left_out_are_those_of_a_frame_without_them(
    frame: dict[str, object], left_out: set[int], size: int
) -> None:
    matrices = mx.model_matrices("y ~ x + twice + (x | g)", frame, weights="w", offset="o")
    rows = np.array(sorted(left_out), dtype=np.intp)
    rest = Without(InMemory.of(matrices), rows)
    kept = np.delete(np.arange(23), rows)
    blocks = list(rest.blocks((0, 1), size=size))
    assert rest.n == kept.size == sum(len(block) for block in blocks)
    places = np.hstack([np.arange(b.slice.start, b.slice.stop) for b in blocks])
    np.testing.assert_array_equal(places, np.arange(kept.size))
    x, y, o, w = (np.asarray(frame[name])[kept] for name in "xyow")
    columns = np.c_[np.ones(kept.size), x]
    np.testing.assert_array_equal(np.vstack([b.X for b in blocks]), columns)
    np.testing.assert_array_equal(np.vstack([b.z(0) for b in blocks]), columns)
    np.testing.assert_array_equal(np.hstack([b.target for b in blocks]), y - o)
    np.testing.assert_array_equal(np.hstack([b.weights for b in blocks]), w)
    np.testing.assert_array_equal(np.vstack([b.weighted(b.X) for b in blocks])[:, 1], w * x)
    labels = np.array(matrices.factors[0].levels)[np.hstack([b.codes(0) for b in blocks])]
    np.testing.assert_array_equal(labels, np.asarray(frame["g"])[kept])


def test_rows_left_out_twice(frame: dict[str, object]) -> None:
    matrices = mx.model_matrices("y ~ x + (1 | g)", frame)
    once = Without(InMemory.of(matrices), np.array([0, 5, 22]))
    twice = Without(once, np.array([0, 10]))
    kept = np.delete(np.delete(np.arange(23), [0, 5, 22]), [0, 10])
    found = np.hstack([block.y for block in twice.blocks(size=4)])
    np.testing.assert_array_equal(found, np.asarray(frame["y"])[kept])


@pytest.mark.parametrize("offset", [None, "o"])
def test_a_column_held_at_a_value_is_an_offset(frame: dict[str, object], offset) -> None:
    matrices = mx.model_matrices("y ~ x + twice + (1 | g)", frame, offset=offset)
    (block,) = Shifted(InMemory.of(matrices), 1, 0.5).blocks((0,))
    own = 0.0 if offset is None else np.asarray(frame[offset])
    np.testing.assert_array_equal(block.offset, 0.5 * np.asarray(frame["x"]) + own)
    np.testing.assert_array_equal(block.target, np.asarray(frame["y"]) - block.offset)
    np.testing.assert_array_equal(block.X, np.ones((23, 1)))
