"""Many effects in 80 columns: all correlations of `varcorr`, the words on the engine."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest

import mixlm_sparse as mx

QUIET = mx.Control(warn=False, max_evaluations=4)
LONG = "measurement of the concentration in the second sample"


def frame(effects: int) -> pd.DataFrame:
    rng = np.random.default_rng(effects)
    n = 24 * 3 * (effects + 3)
    made = pd.DataFrame(rng.normal(size=(n, effects)), columns=[f"x{i}" for i in range(effects)])
    return made.assign(y=rng.normal(size=n), g=np.arange(n) % 24, h=rng.integers(0, 9, n))


@pytest.mark.parametrize("effects", [2, 5, 7, 8, 12, 20])
def test_every_correlation_is_printed_once_in_eighty_columns(effects):
    names = [f"x{i}" for i in range(effects)]
    formula = f"y ~ 1 + (0 + {' + '.join(names)} | g) + (x0 + x1 | h)"
    fit = mx.lmer(formula, frame(effects), control=QUIET)
    lines = repr(fit.varcorr).splitlines()
    assert max(map(len, lines)) <= 80
    # put together again, panel by panel
    found: dict[tuple[str, str], list[str]] = {}
    group, panel = "", 0
    for line in lines:
        if line.startswith(" Correlations with effects"):
            panel = int(re.search(r"effects (\d+) to", line)[1])
            continue
        if line.startswith((" Groups", " Residual")):
            continue
        cells = line.split()
        if not line.startswith("  "):
            group = cells.pop(0)
        numbers = cells[1:] if panel else cells[3:]
        found.setdefault((group, cells[0]), []).extend(numbers)  # names may be cut
    for term in fit.varcorr.terms:
        rows = [numbers for (group, _), numbers in found.items() if group == term.name]
        assert len(rows) == len(term.columns)
        for i, numbers in enumerate(rows):
            expected = [f"{term.correlation[i, j]:.2f}" for j in range(i)]
            assert numbers == [c.replace("nan", "NaN") for c in expected]


def test_long_names_hold_the_width_too():
    data = frame(9).rename(columns={f"x{i}": f"{LONG} {i}" for i in range(9)})
    names = " + ".join(f"`{LONG} {i}`" for i in range(9))
    fit = mx.lmer(f"y ~ 1 + ({names} | g)", data.assign(**{LONG: data["g"]}), control=QUIET)
    assert max(map(len, repr(fit.varcorr).splitlines())) <= 80


def test_the_words_on_the_engine_hold_the_width():
    data = frame(3)
    many = " + ".join(f"(1 | `{LONG} {i}`)" for i in range(4))
    rng = np.random.default_rng(1)
    data = data.assign(**{f"{LONG} {i}": rng.integers(0, 7, len(data)) for i in range(4)})
    for formula, more in (
        (f"y ~ 1 + {many}", {}),
        ("y ~ 1 + (x0 | g) + (1 | h)", {"residual": mx.AR1(time="t", group="g")}),
        ("y ~ 1 + (1 | g) + (1 | h)", {"engine": "krylov"}),
        ("y ~ 1 + (1 | g) + (1 | h)", {"engine": "sparse"}),
    ):
        own = data.assign(t=data.groupby("g").cumcount())
        fit = mx.lmer(formula, own, control=QUIET, **more)
        text = fit.describe_engine()
        assert max(map(len, text.splitlines())) <= 80
        assert " ".join(text.split()) == " ".join(fit.system.describe().split())
