"""Fits of every kind come back from their files with the same numbers, with data and without."""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import mixlm_sparse as mx
from tests.support.saved import sealed

QUIET = mx.Control(warn=False)
N = 120


def _data() -> pd.DataFrame:
    rng = np.random.default_rng(7)
    data = pd.DataFrame(
        {
            "g": np.repeat(np.arange(20), 6),
            "h": np.tile(np.arange(10), 12),
            "t": np.tile(np.arange(6), 20),
            "f": np.tile(list("abc"), 40),
            "x": rng.normal(size=N),
            "w": rng.uniform(0.5, 2.0, N),
            "o": rng.normal(size=N),
            "noise": rng.normal(size=N),
        }
    )
    of_group = rng.normal(size=20)
    data["y"] = 1 + data["x"] + of_group[data["g"]] + rng.normal(size=10)[data["h"]] + data["noise"]
    data["flat"] = 3.0 + 2.0 * data["t"]
    data["constant"] = 5.0
    data["group"] = of_group[data["g"]]
    data["crossed"] = data["group"] + np.sin(data["h"])
    data["slopes"] = data["group"] + data["x"] * of_group[::-1][data["g"]]
    data["nested"] = data["group"] + (data["f"] == "a") * np.cos(data["g"])
    data["nearly"] = data["group"] + 1e-7 * data["noise"]
    return data


D = _data()
SHORT = D.groupby("g").head(2)  # as many effects as rows where each group has two
MIXED = pd.DataFrame(np.random.default_rng(1).dirichlet(np.ones(4), N), columns=list("pqrs"))


def related(n: int) -> mx.Relationship:
    B = np.random.default_rng(2).normal(size=(n, n))
    return mx.Relationship(B @ B.T / n + np.eye(n), list(range(n)))


def batches() -> Any:
    return iter([D.iloc[i : i + 37] for i in range(0, N, 37)])


def fit(formula: str, data: Any = D, **options: Any) -> mx.LinearMixedFit:
    return mx.lmer(formula, data, **{"control": QUIET, **options})


def gls(formula: str, **options: Any) -> mx.LinearMixedFit:
    return mx.gls(formula, D, control=QUIET, **options)


def of_stages(formula: str, **structure: Any) -> mx.LinearMixedFit:
    """A fit of a design, which knows no call."""
    system = mx.penalized_system(mx.model_matrices(formula, D, **structure))
    return mx.make_fit(system, mx.optimize(system))


