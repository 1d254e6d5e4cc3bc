"""Messages about a fit: each once, with the reason, what to do, and where its page is."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import numpy as np
import pytest

import mixlm_sparse as mx
from tests.support import corpus

PAGE = re.compile(r'See mx\.explain\("([a-z-]+)"\)$')
DOCS = Path(__file__).parents[2] / "docs"
LONGEST = 420  # characters of a message


@pytest.fixture
def sleep():
    return corpus.load_data("sleepstudy")


def caught(formula, data, **options):
    """The fit, and the warnings that it gave."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        fit = mx.lmer(formula, data, **options)
    return fit, [(w.category, str(w.message)) for w in found]


def few(sleep):
    return sleep.assign(site=np.repeat(["a", "b", "c"], 60))


def exact(sleep):
    return sleep.assign(Reaction=3.0 + 2.0 * sleep["Days"])


def wild(sleep):
    rng = np.random.default_rng(0)
    return sleep.assign(income=rng.normal(0, 3e6, 180), share=rng.normal(0, 1e-3, 180))


def halves(sleep):
    return sleep.assign(half=np.where(sleep["Days"] < 5, "early", "late"))


CASES = {
    "singular-fit": (
        mx.SingularFitWarning,
        lambda sleep: corpus.load_data("Dyestuff2"),
        "Yield ~ 1 + (1 | Batch)",
        {},
        r"variance of \(Intercept\) by Batch is estimated as zero.*drop the effect",
    ),
    "rank-deficiency": (
        mx.RankDeficiencyWarning,
        lambda sleep: sleep,
        "Reaction ~ Days + I(2 * Days) + (1 | Subject)",
        {},
        r"dropped 1 column \(I\(2 \* Days\)\).*Remove the term",
    ),
    "scaling": (
        mx.ScalingWarning,
        wild,
        "Reaction ~ income + share + (1 | Subject)",
        {},
        r"very different scales.*rescale, for example scale\(income\)",
    ),
    "double-bar": (
        mx.FormulaWarning,
        halves,
        "Reaction ~ half + (half || Subject)",
        {},
        r"'\|\|' does not split.*write diag\(half \| Subject\)",
    ),
    "text-columns": (
        mx.FormulaWarning,
        lambda sleep: sleep.assign(dose=[f"{7 * i % 31 / 10}" for i in range(len(sleep))]),
        "Reaction ~ Days + dose + (1 | Subject)",
        {},
        r"'dose' is text.*which are numbers such as '0\.0'.*convert the column to numbers",
    ),
    "few-levels": (
        mx.FewLevelsWarning,
        few,
        "Reaction ~ Days + (1 | site)",
        {},
        r"grouping factor 'site' has 3 levels: a variance.*its interval \(confint\).*fixed part",
    ),
    "convergence": (
        mx.ConvergenceWarning,
        lambda sleep: sleep,
        "Reaction ~ Days + (Days | Subject)",
        {"control": mx.Control(max_evaluations=2), "start": [1.0, 0.0, 1.0]},
        r"evaluation limit: stopped after \d evaluations: raise control\.max_evaluations",
    ),
    "perfect-fit": (
        mx.ConvergenceWarning,
        exact,
        "Reaction ~ Days + (1 | Subject)",
        {},
        r"perfect fit: the fixed effects fit the response exactly.*check the response",
    ),
}


@pytest.mark.parametrize("page", CASES)
def test_each_message_comes_once_with_its_page(sleep, page):
    category, data, formula, options, pattern = CASES[page]
    fit, found = caught(formula, data(sleep), **options)
    mine = [text for kind, text in found if kind is category]
    assert len(mine) == 1
    (text,) = mine
    assert re.search(pattern, text, re.DOTALL)
    assert len(text) <= LONGEST
    assert "\n" not in text
    match = PAGE.search(text)
    assert match is not None
    assert match[1] == page
    assert mx.explain(text).text == mx.explain(page).text
    assert mx.explain(page).text in mx.explain(fit).text
    assert fit.messages.count(text) == 1
    shown = " ".join(fit.summary().split())
    assert shown.count(text[-60:]) == 1
    _, quiet = caught(formula, data(sleep), **{**options, "control": _silent(options)})
    assert quiet == []


def _silent(options):
    limit = options["control"].max_evaluations if "control" in options else None
    return mx.Control(warn=False, max_evaluations=limit)


@pytest.mark.parametrize("page", CASES)
def test_the_page_exists(page):
    if not (DOCS / "messages").is_dir():
        pytest.skip("the documentation is not beside the tests")
    assert (DOCS / "messages" / f"{page}.md").is_file()


def test_every_warning_and_error_has_a_row():
    """The table of all messages leaves out none of the classes that users can catch."""
    index = DOCS / "messages" / "index.md"
    if not index.is_file():
        pytest.skip("the documentation is not beside the tests")
    rows = [line for line in index.read_text(encoding="utf-8").splitlines() if line[:2] == "| "]
    listed = set(re.findall(r"`(\w+(?:Warning|Error))`", "".join(rows)))
    roots = (mx.MixedModelWarning, mx.MixedModelError)
    public = {
        name
        for name in mx.__all__
        if isinstance(kind := getattr(mx, name), type) and issubclass(kind, roots)
    } - {root.__name__ for root in roots}
    assert len(public) > 15
    assert listed == public


def test_several_messages_keep_apart(sleep):
    data = few(wild(sleep))
    fit, found = caught("Reaction ~ income + share + I(2 * share) + (1 | site)", data)
    kinds = [kind for kind, _ in found]
    assert len(kinds) == len(set(kinds))
    assert {mx.RankDeficiencyWarning, mx.ScalingWarning, mx.FewLevelsWarning} <= set(kinds)
    assert len(fit.messages) == len(found)


def test_two_factors_with_few_levels_share_a_message(sleep):
    data = few(sleep).assign(arm=np.tile(["x", "y"], 90))
    _, found = caught("Reaction ~ Days + (1 | site) + (1 | arm)", data)
    texts = [text for kind, text in found if kind is mx.FewLevelsWarning]
    assert len(texts) == 1
    assert "'site' has 3 levels, 'arm' has 2 levels" in texts[0]


def test_five_levels_are_enough(sleep):
    _, found = caught("Reaction ~ Days + (1 | site)", sleep.assign(site=np.arange(180) % 5))
    assert mx.FewLevelsWarning not in [kind for kind, _ in found]


def test_numeric_double_bar_says_nothing(sleep):
    fit, found = caught("Reaction ~ Days + (Days || Subject)", sleep)
    assert not found
    assert fit.messages == ()
