"""Arguments of plots: the same word means the same thing in every plot, and is checked once.

`checked_arguments` goes over what a plot was called with, before anything is drawn.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from mixlm_sparse.common.checks import (
    require_bool,
    require_count,
    require_instance,
    require_level,
    require_mapping,
    require_names,
    require_number,
    require_one_of,
    require_vector,
    shown,
)
from mixlm_sparse.common.errors import OptionError
from mixlm_sparse.model.fitted import FittedModel

MOST = 10_000  # panels, bars or labels: no picture shows more
BINS = ("auto", "fd", "doane", "scott", "stone", "rice", "sturges", "sqrt")  # NumPy's rules


def checked_arguments(
    draw: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments of a plot, checked.

    Raises
    ------
    OptionError : an argument has a value that it cannot have.
    """
    signature = inspect.signature(draw)
    bound = signature.bind(*args, **kwargs)
    for name, value in bound.arguments.items():
        parameter = signature.parameters[name]
        check = CHECKS.get(name)
        if check is None or (value is None and parameter.default is None):
            continue
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            bound.arguments[name] = tuple(check(name, one) for one in value)
        else:
            bound.arguments[name] = check(name, value)
    return bound.args, bound.kwargs


# ---------------------------------------------------------------------------------------------
# What is drawn
# ---------------------------------------------------------------------------------------------


def _fit(name: str, value: Any) -> Any:
    return require_instance(name, value, FittedModel, "give a fit of lmer")


def _fit_or_list(name: str, value: Any) -> Any:
    if isinstance(value, FittedModel) or _has(value, "matrices", "names", "fits"):
        return value
    if _has(value, "deletion_distance", "dfbetas"):
        return value
    raise OptionError(f"{name} is {shown(value)}: give a fit of lmer, or what this plot is for")


def _profile(name: str, value: Any) -> Any:
    columns = getattr(value, "columns", ()) if not isinstance(value, type) else ()
    if isinstance(value, FittedModel) or _has(value, "curves", "to_frame") or (
        ".par" in list(columns) and ".zeta" in list(columns)
    ):  # fmt: skip
        return value
    raise OptionError(f"{name} is {shown(value)}: give fit.profile() or a fit of lmer")


def _bootstrap(name: str, value: Any) -> Any:
    if isinstance(value, FittedModel) or _has(value, "samples", "original", "confint"):
        return value
    raise OptionError(f"{name} is {shown(value)}: give what fit.bootstrap(...) returns")


def _has(value: Any, *names: str) -> bool:
    return not isinstance(value, type) and all(hasattr(type(value), n) or (
        n in getattr(value, "__dict__", ())
    ) for n in names)  # fmt: skip


def _axes(name: str, value: Any) -> Any:
    if callable(getattr(value, "plot", None)) and hasattr(value, "figure"):
        return value
    raise OptionError(f"{name} is {shown(value)}: give axes of matplotlib, or leave it out")


def _several_axes(name: str, value: Any) -> Any:
    if not isinstance(value, list | tuple | np.ndarray):
        raise OptionError(f"{name} is {shown(value)}: give a list of axes of matplotlib")
    flat = value.ravel().tolist() if isinstance(value, np.ndarray) else value
    for one in flat:
        for ax in one if isinstance(one, list | tuple | np.ndarray) else [one]:
            _axes(name, ax)
    return value


def _means(name: str, value: Any) -> Any:
    if _has(value, "cells", "to_frame", "pairs"):
        return value
    raise OptionError(f"{name} is {shown(value)}: give what fit.emmeans(...) returns")


# ---------------------------------------------------------------------------------------------
# How it is drawn
# ---------------------------------------------------------------------------------------------


def _count(name: str, value: Any) -> int:
    return require_count(name, value, most=MOST)


def _number_from_none(name: str, value: Any) -> int:
    return require_count(name, value, least=0, most=MOST)


def _bins(name: str, value: Any) -> int | str:
    if isinstance(value, str):
        return str(require_one_of(name, value, BINS))
    return require_count(name, value, most=MOST)


def _name(name: str, value: Any) -> Any:
    if isinstance(value, str):
        return value
    raise OptionError(f"{name} is {shown(value)}: give a name, as text")


def _order(name: str, value: Any) -> Any:
    return value if value is None else _name(name, value)


def _names(name: str, value: Any) -> Any:
    names = require_names(name, value, once=False)
    return names[0] if isinstance(value, str) else tuple(names)


def _labels(name: str, value: Any) -> Any:
    """Labels of groups, which may be of any type."""
    one_by_one = isinstance(value, list | tuple | set | np.ndarray) or hasattr(value, "to_list")
    if not one_by_one or getattr(value, "ndim", 1) != 1:
        raise OptionError(f"{name} is {shown(value)}: give a list of groups")
    return value


def _levels(name: str, value: Any) -> list[float]:
    values = require_vector(name, value)
    if not values.size:
        raise OptionError(f"{name} is empty: give at least one level, such as 0.95")
    return [require_level(name, float(level)) for level in values]


def _mapping(name: str, value: Any) -> dict[str, Any]:
    return require_mapping(name, value, '{"x": [0, 1]}')


def _interval(name: str, value: Any) -> Any:
    return require_one_of(name, value, ("confidence", "prediction", None))


CHECKS: dict[str, Callable[[str, Any], Any]] = {
    "fit": _fit, "source": _fit_or_list, "profile": _profile, "boot": _bootstrap, "ax": _axes,
    "axes": _several_axes, "means": _means,
    "group": _name, "effect": _name, "order": _order, "x": _name, "type": _name,
    "parm": _names, "effects": _names, "names": _names, "only": _names,
    "groups": _labels, "highlight": _labels,
    "level": require_level, "levels": _levels,
    "bins": _bins, "max_lag": _count, "columns": _count, "max_groups": _count,
    "max_parameters": _count, "show": _count, "label": _number_from_none,
    "at": _mapping, "interval": _interval, "offset": require_number,
    "add_fixed": require_bool, "intercept": require_bool, "points": require_bool,
    "absolute": require_bool, "smooth": require_bool, "observed": require_bool,
    "trace": _name, "intervals": require_bool,
}  # fmt: skip
