"""Options of the command line that several subcommands share, and how their values are read."""

from __future__ import annotations

import argparse

from mixlm_sparse.engines.names import ENGINES
from mixlm_sparse.interop.cli.texts import STRUCTURES
from mixlm_sparse.solve.search.names import OPTIMIZERS

__all__ = [
    "counts", "factor_option", "format_option", "level", "model_arguments", "model_options",
    "positive", "search_options", "text_options", "whole",
]  # fmt: skip


def level(text: str) -> float:
    """Read a coverage or an alpha."""
    try:
        found = float(text)
    except ValueError:
        found = float("nan")
    if not 0.0 < found < 1.0:
        raise argparse.ArgumentTypeError(f"{text!r} is not between 0 and 1; give 0.95, say")
    return found


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


def positive(text: str) -> int:
    """Read a positive whole number."""
    try:
        count = int(text)
    except ValueError:
        count = 0
    if count < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive whole number")
    return count


def model_arguments(command: argparse.ArgumentParser, *, random: bool = True) -> None:
    """Add the data, the formula and how text files are written."""
    example = "y ~ x + (1 | g)" if random else "y ~ arm * visit"
    command.add_argument("data", metavar="DATA", help="file with the data")
    command.add_argument("formula", metavar="FORMULA", help=f'such as "{example}"')
    text_options(command)


def text_options(command: argparse.ArgumentParser) -> None:
    """Add how text files are written."""
    group = command.add_argument_group("text files")
    group.add_argument("--sep", type=_separator, help='between cells: ";", tab, space; default: ,')
    group.add_argument("--decimal", type=_decimal, help='mark of decimals: "." (default) or ","')


def format_option(group: argparse._ActionsContainer, help: str) -> None:
    """Add the form of what is printed."""
    formats = ("text", "markdown", "latex", "html")
    group.add_argument("--format", choices=formats, default="text", help=help)


def model_options(command: argparse.ArgumentParser, *, random: bool = True) -> None:
    """Add what says which model is fitted, `random` if it may have random effects."""
    group = command.add_argument_group("the model")
    either = group.add_mutually_exclusive_group()
    either.add_argument(
        "--reml", action="store_true", default=True, help="restricted likelihood (the default)"
    )
    either.add_argument("--ml", dest="reml", action="store_false", help="maximum likelihood")
    factor_option(group)
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
    if random:
        group.add_argument("--engine", choices=ENGINES, default="auto", help="default: auto")
    _structure_options(command)


def _structure_options(command: argparse.ArgumentParser) -> None:
    group = command.add_argument_group("the residuals", STRUCTURES)
    group.add_argument("--residual", metavar="STRUCTURE", help="correlation within groups")
    group.add_argument("--variance", metavar="FUNCTION", help="standard deviations that differ")


def factor_option(group: argparse._ActionsContainer) -> None:
    """Add the columns of numbers that are factors."""
    group.add_argument(
        "--factor",
        metavar="COLUMN",
        action="append",
        default=[],
        help="treat numbers as a factor; may be given several times",
    )


def search_options(command: argparse.ArgumentParser) -> None:
    """Add how the optimum is searched for."""
    group = command.add_argument_group("the search")
    group.add_argument("--optimizer", choices=OPTIMIZERS, default="auto", help="default: auto")
    group.add_argument("--max-evaluations", metavar="N", type=positive, help="give up after N")
    group.add_argument(
        "--no-progress",
        dest="progress",
        action="store_false",
        help="no progress on the terminal, which otherwise appears after a second",
    )


def whole(text: str) -> int:
    """Read a whole number, zero too."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")
    return int(text)


def counts(text: str) -> list[int]:
    """Read several positive whole numbers."""
    return [positive(part.strip()) for part in text.split(",")]
