"""Heritability beside structures of residuals, against dense matrices and a search of its own."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize

import mixlm_sparse as mx
from tests.support.dense_structures import dense_fit

QUIET = mx.Control(warn=False)
CHI2 = 3.841458820694124


def herd(seed: int = 4, animals: int = 30, visits: int = 4) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Animals related by a dense matrix, measured some times at two stations."""
    rng = np.random.default_rng(seed)
    B = rng.normal(size=(animals, 2 * animals)) * 0.3
    A = B @ B.T + 0.3 * np.eye(animals)
    A /= np.sqrt(np.outer(np.diag(A), np.diag(A)))
    a = 1.3 * np.linalg.cholesky(A) @ rng.normal(size=animals)
    g = np.repeat(np.arange(animals), visits)
    t = np.tile(np.arange(visits), animals)
    e = rng.normal(size=(animals, visits))
    for k in range(1, visits):
        e[:, k] = 0.4 * e[:, k - 1] + np.sqrt(1 - 0.16) * e[:, k]
    data = pd.DataFrame({"animal": [f"a{i:02d}" for i in g], "t": t, "x": rng.normal(size=g.size)})
    data["station"] = np.where(rng.uniform(size=g.size) < 0.3, "north", "south")
    data["y"] = a[g] + data["x"] + e.ravel() * np.where(data["station"] == "north", 1.8, 1.0)
    names = sorted(set(data["animal"]))
    return data, pd.DataFrame(A, index=names, columns=names)


STRUCTURES = {
    "ar1": {"residual": mx.AR1("t", "animal")},
    "stations": {"variance": mx.VarIdent("station")},
    "both": {"residual": mx.AR1("t", "animal"), "variance": mx.VarIdent("station")},
}


def dense_criterion(data, A, kind: str, h: float, x: np.ndarray) -> float:
    """The REML criterion where h^2 is h; x = (atanh phi, log ratio), as the structure has them."""
    code = data["animal"].to_numpy()
    R, sd, x = np.eye(len(data)), np.ones(len(data)), list(x)
    if kind in ("ar1", "both"):
        lag = np.abs(data["t"].to_numpy()[:, None] - data["t"].to_numpy())
        R = (code[:, None] == code) * np.tanh(x.pop(0)) ** lag
    if kind in ("stations", "both"):
        sd = np.where(data["station"] == "south", np.exp(x.pop(0)), 1.0)
    related = A.loc[code, code].to_numpy()
    V = h / (1.0 - h) * (sd**2).mean() * related + R * np.outer(sd, sd)
    X = np.column_stack([np.ones(len(data)), data["x"]])
    return dense_fit(data["y"].to_numpy(), X, V, reml=True).criterion


def profiled(data, A, kind: str, h: float, x: list[float]) -> float:
    """The least criterion where h^2 is h."""

    def function(z):
        return dense_criterion(data, A, kind, h, z)

    options = {"xatol": 1e-7, "fatol": 1e-11}
    return minimize(function, x, method="Nelder-Mead", options=options).fun


@pytest.mark.parametrize("kind", list(STRUCTURES))
def test_estimate_and_profile_are_those_of_dense_matrices(kind) -> None:
    data, A = herd()
    fit = mx.lmer("y ~ x + (1 | animal)", data, known={"animal": A}, control=QUIET,
                  **STRUCTURES[kind])  # fmt: skip
    found = fit.heritability()
    figures = fit.residual_structure.set_index("parameter")["estimate"]
    x = []
    spread = 1.0
    if "phi" in figures:
        x.append(np.arctanh(figures["phi"]))
    if "ratio(south)" in figures:
        x.append(np.log(figures["ratio(south)"]))
        spread = np.where(data["station"] == "south", figures["ratio(south)"] ** 2, 1.0).mean()
    tau_sq = fit.varcorr["animal"].iloc[0, 0]
    h = tau_sq / (tau_sq + fit.scale * spread)
    assert found["estimate"].iloc[0] == pytest.approx(h, rel=1e-9)
    assert dense_criterion(data, A, kind, h, x) == pytest.approx(fit.criterion, abs=1e-7)
    for limit in found[["lower", "upper"]].iloc[0]:
        at_edge = limit == 0.0  # which the criterion does not exclude
        rise = profiled(data, A, kind, max(limit, 1e-6), x) - fit.criterion
        assert rise < CHI2 if at_edge else rise == pytest.approx(CHI2, abs=2e-3)
    # near the optimum the profile is a parabola whose width is the standard error
    step = 0.02
    rise = [profiled(data, A, kind, h + s, x) - fit.criterion for s in (step, -step)]
    error = step / np.sqrt(0.5 * (rise[0] + rise[1]))
    assert found["std_error"].iloc[0] == pytest.approx(error, rel=0.02)
    # the note tells what stands in the sum
    assert ("mean over the rows" in str(found)) == (kind != "ar1")


def test_the_reference_level_and_the_unit_do_not_matter() -> None:
    data, A = herd(7)
    found = []
    for levels, unit in ((["north", "south"], 1.0), (["south", "north"], 1e3)):
        own = data.assign(station=pd.Categorical(data["station"], levels), y=unit * data["y"])
        fit = mx.lmer("y ~ x + (1 | animal)", own, known={"animal": A}, control=QUIET,
                      variance=mx.VarIdent("station"))  # fmt: skip
        found.append(fit.heritability())
    np.testing.assert_allclose(found[0], found[1], rtol=1e-4)
    wald = [one.to_numpy() for one in found]
    assert 0.0 < wald[0][0, 2] < wald[0][0, 0] < wald[0][0, 3] < 1.0


def test_equal_variances_are_the_share_without_a_structure() -> None:
    data, A = herd(9)
    plain = mx.lmer("y ~ x + (1 | animal)", data, known={"animal": A}, control=QUIET)
    phi = mx.lmer("y ~ x + (1 | animal)", data, known={"animal": A}, control=QUIET,
                  residual=mx.CompoundSymmetry("animal"))  # fmt: skip
    permanent = mx.lmer("y ~ x + (1 | animal) + (1 | own)", data.assign(own=data["animal"]),
                        known={"animal": A}, control=QUIET)  # fmt: skip
    assert plain.heritability()["estimate"].iloc[0] > 0.0
    rho = phi.residual_structure["estimate"].iloc[0]
    if rho > 0.0:  # what an animal keeps is a part of its residual variance
        np.testing.assert_allclose(
            phi.heritability()["estimate"], permanent.heritability()["estimate"], rtol=1e-3
        )


def test_a_share_that_the_data_do_not_determine_is_missing_and_says_why() -> None:
    rng = np.random.default_rng(0)
    data = pd.DataFrame({"g": np.repeat(np.arange(8), 5)})
    data["h"] = data["g"]
    data["y"] = rng.normal(size=8)[data["g"]] + rng.normal(size=40)
    fit = mx.lmer("y ~ 1 + (1 | g) + (1 | h)", data, control=QUIET)
    found = fit.heritability("g")
    assert found.isna().all().all()
    assert any("not" in note for note in found.attrs["notes"])
