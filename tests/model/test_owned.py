"""A fit owns what it needs: nothing that happens to the user's data afterwards changes a result."""

from __future__ import annotations

import copy
import tracemalloc
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import scipy.sparse

import mixlm_sparse as mx
from mixlm_sparse.common.errors import DataError
from mixlm_sparse.design.readers import _copies_on_write

QUIET = mx.Control(warn=False)
N = 120
FORMULA = "y ~ x * f + log(z) + (x | g) + (1 | h)"


def frame() -> pd.DataFrame:
    rng = np.random.default_rng(11)
    data = pd.DataFrame(
        {
            "x": rng.normal(size=N),
            "z": rng.uniform(1, 2, N),
            "f": pd.Categorical(rng.choice(["a", "b", "c"], N)),
            "g": rng.integers(0, 12, N),
            "h": rng.choice(["u", "v", "w", "q"], N),
            "w": rng.uniform(0.5, 2, N),
            "o": rng.normal(size=N),
            "k": rng.integers(0, 5, N),
            "more": rng.normal(size=N),
        },
        index=pd.Index(np.arange(N) * 3 + 1, name="row"),
    )
    data["y"] = data.x + rng.normal(size=12)[data.g] + rng.normal(size=N)
    data.loc[[4, 31], "x"] = np.nan
    return data


def as_arrays(data: pd.DataFrame) -> dict[str, Any]:
    out = {name: data[name].to_numpy(copy=True) for name in data.columns if name != "f"}
    return out | {"f": data["f"].astype(object).to_numpy(copy=True)}


def on_arrays(data: pd.DataFrame) -> pd.DataFrame:
    """The same frame on NumPy arrays that somebody else can write to."""
    columns = {}
    for name, values in as_arrays(data).items():
        array = np.array(values)  # one that is writable, whatever pandas gives
        columns[name] = pd.Series(array, index=data.index, copy=False)
        BUFFERS[name] = array
    out = pd.DataFrame(columns, copy=False)
    labels = np.array(data.index)
    BUFFERS["index"] = labels
    out.index = pd.Index(labels, name=data.index.name, copy=False)
    return out


BUFFERS: dict[str, Any] = {}  # of the last frame on arrays
KINDS: dict[str, Callable[[pd.DataFrame], Any]] = {
    "pandas": lambda data: data,
    "dict of arrays": as_arrays,
    "dict of Series": lambda data: {name: data[name] for name in data.columns},
    "polars": lambda data: pl.from_pandas(data),
    "pyarrow of arrays": lambda data: pa.table(as_arrays(data)),
}


def answers(fit: mx.LinearMixedFit, tmp_path: Any) -> dict[str, Any]:
    """What a user can ask of a fit, as far as it rests on the rows."""
    path = tmp_path / "fit.mixlm"
    fit.save(path)
    loaded = mx.load(path)
    return {
        "fitted": np.asarray(fit.fittedvalues),
        "resid": np.asarray(fit.residuals("pearson", scaled=True)),
        "hat": np.asarray(fit.hatvalues()),
        "X": fit.model_matrix(),
        "y": fit.getME("y"),
        "Z": fit.getME("Z").toarray(),
        "augment": fit.augment(),
        "means": fit.emmeans("f").to_frame(),
        "slopes": fit.emtrends("x", by="f").to_frame(),
        "tidy": fit.tidy(["fixed", "ran_pars", "ran_vals"]),
        "predict": np.asarray(fit.predict(interval="prediction")),
        "simulate": fit.simulate(2, seed=1),
        "summary": str(fit.summary()),
        "influence": fit.influence("g", refit=False).dfbetas(),
        "update": fit.update(". ~ . - log(z)").criterion,
        "refit": fit.refit(np.arange(fit.nobs) % 7.0).criterion,
        "ml": fit.refit_ml().criterion,
        "loaded": loaded.augment(),
        "loaded criterion": loaded.criterion,
        "copy": copy.deepcopy(fit).augment(),
    }


def spoil(data: Any) -> None:
    """Do to the data what users do."""
    if isinstance(data, pd.DataFrame):
        data["x"] += 100.0
        data.loc[data.index[7], ["y", "z"]] = 1e6
        data.iloc[3, data.columns.get_loc("f")] = "c"
        data.loc[data.index[9], "g"] = 3
        data["more"] = data["more"].to_numpy()[::-1]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pandas means to give up inplace
            data.sort_values("y", inplace=True)
            data.drop(columns="o", inplace=True)
            data.drop(index=data.index[0], inplace=True)
        data.index.name = "other"
    elif isinstance(data, dict):
        for name, values in data.items():
            if isinstance(values, np.ndarray):
                values[:] = values[::-1].copy()
            elif name in ("x", "y", "g"):
                values.iloc[5] = 3
        data["h"] = None
    elif isinstance(data, pl.DataFrame):
        data[3, "y"] = 1e6
        data[5, "g"] = 1
        data.drop_in_place("h")


