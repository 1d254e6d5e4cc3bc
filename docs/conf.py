"""Settings of the documentation's site; `make docs` builds it, without a network."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import mixlm_sparse  # noqa: E402

project = "mixlm_sparse"
author = "mixlm_sparse developers"
copyright = author
version = release = mixlm_sparse.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "numpydoc"]
autosummary_generate = True  # a page for each object that api.md names
templates_path = ["_templates"]
myst_enable_extensions = ["dollarmath", "fieldlist", "deflist"]
myst_heading_anchors = 3
exclude_patterns = ["_build", "_templates", "figures"]
html_theme = "furo"
html_title = f"mixlm_sparse {release}"
html_static_path = ["static"]
html_css_files = ["formulas.css", "results.css"]
html_math_renderer = "mathml"
html_show_sphinx = False
highlight_language = "python"

autodoc_typehints = "none"
autodoc_member_order = "bysource"
numpydoc_show_class_members = False
numpydoc_xref_param_type = False

SECTION_TITLE = re.compile(r"^-{3,}\s*$")
ENTRY = re.compile(r"^(?P<names>\*{0,2}\w[\w, *]*?) : (?P<text>.*)$")
NAMED_SECTIONS = {"Parameters", "Other Parameters", "Attributes"}


def prepare_docstring(
    app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]
) -> None:
    """Bring the docstrings' short form to what numpydoc shows well.

    `theta : (m,) start.` has the whole text after the colon: it is moved to the description, where
    numpydoc would print its first line as a type.  Bars, stars and trailing underscores belong to
    names and to mathematics; they are no markup.
    """
    section = ""
    out: list[str] = []
    for i, line in enumerate(lines):
        if i + 1 < len(lines) and SECTION_TITLE.match(lines[i + 1]):
            section = line.strip()
        entry = ENTRY.match(line) if section in NAMED_SECTIONS else None
        plain = section != "Examples" and not line.startswith("    ") and "`" not in line
        if entry is not None:
            text = entry["text"] if "`" in entry["text"] else _escaped(entry["text"])
            out += [entry["names"], f"    {text}"]
        elif section in NAMED_SECTIONS and line.startswith("    ") and "`" not in line:
            out.append(_escaped(line))
        else:
            out.append(_escaped(line) if plain else line)
    lines[:] = out


def _escaped(text: str) -> str:
    text = re.sub(r"(?<!\\)([|*])", r"\\\1", text)
    return re.sub(r"(?<=\w)_(?=\W|$)", r"\_", text)


def mathml(self: Any, node: Any, *, display: bool) -> str:
    """Return a formula as MathML, which browsers draw without a script or a network."""
    from latex2mathml.converter import convert

    return str(convert(node.astext(), display="block" if display else "inline"))


def visit_inline_math(self: Any, node: Any) -> None:
    from docutils import nodes

    self.body.append(mathml(self, node, display=False))
    raise nodes.SkipNode


def visit_display_math(self: Any, node: Any) -> None:
    from docutils import nodes

    self.body.append(f'<div class="formula">{mathml(self, node, display=True)}</div>')
    raise nodes.SkipNode


def setup(app: Any) -> dict[str, bool]:
    """Register the two hooks."""
    app.connect("autodoc-process-docstring", prepare_docstring, priority=100)
    app.add_html_math_renderer("mathml", (visit_inline_math, None), (visit_display_math, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
