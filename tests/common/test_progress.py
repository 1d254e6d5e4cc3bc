"""Progress of long work: shown where somebody sees it, and interrupted without loss."""

from __future__ import annotations

import importlib.util
import io
import signal
import sys
from types import SimpleNamespace

import numpy as np
import pytest

import mixlm_sparse as mx
from mixlm_sparse.common import progress
from mixlm_sparse.common.progress import Bar, counter, duration, fit_progress
from tests.support import corpus

SLEEP = "Reaction ~ Days + (Days | Subject)"
# From here a search of these data takes a while; from where it begins by itself, one evaluation.
FAR = [1.0, 0.1, 1.0]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def sleep():
    return corpus.load_data("sleepstudy")


@pytest.fixture
def terminal(monkeypatch):
    """A terminal where bars appear at once, and no tqdm.

    The search is the one that reports its evaluations; the compiled one of small models is over
    before somebody could look.
    """
    screen = Terminal()
    # pytest exchanges sys.stderr between this fixture and the test
    monkeypatch.setattr(progress, "sys", SimpleNamespace(stderr=screen, modules=sys.modules))
    monkeypatch.setattr(progress, "SHOW_AFTER", 0.0)
    monkeypatch.setattr(progress, "REDRAW_EVERY", 0.0)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    mx.use_compiled(False)
    yield screen
    mx.use_compiled(None)


# -------------------------------------------------------------------------------------------- bars


@pytest.mark.parametrize("choice", [None, True, "auto"])
def test_a_bar_in_a_terminal(sleep, terminal, choice):
    mx.lmer(SLEEP, sleep, progress=choice)
    shown = terminal.getvalue()
    assert "\rfit: 1 evaluations, criterion 17" in shown
    last = shown.rstrip("\r").rsplit("\r", 1)[-1]
    assert last.strip() == ""  # the line is taken away
    assert "\n" not in shown
    assert max(len(line) for line in shown.split("\r")) <= progress.LINE_WIDTH


def test_silence_where_nobody_looks(sleep, monkeypatch, capsys):
    monkeypatch.setattr(progress, "SHOW_AFTER", 0.0)
    for choice in (None, True, "auto", False):
        mx.lmer(SLEEP, sleep, progress=choice)
    assert capsys.readouterr() == ("", "")


def test_silence_on_request(sleep, terminal):
    mx.lmer(SLEEP, sleep, progress=False)
    assert terminal.getvalue() == ""


def test_quick_work_leaves_no_trace(sleep, terminal, monkeypatch):
    monkeypatch.setattr(progress, "SHOW_AFTER", 60.0)
    mx.lmer(SLEEP, sleep)
    assert terminal.getvalue() == ""


def test_refits_draw_nothing_and_updates_do(sleep, terminal):
    fit = mx.lmer(SLEEP, sleep, progress=False)
    fit.refit_ml()
    fit.refit(sleep["Reaction"] + 1.0)
    assert terminal.getvalue() == ""
    fit.update(". ~ . + I(Days^2)")
    assert "evaluations" in terminal.getvalue()


def test_a_closed_terminal_does_not_end_the_work(terminal):
    bar = Bar("bootstrap", "replicates")
    bar.update(1, 10)
    terminal.close()
    bar.update(2, 10)
    bar.close()


def test_no_stderr_at_all(monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    assert not progress.interactive()


def test_notebooks_count_as_interactive(monkeypatch):
    class Shell:
        kernel = object()

    class IPython:
        @staticmethod
        def get_ipython():
            return Shell()

    assert not progress.interactive()
    monkeypatch.setitem(sys.modules, "IPython", IPython)
    assert progress.interactive()


def test_counted_work_says_what_is_left(terminal, monkeypatch):
    clock = iter(range(0, 1000, 10))
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: float(next(clock))))
    with counter(None, "bootstrap", "replicates") as report:
        assert report(25, 100)
        assert "bootstrap: 25/100 replicates" in terminal.getvalue()
        assert "left" in terminal.getvalue()


def test_rows_are_counted_with_their_rate(terminal, monkeypatch):
    clock = iter(range(0, 1000, 10))
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: float(next(clock))))
    with counter(None, "reading", "rows") as report:
        assert report(40_000, 1_000_000)
        assert "reading: 40,000/1,000,000 rows, 2,000 rows/s, 20 s" in terminal.getvalue()
    with counter(None, "reading", "rows") as report:  # a source that does not say how long it is
        assert report(80, 0)
        assert "reading: 80 rows, 4 rows/s, 20 s" in terminal.getvalue()
        assert "left" not in terminal.getvalue().rsplit("80 rows", 1)[1]


def test_a_function_that_counts():
    seen = []

    def until_three(done, total):
        seen.append((done, total))
        return done < 3

    with counter(until_three, "work") as report:
        assert [report(i, 5) for i in range(1, 5)] == [True, True, False, False]
    assert seen[0] == (1, 5)
    with counter(False, "work") as report:
        assert report(1, 5)


