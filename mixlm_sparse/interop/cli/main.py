"""Arguments of the command `mixlm`, and what becomes of errors."""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import os
import sys
from collections.abc import Sequence
from typing import TypeAlias

from mixlm_sparse.common.errors import MixedModelError, NotPositiveDefiniteError
from mixlm_sparse.engines.names import ENGINES
from mixlm_sparse.interop.cli.codes import INTERRUPTED, OK, PROBLEM, USAGE
from mixlm_sparse.solve.search.names import OPTIMIZERS

__all__ = ["main", "parser"]

DESCRIPTION = """\
Linear mixed models from the shell: lme4's formulas, lme4's answers.

  mixlm fit data.csv "y ~ x + (1 | group)" --save fit.mixlm
  mixlm predict fit.mixlm new.csv -o predictions.csv
"""
EXIT_CODES = """\
exit codes:
  0  done
  1  the fit has a problem: not converged, interrupted, or a perfect fit
  2  wrong usage or input that cannot be used; the reason is on stderr
"""
FILES = """\
data files are told by the end of the name: .csv, .tsv, .txt (tabs), also with .gz, .bz2, .xz;
.parquet, .feather (need pyarrow).  "-" is CSV on standard input.  Columns of text are factors;
columns of numbers that stand for groups in the fixed part become factors by --factor.
"""
FIT_EXAMPLES = """\
examples:
  mixlm fit sleep.csv "Reaction ~ Days + (Days | Subject)"
  mixlm fit data.parquet "y ~ x + (1 | g)" --ml --tidy out.csv --json out.json --plot out.png
  mixlm fit data.csv "score ~ year + (1 | school/class)" --factor year --weights w --save m.mixlm
"""
COMPARE_EXAMPLES = """\
examples:
  mixlm compare a.mixlm b.mixlm
  mixlm compare data.csv "y ~ x + (1 | g)" "y ~ x + (x | g)" --ml
  mixlm compare a.mixlm b.mixlm --format latex --stars -o table.tex
"""
PREDICT_EXAMPLES = """\
examples:
  mixlm predict fit.mixlm new.csv -o predictions.csv
  mixlm predict fit.mixlm new.csv --interval prediction --level 0.9 --allow-new-levels
"""
PLAN_EXAMPLES = """\
example:
  mixlm plan data.parquet "y ~ x + (x | subject) + (1 | item)"
"""

# argparse gives this class no public name
Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def _version() -> str:
    try:
        return importlib.metadata.version("mixlm-sparse")
    except importlib.metadata.PackageNotFoundError:  # run from a copy of the sources
        return "(not installed)"


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    out = argparse.ArgumentParser(
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
    command = _add(
        commands_of, "fit", "fit a model and print its summary", FIT_EXAMPLES
    )
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
    _model_options(command)
    _search_options(command)
    group = command.add_argument_group("the table")
    group.add_argument("--names", metavar="A,B,...", help="heads of the columns")
    group.add_argument("--stars", action="store_true", help="mark p-values by stars")
    _format_option(group, "default: text, which also shows likelihood-ratio tests")
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


def _add_plan(commands_of: Commands) -> None:
    command = _add(
        commands_of,
        "plan",
        "say what a fit would build and take, without fitting",
        PLAN_EXAMPLES,
    )
    _model_arguments(command)
    _model_options(command)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    args = parser().parse_args(arguments)
    # what fits models is loaded once there is something to do: help comes at once
    commands = importlib.import_module("mixlm_sparse.interop.cli.commands")
    try:
        code: int = getattr(commands, args.command)(args)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        print("mixlm: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # the reader of the output, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except NotPositiveDefiniteError as error:
        return _failed(error, args, PROBLEM)
    except (MixedModelError, OSError, UnicodeError) as error:
        return _failed(error, args, USAGE)
    except Exception as error:
        if args.traceback:
            raise
        print(
            f"mixlm: unexpected {type(error).__name__}: {error}\n"
            "       run again as mixlm --traceback ... to see where, and report it",
            file=sys.stderr,
        )
        return PROBLEM


def _failed(error: BaseException, args: argparse.Namespace, code: int) -> int:
    if args.traceback:
        raise error
    print(f"mixlm: {error}", file=sys.stderr)
    return code
