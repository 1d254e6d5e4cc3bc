"""What the data determine of a residual structure beside random effects: against dense ranks."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pandas as pd
import pytest
import scipy.linalg

import mixlm_sparse as mx

QUIET = mx.Control(warn=False)
STEP = 1e-5


def frame(seed: int = 3, groups: int = 14, visits: int = 4, lost: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    n = groups * visits
    g = np.repeat(np.arange(groups), visits)
    d = pd.DataFrame({"g": g, "t": np.tile(np.arange(visits), groups)})
    d["pair"] = d["t"] // 2
    d["arm"] = np.where(g % 3 == 0, "a", "b")
    d["x"] = rng.normal(size=n)
    d["near"] = np.array([f"c{k}" for k in g // 2])
    d["again"], d["other"] = d["near"] + "!", 100 - d["g"]  # the same groups by other names
    noise = rng.normal(size=(groups, visits))
    noise[:, 1:] += 0.6 * noise[:, :-1]
    d["y"] = d["x"] + noise.ravel() + 1.3 * rng.normal(size=groups)[g]
    keep = np.ones(n, dtype=bool)
    keep[rng.choice(n, lost, replace=False)] = False
    return d[keep].reset_index(drop=True)


# -- the law, dense, from the natural parameters ---------------------------------------------------


def correlation(kind: str, t: np.ndarray, rho: np.ndarray, visits: int) -> np.ndarray:
    lag = np.abs(np.subtract.outer(t, t)).astype(int)
    if kind == "cs":
        return np.where(lag == 0, 1.0, rho[0])
    if kind == "ar1":
        return rho[0] ** lag
    if kind == "toep":
        return np.append(1.0, rho)[lag]
    full = np.eye(visits)
    full[np.tril_indices(visits, -1)] = rho[: visits * (visits - 1) // 2]
    full = np.tril(full) + np.tril(full, -1).T
    return full[np.ix_(t, t)]


KINDS = {
    "cs": (mx.CompoundSymmetry(group="g"), lambda visits: 1),
    "ar1": (mx.AR1(time="t", group="g"), lambda visits: 1),
    "toep": (mx.Toeplitz(time="t", group="g"), lambda visits: visits - 1),
    "un": (mx.Unstructured(time="t", group="g"), lambda visits: visits * (visits - 1) // 2),
}
# What the random part is: the columns and the factor of every (co)variance.
RANDOM = {
    "": [],
    "(1 | g)": [("one", "g")],
    "(1 | near)": [("one", "near")],
    "(0 + x | g)": [("x", "g")],
    "(1 | g) + (1 | near)": [("one", "g"), ("one", "near")],
    "(1 | g:pair)": [("one", "gpair")],
    "(1 | near) + (1 | again)": [("one", "near"), ("one", "again")],
    "(1 | g) + (1 | other)": [("one", "g"), ("one", "other")],
}


def covariance(
    d: pd.DataFrame, kind: str, random: str, variance: bool, values: np.ndarray, visits: int
) -> np.ndarray:
    """V of (tau..., sigma^2, rho..., ratio)."""
    terms = RANDOM[random]
    tau, sigma_sq, rest = values[: len(terms)], values[len(terms)], values[len(terms) + 1 :]
    n = len(d)
    sd = np.ones(n)
    if variance:
        sd = np.where(d["arm"] == "a", 1.0, rest[-1])
    C = np.zeros((n, n))
    for _, rows in d.groupby("g").indices.items():
        C[np.ix_(rows, rows)] = correlation(kind, d["t"].to_numpy()[rows], rest, visits)
    V = sigma_sq * np.outer(sd, sd) * C
    for size, (column, factor) in zip(tau, terms, strict=True):
        by = d["g"] * 100 + d["pair"] if factor == "gpair" else d[factor]
        same = by.to_numpy()[:, None] == by.to_numpy()
        z = np.ones(n) if column == "one" else d["x"].to_numpy()
        V = V + size * same * np.outer(z, z)
    return V


def null_space(d, kind, random, variance, values, visits, reml):
    columns = []
    K = np.eye(len(d))
    if reml:
        X = np.column_stack([np.ones(len(d)), d["x"]])
        K = scipy.linalg.null_space(X.T)
    for i in range(values.size):
        step = np.zeros(values.size)
        step[i] = STEP
        ahead = covariance(d, kind, random, variance, values + step, visits)
        back = covariance(d, kind, random, variance, values - step, visits)
        columns.append((K.T @ (ahead - back) @ K / (2 * STEP)).ravel())
    J = np.column_stack(columns)
    return scipy.linalg.null_space(J / np.sqrt((J * J).sum(axis=0)), rcond=1e-6)


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("visits", [2, 4])
@pytest.mark.parametrize("variance", [False, True])
@pytest.mark.parametrize("random", list(RANDOM))
@pytest.mark.parametrize("kind", list(KINDS))
def test_against_dense_ranks(kind, random, variance, visits, reml):
    d = frame(visits=visits, lost=3 if visits > 2 else 0)
    structure, size = KINDS[kind]
    more = {"variance": mx.VarIdent(by="arm")} if variance else {}
    fixed = "y ~ x"
    call = mx.lmer if random else mx.gls
    formula = f"{fixed} + {random}" if random else fixed
    control = mx.Control(warn=False, max_evaluations=3)
    fit = call(formula, d, residual=structure, reml=reml, control=control, **more)
    law = fit.system.whitened.law
    natural = law.natural(fit.system.whitened.rho)[0]
    assert natural.size == size(visits) + variance
    at = np.concatenate([np.full(len(RANDOM[random]), 0.7), [1.0], natural])
    null = null_space(d, kind, random, variance, at, visits, reml)
    judged = fit.identification
    assert len(judged.directions) == null.shape[1]
    moved = (np.abs(null) > 1e-5).any(axis=1)
    k = len(RANDOM[random])
    assert [bool(e[0, 0]) for e in judged.entries] == (~moved[:k]).tolist()
    assert judged.residual == (not moved[k])
    assert judged.structure.tolist() == (~moved[k + 1 :]).tolist()


# -- as a user sees it -----------------------------------------------------------------------------


def test_said_once_and_nan_everywhere():
    d = frame()
    with pytest.warns(mx.ConvergenceWarning, match="the residual parameter rho: they stand for"):
        fit = mx.lmer("y ~ x + (1 | g)", d, residual=KINDS["cs"][0])
    assert len(fit.messages) == 1
    assert "drop (1 | g), or take a simpler residual structure" in fit.messages[0]
    table = fit.variance_components()
    assert table["estimate"].isna().all()
    assert (table["note"] == fit.identification.sentence).all()
    assert fit.residual_structure["estimate"].isna().all()
    assert np.isnan(fit.varcorr["g"].iloc[0, 0])
    assert np.isnan(fit.varcorr.sigma)
    assert fit.identification.to_frame()["determined"].tolist() == [False, False, False]
    # what does not depend on them is there: the law is that of the structure alone
    alone = mx.gls("y ~ x", d, residual=KINDS["cs"][0])
    np.testing.assert_allclose(fit.criterion, alone.criterion, rtol=1e-9)
    np.testing.assert_allclose(fit.bse, alone.bse, rtol=1e-5)
    np.testing.assert_allclose(fit.df_coefficients(), alone.df_coefficients(), rtol=1e-3)
    assert fit.n_determined == alone.n_par


@pytest.mark.parametrize(
    "structure",
    [
        {"residual": mx.AR1(time="t", group="g")}, {"variance": mx.VarIdent(by="t")},
        {"residual": mx.Unstructured(time="t", group="g"), "variance": mx.VarIdent(by="arm")},
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    "formula", ["y ~ x + (1 | near) + (1 | again)", "y ~ x + near + (1 | near)"]
)
def test_what_random_effects_hide_is_said_beside_a_structure(formula, structure):
    d = frame()
    with pytest.warns(mx.ConvergenceWarning, match=r"do not determine the variance of \(1 | near"):
        fit = mx.lmer(formula, d, **structure)
    table = fit.identification.to_frame().set_index(["term", "parameter"])["determined"]
    assert not table["(1 | near)"].any()
    assert table["Residual"].all()
    plain = formula.replace("+ (1 | again)", "").replace("+ near ", "")
    alone = mx.lmer(plain, d, control=QUIET, **structure)
    parts = fit.residual_structure["estimate"]
    assert np.isfinite(parts).all()
    if "again" in formula:  # one of two equal terms is the model
        np.testing.assert_allclose(fit.criterion, alone.criterion, rtol=1e-8)
        np.testing.assert_allclose(parts, alone.residual_structure["estimate"], rtol=1e-3)


def test_a_test_between_the_same_laws_has_no_degrees_of_freedom():
    d = frame()
    both = mx.lmer("y ~ x + (1 | g)", d, residual=KINDS["cs"][0], control=QUIET, reml=False)
    alone = mx.gls("y ~ x", d, residual=KINDS["cs"][0], reml=False)
    assert both.n_determined - alone.n_par == 0


@pytest.mark.parametrize("kind", ["ar1", "toep", "un", "cs"])
def test_order_names_and_units_do_not_matter(kind):
    d = frame(lost=2)
    call = {"residual": KINDS[kind][0], "control": QUIET}
    judged = mx.lmer("y ~ x + (1 | g)", d, **call).identification
    moved = d.sample(frac=1.0, random_state=1).assign(
        y=lambda s: 1e4 * s["y"] - 7.0, x=lambda s: 1e-3 * s["x"] + 5.0,
        g=lambda s: "g" + s["g"].astype(str),
    )  # fmt: skip
    again = mx.lmer("y ~ x + (1 | g)", moved, **call).identification
    assert again.sentence == judged.sentence
    pd.testing.assert_frame_equal(again.to_frame(), judged.to_frame())


@pytest.mark.parametrize("seed", [0, 1, 4, 6])
def test_where_among_equals_a_search_ends_does_not_matter(seed):
    """Some of these orders and units end next to singular correlations, others in the middle."""
    rng = np.random.default_rng(seed)
    unit, origin = 10.0 ** rng.integers(-4, 5), rng.normal() * 10.0
    scale = 10.0 ** rng.integers(-3, 4)
    moved = frame(lost=2).sample(frac=1.0, random_state=seed).assign(
        y=lambda s: unit * s["y"] + origin, x=lambda s: scale * s["x"] + origin
    )  # fmt: skip
    fit = mx.lmer("y ~ x + (1 | g)", moved, residual=KINDS["un"][0], control=QUIET)
    assert not fit.identification.structure.any()
    assert not fit.identification.residual


@pytest.mark.parametrize("unit", [1e-9, 1.0, 1e9])
def test_the_unit_of_distances_does_not_matter(unit):
    # two rows a group, equally far apart: a range and a variance between groups are one covariance
    d = frame(visits=2).assign(at=lambda s: unit * s["t"])
    near = mx.Exponential(position="at", group="g")
    judged = mx.lmer("y ~ x + (1 | g)", d, residual=near, control=QUIET).identification
    assert judged.to_frame()["determined"].tolist() == [False, False, False]


def test_what_few_rows_show_is_determined():
    # one level of `h` has two residual groups, among 600: it alone tells the variances apart
    d = frame(groups=600, visits=4)
    d["h"] = d["g"].where(d["g"] != 411, 17)
    call = {"residual": KINDS["cs"][0], "control": QUIET}
    assert mx.lmer("y ~ x + (1 | h)", d, **call).identification.complete
    assert not mx.lmer("y ~ x + (1 | g)", d, **call).identification.complete


def test_a_loaded_fit_knows_it_without_rows(tmp_path):
    d = frame()
    fit = mx.lmer("y ~ x + (1 | g)", d, residual=KINDS["un"][0], control=QUIET)
    fit.save(tmp_path / "fit", include_data=False)
    for again in (mx.load(tmp_path / "fit"), pickle.loads(pickle.dumps(fit)), copy.deepcopy(fit)):
        assert again.identification.sentence == fit.identification.sentence
        pd.testing.assert_frame_equal(again.residual_structure, fit.residual_structure)
        assert str(again.summary()) == str(fit.summary())
