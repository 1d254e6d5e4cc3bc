"""Unknown keywords are answered: what users of other packages type, and what to write here."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
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
OWN = ("self", "fit", "source")  # stand before the point when a method is called
PACKAGE = __name__.partition(".")[0]
MARK = "_answers_arguments"


def answering_methods(cls: C) -> C:
    """Make every public method of a class answer arguments that it does not have.

    Methods of other packages that the class inherits are left as they are.
    """
    for name in dir(cls):
        if name.startswith("_"):
            continue
        owner = next(base for base in cls.__mro__ if name in base.__dict__)
        value = owner.__dict__[name]
        if isinstance(value, FunctionType) and owner.__module__.startswith(PACKAGE):
            setattr(cls, name, answers_unknown_keywords(value, name))
    return cls


def answering_calls(cls: C) -> C:
    """Make a class that users call answer arguments that it does not have."""
    cls.__init__ = answers_unknown_keywords(cls.__init__, cls.__name__)  # type: ignore[misc]
    return cls


@dataclass(frozen=True)
class _Arguments:
    """Which arguments a function takes.

    Attributes
    ----------
    known : all names; `places` those by place; `needed` those without a default.
    """

    known: list[str]
    places: list[str]
    needed: list[str]
    any_name: bool
    any_number: bool

    @staticmethod
    def of(function: Callable[..., object]) -> _Arguments:
        parameters = inspect.signature(function).parameters
        kinds = {one.kind for one in parameters.values()}
        free = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        return _Arguments(
            [name for name, one in parameters.items() if one.kind not in free],
            [name for name, one in parameters.items() if one.kind in BY_PLACE],
            [
                name
                for name, one in parameters.items()
                if one.default is inspect.Parameter.empty and one.kind not in free
            ],
            inspect.Parameter.VAR_KEYWORD in kinds,
            inspect.Parameter.VAR_POSITIONAL in kinds,
        )

    def refuse(self, called: str, args: tuple[object, ...], kwargs: Mapping[str, object]) -> None:
        """Raise the error for a call that Python would refuse."""
        for argument, value in kwargs.items():
            # what takes any keyword answers it itself
            if argument not in self.known and not self.any_name:
                raise unknown_argument(called, argument, value, self.known)
        if len(args) > len(self.places) and not self.any_number:
            raise too_many(called, args[len(self.places) :], self.places, self.known)
        by_place = self.places[: len(args)]
        absent = [name for name in self.needed if name not in by_place and name not in kwargs]
        if absent:
            raise too_few(called, args, kwargs, absent, self.needed)
        twice = next((name for name in by_place if name in kwargs), None)
        if twice is not None:
            raise UnknownArgumentError(
                f"{called} was given {twice} twice, by place and by name: give it once"
            )


def answers_unknown_keywords(function: Callable[P, T], name: str = "") -> Callable[P, T]:
    """Make a function answer an argument that it does not have with what to write instead.

    Parameters
    ----------
    name : how users call it, if that is not its own name.
    """
    if hasattr(function, MARK):
        return function
    called = name or function.__name__
    arguments: list[_Arguments] = []  # looked up by the first call

    @functools.wraps(function)
    def answering(*args: P.args, **kwargs: P.kwargs) -> T:
        if not arguments:
            arguments.append(_Arguments.of(function))
        arguments[0].refuse(called, args, kwargs)
        return function(*args, **kwargs)

    setattr(answering, MARK, True)
    return answering


def too_few(
    function: str,
    args: tuple[object, ...],
    kwargs: Mapping[str, object],
    absent: list[str],
    needed: list[str],
) -> MissingArgumentError:
    """Return the error for arguments that a function needs and was not given."""
    if absent[0] not in OWN:
        needed = [name for name in needed if name not in OWN]
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
    by_place = [name for name in places if name not in OWN]
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
    known = [one for one in known if one not in OWN]
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
