"""`mixlm compare`, `predict` and `plan`."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import mixlm_sparse as mx
from mixlm_sparse.model.plan import reachable_bytes
from tests.interop.commands import run
from tests.support import corpus

SLEEP = "Reaction ~ Days + (Days | Subject)"

# ---------------------------------------------------------------------------- compare


@pytest.fixture
def saved(folder, sleep):
    mx.lmer(SLEEP, sleep).save("slopes.mixlm")
    mx.lmer("Reaction ~ Days + (1 | Subject)", sleep).save("intercepts.mixlm")
    return ["slopes.mixlm", "intercepts.mixlm"]


def test_compare_saved_fits(saved, capsys):
    code, out, err = run(capsys, "compare", *saved)
    assert (code, err) == (0, "")
    assert f"slopes: {SLEEP}" in out
    assert re.search(r"slopes +6 +1763\.9 .* 42\.139 +2 +7\.07e-10", out)
    assert "fitted again by ML" in out
    assert max(map(len, out.splitlines())) <= 100


def test_compare_formulas(folder, capsys):
    code, out, err = run(
        capsys, "compare", "sleep.csv", SLEEP, "Reaction ~ Days + (1 | Subject)", "--ml", "--stars",
        "--names", "full, simple",
    )  # fmt: skip
    assert (code, err) == (0, "")
    assert "***" in out
    assert re.search(r"^simple +4", out, re.MULTILINE)
    assert "fitted again" not in out


def test_compare_to_a_file(saved, capsys):
    code, out, _ = run(capsys, "compare", *saved, "--format", "latex", "-o", "t.tex")
    assert (code, out) == (0, "")
    assert Path("t.tex").read_text().startswith("% needs \\usepackage{booktabs}")


def test_compare_what_cannot_be_tested(saved, capsys, sleep):
    mx.lmer(SLEEP, sleep[:170]).save("short.mixlm")
    code, out, err = run(capsys, "compare", saved[0], "short.mixlm")
    assert code == 0
    assert "Observations" in out
    assert "note: no likelihood-ratio tests: models slopes and short were fitted to differ" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["slopes.mixlm"], "give two or more models"),
        (["sleep.csv", SLEEP], "give two or more models"),
        (["sleep.csv", "other.csv"], "must be formulas"),
        (["none.mixlm", "slopes.mixlm"], "there is no file 'none.mixlm'"),
        (["slopes.mixlm", "sleep.csv"], "is not a saved fit"),
        (["slopes.mixlm", "intercepts.mixlm", "--names", "a"], "give a list of 2"),
    ],
)
def test_compare_wrong_arguments(saved, capsys, arguments, message):
    code, out, err = run(capsys, "compare", *arguments)
    assert code == 2
    assert out == ""
    assert message in err


# ---------------------------------------------------------------------------- predict


def test_predict_options(saved, capsys, sleep):
    new = pd.DataFrame({"Days": [1.0, 11.0, np.nan], "Subject": ["S308", "new", "S309"]})
    new.to_csv("new.csv", index=False)
    fit = mx.load("slopes.mixlm")
    code, out, err = run(
        capsys, "predict", "slopes.mixlm", "new.csv", "-o", "p.parquet", "--interval", "prediction",
        "--level", "0.9", "--allow-new-levels", "--prefix", "p_",
    )  # fmt: skip
    assert (code, out, err) == (0, "", "")
    table = pd.read_parquet("p.parquet")
    assert list(table.columns) == ["Days", "Subject", "p_fit", "p_se", "p_lower", "p_upper"]
    expected = fit.predict(new, interval="prediction", level=0.9, allow_new_levels=True)
    np.testing.assert_allclose(table["p_upper"], expected["upper"])
    assert table["p_fit"].isna().tolist() == [False, False, True]
    for option, form in ((["--population"], "population"), (["--re-form", "~ 0"], "~ 0")):
        code, out, _ = run(capsys, "predict", "slopes.mixlm", "new.csv", "--only", *option)
        assert code == 0
        values = pd.read_csv(io.StringIO(out), skip_blank_lines=False)["fit"]
        np.testing.assert_allclose(values, fit.predict(new, form))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["slopes.mixlm", "new.csv"], "new"),
        (["sleep.csv", "new.csv"], "'sleep.csv' is not a saved fit"),
        (["slopes.mixlm", "new.csv", "-o", "x.doc"], "not known by its name"),
        (["slopes.mixlm", "fit.csv", "--population"], "a column 'fit' already"),
    ],
)
def test_predict_wrong_arguments(saved, capsys, arguments, message):
    pd.DataFrame({"Days": [11.0], "Subject": ["new"]}).to_csv("new.csv", index=False)
    pd.DataFrame({"Days": [11.0], "fit": [1.0]}).to_csv("fit.csv", index=False)
    code, out, err = run(capsys, "predict", *arguments)
    assert code == 2
    assert out == ""
    assert message in err


# ---------------------------------------------------------------------------- plan


def test_plan_says_what_would_be_built(folder, capsys):
    corpus.load_data("Penicillin").to_csv("p.csv", index=False)
    code, out, err = run(
        capsys, "plan", "p.csv", "diameter ~ 1 + (1 | plate) + (1 | sample)", "--ml"
    )
    assert (code, err) == (0, "")
    assert "maximum likelihood" in out
    assert "all 144 rows are used" in out
    assert re.search(r"plate +24 +6 to 6", out)
    assert re.search(r"sample +1 +6 +6 +1 +us", out)
    assert "30 random effects in all" in out
    assert "plate.(Intercept), sample.(Intercept)" in out
    assert "engine 'blocked'" in out
    assert re.search(r"estimate in all +[\d.]+ kB", out)
    assert max(map(len, out.splitlines())) <= 100


def test_plan_warns_and_refuses(folder, capsys):
    code, out, _ = run(capsys, "plan", "sleep.csv", "Reaction ~ Days + I(2 * Days) + (1 | Subject)")
    assert code == 0
    assert "dropped as combinations of earlier ones: I(2 * Days)" in out
    assert "mixlm explain rank-deficiency" in " ".join(out.split())
    code, _, err = run(capsys, "plan", "sleep.csv", "Reaction ~ Days + (1 | Reaction)")
    assert code == 2
    assert "180 random effects for 180 rows" in err


def test_bytes_are_counted_once():
    array = np.zeros(1000)
    assert reachable_bytes([array, array[:10], {"a": array}]) == 8000
    system = corpus.system("penicillin_reml")
    assert reachable_bytes(system.products) > 144 * 8
