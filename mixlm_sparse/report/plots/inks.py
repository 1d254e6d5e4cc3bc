"""Colours of the picture that is drawn: on a light background, or on the dark one of the user.

A plot asks `ink()` while it draws.  Colours are those of Okabe and Ito (2008), told apart by people
with any common form of colour blindness; on a dark background each has a lighter one in its place.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

Rgba = tuple[float, float, float, float]

DARK_BELOW = 0.18  # relative luminance at which black and white stand out equally
LEAST_CONTRAST = 4.5  # of text against its background, WCAG 2.1


@dataclass(frozen=True, slots=True)
class Inks:
    """The colours of one picture.

    Parameters
    ----------
    blue, ... sky : of what is drawn.
    front : text, reference lines and what stands out; grey, pale : what stands back.
    back : behind the lines; page : around the panels; faint : a panel that holds a name.
    edge, ticks, grid : of panels.
    veil : how much more opaque bands are than on white.
    counts : map of colours of counts, from few to many; shades : of numbers.
    """

    blue: str = "#0072B2"
    orange: str = "#D55E00"
    green: str = "#009E73"
    amber: str = "#E69F00"
    pink: str = "#CC79A7"
    sky: str = "#56B4E9"
    front: str = "#222222"
    grey: str = "#8A8A8A"
    pale: str = "#C8C8C8"
    paler: str = "#DDDDDD"
    back: str = "white"
    page: str = "white"
    faint: str = "#F4F4F4"
    edge: str = "#666666"
    ticks: str = "#555555"
    grid: str = "#E8E8E8"
    text: str = "black"
    veil: float = 1.0
    counts: str = "Blues"
    shades: str = "cividis"

    def series(self, place: int) -> str:
        """Return the colour of a series by its place among all."""
        palette = (
            self.blue, self.orange, self.green, self.amber, self.pink, self.sky, self.front
        )  # fmt: skip
        return palette[place % len(palette)]


LIGHT = Inks()
_IN_USE: list[Inks] = [LIGHT]  # the last one draws; changed under the lock of `house_style`


def ink() -> Inks:
    """Return the colours of the picture that is being drawn."""
    return _IN_USE[-1]


@contextmanager
def drawn_with(inks: Inks) -> Iterator[None]:
    """Draw with these colours."""
    _IN_USE.append(inks)
    try:
        yield
    finally:
        _IN_USE.pop()


def inks_on(back: Rgba, page: Rgba, text: Rgba) -> Inks:
    """Return colours that are seen against a background.

    Parameters
    ----------
    back : of the panel, page : around it; text : of the user.  One that is transparent shows
        the next one; all of them transparent, the text tells what is behind it.
    """
    behind = back if back[3] > 0.5 else page
    if behind[3] > 0.5:
        dark = luminance(behind) < DARK_BELOW
    else:
        dark = luminance(text) > 1.0 - DARK_BELOW
        behind = (0.0, 0.0, 0.0, 1.0)
    if not dark:
        return LIGHT
    front = text if contrast(text, behind) > LEAST_CONTRAST else (1.0, 1.0, 1.0, 1.0)
    tones = {
        name: _hex(_between(behind, front, share))
        for name, share in (
            ("front", 1.0), ("grey", 0.6), ("pale", 0.35), ("paler", 0.28), ("faint", 0.1),
            ("edge", 0.6), ("ticks", 0.75), ("grid", 0.18), ("text", 1.0),
        )
    }  # fmt: skip
    return Inks(
        blue="#5AB4F0", orange="#FF8A4C", green="#34D1A0", amber="#F2C14E", pink="#EFA0CC",
        sky="#B8A6FF", back=_hex(behind) if back[3] > 0.5 else "none",
        page=_hex(page) if page[3] > 0.5 else "none", veil=2.0, counts="cividis",
        shades="cool", **tones,
    )  # fmt: skip


def luminance(colour: Rgba) -> float:
    """Return the relative luminance, 0 for black and 1 for white."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour[:3]]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: Rgba, other: Rgba) -> float:
    """Return the contrast of two colours, 1 to 21."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def _between(one: Rgba, other: Rgba, share: float) -> Rgba:
    r, g, b = (a + share * (z - a) for a, z in zip(one[:3], other[:3], strict=True))
    return r, g, b, 1.0


def _hex(colour: Rgba) -> str:
    return "#" + "".join(f"{round(255 * c):02x}" for c in colour[:3])
