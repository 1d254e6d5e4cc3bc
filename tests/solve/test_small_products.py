"""Products of small models in one compiled call: those of NumPy's form, and their definition."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings

import mixlm_sparse as mx
from mixlm_sparse.design.matrices import ModelMatrices
from mixlm_sparse.engines.decisions import use_compiled
from mixlm_sparse.solve.products.accumulate import CrossProducts, cross_products
from mixlm_sparse.solve.products.final import Products, orthonormal_products
from mixlm_sparse.solve.products.small import products_at_once
from tests.support.corpus import load_data
from tests.support.strategies import Design, designs

# Products have rounding errors of this size, relative to their largest number.
ROUNDING = 1e-12


@pytest.fixture(autouse=True, scope="module")
def _compiled() -> Iterator[None]:
    use_compiled(True)
    yield
    use_compiled(None)


def arrays(cross: CrossProducts, products: Products) -> dict[str, np.ndarray]:
    """All numbers of the two forms of the products, by name."""
    found = {
        "R": cross.basis.R, "d": cross.basis.d, "factor": cross.R, "R_x": products.R_x,
        "D": products.D, "beta": products.beta_ols, "yy": np.array(products.yy),
        "length": np.array(products.y_length),
    }  # fmt: skip
    found |= {f"Rz of term {t}": Rz for t, Rz in enumerate(cross.basis.Rz)}
    for name, system in (("cross", cross.blocks), ("final", products.blocks)):
        for g, block in enumerate(system.factors):
            found |= {f"{name} ztz {g}": block.ztz, f"{name} ztx {g}": block.ztx}
        found |= {f"{name} {key}": pair.values for key, pair in system.pairs.items()}
    return found


def require_same(matrices: ModelMatrices) -> None:
    at_once = products_at_once(matrices)
    assert at_once is not None
    cross = cross_products(matrices, compiled=False)
    plain = cross, orthonormal_products(cross)
    expected = arrays(*plain)
    for name, values in arrays(*at_once).items():
        size = float(np.abs(expected[name]).max(initial=0.0))
        np.testing.assert_allclose(
            values, expected[name], rtol=0.0, atol=ROUNDING * size, err_msg=name
        )
    assert at_once[1].kept == plain[1].kept
    assert at_once[1].layout == plain[1].layout
    assert at_once[0].log_weight_sum == plain[0].log_weight_sum
    for key, pair in plain[1].blocks.pairs.items():
        assert np.array_equal(at_once[1].blocks.pairs[key].rows, pair.rows)
        assert np.array_equal(at_once[1].blocks.pairs[key].cols, pair.cols)


@pytest.mark.parametrize(
    ("formula", "data"),
    [
        ("Reaction ~ Days + (Days | Subject)", "sleepstudy"),
        ("Reaction ~ poly(Days, 2) + (Days || Subject)", "sleepstudy"),
        ("Reaction ~ 0 + factor(Days) + (I(Days^2) + Days | Subject)", "sleepstudy"),
        ("Reaction ~ 0 + (0 + Days | Subject)", "sleepstudy"),
        ("Reaction ~ Days + diag(Days | Subject) + (1 | Days)", "sleepstudy"),
        ("Reaction ~ Days + id(Days | Subject)", "sleepstudy"),
        ("diameter ~ 1 + (1 | plate) + (1 | sample)", "Penicillin"),
        ("strength ~ 1 + (1 | batch/cask)", "Pastes"),
    ],
)
@pytest.mark.parametrize("weighted", [False, True])
def test_equal_to_the_form_in_numpy(formula: str, data: str, weighted: bool) -> None:
    frame = load_data(data)
    given = {}
    if weighted:
        given = {"weights": np.linspace(1.0, 3.0, len(frame)), "offset": np.arange(len(frame))}
    require_same(mx.model_matrices(formula, frame, **given))


@settings(max_examples=40, deadline=None)
@given(designs())
def test_of_random_designs(design: Design) -> None:
    matrices = mx.model_matrices(
        design.formula, design.data, weights=design.weights, offset=design.offset
    )
    if products_at_once(matrices) is not None:
        require_same(matrices)


def test_their_definition() -> None:
    frame = load_data("sleepstudy")
    w = np.linspace(1.0, 3.0, len(frame))
    matrices = mx.model_matrices("Reaction ~ Days + (Days | Subject)", frame, weights=w)
    found = products_at_once(matrices)
    assert found is not None
    products = found[1]
    Q = np.linalg.solve(products.R_x.T, matrices.X.T).T
    np.testing.assert_allclose(Q.T @ (w[:, None] * Q), np.eye(2), atol=1e-13)
    left = matrices.y - matrices.X @ products.beta_ols
    np.testing.assert_allclose(Q.T @ (w * left), 0.0, atol=1e-10)
    np.testing.assert_allclose(products.yy, (w * left) @ left, rtol=1e-13)
    z = np.linalg.solve(products.Rz[0].T, matrices.X.T).T
    np.testing.assert_allclose(np.diag((z.T * w) @ z), len(frame), rtol=1e-13)
    rows = matrices.factors[0].codes == 3
    right = np.column_stack([Q, left])[rows]
    block = products.blocks.factors[0]
    np.testing.assert_allclose(block.ztx[3], (z[rows].T * w[rows]) @ right, atol=1e-9)
    np.testing.assert_allclose(block.ztz[3], (z[rows].T * w[rows]) @ z[rows], rtol=1e-12)


@pytest.mark.parametrize(
    ("formula", "change"),
    [
        ("y ~ x + x2 + (1 | g)", "a column is twice another"),
        ("y ~ zero + (1 | g)", "a column of zeros"),
        ("y ~ 1 + (x + x2 | g)", "a random term with dependent columns"),
        ("zero ~ x + (1 | g)", "a response of zeros"),
    ],
)
def test_what_is_not_regular_is_left_to_numpy(formula: str, change: str) -> None:
    rng = np.random.default_rng(3)
    x = rng.normal(size=40)
    frame = pd.DataFrame(
        {"y": rng.normal(size=40), "x": x, "x2": 2.0 * x, "zero": 0.0,
         "g": np.repeat(list("abcdefgh"), 5)}
    )  # fmt: skip
    assert products_at_once(mx.model_matrices(formula, frame)) is None, change


def test_what_is_large_is_left_to_lapack() -> None:
    rng = np.random.default_rng(3)
    frame = pd.DataFrame({"y": rng.normal(size=60_000), "g": np.arange(60_000) % 50})
    assert products_at_once(mx.model_matrices("y ~ 1 + (1 | g)", frame)) is None
