"""Predictions: lme4's values, Henderson's matrix inverted densely, and what users get wrong."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from scipy.special import ndtri

import mixlm_sparse as mx
from mixlm_sparse.common.errors import DataError, FormulaError, MixedModelWarning, OptionError
from tests.support import corpus

SMALL = [m for m in corpus.MODELS if m not in corpus.LARGE]


def crossed_data(seed: int = 0, n: int = 60) -> pd.DataFrame:
    """Two crossed factors of which many pairs of levels never meet, weights and an offset."""
    rng = np.random.default_rng(seed)
    data = pd.DataFrame(
        {
            "g": rng.integers(9, size=n).astype(str),
            "h": np.array(list("abcde"))[rng.integers(5, size=n)],
            "x": rng.normal(size=n),
            "f": np.array(["u", "v", "w"])[rng.integers(3, size=n)],
            "w": rng.uniform(0.5, 3.0, size=n),
            "o": rng.normal(size=n),
        }
    )
    g = {level: rng.normal(size=2) for level in data["g"].unique()}
    h = {level: 0.8 * rng.normal() for level in "abcde"}
    data["y"] = [
        1.0 + 0.5 * row.x + g[row.g][0] + g[row.g][1] * row.x + h[row.h] + row.o + e
        for row, e in zip(data.itertuples(), 0.7 * rng.normal(size=n) / np.sqrt(data["w"]),
                          strict=True)
    ]  # fmt: skip
    return data


def approx(values, **options):
    """pytest.approx, for data frames' columns on either side."""
    return pytest.approx(np.asarray(values, dtype=float), **options)


def quiet_fit(formula, data, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MixedModelWarning)
        return mx.lmer(formula, data, **options)


@pytest.fixture(scope="module")
def data():
    return crossed_data()


@pytest.fixture(scope="module")
def fit(data):
    return quiet_fit("y ~ x + f + (x | g) + (1 | h)", data, weights="w", offset="o")


# ---------------------------------------------------------------------------------------------
# Values
# ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", SMALL)
def test_new_rows_have_lme4s_fitted_values(model):
    record = corpus.load_model(model)
    fit = corpus.fit(model)
    head = np.array(record["head_rows"]) - 1
    rows = corpus.data_of(record).iloc[head].reset_index(drop=True)
    scale = np.std(fit.matrices.y)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MixedModelWarning)
        mine, fixed = fit.predict(rows), fit.predict(rows, "population")
    # where some of theta is not determined by the data, predictions are not either
    loose = 1e-3 if record["is_singular"] else 1e-5
    assert np.asarray(mine) == approx(record["fitted_head"], abs=loose * scale)
    assert np.asarray(fixed) == approx(record["fitted_fixed_head"], abs=10 * loose * scale)


@pytest.mark.parametrize("model", SMALL)
def test_the_rows_of_the_fit_and_the_same_rows_as_new_data_agree(model):
    fit = corpus.fit(model)
    data = corpus.data_of(corpus.load_model(model))
    scale = np.std(fit.matrices.y)
    on_new = fit.predict(data)
    if fit.matrices.rows is not None:
        on_new = on_new[fit.matrices.rows]
    assert np.asarray(fit.predict()) == approx(fit.fittedvalues, abs=1e-10 * scale)
    assert np.asarray(on_new) == approx(fit.fitted_used, abs=1e-8 * scale)
    random = fit.predict(random_only=True)
    assert np.asarray(random + fit.predict(re_form="population")) == approx(
        fit.fittedvalues, abs=1e-9 * scale
    )


def test_a_sub_formula_takes_terms_and_columns(fit, data):
    b = fit.ranef()
    g = b["g"].loc[data["g"]].to_numpy()
    h = b["h"].loc[data["h"]].to_numpy()[:, 0]
    population = fit.predict(re_form="population")
    assert np.asarray(fit.predict(re_form="~ (1 | h)")) == approx(population + h)
    assert np.asarray(fit.predict(re_form="(1 | g)")) == approx(population + g[:, 0])
    slopes = g[:, 1] * data["x"]
    assert np.asarray(fit.predict(re_form="~ (0 + x | g)")) == approx(population + slopes)
    assert np.asarray(fit.predict(data, "~ (x | g) + (1 | h)")) == approx(fit.fittedvalues)
    assert np.asarray(fit.predict(re_form="~0")) == approx(population)
    only = fit.predict(data[["h"]], re_form="~ (1 | h)", random_only=True)
    assert np.asarray(only) == approx(h)


