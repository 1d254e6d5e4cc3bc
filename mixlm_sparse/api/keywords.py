"""Unknown keywords are answered: what users of other packages type, and what to write here."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from types import FunctionType
from typing import ParamSpec, TypeVar

from mixlm_sparse.common.checks import listed, shown
from mixlm_sparse.common.errors import MissingArgumentError, UnknownArgumentError

P = ParamSpec("P")
T = TypeVar("T")
C = TypeVar("C", bound=type)

_IN_FORMULA = "random effects are written in the formula, as in 'y ~ x + (x | group)'"
_LINEAR = "there are linear mixed models only, with normal errors"
_RESIDUAL = 'lmer and gls take residual=mx.AR1(time="visit", group="patient") and its like'
ANSWERS = {
    "REML": "write reml={value}",
    "method": "write reml=True or reml=False",
    "groups": _IN_FORMULA,
    "group": _IN_FORMULA,
    "random": _IN_FORMULA,
    "re_formula": _IN_FORMULA,
    "vc_formula": _IN_FORMULA,
    "exog_re": _IN_FORMULA,
    "family": _LINEAR,
    "link": _LINEAR,
    "residual": _RESIDUAL,
    "correlation": _RESIDUAL,
    "variance": "lmer and gls take variance=mx.VarIdent(by=...) and its like",
    "covstruct": _RESIDUAL,
    "cluster": "write fit.robust(cluster={value}) afterwards",
    "where": "write subset={value}",
    **dict.fromkeys(
        ("cov", "covariance", "cov_struct", "type"),
        "structures are written in the formula: us(x | g), diag(x | g), cs(x | g), ar1(0 + t | g)",
    ),
    "missing": 'write na_action="omit" or "raise"',
    "verbose": "write progress={value}",
    "verbosity": "write progress={value}",
    "devFunOnly": "use mx.deviance_function",
    "ddf": "write fit.summary(ddf={value}) afterwards",
    "alpha": "write level= in fit.confint, fit.conf_int or fit.tidy",
    "level": "write level= in fit.confint, fit.conf_int or fit.tidy",
    "maxiter": "write control=mx.Control(max_evaluations={value})",
    "nAGQ": _LINEAR,
    "optCtrl": "write control=mx.Control(...)",
    "start_params": "write start=",
    "df": "write data=",
}


# Of single functions and methods; the others' answers are the same everywhere.
ANSWERS_OF: dict[str, dict[str, str]] = {
    "predict": {
        "exog": "write newdata=",
        "data": "write newdata=",
        "X": "write newdata=, a frame",
        "type": "predictions are on the scale of the response; leave it out",
        "se_fit": "write se=True",
        "include_random": 'write re_form=None for all random effects, "population" for none',
        "allow_unseen": "write allow_new_levels={value}",
    },
    "emmeans": {"var": "write fit.emtrends({value}, specs=...)", "data": "a fit knows its data"},
    "emtrends": {"var": "write fit.emtrends({value}, specs=...)"},
    "anova": {"test": "write ddf=", "refit": "fits by REML are fitted again by ML, with a note"},
    "bootstrap": {"n": "write nsim={value}", "R": "write nsim={value}", "B": "write nsim={value}"},
    "simulate": {"n": "write nsim={value}", "size": "write nsim={value}"},
    "tidy": {"effect": "write effects={value}", "exponentiate": "effects are not exponentiated"},
    "power": {
        "n": "write mx.power_curve(..., n={value})",
        "along": "write mx.power_curve(..., along={value})",
    },
    "compare_table": {"labels": "write names={value}", "models": "give the fits first"},
}
ANYWHERE = {
    "conf_level": "write level={value}",
    "confidence": "write level={value}",
    "alpha": "write level=, which is 1 - alpha",
    "lmer_df": "write ddf={value}",
    "df_method": "write ddf={value}",
    "parallel": "write n_jobs=",
    "ncpus": "write n_jobs={value}",
    "p_adjust": "write adjust={value}",
    "re_formula": "write re_form={value}",
    "cov_keep": "write at= or cov_reduce=",
}
# What a call without an argument was meant to be, for an object in its first place.
WITH_A_FIT = {
    "power": "power(fit.formula, data, fit, {rest}) takes the design of the data and the estimates "
    "of the fit",
    "power_curve": "power_curve(fit.formula, data, fit, {rest}) takes the design of the data and "
    "the estimates of the fit",
}
# Results in which a name is looked up.
ENTRIES = {"coef": "write fit.coef()[{value}]", "ranef": "write fit.ranef()[{value}]"}
BY_PLACE = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
MANY = 10**9


def answering_methods(cls: C) -> C:
    """Make every public method of a class answer keywords that it does not have."""
    for name in dir(cls):
        if name.startswith("_"):
            continue
        value = next(base.__dict__[name] for base in cls.__mro__ if name in base.__dict__)
        if isinstance(value, FunctionType):
            setattr(cls, name, answers_unknown_keywords(value, name))
    return cls


def answers_unknown_keywords(function: Callable[P, T], name: str = "") -> Callable[P, T]:
    """Make a function answer a keyword that it does not have with what to write instead.

    Parameters
    ----------
    name : how users call it, if that is not its own name.
    """
    called = name or function.__name__
    parameters = inspect.signature(function).parameters
    known = list(parameters)
    places = [name for name, one in parameters.items() if one.kind in BY_PLACE]
    needed = [name for name in places if parameters[name].default is inspect.Parameter.empty]
    least, most = len(needed), len(places)
    if any(one.kind is inspect.Parameter.VAR_POSITIONAL for one in parameters.values()):
        most = MANY
    # what takes any keyword answers it itself
    any_name = any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters.values())

    @functools.wraps(function)
    def answering(*args: P.args, **kwargs: P.kwargs) -> T:
        for argument, value in kwargs.items():
            if argument not in known and not any_name:
                raise unknown_argument(called, argument, value, known)
        if len(args) > most:
            raise too_many(called, args[most:], places, known)
        if len(args) < least and any(name not in kwargs for name in needed[len(args) :]):
            raise too_few(called, args, kwargs, needed)
        return function(*args, **kwargs)

    return answering


def too_few(
    function: str, args: tuple[object, ...], kwargs: Mapping[str, object], needed: list[str]
) -> MissingArgumentError:
    """Return the error for arguments that a function needs and was not given."""
    absent = [name for name in needed[len(args) :] if name not in kwargs]
    needed = [name for name in needed if name not in ("self", "fit")]
    first = args[0] if args else None
    remedy = f"write {function}({', '.join(needed)})"
    if function in WITH_A_FIT and hasattr(first, "fixef"):
        rest = ", ".join(f"{name}={shown(value)}" for name, value in kwargs.items())
        remedy = WITH_A_FIT[function].format(rest=rest).replace(", )", ")")
    elif needed[:2] == ["formula", "data"] and first is not None and not isinstance(first, str):
        remedy += ", the formula in quotes and first"
    return MissingArgumentError(f"{function} needs {listed(absent)}: {remedy}")


def too_many(
    function: str, values: tuple[object, ...], places: list[str], known: list[str]
) -> UnknownArgumentError:
    """Return the error for values beyond the arguments that a function takes by their place."""
    by_place = [name for name in places if name not in ("self", "fit")]
    others = [name for name in known if name not in places]
    value = shown(values[0])
    if function in ENTRIES:
        remedy = ENTRIES[function].format(value=value)
    elif others:
        remedy = f"name it, {function}(..., {others[0]}={value}); those to be named are " + listed(
            others, 20
        )
    else:
        remedy = "leave it out"
    taken = f"takes {listed(by_place)} by place" if by_place else "takes no argument"
    if others and not by_place:
        taken = "takes no argument by place"
    return UnknownArgumentError(f"{function} {taken}, and not {value} as well: {remedy}")


def _fits(answer: str, known: list[str]) -> bool:
    """Return whether an answer names an argument that the function has, or none."""
    named, sign, _ = answer.partition("write ")[2].partition("=")
    return not sign or not named.isidentifier() or named in known


def unknown_argument(
    function: str, name: str, value: object, known: list[str]
) -> UnknownArgumentError:
    """Return the error for an argument that a function does not have."""
    known = [one for one in known if one not in ("self", "fit")]
    near = get_close_matches(name.lower(), known, n=1)
    makes_a_fit = "formula" in known
    tables = (ANSWERS_OF.get(function, {}), ANSWERS if makes_a_fit else {}, ANYWHERE)
    found = [table[name] for table in tables if name in table and _fits(table[name], known)]
    if found:
        remedy = found[0].format(value=shown(value))
    elif near:
        remedy = f"did you mean {near[0]}?"
    else:
        remedy = f"its arguments are {listed(known, 20)}"
    return UnknownArgumentError(f"{function} has no argument {name!r}: {remedy}")
