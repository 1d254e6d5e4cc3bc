"""Arguments of the command `mixlm`."""

from __future__ import annotations

import argparse
import importlib.metadata
from typing import NoReturn, TypeAlias

from mixlm_sparse.engines.names import ENGINES
from mixlm_sparse.interop.cli.texts import (
    COMPARE_EXAMPLES,
    DESCRIPTION,
    EXIT_CODES,
    EXPLAIN_EXAMPLES,
    FILES,
    FIT_EXAMPLES,
    PLAN_EXAMPLES,
    POWER_EXAMPLES,
    PREDICT_EXAMPLES,
    SIMULATE_EXAMPLES,
)
from mixlm_sparse.solve.search.names import OPTIMIZERS

__all__ = ["parser"]

# argparse gives this class no public name
Commands: TypeAlias = "argparse._SubParsersAction[_Parser]"


def _version() -> str:
    try:
        return importlib.metadata.version("mixlm-sparse")
    except importlib.metadata.PackageNotFoundError:  # run from a copy of the sources
        return "(not installed)"


class _Parser(argparse.ArgumentParser):
    """A parser that recognizes a formula without quotes."""

    def error(self, message: str) -> NoReturn:
        words = message.removeprefix("unrecognized arguments: ").split()
        if message.startswith("unrecognized arguments") and not words[0].startswith("--"):
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
    out.add_argument("--version", action="version", version=f"mixlm_sparse {_version()}")
    out.add_argument(
        "--traceback", action="store_true", help="show where in the program an error arose"
    )
    commands_of = out.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_fit(commands_of)
    _add_compare(commands_of)
    _add_predict(commands_of)
    _add_plan(commands_of)
    _add_power(commands_of)
    _add_simulate(commands_of)
    _add_explain(commands_of)
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
    command.set_defaults(command=name)
    return command


def _level(text: str) -> float:
    try:
        level = float(text)
    except ValueError:
        level = float("nan")
    if not 0.0 < level < 1.0:
        raise argparse.ArgumentTypeError(f"{text!r} is not between 0 and 1; give 0.95, say")
    return level


def _separator(text: str) -> str:
    named = {"tab": "\t", "\\t": "\t", "space": " ", "comma": ",", "semicolon": ";"}
    character = named.get(text, text)
    if len(character) != 1 or character.isalnum() or character in "\"'.-\n":
        raise argparse.ArgumentTypeError(f"{text!r} cannot separate cells; use ';', tab or space")
    return character


def _decimal(text: str) -> str:
    if text not in (".", ","):
        raise argparse.ArgumentTypeError(f"{text!r} is no mark of decimals; use '.' or ','")
    return text


def _positive(text: str) -> int:
    try:
        count = int(text)
    except ValueError:
        count = 0
    if count < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive whole number")
    return count


def _model_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("data", metavar="DATA", help="file with the data")
    command.add_argument("formula", metavar="FORMULA", help='such as "y ~ x + (1 | g)"')
    _text_options(command)


def _text_options(command: argparse.ArgumentParser) -> None:
    group = command.add_argument_group("text files")
    group.add_argument("--sep", type=_separator, help='between cells: ";", tab, space; default: ,')
    group.add_argument("--decimal", type=_decimal, help='mark of decimals: "." (default) or ","')


def _format_option(group: argparse._ActionsContainer, help: str) -> None:
    formats = ("text", "markdown", "latex", "html")
    group.add_argument("--format", choices=formats, default="text", help=help)


def _model_options(command: argparse.ArgumentParser) -> None:
    group = command.add_argument_group("the model")
    either = group.add_mutually_exclusive_group()
    either.add_argument(
        "--reml", action="store_true", default=True, help="restricted likelihood (the default)"
    )
    either.add_argument("--ml", dest="reml", action="store_false", help="maximum likelihood")
    _factor_option(group)
    group.add_argument("--weights", metavar="COLUMN", help="prior weights: Var = sigma^2 / w")
    group.add_argument("--offset", metavar="COLUMN", help="added with coefficient one")
    group.add_argument("--subset", metavar="EXPRESSION", help='rows to use, such as "Days > 1"')
    group.add_argument(
        "--contrasts",
        metavar="FACTOR=NAME",
        action="append",
        default=[],
        help="treatment, sum, helmert or poly; may be given several times",
    )
    group.add_argument(
        "--na-action",
        choices=("omit", "exclude", "raise"),
        default="omit",
        help="rows with missing cells: leave out (default), or refuse",
    )
    group.add_argument("--engine", choices=ENGINES, default="auto", help="default: auto")


