"""One fit in many threads gives the same numbers; results pickle and deep-copy."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import mixlm_sparse as mx

QUIET = mx.Control(warn=False)


def crossed() -> pd.DataFrame:
    rng = np.random.default_rng(12)
    g, h = rng.integers(9, size=150), rng.integers(7, size=150)
    x = rng.normal(size=150)
    y = 1.0 + 0.5 * x + rng.normal(size=9)[g] * (1.0 + 0.5 * x) + rng.normal(size=7)[h]
    return pd.DataFrame({"y": y + rng.normal(size=150), "x": x, "g": g, "h": h})


def fitted(engine: str, formula: str = "y ~ x + (x | g) + (1 | h)") -> mx.LinearMixedFit:
    return mx.lmer(formula, crossed(), engine=engine, control=QUIET)


NUMBERS = ["estimate", "std_error", "conf_low", "conf_high"]
CALLS = {
    "components": lambda fit: fit.variance_components()[["estimate", "std_error"]],
    "tidy": lambda fit: fit.tidy(["fixed", "ran_pars"], conf_int=True)[NUMBERS],
    "wald": lambda fit: fit.confint("wald"),
    "profile": lambda fit: fit.profile("theta_").confint()[["lower", "upper"]],
    "icc": lambda fit: fit.icc(),
    "r2": lambda fit: fit.r2(),
    "influence": lambda fit: fit.influence("h").estimates(),
    "bootstrap": lambda fit: fit.bootstrap(6, seed=1, progress=False).samples,
    "ranova": lambda fit: fit.ranova()[["LRT", "Df"]],
    "drop1": lambda fit: fit.drop1()[["logLik", "LRT"]],
}


@pytest.mark.parametrize("engine", ["auto", "blocked", "sparse"])
def test_eight_threads_on_one_fit(engine):
    expected = {name: np.asarray(call(fitted(engine)), float) for name, call in CALLS.items()}
    shared = fitted(engine)
    work = [name for name in CALLS for _ in range(4)]
    np.random.default_rng(0).shuffle(work)
    start = threading.Barrier(8)

    def one(place: int) -> tuple[str, np.ndarray]:
        if place < 8:
            start.wait()
        return work[place], np.asarray(CALLS[work[place]](shared), float)

    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(one, range(len(work))))
    for name, values in found:
        np.testing.assert_allclose(values, expected[name], rtol=1e-9, atol=1e-12, err_msg=name)


RESULTS = {
    "profile": lambda fit: fit.profile("sigma"),
    "bootstrap": lambda fit: fit.bootstrap(4, seed=1, progress=False),
    "influence": lambda fit: fit.influence("h"),
    "step": lambda fit: fit.step(),
    "all_fit": lambda fit: fit.all_fit(["bfgs", "lbfgsb"]),
    "pb_modcomp": lambda fit: mx.pb_modcomp(fit, "y ~ x", nsim=3, seed=1, progress=False),
    "components": lambda fit: fit.variance_components(),
    "icc": lambda fit: fit.icc(),
    "ranova": lambda fit: fit.ranova(),
    "drop1": lambda fit: fit.drop1(),
}


@pytest.mark.parametrize("name", RESULTS)
@pytest.mark.parametrize("way", ["pickle", "deepcopy"])
def test_results_pickle_and_copy(name, way):
    result = RESULTS[name](fitted("auto"))
    again = pickle.loads(pickle.dumps(result)) if way == "pickle" else copy.deepcopy(result)
    assert type(again) is type(result)
    assert str(again).split(" evaluations")[0] == str(result).split(" evaluations")[0]


def test_a_bootstrap_that_comes_back_still_knows_its_jackknife():
    boot = fitted("auto", "y ~ x + (1 | g)").bootstrap(20, seed=1, progress=False)
    again = pickle.loads(pickle.dumps(boot))
    np.testing.assert_array_equal(again.confint(type="bca"), boot.confint(type="bca"))


def test_a_bootstrap_with_a_lambda_comes_back_without_its_jackknife():
    boot = fitted("auto", "y ~ x + (1 | g)").bootstrap(
        20, statistic=lambda fit: fit.sigma, seed=1, progress=False
    )
    assert np.isfinite(copy.deepcopy(boot).confint(type="bca")).all().all()
    again = pickle.loads(pickle.dumps(boot))
    np.testing.assert_array_equal(again.confint(), boot.confint())
    with pytest.raises(mx.OptionError, match="bca"):
        again.confint(type="bca")


REFITS = """
import sys
import numpy as np, pandas as pd
import mixlm_sparse as mx

rng = np.random.default_rng(1)
g, h, x = rng.integers(0, 25, 600), rng.integers(0, 15, 600), rng.normal(size=600)
y = rng.normal(size=25)[g] + 0.7 * rng.normal(size=15)[h] + x + rng.normal(size=600)
data = pd.DataFrame({"y": y, "x": x, "g": g, "h": h})
fits = [mx.lmer(f, data) for f in ("y ~ x + (1 | g) + (1 | h)", "y ~ x + (x | g)")]

def refits():
    for fit in fits:
        yield fit.influence("g").estimates()
        yield fit.profile(["sigma", "x"]).to_frame().select_dtypes("number")
        yield fit.bootstrap(10, method="cases", seed=1).samples

before = list(refits())
assert "numba" not in sys.modules
mx.lmer(fits[0].formula, pd.concat([data] * 2), engine="sparse")
import numba
for earlier, later in zip(before, refits()):
    pd.testing.assert_frame_equal(earlier, later, check_exact=True)
"""


def test_refits_have_the_digits_of_the_fit_whatever_was_loaded_since():
    done = subprocess.run(
        [sys.executable, "-c", REFITS], capture_output=True, text=True, check=False,
        cwd=Path(mx.__file__).parents[1],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
