"""Unknown keywords are answered: what users of other packages type, and what to write here."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from difflib import get_close_matches
from typing import ParamSpec, TypeVar

from mixlm_sparse.common.checks import listed, shown
from mixlm_sparse.common.errors import UnknownArgumentError

P = ParamSpec("P")
T = TypeVar("T")

_IN_FORMULA = "random effects are written in the formula, as in 'y ~ x + (x | group)'"
_LINEAR = "there are linear mixed models only, with normal errors"
_RESIDUAL = "residuals are independent with variance sigma^2 / weights; there is no other structure"
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
    "covstruct": _RESIDUAL,
    "cluster": "write fit.robust(cluster={value}) afterwards",
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


def answers_unknown_keywords(function: Callable[P, T]) -> Callable[P, T]:
    """Make a function answer a keyword that it does not have with what to write instead."""
    known = list(inspect.signature(function).parameters)

    @functools.wraps(function)
    def answering(*args: P.args, **kwargs: P.kwargs) -> T:
        for name, value in kwargs.items():
            if name not in known:
                raise unknown_argument(function.__name__, name, value, known)
        return function(*args, **kwargs)

    return answering


def unknown_argument(
    function: str, name: str, value: object, known: list[str]
) -> UnknownArgumentError:
    """Return the error for an argument that a function does not have."""
    near = get_close_matches(name.lower(), known, n=1)
    if name in ANSWERS:
        remedy = ANSWERS[name].format(value=shown(value))
    elif near:
        remedy = f"did you mean {near[0]}?"
    else:
        remedy = f"its arguments are {listed(known, 20)}"
    return UnknownArgumentError(f"{function} has no argument {name!r}: {remedy}")
