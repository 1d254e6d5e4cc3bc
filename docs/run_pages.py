"""Run the blocks of the documentation, page by page.

    python docs/run_pages.py                       # every page; ends at the first that fails
    python docs/run_pages.py docs/quickstart.md    # one page
    python docs/run_pages.py --update              # write the printed output into the pages
    python docs/run_pages.py --figures             # draw the pictures into docs/figures

The blocks of a page run from top to bottom in one namespace, in an empty working folder, as where a
reader copies them to, with warnings as errors.  A block is

* a fence marked `python`: what it prints is compared with a fence marked `text` that follows it,
  where there is one; `...` in the text stands for anything;
* a fence marked `python` that begins with `>>>`: a doctest, compared exactly;
* a fence marked `sh` whose first command is `mixlm`: run by the shell with this copy of the
  package, its output and errors compared in the same way.

A line `![...](figures/NAME.png)` after a block stands for the figure that the block left current;
`--figures` draws it.  A fence marked `{raw} html` with the line `:file: figures/NAME.html` stands
for what a notebook shows of the block's variable `result`; `--figures` writes it.  A picture in
static/, as `![...](static/NAME.svg)`, is kept beside the pages for readers of the sources, and
`--update` draws it.
"""

from __future__ import annotations

import argparse
import contextlib
import doctest
import io
import os
import re
import subprocess
import sys
import tempfile
import warnings
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
DPI = 150  # of pictures
IMAGE = re.compile(r"!\[[^\]]*\]\((?:\.\./|docs/)*(figures/[\w-]+\.png|static/[\w-]+\.svg)\)")
HTML = re.compile(r"^:file: (figures/[\w-]+\.html)$")


class OutputError(AssertionError):
    """A block printed something other than the page says."""


@dataclass(frozen=True)
class Block:
    """One fence that is run: its language, source, first line's number, and what follows it.

    `expected` is the text of the output fence, which starts at line `expected_line`; None if the
    page shows no output.  `figure` and `html` are the files of a picture and of a result in HTML.
    """

    language: str
    source: str
    line: int
    expected: str | None
    expected_line: int
    figure: str | None
    html: str | None


def pages() -> list[Path]:
    """Return README.md and every page of docs/, in order of their names."""
    found = [p for p in DOCS.rglob("*.md") if "_build" not in p.parts]
    return [ROOT / "README.md", *sorted(found)]


def blocks(page: Path) -> list[Block]:
    """Return the blocks of a page that are run, in order."""
    lines = page.read_text(encoding="utf-8").splitlines()
    fences = _fences(lines)
    found = []
    for i, (kind, first, last) in enumerate(fences):
        if kind != "python" and not (kind == "sh" and lines[first].startswith("mixlm ")):
            continue
        stop = fences[i + 1][1] - 1 if i + 1 < len(fences) else len(lines)
        between = lines[last + 1 : stop]
        expected = None
        if i + 1 < len(fences) and fences[i + 1][0] == "text" and not any(map(str.strip, between)):
            expected = "\n".join(lines[fences[i + 1][1] : fences[i + 1][2]])
            after = fences[i + 1][2] + 1
            stop = fences[i + 2][1] - 1 if i + 2 < len(fences) else len(lines)
            between = lines[after:stop]
        image = next(filter(None, map(IMAGE.search, between)), None)
        follows = i + (2 if expected is not None else 1)
        html = _html_after(lines, fences[follows]) if follows < len(fences) else None
        found.append(
            Block(
                language=kind,
                source="\n".join(lines[first:last]),
                line=first,
                expected=expected,
                expected_line=fences[i + 1][1] if expected is not None else -1,
                figure=None if image is None else image.group(1),
                html=html,
            )
        )
    return found


def _html_after(lines: list[str], fence: tuple[str, int, int]) -> str | None:
    """Return the file that a fence takes HTML from; None if it is of another kind."""
    mark, first, _ = fence
    found = HTML.match(lines[first]) if mark == "{raw} html" else None
    return None if found is None else found.group(1)


def _fences(lines: list[str]) -> list[tuple[str, int, int]]:
    """Return (mark, first line, line after the last) of every fence."""
    found = []
    start, mark, ticks = -1, "", ""
    for i, line in enumerate(lines):
        opening = re.match(r"(`{3,})(.*)$", line)
        if start < 0 and opening:
            start, ticks, mark = i + 1, opening.group(1), opening.group(2).strip()
        elif start >= 0 and line.strip() == ticks:
            found.append((mark, start, i))
            start = -1
    return found