def test_transforms_keep_what_the_fit_has_learned():
    sleep = mx.datasets.load("sleepstudy")
    fit = mx.lmer("log(Reaction) ~ poly(Days, 2) + scale(Days):Days + (scale(Days) | Subject)",
                  sleep, control=mx.Control(warn=False))  # fmt: skip
    few = sleep.iloc[[3, 50, 177]].drop(columns="Reaction")
    assert np.asarray(fit.predict(few)) == approx(fit.fittedvalues[[3, 50, 177]], rel=1e-10)


def test_dropped_columns_stay_dropped():
    sleep = mx.datasets.load("sleepstudy").assign(twice=lambda d: 2.0 * d["Days"])
    fit = quiet_fit("Reaction ~ Days + twice + (1 | Subject)", sleep)
    assert np.asarray(fit.predict(sleep.iloc[:5])) == approx(fit.fittedvalues[:5])
    # the data say nothing of rows where it is not twice the days
    other = sleep.iloc[:5].assign(twice=1e6)
    with pytest.warns(mx.RankDeficiencyWarning, match=r"Days = 0, twice = 1e\+06"):
        assert np.isnan(fit.predict(other)).all()


@pytest.mark.parametrize("kind", ["polars", "pyarrow", "duckdb", "dict"])
def test_any_frame_will_do(fit, data, kind):
    if kind == "dict":
        frame = {name: data[name].to_numpy() for name in data}
    elif kind == "polars":
        frame = pytest.importorskip("polars").from_pandas(data)
    elif kind == "pyarrow":
        frame = pytest.importorskip("pyarrow").Table.from_pandas(data)
    else:
        duckdb = pytest.importorskip("duckdb")
        connection = duckdb.connect()  # older versions close it when nobody holds it
        frame = connection.from_df(data)
    assert np.asarray(fit.predict(frame)) == approx(fit.fittedvalues)


# ---------------------------------------------------------------------------------------------
# Missing cells, offsets
# ---------------------------------------------------------------------------------------------


def test_missing_cells_give_nan_or_go_or_are_refused(fit, data):
    holes = data.copy()
    holes.loc[3, "x"] = np.nan
    holes.loc[7, "g"] = None
    filled = fit.predict(holes)
    assert np.flatnonzero(np.isnan(filled)).tolist() == [3, 7]
    kept = np.delete(np.arange(len(data)), [3, 7])
    assert np.asarray(filled[kept]) == approx(fit.fittedvalues[kept])
    assert np.asarray(fit.predict(holes, na_action="omit")) == approx(fit.fittedvalues[kept])
    frame = fit.predict(holes, se=True)
    assert frame.index.equals(holes.index)
    assert frame.loc[3].isna().all()
    assert fit.predict(holes, se=True, na_action="omit").index.tolist() == kept.tolist()
    with pytest.raises(DataError, match=r"2 of 60 new rows.*'x' \(1\).*'g' \(1\).*na_action"):
        fit.predict(holes, na_action="raise")
    # a group that is not asked for may be missing
    assert np.flatnonzero(np.isnan(fit.predict(holes, "~ (1 | h)"))).tolist() == [3]


def test_excluded_rows_of_the_fit_are_nan():
    data = crossed_data()
    data.loc[4, "x"] = np.nan
    fit = quiet_fit("y ~ x + (1 | g)", data, na_action="exclude")
    assert np.isnan(fit.predict()[4])
    assert len(fit.predict(se=True)) == len(data)


def test_the_offset_of_the_call_counts_and_can_be_replaced(fit, data):
    without = fit.predict(data, offset=0.0)
    assert np.asarray(without + data["o"]) == approx(fit.predict(data))
    assert np.asarray(fit.predict(data, offset=data["o"].to_numpy())) == approx(fit.fittedvalues)
    assert np.asarray(fit.predict(offset=0.0)) == approx(without)
    assert np.asarray(fit.predict(data.rename(columns={"o": "p"}), offset="p")) == approx(
        fit.fittedvalues
    )
    by_array = quiet_fit("y ~ x + (1 | g)", data, offset=data["o"].to_numpy())
    with pytest.raises(DataError, match=r"offset.*array.*pass\s+offset="):
        by_array.predict(data)
    assert np.asarray(by_array.predict(data, offset=data["o"].to_numpy())) == approx(
        by_array.fittedvalues
    )


