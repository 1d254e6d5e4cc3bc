"""Marginal means and slopes against lmerTest's ls_means, R's ptukey, and by hand."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import mixlm_sparse as mx
from mixlm_sparse.inference.means.adjustments import Family
from tests.inference.test_anova import LMERTEST
from tests.support import corpus
from tests.support.corpus import load_data


@pytest.mark.parametrize("case_id", sorted(LMERTEST["means"]))
def test_as_ls_means(case_id):
    case = LMERTEST["means"][case_id]
    fit = mx.lmer(case["formula"], load_data(case["data"]))
    for expected in case["tables"]:
        means = fit.emmeans(expected["which"].split(":"), ddf=expected["ddf"])
        if expected["pairwise"]:
            table = means.pairs("none", conf_int=True)
            estimate = table["estimate"]
            np.testing.assert_allclose(table["p_value"], expected["p"], atol=1e-6)
        else:
            table = means.to_frame()
            estimate = table["emmean"]
        np.testing.assert_allclose(estimate, expected["estimate"], rtol=1e-6)
        np.testing.assert_allclose(table["std_error"], expected["se"], rtol=1e-5)
        np.testing.assert_allclose(table["df"], expected["df"], rtol=1e-4)
        np.testing.assert_allclose(table["lower"], expected["lower"], rtol=1e-4)
        np.testing.assert_allclose(table["upper"], expected["upper"], rtol=1e-4)


def test_tukey_as_ptukey():
    for row in LMERTEST["tukey"]:
        one = np.array([row["t"]])
        df = np.array([row["df"]])
        single = 2 * stats.t.sf(one, df)
        pairs = row["means"] * (row["means"] - 1) // 2
        family = Family(np.eye(pairs), pairs=True)
        same = (np.repeat(v, pairs) for v in (one, df, single))
        found = family.p_values(*same, "tukey")
        assert found[0] == pytest.approx(row["p"], abs=1e-6)


def test_adjustments():
    p = np.array([0.01, 0.04, 0.03, np.nan])
    t, df = np.zeros(4), np.full(4, 10.0)
    four = Family(np.diag([1.0, 1.0, 1.0, np.nan]), pairs=True)
    np.testing.assert_allclose(four.p_values(t, df, p, "bonferroni")[:3], [0.03, 0.12, 0.09])
    np.testing.assert_allclose(four.p_values(t, df, p, "holm")[:3], [0.03, 0.06, 0.06])
    np.testing.assert_allclose(four.p_values(t, df, p, "none"), p)
    assert np.isnan(four.p_values(t, df, p, "tukey")[3])
    df = np.full(3, 12.0)
    q = Family(np.eye(3), pairs=True).critical(0.95, df, "tukey")
    assert q[0] == pytest.approx(3.772929 / np.sqrt(2), rel=1e-5)  # printed tables: 3.77
    two = Family(np.eye(1), pairs=True).critical(0.95, df[:1], "tukey")
    assert two[0] == pytest.approx(stats.t.ppf(0.975, 12))
    assert Family(np.eye(3), pairs=True).critical(0.95, df, "holm")[0] == pytest.approx(
        stats.t.ppf(1 - 0.05 / 6, 12)
    )


def cake(**options):
    data = load_data("cake")
    return mx.lmer("angle ~ recipe * temp + (1 | recipe:replicate)", data, **options)


def test_balanced_means_are_cell_means():
    data = load_data("cake")
    fit = corpus.fit("cake_reml")
    factor = next(name for name in ("recipe",) if name in data.columns)
    table = fit.emmeans(factor).to_frame()
    np.testing.assert_allclose(
        table["emmean"], data.groupby(factor, observed=True)["angle"].mean(), rtol=1e-6
    )
    assert table["df"].to_numpy() == pytest.approx(42.0, rel=1e-4)


def held_at_half(fit):
    return fit.emmeans("recipe", at={"degrees": 0.5}).to_frame()["emmean"]


def test_by_at_and_order():
    data = load_data("cake")
    data["degrees"] = np.linspace(-1, 1, len(data))
    fit = mx.lmer("angle ~ recipe * degrees + (1 | recipe:replicate)", data)
    means = fit.emmeans("recipe", by="degrees", at={"degrees": [0.0, 1.0]})
    table = means.to_frame()
    assert table["degrees"].tolist() == [0.0, 0.0, 0.0, 1.0, 1.0, 1.0]
    b = fit.fixef
    assert table["emmean"][0] == pytest.approx(b["(Intercept)"])
    assert table["emmean"][4] == pytest.approx(
        b["(Intercept)"] + b["recipeB"] + b["degrees"] + b["recipeB:degrees"]
    )
    pairs = means.pairs()
    assert pairs["contrast"].tolist() == ["A - B", "A - C", "B - C"] * 2
    assert pairs["degrees"].tolist() == [0.0] * 3 + [1.0] * 3
    assert means.pairs(reverse=True)["contrast"].tolist()[:3] == ["B - A", "C - A", "C - B"]
    np.testing.assert_allclose(
        means.pairs("none", reverse=True)["estimate"], -pairs["estimate"], rtol=1e-10
    )
    held = fit.emmeans("recipe", at={"degrees": 0.5, "recipe": ["C", "A"]})
    assert held.to_frame()["recipe"].tolist() == ["C", "A"]
    assert "at degrees = 0.5" in repr(held)
    between = fit.emmeans("recipe", at={"degrees": [0.0, 1.0]})
    np.testing.assert_allclose(between.to_frame()["emmean"], held_at_half(fit), rtol=1e-12)
    assert "averaged over degrees = 0, 1; " in repr(between)
    assert "Note: at " not in repr(between)
    one = means.contrast([1, -1, 0, 0, 0, 0])
    assert one["estimate"].iloc[0] == pytest.approx(pairs["estimate"].iloc[0])


def test_slopes():
    data = load_data("cake")
    data["degrees"] = np.linspace(0, 2, len(data))
    fit = mx.lmer("angle ~ recipe * degrees + I(degrees^2) + (1 | recipe:replicate)", data)
    b = fit.fixef
    trends = fit.emtrends("degrees", by="recipe", at={"degrees": 0.5})
    table = trends.to_frame()
    base = b["degrees"] + 2 * 0.5 * b["I(degrees^2)"]
    np.testing.assert_allclose(
        table["degrees.trend"],
        [base, base + b["recipeB:degrees"], base + b["recipeC:degrees"]],
        rtol=1e-9,
    )
    pairs = trends.pairs("none")
    assert pairs["estimate"][0] == pytest.approx(-b["recipeB:degrees"], rel=1e-8)
    assert pairs["std_error"][0] == pytest.approx(fit.bse["recipeB:degrees"], rel=1e-6)
    overall = fit.emtrends("degrees").to_frame()
    assert len(overall) == 1
    with pytest.raises(mx.OptionError, match="'recipe' is a factor, which has no slope"):
        fit.emtrends("recipe")


def test_transformed_covariates_and_stateful_terms():
    data = load_data("sleepstudy")
    fit = mx.lmer("Reaction ~ poly(Days, 2) + (1 | Subject)", data)
    found = fit.emmeans("Days", at={"Days": [0, 4.5]}).to_frame()["emmean"]
    raw = mx.lmer("Reaction ~ Days + I(Days^2) + (1 | Subject)", data).fixef.to_numpy()
    np.testing.assert_allclose(found, [raw[0], raw @ [1, 4.5, 4.5**2]], rtol=1e-6)


def test_numbers_read_as_factors():
    data = load_data("sleepstudy")
    fit = mx.lmer("Reaction ~ factor(Days) + (1 | Subject)", data)
    table = fit.emmeans("Days").to_frame()
    assert table["Days"].tolist() == list(range(10))
    np.testing.assert_allclose(
        table["emmean"], data.groupby("Days")["Reaction"].mean(), rtol=1e-8
    )


def unbalanced():
    rng = np.random.default_rng(8)
    frame = pd.DataFrame({"g": np.repeat(np.arange(20), 6)})
    frame["f"] = rng.choice(["a", "b"], 120)
    frame["h"] = rng.choice(["u", "v", "w"], 120, p=[0.6, 0.3, 0.1])
    frame["y"] = rng.normal(size=20)[frame["g"]] + rng.normal(size=120)
    return frame


def test_proportional_weights():
    frame = unbalanced()
    fit = mx.lmer("y ~ f * h + (1 | g)", frame)
    cells = fit.emmeans(["f", "h"]).to_frame().set_index(["f", "h"])["emmean"]
    share = frame["h"].value_counts(normalize=True)
    expected = sum(share[h] * cells["a", h] for h in "uvw")
    table = fit.emmeans("f", weights="proportional").to_frame()
    assert table["emmean"][0] == pytest.approx(expected)
    equal = fit.emmeans("f").to_frame()["emmean"][0]
    assert equal == pytest.approx(cells["a"].mean())
    assert "averaged over the levels of h" in repr(fit.emmeans("f"))


def test_cells_without_rows_are_not_estimable():
    frame = unbalanced()
    frame = frame[~((frame["f"] == "b") & (frame["h"] == "w"))]
    with pytest.warns(mx.RankDeficiencyWarning, match="dropped 1 column"):
        fit = mx.lmer("y ~ f * h + (1 | g)", frame)
    with pytest.warns(mx.RankDeficiencyWarning, match="not estimable, so NaN: f = b, h = w; the"):
        cells = fit.emmeans(["f", "h"])
    table = cells.to_frame().set_index(["f", "h"])
    assert np.isnan(table.loc[("b", "w"), "emmean"])
    assert np.isfinite(table["emmean"].drop(("b", "w"))).all()
    with pytest.warns(mx.RankDeficiencyWarning, match=r"NaN: f = b; the data do not .* h = w:"):
        means = fit.emmeans("f")
    assert np.isnan(means.to_frame()["emmean"]).tolist() == [False, True]
    quiet = mx.lmer("y ~ f * h + (1 | g)", frame, control=mx.Control(warn=False))
    pairs = quiet.emmeans("h", by="f").pairs()
    assert pairs["p_value"].isna().sum() == 2
    for ddf in ("kenward-roger", "normal"):
        assert np.isfinite(quiet.emmeans("f", ddf=ddf).to_frame()["emmean"][0])
    only = quiet.emmeans("f", weights="proportional", at={"h": ["u", "v"]}).to_frame()
    assert np.isfinite(only["emmean"]).all()
    # a combination may be known where its parts are not
    named = quiet.emmeans(["f", "h"]).contrast([1, 0, -1, 0, 0, 0]).iloc[0]
    assert np.isfinite(named["p_value"])


def nested(reps=8):
    rng = np.random.default_rng(5)
    strain = np.tile(list("abcdefg"), reps)
    frame = pd.DataFrame({"strain": strain, "trial": np.repeat(range(reps), 7)})
    frame["genotype"] = frame["strain"].map(dict(zip("abcdefg", "1122233", strict=True)))
    frame["sex"] = rng.choice(["f", "m"], len(frame))
    frame["y"] = rng.normal(size=len(frame)) + 2.0 * (strain == "d")
    return frame


@pytest.mark.parametrize("fixed", ["genotype / strain", "strain + genotype", "strain:genotype"])
def test_factors_within_others(fixed):
    """Each mean is over the levels that exist; in balanced data these are the means of the rows."""
    frame = nested()
    fit = mx.lmer(f"y ~ {fixed} + (1 | trial)", frame, control=mx.Control(warn=False))
    means = fit.emmeans("genotype")
    np.testing.assert_allclose(
        means.to_frame()["emmean"], frame.groupby("genotype")["y"].mean(), rtol=1e-8
    )
    assert "levels of strain within those of genotype" in repr(means)
    strains = fit.emmeans("strain").to_frame()
    np.testing.assert_allclose(strains["emmean"], frame.groupby("strain")["y"].mean(), rtol=1e-8)
    plain = mx.lmer("y ~ strain + (1 | trial)", frame).emmeans("strain").to_frame()
    np.testing.assert_allclose(strains["std_error"], plain["std_error"], rtol=1e-6)
    within = fit.emmeans("strain", by="genotype")
    assert list(within.pairs()["contrast"]) == ["a - b", "c - d", "c - e", "d - e", "f - g"]
    assert within.pairs()["p_value"].notna().all()
    assert fit.emmeans("strain", at={"genotype": "2"}).cells["strain"].tolist() == ["c", "d", "e"]
    shares = fit.emmeans("genotype", weights="proportional").to_frame()
    np.testing.assert_allclose(shares["emmean"], means.to_frame()["emmean"], rtol=1e-8)


def test_nesting_beside_a_crossed_factor():
    frame, quiet = nested(20), mx.Control(warn=False)
    fit = mx.lmer("y ~ genotype / strain + sex + (1 | trial)", frame, control=quiet)
    plain = mx.lmer("y ~ strain + sex + (1 | trial)", frame, control=quiet)
    cells = plain.emmeans("strain").to_frame().set_index("strain")["emmean"]
    table = fit.emmeans("genotype").to_frame().set_index("genotype")["emmean"]
    np.testing.assert_allclose(table, [cells[list(s)].mean() for s in ("ab", "cde", "fg")])


def test_means_do_not_depend_on_coding_order_names_and_rows():
    frame = unbalanced().assign(x=lambda d: d["g"] % 7 + 0.5 * (d["f"] == "a"))
    base = mx.lmer("y ~ f * h + x + (x | g)", frame, control=mx.Control(warn=False))
    table = base.emmeans(["f", "h"]).to_frame()
    pairs = base.emmeans("h").pairs()
    variants = [
        mx.lmer("y ~ x + h * f + (1 + x | g)", frame, control=mx.Control(warn=False)),
        mx.lmer("y ~ f * h + x + (x | g)", frame.sample(frac=1.0, random_state=1),
                control=mx.Control(warn=False)),
        mx.lmer("y ~ f * h + x + (x | g)", frame, contrasts={"f": "sum", "h": "helmert"},
                control=mx.Control(warn=False)),
        mx.lmer("y ~ 0 + f:h + x + (x | g)", frame, control=mx.Control(warn=False)),
    ]  # fmt: skip
    for move, scale in ((0.0, 1e4), (1e3, 1.0), (1e6, 1.0), (0.0, 1e-4)):
        moved = frame.assign(x=move + scale * frame["x"])
        variants.append(mx.lmer("y ~ f * h + x + (x | g)", moved, control=mx.Control(warn=False)))
    for other in variants:
        found = other.emmeans(["f", "h"]).to_frame()
        np.testing.assert_allclose(found.iloc[:, 2:], table.iloc[:, 2:], rtol=2e-4)
        numbers = ["estimate", "std_error", "df", "statistic", "p_value"]
        np.testing.assert_allclose(
            other.emmeans("h").pairs()[numbers], pairs[numbers], rtol=2e-4, atol=1e-6
        )


def test_offset_is_part_of_a_mean():
    frame = unbalanced().assign(o=5.0)
    plain = mx.lmer("y ~ f + (1 | g)", frame).emmeans("f").to_frame()["emmean"]
    moved = mx.lmer("y ~ f + offset(o) + (1 | g)", frame).emmeans("f").to_frame()["emmean"]
    np.testing.assert_allclose(moved, plain, rtol=1e-8)


def test_offsets_given_in_any_way(tmp_path):
    rng = np.random.default_rng(2)
    frame = unbalanced().assign(x=rng.normal(5, 2, 120), o=rng.uniform(1, 9, 120))
    frame["y"] += 3.0 * frame["x"] + 100.0
    quiet = mx.Control(warn=False)
    given_ = 3.0 * frame["x"] + 100.0
    fits = [
        mx.lmer("y ~ f + x + offset(3 * x + 100) + (1 | g)", frame, control=quiet),
        mx.lmer("y ~ f + x + (1 | g)", frame, offset="3 * x + 100", control=quiet),
        mx.lmer("y ~ f + x + (1 | g)", frame, offset=given_.to_numpy(), control=quiet),
        mx.lmer("y ~ f + x + (1 | g)", frame.assign(shift=given_), offset="shift", control=quiet),
        mx.lmer(
            "y ~ f + x + offset(100 + 0 * x) + (1 | g)", frame, offset=3.0 * frame["x"],
            control=quiet,
        ),
    ]  # fmt: skip
    plain = mx.lmer("y ~ f + x + (1 | g)", frame, control=quiet)
    expected = plain.emmeans("f").to_frame()
    for fit in fits:
        np.testing.assert_allclose(
            fit.emmeans("f").to_frame().iloc[:, 1:], expected.iloc[:, 1:], rtol=1e-5
        )
        np.testing.assert_allclose(
            fit.emmeans("f").pairs()["estimate"], plain.emmeans("f").pairs()["estimate"]
        )
    for fit in fits[:2]:  # the slope of the offset is known only where it is an expression
        slope = fit.emtrends("x").to_frame()["x.trend"][0]
        assert slope == pytest.approx(plain.fixef["x"])
    logged = mx.lmer("y ~ f + (1 | g)", frame, offset="log(o)", control=quiet)
    same = mx.lmer("y ~ f + offset(log(o)) + (1 | g)", frame, control=quiet)
    np.testing.assert_allclose(
        logged.emmeans("f").to_frame()["emmean"], same.emmeans("f").to_frame()["emmean"]
    )
    fits[2].save(tmp_path / "fit.mixlm", include_data=True)
    again = mx.load(tmp_path / "fit.mixlm")
    np.testing.assert_allclose(
        again.emmeans("f").to_frame()["emmean"], expected["emmean"], rtol=1e-5
    )


def test_a_covariate_inside_a_comparison_stays_one():
    rng = np.random.default_rng(4)
    frame = unbalanced().assign(x=rng.normal(0.3, 1.0, 120), z=rng.normal(size=120))
    fit = mx.lmer("y ~ I(x > 0) + f + (1 | g)", frame)
    table = fit.emmeans("f")
    at_mean = fit.fixef["(Intercept)"] + fit.fixef["I(x > 0)TRUE"] * (frame["x"].mean() > 0)
    assert table.to_frame()["emmean"][0] == pytest.approx(at_mean)
    assert table.averaged_over == ()
    below = fit.emmeans("f", at={"x": -1.0}).to_frame()["emmean"][0]
    assert below == pytest.approx(fit.fixef["(Intercept)"])
    both = mx.lmer("y ~ factor(x > 0 & z < 1) + f + (1 | g)", frame)
    assert len(both.emmeans(["x", "z"]).to_frame()) == 1
    # numbers read as levels are a factor still
    level = mx.lmer("y ~ factor(g) + x + (1 | h)", frame, control=mx.Control(warn=False))
    assert len(level.emmeans("g").to_frame()) == 20


def test_names_in_backticks_and_messages_are_short():
    frame = unbalanced().rename(columns={"f": "my f"})
    frame["code"] = [f"level {i % 60}" for i in range(120)]
    fit = mx.lmer("y ~ `my f` + code + (1 | g)", frame)
    plain = fit.emmeans("my f").to_frame()
    pd.testing.assert_frame_equal(fit.emmeans("`my f`").to_frame(), plain)
    pd.testing.assert_frame_equal(
        fit.emmeans("my f", at={"`my f`": "a"}).to_frame(), plain.iloc[:1]
    )
    with pytest.raises(mx.OptionError, match=r"and 52 more$") as caught:
        fit.emmeans("my f", at={"code": "zz"})
    assert len(str(caught.value)) < 250
    slope = mx.lmer("Reaction ~ Days + (Days | Subject)", load_data("sleepstudy"))
    for bad in (np.nan, [0, np.inf], "x", None):
        with pytest.raises(mx.OptionError, match=r"covariate 'Days': give finite numbers"):
            slope.emmeans("Days", at={"Days": bad})
    with pytest.raises(mx.OptionError, match=r"at is 5: use a dictionary"):
        slope.emmeans("Days", at=5)
    with pytest.raises(mx.OptionError, match="specs is 5"):
        slope.emmeans(5)


def test_truth_values_and_other_frames():
    frame = unbalanced().assign(late=lambda d: d["g"] > 9)
    fit = mx.lmer("y ~ late + (1 | g)", frame)
    assert fit.emmeans("late").to_frame()["late"].tolist() == [False, True]
    polars = pytest.importorskip("polars")
    again = mx.lmer("y ~ late + f + (1 | g)", polars.from_pandas(frame))
    assert len(again.emmeans("f").to_frame()) == 2


def test_errors_name_the_remedy():
    frame = unbalanced()
    fit = mx.lmer("y ~ f * h + (1 | g)", frame)
    with pytest.raises(mx.OptionError, match=r"no predictor of the fixed part 'ff'.*mean 'f'"):
        fit.emmeans("ff")
    with pytest.raises(mx.OptionError, match="'f' has no level 'z': use one of a, b"):
        fit.emmeans("h", at={"f": "z"})
    with pytest.raises(mx.OptionError, match="no predictor of the fixed part 'x'"):
        fit.emmeans("h", at={"x": 1})
    with pytest.raises(mx.OptionError, match="'f' is named twice"):
        fit.emmeans("f", by="f")
    with pytest.raises(mx.OptionError, match="adjust is 'schefe'"):
        fit.emmeans("f").pairs("schefe")
    with pytest.raises(mx.OptionError, match="weights is 'rows'"):
        fit.emmeans("f", weights="rows")
    with pytest.raises(mx.OptionError, match="only one cell in each group"):
        fit.emmeans("f", by="h", at={"f": "a"}).pairs()
    with pytest.raises(mx.OptionError, match="3 weights, the table has 2 rows"):
        fit.emmeans("f").contrast([1, 0, 0])
    with pytest.raises(mx.OptionError, match="level is 2"):
        fit.emmeans("f", level=2)
    X = np.column_stack([np.ones(120), frame["g"] > 9])
    made = mx.fit_matrices(frame["y"], X, [(frame["g"],)])
    with pytest.raises(mx.OptionError, match="made from matrices"):
        made.emmeans("x2")


# -- what a table does not show -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("formula", "ask", "said"),
    [
        ("y ~ a * b + x + (1 | g)", lambda f: f.emmeans("a"), ["a interacts with b: averages"]),
        ("y ~ a + b + x + (1 | g)", lambda f: f.emmeans("a"), []),
        ("y ~ a * b + x + (1 | g)", lambda f: f.emmeans("a | b"), []),
        ("y ~ a * b + x + (1 | g)", lambda f: f.emmeans(["a", "b"]), []),
        ("y ~ a * b + x + (1 | g)", lambda f: f.emmeans("~ 1"), []),
        ("y ~ a * x + b + (1 | g)", lambda f: f.emmeans("a"), ["a interacts with x: this"]),
        ("y ~ a * x + b + (1 | g)", lambda f: f.emmeans("b"), []),
        ("y ~ a * poly(x, 2) + (1 | g)", lambda f: f.emmeans("a"), ["a interacts with x: this is"]),
        ("y ~ a * x + (1 | g)", lambda f: f.emmeans("a", at={"x": [0, 1]}), ["averages over it"]),
        ("y ~ a * x + (1 | g)", lambda f: f.emtrends("x"), ["x interacts with a: averages"]),
        ("y ~ a * x + (1 | g)", lambda f: f.emtrends("x", specs="a"), []),
        ("y ~ poly(x, 2) + a + (1 | g)", lambda f: f.emtrends("x"), []),
        (
            "y ~ a * b * x + (1 | g)", lambda f: f.emmeans("a"),
            ["a interacts with b: averages", "a interacts with x: this is at x"],
        ),
        ("y ~ a:inner + (1 | g)", lambda f: f.emmeans("a"), []),  # levels of inner are those of a
    ],
)  # fmt: skip
def test_an_interaction_that_the_table_does_not_show_is_said(formula, ask, said):
    rng = np.random.default_rng(5)
    n = 96
    frame = pd.DataFrame({
        "a": np.tile(list("uvw"), n // 3), "b": np.repeat(list("pq"), n // 2),
        "x": rng.normal(size=n), "g": rng.integers(0, 8, n), "y": rng.normal(size=n),
    })  # fmt: skip
    frame["inner"] = frame["a"] + frame["g"].mod(2).astype(str)
    fit = mx.lmer(formula, frame, control=mx.Control(warn=False))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mx.RankDeficiencyWarning)
        means = ask(fit)
    tables = [means.test()] if len(means.cells) < 2 else [means.pairs(), means.test()]
    for text in (str(means), *map(str, tables)):
        notes = " ".join(text.split())
        assert notes.count("interacts with") == len(said), text
        for words in said:
            assert words in notes
        assert max(map(len, text.splitlines())) <= 80
