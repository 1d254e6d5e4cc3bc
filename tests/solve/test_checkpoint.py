"""A search that is ended and taken up again: from where it was, by the same model only."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import mixlm_sparse as mx

FORMULA = "Reaction ~ Days + (Days | Subject)"
DATA = mx.datasets.load("sleepstudy").sample(frac=0.5, random_state=1)  # ten evaluations


def fitted(path: Path, **arguments: object) -> mx.LinearMixedFit:
    settings = {"formula": FORMULA, "data": DATA, **arguments}
    return mx.lmer(**settings, control=mx.Control(checkpoint=path))  # type: ignore[arg-type]


class StoppedError(RuntimeError):
    pass


def killed_after(n: int):
    def progress(evaluation: int, criterion: float, theta: np.ndarray) -> None:
        if evaluation >= n:
            raise StoppedError

    return progress


def test_same_fit_with_and_without(tmp_path: Path) -> None:
    plain = mx.lmer(FORMULA, DATA)
    fit = fitted(tmp_path / "fit.json")
    assert fit.criterion == pytest.approx(plain.criterion, abs=1e-8)
    assert [path.name for path in tmp_path.iterdir()] == ["fit.json"]
    kept = json.loads((tmp_path / "fit.json").read_text())
    np.testing.assert_allclose(kept["theta"], fit.theta, rtol=1e-4)
    assert kept["criterion"] == pytest.approx(fit.criterion, abs=1e-6)


def test_ended_search_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "fit.json"
    with pytest.raises(StoppedError):
        fitted(path, progress=killed_after(4))
    kept = json.loads(path.read_text())
    seen = []
    fit = fitted(path, progress=lambda n, criterion, theta: seen.append((criterion, theta)))
    assert seen[0][0] == pytest.approx(kept["criterion"], abs=1e-8)  # begins where it was
    np.testing.assert_allclose(seen[0][1], kept["theta"], atol=1e-10)
    assert fit.convergence.converged
    assert fit.criterion == pytest.approx(mx.lmer(FORMULA, DATA).criterion, abs=1e-7)
    assert json.loads(path.read_text())["evaluations"] > kept["evaluations"]
    # a third call has next to nothing to do
    again = fitted(path)
    assert again.optimum.n_evaluations < fit.optimum.n_evaluations + kept["evaluations"]
    assert again.criterion == pytest.approx(fit.criterion, abs=1e-7)


def test_structured_residuals_go_on(tmp_path: Path) -> None:
    arguments = {
        "formula": "Reaction ~ Days + (1 | Subject)",
        "residual": mx.AR1(time="Days", group="Subject"),
    }
    path = tmp_path / "fit.json"
    with pytest.raises(StoppedError):
        fitted(path, progress=killed_after(5), **arguments)
    fit = fitted(path, **arguments)
    formula = arguments.pop("formula")
    assert fit.criterion == pytest.approx(mx.lmer(formula, DATA, **arguments).criterion, abs=1e-6)


@pytest.mark.parametrize(
    "other",
    [
        {"formula": "Reaction ~ Days + (1 | Subject)"},
        {"formula": "Reaction ~ Days + (Days || Subject)"},
        {"formula": "Reaction ~ 1 + (Days | Subject)"},
        {"reml": False},
        {"data": DATA.iloc[:-1]},
        {"fixed": {"sigma": 25.0}},
    ],
    ids=str,
)
def test_another_model_is_refused(tmp_path: Path, other: dict) -> None:
    path = tmp_path / "fit.json"
    fitted(path)
    before = path.read_bytes()
    with pytest.raises(mx.OptionError, match="of another model"):
        fitted(path, **other)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "changed",
    [
        lambda d: d.assign(Reaction=d["Reaction"] + (np.arange(len(d)) == 3)),
        lambda d: d.assign(Reaction=2.0 * d["Reaction"]),
        lambda d: d.assign(Days=d["Days"] * (1.0 + 1e-3 * (d["Subject"] == d["Subject"].iloc[0]))),
        lambda d: d.assign(Reaction=d["Reaction"].sample(frac=1.0, random_state=1).to_numpy()),
    ],
)
def test_other_data_are_refused(tmp_path: Path, changed) -> None:
    path = tmp_path / "fit.json"
    fitted(path)
    with pytest.raises(mx.OptionError, match="other data"):
        fitted(path, data=changed(DATA))


def test_the_same_rows_in_another_order_are_the_same_model(tmp_path: Path) -> None:
    path = tmp_path / "fit.json"
    fit = fitted(path)
    shuffled = fitted(path, data=DATA.sample(frac=1.0, random_state=1))
    assert shuffled.criterion == pytest.approx(fit.criterion, abs=1e-7)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"\xff\xfe", b'{"format": "other"}', b"[" * 100_000,
     b'{"format": "mixlm_sparse checkpoint", "version": 99}',
     b'{"format": "mixlm_sparse checkpoint", "version": 1}'],
    ids=range(8),
)  # fmt: skip
def test_other_files_are_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "fit.json"
    path.write_bytes(content)
    with pytest.raises(mx.OptionError, match="checkpoint"):
        fitted(path)
    assert path.read_bytes() == content


def test_tampered_numbers_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "fit.json"
    fitted(path)
    good = json.loads(path.read_text())
    for wrong in ({"theta": [1.0]}, {"theta": ["a"] * 3}, {"theta": None}, {"criterion": "x"},
                  {"theta": [float("nan")] * 3}, {"sums": []}):  # fmt: skip
        path.write_text(json.dumps({**good, **wrong}))
        with pytest.raises(mx.OptionError, match="checkpoint"):
            fitted(path)


def test_no_folder_no_name(tmp_path: Path) -> None:
    with pytest.raises(mx.MixedModelError, match="there is no folder"):
        fitted(tmp_path / "missing" / "fit.json")
    with pytest.raises(mx.OptionError, match="checkpoint"):
        mx.Control(checkpoint=3)  # type: ignore[arg-type]
    with pytest.raises(mx.OptionError, match="checkpoint"):
        fitted(tmp_path)


def test_further_fits_do_not_write_it(tmp_path: Path) -> None:
    path = tmp_path / "fit.json"
    fit = fitted(path)
    before = path.read_bytes()
    fit.refit(DATA["Reaction"] + 1.0)
    fit.update(reml=False)
    fit.bootstrap(nsim=2, seed=1)
    assert path.read_bytes() == before
    fit.save(tmp_path / "fit.mixlm")
    assert mx.load(tmp_path / "fit.mixlm").options.control.checkpoint is None


SLOW = """
import sys, time
import mixlm_sparse as mx
data = mx.datasets.load("sleepstudy").sample(frac=0.5, random_state=1)
def progress(n, criterion, theta):
    print(n, flush=True)
    time.sleep(0.2)