def run(page: Path, *, update: bool = False, figures: bool = False) -> None:
    """Run the blocks of one page.

    Raises
    ------
    OutputError : a block printed something other than the page says.
    """
    namespace: dict[str, Any] = {"__name__": "__main__"}
    outputs: list[tuple[Block, str]] = []
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("error")
        os.chdir(folder)
        try:
            for block in blocks(page):
                printed = _run_block(page, block, namespace)
                if block.expected is not None:
                    outputs.append((block, printed))
                    if not update and not agrees(printed, block.expected):
                        raise OutputError(
                            f"{page}:{block.line}: the block prints\n{printed}\n"
                            f"where the page says\n{block.expected}"
                        )
                if block.figure is not None and (update if _kept(block.figure) else figures):
                    _save_current_figure(DOCS / block.figure)
                if block.html is not None and figures:
                    _save_html(namespace["result"], DOCS / block.html)
        finally:
            os.chdir(before)
            if "matplotlib.pyplot" in sys.modules:
                sys.modules["matplotlib.pyplot"].close("all")
    if update:
        _write(page, outputs)


def _run_block(page: Path, block: Block, namespace: dict[str, Any]) -> str:
    if block.language == "sh":
        return _run_commands(page, block)
    if block.source.lstrip().startswith(">>>"):
        test = doctest.DocTestParser().get_doctest(
            block.source, namespace, page.name, str(page), block.line
        )
        report = io.StringIO()
        runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
        runner.run(test, out=report.write, clear_globs=False)
        if runner.failures:
            raise OutputError(report.getvalue())
        namespace.update(test.globs)
        return ""
    # blank lines before the source, so that a traceback names the line of the page
    code = compile("\n" * block.line + block.source, str(page), "exec")
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(code, namespace)
    return "\n".join(line.rstrip() for line in printed.getvalue().rstrip().splitlines())


def _run_commands(page: Path, block: Block) -> str:
    """Run commands in the shell, and return what they print."""
    defined = f'mixlm() {{ "{sys.executable}" -m mixlm_sparse "$@"; }}\nset -e\n'
    environment = {
        **os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "80", "PYTHONWARNINGS": "error",
    }  # fmt: skip
    done = subprocess.run(
        ["bash", "-c", defined + block.source],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, check=False,
    )  # fmt: skip
    if done.returncode not in (0, 2):  # 2 is a usage that the page shows to be wrong
        raise OutputError(f"{page}:{block.line}: exit code {done.returncode}\n{done.stdout}")
    return "\n".join(line.rstrip() for line in done.stdout.rstrip().splitlines())


def agrees(printed: str, expected: str) -> bool:
    """Say whether `printed` is what the page shows; `...` in the page stands for anything."""
    wanted = "\n".join(line.rstrip() for line in expected.rstrip().splitlines())
    pattern = ".*?".join(re.escape(part) for part in wanted.split("..."))
    return re.fullmatch(pattern, printed, flags=re.DOTALL) is not None


def _kept(figure: str) -> bool:
    return figure.startswith("static/")


def _save_current_figure(path: Path) -> None:
    from matplotlib import pyplot

    path.parent.mkdir(exist_ok=True)
    # text as text and no date: a small file, the same in every run
    with pyplot.rc_context({"svg.fonttype": "none", "svg.hashsalt": path.stem}):
        metadata = {"Date": None} if path.suffix == ".svg" else None
        pyplot.gcf().savefig(path, dpi=DPI, bbox_inches="tight", metadata=metadata)
    pyplot.close("all")


def _save_html(result: Any, path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    if isinstance(result, str) and result.startswith("<"):
        text = result
    elif hasattr(result, "_repr_html_"):
        text = result._repr_html_()
    else:  # a notebook shows the text
        text = f"<pre>{escape(repr(result))}</pre>"
    path.write_text(text, encoding="utf-8")


def _write(page: Path, outputs: list[tuple[Block, str]]) -> None:
    lines = page.read_text(encoding="utf-8").splitlines()
    for block, printed in reversed(outputs):
        expected = block.expected or ""
        if not agrees(printed, expected):
            first = block.expected_line
            lines[first : first + len(expected.splitlines())] = printed.splitlines()
    page.write_text("\n".join(lines) + "\n", encoding="utf-8")


def main() -> None:
    """Run the pages named on the command line, or all."""
    parser = argparse.ArgumentParser(description="Run the Python blocks of the documentation.")
    parser.add_argument("pages", nargs="*", type=Path, help="pages to run; by default all")
    parser.add_argument("--update", action="store_true", help="write outputs into the pages")
    parser.add_argument("--figures", action="store_true", help="draw figures into docs/figures")
    options = parser.parse_args()
    os.environ.setdefault("MPLBACKEND", "Agg")
    sys.path.insert(0, str(ROOT))
    for page in options.pages or pages():
        if not blocks(page.resolve()):
            continue
        print(page, flush=True)
        run(
            page.resolve(),
            update=options.update,
            figures=options.figures,
        )


if __name__ == "__main__":
    main()