def _factor_option(group: argparse._ActionsContainer) -> None:
    group.add_argument(
        "--factor",
        metavar="COLUMN",
        action="append",
        default=[],
        help="treat numbers as a factor; may be given several times",
    )


def _search_options(command: argparse.ArgumentParser) -> None:
    group = command.add_argument_group("the search")
    group.add_argument("--optimizer", choices=OPTIMIZERS, default="auto", help="default: auto")
    group.add_argument("--max-evaluations", metavar="N", type=_positive, help="give up after N")
    group.add_argument(
        "--no-progress",
        dest="progress",
        action="store_false",
        help="no progress on the terminal, which otherwise appears after a second",
    )


def _add_fit(commands_of: Commands) -> None:
    command = _add(commands_of, "fit", "fit a model and print its summary", FIT_EXAMPLES)
    _model_arguments(command)
    _model_options(command)
    _search_options(command)
    group = command.add_argument_group("results")
    group.add_argument(
        "--ddf",
        choices=("auto", "satterthwaite", "kenward-roger", "normal"),
        default="auto",
        help="tests of the coefficients; auto is Satterthwaite unless that takes long",
    )
    group.add_argument("--level", type=_level, default=0.95, help="of intervals; default: 0.95")
    group.add_argument("--tidy", metavar="FILE", help="estimates, one row each, as a table")
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
    group.add_argument("--save", metavar="FILE", help="the fit itself, for predict and compare")
    group.add_argument(
        "--without-data",
        dest="include_data",
        action="store_false",
        help="with --save: leave the data out of the file",
    )
    _format_option(group, "of the summary; default: text")
    group.add_argument("-q", "--quiet", action="store_true", help="do not print the summary")


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
    _text_options(command)
    _model_options(command)
    _search_options(command)
    group = command.add_argument_group("the table")
    group.add_argument("--names", metavar="A,B,...", help="heads of the columns")
    group.add_argument("--stars", action="store_true", help="mark p-values by stars")
    _format_option(group, "default: text")
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
    command.add_argument("--level", type=_level, default=0.95, help="of the limits; default: 0.95")
    command.add_argument("--prefix", default="", help="of the names fit, se, lower, upper")
    command.add_argument("--only", action="store_true", help="leave the columns of the data out")
    _factor_option(command)
    _text_options(command)


def _add_plan(commands_of: Commands) -> None:
    command = _add(
        commands_of,
        "plan",
        "say what a fit would build and take, without fitting",
        PLAN_EXAMPLES,
    )
    _model_arguments(command)
    _model_options(command)


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
    _factor_option(command)
    _text_options(command)
    command.add_argument("--seed", type=_whole, help="whole number: the same draws again")


def _whole(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")
    return int(text)


def _counts(text: str) -> list[int]:
    return [_positive(part.strip()) for part in text.split(",")]


def _add_power(commands_of: Commands) -> None:
    command = _add(commands_of, "power", "estimate the power of a planned study", POWER_EXAMPLES)
    _design_arguments(command)
    command.add_argument(
        "--effect", metavar="NAME", action="append", required=True,
        help="coefficient that is tested; several are tested jointly",
    )  # fmt: skip
    command.add_argument("--nsim", type=_positive, default=1000, help="simulations; default: 1000")
    command.add_argument("--alpha", type=_level, default=0.05, help="of the test; default: 0.05")
    command.add_argument(
        "--test",
        choices=("satterthwaite", "z", "lr"),
        default="satterthwaite",
        help="of the effect",
    )
    command.add_argument("--n", metavar="N,N,...", type=_counts, help="numbers of groups to try")
    command.add_argument("--along", metavar="FACTOR", help="the groups that --n counts")
    command.add_argument("-o", "--output", metavar="FILE", help="the result as a table")
    _format_option(command, "of what is printed; default: text")


def _add_simulate(commands_of: Commands) -> None:
    command = _add(commands_of, "simulate", "draw responses from a model", SIMULATE_EXAMPLES)
    _design_arguments(command)
    command.add_argument("--nsim", type=_positive, default=1, help="responses; default: 1")
    command.add_argument(
        "-o", "--output", metavar="FILE", default="-", help="default: CSV on standard output"
    )
    command.add_argument("--prefix", default="sim_", help="of the names; default: sim_")
    command.add_argument("--only", action="store_true", help="leave the columns of the data out")


def _add_explain(commands_of: Commands) -> None:
    command = _add(commands_of, "explain", "say what a message means", EXPLAIN_EXAMPLES)
    command.add_argument("about", metavar="NAME", nargs="?", help="as the message gives it")
