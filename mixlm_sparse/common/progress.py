"""Progress of long work: a bar in terminals and notebooks, silence elsewhere.

Nothing is shown before work has lasted `SHOW_AFTER` seconds, and the line is taken away at the end,
so that quick work leaves no trace.  The bar is tqdm's where that is installed, else plain text.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol, TextIO

from mixlm_sparse.common.checks import shown
from mixlm_sparse.common.errors import OptionError
from mixlm_sparse.common.types import Vector

__all__ = ["Counter", "FitProgress", "SearchStopped", "counter", "fit_progress", "interactive"]

SHOW_AFTER = 1.0  # seconds; what is quicker needs no bar
REDRAW_EVERY = 0.1  # seconds between two pictures of the bar
LINE_WIDTH = 79  # characters of the plain text

# Whether the last call asked for silence.
_silent: ContextVar[bool] = ContextVar("silent", default=False)

# None and "auto" and True show a bar where somebody sees it; False shows nothing.
CountProgress = Callable[[int, int], object] | bool | str | None
SearchProgress = Callable[[int, float, Vector], object] | bool | str | None


def interactive() -> bool:
    """Return whether somebody sees what is written to stderr: a terminal or a notebook."""
    if _in_notebook():
        return True
    try:
        return bool(sys.stderr.isatty())
    except (AttributeError, ValueError):  # no stderr, or a closed one
        return False


def _in_notebook() -> bool:
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return getattr(shell, "kernel", None) is not None


class Display(Protocol):
    """What draws the bar."""

    def draw(self, done: int, total: int | None, note: str) -> None:
        """Show the state of the work."""
        ...

    def close(self) -> None:
        """Take the bar away."""
        ...


class TextDisplay:
    """One line of plain text that is written over.

    Parameters
    ----------
    label : what is being done; unit : what is counted.
    began : `time.monotonic()` when the work began.
    """

    def __init__(self, label: str, unit: str, began: float, stream: TextIO) -> None:
        self._label, self._unit, self._began, self._stream = label, unit, began, stream
        self._width = 0

    def draw(self, done: int, total: int | None, note: str) -> None:
        elapsed = time.monotonic() - self._began
        of = "" if total is None else f"/{total:,}"
        count = f"{done:,}{of} {self._unit}"
        parts = [f"{self._label}: {count}", note or self._rate(done, elapsed), duration(elapsed)]
        if total is not None and 0 < done < total:
            parts.append(f"about {duration(elapsed * (total - done) / done)} left")
        self.say(", ".join(part for part in parts if part))

    def _rate(self, done: int, elapsed: float) -> str:
        if done <= 0 or elapsed <= 0.0 or not self._unit:
            return ""
        rate = done / elapsed
        return f"{rate:,.0f} {self._unit}/s" if rate >= 10 else f"{rate:.2g} {self._unit}/s"

    def say(self, text: str) -> None:
        """Write a text in the place of the line."""
        line = text[:LINE_WIDTH]
        self._write("\r" + line.ljust(self._width))
        self._width = len(line)

    def close(self) -> None:
        self._write("\r" + " " * self._width + "\r")

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):
            pass  # a terminal that is gone must not end the work


class NotebookLine:
    """A line in a notebook that is empty afterwards; lines written over stay in exported ones."""

    def __init__(self, text: str) -> None:
        show: Any = sys.modules["IPython"].display.display
        self._handle = show({"text/plain": text}, raw=True, display_id=True)

    def close(self) -> None:
        """Take the line away."""
        self._handle.update({"text/plain": ""}, raw=True)


class TqdmDisplay:
    """The bar of tqdm, in a terminal or as a widget."""

    def __init__(self, label: str, unit: str, total: int | None, began: float) -> None:
        with warnings.catch_warnings():
            # without ipywidgets tqdm warns and draws text, which will do
            warnings.simplefilter("ignore")
            tqdm: Any = importlib.import_module("tqdm.auto").tqdm
            self._bar = tqdm(total=total, desc=label, unit=f" {unit}", leave=False)
        # the bar comes after the work began
        self._bar.start_t -= time.monotonic() - began

    def draw(self, done: int, total: int | None, note: str) -> None:
        if total is not None and total != self._bar.total:
            self._bar.total = total
        if note:
            self._bar.set_postfix_str(note, refresh=False)
        self._bar.n = done
        self._bar.refresh()

    def close(self) -> None:
        self._bar.close()


def duration(seconds: float) -> str:
    """Return a time as people say it: "8 s", "3 min", "2 h 5 min".

    Examples
    --------
    >>> duration(8.2), duration(200), duration(7500)
    ('8 s', '3 min', '2 h 5 min')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"


