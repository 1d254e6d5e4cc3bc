"""Memberships in combination with other factors, against a membership of the combinations."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import mixlm_sparse as mx

QUIET = mx.Control(warn=False)
LETTERS = ["north", "east", "west"]


def pupils(seed: int = 2, n: int = 150) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Pupils of three regions, each with shares of up to three of six schools."""
    rng = np.random.default_rng(seed)
    W = np.zeros((n, 6))
    for row in W:
        own = rng.choice(6, rng.integers(1, 4), replace=False)
        row[own] = rng.dirichlet(np.ones(own.size))
    region = rng.integers(0, 3, n)
    effects = rng.normal(size=(6, 3))
    data = pd.DataFrame({"x": rng.normal(size=n), "year": np.array(LETTERS)[region]})
    data["id"], data["t"] = np.arange(n) % 30, np.arange(n) // 30
    data["y"] = 1.0 + data["x"] + (W * effects[:, region].T).sum(axis=1) + rng.normal(size=n)
    return data, pd.DataFrame(W, columns=[f"s{j}" for j in range(6)])


def combined(data: pd.DataFrame, W: pd.DataFrame, *, first: str = "school") -> pd.DataFrame:
    """Weights of the combinations, by their names in the order in which R has them."""
    years = sorted(data["year"].unique())
    pairs = [(s, y) for s in W.columns for y in years]
    if first == "year":
        pairs = [(s, y) for y in years for s in W.columns]
    columns = {
        f"{s}:{y}" if first == "school" else f"{y}:{s}": W[s] * (data["year"] == y)
        for s, y in pairs
    }
    out = pd.DataFrame(columns)
    return out.loc[:, (out != 0.0).any()]


@pytest.mark.parametrize("first", ["school", "year"])
@pytest.mark.parametrize("left", ["1", "x"])
def test_a_combination_is_the_membership_of_its_levels(first, left) -> None:
    data, W = pupils()
    name = "school:year" if first == "school" else "year:school"
    fit = mx.lmer(f"y ~ x + ({left} | {name})", data, membership={"school": W}, control=QUIET)
    own = combined(data, W, first=first)
    other = mx.lmer(f"y ~ x + ({left} | both)", data, membership={"both": own}, control=QUIET)
    assert fit.criterion == pytest.approx(other.criterion, abs=1e-9)
    found, expected = fit.ranef()[name], other.ranef()["both"]
    assert list(found.index) == list(own.columns)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(fit.fittedvalues, other.fittedvalues, rtol=1e-8)
    np.testing.assert_allclose(fit.hatvalues(), other.hatvalues(), rtol=1e-6, atol=1e-9)
    a, b = (one.tidy(ddf="kenward-roger") for one in (fit, other))
    np.testing.assert_allclose(a["df"], b["df"], rtol=1e-5)
    np.testing.assert_allclose(
        fit.varcorr.to_frame()["vcov"].dropna(), other.varcorr.to_frame()["vcov"].dropna(),
        rtol=1e-6,
    )  # fmt: skip


def test_schools_and_years_in_them() -> None:
    data, W = pupils()
    fit = mx.lmer("y ~ x + (1 | school/year)", data, membership={"school": W}, control=QUIET)
    both = {"school": W, "both": combined(data, W)}
    other = mx.lmer("y ~ x + (1 | both) + (1 | school)", data, membership=both, control=QUIET)
    assert fit.criterion == pytest.approx(other.criterion, abs=1e-8)
    assert set(fit.ngroups) == {"year:school", "school"}
    mixed = mx.lmer("y ~ (1 | school:year) + (1 | year)", data, membership={"school": W},
                    control=QUIET)  # fmt: skip
    assert mixed.ngroups == {"school:year": 18, "year": 3}


def new_rows() -> tuple[pd.DataFrame, pd.DataFrame]:
    new = pd.DataFrame({"x": [0.0, 1.0, -1.0], "year": ["west", "north", "east"]})
    W = pd.DataFrame({"s4": [0.5, 0.0, 1.0], "s0": [0.5, 1.0, 0.0]})
    return new, W


