"""Values that no argument is meant for, and every public call with its arguments.

`calls()` is a table: a name, the function, and arguments with which it works.  Methods come from
the objects themselves, so that a new one is in the table when it is written.  The test puts each
hostile value in the place of each argument.
"""

from __future__ import annotations

import datetime
import decimal
import functools
import inspect
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd

import mixlm_sparse as mx
from mixlm_sparse.api import compile_kernels
from mixlm_sparse.common.tables import PrintsAsTable


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
    "range": range(10**12), "broken": Broken(), "no": "no", "-inf": -float("inf"), "2.5": 2.5,
    "nested": [[[1.0]]], "ragged": {"zz": [[1], [1, 2]]}, "key of None": {None: 1},
    "key of 1": {1: [1]}, "exception": ValueError, "NaNs": [float("nan")] * 3,
    "complex": np.array([1j]), "dates": np.array(["2020-01-01"], dtype="M8[D]"),
    "tuple of texts": ("zz", "zz"), "frame of objects": pd.DataFrame({1: [{}]}),
    "categories": pd.Categorical(["a", None]), "number as text": "1", "np.str_": np.str_("zz"),
    "huge": 1e308, "tiny": 5e-324, "folder": ".", "generator": (i for i in ()),
}  # fmt: skip

INSIDE_OF = ("None", "True", "-1", "nan", "inf", "1e9", "10**400", "1j", "empty text", "zz", "no",
             "surrogate", "bytes", "[]", "[[1, 2], [3]]", "{'zz': 1}", "matrix", "texts", "NA",
             "Series", "frame", "time", "object", "function", "range", "huge")  # fmt: skip


def values() -> Iterator[tuple[str, Any]]:
    """Every hostile value, and some of them in a list."""
    yield from VALUES.items()
    for label in INSIDE_OF:
        yield f"[{label}]", [VALUES[label]]


# Arguments that take a mapping: what has a hostile value where a good one is expected.
HIDDEN: dict[str, Callable[[Any], Any]] = {
    "sd": lambda v: {"g": v},
    "cov": lambda v: {"g": v},
    "beta": lambda v: {"(Intercept)": 0.0, "x": v},
    "parameters": lambda v: {"beta": [0.0, 1.0], "theta": [1.0], "sigma": v},
    "at": lambda v: {"x": v},
    "contrasts": lambda v: {"f": v},
    "env": lambda v: {"log": v},
    "L": lambda v: {"x": v},
    "specs": lambda v: ["f", v],
    "parm": lambda v: ["x", v],
    "data": lambda v: {**data().to_dict("list"), "x": [v] * len(data())},
    "newdata": lambda v: {**data().to_dict("list"), "x": [v] * len(data())},
    "terms": lambda v: [(data()["g"], v)],
    "fits": lambda v: [small(), v],
    "optimizers": lambda v: ["bobyqa", v],
    "names": lambda v: ["a", v],
    "responses": lambda v: ["y", v],
    "y": lambda v: [v] * len(data()),
    "weights": lambda v: [v] * len(data()),
    "offset": lambda v: [v] * len(data()),
    "subset": lambda v: [v] * len(data()),
    "cluster": lambda v: [v] * len(data()),
}

MANY = ("-1", "95", "1e9", "10**400")  # numbers of processes that are good ones, and slow
ARRAYS = {"rhs"}  # a number, or one for each
# any text will do, or other kinds of values as well
TEXTS = {"y_name", "bins", "by", "method", "sigma", "cov_reduce"}

FLAGS = (True, False, np.bool_(True), np.bool_(False))  # all that a flag takes


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

    def suits(self, name: str, value: Any) -> bool:
        """Say whether the argument may take a value of VALUES: one of the type of its default."""
        parameter = inspect.signature(self.function).parameters.get(name)
        default = None if parameter is None else parameter.default
        number = isinstance(value, int | float | np.generic | np.ndarray) and np.ndim(value) == 0
        if name in TEXTS:
            return True
        if isinstance(default, bool):
            return isinstance(value, bool)
        if isinstance(default, float) and name not in ARRAYS:
            return number and not isinstance(value, bool) and not math.isnan(value)
        if isinstance(default, int):
            whole = isinstance(value, int) and not isinstance(value, bool)
            return whole or (name == "type" and value == "1")
        if isinstance(default, str):  # of a few known ones
            return value is None or callable(value)
        return True

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


