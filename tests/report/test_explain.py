"""What messages name can be read where the package is installed, without the documentation."""

from __future__ import annotations

import ast
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import mixlm_sparse as mx
from tests.support.wheel import built

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "mixlm_sparse"


def pages_named() -> set[str]:
    """The pages that the sources name: see("page") at the end of a message."""
    calls = (
        node
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "see"
    )
    found = set()
    for call in calls:
        found |= {n.value for n in ast.walk(call.args[0]) if isinstance(n, ast.Constant)}
    return found


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> zipfile.ZipFile:
    return zipfile.ZipFile(built(tmp_path_factory.mktemp("wheel")))


def test_every_page_that_a_message_names_is_in_the_wheel(wheel, tmp_path):
    named = pages_named()
    assert {"singular-fit", "convergence", "double-bar"} <= named
    held = {Path(n).stem for n in wheel.namelist() if n.startswith("mixlm_sparse/messages/")}
    assert named <= held
    assert held == {page.stem for page in (ROOT / "docs" / "messages").glob("*.md")}
    wheel.extractall(tmp_path)
    code = "import mixlm_sparse as mx; print(mx.explain('singular-fit'), mx.__file__)"
    out = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True, text=True
    ).stdout
    assert out.startswith("# Singular fit")
    assert str(tmp_path) in out


def test_no_message_names_a_file_of_the_documentation():
    for path in PACKAGE.rglob("*.py"):
        assert "See docs/" not in path.read_text(encoding="utf-8"), path


def test_a_page_reads_as_text():
    page = mx.explain("singular-fit")
    shown = str(page)
    assert shown == repr(page)
    assert shown.startswith("# Singular fit")
    assert "```" not in shown
    assert "](" not in shown
    assert '        "Yield ~ 1 + (1 | Batch)",' in shown
    assert "```python" in page._repr_markdown_()


def test_without_a_name_the_list_of_messages():
    shown = str(mx.explain())
    assert "toctree" not in shown
    assert "SingularFitWarning" in shown


def test_a_warning_an_error_and_a_fit_are_explained():
    with pytest.warns(mx.SingularFitWarning) as caught:
        fit = mx.lmer("Yield ~ 1 + (1 | Batch)", mx.datasets.load("Dyestuff2"))
    page = mx.explain("singular-fit")
    assert mx.explain(caught[0].message) == page
    assert mx.explain(str(caught[0].message)) == page
    assert mx.explain(fit) == page
    quiet = mx.lmer("Yield ~ 1 + (1 | Batch)", mx.datasets.load("Dyestuff"))
    assert str(mx.explain(quiet)) == "This fit has no messages."


@pytest.mark.parametrize("about", ["singular fit", "singularfit", 5, "", ["few-levels"], "../x"])
def test_what_has_no_page_is_answered_with_the_names(about):
    with pytest.raises(mx.OptionError, match="'singular-fit'"):
        mx.explain(about)


@pytest.mark.parametrize("page", sorted(p.stem for p in (ROOT / "docs/messages").glob("*.md")))
def test_pages_fit_a_terminal(page):
    text = str(mx.explain(None if page == "index" else page))
    assert max(map(len, text.splitlines())) <= 80
    assert "\\|" not in text
