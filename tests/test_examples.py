"""The programs of examples/ run, with warnings as errors, and are right."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
EXAMPLES = sorted(p.stem for p in (ROOT / "examples").glob("*.py"))


def results(name: str, *arguments: object) -> list:
    """Run `main` of an example in a process of its own, whose registry is its own."""
    code = (
        f"import json, numpy, {name} as example\n"
        f"found = example.main(*{arguments!r})\n"
        "print(json.dumps(found, default=lambda a: a.tolist()))"
    )
    path = os.pathsep.join([str(ROOT / "examples"), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_every_example_has_a_test():
    assert {f"test_{name}" for name in EXAMPLES} <= set(globals())


def test_own_optimizer():
    value, criterion = results("own_optimizer")
    assert value == pytest.approx(criterion, abs=1e-6)


def test_own_covariance():
    criterion, dense = results("own_covariance")
    assert criterion == pytest.approx(dense, rel=1e-10)


def test_em():
    history, best = results("em")
    assert (np.diff(history) <= 1e-9).all()
    assert history[-1] == pytest.approx(best, abs=1e-4)


def test_gibbs():
    names, middle, estimates = results("gibbs")
    found = dict(zip(names, middle, strict=True))
    expected = dict(zip(names, estimates, strict=True))
    # 3,200 draws; with flat priors the median for six samples lies above REML
    assert found["sigma"] == pytest.approx(expected["sigma"], rel=0.02)
    assert found["sd plate"] == pytest.approx(expected["sd plate"], rel=0.10)
    assert expected["sd sample"] < found["sd sample"] < 1.4 * expected["sd sample"]


def test_spline_smoother():
    fitted, ridge, error = results("spline_smoother")
    np.testing.assert_allclose(fitted, ridge, atol=1e-9)
    assert error < 0.1
