"""The documentation runs: its code blocks, the output it shows, its links and the names it uses."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

import mixlm_sparse as mx
from tests.support.other_tools import needed

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"


def _load_runner() -> ModuleType:
    spec = importlib.util.spec_from_file_location("run_pages", DOCS / "run_pages.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["run_pages"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


# what a light installation may lack, and how a block uses it
NEEDED = {
    name: rf"\b(import|from) {name}\b"
    for name in ("dask", "duckdb", "marginaleffects", "polars", "pyarrow", "sklearn")
}
NEEDED |= {"matplotlib": r"\.plot\b|matplotlib", "xarray": r"\.to_xarray\("}

runner = _load_runner()
PAGES = runner.pages()


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", [p for p in PAGES if runner.blocks(p)], ids=name_of)
def test_blocks_run(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every block runs, without warnings, and prints what the page shows."""
    for name, use in NEEDED.items():
        if any(re.search(use, block.source) for block in runner.blocks(page)):
            needed(name)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    runner.run(page)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_blocks_need_the_package_alone(page: Path) -> None:
    """A reader who copies a block has no checkout."""
    for block in runner.blocks(page):
        assert not re.search(r"^\s*(from|import) (tests|benchmarks)\b", block.source, re.M)


def prose(page: Path) -> str:
    """The page without its fenced blocks."""
    return re.sub(r"^(`{3,}).*?^\1\s*$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)", prose(page))
    # pictures are drawn by `make docs`, which fails where a page shows one that it does not draw
    drawn = re.compile(r"(\.\./)?figures/\w+\.png")
    local = [t for t in targets if not re.match(r"[a-z]+:", t) and not drawn.fullmatch(t)]
    assert [t for t in local if not (page.parent / t).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_names_exist(page: Path) -> None:
    """What the prose calls `mx.name` or `fit.name` is there."""
    spans = re.findall(r"`([^`]+)`", prose(page))
    missing = [
        f"{owner}.{name}"
        for span in spans
        for owner, name in re.findall(r"\b(mx|fit)\.([A-Za-z_]\w*)", span)
        if not hasattr(mx if owner == "mx" else mx.LinearMixedFit, name)
        and name not in mx.LinearMixedFit.__dataclass_fields__
    ]
    assert missing == []


@pytest.mark.parametrize(
    "page",
    ["algorithm.md", "add_covariance.md", "contribute.md", "identification.md", "stability.md"],
)
def test_names_of_the_source_exist(page: str) -> None:
    """A name of the code in the prose, such as `settle_boundary`, is a name of the code."""
    sources = [p for folder in ("mixlm_sparse", "tests") for p in (ROOT / folder).rglob("*.py")]
    words = set(re.findall(r"\w+", " ".join(p.read_text(encoding="utf-8") for p in sources)))
    named = re.findall(r"`([A-Za-z_]\w*(?:\.\w+)*)`", prose(DOCS / page))
    code = [n for n in named if "_" in n or re.search(r"[a-z][A-Z]", n)]
    missing = [name for name in code if not set(name.split(".")) <= words]
    assert set(missing) <= {"FutureWarning"}


def test_results_are_at_most_80_columns_wide() -> None:
    text = (DOCS / "results.md").read_text(encoding="utf-8")
    shown = re.findall(r"^```text\n(.*?)^```", text, flags=re.M | re.S)
    wide = [line for fence in shown for line in fence.splitlines() if len(line) > 80]
    assert len(shown) > 40
    assert wide == []


def test_every_page_is_reached() -> None:
    """Each page is in some table of contents, so that the site shows it."""
    listed = {DOCS / "index.md"}
    for page in DOCS.rglob("*.md"):
        for body in re.findall(r"```\{toctree\}(.*?)```", page.read_text(encoding="utf-8"), re.S):
            for entry in body.split("\n"):
                entry = entry.strip()
                if entry and not entry.startswith(":"):
                    listed.update(page.parent.glob(f"{entry}.md"))
    pages = {p for p in PAGES if p.is_relative_to(DOCS)}
    assert sorted(map(name_of, pages - listed)) == []