def test_new_rows_find_their_combinations() -> None:
    data, W = pupils()
    fit = mx.lmer("y ~ x + (x | school:year)", data, membership={"school": W}, control=QUIET)
    b = fit.ranef()["school:year"]
    new, own = new_rows()
    parts = [0.5 * (b.loc["s4:west"] + b.loc["s0:west"]), b.loc["s0:north"], b.loc["s4:east"]]
    expected = [
        fit.fixef.iloc[0] + row["x"] * fit.fixef.iloc[1] + part.iloc[0] + row["x"] * part.iloc[1]
        for (_, row), part in zip(new.iterrows(), parts, strict=True)
    ]
    found = fit.predict(new, membership={"school": own}, se=True)
    np.testing.assert_allclose(found["fit"], expected, rtol=1e-10)
    assert (found["se"] > 0.0).all()
    # rows in one school each
    plain = new.assign(school=["s1", "s0", "s4"])
    b0 = b.loc[["s1:west", "s0:north", "s4:east"]]
    np.testing.assert_allclose(
        fit.predict(plain),
        fit.fixef.iloc[0] + new["x"] * fit.fixef.iloc[1]
        + b0.iloc[:, 0].to_numpy() + new["x"] * b0.iloc[:, 1].to_numpy(),
        rtol=1e-10,
    )  # fmt: skip


def test_new_combinations_are_named_and_have_their_variance() -> None:
    data, W = pupils()
    fit = mx.lmer("y ~ x + (1 | school:year)", data, membership={"school": W}, control=QUIET)
    new, own = new_rows()
    new.loc[0, "year"] = "south"
    with pytest.raises(mx.DataError, match=r"'s\d:south', 's\d:south'"):
        fit.predict(new, membership={"school": own})
    found = fit.predict(new, membership={"school": own}, allow_new_levels=True, se=True)
    known = fit.predict(new.iloc[1:], membership={"school": own.iloc[1:]}, se=True)
    np.testing.assert_allclose(found.iloc[1:], known, rtol=1e-10)
    assert found["fit"].iloc[0] == pytest.approx(fit.fixef.iloc[0], rel=1e-10)
    tau_sq = fit.varcorr["school:year"].iloc[0, 0]
    x = np.array([1.0, 0.0])
    expected = x @ fit.cov_params().to_numpy() @ x + 0.5 * tau_sq
    assert found["se"].iloc[0] ** 2 == pytest.approx(expected, rel=1e-8)


def test_whatever_else_is_asked(tmp_path) -> None:
    data, W = pupils()
    formula = "y ~ x + (1 | school:year)"
    fit = mx.lmer(formula, data, membership={"school": W}, control=QUIET)
    new, own = new_rows()
    expected = fit.predict(new, membership={"school": own})
    for include in (True, False):
        fit.save(tmp_path / "fit.mixlm", include_data=include)
        loaded = mx.load(tmp_path / "fit.mixlm")
        assert list(loaded.ranef()["school:year"].index) == list(fit.ranef()["school:year"].index)
        np.testing.assert_allclose(loaded.predict(new, membership={"school": own}), expected)
    keep = data["x"] > -0.5
    less = mx.lmer(formula, data, membership={"school": W}, subset="x > -0.5", control=QUIET)
    direct = mx.lmer(formula, data[keep], membership={"school": W[keep]}, control=QUIET)
    assert less.criterion == pytest.approx(direct.criterion, abs=1e-8)
    assert fit.update(reml=False).ngroups == fit.ngroups
    assert np.isfinite(fit.bootstrap(3, seed=1).samples).all().all()
    assert fit.simulate(2, seed=1).shape == (150, 2)
    correlated = mx.lmer(formula, data, membership={"school": W}, residual=mx.AR1("t", "id"),
                         control=QUIET)  # fmt: skip
    other = mx.lmer("y ~ x + (1 | both)", data, membership={"both": combined(data, W)},
                    residual=mx.AR1("t", "id"), control=QUIET)  # fmt: skip
    assert correlated.criterion == pytest.approx(other.criterion, abs=1e-8)


def test_rows_without_a_level_and_two_memberships_are_refused() -> None:
    data, W = pupils()
    empty = W.copy()
    empty.iloc[3] = 0.0
    with pytest.raises(mx.DataError, match=r"row 3 .* belongs to no level"):
        mx.lmer("y ~ (1 | school:year)", data, membership={"school": empty})
    with pytest.raises(mx.DataError, match="combines two memberships"):
        mx.lmer("y ~ (1 | school:club)", data, membership={"school": W, "club": W})
