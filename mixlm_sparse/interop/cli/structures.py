"""Residual structures as a shell writes them: "AR1(time=visit, group=patient)".

The text is read, never run: the name of a structure, and arguments that are names of columns.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, NoReturn

from mixlm_sparse.common.checks import shown
from mixlm_sparse.common.errors import OptionError
from mixlm_sparse.covariance.correlation import Correlation
from mixlm_sparse.covariance.serial import AR1, CAR1, AnteDependence
from mixlm_sparse.covariance.spatial import Exponential, Gaussian
from mixlm_sparse.covariance.variance import VarExp, VarianceFunction, VarIdent, VarPower
from mixlm_sparse.covariance.visits import CompoundSymmetry, Toeplitz, Unstructured

__all__ = ["RESIDUALS", "VARIANCES", "residual_of", "variance_of"]

RESIDUALS: Mapping[str, type[Correlation]] = {
    cls.__name__: cls
    for cls in (
        AR1, CAR1, CompoundSymmetry, Unstructured, Toeplitz, AnteDependence, Exponential, Gaussian
    )
}  # fmt: skip
VARIANCES: Mapping[str, type[VarianceFunction]] = {
    cls.__name__: cls for cls in (VarIdent, VarPower, VarExp)
}
LONGEST = 1000  # characters of a structure


def residual_of(text: str | None) -> Correlation | None:
    """Return the residual correlation that `--residual` names.

    Raises
    ------
    OptionError : with the right form.
    """
    found: Correlation | None = _read("--residual", text, RESIDUALS)
    return found


def variance_of(text: str | None) -> VarianceFunction | None:
    """Return the variance function that `--variance` names.

    Raises
    ------
    OptionError : with the right form.
    """
    found: VarianceFunction | None = _read("--variance", text, VARIANCES)
    return found


def _read(option: str, text: str | None, known: Mapping[str, Any]) -> Any:
    if text is None:
        return None
    name, call = _parsed(option, text, known)
    cls = known[name]
    parameters = inspect.signature(cls).parameters
    if call is None or call.args:
        needed = [p.name for p in parameters.values() if p.default is inspect.Parameter.empty]
        needed += [name for name in ("group",) if name in parameters and name not in needed]
        _refuse(option, text, f"name its columns, {_example(name, needed)}")
    given = {}
    for keyword in call.keywords:
        if keyword.arg not in parameters:
            _refuse(option, text, f"{name} takes {', '.join(f'{p}=' for p in parameters)}")
        given[str(keyword.arg)] = _columns(option, text, keyword.value)
    missing = [
        p.name
        for p in parameters.values()
        if p.default is inspect.Parameter.empty and p.name not in given
    ]
    if missing:
        wanted = [*given, *missing]
        _refuse(option, text, f"{name} needs {missing[0]}=, as {_example(name, wanted)}")
    return cls(**given)


def _parsed(
    option: str, text: str, known: Mapping[str, Any]
) -> tuple[str, ast.Call | None]:
    """Return the name of a structure and its call; None for a name alone."""
    first = next(iter(known))
    example = _example(first, ["by"] if first == "VarIdent" else ["time", "group"])
    try:
        if len(text) > LONGEST:
            raise ValueError
        body = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        _refuse(option, text, f"write it as {example}, names with spaces in quotes")
    call = body if isinstance(body, ast.Call) else None
    named = body.func if isinstance(body, ast.Call) else body
    if isinstance(named, ast.Attribute):  # as in Python, mx.AR1(...)
        name = named.attr
    elif isinstance(named, ast.Name):
        name = named.id
    else:
        _refuse(option, text, f"write it as {example}")
    folded = {key.lower(): key for key in known}
    if name.lower() in folded:
        return folded[name.lower()], call
    near = get_close_matches(name, list(known), n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    _refuse(option, text, f"there is no {name}{hint}: use one of {', '.join(known)}")


def _columns(option: str, text: str, value: ast.expr) -> str | list[str]:
    """Return the column or columns that an argument names, with or without quotes."""
    if isinstance(value, ast.Name):
        return value.id
    if isinstance(value, ast.Constant) and isinstance(value.value, str):
        return value.value
    several = value.elts if isinstance(value, ast.List | ast.Tuple) else None
    if isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == "c":
        several = value.args
    if several is None:
        _refuse(option, text, "its arguments are names of columns, as time=visit or time='day 1'")
    out = []
    for one in several:
        found = _columns(option, text, one)
        if not isinstance(found, str):
            _refuse(option, text, "give a list of names of columns, as position=[x, y]")
        out.append(found)
    return out


def _example(name: str, arguments: list[str]) -> str:
    columns = {"time": "visit", "group": "patient", "by": "arm", "position": "[x, y]"}
    inside = ", ".join(f"{one}={columns.get(one, 'x')}" for one in arguments)
    return f'"{name}({inside})"'


def _refuse(option: str, text: str, remedy: str) -> NoReturn:
    raise OptionError(f"{option} is {shown(text)}: {remedy}")