ONES = np.ones((N, 1))
KINDS: dict[str, Callable[[], mx.LinearMixedFit]] = {
    # nothing is left to the residuals
    "perfect": lambda: fit("flat ~ t + (t | g)"),
    "perfect, ML, weights and offset": lambda: fit(
        "flat ~ t + (1 | g)", weights="w", offset="o", reml=False
    ),
    "constant": lambda: fit("constant ~ 1 + (1 | g)"),
    "perfect, no fixed effects": lambda: fit("o ~ 0 + offset(o) + (1 | g)"),
    "perfect, held": lambda: fit("flat ~ t + (1 | g)", fixed={"sd_(Intercept)|g": 1.0}),
    "perfect, known": lambda: fit("flat ~ t + (1 | g)", known={"g": related(20)}),
    "perfect, known and held": lambda: fit(
        "flat ~ t + (1 | g)", known={"g": related(20)}, fixed={"sd_(Intercept)|g": 1.0}
    ),
    "perfect, gls": lambda: gls("flat ~ t"),
    "perfect, correlated": lambda: gls("flat ~ t", residual=mx.AR1("t", "g")),
    "perfect, matrices": lambda: mx.fit_matrices(
        D["flat"], np.column_stack([ONES, D["t"]]), [(D["g"], ONES)]
    ),
    "perfect, batches": lambda: fit("flat ~ t + (1 | g)", batches),
    "constant, refitted": lambda: fit("y ~ x + (1 | g)").refit(np.full(N, 3.0)),
    # random effects explain everything
    "groups": lambda: fit("group ~ x + (1 | g)"),
    "groups, no fixed effects": lambda: fit("group ~ 0 + (1 | g)"),
    "groups, known": lambda: fit("group ~ 1 + (1 | g)", known={"g": related(20)}),
    "groups, batches": lambda: fit("group ~ x + (1 | g)", batches),
    "groups, one of many": lambda: mx.lmer_many(
        "y ~ x + (1 | g)", D, responses=["y", "group"]
    ).fit("group"),
    "slopes": lambda: fit("slopes ~ x + (x | g)"),
    "crossed": lambda: fit("crossed ~ x + f + (1 | g) + (1 | h)", weights="w", reml=False),
    "nested": lambda: fit("nested ~ x + (1 | g/f)"),
    "nearly nothing is left": lambda: fit("nearly ~ x + (1 | g)"),
    "nearly a column between groups": lambda: fit("nearly ~ x + group + (x | g)"),
    # as many effects as rows
    "sigma of zero": lambda: fit("y ~ 1 + (x | g)", SHORT),
    "as many effects": lambda: fit("y ~ 1 + (1 | g) + (0 + x | g)", SHORT),
    "times": lambda: fit("y ~ x + ar1(0 + factor(t) | g)"),
    "known, a level a row": lambda: fit(
        "y ~ 1 + (1 | r)", D.assign(r=np.arange(N)), known={"r": related(N)}
    ),
    # searches that ended elsewhere
    "singular": lambda: fit("noise ~ x + (x | g) + (1 | h)"),
    "stopped": lambda: fit("y ~ x + (x | g)", control=mx.Control(warn=False, max_evaluations=2)),
    "ended by progress": lambda: fit("y ~ x + (x | g)", progress=lambda i, c, theta: i < 2),
    "not identified": lambda: fit("y ~ f + (1 | f) + (1 | g)"),
    # other forms
    "no fixed effects": lambda: fit("y ~ 0 + (1 | g)"),
    "dependent columns": lambda: fit("y ~ x + I(2 * x) + f + (1 | g)"),
    "held": lambda: fit("y ~ x + (x | g)", fixed={"cor_x.(Intercept)|g": 0.2, "sigma": 1.0}),
    "known": lambda: fit("y ~ x + (1 | g)", known={"g": related(20)}),
    "correlated": lambda: fit("y ~ x + (1 | g)", residual=mx.AR1("t", "g")),
    "variances": lambda: fit("y ~ x + (1 | g)", variance=mx.VarIdent("f")),
    "stages, correlated": lambda: of_stages(
        "y ~ x + (1 | h)", residual=mx.AR1("t", "g"), variance=mx.VarPower("w"), weights="w"
    ),
    "stages, variances": lambda: of_stages("y ~ x + (1 | g)", variance=mx.VarIdent("f")),
    "gls, weights": lambda: gls("y ~ x", weights="w"),
    "membership": lambda: fit("y ~ x + (1 | m)", membership={"m": mx.membership(MIXED)}),
    "structure": lambda: fit("y ~ x + cs(0 + f | g)"),
    "batches": lambda: fit("y ~ x + (1 | g)", batches),
    "batches, held": lambda: fit("y ~ x + (1 | g)", batches, fixed={"sigma": 1.0}),
    "products": lambda: mx.fit_products(mx.cross_products("y ~ x + (1 | g)", D)),
    "sparse columns": lambda: mx.fit_matrices(
        D["y"], sp.csr_array(pd.get_dummies(D["h"]).to_numpy(float)), [(D["g"], ONES)]
    ),
    "matrices, dates": lambda: mx.fit_matrices(
        D["y"], ONES, [(pd.to_datetime("2030-01-01") + pd.to_timedelta(D["g"], "D"), ONES)]
    ),
    "one of many": lambda: mx.lmer_many("y ~ x + (1 | g)", D, responses=["y", "o"]).fit("y"),
    "estimated by vectors": lambda: fit("y ~ x + (1 | g) + (1 | h)", engine="krylov"),
}  # fmt: skip
# these search for other parameters of the residuals, which whitens the rows again
WHITENED = {"perfect, correlated", "correlated", "variances"}
WHITENED |= {"stages, correlated", "stages, variances"}

# the search for another criterion comes to where the products have too few digits
LOOKS_AT_ROWS = {"known, a level a row"}


