"""Arguments of the command `mixlm`."""

from __future__ import annotations

import argparse
from typing import NoReturn, TypeAlias

import mixlm_sparse as mx
from mixlm_sparse.interop.cli.options import (
    counts,
    factor_option,
    format_option,
    level,
    model_arguments,
    model_options,
    positive,
    search_options,
    text_options,
    whole,
)
from mixlm_sparse.interop.cli.texts import (
    COMPARE_EXAMPLES,
    COMPILE_EXAMPLES,
    DESCRIPTION,
    EMMEANS_EXAMPLES,
    EXIT_CODES,
    EXPLAIN_EXAMPLES,
    FILES,
    FIT_EXAMPLES,
    GLS_EXAMPLES,
    PLAN_EXAMPLES,
    POWER_EXAMPLES,
    PREDICT_EXAMPLES,
    SIMULATE_EXAMPLES,
)

__all__ = ["parser"]

# argparse gives this class no public name
Commands: TypeAlias = "argparse._SubParsersAction[_Parser]"


class _Parser(argparse.ArgumentParser):
    """A parser that recognizes a formula without quotes."""

    def error(self, message: str) -> NoReturn:
        words = message.removeprefix("unrecognized arguments: ")
        if words != message and not words.startswith("--"):
            message += "\n  a formula is one argument: put it in quotes, 'y ~ x + (1 | g)'"
        super().error(message)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    out = _Parser(
        prog="mixlm",
        description=DESCRIPTION,
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    out.add_argument("--version", action="version", version=f"mixlm_sparse {mx.__version__}")
    out.add_argument(
        "--traceback", action="store_true", help="show where in the program an error arose"
    )
    commands_of = out.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_fit(commands_of)
    _add_gls(commands_of)
    _add_emmeans(commands_of)
    _add_compare(commands_of)
    _add_predict(commands_of)
    _add_plan(commands_of)
    _add_power(commands_of)
    _add_simulate(commands_of)
    _add_explain(commands_of)
    _add_compile(commands_of)
    return out


def _add(
    commands_of: Commands,
    name: str,
    short: str,
    examples: str,
) -> argparse.ArgumentParser:
    command = commands_of.add_parser(
        name,
        help=short,
        description=short[0].upper() + short[1:] + ".",
        epilog="\n".join([examples, FILES, EXIT_CODES]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.set_defaults(command=name, random_effects=False)
    return command


def _add_fit(commands_of: Commands) -> None:
    short = "fit a model and print its summary"
    _fitting_arguments(_add(commands_of, "fit", short, FIT_EXAMPLES))


def _add_gls(commands_of: Commands) -> None:
    short = "fit a linear model with correlated or unequal residuals"
    _fitting_arguments(_add(commands_of, "gls", short, GLS_EXAMPLES), random=False)


def _fitting_arguments(command: argparse.ArgumentParser, *, random: bool = True) -> None:
    model_arguments(command, random=random)
    model_options(command, random=random)
    search_options(command)
    group = command.add_argument_group("results")
    group.add_argument(
        "--ddf",
        choices=("auto", "satterthwaite", "kenward-roger", "sas", "normal"),
        default="auto",
        help="tests of the coefficients; auto is Satterthwaite unless that takes long",
    )
    group.add_argument("--level", type=level, default=0.95, help="of intervals; default: 0.95")
    group.add_argument("--tidy", metavar="FILE", help="estimates, one row each, as a table")
    if random:
        group.add_argument(
            "--random-effects", action="store_true", help="with --tidy: every group's effects too"
        )
    group.add_argument("--json", metavar="FILE", help="everything about the fit, for programs")
    group.add_argument("--plot", metavar="FILE", help="a picture: .png, .pdf or .svg")
    group.add_argument(
        "--plot-kind",
        metavar="KIND",
        default="diagnostics",
        help="diagnostics (default), caterpillar, residuals, qq, fixed_effects, shrinkage, ...",
    )
    group.add_argument("--save", metavar="FILE", help="the fit, for emmeans, predict, ...")
    group.add_argument(
        "--without-data",
        dest="include_data",
        action="store_false",
        help="with --save: leave the data out of the file",
    )
    format_option(group, "of the summary; default: text")
    group.add_argument(
        "-q",
        "--quiet",
        action="store_true",
        help="do not print the summary; notes on the fit go to standard error",
    )


def _add_emmeans(commands_of: Commands) -> None:
    command = _add(
        commands_of,
        "emmeans",
        "print marginal means of a saved fit, and compare them",
        EMMEANS_EXAMPLES,
    )
    command.add_argument("fit", metavar="FIT", help="file that --save wrote, with its data")
    command.add_argument(
        "specs", metavar="SPECS", help='predictors: arm, "~ arm | visit", "pairwise ~ arm | visit"'
    )
    group = command.add_argument_group("the means")
    group.add_argument(
        "--by", metavar="COLUMN", action="append", default=[],
        help="compare within each of its levels; may be given several times",
    )  # fmt: skip
    group.add_argument(
        "--at", metavar="NAME=V,V", action="append", default=[],
        help="values of a predictor instead of its mean or all levels",
    )  # fmt: skip
    group.add_argument("--slope", metavar="COLUMN", help="slopes of this covariate, no means")
    group.add_argument(
        "--weights",
        choices=("equal", "proportional", "outer", "cells", "flat"),
        default="equal",
        help="of the levels averaged over; default: equal",
    )
    group.add_argument(
        "--type", choices=("link", "response"), default="link",
        help="scale of the model (default) or of the data, such as back from log(y)",
    )  # fmt: skip
    group.add_argument(
        "--ddf",
        choices=("satterthwaite", "kenward-roger", "sas", "normal"),
        default="satterthwaite",
        help="degrees of freedom; default: satterthwaite",
    )
    group.add_argument("--level", type=level, default=0.95, help="of intervals; default: 0.95")
    group = command.add_argument_group("comparisons")
    group.add_argument(
        "--contrast",
        metavar="FAMILY",
        help="pairwise, trt.vs.ctrl, consec, eff, poly, ...",
    )
    group.add_argument("--ref", metavar="LEVEL", help="with trt.vs.ctrl: the level to compare with")
    group.add_argument(
        "--adjust", metavar="METHOD", help="tukey, dunnett, holm, fdr, none; default: the usual"
    )
    group = command.add_argument_group("the result")
    group.add_argument(
        "-o", "--output", metavar="FILE", help="the comparisons, or else the means, as a table"
    )
    format_option(group, "of what is printed; default: text")
    text_options(command)


def _add_compare(commands_of: Commands) -> None:
    command = _add(
        commands_of,
        "compare",
        "show models side by side and test them against each other",
        COMPARE_EXAMPLES,
    )
    command.add_argument(
        "models",
        metavar="MODEL",
        nargs="+",
        help="two or more saved fits; or a data file and two or more formulas",
    )
    text_options(command)
    model_options(command)
    search_options(command)
    group = command.add_argument_group("the table")
    group.add_argument("--names", metavar="A,B,...", help="heads of the columns")
    group.add_argument("--stars", action="store_true", help="mark p-values by stars")
    format_option(group, "default: text")
    group.add_argument("-o", "--output", metavar="FILE", help="default: standard output")


def _add_predict(commands_of: Commands) -> None:
    command = _add(
        commands_of,
        "predict",
        "predict for new rows from a saved fit",
        PREDICT_EXAMPLES,
    )
    command.add_argument("fit", metavar="FIT", help="file that mixlm fit --save wrote")
    command.add_argument("data", metavar="DATA", help="file with the new rows")
    command.add_argument(
        "-o", "--output", metavar="FILE", default="-", help="default: CSV on standard output"
    )
    which = command.add_mutually_exclusive_group()
    which.add_argument(
        "--population", action="store_true", help="without random effects: the average group"
    )
    which.add_argument(
        "--re-form", metavar="TERMS", help='random effects that count, such as "~ (1 | g)"'
    )
    command.add_argument(
        "--allow-new-levels", action="store_true", help="groups that the fit has not seen"
    )
    command.add_argument("--se", action="store_true", help="standard errors too")
    command.add_argument("--interval", choices=("confidence", "prediction"), help="limits too")
    command.add_argument("--level", type=level, default=0.95, help="of the limits; default: 0.95")
    command.add_argument("--prefix", default="", help="of the names fit, se, lower, upper")
    command.add_argument("--only", action="store_true", help="leave the columns of the data out")
    factor_option(command)
    text_options(command)


def _add_plan(commands_of: Commands) -> None:
    command = _add(
        commands_of,
        "plan",
        "say what a fit would build and take, without fitting",
        PLAN_EXAMPLES,
    )
    model_arguments(command)
    model_options(command)


def _design_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("model", metavar="MODEL", help="a saved fit, or a file with the design")
    command.add_argument(
        "formula", metavar="FORMULA", nargs="?", help='of a design, such as "~ x + (1 | g)"'
    )
    group = command.add_argument_group("parameters, by default those of the saved fit")
    for name, what in (
        ("beta", "a fixed effect, others are 0 or those of the fit"),
        ("sd", "standard deviations of a random term, in the order of its columns"),
    ):
        group.add_argument(
            f"--{name}", metavar="NAME=VALUE", action="append", default=[],
            help=f"{what}; may be given several times",
        )  # fmt: skip
    group.add_argument("--sigma", type=float, help="residual standard deviation")
    factor_option(command)
    text_options(command)
    command.add_argument("--seed", type=whole, help="whole number: the same draws again")


def _add_power(commands_of: Commands) -> None:
    command = _add(commands_of, "power", "estimate the power of a planned study", POWER_EXAMPLES)
    _design_arguments(command)
    command.add_argument(
        "--effect", metavar="NAME", action="append", required=True,
        help="coefficient that is tested; several are tested jointly",
    )  # fmt: skip
    command.add_argument("--nsim", type=positive, default=1000, help="simulations; default: 1000")
    command.add_argument("--alpha", type=level, default=0.05, help="of the test; default: 0.05")
    command.add_argument(
        "--test",
        choices=("satterthwaite", "z", "lr"),
        default="satterthwaite",
        help="of the effect",
    )
    command.add_argument("--n", metavar="N,N,...", type=counts, help="numbers of groups to try")
    command.add_argument("--along", metavar="FACTOR", help="the groups that --n counts")
    command.add_argument("-o", "--output", metavar="FILE", help="the result as a table")
    format_option(command, "of what is printed; default: text")


def _add_simulate(commands_of: Commands) -> None:
    command = _add(commands_of, "simulate", "draw responses from a model", SIMULATE_EXAMPLES)
    _design_arguments(command)
    command.add_argument("--nsim", type=positive, default=1, help="responses; default: 1")
    command.add_argument(
        "-o", "--output", metavar="FILE", default="-", help="default: CSV on standard output"
    )
    command.add_argument("--prefix", default="sim_", help="of the names; default: sim_")
    command.add_argument("--only", action="store_true", help="leave the columns of the data out")


def _add_explain(commands_of: Commands) -> None:
    command = _add(commands_of, "explain", "say what a message means", EXPLAIN_EXAMPLES)
    command.add_argument("about", metavar="NAME", nargs="?", help="as the message gives it")


def _add_compile(commands_of: Commands) -> None:
    command = _add(
        commands_of,
        "compile",
        "make the machine code of all kernels now, once on a machine",
        COMPILE_EXAMPLES,
    )
    command.add_argument("-q", "--quiet", action="store_true", help="say nothing")
