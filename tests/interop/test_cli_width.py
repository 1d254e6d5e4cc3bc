"""What `mixlm` prints for people holds 80 columns, however long the names.

Messages on stderr are a line each, for programs that read them, and are left out here.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import mixlm_sparse as mx
from tests.interop.commands import run

LONG = "measurement of the concentration in the second sample of the morning"
GROUP = "identifier of the participating subject in the registry of the hospital"
ARM = "treatment arm with a long name"
COMMANDS = (
    "fit", "gls", "emmeans", "compare", "predict", "plan", "power", "simulate", "explain",
    "compile",
)  # fmt: skip
PLAIN = f"y ~ `{LONG}` * `{ARM}`"
FORMULAS = {
    "long": f"{PLAIN} + (`{LONG}` | `{GROUP}`)",
    "small": f"y ~ `{LONG}` + `{ARM}` + (1 | `{GROUP}`)",
    "many": f"y ~ x0 + ({' + '.join(f'x{i}' for i in range(9))} | g) + (1 | h)",
    "crossed": f"y ~ 1 + (1 | `{GROUP}`) + (1 | `{ARM}`:h) + (x0 | h)",
}


def frame(n: int = 240) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    arms = ["placebo twice a day", "active compound, low dose", "active compound, with titration"]
    made = {
        "y": rng.normal(size=n),
        LONG: rng.normal(size=n),
        GROUP: [f"participant number {i:04d} of the northern region" for i in np.arange(n) % 24],
        ARM: np.tile(arms, n // 3),
        "t": np.tile(np.arange(10), n // 10),
        "g": np.repeat(np.arange(n // 10), 10),
        "h": rng.integers(0, 12, n),
    }
    return pd.DataFrame(made | {f"x{i}": rng.normal(size=n) for i in range(9)})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("width")
    frame().to_csv(made / "data.csv", index=False)
    for name in ("long", "small"):
        fit = mx.lmer(FORMULAS[name], frame(), control=mx.Control(warn=False))
        fit.save(made / f"{name}.mixlm")
    return made


def require_narrow(text: str) -> None:
    wide = [line for line in text.splitlines() if len(line) > 80]
    assert not wide, "\n".join(wide)


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_holds_the_width(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = run(capsys, *filter(None, (command, "--help")))
    assert code == 0
    require_narrow(out)


@pytest.mark.parametrize(
    "arguments",
    [
        *(("fit", "data.csv", formula, "--max-evaluations", 5) for formula in FORMULAS.values()),
        ("gls", "data.csv", PLAIN, "--residual", "AR1(time=t, group=g)",
         "--variance", f"VarIdent(by='{ARM}')"),
        ("emmeans", "long.mixlm", ARM),
        ("emmeans", "long.mixlm", ARM, "--contrast", "pairwise"),
        ("emmeans", "long.mixlm", ARM, "--slope", LONG),
        ("emmeans", "long.mixlm", f"pairwise ~ `{ARM}`"),
        ("compare", "long.mixlm", "small.mixlm"),
        *(("plan", "data.csv", formula) for formula in FORMULAS.values()),
        ("power", "small.mixlm", "--effect", LONG, "--nsim", 3, "--seed", 1),
        ("power", "small.mixlm", "--effect", LONG, "--nsim", 3, "--seed", 1, "--n", "12,24"),
        ("explain",),
        ("explain", "identification"),
    ],
    ids=lambda given: f"{given[0]}-{given[-1]}"[:40],
)  # fmt: skip
def test_output_holds_the_width(arguments, folder, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    _, out, err = run(capsys, *arguments)
    assert out, err
    require_narrow(out)