class Bar:
    """A bar that appears after `SHOW_AFTER` seconds and is drawn at most every `REDRAW_EVERY`."""

    def __init__(self, label: str, unit: str) -> None:
        self._label, self._unit = label, unit
        self._began = time.monotonic()
        self._next = self._began + SHOW_AFTER
        self._display: Display | None = None

    def update(self, done: int, total: int | None = None, note: str = "") -> None:
        """Say how far the work is; cheap when it is too early to draw."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + REDRAW_EVERY
        if self._display is None:
            self._display = self._new_display(total)
        self._display.draw(done, total, note)

    def _new_display(self, total: int | None) -> Display:
        if importlib.util.find_spec("tqdm") is not None:
            return TqdmDisplay(self._label, self._unit, total, self._began)
        return TextDisplay(self._label, self._unit, self._began, sys.stderr)

    def close(self) -> None:
        """Take the bar away; may be called again."""
        if self._display is not None:
            self._display.close()
            self._display = None


@contextmanager
def saying(text: str) -> Iterator[None]:
    """Show a line while something is done that users wait for, where a bar would be shown."""
    display: TextDisplay | NotebookLine | None = None
    if not _silent.get() and _in_notebook():
        display = NotebookLine(text)
    elif not _silent.get() and interactive():
        display = TextDisplay(text, "", time.monotonic(), sys.stderr)
        display.say(text)
    try:
        yield
    finally:
        if display is not None:
            display.close()


def _checked(progress: object, signature: str) -> object:
    """Return None for silence, "bar", or the user's function.

    Raises
    ------
    OptionError : anything else.
    """
    _silent.set(progress is False)
    if progress is False:
        return None
    if (isinstance(progress, str | None) and progress in (None, "auto")) or progress is True:
        return "bar" if interactive() else None
    if callable(progress) and not isinstance(progress, type):
        return progress
    raise OptionError(
        f"progress is {shown(progress)}: use True, False, 'auto', or a function of {signature} "
        "that returns False to end the work"
    )


# ---------------------------------------------------------------------------------------------
# Work that is counted
# ---------------------------------------------------------------------------------------------


class Counter:
    """Reports (done, total); use it in a `with` block, so that the bar goes away in any case."""

    def __init__(
        self, bar: Bar | None = None, function: Callable[[int, int], object] | None = None
    ) -> None:
        self._bar, self._function = bar, function

    def __call__(self, done: int, total: int) -> bool:
        """Report, and return whether to go on."""
        if self._bar is not None:
            self._bar.update(done, total or None)  # zero: the length is not known
        return self._function is None or self._function(done, total) is not False

    def __enter__(self) -> Counter:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()


def counter(progress: CountProgress, label: str, unit: str = "") -> Counter:
    """Return what reports on work of known length.

    Parameters
    ----------
    progress : None, True or "auto" for a bar in terminals and notebooks, False for nothing, or a
        function of (done, total); if that returns False, the work is to end.
    label, unit : what is done, and what is counted: "bootstrap", "replicates".

    Raises
    ------
    OptionError : `progress` is something else.
    """
    chosen = _checked(progress, "(done, total)")
    if chosen is None:
        return Counter()
    if chosen == "bar":
        return Counter(bar=Bar(label, unit))
    assert callable(chosen)
    return Counter(function=chosen)


# ---------------------------------------------------------------------------------------------
# The search for the optimum, whose length is not known
# ---------------------------------------------------------------------------------------------


class SearchStopped(BaseException):
    """Internal: the user's progress function has returned False."""


class FitProgress:
    """Follows a search: shows it, and keeps the best point for the case that it is interrupted.

    Attributes
    ----------
    theta : (m,) with the least criterion so far, None before the first evaluation.
    criterion, evaluations : there, and how many there were.
    history : criterion at each evaluation.
    """

    def __init__(
        self, bar: Bar | None, function: Callable[[int, float, Vector], object] | None
    ) -> None:
        self._bar, self._function = bar, function
        self._began = time.monotonic()
        self.theta: Vector | None = None
        self.criterion = float("inf")
        self.evaluations = 0
        self.history: list[float] = []

    def __call__(self, evaluation: int, criterion: float, theta: Vector) -> None:
        """Take note of an evaluation.

        Raises
        ------
        SearchStopped : the user's function returned False.
        """
        self.evaluations = evaluation
        self.history.append(criterion)
        if criterion < self.criterion:
            self.criterion, self.theta = criterion, theta.copy()
        if self._bar is not None:
            self._bar.update(evaluation, note=f"criterion {self.criterion:.8g}")
        if self._function is not None and self._function(evaluation, criterion, theta) is False:
            raise SearchStopped

    @property
    def listens(self) -> bool:
        """Whether a function of the user's is to see every evaluation; a bar need not."""
        return self._function is not None

    @property
    def seconds(self) -> float:
        """Seconds since the search began."""
        return time.monotonic() - self._began

    def keeps(self, reason: BaseException) -> bool:
        """Say whether an interrupted search is to end with the best point, not with the error.

        Ctrl-C within the first moment is meant for the program around the fit: it is passed on.
        """
        if self.theta is None:
            return False
        return isinstance(reason, SearchStopped) or self.seconds >= SHOW_AFTER

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


def fit_progress(progress: SearchProgress) -> FitProgress | None:
    """Return what follows a search; None if nothing does.

    Parameters
    ----------
    progress : None, True or "auto" for a bar in terminals and notebooks, False for nothing, or a
        function of (evaluation, criterion, theta); if that returns False, the search ends.

    Raises
    ------
    OptionError : `progress` is something else.
    """
    chosen = _checked(progress, "(evaluation, criterion, theta)")
    if chosen is None:
        return None
    if chosen == "bar":
        return FitProgress(Bar("fit", "evaluations"), None)
    assert callable(chosen)
    return FitProgress(None, chosen)
