"""Power of a planned study: simulate, fit, test, count."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.linalg import LinAlgError
from numpy.typing import NDArray
from scipy.special import chdtrc

from mixlm_sparse.api.fit import LinearMixedFit
from mixlm_sparse.api.power_result import Power
from mixlm_sparse.common.checks import (
    MAX_REPLICATES,
    listed,
    require_bool,
    require_count,
    require_jobs,
    require_level,
    require_names,
    require_one_of,
)
from mixlm_sparse.common.errors import MixedModelError, OptionError
from mixlm_sparse.common.keywords import answers_unknown_keywords
from mixlm_sparse.common.parallel import Progress, run
from mixlm_sparse.common.types import Array3, Matrix, Vector
from mixlm_sparse.design.columns import ArrayColumns
from mixlm_sparse.design.matrices import ModelMatrices
from mixlm_sparse.engines.decisions import steady
from mixlm_sparse.engines.threads import calm
from mixlm_sparse.inference.fixed.satterthwaite import satterthwaite
from mixlm_sparse.inference.fixed.satterthwaite_many import single_tests
from mixlm_sparse.inference.fixed.tests import f_p
from mixlm_sparse.model.base import unit_of_theta
from mixlm_sparse.model.call import FitOptions, ModelCall
from mixlm_sparse.model.designs import with_given_response
from mixlm_sparse.model.draws import ResponseModel, Seed, seed_sequence
from mixlm_sparse.model.fitted import FittedModel
from mixlm_sparse.model.given import Parameters, given_parameters
from mixlm_sparse.model.refit_rows import FAILED, Row
from mixlm_sparse.model.refits import Refit, RefitBlock, block_size, threads_serve, warm_up
from mixlm_sparse.model.simulate import model_of_parameters
from mixlm_sparse.model.warm import quiet
from mixlm_sparse.solve.search.control import Control
from mixlm_sparse.solve.system import PenalizedSystem, penalized_system

__all__ = ["power"]

TESTS = ("satterthwaite", "z", "lr")
INTERVALS = ("wilson", "clopper-pearson")
PARAMETERS = ("beta", "theta", "sd", "cov", "sigma")


@answers_unknown_keywords
@calm
def power(
    formula: str,
    data: Any,
    parameters: Mapping[str, Any] | FittedModel,
    effect: str | list[str] | tuple[str, ...],
    nsim: int = 1000,
    alpha: float = 0.05,
    seed: Seed = None,
    progress: Progress = None,
    *,
    test: str | Callable[[Any], float] = "satterthwaite",
    reml: bool = True,
    n_jobs: int = 1,
    weights: Any = None,
    offset: Any = None,
    subset: Any = None,
    contrasts: Mapping[str, Any] | None = None,
    env: Mapping[str, Any] | None = None,
    engine: str = "auto",
    level: float = 0.95,
    interval: str = "wilson",
) -> Power:
    """Estimate the power to find an effect, by simulation.

    Responses are drawn from the parameters, the model is fitted to each, and the effect is tested.
    The design is made once for all of them.

    Parameters
    ----------
    formula : as for `lmer`; a response is not needed, and not read if there is one.
    data : the planned design: a frame with the columns of the right side.
    parameters : a mapping with "beta" (a mapping from the names of the coefficients, or an array),
        "sigma", and "theta", "sd" or "cov", as in `mx.simulate`; or a fit, whose estimates are
        taken.
    effect : name of the coefficient that is tested, or names to test jointly.
    nsim : simulations.
    alpha : level of the test.
    seed : whole number, numpy Generator or SeedSequence.
    progress : None for a bar in terminals and notebooks, False for silence, or a function of (done,
        total) that returns False to end early.
    test : "satterthwaite" (t or F with estimated degrees of freedom), "z" (normal or chi-squared),
        "lr" (likelihood ratio of the models with and without the effect, by ML), or a function of
        a fit that returns a p-value.
    reml : fit by REML; "lr" fits by ML.
    n_jobs : processes; -1 takes all processors.
    weights, offset, subset, contrasts, env, engine : as in `lmer`.
    level, interval : of the Monte-Carlo interval; "wilson" or "clopper-pearson".

    Returns
    -------
    Power : `power`, `conf_int`, `p_values`, `to_frame()`.

    Raises
    ------
    OptionError, DataError, FormulaError : with the remedy.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> plan = {"x": [0.0, 1.0] * 30, "g": [f"g{i // 6}" for i in range(60)]}
    >>> truth = {"beta": {"(Intercept)": 0.0, "x": 0.8}, "sd": {"g": 0.5}, "sigma": 1.0}
    >>> found = mx.power("y ~ x + (1 | g)", plan, truth, effect="x", nsim=200, seed=1)
    >>> 0.75 < found.power < 0.95
    True
    """
    count = require_count("nsim", nsim, most=MAX_REPLICATES)
    alpha, level = require_level("alpha", alpha), require_level("level", level)
    require_one_of("interval", interval, INTERVALS)
    if not callable(test):
        require_one_of("test", test, TESTS)
    by_reml = require_bool("reml", reml) and test != "lr"
    options = FitOptions(reml=by_reml, engine=engine, control=Control(warn=False)).checked()
    call = ModelCall(
        formula=formula,
        data=data,
        weights=weights,
        offset=offset,
        subset=subset,
        contrasts=contrasts,
        env=env,
        options=options,
    ).checked()
    made, true = _simulations(call, parameters, effect, test, seed, count)
    work = steady(made, compiled=made.compiled)
    if require_jobs(n_jobs) != 1:
        # what is loaded and compiled here need not be in every process
        list(work(range(1)))
    threads = test in ("z", "lr") and threads_serve(
        made.system, made.options, compiled=made.compiled, count=count
    )
    # processes share the work by smaller pieces; digits do not depend on these
    apart = require_jobs(n_jobs) != 1 and not threads
    done, _ = run(
        work, count, block_size(made.system, compiled=made.compiled or apart),
        n_jobs=n_jobs, threads=threads, progress=progress, label="power", unit="simulations",
    )  # fmt: skip
    return Power(
        effect=tuple(made.system.x_names[j] for j in made.at),
        test=getattr(test, "__name__", "function") if callable(test) else test,
        alpha=alpha,
        true=true,
        **_columns(done, made.at.size),
        nsim=count,
        level=level,
        interval=interval,
    )


Simulation = tuple[float, Vector, Vector, str, str]


@dataclass(frozen=True, eq=False, slots=True)
class _Simulations:
    """Simulated tests of a range; plain data, so that it can go to other processes.

    Parameters
    ----------
    model, root : what responses are drawn from.
    system, reduced : the design, and that without the effect for likelihood ratios.
    at : positions of the effect among the coefficients.
    """

    model: ResponseModel
    root: np.random.SeedSequence
    system: PenalizedSystem
    reduced: PenalizedSystem | None
    at: NDArray[np.int64]
    test: Any
    options: FitOptions
    formula: str
    compiled: bool

    def __call__(self, tasks: range) -> Iterator[Simulation]:
        Y = self.model.draw(self.root, tasks.start, len(tasks))
        tested = self.test == "satterthwaite" and self.at.size == 1
        above = RefitBlock(
            self.system, Y, self.options, compiled=self.compiled, curved=tested
        )
        if self.reduced is not None:
            below = RefitBlock(self.reduced, Y, self.options, compiled=self.compiled)
            for row, smaller in zip(above.rows(), below.rows(), strict=True):
                yield self._ratio(row, smaller)
            return
        numbers, here = above.values, above.at_once
        if numbers is None or not (tested or self.test == "z"):
            for refit in above:
                yield self._simulation(refit)
            return
        beta, RX_inv = numbers.beta[:, self.at], numbers.RX_inv[:, self.at]
        V = (numbers.sigma**2)[:, None, None] * (RX_inv @ np.swapaxes(RX_inv, 1, 2))
        if tested and above.curvature is not None:
            p, known = single_tests(numbers, above.curvature, int(self.at[0]))
            here = here & known
        else:
            V[~here] = np.eye(self.at.size)
            p = _wald(beta, V)
        se = np.sqrt(np.diagonal(V, axis1=1, axis2=2))
        for i, (at_once, value) in enumerate(zip(here.tolist(), p.tolist(), strict=True)):
            if at_once:
                yield value, beta[i], se[i], numbers.status[i], numbers.message[i]
            else:
                yield self._simulation(above.refit(i))

    def _ratio(self, row: Row, smaller: Row) -> Simulation:
        """Return the likelihood-ratio test of one response."""
        for one in (row, smaller):
            if one.status == FAILED:
                nothing = np.full(self.at.size, np.nan)
                return np.nan, nothing, nothing, FAILED, one.message
        assert row.beta is not None
        assert row.bse is not None
        p = float(chdtrc(self.at.size, max(smaller.criterion - row.criterion, 0.0)))
        return p, row.beta[self.at], row.bse[self.at], row.status, row.message

    def _simulation(self, refit: Refit) -> Simulation:
        nothing = np.full(self.at.size, np.nan)
        if refit.optimum is None or refit.solution is None:
            return np.nan, nothing, nothing, FAILED, refit.message
        # a test of the user's own may raise anything
        own = callable(self.test)
        failures = Exception if own else (MixedModelError, ArithmeticError, LinAlgError)
        try:
            p = self._p_value(refit)
        except failures as error:
            return np.nan, nothing, nothing, FAILED, f"{type(error).__name__}: {error}"
        se = refit.unit_of_theta * np.sqrt(np.diag(refit.solution.vcov_unscaled)[self.at])
        return p, refit.solution.beta[self.at], se, refit.optimum.status, refit.message

    def _p_value(self, refit: Refit) -> float:
        assert refit.optimum is not None
        assert refit.solution is not None
        at = self.at
        if self.test == "z":
            beta = refit.solution.beta[at]
            V = refit.unit_of_theta**2 * refit.solution.vcov_unscaled[np.ix_(at, at)]
            return float(_wald(beta[None], V[None])[0])
        fit = LinearMixedFit(
            system=refit.system,
            optimum=refit.optimum,
            solution=refit.solution,
            options=self.options,
            formula=self.formula,
        )
        if callable(self.test):
            return float(self.test(fit))
        joint = satterthwaite(fit).joint(np.eye(self.system.p)[at], np.zeros(at.size))
        return f_p(joint.F, joint.num_df, joint.den_df)


def _wald(beta: Matrix, V: Array3) -> Vector:
    """Return the p-values (r,) of beta = 0 in r fits, by chi-squared; beta (r, k), V (r, k, k)."""
    statistic = np.einsum("rk,rk->r", beta, np.linalg.solve(V, beta[:, :, None])[:, :, 0])
    return np.asarray(chdtrc(beta.shape[1], np.maximum(statistic, 0.0)))


def _simulations(
    call: ModelCall, parameters: Any, effect: Any, test: Any, seed: Seed, count: int
) -> tuple[_Simulations, Vector]:
    """Return the simulations that are to be run, and the effects that they are drawn from."""
    matrices, call = with_given_response(call)
    truth = _parameters(parameters, matrices)
    model = model_of_parameters(matrices, truth)
    system = _system(matrices, call)
    effects = tuple(require_names("effect", effect, what="coefficient"))
    at = _positions(effects, system)
    reduced = _without(at, system, call) if test == "lr" else None
    options = replace(quiet(call.options), start=_start(truth, system))
    root = seed_sequence(seed)
    compiled = warm_up(system, count)
    work = _Simulations(model, root, system, reduced, at, test, options, call.formula, compiled)
    return work, truth.beta[[matrices.fixed.names.index(name) for name in effects]]


def _columns(done: list[Simulation], k: int) -> dict[str, Any]:
    """Return what r simulations of k effects gave, by the names that `Power` has for it."""
    return {
        "p_values": np.array([row[0] for row in done], dtype=np.float64),
        "estimates": np.array([row[1] for row in done]).reshape(len(done), k),
        "std_errors": np.array([row[2] for row in done]).reshape(len(done), k),
        "status": tuple(row[3] for row in done),
        "message": tuple(row[4] for row in done),
    }


def _parameters(parameters: Any, matrices: ModelMatrices) -> Parameters:
    if isinstance(parameters, FittedModel):
        fit = parameters
        beta = dict.fromkeys(matrices.fixed.names, 0.0)
        beta.update({name: float(v) for name, v in fit.fixef.items() if name in beta})
        absent = [n for n in fit.system.x_names if n not in matrices.fixed.names]
        unknown = [n for n in matrices.fixed.names if n not in fit.matrices.fixed.names]
        if absent or unknown:
            raise OptionError(
                "the fit and the formula differ in the coefficients "
                f"{listed(absent + unknown, quoted=True)}: "
                "give parameters as a mapping with beta, sigma and theta, sd or cov"
            )
        return given_parameters(matrices, beta=beta, theta=fit.theta, sigma=unit_of_theta(fit))
    if not isinstance(parameters, Mapping):
        raise OptionError(
            f"parameters is a {type(parameters).__name__}: give a mapping with beta, sigma and "
            "theta, sd or cov; or a fit"
        )
    unknown = [str(name) for name in parameters if name not in PARAMETERS]
    if unknown or "beta" not in parameters or "sigma" not in parameters:
        what = f"has {listed(unknown, quoted=True)}" if unknown else "lacks beta or sigma"
        raise OptionError(f"parameters {what}: give beta, sigma, and theta, sd or cov")
    return given_parameters(matrices, **{str(k): v for k, v in parameters.items()})


def _positions(effects: tuple[str, ...], system: PenalizedSystem) -> np.ndarray:
    for name in effects:
        if name in system.dropped:
            raise OptionError(
                f"the effect '{name}' is a combination of earlier columns and cannot be tested: "
                "leave it out of the formula, or change the design"
            )
        if name not in system.x_names:
            raise OptionError(
                f"effect names '{name}', but the coefficients are "
                f"{listed(system.x_names, quoted=True)}"
            )
    if not effects or len(set(effects)) < len(effects):
        raise OptionError(f"effect is {list(effects)}: give one name, or several different ones")
    return np.array([system.x_names.index(name) for name in effects])


def _system(matrices: ModelMatrices, call: ModelCall) -> PenalizedSystem:
    options = call.options
    return penalized_system(matrices, options.engine, estimation=options.control.estimation)


def _without(at: np.ndarray, system: PenalizedSystem, call: ModelCall) -> PenalizedSystem:
    """Return the system without the columns that are tested."""
    m = system.matrices
    keep = [j for i, j in enumerate(system.products.kept) if i not in at]
    names = tuple(m.fixed.names[j] for j in keep)
    X = m.fixed.block(slice(0, m.nobs))[:, keep]
    return _system(replace(m, fixed=ArrayColumns(names, X), spec=None), call)


def _start(truth: Parameters, system: PenalizedSystem) -> Vector | None:
    """Return the true theta as a start, unless a variance is zero: a saddle, a bad start."""
    at_bound = (system.lower == 0.0) & (truth.theta <= 0.0)
    return None if at_bound.any() else truth.theta