def said(fit: mx.LinearMixedFit) -> dict[str, Any]:
    """What a fit answers without its rows, or the error it answers with."""
    answers: dict[str, Callable[[], Any]] = {
        "criterion": lambda: fit.criterion,
        "sigma": lambda: fit.sigma,
        "theta": lambda: fit.theta,
        "fixef": lambda: fit.fixef,
        "bse": lambda: fit.bse,
        "varcorr": lambda: fit.varcorr.to_frame(),
        "ranef": lambda: pd.concat(fit.ranef()) if fit.ngroups else None,
        "spread of ranef": lambda: list(fit.ranef(cond_var=True)[1].values()),
        "summary": lambda: str(fit.summary()),
        "tidy": lambda: fit.tidy(["fixed", "ran_pars"], conf_int=True),
        "normal": lambda: fit.tidy(ddf="normal"),
        "wald": lambda: fit.confint(method="wald"),
        "glance": fit.glance,
        "components": lambda: str(fit.variance_components()),
        "identification": lambda: str(fit.identification),
        "convergence": lambda: fit.convergence.status,
        "messages": lambda: list(fit.messages),
        "ML": lambda: fit.refit_ml().criterion,
    }
    out = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mx.MixedModelWarning)
        for name, answer in answers.items():
            try:
                out[name] = answer()
            except mx.MixedModelError as error:
                out[name] = f"{type(error).__name__}: {error}"
    return out


def assert_equal(found: Any, want: Any, name: str) -> None:
    if isinstance(want, pd.DataFrame):
        pd.testing.assert_frame_equal(found, want, rtol=1e-6, atol=1e-9)
    elif isinstance(want, pd.Series | float | np.ndarray):
        np.testing.assert_allclose(found, want, rtol=1e-6, atol=1e-9, err_msg=name)
    elif isinstance(want, list) and want and isinstance(want[0], np.ndarray):
        for a, b in zip(found, want, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-9, err_msg=name)
    else:
        assert found == want, name


@pytest.mark.parametrize("include_data", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_comes_back(kind, include_data, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mx.MixedModelWarning)
        original = KINDS[kind]()
    path = tmp_path / "fit.mixlm"
    original.save(path, include_data=include_data)
    if not include_data:
        with zipfile.ZipFile(path) as archive:
            rows = ("data", "X.", "y.", "Z.")
            assert not [name for name in archive.namelist() if name.startswith(rows)]
    found = said(mx.load(path))
    for name, want in said(original).items():
        if name == "ML" and kind in LOOKS_AT_ROWS | WHITENED and not include_data:
            assert "saved without its data" in found[name]
            continue
        assert_equal(found[name], want, name)


SAVED_AGAIN = ["groups", "crossed", "nearly nothing is left", "sigma of zero", *sorted(WHITENED)]


@pytest.mark.parametrize("kind", SAVED_AGAIN)
def test_a_file_without_data_is_saved_again(kind, tmp_path):
    first, second = tmp_path / "a", tmp_path / "b"
    KINDS[kind]().save(first, include_data=False)
    mx.load(first).save(second)
    assert second.read_bytes() == first.read_bytes()


@pytest.mark.parametrize("array", ["apart.R", "apart.B.0", "apart.B.1"])
def test_what_random_effects_cannot_reach_is_checked(array, tmp_path):
    path = tmp_path / "fit.mixlm"
    KINDS["crossed"]().save(path, include_data=False)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    for change in (lambda v: v * 1.01, lambda v: np.where(v == v, np.nan, v), lambda v: v[:-1]):
        scratch = tmp_path / "array.npy"
        scratch.write_bytes(members[f"{array}.npy"])
        np.save(scratch, change(np.load(scratch)))
        changed = members | {f"{array}.npy": scratch.read_bytes()}
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in sealed(changed).items():
                archive.writestr(name, content)
        with pytest.raises(mx.SavedFitError, match="broken"):
            mx.load(path)


def test_what_would_not_load_without_data_is_told_when_it_is_saved(tmp_path):
    """Weights of twelve orders beside random effects that explain nearly all."""
    rng = np.random.default_rng(5)
    refused = loaded = 0
    for _ in range(30):
        n = int(rng.integers(30, 60))
        data = pd.DataFrame({"z": rng.normal(size=n), "g": rng.integers(0, 12, n)})
        data["w"] = 10.0 ** rng.uniform(-6, 6, n)
        data["y"] = 1e8 * (rng.normal(size=12)[data["g"]] + rng.normal(size=n) + 1e5)
        made = fit("y ~ 0 + (z | g)", data, weights="w")
        made.save(tmp_path / "whole")
        assert mx.load(tmp_path / "whole").criterion == made.criterion
        try:
            made.save(tmp_path / "lean", include_data=False)
        except mx.OptionError as error:
            assert "include_data=True" in str(error)
            refused += 1
            continue
        assert mx.load(tmp_path / "lean").criterion == made.criterion
        loaded += 1
    assert refused > 0
    assert loaded > 0
