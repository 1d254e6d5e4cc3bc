"""Rank-deficient fixed parts: what is tested, what is NaN; names and coding do not matter."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import mixlm_sparse as mx

QUIET = mx.Control(warn=False)
CODINGS = ("treatment", "sum", "helmert", "poly")


def cake_with_empty_cells():
    cake = mx.datasets.load("cake").astype({"recipe": str, "temperature": str})
    cake = cake[cake["temperature"].isin(["175", "185", "195"])]
    empty = [("A", "175"), ("B", "185"), ("C", "195")]
    gone = [pair in empty for pair in zip(cake["recipe"], cake["temperature"], strict=True)]
    return cake[~np.array(gone)]


@pytest.mark.parametrize("coding", CODINGS)
def test_type_three_with_empty_cells_of_the_last_term_is_type_one(coding):
    contrasts = {"recipe": coding, "temperature": coding}
    fit = mx.lmer(
        "angle ~ recipe * temperature + (1 | recipe:replicate)", cake_with_empty_cells(),
        contrasts=contrasts, control=QUIET,
    )  # fmt: skip
    table = fit.anova()
    np.testing.assert_allclose(table["F value"], [0.087068, 5.199758, 4.037190], atol=1e-6)
    assert table["NumDF"].tolist() == [2, 2, 1]
    last = fit.anova(type=1).iloc[-1]
    np.testing.assert_allclose(table.iloc[-1], last, rtol=1e-8)


def random_design(seed):
    """Two factors with one to three empty cells, a covariate, crossed with a random factor."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(2, 5, size=2)
    a, b = (rng.integers(0, size, 150) for size in sizes)
    cells = [(i, j) for i in range(sizes[0]) for j in range(sizes[1])]
    rng.shuffle(cells)
    empty = cells[: rng.integers(1, 4)]
    g = rng.integers(0, 12, 150)
    frame = pd.DataFrame({"a": a, "b": b, "g": g, "x": rng.normal(size=150)})
    frame["y"] = rng.normal(size=150) + rng.normal(size=12)[g]
    frame = frame[~np.array([pair in empty for pair in zip(a, b, strict=True)])]
    frame["a"], frame["b"] = "a" + frame["a"].astype(str), "b" + frame["b"].astype(str)
    return frame, "y ~ a * b + x + (1 | g)" if seed % 2 else "y ~ a * b * x + (1 | g)"


@pytest.mark.parametrize("seed", range(12))
def test_empty_cells_in_any_coding_order_and_naming(seed):
    frame, formula = random_design(seed)
    if min(frame["a"].nunique(), frame["b"].nunique()) < 2:
        return
    base = mx.lmer(formula, frame, control=QUIET)
    tables = {kind: base.anova(type=kind) for kind in (2, 3)}
    others = [
        mx.lmer(formula, frame, contrasts={"a": coding, "b": coding}, control=QUIET)
        for coding in CODINGS[1:]
    ]
    names = sorted(frame["a"].unique())
    renamed = dict(zip(names, np.random.default_rng(seed).permutation(names), strict=True))
    others.append(mx.lmer(formula, frame.assign(a=frame["a"].map(renamed)), control=QUIET))
    others.append(mx.lmer(formula, frame.sample(frac=1.0, random_state=seed), control=QUIET))
    swapped = formula.replace("a * b", "b * a")
    for other in [*others, mx.lmer(swapped, frame, control=QUIET)]:
        for kind, table in tables.items():
            found = other.anova(type=kind).rename(index=lambda t: t.replace("b:a", "a:b"))
            np.testing.assert_allclose(found.loc[table.index], table, rtol=1e-5)


def test_type_three_of_full_cells_as_cell_means():
    """Beside its definition by parameters: unweighted means of cells, for both factors."""
    rng = np.random.default_rng(1)
    frame = pd.DataFrame({"a": rng.choice(list("uvw"), 90), "b": rng.choice(list("xy"), 90)})
    frame["g"] = rng.integers(0, 9, 90)
    frame["y"] = rng.normal(size=90) + rng.normal(size=9)[frame["g"]]
    for contrasts in (None, {"a": "sum", "b": "helmert"}):
        fit = mx.lmer("y ~ a * b + (1 | g)", frame, contrasts=contrasts)
        for factor in "ab":
            means = fit.emmeans(factor)
            row = fit.contest(means.L[1:] - means.L[0]).iloc[0]
            np.testing.assert_allclose(fit.anova().loc[factor], row, rtol=1e-6)


def nested():
    """Strains a and b of genotype g1, c and d of g2, e and f of g3."""
    rng = np.random.default_rng(3)
    strain = np.tile(list("abcdef"), 10)
    frame = pd.DataFrame({"strain": strain, "trial": np.repeat(range(10), 6)})
    frame["genotype"] = frame["strain"].map(dict(zip("abcdef", "112233", strict=True)))
    frame["y"] = rng.normal(size=60) + 2.0 * (strain == "d") + 0.5 * frame["trial"]
    return frame