def _is_method(value: Any) -> bool:
    """A bound method, or a function that is bound to an object."""
    return inspect.ismethod(value) or isinstance(value, functools.partial)


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
        if name.startswith("_") or not _is_method(method):
            continue
        base = fit() if name not in ("step", "ranova", "profile") else small()
        arguments = quick.get(name, {})
        if name == "confint":
            arguments = {"method": "wald", "parm": "x"}
        # the user's function may raise what it likes
        works = name != "append"  # which needs a fit of products
        owner = mx.lmer("y ~ x + f + (1 | g)", data()) if name == "heritability" else base
        yield Call(f"fit.{name}", getattr(owner, name), arguments, ("statistic",), works)
    yield Call("fit.confint(boot)", small().confint, {"method": "boot", "nsim": 2, "seed": 1})
    for name in (
        "weights", "offset", "subset", "na_action", "contrasts", "start", "optimizer", "engine",
        "control", "progress", "env", "reml",
    ):  # fmt: skip
        without = ("formula", "data")
        yield Call(f"fit.update({name}=)", small().update, {name: None}, without, works=False)


@cache
def results() -> dict[str, Any]:
    """Objects that a user gets, but for the fit, by the name of their class."""
    system = mx.penalized_system(mx.model_matrices("y ~ x + (1 | g)", data()))
    profile = small().profile("sigma", progress=False)
    smaller = small().update(". ~ . - x")
    truth = {"beta": [0.0, 1.0], "theta": [1.0], "sigma": 1.0}
    plan = ("y ~ x + (1 | g)", data(), truth, "x")
    objects = [
        fit().emmeans("f"), fit().emmeans("f").to_frame(), fit().summary(), fit().varcorr,
        fit().robust(), fit().convergence, fit().identification, fit().optimum, fit().curvature,
        fit().influence("g", refit=False, progress=False), profile, profile["sigma"],
        small().bootstrap(5, seed=1, progress=False), small().step(),
        small().all_fit(["bobyqa"], progress=False),
        mx.lmer_many("y ~ x + (1 | g)", data(), ["y", "w"], progress=False),
        mx.lm_list("y ~ x | g", data()), mx.deviance_function("y ~ x + (1 | g)", data()), system,
        system.matrices, mx.solve_pls([1.0], system), mx.parse_formula("y ~ x + (1 | g)"),
        mx.pb_modcomp(small(), smaller, 2, progress=False),
        mx.power(*plan, nsim=2, progress=False), mx.RandomEffect(data()["g"]), mx.Control(),
    ]  # fmt: skip
    return {type(found).__name__: found for found in objects}


GOOD: dict[str, dict[str, Any]] = {  # arguments with which a method works
    "MarginalMeans.contrast": {"method": [1.0, -1.0, 0.0]},
    "Identification.coefficients": {"L": [[1.0, 0.0, 0.0, 0.0]]},
    "Profile[]": {"name": "sigma"},
    "Profile.get": {"key": "sigma"},
    "ParameterProfile.backward": {"zeta": 0.5},
    "ParameterProfile.forward": {"value": 1.0},
    "ParameterProfile.limits": {"level": 0.95},
    "AllFits[]": {"name": "bobyqa"},
    "AllFits.get": {"key": "bobyqa"},
    "VarCorr[]": {"name": "g"},
    "ManyFits.fit": {"i": 0},
    "ManyFits.save": {"path": "many_of_results.mixlm"},
    "DevianceFunction()": {"theta": [1.0]},
    "DevianceFunction.gradient": {"theta": [1.0]},
    "DevianceFunction.value_and_gradient": {"theta": [1.0]},
    "DevianceFunction.parts": {"theta": [1.0]},
    "PlsSolution.Lambda": {"term": 0},
    "PlsSolution.b": {"term": 0},
    "PlsSolution.u": {"term": 0},
    "PlsSolution.conditional_covariance": {"term": 0},
}
INSIDE = {  # the package's own rooms
    "Identification", "PenalizedSystem", "PlsSolution.grown", "PlsSolution.left_out",
    "PlsSolution.times_RX_inv",
    "VarCorr()",  # says that there is no such thing
}  # fmt: skip
GIVEN = {"__call__": "()", "__getitem__": "[]"}


