"""Values that no argument is meant for, and every public call with its arguments.

`calls()` is a table: a name, the function, and arguments with which it works.  The test puts each
hostile value in the place of each argument.
"""

from __future__ import annotations

import datetime
import decimal
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import mixlm_sparse as mx


class Broken:
    """An object of which nothing works."""

    def _fail(self, *_: object) -> Any:
        raise RuntimeError("broken")

    __repr__ = __str__ = __bool__ = __len__ = __iter__ = __float__ = __index__ = _fail
    __array__ = __eq__ = __lt__ = _fail
    __hash__ = None  # type: ignore[assignment]


VALUES: dict[str, Any] = {
    "None": None, "True": True, "0": 0, "1": 1, "-1": -1, "95": 95, "0.5": 0.5, "nan": float("nan"),
    "inf": float("inf"), "1e9": 10**9, "10**400": 10**400, "1j": 1j, "empty text": "", "zz": "zz",
    "backticks": "`zz`", "surrogate": "\ud800", "long text": "z" * 100_000, "bytes": b"zz",
    "[]": [], "['zz']": ["zz"], "[1]": [1], "[None]": [None], "[[1, 2], [3]]": [[1, 2], [3]],
    "()": (), "{}": {}, "{'zz': 1}": {"zz": 1}, "{1: 2}": {1: 2}, "{'zz': []}": {"zz": []},
    "set": {1}, "empty array": np.array([]), "zeros": np.zeros(3), "matrix": np.zeros((2, 2)),
    "texts": np.array(["a", "b"]), "0-d": np.array(np.nan), "objects": np.array([{}, None]),
    "NA": pd.NA, "NaT": pd.NaT, "Series": pd.Series([1.0, np.nan], index=["a", "a"]),
    "frame": pd.DataFrame({"zz": [1, 2]}), "twice": pd.DataFrame([[1, 2]], columns=["zz", "zz"]),
    "time": pd.Timestamp("2020-01-01"), "date": datetime.date(2020, 1, 1),
    "decimal": decimal.Decimal("0.5"), "object": object(), "class": int,
    "function": lambda *_, **__: None,
    "range": range(10**12), "broken": Broken(),
}  # fmt: skip


@dataclass(frozen=True)
class Call:
    """One public function, with arguments that it accepts."""

    name: str
    function: Callable[..., Any]
    arguments: dict[str, Any] = field(default_factory=dict)
    without: tuple[str, ...] = ()  # arguments that take anything, or are not ours to check
    works: bool = True  # whether the arguments are good ones

    def names(self) -> list[str]:
        """Names of the arguments that a value can be put in."""
        found = [
            name
            for name, p in inspect.signature(self.function).parameters.items()
            if p.kind is not inspect.Parameter.VAR_KEYWORD
        ]
        return [n for n in dict.fromkeys([*found, *self.arguments]) if n not in self.without]

    def __call__(self, name: str | None = None, value: Any = None) -> Any:
        arguments = dict(self.arguments)
        if name is not None:
            arguments[name] = value
        parameters = inspect.signature(self.function).parameters
        by_place = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.VAR_POSITIONAL)
        places = [arguments.pop(n) for n in list(arguments) if (
            n in parameters and parameters[n].kind in by_place
        )]  # fmt: skip
        return self.function(*places, **arguments)


@cache
def data() -> pd.DataFrame:
    rng = np.random.default_rng(1)
    n = 48
    g = np.repeat(np.arange(8), 6)
    frame = pd.DataFrame(
        {
            "x": np.tile(np.arange(6.0), 8),
            "f": np.tile(list("abc"), 16),
            "g": [f"g{i}" for i in g],
            "w": 1.0 + np.arange(n) % 3,
        }
    )
    effects = rng.normal(size=8)[g] + 0.5 * rng.normal(size=8)[g] * frame["x"]
    frame["y"] = 1.0 + 0.5 * frame["x"] + effects + rng.normal(size=n)
    return frame


FORMULA = "y ~ x + f + (x | g)"


@cache
def fit() -> mx.LinearMixedFit:
    return mx.lmer(FORMULA, data(), control=mx.Control(warn=False))


@cache
def small() -> mx.LinearMixedFit:
    return mx.lmer("y ~ x + (1 | g)", data())


def of_fit(folder: Path) -> Iterator[Call]:
    """Every method of a fit."""
    quick: dict[str, dict[str, Any]] = {
        "bootstrap": {"nsim": 2, "progress": False},
        "confint": {"method": "wald", "parm": "x", "nsim": 2},
        "contest": {"L": "x"},
        "emmeans": {"specs": "f"},
        "emtrends": {"variable": "x"},
        "getME": {"name": "theta"},
        "influence": {"group": "g", "refit": False, "progress": False},
        "profile": {"which": "sigma", "progress": False},
        "refit": {"y": data()["y"]},
        "save": {"path": folder / "fit.mixlm"},
        "all_fit": {"optimizers": ["bobyqa"], "progress": False},
        "update": {"formula": ". ~ ."},
    }
    for name in dir(fit()):
        method = getattr(fit(), name)
        if name.startswith("_") or not inspect.ismethod(method):
            continue
        base = fit() if name not in ("step", "ranova", "profile") else small()
        arguments = quick.get(name, {})
        if name == "confint":
            arguments = {"method": "wald", "parm": "x"}
        # the user's function may raise what it likes
        yield Call(f"fit.{name}", getattr(base, name), arguments, without=("statistic",))
    yield Call("fit.confint(boot)", small().confint, {"method": "boot", "nsim": 2, "seed": 1})
    for name in (
        "weights", "offset", "subset", "na_action", "contrasts", "start", "optimizer", "engine",
        "control", "progress", "env", "reml",
    ):  # fmt: skip
        without = ("formula", "data")
        yield Call(f"fit.update({name}=)", small().update, {name: None}, without, works=False)