def compare(before: dict[str, Any], after: dict[str, Any], skip: tuple[str, ...] = ()) -> None:
    for name, expected in before.items():
        found = after[name]
        if name in skip:
            continue
        if isinstance(expected, pd.DataFrame):
            pd.testing.assert_frame_equal(found, expected, rtol=1e-10, obj=name)
        elif isinstance(expected, str):
            assert found == expected
        else:
            # code that is compiled meanwhile rounds in another order
            np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12, err_msg=name)


def test_arrays_below_a_frame_are_not_the_fits(tmp_path: Any) -> None:
    data = on_arrays(frame())
    assert np.shares_memory(data["x"].to_numpy(), BUFFERS["x"])
    fit = mx.lmer(FORMULA, data, weights="w", offset="o", subset="k != 2", control=QUIET)
    before = answers(fit, tmp_path)
    for array in BUFFERS.values():
        array[:] = array[::-1].copy() if array.dtype == object else array * 2 + 1
    compare(before, answers(fit, tmp_path))
    with pytest.raises(mx.DataError, match="data have changed since the model was fitted"):
        fit.update(". ~ . + more")


@pytest.mark.parametrize("na_action", ["omit", "exclude"])
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_changes_when_the_data_do(kind: str, na_action: str, tmp_path: Any) -> None:
    data = KINDS[kind](frame())
    fit = mx.lmer(
        FORMULA, data, weights="w", offset="o", na_action=na_action, subset="k != 2", control=QUIET
    )
    before = answers(fit, tmp_path)
    further = fit.update(". ~ . + more").criterion
    spoil(data)
    guarded = kind == "pandas" and pd.__version__ >= "3"  # by copy-on-write
    if guarded or kind == "pyarrow of arrays":
        compare(before, answers(fit, tmp_path))
        assert fit.update(". ~ . + more").criterion == pytest.approx(further, rel=1e-12)
        return
    # a column that the fit had no reason to keep cannot be had from what became of the data
    with pytest.raises(mx.DataError, match="data have changed since the model was fitted"):
        fit.update(". ~ . + more")
    fit.save(tmp_path / "later.mixlm")
    pd.testing.assert_frame_equal(mx.load(tmp_path / "later.mixlm").augment(), before["augment"])
    pd.testing.assert_frame_equal(fit.augment(), before["augment"])
    pd.testing.assert_frame_equal(fit.emmeans("f").to_frame(), before["means"])
    assert fit.update(". ~ . - log(z)").criterion == before["update"]


def test_arrays_given_as_arguments_are_held(tmp_path: Any) -> None:
    data = frame()
    w, o = data["w"].to_numpy(copy=True), data["o"].to_numpy(copy=True)
    chosen = (data["k"] != 2).to_numpy(copy=True)
    codes = {"f": np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]])}
    fit = mx.lmer(
        FORMULA, data, weights=w, offset=o, subset=chosen, contrasts=codes, control=QUIET
    )
    before = answers(fit, tmp_path)
    w[:], o[:], chosen[:] = 1.0, 50.0, True
    codes["f"][:] = 7.0
    del codes["f"]
    compare(before, answers(fit, tmp_path))


def test_matrices_are_held() -> None:
    data = frame().dropna()
    n = len(data)
    y, o, w = (data[name].to_numpy(copy=True) for name in ("y", "o", "w"))
    X = np.column_stack([np.ones(n), data["x"]])
    groups = data["g"].to_numpy(copy=True)
    Z = X.copy()
    fit = mx.fit_matrices(y, X, [(groups, Z, "g")], weights=w, offset=o, control=QUIET)

    def ask() -> dict[str, Any]:
        return {
            "augment": fit.augment(),
            "hat": np.asarray(fit.hatvalues()),
            "X": fit.model_matrix(),
            "refit": fit.refit_ml().criterion,
            "effects": fit.ranef()["g"],
            "influence": fit.influence("g", refit=False).dfbetas(),
            "predict": np.asarray(fit.predict(interval="prediction")),
        }

    before = ask()
    for array in (y, o, w, X, Z):
        array += 5.0
    groups[:] = 0
    compare(before, ask())


def test_a_new_response_is_held() -> None:
    fit = mx.lmer("y ~ x + (1 | g)", frame(), control=QUIET)
    y = np.arange(fit.nobs) % 11.0
    other = fit.refit(y)
    before = np.asarray(other.resid)
    y[:] = 0.0
    np.testing.assert_array_equal(other.resid, before)
    np.testing.assert_allclose(other.refit_ml().fittedvalues + other.refit_ml().resid,
                               np.arange(fit.nobs) % 11.0)  # fmt: skip