def test_tqdm_is_used_where_it_is_installed(sleep, terminal, monkeypatch):
    bars = []

    class Tqdm:
        def __init__(self, total, desc, unit, leave):
            self.total, self.n, self.start_t, self.closed = total, 0, 0.0, False
            self.about = (desc, unit, leave)
            bars.append(self)

        def set_postfix_str(self, text, refresh):
            self.note = text

        def refresh(self):
            pass

        def close(self):
            self.closed = True

    module = type(sys)("tqdm.auto")
    module.tqdm = Tqdm
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setitem(sys.modules, "tqdm", type(sys)("tqdm"))
    monkeypatch.setitem(sys.modules, "tqdm.auto", module)
    mx.lmer(SLEEP, sleep, start=FAR)
    (bar,) = bars
    assert bar.about == ("fit", " evaluations", False)
    assert bar.n > 2
    assert bar.note.startswith("criterion 1743.6")
    assert bar.closed
    with counter(None, "profile", "parameters") as report:
        report(1, 4)
    assert bars[1].total == 4
    assert bars[1].closed


def test_tqdm_itself(sleep, terminal, monkeypatch):
    monkeypatch.undo()
    pytest.importorskip("tqdm")
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(progress, "SHOW_AFTER", 0.0)
    mx.lmer(SLEEP, sleep)
    assert "fit" in terminal.getvalue()


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "0 s"), (89, "89 s"), (100, "2 min"), (7300, "2 h 2 min")]
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_what_progress_may_be(sleep):
    with pytest.raises(mx.OptionError, match=r"progress is 'yes': use True, False, 'auto', or a f"):
        mx.lmer(SLEEP, sleep, progress="yes")
    with pytest.raises(mx.OptionError, match=r"function of \(done, total\)"):
        counter(3, "work")  # type: ignore[arg-type]


# ----------------------------------------------------------------------------------- interruptions


@pytest.mark.parametrize("optimizer", ["auto", "lbfgsb", "bobyqa", "cobyqa"])
def test_a_function_that_returns_false_ends_the_search(sleep, optimizer):
    seen = []

    def four(evaluation, criterion, theta):
        seen.append((criterion, theta))
        return evaluation < 4

    with pytest.warns(mx.ConvergenceWarning, match=r"interrupted: stopped after 4 .*start=fit"):
        fit = mx.lmer(SLEEP, sleep, progress=four, optimizer=optimizer, start=FAR)
    assert len(seen) == 4
    assert fit.convergence.status == "interrupted"
    assert not fit.convergence
    assert fit.optimum.n_evaluations == 4
    assert len(fit.optimum.history) == 4
    best = min(seen, key=lambda pair: pair[0])
    assert fit.criterion == pytest.approx(best[0], abs=1e-6)
    np.testing.assert_allclose(fit.theta, best[1], rtol=1e-8)
    assert "interrupted" in fit.summary()
    onward = fit.update(start=fit.theta)
    assert onward.convergence
    assert onward.criterion == pytest.approx(1743.6282719584908, abs=1e-6)


@pytest.fixture
def ctrl_c_heard():
    """Python's handler of SIGINT, which a job started in the background inherits as ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c_heard")
def test_ctrl_c_ends_with_the_best_point(sleep, monkeypatch):
    monkeypatch.setattr(progress, "SHOW_AFTER", 0.0)

    def interrupt(evaluation, criterion, theta):
        if evaluation == 5:
            signal.raise_signal(signal.SIGINT)

    with pytest.warns(mx.ConvergenceWarning, match="interrupted"):
        fit = mx.lmer(SLEEP, sleep, progress=interrupt, start=FAR)
    assert fit.optimum.n_evaluations == 5
    assert fit.criterion < 1760


@pytest.mark.usefixtures("ctrl_c_heard")
def test_ctrl_c_within_the_first_moment_is_for_the_caller(sleep):
    def interrupt(evaluation, criterion, theta):
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        mx.lmer(SLEEP, sleep, progress=interrupt)


def test_the_bar_goes_away_when_the_work_fails(sleep, terminal, monkeypatch):
    from mixlm_sparse.model import run as pipeline

    def broken(system, *, progress, **options):
        progress(1, 1800.0, np.ones(3))
        raise RuntimeError("broken")

    monkeypatch.setattr(pipeline, "optimize", broken)
    with pytest.raises(RuntimeError, match="broken"):
        mx.lmer(SLEEP, sleep)
    assert terminal.getvalue().endswith("\r")


def test_the_least_criterion_is_kept():
    watch = fit_progress(lambda *_: None)
    assert watch is not None
    for evaluation, value in enumerate([3.0, 1.0, 2.0], start=1):
        watch(evaluation, value, np.array([value]))
    assert watch.criterion == 1.0
    np.testing.assert_array_equal(watch.theta, [1.0])
    assert watch.history == [3.0, 1.0, 2.0]
