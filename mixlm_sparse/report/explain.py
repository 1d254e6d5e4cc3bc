"""The pages that messages name, for reading where the message came."""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from mixlm_sparse.common.checks import require_one_of, shown
from mixlm_sparse.common.errors import OptionError
from mixlm_sparse.common.keywords import answers_unknown_keywords
from mixlm_sparse.common.layout import WIDTH, wrap

__all__ = ["Explanation", "explain"]

PACKAGE = Path(__file__).parents[1]
NAMED = re.compile(r'mx\.explain\("([a-z-]+)"\)')
LINK = re.compile(r"\[([^\]]+)\]\([^)\s]*\)")
FENCE = re.compile(r"^```(\S*)\n(.*?)^```\n?", re.DOTALL | re.MULTILINE)
CELLS = re.compile(r"(?<!\\)\|")
CONTENTS = "index"


@dataclass(frozen=True, slots=True, repr=False)
class Explanation:
    """Text of a page: a console prints it, a notebook shows it with its headings and tables.

    `text` is the page as it is written, in Markdown.
    """

    text: str

    def __str__(self) -> str:
        text = LINK.sub(r"\1", FENCE.sub(_indented, self.text)).strip()
        return "\n\n".join(_filled(part) for part in text.split("\n\n"))

    __repr__ = __str__

    def _repr_markdown_(self) -> str:
        return LINK.sub(r"\1", self.text)


@answers_unknown_keywords
def explain(about: object = None) -> Explanation:
    """Return the page on a message: what it means, and what to do.

    Parameters
    ----------
    about : name of a page, as messages give it; the text of a message, a warning or an error; a
        fit, for the pages of all its messages.  Nothing: the list of messages.

    Returns
    -------
    Text, which is printed in a console and shown with headings in a notebook.

    Raises
    ------
    OptionError : no such page, or a message that names none.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> print(mx.explain("few-levels"))  # doctest: +ELLIPSIS
    # Few levels
    ...
    """
    pages = _pages()
    names = sorted(set(pages) - {CONTENTS})
    if about is None:
        return _read(pages[CONTENTS])
    if isinstance(about, str) and about in names:
        return _read(pages[about])
    found = _named_in(about)
    if found is None:
        if isinstance(about, str) and not about.strip().count(" "):
            require_one_of("about", about, names)
        raise OptionError(
            f"about is {shown(about)}, which names no page: use a fit, the text of a message of "
            f"this package, or one of {', '.join(map(repr, names))}"
        )
    if not found:
        return Explanation("This fit has no messages.\n")
    return Explanation("\n\n".join(_read(pages[name]).text for name in found))


def _named_in(about: object) -> list[str] | None:
    """Return the pages that a message or a fit names; None if it names none and should."""
    if isinstance(about, BaseException):
        about = str(about)
    if isinstance(about, str):
        return list(dict.fromkeys(NAMED.findall(about))) or None
    messages = getattr(about, "messages", None)
    if not isinstance(messages, tuple):
        return None
    return list(dict.fromkeys(NAMED.findall(" ".join(map(str, messages)))))


@cache
def _pages() -> dict[str, Path]:
    """Return the pages by name: those of the installed package, or of the checkout it runs in."""
    installed = PACKAGE / "messages"
    folder = installed if installed.is_dir() else PACKAGE.parent / "docs" / "messages"
    return {page.stem: page for page in folder.glob("*.md")}


def _read(page: Path) -> Explanation:
    text = page.read_text(encoding="utf-8")
    # the list of pages is for the site alone
    return Explanation(re.sub(r"^```\{toctree\}.*?^```\n?", "", text, flags=re.DOTALL | re.M))


def _filled(paragraph: str) -> str:
    """Break the lines of a paragraph at 80 columns; code and headings stay, as do narrow tables."""
    lines = paragraph.splitlines()
    if paragraph.startswith("|") and max(map(len, lines)) > WIDTH:
        return _listed(lines)
    if any(line.startswith(("    ", "|", "#")) for line in lines):
        return paragraph
    items = re.split(r"\n(?=[-*] )", paragraph)
    return "\n".join(
        textwrap.fill(
            " ".join(item.split()), WIDTH, break_long_words=False, break_on_hyphens=False,
            subsequent_indent="  " if item.startswith(("- ", "* ")) else "",
        )
        for item in items
    )  # fmt: skip


def _listed(lines: list[str]) -> str:
    """Return the rows of a table as a list: the first cell, and the others by their heads."""
    head, _, *rows = ([c.strip() for c in CELLS.split(line)[1:-1]] for line in lines)
    out = []
    for first, *others in rows:
        out += wrap("- ", first.replace("\\|", "|"))
        for name, cell in zip(head[1:], others, strict=True):
            out += wrap(f"  {name}: " if name else "  ", cell.replace("\\|", "|")) if cell else []
    return "\n".join(out)


def _indented(fence: re.Match[str]) -> str:
    """Return code as it is, and what it prints broken at 80 columns, four columns to the right."""
    out = []
    for line in fence[2].splitlines():
        spaces = " " * (4 + len(line) - len(line.lstrip()))
        whole = len(line) + 4 <= WIDTH or fence[1] != "text"
        out += [f"    {line}".rstrip()] if whole else wrap(spaces, line.strip())
    return "\n".join(out) + "\n"
