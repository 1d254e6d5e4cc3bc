"""Residual structures and marginal means from the shell."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

import mixlm_sparse as mx
from mixlm_sparse.covariance.correlation import structures
from mixlm_sparse.interop.cli.structures import RESIDUALS, VARIANCES, residual_of, variance_of
from mixlm_sparse.interop.cli.texts import STRUCTURES
from tests.interop.commands import run

FORMULA = "y ~ arm * visit"


@pytest.fixture
def trial(folder):
    rng = np.random.default_rng(4)
    n, T = 30, 4
    frame = pd.DataFrame(
        {
            "id": np.repeat([f"p{i:02d}" for i in range(n)], T),
            "arm": np.repeat(np.where(np.arange(n) % 2, "B", "A"), T),
            "visit": np.tile([f"v{t + 1}" for t in range(T)], n),
            "day": np.tile([1, 2, 3, 4], n),
            "day 1": np.tile([1, 2, 3, 4], n),
        }
    )
    noise = rng.normal(size=(n, T))
    for t in range(1, T):
        noise[:, t] = 0.6 * noise[:, t - 1] + 0.8 * noise[:, t]
    noise += 1.5 * rng.normal(size=(n, 1))
    frame["y"] = 5.0 + (frame["arm"] == "B") * 0.8 + frame["day"] * 0.3 + noise.ravel()
    frame.to_csv("trial.csv", index=False)
    return frame


# ------------------------------------------------------------------------ how they are written


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("AR1(time='day', group='id')", mx.AR1(time="day", group="id")),
        ("AR1(time=day, group=id)", mx.AR1(time="day", group="id")),
        (" mx.AR1( time = day , group = [id, arm] ) ", mx.AR1(time="day", group=["id", "arm"])),
        ("ar1(time=day, group=c(id, arm))", mx.AR1(time="day", group=["id", "arm"])),
        ("CompoundSymmetry(group='the pen')", mx.CompoundSymmetry(group="the pen")),
        ("Exponential(position=[x, 'y 2'], group=g)",
         mx.Exponential(position=["x", "y 2"], group="g")),
        ("Unstructured(time=t, group=g, by=arm)", mx.Unstructured(time="t", group="g", by="arm")),
    ],
)  # fmt: skip
def test_structures_in_words_of_the_shell(text, expected):
    assert residual_of(text) == expected
    assert residual_of(None) is None


def test_all_structures_are_known_and_in_the_help():
    assert set(RESIDUALS.values()) == set(structures())
    for name in RESIDUALS:
        assert name in STRUCTURES
    assert variance_of("VarIdent(by=[arm, visit])") == mx.VarIdent(by=["arm", "visit"])
    for name in VARIANCES:
        assert name in STRUCTURES


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("AR2(time=t)", "there is no AR2 (did you mean AR1?): use one of AR1, CAR1"),
        ("zzz", "use one of AR1"), ("AR1", 'name its columns, "AR1(time=visit, group=patient)"'),
        ("AR1()", 'AR1 needs time=, as "AR1(time=visit)"'),
        ("Unstructured(time=t)", "Unstructured needs group="),
        ("AR1(t, g)", "name its columns"), ("AR1(time=t, gruop=g)", "AR1 takes time=, group=, by="),
        ("AR1(time=3)", "its arguments are names of columns"), ("AR1(time=", "write it as"),
        ("AR1(time=day 1)", "names with spaces in quotes"), ("__import__('os')", "use one of"),
        ("AR1(time=open('x'))", "names of columns"), ("(" * 5000, "write it as"),
        ("AR1(time=[[a]], group=b)", "names of columns"), ("", "write it as"), ("1", "write it as"),
        ("AR1(**x)", "AR1 takes time="), ("AR1(time=t, group=[])", "group of AR1"),
    ],
)  # fmt: skip
def test_structures_that_cannot_be_read(text, words):
    with pytest.raises(mx.OptionError) as error:
        residual_of(text)
    assert words in str(error.value)
    assert len(str(error.value)) < 500


# ------------------------------------------------------------------------ fits


def test_gls_from_the_shell(trial, folder, capsys):
    code, out, err = run(
        capsys, "gls", "trial.csv", FORMULA, "--residual", "Unstructured(time=visit, group=id)",
        "--variance", "VarIdent(by=visit)", "--save", "m.mixlm", "--tidy", "t.csv", "--json",
        "out.json",
    )  # fmt: skip
    assert (code, err) == (0, "")
    expected = mx.gls(
        FORMULA, trial, residual=mx.Unstructured(time="visit", group="id"),
        variance=mx.VarIdent(by="visit"),
    )  # fmt: skip
    assert str(expected.summary()) in out
    assert mx.load("m.mixlm").criterion == pytest.approx(expected.criterion, rel=1e-12)
    found = json.loads((folder / "out.json").read_text())
    names = expected.residual_structure["parameter"].tolist()
    assert [row["parameter"] for row in found["residual_structure"]] == names
    assert pd.read_csv("t.csv")["estimate"][0] == pytest.approx(expected.fixef.iloc[0])


def test_a_mixed_model_with_a_residual_structure(trial, capsys):
    formula = "y ~ arm * day + (1 | id)"
    code, out, _ = run(
        capsys, "fit", "trial.csv", formula, "--residual", "AR1(time='day 1', group=id)"
    )
    expected = mx.lmer(formula, trial, residual=mx.AR1(time="day 1", group="id"))
    assert code == 0
    assert str(expected.summary()) in out
    code, out, err = run(
        capsys, "compare", "trial.csv", "y ~ arm * day", formula, "--residual",
        "AR1(time=day, group=id)", "--ml",
    )  # fmt: skip
    assert (code, err) == (0, "")
    assert "Chisq" in out


def test_fit_without_random_terms_is_gls_where_a_structure_is_given(trial, capsys):
    code, out, _ = run(
        capsys, "fit", "trial.csv", FORMULA, "--residual", "AR1(time=day, group=id)"
    )
    assert code == 0
    assert "AR1" in out or "autoregressive" in out
    code, out, err = run(capsys, "fit", "trial.csv", FORMULA)
    assert (code, out) == (2, "")
    assert "mixlm gls" in err
    code, _, err = run(capsys, "gls", "trial.csv", "y ~ arm + (1 | id)")
    assert code == 2
    assert "mixlm fit" in err
    assert "lmer" not in err


def test_plain_gls(trial, capsys):
    code, out, _ = run(capsys, "gls", "trial.csv", "y ~ arm")
    assert code == 0
    assert str(mx.gls("y ~ arm", trial).summary()) in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--residual", "AR1(time=dya, group=id)"], "dya"),
        (["--residual", "AR1(time=day, group=arm)"], "two rows"),
        (["--variance", "VarIdent(by=zz)"], "zz"),
        (["--variance", "AR1(time=day)"], "there is no AR1"),
        (["--residual", "VarIdent(by=arm)"], "there is no VarIdent"),
        (["--engine", "blocked"], "unrecognized arguments"),
    ],
)
def test_wrong_structures_end_in_one_line(trial, capsys, arguments, words):
    code, out, err = run(capsys, "gls", "trial.csv", FORMULA, *arguments)
    assert (code, out) == (2, "")
    assert words in err
    assert "mx." not in err
    assert "Traceback" not in err


def test_saved_structures_are_not_left_out_of_draws(trial, capsys):
    run(capsys, "gls", "trial.csv", FORMULA, "-q", "--residual", "AR1(time=day, group=id)",
        "--save", "m.mixlm")  # fmt: skip
    code, out, _ = run(capsys, "simulate", "m.mixlm", "--nsim", "2", "--seed", "3", "--only")
    assert code == 0
    expected = mx.load("m.mixlm").simulate(2, seed=3)
    found = np.array([line.split(",") for line in out.splitlines()[1:]], dtype=float)
    np.testing.assert_allclose(found, expected)
    run(capsys, "gls", "trial.csv", FORMULA, "-q", "--residual", "AR1(time=day, group=id)",
        "--subset", "day > 1", "--save", "part.mixlm")  # fmt: skip
    run(capsys, "simulate", "part.mixlm", "--seed", "3", "-o", "draws.csv")
    draws = pd.read_csv("draws.csv")  # each beside its own row
    assert draws["sim_1"].isna().equals(draws["day"] == 1)
    part = mx.load("part.mixlm").simulate(1, seed=3)[:, 0]
    np.testing.assert_allclose(draws["sim_1"].dropna(), part)
    for command in (["power", "m.mixlm", "--effect", "armB"],
                    ["simulate", "m.mixlm", "--beta", "armB=2"]):  # fmt: skip
        code, out, err = run(capsys, *command)
        assert (code, out) == (2, "")
        assert "the fit has --residual" in err


# ------------------------------------------------------------------------ marginal means


@pytest.fixture
def saved(trial, capsys):
    run(capsys, "gls", "trial.csv", FORMULA, "-q", "--save", "m.mixlm", "--residual",
        "Unstructured(time=visit, group=id)")  # fmt: skip
    return mx.load("m.mixlm")


def test_means_by_visit_and_their_differences(saved, capsys):
    code, out, err = run(capsys, "emmeans", "m.mixlm", "~ arm | visit")
    assert (code, err) == (0, "")
    means = saved.emmeans("arm", by="visit")
    assert out.rstrip() == str(means)
    code, out, _ = run(capsys, "emmeans", "m.mixlm", "pairwise ~ arm | visit", "-o", "d.csv")
    assert code == 0
    pairs = means.pairs(conf_int=True)
    assert str(pairs) in out
    assert out.count("Pairwise comparisons") == 1
    np.testing.assert_allclose(pd.read_csv("d.csv")["estimate"], pairs["estimate"])
    code, out, _ = run(
        capsys, "emmeans", "m.mixlm", "visit", "--by", "arm", "--contrast", "trt.vs.ctrl", "--ref",
        "v2", "--adjust", "holm", "--format", "markdown",
    )  # fmt: skip
    assert code == 0
    expected = saved.emmeans("visit", by="arm").contrast(
        "trt.vs.ctrl", ref="v2", adjust="holm", conf_int=True
    )
    assert expected.to_markdown() in out


def test_slopes_and_values(folder, capsys, sleep):
    run(capsys, "fit", "sleep.csv", "Reaction ~ Days + (Days | Subject)", "-q", "--save", "s.mixlm")
    fit = mx.load("s.mixlm")
    _, out, _ = run(capsys, "emmeans", "s.mixlm", "Days", "--at", "Days=0,9")
    assert out.rstrip() == str(fit.emmeans("Days", at={"Days": [0, 9]}))
    _, out, _ = run(capsys, "emmeans", "s.mixlm", "~ 1", "--slope", "Days", "--format", "html")
    assert "Marginal slopes of Days" in out
    assert out.startswith("<!DOCTYPE html>")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["m.mixlm", "zz"], "there is no predictor"), (["m.mixlm", "arm", "--by", "zz"], "--by"),
        (["arm", "m.mixlm"], "the saved fit comes first"),
        (["trial.csv", "arm"], "trial.csv"), (["none.mixlm", "arm"], "none.mixlm"),
        (["m.mixlm", "arm", "--slope", "visit"], "--contrast pairwise with SPECS visit"),
        (["trial.csv", "arm"], "that --save wrote"),
        (["m.mixlm", "arm", "--at", "visit"], "--at visit: write the name"),
        (["m.mixlm", "arm", "--at", "visit=zz"], "has no level 'zz'"),
        (["m.mixlm", "arm", "--adjust", "holm"], "--adjust is for comparisons"),
        (["m.mixlm", "arm", "--contrast", "zz"], "method is 'zz'"),
        (["m.mixlm", "arm", "--contrast", "pairwise", "--adjust", "zz"], "--adjust is 'zz'"),
        (["m.mixlm", "arm", "--type", "respons"], "invalid choice"),
        (["m.mixlm", "arm", "-o", "x.doc"], "not known"), (["m.mixlm"], "required"),
    ],
)  # fmt: skip
def test_means_that_cannot_be_had(saved, capsys, arguments, words):
    code, out, err = run(capsys, "emmeans", *arguments)
    assert (code, out) == (2, "")
    assert words in err
    assert "Traceback" not in err