def test_a_response_that_is_no_numbers_is_refused() -> None:
    fit = mx.lmer("y ~ x + (1 | g)", frame(), control=QUIET)
    y = np.arange(float(fit.nobs))
    with pytest.raises(mx.DataError, match="1 missing or infinite"):
        fit.refit(np.ma.array(y, mask=np.arange(fit.nobs) == 3))
    for bad in (y + 1j, pd.to_datetime("2020-01-01") + pd.to_timedelta(y, unit="D"), y.astype(str)):
        with pytest.raises(mx.DataError, match="not numeric"):
            fit.refit(bad)


def test_many_responses_are_held() -> None:
    data = frame()
    Y = np.column_stack([data["y"], data["y"] ** 2])
    many = mx.lmer_many("~ x + (1 | g)", data, Y, progress=False)
    named = mx.lmer_many("~ x + (1 | g)", data, ["y"], progress=False)
    before = many.fit(1).fittedvalues, named.fit(0).fittedvalues
    Y[:] = 1.0
    spoil(data)
    np.testing.assert_array_equal(many.fit(1).fittedvalues, before[0])
    np.testing.assert_array_equal(named.fit(0).fittedvalues, before[1])


def test_a_fit_of_a_frame_copies_the_columns_it_uses() -> None:
    n = 400_000
    rng = np.random.default_rng(0)
    data = pd.DataFrame({"y": rng.normal(size=n), "x": rng.normal(size=n)})
    data["g"] = np.repeat(np.arange(100), n // 100).astype(np.int32)
    for j in range(20):
        data[f"unused{j}"] = 1.0
    mx.lmer("y ~ x + (1 | g)", data, control=QUIET)  # loads what loads once, kernels too
    tracemalloc.start()
    fit = mx.lmer("y ~ x + (1 | g)", data, control=QUIET)
    kept = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert fit.nobs == n
    assert kept < 25 * n  # y, x, the groups and their codes, and none of the other columns


def in_arrays() -> tuple[dict[str, Any], list[Any]]:
    """Inputs of every kind, and the arrays that they stand on."""
    rng = np.random.default_rng(3)
    A, w = rng.normal(size=(N, 3)), rng.uniform(0.5, 2, N)
    A[:, 0] += np.resize(rng.normal(scale=2.0, size=10), N)
    sparse = scipy.sparse.random(N, 4, density=0.3, format="csc", random_state=1)
    X = np.column_stack([np.ones(N), A[:, 1]])
    Z = np.asfortranarray(X)
    labels = np.array([f"g{i % 10}" for i in range(N)], dtype=object)
    data = pd.DataFrame(A, columns=["y", "x", "z"], copy=False)
    assert np.shares_memory(data["y"].to_numpy(), A)
    data["g"] = labels
    given = {
        "data": data, "sparse": sparse, "frame": pd.DataFrame(A, copy=False), "Z": Z,
        "weights": pd.Series(w, copy=False), "labels": labels, "X": pd.DataFrame(X, copy=False),
    }  # fmt: skip
    return given, [A, w, sparse.data, X, Z, labels]


def staged(given: dict[str, Any]) -> mx.LinearMixedFit:
    matrices = mx.model_matrices("y ~ x + (1 | g)", given["data"], weights=given["weights"])
    system = mx.penalized_system(matrices)
    return mx.make_fit(system, mx.optimize(system))


MADE: dict[str, tuple[Callable[[dict[str, Any]], Any], Callable[[Any], list[Any]]]] = {
    "stages": (staged, lambda fit: [fit.resid, fit.getME("y"), fit.predict(), fit.hatvalues()]),
    "update": (
        lambda a: mx.lmer("y ~ x + (1 | g)", a["data"]).update(weights=a["weights"]),
        lambda fit: [fit.resid, fit.refit_ml().theta, fit.predict(interval="prediction")],
    ),
    "fit_matrices": (
        lambda a: mx.fit_matrices(
            a["data"]["y"], a["X"], [(a["labels"], a["Z"])], weights=a["weights"], control=QUIET
        ),
        lambda fit: [fit.resid, fit.refit_ml().theta, fit.getME("Z").toarray()],
    ),
    "gls": (
        lambda a: mx.gls("y ~ x", a["data"], residual=mx.CompoundSymmetry(group="g")),
        lambda fit: [fit.resid, fit.update(". ~ 1").criterion],
    ),
    "many of a frame": (
        lambda a: mx.lmer_many(
            "~ x + (1 | g)", a["data"], a["frame"], control=QUIET, progress=False
        ),
        lambda many: [many.fit(2).resid, many.fit(1).refit_ml().theta],
    ),
    "many of a sparse matrix": (
        lambda a: mx.lmer_many(
            "~ x + (1 | g)", a["data"], a["sparse"], control=QUIET, progress=False
        ),
        lambda many: [many.fit(2).resid, many.fit(1).refit_ml().theta],
    ),
    "lm_list": (
        lambda a: mx.lm_list("y ~ x | g", a["data"]),
        lambda fits: [fits.coef(), fits.resid, fits.fittedvalues],
    ),
    "deviance_function": (
        lambda a: mx.deviance_function("y ~ x + (1 | g)", a["data"], weights=a["weights"]),
        lambda function: [function([0.7]), function.gradient([0.7])],
    ),
    "products": (
        lambda a: mx.cross_products("y ~ x + (1 | g)", a["data"]),
        lambda products: [mx.fit_products(products).fixef],
    ),
}


@pytest.mark.parametrize("kind", MADE)
def test_nothing_stands_on_the_arrays_of_the_caller(kind: str) -> None:
    given, arrays = in_arrays()
    make, ask = MADE[kind]
    made = make(given)
    before = [np.array(answer, copy=True) for answer in ask(made)]
    for array in arrays:
        array[:] = "g0" if array.dtype == object else 3.0 * array[::-1] + 1.0
    for answer, expected in zip(ask(made), before, strict=True):
        np.testing.assert_allclose(answer, expected, rtol=1e-12, atol=1e-12)


HANDED_OUT: dict[str, Callable[[mx.LinearMixedFit], Any]] = {
    "theta": lambda fit: fit.theta,
    "lower": lambda fit: fit.lower,
    "gradient": lambda fit: fit.convergence.gradient,
    "X": lambda fit: fit.model_matrix(),
    **{
        f"getME {name}": lambda fit, name=name: fit.getME(name)
        for name in ("y", "mu", "offset", "weights", "beta", "theta", "lower", "RX", "u", "X")
    },
    "Tlist": lambda fit: fit.getME("Tlist")["g"],
    "fittedvalues": lambda fit: fit.fittedvalues.to_numpy(),
}


@pytest.mark.parametrize("name", HANDED_OUT)
def test_what_is_handed_out_is_the_users(name):
    fit = mx.lmer(FORMULA, frame(), weights="w", offset="o", control=QUIET)
    before = str(fit.summary()), fit.getME("mu").copy(), np.asarray(HANDED_OUT[name](fit)).copy()
    out = HANDED_OUT[name](fit)
    if out.flags.writeable:
        out[...] = 17.0
    np.testing.assert_array_equal(HANDED_OUT[name](fit), before[2])
    np.testing.assert_array_equal(fit.getME("mu"), before[1])
    assert str(fit.summary()) == before[0]


def test_mappings_of_arguments_are_copied():
    data = frame()
    env, fixed = {"twice": lambda x: 2 * x}, {"sigma": 1.0}
    fit = mx.lmer("y ~ twice(z) + (1 | g)", data, env=env, fixed=fixed, control=QUIET)
    update, values = fit.update(". ~ . - twice(z)").criterion, fit.predict(data)
    env.clear()
    fixed.clear()
    assert fit.update(". ~ . - twice(z)").criterion == update
    np.testing.assert_array_equal(fit.predict(data), values)


@pytest.mark.parametrize("more", [False, True], ids=["all columns read", "others beside"])
def test_a_column_that_came_later_is_not_there(more: bool) -> None:
    rng = np.random.default_rng(3)
    index = pd.Index(np.arange(40), name="id")
    frame = pd.DataFrame({"y": rng.normal(size=40), "x": rng.normal(size=40)}, index=index)
    frame["g"] = np.arange(40) % 5
    if more:
        frame["w"] = rng.normal(size=40)
    fit = mx.lmer("y ~ x + (1 | g)", frame, control=QUIET)
    frame["late"] = 1.0 * (np.arange(40) % 2)
    frame["x"] = 0.0
    if not _copies_on_write():  # the frame is the user's own there, and has changed
        with pytest.raises(DataError, match=r"the data have changed since .* 'late'"):
            fit.update("~ . + late")
        return
    with pytest.raises(DataError, match="no column 'late'; the columns are 'y', 'x', 'g'"):
        fit.update("~ . + late")
    with pytest.raises(DataError, match=r"no column 'id' \(it is in the index"):
        fit.update("~ . + id")
    if more:
        assert "w" in fit.update("~ . + w").fixef
    else:
        with pytest.raises(DataError, match="no column 'w'"):
            fit.update("~ . + w")
