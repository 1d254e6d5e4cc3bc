"""Every method of a fit that was saved without its data: the same numbers, or a clear error."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

import mixlm_sparse as mx
from mixlm_sparse.api.fit import INTERNAL
from mixlm_sparse.inference import kept

QUIET = mx.Control(warn=False)
G, T = 20, 4


def data() -> pd.DataFrame:
    rng = np.random.default_rng(7)
    n = G * T
    frame = pd.DataFrame({"g": np.repeat(np.arange(G), T), "t": np.tile(np.arange(T), G)})
    frame["h"] = rng.integers(0, 6, n)
    frame["f"] = np.repeat(rng.choice(list("abc"), G), T)
    frame["v"] = np.tile(["v1", "v2", "v3", "v4"], G)
    frame["k"] = rng.choice(["p", "q"], n)
    for name in ("x", "o", "p1", "p2"):
        frame[name] = rng.normal(size=n)
    frame["c"], frame["w"] = rng.uniform(1, 3, n), rng.uniform(0.5, 2, n)
    e = rng.normal(size=(G, T))
    for j in range(1, T):
        e[:, j] += 0.7 * e[:, j - 1]
    level = (frame["f"] == "a") + 1.5 * rng.normal(size=6)[frame["h"]]
    frame["y"] = 1 + frame["x"] + level + e.ravel() * np.where(frame["k"] == "p", 1.0, 1.5)
    return frame.drop(index=rng.choice(n, 5, replace=False)).reset_index(drop=True)


D = data()
NEW = D.sample(9, random_state=1).assign(x=lambda d: d["x"] + 0.1)
LATER = D.groupby("g").head(1).assign(t=9)
RESPONSE = np.sin(np.arange(len(D)))

Ask = Callable[[mx.LinearMixedFit], Any]
# what needs no rows, by method
ANSWERS: dict[str, Ask | list[Ask]] = {
    "aic": lambda f: f.aic,
    "anova": [
        lambda f: f.anova(),
        lambda f: f.anova(ddf="sas"),
        lambda f: f.anova(type=1),
        lambda f: f.anova(type=2),
        lambda f: f.anova(ddf="kenward-roger") if f.reml else None,
        lambda f: mx.anova(f, f, refit=False),
    ],
    "bic": lambda f: f.bic,
    "bse": lambda f: f.bse,
    "coef": lambda f: f.coef(),
    "conf_int": lambda f: f.conf_int(level=0.9),
    "confint": lambda f: f.confint(method="wald"),
    "contest": lambda f: f.contest("x"),
    "convergence": lambda f: [str(f.convergence.status), f.convergence.hessian_eigenvalues],
    "cov_params": lambda f: f.cov_params(),
    "criterion": lambda f: f.criterion,
    "curvature": lambda f: [f.curvature.hessian, f.curvature.covariance],
    # whether numba is loaded depends on what ran before
    "describe_engine": lambda f: f.describe_engine().partition("rows whitened")[2],
    "deviance": lambda f: f.deviance,
    "df_coefficients": lambda f: f.df_coefficients(),
    "df_resid": lambda f: f.df_resid,
    "emmeans": [
        lambda f: f.emmeans("f"),
        lambda f: f.emmeans("k", by="f").pairs(),
        lambda f: f.emmeans("x", at={"x": [0, 1]}),
        *(lambda f, w=w: f.emmeans("f", weights=w) for w in ("proportional", "outer", "cells")),
    ],
    "emtrends": [lambda f: f.emtrends("x"), lambda f: f.emtrends("x", by="f")],
    "endog_names": lambda f: f.endog_names,
    "fixef": lambda f: f.fixef,
    "fixef_all": lambda f: f.fixef_all,
    "for_maketables": lambda f: f.for_maketables().__maketables_coef_table__,
    "getME": [lambda f, name=name: f.getME(name) for name in
              ("theta", "Lambda", "RX", "u", "b", "beta", "devcomp", "cnms")],
    "glance": lambda f: f.glance(),
    "identification": lambda f: str(f.identification),
    "icc": lambda f: f.icc(),
    "is_singular": lambda f: f.is_singular(),
    "joint_tests": lambda f: f.joint_tests(),
    "llf": lambda f: f.llf,
    "lower": lambda f: f.lower,
    "messages": lambda f: list(f.messages),
    "n_par": lambda f: f.n_par,
    "ngroups": lambda f: f.ngroups,
    "nobs": lambda f: f.nobs,
    "offset_name": lambda f: f.offset_name,
    "params": lambda f: f.params,
    "plot": lambda f: [len(f.plot.caterpillar().axes) if f.ngroups else 0],
    "predict": [
        lambda f: f.predict(NEW),
        lambda f: f.predict(NEW, interval="prediction"),
        lambda f: f.predict(NEW, re_form="population", se=True),
    ],
    "pvalues": lambda f: f.pvalues,
    "ranef": lambda f: list(f.ranef(cond_var=True)),
    "r2": lambda f: f.r2(),
    "rank": lambda f: f.rank("h"),
    "rePCA": lambda f: f.rePCA(),
    "reml": lambda f: f.reml,
    "residual_structure": lambda f: f.residual_structure,
    "scale": lambda f: f.scale,
    "sigma": lambda f: f.sigma,
    "simulate": lambda f: f.simulate(2, seed=1, newdata=NEW),
    "singularity": lambda f: f.singularity(),
    "subset_name": lambda f: f.subset_name,
    "summary": [lambda f: str(f.summary()), lambda f: f._repr_html_(), str, repr],
    "theta": lambda f: f.theta,
    "theta_names": lambda f: f.theta_names,
    "tidy": [
        lambda f: f.tidy(["fixed", "ran_pars"], conf_int=True),
        lambda f: f.tidy("ran_vals"),
        lambda f: f.tidy(ddf="kenward-roger") if f.reml else None,
    ],
    "to_dict": lambda f: f.to_dict(),
    "tvalues": lambda f: f.tvalues,
    "unbounded": lambda f: f.unbounded,
    "varcorr": lambda f: f.varcorr.to_frame(),
    "variance_components": lambda f: str(f.variance_components()),
    "vcov_adjusted": lambda f: f.vcov_adjusted() if f.reml else None,
    "wald_test": lambda f: f.wald_test("x"),
    "weights_name": lambda f: f.weights_name,
}  # fmt: skip
# what rows are needed for, or a search that whitens them again
ROWS: dict[str, Ask | list[Ask]] = {
    "acf": lambda f: f.acf(),
    "all_fit": lambda f: f.all_fit(),
    "augment": lambda f: f.augment(),
    "bootstrap": lambda f: f.bootstrap(3, seed=1),
    "confint": [lambda f: f.confint(), lambda f: f.confint(method="boot", nsim=3)],
    "cooks_distance": lambda f: f.cooks_distance(),
    "drop1": lambda f: f.drop1(),
    "emmeans": [
        lambda f: f.emmeans("f", counterfactuals="f"),
        lambda f: f.emmeans("f", cov_reduce=np.median),
    ],
    "fittedvalues": lambda f: f.fittedvalues,
    "hatvalues": lambda f: f.hatvalues(),
    "influence": lambda f: f.influence(),
    "model_matrix": lambda f: f.model_matrix(),
    "predict": lambda f: f.predict(),
    "profile": lambda f: f.profile(),
    "refit": lambda f: f.refit(RESPONSE),
    "refit_ml": lambda f: f.refit_ml() if f.reml else f.refit_reml(),
    "resid": lambda f: f.resid,
    "residuals": lambda f: f.residuals("normalized"),
    "robust": lambda f: f.robust("g"),
    "rstudent": lambda f: f.rstudent(),
    "simulate": lambda f: f.simulate(2, seed=1),
    "update": lambda f: f.update(". ~ . - x"),
    "variogram": lambda f: f.variogram(),
}
# of these, what a search for other parameters of the random effects alone can do, or one with less
# in the fixed part
SEARCHES = {"all_fit", "confint", "drop1", "profile", "refit_ml"}
# of random effects, of batches, or of known covariances; checked where they have an answer
OTHERS = {
    "append", "call", "group_sizes", "heritability", "lr_vs_lm", "matrices", "ranova",
    "refit_reml", "save", "step", "stream",
}  # fmt: skip

STRUCTURES: dict[str, dict[str, Any]] = {
    "none": {},
    "known": {"known": {"h": mx.Relationship(0.5 * (np.eye(6) + 1.0), list(range(6)))}},
    "AR1": {"residual": mx.AR1("t", "g")},
    "CAR1": {"residual": mx.CAR1("t", "g")},
    "CompoundSymmetry": {"residual": mx.CompoundSymmetry("g")},
    "Toeplitz": {"residual": mx.Toeplitz("t", "g")},
    "Unstructured": {"residual": mx.Unstructured("v", "g")},
    "AnteDependence": {"residual": mx.AnteDependence("v", "g")},
    "Exponential": {"residual": mx.Exponential(["p1", "p2"], "g")},
    "Gaussian": {"residual": mx.Gaussian(["p1", "p2"], "g")},
    "AR1 by": {"residual": mx.AR1("t", "g", by="f")},
    "VarIdent": {"variance": mx.VarIdent("k")},
    "VarPower": {"variance": mx.VarPower("c")},
    "VarExp": {"variance": mx.VarExp("x")},
    "AR1, VarIdent": {"residual": mx.AR1("t", "g"), "variance": mx.VarIdent("k")},
    "mmrm": {"residual": mx.Unstructured("v", "g"), "variance": mx.VarIdent("v")},
}
# random terms, REML, weights and offset: every structure with one of them
FORMS: list[tuple[str, dict[str, Any]]] = [
    ("y ~ x + f", {}),
    ("y ~ x + f + (1 | h)", {"weights": "w", "reml": False}),
    ("y ~ x * k + (1 | g)", {"weights": "w"}),
    ("y ~ x + f", {"weights": "w", "offset": "o", "reml": False}),
    ("y ~ 1 + x + (x || h)", {"offset": "o"}),
]
ORDINARY = ["none", "known"]
WHITENED = [name for name in STRUCTURES if name not in ORDINARY]
KINDS = [(name, FORMS[(i + shift) % 5]) for i, name in enumerate(WHITENED) for shift in (0, 2)]
KINDS += [("none", form) for form in FORMS] + [("known", FORMS[1]), ("known", FORMS[4])]
KINDS += [("none", ("y ~ x * f + I(2 * x) + k:f + offset(o) + (x | h)", {"offset": D["p1"]}))]


def made(structure: str, form: tuple[str, dict[str, Any]]) -> mx.LinearMixedFit:
    formula, options = form
    make = mx.lmer if "|" in formula else mx.gls
    return make(formula, D, control=QUIET, **STRUCTURES[structure], **options)


def each(asked: Ask | list[Ask]) -> list[Ask]:
    return asked if isinstance(asked, list) else [asked]


def answer(ask: Ask, fit: mx.LinearMixedFit) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return ask(fit)
        except mx.MixedModelError as error:
            return f"{type(error).__name__}: {error}"


def assert_same(found: Any, want: Any, name: str) -> None:
    if hasattr(want, "toarray"):
        found, want = found.toarray(), want.toarray()
    if isinstance(want, pd.DataFrame):
        assert_same(dict(found.attrs), dict(want.attrs), f"{name}.attrs")
        pd.testing.assert_frame_equal(
            pd.DataFrame(found), pd.DataFrame(want), rtol=1e-9, atol=1e-10, obj=name
        )
    elif isinstance(want, pd.Series):
        pd.testing.assert_series_equal(found, want, rtol=1e-9, atol=1e-10, obj=name)
    elif isinstance(want, np.ndarray | float):
        np.testing.assert_allclose(found, want, rtol=1e-9, atol=1e-10, err_msg=name)
    elif isinstance(want, dict):
        assert list(found) == list(want)
        for key, value in want.items():
            assert_same(found[key], value, f"{name}.{key}")
    elif isinstance(want, list | tuple):
        assert len(found) == len(want)
        for one, other in zip(found, want, strict=True):
            assert_same(one, other, name)
    elif not isinstance(want, str | int | bool | type(None)) and hasattr(want, "to_frame"):
        assert_same(want.to_frame(), found.to_frame(), name)
    else:
        assert found == want, name


def test_the_table_is_of_all_methods():
    names = {name for name in dir(mx.LinearMixedFit) if not name.startswith("_")}
    assert names - INTERNAL == set(ANSWERS) | set(ROWS) | OTHERS


@pytest.mark.parametrize(("structure", "form"), KINDS, ids=lambda v: str(v)[:60])
def test_a_fit_saved_without_data_answers_as_before(structure, form, tmp_path):
    fit, path = made(structure, form), tmp_path / "fit.mixlm"
    fit.save(path, include_data=False)
    again = mx.load(path)
    for name, asked in ANSWERS.items():
        for ask in each(asked):
            assert_same(answer(ask, again), answer(ask, fit), name)
    for name, asked in ROWS.items():
        if structure in ORDINARY and name in SEARCHES:
            continue
        for ask in each(asked):
            with pytest.raises(mx.MixedModelError) as caught:
                ask(again)
            said = f"{type(caught.value).__name__}: {caught.value}"
            if "include_data=True" not in said:  # of no fit of this kind
                assert said == answer(ask, fit), name
    again.save(tmp_path / "again.mixlm")
    assert (tmp_path / "again.mixlm").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("structure", ["AR1, VarIdent", "mmrm"])
def test_with_its_data_again_it_does_everything(structure, tmp_path):
    fit, path = made(structure, FORMS[1]), tmp_path / "fit.mixlm"
    fit.save(path, include_data=False)
    again = mx.load(path, data=D)
    np.testing.assert_allclose(again.residuals("normalized"), fit.residuals("normalized"))
    assert again.refit_reml().criterion == pytest.approx(fit.refit_reml().criterion, abs=1e-6)
    turned = {"t": D["t"].to_numpy()[::-1], "v": D["v"].to_numpy()[::-1]}
    for change in ({"y": D["y"] + D["x"]}, turned, {"g": np.roll(D["g"], 1)}):
        with pytest.raises(mx.SavedFitError, match="do not go with"):
            mx.load(path, data=D.assign(**change))


@pytest.mark.parametrize("form", FORMS[:2])
def test_copies_of_what_was_loaded_are_whole(form, tmp_path):
    fit, path = made("mmrm", form), tmp_path / "fit.mixlm"
    fit.save(path, include_data=False)
    again = mx.load(path)
    for twin in (pickle.loads(pickle.dumps(again)), copy.deepcopy(again), copy.copy(again)):
        assert str(twin.summary()) == str(fit.summary())
        assert str(twin.anova()) == str(fit.anova())
        with pytest.raises(mx.SavedFitError, match="include_data=True"):
            twin.resid  # noqa: B018
    for twin in (pickle.loads(pickle.dumps(fit)), copy.deepcopy(fit)):
        assert str(twin.summary()) == str(fit.summary())
        np.testing.assert_array_equal(twin.resid, fit.resid)


def test_another_process_prints_the_same(tmp_path):
    fit, path = made("mmrm", FORMS[1]), tmp_path / "fit.mixlm"
    fit.save(path, include_data=False)
    code = f"import mixlm_sparse as mx; print(mx.load({str(path)!r}).summary())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(fit.summary()).strip()


@pytest.mark.parametrize("error", [mx.EngineError("memory"), np.linalg.LinAlgError("singular")])
def test_what_cannot_be_computed_is_not_kept(error, tmp_path, monkeypatch):
    def fails(fit: mx.LinearMixedFit) -> None:
        raise error

    keepers = [replace(keeper, compute=fails) for keeper in kept.KEEPERS]
    monkeypatch.setattr("mixlm_sparse.api.save.KEEPERS", keepers)
    fit = made("mmrm", FORMS[0])
    fit.save(tmp_path / "fit.mixlm", include_data=False)
    again = mx.load(tmp_path / "fit.mixlm")
    assert str(again.summary()) == str(fit.summary())
    with pytest.raises(mx.SavedFitError, match="include_data=True"):
        again.emmeans("f")
