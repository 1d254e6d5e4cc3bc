"""Titles and names of axes that are longer than their panel, cut to the room that there is."""

from __future__ import annotations

from typing import Any

from mixlm_sparse.common.text import display_width, shorten_all

CHARACTER = 0.58 / 72.0  # inches that a character takes on average, by points of its size
BETWEEN = 1.2  # a text may reach into the gaps on both sides of its panel


def cut_texts(figure: Any) -> None:
    """Shorten each line of a title or a name of an axis that has no room beside its neighbours.

    Lines that differ stay different.  Before the figure is drawn there is no layout yet: the panels
    are taken where a plain grid puts them, which is close enough.
    """
    width, height = figure.get_size_inches()
    titles: list[tuple[Any, float]] = []
    below: list[tuple[Any, float]] = []
    beside: list[tuple[Any, float]] = []
    for axes in figure.axes:
        place = axes.get_position()
        titles.append((axes.title, BETWEEN * place.width * width))
        below.append((axes.xaxis.label, BETWEEN * place.width * width))
        beside.append((axes.yaxis.label, BETWEEN * place.height * height))
    for text, inches in (
        (getattr(figure, "_suptitle", None), width),
        (getattr(figure, "_supxlabel", None), width),
        (getattr(figure, "_supylabel", None), height),
    ):
        if text is not None:
            beside.append((text, inches))
    for texts in (titles, below, beside):
        _cut(texts)


def _cut(texts: list[tuple[Any, float]]) -> None:
    """Shorten lines of texts, each with the inches that it has."""
    rooms: dict[str, int] = {}  # of lines that are too long, in characters
    for text, inches in texts:
        room = max(int(inches / (CHARACTER * float(text.get_fontsize()))), 8)
        for line in text.get_text().split("\n"):
            if display_width(line) > room:
                rooms[line] = min(room, rooms.get(line, room))
    if not rooms:
        return
    lines = list(rooms)
    short = dict(zip(lines, shorten_all(lines, min(rooms.values())), strict=True))
    for text, _ in texts:
        old = text.get_text().split("\n")
        text.set_text("\n".join(short.get(line, line) for line in old))
