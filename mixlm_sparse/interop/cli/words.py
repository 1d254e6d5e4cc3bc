"""Messages of the package in the words of the shell, and arguments in the wrong place."""

from __future__ import annotations

import argparse
import re
import shlex

from mixlm_sparse.common.errors import OptionError

__all__ = ["of_the_shell", "require_order"]

# Arguments of Python that are options here, with a value and without one.
VALUED = (
    "weights", "offset", "subset", "contrasts", "na_action", "engine", "optimizer", "re_form",
    "interval", "level", "names", "nsim", "seed", "alpha", "effect", "along", "sigma", "format",
    "adjust", "ref", "type", "ddf",
)  # fmt: skip
# Arguments that a message begins with; within it they may be those of a structure, VarIdent(by=f).
FIRST = (*VALUED, "residual", "variance", "by", "at")
FLAGS = ("allow_new_levels", "se", "stars")
RULES = (
    (re.compile(r'mx\.explain\((?:"|&quot;)([a-z-]+)(?:"|&quot;)\)'), r"mixlm explain \1"),
    (re.compile(r"\bcontrol\.max_evaluations\b"), "--max-evaluations"),
    (re.compile(r"\b(?:fit\.)?refit_ml\(\)|\breml=False\b"), "--ml"),
    (re.compile(r", allow_new_levels=\"nan\", or re_form=\"population\""), ", or --population"),
    (re.compile(r"\bre_form=\"population\" (?=predicts)"), "--population "),
    (re.compile(r"\breml=True\b"), "--reml"),
    (re.compile(rf"\b({'|'.join(FLAGS)})=True\b"), lambda found: _option(found[1])),
    (
        re.compile(rf"\b({'|'.join(VALUED)})=(\"[^\"]*\"|'[^']*'|[\w.~-]+)"),
        lambda found: f"{_option(found[1])} {found[2]}",
    ),
    (re.compile(r"\bmx\.(AR1|CAR1|Var\w+|Unstructured)\("), r"\1("),
    (re.compile(r"\b(residual|variance|known|at|weights|adjust)=(?![\w\"'])"), r"--\1"),
    (re.compile(r"\buse lmer\b"), "use mixlm fit"),
    (re.compile(r"\b(?:use|or) mx\.gls\b|\buse gls\b"), "use mixlm gls"),
    (re.compile(r"^gls\b"), "mixlm gls"),
    (re.compile(r"\bfit\.save\(path\)"), "--save"),
    (re.compile(r"\bemmeans\('([^']+)'\)\.pairs\(\)"), r"--contrast pairwise with SPECS \1"),
    (re.compile(r"\bsd\['([^']+)'\]"), r"--sd \1"),
    (re.compile(r"^(sd|beta) has\b"), r"--\1 has"),
    (
        re.compile(rf"^({'|'.join((*FIRST, *FLAGS))})(?=:| is | names )"),
        lambda found: _option(found[1]),
    ),
)


IN_TABLES = 3  # so many of the rules change nothing that a name of a column could be


def of_the_shell(text: str, *, table: bool = False) -> str:
    """Return a message of the package with options in the place of arguments of Python.

    Parameters
    ----------
    table : the text holds names of the user as well, which stay as they are.

    Examples
    --------
    >>> of_the_shell('raise control.max_evaluations. See mx.explain("convergence")')
    'raise --max-evaluations. See mixlm explain convergence'
    >>> of_the_shell("weights: the data have no column 'w'; use allow_new_levels=True")
    "--weights: the data have no column 'w'; use --allow-new-levels"
    """
    for pattern, words in RULES[:IN_TABLES] if table else RULES:
        text = pattern.sub(words, text)
    return text


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


def require_order(args: argparse.Namespace) -> None:
    """Raise an OptionError that shows the right order, if two arguments are swapped.

    Raises
    ------
    OptionError : a formula stands before the data, or new rows before a fit.
    """
    first = getattr(args, "data", None) or getattr(args, "model", None)
    second = getattr(args, "formula", None)
    if args.command == "predict":
        if args.data.endswith(".mixlm") and not args.fit.endswith(".mixlm"):
            right = shlex.join(["mixlm", "predict", args.data, args.fit])
            raise OptionError(f"the saved fit comes first, then the new rows: {right}")
        return
    if args.command == "emmeans":
        if args.specs.endswith(".mixlm") and not args.fit.endswith(".mixlm"):
            right = shlex.join(["mixlm", "emmeans", args.specs, args.fit])
            raise OptionError(f"the saved fit comes first, then the predictors: {right}")
        return
    if args.command == "compare":
        first, second = args.models[0], next((m for m in args.models[1:] if "~" not in m), None)
    if first and second and "~" in first and "~" not in second:
        right = shlex.join(["mixlm", args.command, second, first])
        raise OptionError(f"the data come first, then the formula: {right}")
    if args.command in ("fit", "gls", "plan") and second and "~" not in second:
        rest = "x" if args.command == "gls" else "x + (1 | g)"
        right = shlex.join(["mixlm", args.command, first or "", f"{second} ~ {rest}"])
        raise OptionError(f"{second!r} is no formula: write one with a ~, in quotes: {right}")
