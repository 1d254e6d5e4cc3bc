"""Everything that a user holds can be pickled and copied, and used from several threads."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any

import numpy as np
import pandas as pd
import pytest

import mixlm_sparse as mx
from mixlm_sparse.engines.cholmod import load_cholmod

QUIET = mx.Control(warn=False)


def have_cholmod() -> bool:
    try:
        load_cholmod()
    except mx.EngineError:
        return False
    return True


ENGINES = ["auto", "blocked", "sparse"] + (["cholmod"] if have_cholmod() else [])


def crossed_data(seed: int = 0, n: int = 240) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    data = pd.DataFrame(
        {
            "x": rng.normal(size=n),
            "f": rng.choice(["a", "b", "c"], n),
            "g": rng.integers(0, 20, n),
            "h": rng.integers(0, 8, n),
        }
    )
    b, c = rng.normal(size=(20, 2)), rng.normal(size=8)
    data["y"] = 5 + (0.5 + b[data.g, 1]) * data.x + b[data.g, 0] + c[data.h] + rng.normal(size=n)
    return data


DATA = crossed_data()
FORMULAS = {
    "one factor": "y ~ x + (x | g)",
    "crossed": "y ~ f * poly(x, 2) + (x | g) + (1 | h)",
    "computed": "log(y + 20) ~ I(x > 0) + scale(x) + (1 | g:h)",
}


def fitted(formula: str, engine: str = "auto") -> mx.LinearMixedFit:
    return mx.lmer(formula, DATA, engine=engine, control=QUIET)


def by_pickle(thing: Any) -> Any:
    return pickle.loads(pickle.dumps(thing))


COPIES = pytest.mark.parametrize("copied", [by_pickle, copy.deepcopy], ids=["pickle", "deepcopy"])


@COPIES
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("formula", FORMULAS.values(), ids=FORMULAS)
def test_copied_fit_does_all_that_the_fit_does(
    formula: str, engine: str, copied: Callable[[Any], Any]
) -> None:
    fit = fitted(formula, engine)
    other = copied(fit)
    assert type(other) is type(fit)
    assert other.criterion == fit.criterion
    pd.testing.assert_frame_equal(other.tidy(), fit.tidy(), rtol=1e-9)
    np.testing.assert_allclose(other.hatvalues(), fit.hatvalues(), rtol=1e-9)
    np.testing.assert_array_equal(other.fittedvalues, fit.fittedvalues)
    new = DATA.iloc[5:9]
    np.testing.assert_allclose(other.predict(new), fit.predict(new), rtol=1e-12)
    y = fit.simulate(1, seed=1)[:, 0]
    assert np.isclose(other.refit(y).criterion, fit.refit(y).criterion, rtol=1e-10)
    smaller = "y ~ x + (1 | g)"
    assert np.isclose(other.update(smaller).criterion, fit.update(smaller).criterion)


def test_a_pickle_holds_the_columns_of_the_model_only() -> None:
    fit = fitted("y ~ x + (1 | g)")
    other = by_pickle(fit)
    assert set(other.matrices.data.table.columns) == {"y", "x", "g"}
    with pytest.raises(mx.DataError, match=r"no column 'f' among those that the fit has kept"):
        other.update(". ~ . + f")
    expected = fit.update(". ~ . + f")
    assert other.update(". ~ . + f", data=DATA).criterion == pytest.approx(expected.criterion)
    assert copy.deepcopy(fit).update(". ~ . + f").criterion == pytest.approx(expected.criterion)


RESULTS: dict[str, Callable[[mx.LinearMixedFit], Any]] = {
    "matrices": lambda fit: fit.matrices,
    "system": lambda fit: fit.system,
    "optimum": lambda fit: fit.optimum,
    "solution": lambda fit: fit.solution,
    "control": lambda fit: fit.options.control,
    "formula": lambda fit: mx.parse_formula(fit.formula),
    "varcorr": lambda fit: fit.varcorr,
    "convergence": lambda fit: fit.convergence,
    "summary": lambda fit: fit.summary(),
    "emmeans": lambda fit: fit.emmeans("x"),
    "profile": lambda fit: fit.profile("sigma"),
    "bootstrap": lambda fit: fit.bootstrap(3, seed=1, progress=False),
    "influence": lambda fit: fit.influence("g", refit=False),
    "robust": lambda fit: fit.robust(),
    "step": lambda fit: fit.step(),
    "all_fit": lambda fit: fit.all_fit(["bfgs", "bobyqa"], progress=False),
    "pb_modcomp": lambda fit: mx.pb_modcomp(
        fit, fit.update(". ~ . - x"), nsim=3, seed=1, progress=False
    ),
    "compare_table": lambda fit: mx.compare_table([fit, fit]),
    "lmer_many": lambda fit: mx.lmer_many("~ x + (1 | g)", DATA, ["y"], progress=False),
    "lm_list": lambda fit: mx.lm_list("y ~ x | h", DATA),
    "deviance_function": lambda fit: mx.deviance_function(fit.formula, DATA),
    "fit from matrices": lambda fit: mx.fit_matrices(DATA["y"], np.ones(len(DATA)), [(DATA["g"],)]),
    "dataset": lambda fit: mx.datasets.load("sleepstudy"),
}


@COPIES
@pytest.mark.parametrize("name", RESULTS)
def test_results_can_be_copied(name: str, copied: Callable[[Any], Any]) -> None:
    thing = RESULTS[name](fitted(FORMULAS["one factor"]))
    other = copied(thing)
    assert type(other) is type(thing)
    assert repr(other) == repr(thing) or " at 0x" in repr(thing)


def test_copied_criterion_is_the_criterion() -> None:
    d = mx.deviance_function(FORMULAS["crossed"], DATA)
    theta = d.theta0 * 0.7
    assert by_pickle(d)(theta) == pytest.approx(d(theta), rel=1e-12)


def test_copied_bootstrap_gives_its_intervals() -> None:
    boot = fitted("y ~ x + (1 | h)").bootstrap(20, seed=1, progress=False)
    pd.testing.assert_frame_equal(
        by_pickle(boot).confint(type="bca"), boot.confint(type="bca"), rtol=1e-6
    )


def test_fits_pickled_together_share_their_engine() -> None:
    fit = fitted(FORMULAS["crossed"])
    pair = by_pickle((fit, fit.refit(DATA["y"] + DATA["x"])))
    assert pair[0].system.engine is pair[1].system.engine
    assert pair[0].system.lock is pair[1].system.lock


def _criterion_without(h: int) -> mx.LinearMixedFit:
    return mx.lmer("y ~ x + (1 | g)", DATA[DATA.h != h], control=QUIET)


def _standard_errors(fit: mx.LinearMixedFit) -> pd.DataFrame:
    return fit.tidy(["fixed", "ran_pars"], conf_int=True)


@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_fits_go_through_process_pools(method: str) -> None:
    if method == "fork":
        pytest.skip("forks beside threads of other tests; the other methods send everything")
    fit = fitted(FORMULAS["crossed"])
    context = multiprocessing.get_context(method)
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        there = pool.submit(_standard_errors, fit).result()
        back = pool.submit(_criterion_without, 3).result()
    pd.testing.assert_frame_equal(there, _standard_errors(fit), rtol=1e-6)
    assert back.criterion == pytest.approx(_criterion_without(3).criterion, rel=1e-12)


QUESTIONS: dict[str, Callable[[mx.LinearMixedFit], Any]] = {
    "variance components": lambda fit: fit.variance_components().select_dtypes(float),
    "tests": lambda fit: fit.tidy(["fixed", "ran_pars"], conf_int=True).select_dtypes(float),
    "Kenward-Roger": lambda fit: fit.tidy(ddf="kenward-roger").select_dtypes(float),
    "profile": lambda fit: fit.profile("sigma", level_max=0.95).confint(0.9).select_dtypes(float),
    "conditional covariances": lambda fit: fit.ranef(cond_var=True)[1]["g"],
    "leverage": lambda fit: fit.hatvalues(),
    "predictions": lambda fit: fit.predict(NEW, se=True),
    "eigenvalues": lambda fit: fit.convergence.hessian_eigenvalues,
    "refit": lambda fit: fit.refit(DATA["y"] + DATA["x"]).theta,
    "influence": lambda fit: fit.influence("g", refit=False).dfbetas().select_dtypes(float),
    "intervals": lambda fit: fit.confint("wald"),
    "deviance": lambda fit: mx.DevianceFunction(fit.system).gradient(fit.theta * 0.9),
}
NEW = DATA.assign(h=DATA["h"].to_numpy()[::-1]).iloc[:60]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("formula", ["one factor", "crossed"])
def test_threads_get_the_same_numbers(formula: str, engine: str) -> None:
    fit = fitted(FORMULAS[formula], engine)
    expected = {name: np.asarray(ask(fit)) for name, ask in QUESTIONS.items()}
    fresh = by_pickle(fit)  # nothing is kept there yet
    tasks = list(QUESTIONS) * 2

    def answer(name: str) -> np.ndarray:
        return np.asarray(QUESTIONS[name](fresh))

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(answer, tasks))
    for name, found in zip(tasks, answers, strict=True):
        np.testing.assert_allclose(found, expected[name], rtol=1e-5, atol=1e-8, err_msg=name)