# ---------------------------------------------------------------------------------------------
# Standard errors
# ---------------------------------------------------------------------------------------------


def henderson(fit):
    """The joint covariance of (beta^, b^ - b), inverted densely; effects by factor and level."""
    m = fit.matrices
    X = fit.model_matrix()
    Z, prior, place = [], [], {}
    at = X.shape[1]
    for t, term in enumerate(m.terms):
        factor = m.factors[term.factor]
        z = term.columns.block(slice(0, m.nobs))
        k = z.shape[1]
        dense = np.zeros((m.nobs, factor.n_levels * k))
        for i, code in enumerate(factor.codes):
            dense[i, code * k : code * k + k] = z[i]
        T = fit.solution.Lambda(t)
        Z.append(dense)
        prior.append(np.kron(np.eye(factor.n_levels), np.linalg.inv(T @ T.T)))
        place[t] = at
        at += dense.shape[1]
    w = np.ones(m.nobs) if m.weights is None else m.weights
    A = np.hstack([X, *Z])
    M = A.T @ (w[:, None] * A)
    first = X.shape[1]
    for block in prior:
        stop = first + block.shape[0]
        M[first:stop, first:stop] += block
        first = stop
    return fit.scale * np.linalg.inv(M), place


def dense_variance(fit, x, levels, columns):
    """Var of x'beta^ + z'b^ - x'beta - z'b for one row; unknown levels get their own variance."""
    V, place = henderson(fit)
    row = np.zeros(V.shape[0])
    row[: x.size] = x
    extra = 0.0
    for t, term in enumerate(fit.matrices.terms):
        factor = fit.matrices.factors[term.factor]
        k = columns[t].size
        if levels[factor.label] in factor.levels:
            j = place[t] + factor.levels.index(levels[factor.label]) * k
            row[j : j + k] = columns[t]
        else:
            T = fit.sigma * fit.solution.Lambda(t)
            extra += float(((columns[t] @ T) ** 2).sum())
    return float(row @ V @ row) + extra


def all_pairs(data):
    grid = [(g, h) for g in [*sorted(data["g"].unique()), "new"] for h in [*"abcde", "z"]]
    return pd.DataFrame(
        {
            "g": [g for g, _ in grid],
            "h": [h for _, h in grid],
            "x": np.linspace(-2, 2, len(grid)),
            "f": np.resize(["u", "v", "w"], len(grid)),
            "o": 0.0,
            "w": 2.0,
        }
    )


@pytest.mark.parametrize("engine", ["blocked", "cholmod"])
@pytest.mark.parametrize("formula", [
    "y ~ x + f + (x | g) + (1 | h)",
    "y ~ x + f + (1 | g) + (0 + x | g) + (x | h)",
    "y ~ x + f + (1 | h) + (1 | g)",
])  # fmt: skip
def test_standard_errors_are_those_of_hendersons_inverse(data, formula, engine):
    try:
        fit = quiet_fit(formula, data, weights="w", offset="o", engine=engine)
    except mx.EngineError as error:
        pytest.skip(str(error))
    # away from singular theta, where the dense inverse does not exist
    theta = np.where(fit.lower == 0.0, np.maximum(fit.theta, 0.3), fit.theta)
    from dataclasses import replace

    optimum = replace(fit.optimum, theta=theta)
    fit = replace(fit, optimum=optimum, solution=mx.solve_pls(theta, fit.system))
    new = all_pairs(data)
    found = fit.predict(new, allow_new_levels=True, se=True)
    names = fit.matrices.fixed.names
    for i, row in new.iterrows():
        x = np.array([{"(Intercept)": 1.0, "x": row["x"], "fv": float(row["f"] == "v"),
                       "fw": float(row["f"] == "w")}[name] for name in names])  # fmt: skip
        columns = [
            np.array([1.0 if name == "(Intercept)" else row["x"] for name in term.column_names])
            for term in fit.matrices.terms
        ]
        expected = dense_variance(fit, x, {"g": row["g"], "h": row["h"]}, columns)
        assert np.asarray(found["se"][i]) == approx(np.sqrt(expected), rel=1e-8)


def test_solving_in_small_batches_changes_nothing(fit, data, monkeypatch):
    from mixlm_sparse.model.predict import variance

    new = all_pairs(data)
    whole = fit.predict(new, allow_new_levels=True, se=True)
    monkeypatch.setattr(variance, "SOLVE_BYTES", 1)
    parts = [new.iloc[start : start + 7] for start in range(0, len(new), 7)]
    small = pd.concat([fit.predict(part, allow_new_levels=True, se=True) for part in parts])
    np.testing.assert_allclose(whole.to_numpy(), small.to_numpy(), rtol=1e-10)


