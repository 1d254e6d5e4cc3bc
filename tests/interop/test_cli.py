"""The command `mixlm`, run as users run it: in another folder, by the shell's exit codes."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import mixlm_sparse as mx
from tests.interop.commands import run, shell
from tests.support import corpus

ROOT = Path(mx.__file__).parent.parent
SLEEP = "Reaction ~ Days + (Days | Subject)"

# ------------------------------------------------------------------------ processes of their own


def test_fit_writes_what_is_asked_for(folder):
    done = shell(
        "fit", "sleep.csv", SLEEP, "--reml", "--tidy", "out.csv", "--json", "out.json",
        "--plot", "out.png", "--save", "fit.mixlm", cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "REML criterion at convergence: 1743.6" in done.stdout
    tidy = pd.read_csv(folder / "out.csv")
    assert list(tidy["term"][:2]) == ["(Intercept)", "Days"]
    assert tidy["estimate"][1] == pytest.approx(10.467285959596)
    about = json.loads((folder / "out.json").read_text())
    assert about["criterion"] == pytest.approx(1743.6282719584908)
    assert about["groups"] == {"Subject": 18}
    assert about["convergence"]["converged"] is True
    assert [row["term"] for row in about["fixed"]] == ["(Intercept)", "Days"]
    assert (folder / "out.png").read_bytes().startswith(b"\x89PNG")
    assert mx.load(folder / "fit.mixlm").criterion == about["criterion"]
    assert sorted(path.name for path in folder.iterdir()) == [
        "fit.mixlm", "out.csv", "out.json", "out.png", "sleep.csv",
    ]  # fmt: skip


def test_predictions_in_a_pipe(folder):
    assert shell("fit", "sleep.csv", SLEEP, "-q", "--save", "m.mixlm", cwd=folder).stdout == ""
    new = "Days,Subject\n1,S308\n2.5,S309\n"
    done = shell("predict", "m.mixlm", "-", stdin=new, cwd=folder)
    assert done.returncode == 0, done.stderr
    table = pd.read_csv(io.StringIO(done.stdout))
    fit = mx.load(folder / "m.mixlm")
    np.testing.assert_allclose(table["fit"], fit.predict(pd.read_csv(io.StringIO(new))))
    assert list(table.columns) == ["Days", "Subject", "fit"]


def test_errors_are_one_line_on_stderr(folder):
    done = shell("fit", "sleep.csv", "Reaction ~ Dys + (1 | Subject)", cwd=folder)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == "mixlm: the data have no column 'Dys'; did you mean 'Days'?\n"
    done = shell("--traceback", "fit", "sleep.csv", "y ~ x", cwd=folder)
    assert "Traceback" in done.stderr


def test_a_reader_that_stops_early(folder):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = f'{sys.executable} -m mixlm_sparse fit sleep.csv "{SLEEP}" | head -n 1'
    done = subprocess.run(
        command, shell=True, capture_output=True, text=True, cwd=folder, env=environment,
        timeout=120, check=False,
    )  # fmt: skip
    assert done.stdout == "Linear mixed model fit by REML\n"
    assert done.stderr == ""


# ---------------------------------------------------------------------------- help


def test_help_names_the_commands(capsys):
    code, out, _ = run(capsys, "--help")
    assert code == 0
    for command in ("fit", "compare", "predict", "plan"):
        assert re.search(rf"^    {command}\s+\w+", out, re.MULTILINE)
    assert "exit codes" in out


@pytest.mark.parametrize("command", ["fit", "compare", "predict", "plan"])
def test_help_of_each_command_has_examples(capsys, command):
    code, out, _ = run(capsys, command, "--help")
    assert code == 0
    assert f"mixlm {command} " in out.split("example")[1]
    assert max(map(len, out.splitlines())) <= 100


def test_version(capsys):
    code, out, _ = run(capsys, "--version")
    assert code == 0
    assert out.startswith("mixlm_sparse ")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["sing"],
        ["fit", "sleep.csv"],
        ["fit", "sleep.csv", SLEEP, "--reml", "--ml"],
        ["fit", "sleep.csv", SLEEP, "--level", "95"],
        ["fit", "sleep.csv", SLEEP, "--max-evaluations", "0"],
        ["predict", "a", "b", "--interval", "wide"],
    ],
)
def test_wrong_usage(folder, capsys, arguments):
    code, out, err = run(capsys, *arguments)
    assert code == 2
    assert out == ""
    assert err.startswith("usage: mixlm")


# ---------------------------------------------------------------------------- input files


@pytest.mark.parametrize("name", ["s.csv", "s.csv.gz", "s.tsv", "s.parquet", "s.feather"])
def test_kinds_of_files(folder, capsys, sleep, name):
    if name.endswith("parquet"):
        sleep.to_parquet(name)
    elif name.endswith("feather"):
        sleep.to_feather(name)
    else:
        sleep.to_csv(name, index=False, sep="\t" if "tsv" in name else ",")
    output = f"out.{name.split('.', 1)[1]}"
    code, out, err = run(capsys, "fit", name, SLEEP, "--tidy", output)
    assert (code, err) == (0, "")
    assert "1743.6" in out
    if name.endswith("parquet"):
        tidy = pd.read_parquet(output)
    elif name.endswith("feather"):
        tidy = pd.read_feather(output)
    else:
        tidy = pd.read_csv(output, sep="\t" if "tsv" in name else ",")
    assert len(tidy) == 6


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.csv", None, "there is no file 'none.csv'"),
        ("a.xlsx", b"PK", "the kind of the file is not known by its name: use one of .csv"),
        ("a.csv", b"", "'a.csv' is empty: it must have a line of names"),
        ("a.csv", b'x,y\n1,"2\n', "'a.csv' cannot be read as .csv"),
        ("a.csv", b"x,y\n\xff\xfe,1\n", "'a.csv' cannot be read as .csv"),
        ("a.parquet", b"not parquet", "'a.parquet' cannot be read as .parquet"),
        ("a.feather", b"not feather", "'a.feather' cannot be read as .feather"),
        ("a.csv", b"Days,Subject\n1,2\n", "the data have no column 'Reaction'"),
    ],
)
def test_files_that_cannot_be_used(folder, capsys, name, content, message):
    if content is not None:
        Path(name).write_bytes(content)
    code, out, err = run(capsys, "fit", name, SLEEP)
    assert code == 2
    assert out == ""
    assert message in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([SLEEP, "--tidy", "none/out.csv"], "'none/out.csv' cannot be written: there is no folder"),
        ([SLEEP, "--tidy", "out.xlsx"], "not known by its name"),
        ([SLEEP, "--plot", "out.bmp"], "--plot out.bmp: use one of .png"),
        ([SLEEP, "--save", "."], "it is a folder"),
        ([SLEEP, "--factor", "Nobody"], "--factor Nobody: the data have no such column"),
        ([SLEEP, "--contrasts", "Subject"], "write the factor, '=' and the name"),
        ([SLEEP, "--weights", "w"], "weights: the data have no column 'w'"),
        (["Reaction ~ Days"], "has no random term"),
        (["Reaction ~ (1 | Subject"], "mixlm: "),
        (["Reaction ~ __import__('os') + (1 | Subject)"], "mixlm: "),
    ],
)
def test_arguments_that_cannot_be_used(folder, capsys, arguments, message):
    code, out, err = run(capsys, "fit", "sleep.csv", *arguments)
    assert code == 2
    assert out == ""
    assert message in err
    assert "Traceback" not in err
    assert sorted(path.name for path in folder.iterdir()) == ["sleep.csv"]


# ---------------------------------------------------------------------------- fit


def test_options_of_the_model(folder, capsys, sleep):
    frame = sleep.assign(year=np.arange(180) % 3, w=np.linspace(1, 2, 180), o=1.0)
    frame.to_csv("more.csv", index=False)
    formula = "Reaction ~ year + (1 | Subject)"
    code, _, err = run(
        capsys, "fit", "more.csv", formula, "--ml", "--factor", "year", "--weights", "w",
        "--offset", "o", "--subset", "Days > 1", "--contrasts", "year=sum", "--optimizer", "bobyqa",
        "--engine", "sparse", "-q", "--json", "out.json", "--tidy", "out.csv", "--random-effects",
    )  # fmt: skip
    assert (code, err) == (0, "")
    about = json.loads(Path("out.json").read_text())
    expected = mx.lmer(
        formula, frame.assign(year=pd.Categorical(frame["year"])), reml=False, weights="w",
        offset="o", subset="Days > 1", contrasts={"year": "sum"},
    )  # fmt: skip
    assert about["criterion"] == pytest.approx(expected.criterion, abs=1e-6)
    assert about["method"] == "ML"
    assert [row["term"] for row in about["fixed"]] == list(expected.fixef.index)
    assert about["convergence"]["optimizer"] == "bobyqa"
    assert about["convergence"]["engine"] == "sparse"
    assert (pd.read_csv("out.csv")["effect"] == "ran_vals").sum() == 18


@pytest.mark.parametrize("name", ["markdown", "latex", "html"])
def test_formats_of_the_summary(folder, capsys, name):
    code, out, _ = run(capsys, "fit", "sleep.csv", SLEEP, "--format", name)
    assert code == 0
    sign = {"markdown": "| (Intercept)", "latex": r"\begin{tabular}", "html": "<table>"}[name]
    assert sign in out
    if name == "html":
        assert out.startswith("<!DOCTYPE html>")
        assert '<meta charset="utf-8">' in out


def test_json_and_table_to_standard_output(folder, capsys):
    code, out, _ = run(capsys, "fit", "sleep.csv", SLEEP, "-q", "--json", "-")
    assert code == 0
    assert json.loads(out)["nobs"] == 180
    code, out, _ = run(capsys, "fit", "sleep.csv", SLEEP, "-q", "--tidy", "-")
    assert code == 0
    assert out.startswith("effect,group,term,estimate")


def test_a_fit_that_does_not_converge(folder, capsys):
    uneven = "Reaction ~ Days + (Days || Subject)"
    arguments = ["fit", "sleep.csv", uneven, "--max-evaluations", "2"]
    code, out, _ = run(capsys, *arguments)
    assert code == 1
    assert "evaluation limit" in out
    code, out, err = run(capsys, *arguments, "-q")
    assert code == 1
    assert out == ""
    assert err.startswith("note: evaluation limit")


def test_a_perfect_fit_is_a_problem(folder, capsys, sleep):
    sleep.assign(Reaction=2.0 * sleep["Days"]).to_csv("exact.csv", index=False)
    code, out, _ = run(capsys, "fit", "exact.csv", "Reaction ~ Days + (1 | Subject)",
                       "--json", "out.json")  # fmt: skip
    assert code == 1
    assert "perfect fit" in out
    about = json.loads(Path("out.json").read_text())
    assert about["criterion"] is None
    assert about["sigma"] == 0


def test_a_singular_fit_is_a_result(folder, capsys):
    corpus.load_data("Dyestuff2").to_csv("d.csv", index=False)
    code, out, err = run(capsys, "fit", "d.csv", "Yield ~ 1 + (1 | Batch)")
    assert (code, err) == (0, "")
    assert "mixlm explain singular-fit" in " ".join(out.split())


def test_quiet_keeps_the_notes(folder, capsys):
    corpus.load_data("Dyestuff2").to_csv("d.csv", index=False)
    code, out, err = run(capsys, "fit", "d.csv", "Yield ~ 1 + (1 | Batch)", "-q")
    assert (code, out) == (0, "")
    assert err.startswith("note: boundary (singular) fit")
    assert run(capsys, "fit", "sleep.csv", SLEEP, "-q")[1:] == ("", "")


def test_formula_warnings_are_notes(folder, capsys, sleep):
    sleep.assign(half=np.where(sleep["Days"] < 5, "a", "b")).to_csv("h.csv", index=False)
    code, _, err = run(capsys, "fit", "h.csv", "Reaction ~ half + (half || Subject)", "-q")
    assert code == 1  # the intercepts' variance is one of those that the factor has already
    assert "note: '||' does not split" in err
    assert "the data do not determine" in err
    assert err.count("\n") == err.count("note: ")


def test_plots(folder, capsys):
    for kind, name in (("caterpillar", "c.pdf"), ("qq", "q.svg")):
        code, _, err = run(capsys, "fit", "sleep.csv", SLEEP, "-q", "--plot", name,
                           "--plot-kind", kind)  # fmt: skip
        assert (code, err) == (0, "")
        assert Path(name).stat().st_size > 1000
    code, _, err = run(capsys, "fit", "sleep.csv", SLEEP, "-q", "--plot", "x.png",
                       "--plot-kind", "pie")  # fmt: skip
    assert code == 2
    assert "caterpillar" in err
    assert not Path("x.png").exists()


def test_files_without_data(folder, capsys):
    code, _, _ = run(capsys, "fit", "sleep.csv", SLEEP, "-q", "--save", "m.mixlm", "--without-data")
    assert code == 0
    with pytest.raises(mx.SavedFitError):
        _ = mx.load("m.mixlm").resid
    code, out, _ = run(capsys, "predict", "m.mixlm", "sleep.csv", "--only")
    assert code == 0
    assert len(out.splitlines()) == 181


def test_surprises_are_reported_without_a_traceback(folder, capsys, monkeypatch):
    from mixlm_sparse.interop.cli import work

    def broken(*_, **__):
        raise RuntimeError("lost a bit")

    monkeypatch.setattr(work, "lmer", broken)
    code, _, err = run(capsys, "fit", "sleep.csv", SLEEP)
    assert code == 1
    assert err.startswith("mixlm: unexpected RuntimeError: lost a bit")

    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(work, "lmer", stopped)
    code, _, err = run(capsys, "fit", "sleep.csv", SLEEP)
    assert code == 130
    assert err == "mixlm: interrupted\n"