@pytest.mark.parametrize("rename", [{}, {"a": "z"}, {"c": "A"}, {"a": "zz", "e": "A"}])
def test_a_factor_within_another_leaves_it_nothing(rename):
    frame = nested().replace({"strain": rename})
    formula = "y ~ genotype + strain + (1 | trial)"
    fit = mx.lmer(formula, frame, control=QUIET)
    for kind in (2, 3):
        table = fit.anova(type=kind)
        assert table["NumDF"].tolist() == [0, 3]
        assert table.loc["genotype"].drop("NumDF").isna().all()
        assert "the term genotype" in table.attrs["note"]
    sequential = fit.anova(type=1)
    assert sequential["NumDF"].tolist() == [2, 3]
    alone = mx.lmer("y ~ strain + (1 | trial)", frame, control=QUIET)
    within = alone.emmeans("strain")
    levels = within.cells["strain"].tolist()
    back = {new: old for old, new in rename.items()}
    order = np.argsort([back.get(level, level) for level in levels])
    L = within.L[order]
    expected = alone.contest(L[[0, 2, 4]] - L[[1, 3, 5]]).iloc[0]
    np.testing.assert_allclose(table.loc["strain"], expected, rtol=1e-5)
    dropped = fit.drop1(test="F")
    np.testing.assert_array_equal(dropped["NumDF"], [0, 3])
    np.testing.assert_allclose(dropped.loc["strain"], expected, rtol=1e-5)
    with pytest.warns(mx.RankDeficiencyWarning, match="dropped 2 columns"):
        loud = mx.lmer(formula, frame)
    with pytest.warns(mx.RankDeficiencyWarning, match="not estimable, so NaN: the term genotype"):
        loud.anova()


@pytest.mark.parametrize("ddf", ["satterthwaite", "kenward-roger", "normal"])
def test_terms_that_repeat_each_other(ddf):
    rng = np.random.default_rng(8)
    frame = pd.DataFrame({"age": rng.normal(40, 9, 80), "year": rng.integers(2000, 2020, 80)})
    frame["cohort"] = frame["year"] - frame["age"]
    frame["one"] = 1.0
    frame["z"] = rng.normal(size=80)
    frame["id"] = np.arange(80) % 10
    frame["y"] = frame["z"] + rng.normal(size=10)[frame["id"]] + rng.normal(size=80)
    fit = mx.lmer("y ~ age + year + cohort + z + one + (1 | id)", frame, control=QUIET)
    plain = mx.lmer("y ~ age + year + z + (1 | id)", frame, control=QUIET)
    for table in (fit.drop1(test="F", ddf=ddf), fit.anova(ddf=ddf), fit.anova(type=2, ddf=ddf)):
        assert table["NumDF"].tolist() == [0, 0, 0, 1, 0]
        np.testing.assert_allclose(table.loc["z"], plain.anova(ddf=ddf).loc["z"], rtol=1e-5)


def test_contest_of_what_the_data_do_not_determine():
    frame = nested().assign(kg=lambda d: d["y"] + np.arange(60) % 7)
    frame["lb"] = 2.2 * frame["kg"]
    fit = mx.lmer("y ~ kg + lb + genotype + (1 | trial)", frame, control=QUIET)
    plain = mx.lmer("y ~ kg + genotype + (1 | trial)", frame)
    table = fit.contest("kg", joint=False)
    assert table.iloc[0].isna().all()
    assert "'kg'" in table.attrs["note"]
    joint = fit.contest(["kg", "genotype2"]).iloc[0]
    assert joint["NumDF"] == 0
    assert np.isnan(joint["F value"])
    wald = fit.wald_test("lb = 0").iloc[0]
    assert wald["df"] == 0
    assert np.isnan(wald["chi2"])
    # whatever the weights are, one unit of both together is known
    both = fit.contest({"kg": 1.0, "lb": 2.2}, joint=False).iloc[0]
    assert both["estimate"] == pytest.approx(plain.fixef["kg"])
    assert fit.contest("genotype2")["NumDF"].tolist() == [1]
    matrix = np.eye(5)[[3]]  # one column for every column of X
    np.testing.assert_allclose(fit.contest(matrix), fit.contest("genotype2"))
    with pytest.warns(mx.RankDeficiencyWarning, match=r"dropped 1 column \(lb\)"):
        loud = mx.lmer("y ~ kg + lb + (1 | trial)", frame)
    with pytest.warns(mx.RankDeficiencyWarning, match="not estimable, so NaN: 'kg'; columns of X"):
        loud.contest("kg")