def test_another_fit_on_the_engine_in_between_does_no_harm(fit, data):
    new = all_pairs(data)
    before = fit.predict(new, allow_new_levels=True, se=True)
    fit.refit(fit.simulate(1, seed=1)[:, 0])
    pd.testing.assert_frame_equal(before, fit.predict(new, allow_new_levels=True, se=True))


def test_leverage_is_the_variance_of_the_mean_less_that_of_the_new_part(fit, data):
    """Var(mu^) = sigma^2 h / w for the smoother S: Var(mu^ - mu) of the fit's own rows."""
    se = fit.predict(se=True)["se"].to_numpy()
    assert np.asarray(se**2) == approx(fit.scale * fit.hatvalues() / data["w"].to_numpy(), rel=1e-8)


def test_intervals(fit, data):
    new = data.iloc[:10]
    z = float(ndtri(0.95))
    confidence = fit.predict(new, interval="confidence", level=0.9)
    prediction = fit.predict(new, interval="prediction", level=0.9)
    assert list(confidence.columns) == ["fit", "se", "lower", "upper"]
    assert np.asarray(confidence["upper"] - confidence["fit"]) == approx(z * confidence["se"])
    spread = np.sqrt(confidence["se"] ** 2 + fit.scale / new["w"])
    assert np.asarray(prediction["fit"] - prediction["lower"]) == approx(z * spread)
    assert np.asarray(prediction["se"]) == approx(confidence["se"])
    heavy = fit.predict(new, interval="prediction", weights=4.0)["upper"]
    assert heavy.to_numpy() == approx(
        confidence["fit"] + float(ndtri(0.975)) * np.sqrt(confidence["se"] ** 2 + fit.scale / 4.0)
    )


def test_a_new_response_has_the_random_effects_that_were_left_out(fit, data):
    new = data.iloc[:10]
    mean = fit.predict(new, "population", se=True)
    # no grouping column is needed for it
    wide = fit.predict(new.drop(columns=["g", "h"]), "population", interval="prediction")
    half = (wide["upper"] - wide["fit"]) / float(ndtri(0.975))
    X = np.column_stack([np.ones(10), new["x"]])
    G, H = fit.varcorr["g"].to_numpy(), fit.varcorr["h"].to_numpy()
    random = np.einsum("ia,ab,ib->i", X, G, X) + H[0, 0]
    assert np.asarray(half**2) == approx(mean["se"] ** 2 + random + fit.scale / new["w"])


# ---------------------------------------------------------------------------------------------
# What users get wrong
# ---------------------------------------------------------------------------------------------


def test_new_levels_are_refused_by_name(fit, data):
    new = data.iloc[:3].assign(g=["nine", "ten", "1"])
    with pytest.raises(DataError, match=r"levels 'nine', 'ten' of 'g'.*allow_new_levels=True"):
        fit.predict(new)
    allowed = fit.predict(new, allow_new_levels=True)
    h = fit.ranef()["h"].loc[new["h"]].to_numpy()[:, 0]
    population = fit.predict(new, "population")
    assert np.asarray(allowed[:2]) == approx((population + h)[:2])
    assert np.asarray(fit.predict(new, "~ (1 | h)")) == approx(population + h)
    with pytest.raises(DataError, match=r"'f' has the level 'zz'"):
        fit.predict(data.iloc[:3].assign(f="zz"), allow_new_levels=True)


def test_new_levels_are_nan_on_request(fit, data):
    new = data.iloc[:3].assign(g=["nine", "ten", "1"])
    found = fit.predict(new, allow_new_levels="nan", interval="prediction")
    assert found.iloc[:2].isna().all(axis=None)
    known = fit.predict(new.iloc[2:], interval="prediction")
    pd.testing.assert_frame_equal(found.iloc[2:], known)
    assert fit.predict(new, allow_new_levels="nan").isna().tolist() == [True, True, False]
    # what the prediction does not use need not be known
    population = fit.predict(new, "population", allow_new_levels="nan")
    pd.testing.assert_series_equal(population, fit.predict(new, "population"))
    assert fit.predict(new, "~ (1 | h)", allow_new_levels="nan").notna().all()
    with pytest.raises(mx.OptionError, match='use True, False or "nan"'):
        fit.predict(new, allow_new_levels="missing")


