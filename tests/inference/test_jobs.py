"""A seed gives the same numbers, to the last digit, on any number of processes and threads."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from functools import cache

import numpy as np
import pandas as pd
import pytest

import mixlm_sparse as mx

QUIET = mx.Control(warn=False)
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
OPTIONS = {"seed": 3, "progress": False}


def crossed() -> pd.DataFrame:
    """Enough levels for single fits to add up to where numba is loaded."""
    rng = np.random.default_rng(5)
    g, h = np.repeat(np.arange(40), 6), rng.integers(20, size=240)
    x = rng.normal(size=240)
    y = 1.0 + 0.5 * x + rng.normal(size=40)[g] + rng.normal(size=20)[h] + rng.normal(size=240)
    return pd.DataFrame({"y": y, "x": x, "g": g, "h": h})


def share(fit: mx.LinearMixedFit) -> float:
    """Return a statistic of one's own."""
    return float(fit.theta[0] * fit.sigma)


@cache
def fitted(formula: str = "y ~ x + (1 | g) + (1 | h)") -> mx.LinearMixedFit:
    return mx.lmer(formula, crossed(), reml=False, control=QUIET, progress=False)


ONE, TWO = "y ~ x + (x | g)", "y ~ x + (1 | g) + (1 | h)"
# more than one piece of each in processes: responses go by up to 256, rows drawn again by 16
MANY, FEW = 280, 34


def boot(jobs: int, method: str, formula: str, nsim: int, **options) -> pd.DataFrame:
    return fitted(formula).bootstrap(nsim, method=method, n_jobs=jobs, **OPTIONS, **options).samples


def power(jobs: int, test, formula: str = TWO) -> np.ndarray:
    options = {"nsim": MANY, "test": test, "n_jobs": jobs, **OPTIONS}
    return mx.power(formula, crossed(), fitted(formula), "x", **options).p_values


def compared(jobs: int, larger: str, smaller) -> np.ndarray:
    test = mx.pb_modcomp(fitted(larger), smaller, nsim=MANY, n_jobs=jobs, **OPTIONS)
    return test.reference


CALLS = {
    "parametric, one factor": lambda jobs: boot(jobs, "parametric", ONE, MANY),
    "semiparametric": lambda jobs: boot(jobs, "semiparametric", TWO, MANY),
    "cases, crossed": lambda jobs: boot(jobs, "cases", TWO, FEW),
    "groups": lambda jobs: boot(jobs, "groups", ONE, FEW),
    "a statistic": lambda jobs: boot(jobs, "parametric", ONE, MANY, statistic=share),
    "power, satterthwaite": lambda jobs: power(jobs, "satterthwaite"),
    "power, one factor": lambda jobs: power(jobs, "satterthwaite", ONE),
    "pb_modcomp, linear": lambda jobs: compared(jobs, "y ~ x + (1 | g)", "y ~ x"),
    "influence": lambda jobs: fitted().influence("g", n_jobs=jobs, progress=False).estimates(),
    "profile": lambda jobs: (
        fitted().profile(n_jobs=jobs, progress=False).to_frame().select_dtypes("number")
    ),
}


def digits(result: object) -> list[str]:
    """Return every number with all its digits."""
    return [float(v).hex() for v in np.asarray(result, dtype=float).ravel()]


PROGRAM = """
import json, sys
from tests.inference.test_jobs import CALLS, digits
name, jobs = sys.argv[1], int(sys.argv[2])
assert "numba" not in sys.modules
print(json.dumps(digits(CALLS[name](jobs))))
"""


def in_a_new_process(name: str, jobs: int) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, name, str(jobs)], cwd=ROOT, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: list[str] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("name", CALLS)
def test_processes_change_no_digit(name):
    assert digits(CALLS[name](1)) == digits(CALLS[name](2))


@pytest.mark.parametrize("name", ["cases, crossed", "profile"])
def test_processes_change_no_digit_where_nothing_was_compiled_before(name):
    """The first fits of a process add up until numba is loaded, in the parent and in workers."""
    assert in_a_new_process(name, 1) == in_a_new_process(name, 2)


@pytest.mark.parametrize(("engine", "made_with"), [("blocked", True), ("sparse", False)])
def test_a_fit_takes_its_form_of_the_kernels_to_other_processes(engine, made_with):
    mx.use_compiled(made_with)
    try:
        fit = mx.lmer(TWO, crossed(), engine=engine, reml=False, control=QUIET)
    finally:
        mx.use_compiled(None)
    one, two = (fit.influence("h", n_jobs=jobs, progress=False).estimates() for jobs in (1, 2))
    assert digits(one) == digits(two)


def test_a_copy_takes_the_form_of_the_kernels_that_it_is_a_copy_of():
    """Whatever has been compiled in the meantime."""
    for choice in (False, True):
        mx.use_compiled(choice)
        try:
            fit = mx.lmer(TWO, crossed(), control=QUIET)
        finally:
            mx.use_compiled(None)
        again = pickle.loads(pickle.dumps(fit))
        assert again.describe_engine() == fit.describe_engine()
        mx.use_compiled(not choice)
        try:
            again = pickle.loads(pickle.dumps(fit))
        finally:
            mx.use_compiled(None)
        assert again.describe_engine() == fit.describe_engine()
