"""Plots where people look at them: notebooks with pictures or widgets, IPython, plain scripts."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("matplotlib")
nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

ROOT = Path(__file__).parent.parent.parent
SETUP = """\
import mixlm_sparse as mx
sleepstudy = mx.datasets.load("sleepstudy")
fit = mx.lmer("Reaction ~ Days + (Days | Subject)", sleepstudy)"""


def outputs(*cells: str) -> list[list[dict]]:
    """Run a notebook in a kernel of its own; return what each cell shows."""
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    client = nbclient.NotebookClient(
        book, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(ROOT)}}
    )
    environment = {k: v for k, v in os.environ.items() if k != "MPLBACKEND"}
    client.execute(env={**environment, "OPENBLAS_NUM_THREADS": "1"})
    return [[dict(o) for o in cell.outputs if o.output_type != "stream"] for cell in book.cells]


def pictures(cell: list[dict]) -> int:
    return sum("image/png" in output["data"] for output in cell)


def widths(cell: list[dict]) -> list[int]:
    return [
        output["metadata"].get("image/png", {}).get("width", 0)
        for output in cell
        if "image/png" in output["data"]
    ]


def text(cell: list[dict]) -> str:
    return "".join(output["data"].get("text/plain", "") for output in cell)


@pytest.mark.filterwarnings("ignore")  # of the packages that run notebooks
def test_a_notebook_shows_each_plot_once():
    _, first, kept, again, own, state, two, given, called, saved, default, last, settings = outputs(
        SETUP,
        "fit.plot.qq()",
        "figure = fit.plot.qq()",
        "figure",
        "import matplotlib, matplotlib.pyplot as plt\n_ = plt.plot([1, 2])",
        "matplotlib.is_interactive(), matplotlib.get_backend()",
        "fit.plot.qq()\nfit.plot.diagnostics()",
        "_, axes = plt.subplots(1, 2)\nfit.plot.qq(ax=axes[0])\nfit.plot.residuals(ax=axes[1])",
        "from IPython.display import display\ndisplay(fit.plot.qq())",
        "fit.plot.qq().savefig('/dev/null', format='png')",
        "fit.plot()",
        "_ = plt.plot([1, 2])",
        "{k: v for k, v in matplotlib.rcParams.items() if v != matplotlib.rcParamsDefault[k]}",
    )
    for cell in (first, kept, again, own, given, called, saved, default, last):
        assert pictures(cell) == 1
        assert len(cell) == 1
    assert pictures(two) == 2
    small, large = widths(two)
    assert 0 < small < large  # in the order in which they were drawn
    assert "inline" in text(state)
    assert "True" in text(state)
    assert "facecolor" not in text(settings)
    assert "font.size" not in text(settings)


@pytest.mark.filterwarnings("ignore")
def test_a_notebook_of_widgets_shows_each_plot_once():
    if importlib.util.find_spec("ipympl") is None:  # importing it would change the backend here
        pytest.skip("ipympl is missing")
    _, _, first, kept, again, given, state = outputs(
        "%matplotlib widget",
        SETUP,
        "fit.plot.qq()",
        "figure = fit.plot.qq()",
        "figure",
        "import matplotlib.pyplot as plt\n_, ax = plt.subplots()\nfit.plot.qq(ax=ax)",
        "plt.isinteractive()",
    )
    for cell in (first, kept, again, given):
        assert len(cell) == 1
        assert "application/vnd.jupyter.widget-view+json" in cell[0]["data"]
    assert text(state) == "True"


@pytest.mark.filterwarnings("ignore")
def test_a_notebook_without_a_front_end_of_matplotlib_shows_the_last_plot():
    _, _, shown = outputs("import matplotlib\nmatplotlib.use('agg')", SETUP, "fit.plot.qq()")
    assert pictures(shown) == 1
    assert len(shown) == 1


def run(*command: str) -> str:
    environment = {**os.environ, "MPLBACKEND": "agg", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, cwd=ROOT, env=environment,
        check=False,
    )  # fmt: skip
    assert not done.returncode, done.stderr
    return done.stdout


def test_a_script_keeps_its_figures_open_and_its_settings():
    code = SETUP + (
        "\nimport matplotlib, matplotlib.pyplot as plt"
        "\nbefore = dict(matplotlib.rcParams), plt.isinteractive()"
        "\nfit.plot.qq(); fit.plot.residuals()"
        "\nassert (dict(matplotlib.rcParams), plt.isinteractive()) == before"
        "\nprint(plt.get_fignums(), {plt.figure(n).dpi for n in plt.get_fignums()})"
    )
    assert run("-c", code).strip() == "[1, 2] {150.0}"


def test_ipython_prints_the_figure_once():
    pytest.importorskip("IPython")
    code = SETUP + "\nfit.plot.qq()"
    assert run("-m", "IPython", "--no-banner", "--colors=nocolor", "-c", code).count("Figure") == 1


@pytest.mark.filterwarnings("ignore")
def test_a_line_that_is_taken_away_leaves_nothing_in_a_notebook():
    (cell,) = outputs(
        "from mixlm_sparse.common.progress import saying\nwith saying('compiling'):\n    pass"
    )
    assert text(cell) == ""
