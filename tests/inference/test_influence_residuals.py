"""Deletions from models with a residual structure against fits of the rows that are left."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import mixlm_sparse as mx
from mixlm_sparse.solve.derived.without_rows import Deletion
from mixlm_sparse.solve.optimize import optimize
from mixlm_sparse.solve.system import penalized_system
from mixlm_sparse.solve.whitened.search import solution_at

QUIET = mx.Control(warn=False)


def orthodont() -> pd.DataFrame:
    data = mx.datasets.load("Orthodont").assign(visit=lambda d: ((d["age"] - 8) / 2).astype(int))
    return data[data["Subject"].isin([f"{s}0{i}" for s in "MF" for i in range(1, 7)])]


def visits(seed: int = 5) -> pd.DataFrame:
    """Patients with gaps between their visits, rows in no order, sites that cross patients."""
    rng = np.random.default_rng(seed)
    parts = []
    for i in range(16):
        at = np.sort(rng.choice(7, rng.integers(2, 6), replace=False)) + 1
        e = rng.normal(size=8)
        for t in range(1, 8):
            e[t] = 0.6 * e[t - 1] + 0.8 * e[t]
        parts.append(pd.DataFrame({"id": f"p{i}", "visit": at, "arm": "ab"[i % 2], "e": e[at]}))
    data = pd.concat(parts, ignore_index=True)
    n = len(data)
    data["x"], data["z"] = rng.normal(size=n), rng.uniform(0.5, 3.0, n)
    data["w"] = rng.uniform(0.5, 2.0, n)
    data["site"] = [f"s{k}" for k in rng.integers(0, 4, n)]
    site = rng.normal(size=4)[data["site"].str[1:].astype(int)]
    data["y"] = 3.0 + 0.7 * data["x"] + site + data["e"] * np.where(data["arm"] == "a", 1.0, 1.6)
    return data.iloc[rng.permutation(n)].reset_index(drop=True)


AR1 = mx.AR1("visit", "id")
MODELS = {
    "gls": (mx.gls, "y ~ x * arm", {"residual": AR1, "weights": "w"}),
    "intercept": (mx.lmer, "y ~ x + (1 | id)", {"residual": mx.CAR1("visit", "id")}),
    "crossed": (
        mx.lmer, "y ~ x + (1 | site)", {"residual": AR1, "variance": mx.VarIdent("arm")}
    ),
    "two factors": (
        mx.lmer, "y ~ x + (x | site) + (1 | id)", {"residual": mx.CompoundSymmetry("id")}
    ),
    "variance alone": (mx.lmer, "y ~ x + (1 | site)", {"variance": mx.VarPower("z")}),
    "offset": (mx.gls, "y ~ x + arm + offset(z)", {"residual": mx.Toeplitz("visit", "id")}),
}  # fmt: skip


def members(data: pd.DataFrame) -> dict[str, object]:
    rng = np.random.default_rng(2)
    W = rng.uniform(0.2, 1.0, (len(data), 5)) * (rng.uniform(size=(len(data), 5)) < 0.4)
    W[:, 0] += 0.1
    return {"school": mx.membership(W, labels=list("abcde"))}


def fitted(name: str):
    data = visits()
    if name == "membership":
        return data, mx.lmer("y ~ x + (1 | school)", data, residual=AR1, control=QUIET,
                             membership=members(data))  # fmt: skip
    model, formula, structure = MODELS[name]
    return data, model(formula, data, control=QUIET, **structure)


@pytest.mark.parametrize("name", [*MODELS, "membership"])
@pytest.mark.parametrize("left_out", ["one row", "a patient", "some rows"])
def test_the_rest_has_the_criterion_of_a_design_of_its_own(name, left_out) -> None:
    data, fit = fitted(name)
    rows = {
        "one row": np.array([7]),
        "a patient": np.flatnonzero(data["id"] == "p3"),
        "some rows": np.array([0, 4, 5, 20, 31]),
    }[left_out]
    rest = Deletion(fit.system).without(rows)
    anew = penalized_system(rest.matrices)
    rng = np.random.default_rng(1)
    for _ in range(3):
        rho = rng.normal(size=rest.n_rho) * 0.5
        theta = np.where(rest.lower == 0.0, 1.0, 0.0) * rng.uniform(0.2, 2.0, rest.n_theta)
        values = []
        for system in (rest, anew):
            there = mx.solve_pls(theta, system.at_rho(rho))
            values.append((there.pwrss, there.ldL2, there.ldRX2, *there.beta))
        np.testing.assert_allclose(values[0], values[1], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", [*MODELS, "membership"])
def test_the_optimum_is_that_of_a_fit_of_the_rest(name) -> None:
    data, fit = fitted(name)
    group = np.flatnonzero(data["id"] == "p7")
    for rows in (np.array([11]), group):
        rest = Deletion(fit.system).without(rows)
        found = optimize(rest, reml=True, control=QUIET)
        anew = optimize(penalized_system(rest.matrices), reml=True, control=QUIET)
        assert found.criterion == pytest.approx(anew.criterion, abs=1e-8)
    if name == "offset":
        return  # two thirds of 55 rows do not determine six correlations: the criterion is flat
    third = np.arange(len(data)) % 3
    warm = fit.influence(third)
    rest = Deletion(fit.system).without(np.flatnonzero(third == 1))
    anew = optimize(penalized_system(rest.matrices), reml=True, control=QUIET)
    beta = solution_at(anew, rest).beta
    np.testing.assert_allclose(warm.estimates().loc[1, list(warm.names)], beta, rtol=1e-5)


def dense_covariance(name: str, data: pd.DataFrame, fit) -> np.ndarray:
    """V over sigma^2 entry by entry, from the natural parameters."""
    figures = fit.residual_structure.set_index("parameter")["estimate"]
    same = data["id"].to_numpy()[:, None] == data["id"].to_numpy()
    lag = np.abs(data["visit"].to_numpy()[:, None] - data["visit"].to_numpy())
    sd = np.ones(len(data))
    R = np.eye(len(data))
    if "phi" in figures:
        R = same * float(figures["phi"]) ** lag
    if name == "gls":
        sd = 1.0 / np.sqrt(data["w"].to_numpy())
    if name == "crossed":
        sd = np.where(data["arm"] == "b", figures["ratio(b)"], 1.0)
    if name == "variance alone":
        sd = data["z"].to_numpy() ** figures["power"]
    V = R * np.outer(sd, sd)
    if fit.theta.size:
        at = data["site" if "site" in fit.ngroups else "id"].to_numpy()
        V = V + fit.theta[0] ** 2 * (at[:, None] == at)
    return V


@pytest.mark.parametrize("name", ["gls", "intercept", "crossed", "variance alone"])
@pytest.mark.parametrize("group", [None, "id", "site"])
def test_with_parameters_kept_it_is_least_squares_of_dense_matrices(name, group) -> None:
    data, fit = fitted(name)
    V, X = dense_covariance(name, data, fit), fit.model_matrix()
    found = fit.influence(group, refit=False)
    labels = np.arange(len(data)) if group is None else data[group].to_numpy()
    for at, label in enumerate(found.labels):
        keep = labels != label
        inverse = np.linalg.inv(V[np.ix_(keep, keep)])
        vcov = np.linalg.inv(X[keep].T @ inverse @ X[keep])
        beta = vcov @ X[keep].T @ inverse @ data["y"].to_numpy()[keep]
        e = data["y"].to_numpy()[keep] - X[keep] @ beta
        sigma_sq = e @ inverse @ e / (keep.sum() - X.shape[1])
        np.testing.assert_allclose(found.deleted_beta[at], beta, rtol=1e-8)
        np.testing.assert_allclose(found.deleted_vcov[at], sigma_sq * vcov, rtol=1e-8)
    kept = found.variance_change().drop(columns="sigma")
    parameters = [name for name in fit.residual_structure["parameter"] if name in kept]
    np.testing.assert_allclose(kept[parameters], 0.0, atol=1e-12)


@pytest.mark.parametrize("random", ["", " + (1 | Subject)"])
@pytest.mark.parametrize("group", ["Subject", None])
def test_a_deletion_is_a_fit_of_the_rest(random, group) -> None:
    data = orthodont()
    structure = {"residual": mx.AR1("visit", "Subject"), "variance": mx.VarIdent("Sex")}
    model = mx.lmer if random else mx.gls
    fit = model(f"distance ~ age * Sex{random}", data, **structure)
    found = fit.influence(group)
    estimates = found.estimates()
    labels = data.index if group is None else data[group]
    for label in list(estimates.index)[::7]:
        rest = model(f"distance ~ age * Sex{random}", data[labels != label], **structure)
        row = estimates.loc[label]
        np.testing.assert_allclose(row[rest.fixef.index], rest.fixef, rtol=1e-4, atol=1e-5)
        assert row["sigma"] == pytest.approx(rest.sigma, rel=1e-3)
        figures = rest.residual_structure.set_index("parameter")["estimate"]
        np.testing.assert_allclose(row[figures.index], figures, rtol=2e-3, atol=2e-3)
    assert (found.deletion_distance() >= 0.0).all()
    kept = fit.influence(group, refit=False).variance_change()
    np.testing.assert_allclose(kept["phi"], 0.0, atol=1e-12)


def test_a_patient_who_alone_has_a_visit_leaves_its_parameters_undetermined() -> None:
    data = visits()
    rng = np.random.default_rng(3)
    one = pd.DataFrame({"id": "p0", "visit": range(1, 5), "x": rng.normal(size=4)})
    one["y"] = one["x"] + rng.normal(size=4)
    data = pd.concat([one, data[(data["visit"] <= 3) & (data["id"] != "p0")]], ignore_index=True)
    fit = mx.gls("y ~ x", data, residual=mx.Unstructured("visit", "id"), control=QUIET)
    found = fit.influence("id")
    row = found.estimates().loc["p0"]
    assert np.isfinite(row[["(Intercept)", "x"]]).all()
    of_fourth = row.index.str.endswith("4)")
    assert row[of_fourth].isna().all()
    assert row[~of_fourth].notna().all()


INVARIANT = [("gls", False), ("crossed", True), ("membership", False)]


@pytest.mark.parametrize(("name", "refit"), INVARIANT)
def test_units_origins_and_the_order_of_rows_do_not_matter(name, refit) -> None:
    data, fit = fitted(name)
    order = np.random.default_rng(3).permutation(len(data))
    other = data.iloc[order].assign(y=1e3 * data["y"], x=1e-3 * data["x"] + 5.0)
    if name == "membership":
        W = members(data)["school"].members.matrix().toarray()[order]
        own = mx.lmer("y ~ x + (1 | school)", other, residual=AR1, control=QUIET,
                      membership={"school": mx.membership(W)})  # fmt: skip
    else:
        model, formula, structure = MODELS[name]
        own = model(formula, other, control=QUIET, **structure)
    found = [one.influence("id", refit=refit).to_frame() for one in (fit, own)]
    columns = ["cooks", "mdffits", "covratio"]
    again = found[1].loc[found[0].index, columns]
    np.testing.assert_allclose(again, found[0][columns], rtol=1e-5, atol=1e-9)