def methods(found: Any) -> Iterator[Call]:
    """Every method of an object, and what stands for one: `curve(x)`, `table[name]`."""
    kind = type(found)
    internal = getattr(sys.modules[kind.__module__], "INTERNAL", ())
    own = [base.__dict__ for base in kind.__mro__ if base.__module__.startswith("mixlm_sparse")]
    for name in sorted({name for names in own for name in names}):
        label = kind.__name__ + GIVEN.get(name, f".{name}")
        hidden = (name.startswith("_") and name not in GIVEN) or name in internal
        if hidden or {label, kind.__name__} & INSIDE:
            continue
        if getattr(kind, name) is getattr(PrintsAsTable, name, None) and name in GIVEN:
            continue  # it says that there is no such thing
        method = getattr(found, name)
        if _is_method(method):
            yield Call(label, method, GOOD.get(label, {}))


def of_results() -> Iterator[Call]:
    """Methods of the objects that a fit's methods return."""
    for found in results().values():
        if not isinstance(found, pd.DataFrame | str):
            yield from methods(found)


def of_package(folder: Path) -> Iterator[Call]:
    """Every function of the package."""
    small().save(folder / "saved.mixlm")
    mx.cross_products("y ~ x + (1 | g)", data()).save(folder / "products.mixlm")
    many = mx.lmer_many("y ~ x + (1 | g)", data(), ["y", "w"], progress=False)
    many.save(folder / "many.mixlm")
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
        "explain": {"about": "few-levels"},
        "lmer": plain,
        "lmer_many": {**plain, "responses": ["y", "w"], "progress": False},
        "load": {"path": folder / "saved.mixlm"},
        "make_fit": {"system": system, "optimum": optimum},
        "membership": {"matrix": np.eye(3)},
        "model_matrices": plain,
        "optimize": {"system": system},
        "parse_formula": {"text": "y ~ x + (1 | g)"},
        "pb_modcomp": {"larger": small(), "smaller": small().update(". ~ . - x"), "nsim": 2,
                       "progress": False},
        "plan": plain,
            "penalized_system": {"matrices": system.matrices},
        "power": {**plain, "parameters": truth, "effect": "x", "nsim": 2, "progress": False},
        "power_curve": {**plain, "parameters": truth, "effect": "x", "n": [3, 9], "nsim": 2,
                        "progress": False},
        "simulate": {**plain, **truth},
        "solve_pls": {"theta": [1.0], "system": system},
        "cross_products": plain,
        "fit_products": {"products": mx.cross_products(**plain)},
        "load_products": {"path": folder / "products.mixlm"},
        "load_many": {"path": folder / "many.mixlm"},
    }  # fmt: skip
    for name in mx.__all__:
        function = getattr(mx, name)
        plain = callable(function) and not inspect.isclass(function)
        if plain and name not in ("compile_kernels", "use_compiled", "use_threads"):
            without = ("others",) if name == "anova" else ()
            yield Call(name, function, table[name], without)
    yield Call("Control", mx.Control)
    yield Call("RandomEffect", mx.RandomEffect, {"groups": frame["g"]})
    for name in mx.datasets.__all__:
        arguments = {} if name == "names" else {"name": "sleepstudy"}
        yield Call(f"datasets.{name}", getattr(mx.datasets, name), arguments)
    yield Call("compile_kernels", _compile_kernels, {"progress": None})
    yield Call("use_compiled", _use_compiled, {"choice": None})
    yield Call("use_threads", _use_threads, {"choice": None})


def _compile_kernels(progress: Any) -> int:
    with mock.patch.object(compile_kernels, "_steps", list):  # none of the fits, which take long
        return mx.compile_kernels(progress)


def _use_threads(choice: Any) -> None:
    try:
        mx.use_threads(choice)
    finally:
        mx.use_threads(None)


def _use_compiled(choice: Any) -> None:
    try:
        mx.use_compiled(choice)
    finally:
        mx.use_compiled(None)


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
        elif name in ("marginal_means", "interaction"):
            source = fit().emmeans("f")
        yield Call(f"plots.{name}", function, {first: source, **more.get(name, {})})


def calls(folder: Path) -> Iterator[Call]:
    yield from of_package(folder)
    yield from of_fit(folder)
    yield from of_results()
    yield from of_plots()