def of_results() -> Iterator[Call]:
    """Methods of the objects that a fit's methods return."""
    means = fit().emmeans("f")
    yield Call("emmeans.contrast", means.contrast, {"method": [1.0, -1.0, 0.0]})
    for name in ("pairs", "confint", "letters", "eff_size", "joint"):
        yield Call(f"emmeans.{name}", getattr(means, name))
    yield Call("emmeans.test", means.test)
    profile = small().profile("sigma", progress=False)
    yield Call("profile.confint", profile.confint)
    yield Call("profile[]", profile.__getitem__, {"name": "sigma"})
    boot = small().bootstrap(3, seed=1, progress=False)
    yield Call("bootstrap.confint", boot.confint)
    yield Call("bootstrap.to_frame", boot.to_frame)
    yield Call("robust.table", fit().robust().table)
    yield Call("varcorr[]", fit().varcorr.__getitem__, {"name": "g"})
    many = mx.lmer_many("y ~ x + (1 | g)", data(), ["y", "w"], progress=False)
    yield Call("many.fit", many.fit, {"i": 0})
    several = mx.lm_list("y ~ x | g", data())
    for name in ("conf_int", "std_errors", "tidy"):
        yield Call(f"lm_list.{name}", getattr(several, name))
    criterion = mx.deviance_function("y ~ x + (1 | g)", data())
    yield Call("deviance_function()", lambda theta: criterion(theta), {"theta": [1.0]})
    yield Call("deviance_function.gradient", criterion.gradient, {"theta": [1.0]})
    yield Call("deviance_function.parts", criterion.parts, {"theta": [1.0]})


def of_package(folder: Path) -> Iterator[Call]:
    """Every function of the package."""
    small().save(folder / "saved.mixlm")
    frame = data()
    system = mx.penalized_system(mx.model_matrices("y ~ x + (1 | g)", frame))
    optimum = mx.optimize(system)
    X = np.column_stack([np.ones(len(frame)), frame["x"]])
    plain = {"formula": "y ~ x + (1 | g)", "data": frame}
    truth = {"beta": [0.0, 1.0], "theta": [1.0], "sigma": 1.0}
    table: dict[str, dict[str, Any]] = {
        "all_fit": {"fit": small(), "optimizers": ["bobyqa"], "progress": False},
        "anova": {"fit": small()},
        "compare_table": {"fits": [small(), fit()]},
        "deviance_function": plain,
        "fit_matrices": {"y": frame["y"], "X": X, "terms": [(frame["g"],)]},
        "gls": {"formula": "y ~ x", "data": frame},
        "lm_list": {"formula": "y ~ x | g", "data": frame},
        "lmer": plain,
        "lmer_many": {**plain, "responses": ["y", "w"], "progress": False},
        "load": {"path": folder / "saved.mixlm"},
        "make_fit": {"system": system, "optimum": optimum},
        "model_matrices": plain,
        "optimize": {"system": system},
        "parse_formula": {"text": "y ~ x + (1 | g)"},
        "pb_modcomp": {"larger": small(), "smaller": small().update(". ~ . - x"), "nsim": 2,
                       "progress": False},
        "penalized_system": {"matrices": system.matrices},
        "power": {**plain, "parameters": truth, "effect": "x", "nsim": 2, "progress": False},
        "power_curve": {**plain, "parameters": truth, "effect": "x", "n": [3, 9], "nsim": 2,
                        "progress": False},
        "simulate": {**plain, **truth},
        "solve_pls": {"theta": [1.0], "system": system},
    }  # fmt: skip
    for name in mx.__all__:
        function = getattr(mx, name)
        if inspect.isfunction(function) and name != "use_compiled":
            without = ("others",) if name == "anova" else ()
            yield Call(name, function, table[name], without)
    yield Call("Control", mx.Control)
    yield Call("RandomEffect", mx.RandomEffect, {"groups": frame["g"]})
    yield Call("datasets.load", mx.datasets.load, {"name": "sleepstudy"})


def of_plots() -> Iterator[Call]:
    """Every plot."""
    several = mx.lm_list("y ~ x | g", data())
    profile = small().profile(progress=False)
    boot = small().bootstrap(5, seed=1, progress=False)
    more: dict[str, dict[str, Any]] = {
        "predictions": {"x": "x"},
        "coefficient_by": {"by": "x"},
        "effects_by": {"by": "x"},
        "trajectories": {"x": "x"},
    }
    for name in mx.plots.__all__:
        function = getattr(mx.plots, name)
        first = next(iter(inspect.signature(function).parameters))
        source: Any = fit()
        if name.startswith("coefficient") or name == "least_squares_trellis":
            source = several
        elif name.startswith("profile"):
            source = profile
        elif name == "bootstrap":
            source = boot
        elif name == "marginal_means":
            source = fit().emmeans("f")
        yield Call(f"plots.{name}", function, {first: source, **more.get(name, {})})


def calls(folder: Path) -> Iterator[Call]:
    yield from of_package(folder)
    yield from of_fit(folder)
    yield from of_results()
    yield from of_plots()
