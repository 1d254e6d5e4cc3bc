"""What a user of a shell types wrongly is answered in the shell's words; designs and draws."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import mixlm_sparse as mx
from mixlm_sparse.interop.cli.words import of_the_shell
from tests.interop.commands import ROOT, run
from tests.support import corpus

SLEEP = "Reaction ~ Days + (Days | Subject)"


# ------------------------------------------------------------------------ words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('stopped: raise control.max_evaluations. See mx.explain("convergence")',
         "stopped: raise --max-evaluations. See mixlm explain convergence"),
        ("different fixed parts: use refit_ml()", "different fixed parts: use --ml"),
        ("fit with reml=False", "fit with --ml"),
        ('re_form="population" is', '--re-form "population" is'),
        ("sd['g'] is 1.0: give 2", "--sd g is 1.0: give 2"),
        ("sd has 'h', but", "--sd has 'h', but"),
        ("subset: the data have no column 'z'", "--subset: the data have no column 'z'"),
        (
            "no column 'g'; re_form=\"population\" predicts without random effects",
            "no column 'g'; --population predicts without random effects",
        ),
        ("a column 'weights' is missing", "a column 'weights' is missing"),
    ],
)  # fmt: skip
def test_messages_speak_of_options(text, expected):
    assert of_the_shell(text) == expected


def test_notes_name_options(folder, capsys):
    formula = "Reaction ~ Days + (Days || Subject)"
    _, _, err = run(capsys, "fit", "sleep.csv", formula, "--max-evaluations", "2", "-q")
    assert "raise --max-evaluations" in err
    assert "mixlm explain convergence" in err
    assert "mx." not in err
    _, out, _ = run(capsys, "fit", "sleep.csv", formula, "--max-evaluations", "2")
    assert "mixlm explain convergence" in " ".join(out.split())


@pytest.mark.parametrize("form", ["text", "markdown", "latex", "html"])
def test_a_summary_names_the_command_in_every_format(folder, capsys, form):
    corpus.load_data("Dyestuff2").to_csv("d.csv", index=False)
    _, out, _ = run(capsys, "fit", "d.csv", "Yield ~ 1 + (1 | Batch)", "--format", form)
    assert "mixlm explain singular-fit" in " ".join(out.split())


def test_names_in_tables_stay(folder, capsys, sleep):
    sleep.rename(columns={"Days": "level=a"}).to_csv("n.csv", index=False)
    code, out, _ = run(capsys, "fit", "n.csv", "Reaction ~ `level=a` + (1 | Subject)")
    assert code == 0
    assert "level=a  " in out


def test_explain(folder, capsys):
    code, out, err = run(capsys, "explain", "singular-fit")
    assert (code, err) == (0, "")
    assert out.startswith("# Singular fit")
    assert run(capsys, "explain")[1].startswith("# Messages")
    code, _, err = run(capsys, "explain", "singular")
    assert code == 2
    assert "'singular-fit'" in err


# ------------------------------------------------------------------------ wrong places


@pytest.mark.parametrize("command", ["fit", "plan"])
def test_swapped_arguments_are_shown_in_order(folder, capsys, command):
    code, out, err = run(capsys, command, SLEEP, "sleep.csv")
    assert (code, out) == (2, "")
    assert f"the data come first, then the formula: mixlm {command} sleep.csv '{SLEEP}'" in err


def test_a_fit_comes_before_new_rows(folder, capsys):
    run(capsys, "fit", "sleep.csv", SLEEP, "-q", "--save", "m.mixlm")
    code, _, err = run(capsys, "predict", "sleep.csv", "m.mixlm")
    assert code == 2
    assert "mixlm predict m.mixlm sleep.csv" in err


@pytest.mark.parametrize(
    "words", [["Reaction", "~", "Days"], ["Reaction", "/root", "Days"], ["Reaction"]]
)
def test_a_formula_without_quotes(folder, capsys, words):
    code, out, err = run(capsys, "fit", "sleep.csv", *words)
    assert (code, out) == (2, "")
    assert "in quotes" in err


def test_an_unknown_option_is_no_formula(folder, capsys):
    code, _, err = run(capsys, "fit", "sleep.csv", SLEEP, "--REML")
    assert code == 2
    assert "quotes" not in err


# ------------------------------------------------------------------------ text files


@pytest.mark.parametrize(
    ("name", "sep", "decimal"),
    [("s.csv", ";", ","), ("s.txt", ";", "."), ("s.csv", "tab", ","), ("s.txt", "space", ".")],
)
def test_separators_and_decimals(folder, capsys, sleep, name, sep, decimal):
    mark = {"tab": "\t", "space": " "}.get(sep, sep)
    sleep.to_csv(name, sep=mark, decimal=decimal, index=False)
    form = ["--sep", sep, "--decimal", decimal]
    code, out, err = run(
        capsys, "fit", name, SLEEP, *form, "--tidy", "t.csv", "--save", "m.mixlm"
    )
    assert (code, err) == (0, "")
    assert "1743.6" in out
    tidy = pd.read_csv("t.csv", sep=mark, decimal=decimal)
    assert tidy["estimate"][1] == pytest.approx(10.467286)
    code, out, _ = run(capsys, "predict", "m.mixlm", name, *form)
    assert code == 0
    back = pd.read_csv(io.StringIO(out), sep=mark, decimal=decimal)
    np.testing.assert_allclose(back["Reaction"], sleep["Reaction"])
    assert back["fit"].dtype == float


def test_a_file_of_another_form_is_recognized(folder, capsys, sleep):
    sleep.to_csv("s.csv", sep=";", decimal=",", index=False)
    code, _, err = run(capsys, "fit", "s.csv", SLEEP)
    assert code == 2
    assert "add --sep ';'" in err
    code, _, err = run(capsys, "fit", "s.csv", SLEEP, "--sep", ";")
    assert code == 2
    assert "column 'Reaction' holds numbers with decimal commas: add --decimal ," in err
    code, _, err = run(capsys, "fit", "sleep.csv", SLEEP, "--sep", ";")
    assert code == 2
    assert "add --sep comma" in err
    code, _, err = run(capsys, "fit", "s.csv", SLEEP, "--decimal", ",", "--sep", ",")
    assert code == 2
    assert "cannot both be marked" in err


def test_texts_with_commas_are_texts(folder, capsys, sleep):
    sleep.assign(Subject=[f"a,{i // 10}" for i in range(180)]).to_csv("s.csv", index=False)
    assert run(capsys, "fit", "s.csv", SLEEP, "-q")[0] == 0


# ------------------------------------------------------------------------ compare


def test_models_of_different_responses_are_not_compared(folder, capsys):
    code, out, err = run(
        capsys, "compare", "sleep.csv", "Reaction ~ Days + (1 | Subject)",
        "log(Reaction) ~ Days + (1 | Subject)",
    )  # fmt: skip
    assert (code, out) == (2, "")
    assert "m1 is a model of Reaction, m2 of log(Reaction)" in err


@pytest.mark.parametrize("form", ["text", "markdown", "latex", "html"])
def test_tests_stand_below_the_table_in_every_format(folder, capsys, form):
    code, out, err = run(
        capsys, "compare", "sleep.csv", "Reaction ~ Days + (1 | Subject)", SLEEP, "--format", form,
    )  # fmt: skip
    assert (code, err) == (0, "")
    assert "42.139" in out
    assert "Chisq" in out
    assert out.count("</html>") == (form == "html")


# ------------------------------------------------------------------------ designs


@pytest.fixture
def plan(folder):
    frame = pd.DataFrame({"x": [0.0, 1.0] * 30, "g": [f"g{i // 6}" for i in range(60)]})
    frame.to_csv("plan.csv", index=False)
    return frame


DESIGN = ["plan.csv", "~ x + (1 | g)", "--beta", "x=0.8", "--sd", "g=0.5", "--seed", "1"]
TRUTH = {"beta": {"(Intercept)": 0.0, "x": 0.8}, "sd": {"g": 0.5}, "sigma": 1.0}


def test_power_of_a_design(plan, capsys):
    code, out, err = run(
        capsys, "power", *DESIGN, "--effect", "x", "--nsim", "50", "-o", "power.csv"
    )
    assert (code, err) == (0, "")
    expected = mx.power("~ x + (1 | g)", plan, TRUTH, "x", nsim=50, seed=1)
    assert str(expected) in out
    assert pd.read_csv("power.csv")["power"][0] == expected.power


def test_power_against_numbers_of_groups(plan, capsys):
    code, out, _ = run(
        capsys, "power", *DESIGN, "--effect", "x", "--nsim", "20", "--n", "5,10",
        "--format", "markdown",
    )  # fmt: skip
    assert code == 0
    expected = mx.power_curve("~ x + (1 | g)", plan, TRUTH, "x", [5, 10], nsim=20, seed=1)
    assert expected.to_markdown() in out


def test_power_and_draws_of_a_saved_fit(folder, capsys):
    frame = corpus.load_data("Dyestuff").assign(x=np.arange(30) % 2)
    frame.to_csv("d.csv", index=False)
    formula = "Yield ~ x + (1 | Batch)"
    run(capsys, "fit", "d.csv", formula, "-q", "--save", "m.mixlm")
    fit = mx.load("m.mixlm")
    code, out, _ = run(
        capsys, "power", "m.mixlm", "--effect", "x", "--beta", "x=60", "--nsim", "30", "--seed", "3"
    )
    assert code == 0
    truth = {"beta": {**fit.fixef.to_dict(), "x": 60.0}, "theta": fit.theta, "sigma": fit.sigma}
    assert str(mx.power(formula, frame, truth, "x", nsim=30, seed=3)) in out
    code, out, _ = run(capsys, "simulate", "m.mixlm", "--nsim", "2", "--seed", "4", "--only")
    assert code == 0
    drawn = pd.read_csv(io.StringIO(out))
    assert list(drawn) == ["sim_1", "sim_2"]
    np.testing.assert_allclose(drawn, fit.simulate(2, seed=4))


def test_draws_of_a_fit_have_its_weights(folder, capsys):
    frame = corpus.load_data("Dyestuff").assign(w=np.linspace(1, 100, 30), x=np.arange(30) % 3)
    frame.to_csv("d.csv", index=False)
    formula = "Yield ~ 1 + (1 | Batch)"
    run(capsys, "fit", "d.csv", formula, "-q", "--weights", "w", "--save", "m.mixlm")
    _, out, _ = run(capsys, "simulate", "m.mixlm", "--seed", "4", "--only")
    expected = mx.load("m.mixlm").simulate(1, seed=4)
    np.testing.assert_allclose(pd.read_csv(io.StringIO(out)), expected)


def test_draws_of_a_design(plan, capsys):
    code, _, err = run(capsys, "simulate", *DESIGN, "--nsim", "3", "-o", "out.csv")
    assert (code, err) == (0, "")
    drawn = pd.read_csv("out.csv")
    assert list(drawn) == ["x", "g", "sim_1", "sim_2", "sim_3"]
    expected = mx.simulate("~ x + (1 | g)", plan, **TRUTH, nsim=3, seed=1)
    np.testing.assert_allclose(drawn[["sim_1", "sim_2", "sim_3"]], expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["power", "plan.csv", "--effect", "x"], "give the formula after it"),
        (["power", "plan.csv", "~ x + (1 | g)", "--effect", "x"], "--sd: give the standard"),
        (["power", *DESIGN, "--effect", "z"], "z"),
        (["power", *DESIGN, "--effect", "x", "--along", "g"], "--along needs --n"),
        (["simulate", "plan.csv", "~ x + (1 | g)", "--sd", "g"], "--sd g: write the name"),
        (["simulate", "plan.csv", "~ x + (1 | g)", "--sd", "g=1", "--beta", "y=1"], "y"),
        (["simulate", "plan.csv", "~ x + (1 | g)", "--sd", "g=1", "-o", "x.doc"], "not known"),
        (["simulate", "~ x + (1 | g)", "plan.csv"], "the data come first"),
        (["simulate", "none.csv", "~ x + (1 | g)"], "there is no file 'none.csv'"),
    ],
)
def test_designs_that_cannot_be_used(plan, capsys, arguments, message):
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert err.startswith("mixlm: ")


# ------------------------------------------------------------------------ help


def test_help_loads_nothing_that_fits():
    code = (
        "import sys; from mixlm_sparse.interop.cli.main import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "print([m for m in ('numpy', 'scipy', 'pandas', 'numba') if m in sys.modules])"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    assert out.splitlines()[-1] == "[]"
    assert Path(mx.__file__).is_relative_to(ROOT)


def test_an_empty_argument_is_named_as_one_too_many(capsys):
    code, _, err = run(capsys, "explain", "singular-fit", "")
    assert code == 2
    assert "unrecognized arguments" in err