@pytest.mark.parametrize(("options", "error", "words"), [
    ({"re_form": "~ (1 | school)"}, FormulaError, "school.*grouping factors are 'g', 'h'"),
    ({"re_form": "~ (x | h)"}, FormulaError, r"'x' in \(x \| h\).*'\(Intercept\)'"),
    ({"re_form": "~ x + (1 | g)"}, FormulaError, "fixed part"),
    ({"re_form": 3}, OptionError, "population"),
    ({"interval": "both"}, OptionError, "'confidence', 'prediction'"),
    ({"level": 95, "se": True}, OptionError, "between 0 and 1"),
    ({"na_action": "drop"}, OptionError, "na_action"),
    ({"offset": "o"}, OptionError, "newdata"),
])  # fmt: skip
def test_wrong_arguments_are_named(fit, options, error, words):
    with pytest.raises(error, match=words):
        fit.predict(**options)


def test_absent_columns_are_named(fit, data):
    with pytest.raises(DataError, match="no column 'x'"):
        fit.predict(data.drop(columns="x"))
    with pytest.raises(DataError, match="no column 'h'"):
        fit.predict(data.drop(columns="h"))
    with pytest.raises(DataError, match=r"no column 'h'.* re_form=\"population\" predicts without"):
        fit.predict(data.drop(columns="h"))
    with pytest.raises(DataError) as found:  # there is no way without x
        fit.predict(data.drop(columns=["x", "h"]))
    assert "re_form" not in str(found.value)
    with pytest.raises(DataError, match=r"'?o'?"):
        fit.predict(data.drop(columns="o"))
    with pytest.raises(DataError, match="weights"):
        by_array = quiet_fit("y ~ x + (1 | g)", data, weights=data["w"].to_numpy())
        by_array.predict(data, interval="prediction")


def test_a_fit_from_matrices_predicts_its_own_rows_and_others_by_arrays():
    sleep = mx.datasets.load("sleepstudy")
    X = np.column_stack([np.ones(180), sleep["Days"]])
    fit = mx.fit_matrices(sleep["Reaction"], X, [(sleep["Subject"], X, "Subject")])
    assert np.asarray(fit.predict()) == approx(fit.fittedvalues)
    assert fit.predict(re_form="~ (1 | Subject)").shape == (180,)
    with pytest.raises(DataError, match="no 'x2' for the fixed part"):
        fit.predict(sleep)
    rows = {"X": X[:3], "Subject": sleep["Subject"][:3], "Z.Subject": X[:3]}
    assert np.asarray(fit.predict(rows)) == approx(fit.fittedvalues[:3])


def test_no_rows_are_no_error(fit, data):
    assert fit.predict(data.iloc[:0]).shape == (0,)
    assert fit.predict(data.iloc[:0], interval="prediction").shape == (0, 4)


def test_a_single_row_and_weights_by_name(fit, data):
    row = data.iloc[[5]]
    assert np.asarray(fit.predict(row)) == approx(fit.fittedvalues[[5]])
    named = fit.predict(row.rename(columns={"w": "v"}), interval="prediction", weights="v")
    pd.testing.assert_frame_equal(named, fit.predict(row, interval="prediction"))
    with pytest.raises(DataError, match="index differs"):
        fit.predict(data, interval="prediction", weights=data["w"].iloc[::-1])


@pytest.mark.large
def test_a_million_new_rows_of_insteval():
    fit = corpus.fit("insteval_ml")
    data = corpus.data_of(corpus.load_model("insteval_ml"))
    rng = np.random.default_rng(1)
    new = pd.DataFrame(
        {name: data[name].to_numpy()[rng.integers(len(data), size=10**6)] for name in
         ("service", "s", "d", "dept")}
    )  # fmt: skip
    for name in ("s", "d", "dept", "service"):
        if isinstance(data[name].dtype, pd.CategoricalDtype):
            new[name] = pd.Categorical(new[name], categories=data[name].cat.categories)
    mine = fit.predict(new)
    effects = fit.ranef()
    by_hand = fit.predict(new, "population")
    for g in ("s", "d"):
        by_hand = by_hand + effects[g]["(Intercept)"].loc[new[g].astype(str)].to_numpy()
    assert np.asarray(mine) == approx(by_hand, abs=1e-9)
