"""The first hour of a new user: install, a notebook, five analyses, export, save, reload."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.wheel import installed

pytest.importorskip("matplotlib")
nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

FIRST = [
    # what is installed is used, not the sources
    "import mixlm_sparse as mx\nmx.__file__",
    "mx.datasets.names()",
    # 1: a line for each person
    'sleep = mx.datasets.load("sleepstudy")\nsleep.head(3)',
    'fit = mx.lmer("Reaction ~ Days + (Days | Subject)", sleep)\nfit.summary()',
    "fit.plot.trellis()",
    "fit.plot.diagnostics()",
    "fit.confint()",
    "fit.rank(effect='Days').head(3)",
    # 2: crossed factors, and a question of the variances
    'assays = mx.datasets.load("Penicillin")\n'
    'plates = mx.lmer("diameter ~ 1 + (1 | plate) + (1 | sample)", assays)\nplates.ranova()',
    "plates.icc()",
    # 3: schools, two models
    'hsb = mx.datasets.load("HSB")\n'
    'small = mx.lmer("mathach ~ cses + (cses | school)", hsb)\n'
    'large = small.update(". ~ . + meanses + sector + sector:cses")\n'
    "mx.anova(small, large)",
    "large.emmeans('pairwise ~ sector')",
    "large.plot.predictions('cses', at={'sector': 'levels'})",
    # 4: a clinical trial
    'trial = mx.gls(\n    "FEV1 ~ RACE + SEX + ARMCD * AVISIT", mx.datasets.load("fev_data"),\n'
    '    residual=mx.Unstructured(time="AVISIT", group="USUBJID"),\n'
    '    variance=mx.VarIdent(by="AVISIT"),\n)\n'
    "trial.anova()",
    "trial.emmeans('ARMCD | AVISIT').contrast('trt.vs.ctrl')",
    # 5: the next study
    'mx.power("Reaction ~ Days + (Days | Subject)", sleep, fit, "Days", nsim=50, seed=1)',
    # a warning, and what it means
    'flat = mx.lmer("Yield ~ 1 + (1 | Batch)", mx.datasets.load("Dyestuff2"),\n'
    "               control=mx.Control(warn=False))\nmx.explain(flat)",
    # export and save
    'fit.tidy(["fixed", "ran_pars"], conf_int=True).to_csv("estimates.csv", index=False)\n'
    'open("table.tex", "w").write(mx.compare_table(small, large, format="latex")) > 0',
    'fit.plot.caterpillar().savefig("effects.pdf")',
    'fit.save("sleep.mixlm")\nlarge.save("schools.mixlm")\ntrial.save("trial.mixlm")',
]
SECOND = [
    'import mixlm_sparse as mx\nfit = mx.load("sleep.mixlm")\nfit.summary()',
    'fit.predict({"Days": [10], "Subject": ["308"]}).round(2).tolist()',
    'mx.load("schools.mixlm").emmeans("sector").pairs()',
    'mx.load("trial.mixlm").emmeans("ARMCD | AVISIT").contrast("trt.vs.ctrl")',
]


WIDGET = "application/vnd.jupyter.widget-view+json"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("hour")


@pytest.fixture(scope="module")
def shown(folder) -> dict[str, dict]:
    """What each cell shows, by its last line; two kernels, one after the other."""
    site = installed(folder)
    path = os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])
    environment = {k: v for k, v in os.environ.items() if k != "MPLBACKEND"}
    out = {}
    for cells in (FIRST, SECOND):
        book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
        client = nbclient.NotebookClient(
            book, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
        )
        client.execute(env={**environment, "PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1"})
        for source, cell in zip(cells, book.cells, strict=True):
            streams = [o["text"] for o in cell.outputs if o.output_type == "stream"]
            assert not streams, (source, streams)  # no warnings, nothing that was not asked for
            shows = [o["data"] for o in cell.outputs if "data" in o and WIDGET not in o["data"]]
            assert len(shows) <= 1, source  # beside bars, which long work has on a slow machine
            out[source.splitlines()[-1]] = shows[-1] if shows else {}
    return out


pytestmark = pytest.mark.filterwarnings("ignore")  # of the packages that run notebooks


def test_the_wheel_is_what_runs(shown, folder):
    assert str(folder) in shown["mx.__file__"]["text/plain"]


@pytest.mark.parametrize(
    "cell",
    ["fit.plot.trellis()", "fit.plot.diagnostics()",
     "large.plot.predictions('cses', at={'sector': 'levels'})"],
)  # fmt: skip
def test_pictures_are_shown(shown, cell):
    assert "image/png" in shown[cell]


@pytest.mark.parametrize(
    ("cell", "parts"),
    [
        ("fit.confint()", ["sigma", "22.8"]),
        ("plates.ranova()", ["plate", "sample"]),
        ("mx.anova(small, large)", ["Chisq", "meanses"]),
        ("large.emmeans('pairwise ~ sector')", ["Public", "Catholic"]),
        ("trial.anova()", ["31.666", "142.10"]),
        ("trial.emmeans('ARMCD | AVISIT').contrast('trt.vs.ctrl')", ["3.774", "4.398"]),
        ("fit.rank(effect='Days').head(3)", ["308"]),
    ],
)
def test_results_are_tables_with_their_figures(shown, cell, parts):
    html = shown[cell]["text/html"]
    assert "<table" in html
    for part in parts:
        assert part in html


def test_the_summary_and_a_page_on_a_message_are_rich(shown):
    assert "1743.6" in shown["fit.summary()"]["text/html"]
    assert "# Singular fit" in shown["mx.explain(flat)"]["text/markdown"]


def test_what_was_exported_is_there(shown, folder):
    assert (folder / "estimates.csv").read_text().startswith("effect,group,term,estimate")
    assert r"\begin{tabular}" in (folder / "table.tex").read_text()
    assert (folder / "effects.pdf").read_bytes().startswith(b"%PDF")


def test_a_saved_fit_is_the_fit(shown):
    predicted = 'fit.predict({"Days": [10], "Subject": ["308"]}).round(2).tolist()'
    assert shown[predicted]["text/plain"] == "[450.33]"
    assert "Catholic" in shown['mx.load("schools.mixlm").emmeans("sector").pairs()']["text/html"]
    trial = shown['mx.load("trial.mixlm").emmeans("ARMCD | AVISIT").contrast("trt.vs.ctrl")']
    assert "3.7744" in trial["text/html"]
    assert "4.3985" in trial["text/html"]