mx.lmer({formula!r}, data, control=mx.Control(checkpoint=sys.argv[1]), progress=progress)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="processes are killed by a signal here")
def test_killed_process(tmp_path: Path) -> None:
    path = tmp_path / "fit.json"
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW.format(formula=FORMULA), str(path)],
        stdout=subprocess.PIPE, text=True, cwd=Path(mx.__file__).parent.parent,
    )  # fmt: skip
    assert process.stdout is not None
    for _ in range(3):
        process.stdout.readline()
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    kept = json.loads(path.read_text())  # whole, whenever the signal came
    assert kept["evaluations"] >= 1
    fit = fitted(path)
    assert fit.convergence.converged
    assert fit.criterion == pytest.approx(mx.lmer(FORMULA, DATA).criterion, abs=1e-7)


# -- disks that are full --------------------------------------------------------------------------


def full(*args: object, **kwargs: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("call", ["replace", "fsync"])
def test_full_disk_from_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    monkeypatch.setattr(os, call, full)
    with pytest.warns(mx.CheckpointWarning, match=r"No space left.*there is no file") as said:
        fit = fitted(tmp_path / "fit.json")
    assert len(said) == 1  # once, not at every evaluation
    assert fit.criterion == pytest.approx(mx.lmer(FORMULA, DATA).criterion, abs=1e-8)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("call", ["replace", "fsync"])
def test_disk_that_fills_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    path = tmp_path / "fit.json"
    contents = []

    def fill(evaluation: int, criterion: float, theta: np.ndarray) -> None:
        if evaluation == 3:
            contents.append(path.read_bytes())
            monkeypatch.setattr(os, call, full)

    with pytest.warns(mx.CheckpointWarning, match="holds the best of the first 3 evaluations"):
        fit = fitted(path, progress=fill)
    monkeypatch.undo()
    assert fit.convergence.converged
    assert path.read_bytes() == contents[0]  # whole, as it was
    assert [p.name for p in tmp_path.iterdir()] == ["fit.json"]
    assert fitted(path).criterion == pytest.approx(fit.criterion, abs=1e-7)  # and of use


def test_disk_that_has_room_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "fit.json"

    def free(evaluation: int, criterion: float, theta: np.ndarray) -> None:
        if evaluation == 3:
            monkeypatch.undo()

    monkeypatch.setattr(os, "replace", full)
    with pytest.warns(mx.CheckpointWarning):
        fit = fitted(path, progress=free)
    assert json.loads(path.read_text())["criterion"] == pytest.approx(fit.criterion, abs=1e-6)


def test_folder_that_goes_away(tmp_path: Path) -> None:
    folder = tmp_path / "share"
    folder.mkdir()

    def remove(evaluation: int, criterion: float, theta: np.ndarray) -> None:
        if evaluation == 3:
            shutil.rmtree(folder)

    with pytest.warns(mx.CheckpointWarning, match="the search goes on"):
        fit = fitted(folder / "fit.json", progress=remove)
    assert fit.convergence.converged


# -- second looks after a search was taken up ------------------------------------------------------


def valleys() -> pd.DataFrame:
    """A predictor far from zero with uncorrelated terms: valleys near zero and far from it."""
    rng = np.random.default_rng(3)
    g = np.repeat(np.arange(12), 6)
    x = 1000.0 + rng.normal(size=g.size)
    y = 2.0 * rng.normal(size=12)[g] * (x - 1000.0) + rng.normal(size=g.size)
    return pd.DataFrame({"y": y, "x": x, "g": g, "arm": np.where(g % 2, "a", "b")})


@pytest.mark.parametrize("variance", [None, mx.VarIdent(by="arm")], ids=["plain", "variance"])
def test_other_valleys_are_looked_for_again(tmp_path: Path, variance: object) -> None:
    arguments = {"formula": "y ~ x + (x || g)", "data": valleys(), "variance": variance}
    whole = mx.lmer(**arguments, control=mx.Control(warn=False))
    assert len(whole.convergence.tried) > 1
    control = mx.Control(checkpoint=tmp_path / "fit.json", warn=False)
    with pytest.raises(StoppedError):
        mx.lmer(**arguments, control=control, progress=killed_after(3))
    resumed = mx.lmer(**arguments, control=control)
    assert resumed.criterion == pytest.approx(whole.criterion, abs=1e-5)
    assert len(resumed.convergence.tried) == len(whole.convergence.tried)


def test_a_checkpoint_in_the_higher_valley_is_left(tmp_path: Path) -> None:
    arguments = {"formula": "y ~ x + (x || g)", "data": valleys(), "fixed": {"sigma": 1.0}}
    path = tmp_path / "fit.json"
    control = mx.Control(checkpoint=path, warn=False)
    whole = mx.lmer(**arguments, control=control)
    near = mx.lmer(**arguments, start=[0.1, 0.001], control=mx.Control(warn=False))
    assert near.criterion > whole.criterion + 100.0  # a start that was given is the user's choice
    kept = {"theta": near.theta.tolist(), "criterion": near.criterion}
    path.write_text(json.dumps({**json.loads(path.read_text()), **kept}))
    resumed = mx.lmer(**arguments, control=control)
    assert resumed.criterion == pytest.approx(whole.criterion, abs=1e-5)