def test_hypotheses_that_contradict_each_other():
    fit = mx.lmer("Reaction ~ Days + (Days | Subject)", mx.datasets.load("sleepstudy"))
    for call in (fit.contest, fit.wald_test):
        with pytest.raises(mx.OptionError, match="contradict each other"):
            call(["Days = 0", "Days = 20"])
        with pytest.raises(mx.OptionError, match="contradict each other"):
            call([[1, 0], [0, 1], [1, 1]], rhs=[2, 2, 2])
        with pytest.raises(mx.OptionError, match="a value other than zero"):
            call([[0, 0], [0, 1]], rhs=[1, 0])
        with pytest.raises(mx.OptionError, match="nothing to test"):
            call([0, 0])
    row = fit.contest([[1, 0], [0, 1], [1, 1]], rhs=[250, 10, 260]).iloc[0]
    pair = fit.contest([[1, 0], [0, 1]], rhs=[250, 10]).iloc[0]
    np.testing.assert_allclose(row, pair, rtol=1e-8)
    # a repetition in other units
    twice = fit.contest(["Days = 10", "1000000*Days = 10000000", "Days/1e6 = 1e-5"]).iloc[0]
    np.testing.assert_allclose(twice, fit.contest("Days = 10").iloc[0], rtol=1e-8)


def test_no_rows_and_no_coefficients():
    data = mx.datasets.load("sleepstudy")
    fit = mx.lmer("Reaction ~ Days + (Days | Subject)", data)
    assert fit.contest(np.zeros((0, 2))).shape == (0, 6)
    assert fit.contest(np.zeros((0, 2)), joint=False).shape == (0, 7)
    assert fit.wald_test(np.zeros((0, 2))).shape == (0, 3)
    none = mx.lmer("Reaction ~ 0 + (1 | Subject)", data)
    assert none.contest(np.zeros((1, 0))).shape == (0, 6)


def test_names_with_and_without_backticks():
    data = mx.datasets.load("sleepstudy").rename(columns={"Days": "Days passed"})
    data["my f"] = np.tile(["a", "b", "c"], 60)
    fit = mx.lmer("Reaction ~ `Days passed` + `my f` + (1 | Subject)", data)
    expected = fit.contest(np.eye(4)[[1]]).iloc[0]
    for text in ("`Days passed` = 0", "Days passed", {"`Days passed`": 1}, {"Days passed": 2.0}):
        np.testing.assert_allclose(fit.contest(text).iloc[0], expected)
    between = fit.contest([[0, 0, 1, -1]]).iloc[0]
    for text in ("`my f`b = `my f`c", "my fb - my fc", "`my fb` - `my fc`"):
        np.testing.assert_allclose(fit.contest(text).iloc[0], between)


def test_deeply_nested_text_is_refused():
    fit = mx.lmer("Reaction ~ Days + (1 | Subject)", mx.datasets.load("sleepstudy"))
    for text in ("(" * 5000 + "Days" + ")" * 5000, "-" * 5000 + "Days"):
        with pytest.raises(mx.OptionError, match="nests more than"):
            fit.contest(text)
    assert fit.contest("((((Days))))").shape == (1, 6)


def test_a_covariate_beside_its_own_levels():
    """Leaving out a line through levels that stay changes nothing, so there is nothing to test."""
    cake = mx.datasets.load("cake")
    cake["temp"] = cake["temperature"].astype(str).astype(float)
    cake["temperature"] = pd.Categorical(cake["temperature"].astype(str), ordered=True)
    formula = "angle ~ recipe + temp + temperature + (1 | recipe:replicate)"
    fit = mx.lmer(formula, cake, control=QUIET)
    for table in (fit.drop1(test="F"), fit.anova(type=2), fit.anova(type=3)):
        assert table["NumDF"].tolist() == [2, 0, 4]
        assert np.isnan(table.loc["temp", "F value"])
    ml = fit.drop1()
    assert ml.loc["temp", "Df"] == 0
    # in sequence the line comes first
    first = mx.lmer("angle ~ recipe + temp + (1 | recipe:replicate)", cake)
    line = fit.anova(type=1).loc["temp"]
    assert line["NumDF"] == 1
    assert line["Sum Sq"] / fit.scale == pytest.approx(line["F value"])
    assert first.anova(type=1)["NumDF"].tolist() == [2, 1]


@pytest.mark.parametrize("call", [{"rhs": [1.0]}, {"rhs": [1.0, np.inf]}])
def test_right_sides_fit_the_hypotheses(call):
    fit = mx.lmer("Reaction ~ Days + (1 | Subject)", mx.datasets.load("sleepstudy"))
    with pytest.raises(mx.OptionError, match="for 2 hypotheses"):
        fit.contest(np.eye(2), **call)
    with pytest.raises(mx.OptionError, match="finite"):
        fit.contest("Days = 1e999")
