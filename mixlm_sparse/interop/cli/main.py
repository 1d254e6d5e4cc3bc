"""The command `mixlm`: what is run, and what becomes of errors."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

from mixlm_sparse.common.errors import MixedModelError, NotPositiveDefiniteError
from mixlm_sparse.interop.cli.arguments import parser
from mixlm_sparse.interop.cli.codes import INTERRUPTED, OK, PROBLEM, USAGE
from mixlm_sparse.interop.cli.words import of_the_shell, require_order

__all__ = ["main"]

MODULES = {
    "compare": "comparing", "compile": "compiling", "emmeans": "means", "power": "designing",
    "simulate": "designing",
}  # fmt: skip
FUNCTIONS = {"gls": "fit", "compile": "compile_all"}  # where the name is another


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    args = parser().parse_args(arguments)
    try:
        require_order(args)
        # what fits models is loaded once there is something to do: help comes at once
        module = MODULES.get(args.command, "commands")
        commands = importlib.import_module(f"mixlm_sparse.interop.cli.{module}")
        code: int = getattr(commands, FUNCTIONS.get(args.command, args.command))(args)
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
    print(f"mixlm: {of_the_shell(str(error))}", file=sys.stderr)
    return code
