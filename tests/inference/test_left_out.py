"""Terms that are left out of parts without an intercept, whose factors span the constant."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import mixlm_sparse as mx
from mixlm_sparse import solve_pls
from mixlm_sparse.solve.derived.fewer_columns import with_fewer_columns


@pytest.fixture(scope="module")
def data() -> pd.DataFrame:
    rng = np.random.default_rng(31)
    n = 120
    g = np.repeat(np.arange(20), 6)
    x = rng.normal(size=n)
    own = 0.6 * rng.normal(size=(20, 3))
    f = np.tile([0, 1, 2], 40)
    y = 10.0 + 0.5 * x + own[g, f] + rng.normal(size=n)
    names = np.array(["a", "b", "c"])
    return pd.DataFrame(
        {"y": y, "x": x, "f": names[f], "lo": rng.random(n) < 0.5, "g": [f"g{i}" for i in g]}
    )


# written with a mean for each level, the same model with an intercept, and what is left out
PAIRS = [
    ("0 + f + x", "f + x", "f"),
    ("f - 1", "f", "f"),
    ("0 + lo + x", "lo + x", "lo"),
    ("0 + f:lo", "f:lo", "f:lo"),
    ("0 + f + lo", "f + lo", "f"),
]


@pytest.mark.parametrize(("means", "differences", "term"), PAIRS)
def test_one_model_has_one_deletion(
    data: pd.DataFrame, means: str, differences: str, term: str
) -> None:
    one = mx.lmer(f"y ~ {means} + (1 | g)", data, control=mx.Control(warn=False))
    other = mx.lmer(f"y ~ {differences} + (1 | g)", data, control=mx.Control(warn=False))
    columns = ["npar", "LRT", "Df"]
    if term != "f:lo":  # which has a margin left with an intercept
        np.testing.assert_allclose(
            one.drop1(term).loc[term, columns].to_numpy(float),
            other.drop1(term).loc[term, columns].to_numpy(float),
            atol=1e-6,
        )
    assert one.drop1(term).loc[term, "Df"] == one.drop1(term, test="F").loc[term, "NumDF"]


def test_elimination_keeps_the_mean(data: pd.DataFrame) -> None:
    found = mx.lmer("y ~ 0 + lo + x + (1 | g)", data).step(reduce_random=False)
    assert found.formula == "y ~ x + (1 | g)"
    assert found.fit.fixef["(Intercept)"] == pytest.approx(10.0, abs=1.0)


def test_covariates_alone_go_through_zero(data: pd.DataFrame) -> None:
    table = mx.lmer("y ~ 0 + x + x:f + (1 | g)", data, control=mx.Control(warn=False)).drop1("x:f")
    through_zero = mx.lmer("y ~ 0 + x + (1 | g)", data, reml=False)
    assert table.loc["x:f", "logLik"] == pytest.approx(through_zero.llf, abs=1e-7)


def test_unstructured_effects_of_levels_reduce_as_those_of_differences(data: pd.DataFrame) -> None:
    quiet = mx.Control(warn=False)
    levels = mx.lmer("y ~ x + (0 + f | g)", data, control=quiet).ranova()
    differences = mx.lmer("y ~ x + (f | g)", data, control=quiet).ranova()
    assert levels.index.tolist() == ["<none>", "f in (0 + f | g)"]
    columns = ["npar", "LRT", "Df", "Pr(>Chibar2)"]
    np.testing.assert_allclose(
        levels[columns].to_numpy(float), differences[columns].to_numpy(float), atol=1e-6
    )


def test_effects_of_levels_beside_an_intercept_leave_it(data: pd.DataFrame) -> None:
    fit = mx.lmer("y ~ x + (1 | g) + diag(0 + f | g)", data, control=mx.Control(warn=False))
    assert fit.ranova().index.tolist()[1:] == ["(1 | g)", "diag(0 + f | g)"]
    doubled = mx.lmer("y ~ x + (1 | g) + (0 + f | g)", data, control=mx.Control(warn=False))
    assert "f in (0 + f | g)" not in doubled.ranova().index


@pytest.mark.parametrize(
    "formula",
    [
        "y ~ f * x + lo + (x | g)",
        "y ~ 0 + f + x + (1 | g) + (1 | lo:f)",
        "y ~ x + I(2 * x) + f + offset(x) + (1 | g)",  # a column that is left out
        "y ~ x + (x || g)",
    ],
)
def test_deletions_without_rows(data: pd.DataFrame, formula: str, tmp_path: Path) -> None:
    fit = mx.lmer(formula, data, weights=np.linspace(1.0, 3.0, 120), control=mx.Control(warn=False))
    path = tmp_path / "fit"
    fit.save(path, include_data=False)
    pd.testing.assert_frame_equal(
        pd.DataFrame(mx.load(path).drop1()), pd.DataFrame(fit.drop1()), atol=1e-6, rtol=1e-9
    )


def test_deletions_of_batches(data: pd.DataFrame) -> None:
    formula = "y ~ f * x + lo + (x | g)"
    batches = mx.lmer(formula, lambda: (data.iloc[i : i + 50] for i in (0, 50, 100)))
    pd.testing.assert_frame_equal(
        pd.DataFrame(batches.drop1()),
        pd.DataFrame(mx.lmer(formula, data).drop1()),
        atol=1e-5,
        rtol=1e-6,
    )


def test_a_smaller_span_has_the_products_of_its_columns(data: pd.DataFrame) -> None:
    quiet = mx.Control(warn=False)
    whole = mx.lmer("y ~ f * x + (x | g)", data, control=quiet).system
    part = mx.lmer("y ~ f + x + (x | g)", data, control=quiet).system
    products = whole.products
    span = np.linalg.qr(products.R_x[:, :4], mode="complete")[0]
    fewer = with_fewer_columns(whole, span[:, :4], span[:, 4:])
    theta = np.array([0.8, 0.1, 0.3])
    assert fewer.p == 4
    assert solve_pls(theta, fewer).pwrss == pytest.approx(solve_pls(theta, part).pwrss, rel=1e-12)
    assert fewer.products.yy == pytest.approx(part.products.yy, rel=1e-12)
