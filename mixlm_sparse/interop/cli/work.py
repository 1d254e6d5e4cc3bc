"""What the subcommands share: reading the data, fitting, notes and writing text."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pandas as pd

from mixlm_sparse.api.fit import LinearMixedFit
from mixlm_sparse.api.gls import gls
from mixlm_sparse.api.lmer import lmer
from mixlm_sparse.common.errors import ConvergenceWarning, MixedModelWarning, OptionError
from mixlm_sparse.formula.parse import parse_formula
from mixlm_sparse.interop.cli.codes import OK, PROBLEM
from mixlm_sparse.interop.cli.files import TextForm, as_factors, read_table, write_bytes
from mixlm_sparse.interop.cli.structures import residual_of, variance_of
from mixlm_sparse.interop.cli.words import of_the_shell
from mixlm_sparse.solve.search.control import Control

__all__ = [
    "exit_code", "fitted", "model_arguments", "notes_on_stderr", "read", "text_form", "write_text",
]  # fmt: skip


def text_form(args: argparse.Namespace) -> TextForm:
    """Return how text files are written."""
    return TextForm(args.sep, args.decimal)


def read(args: argparse.Namespace, path: str) -> pd.DataFrame:
    """Return the data, with factors as asked for."""
    return as_factors(read_table(path, text_form(args)), args.factor)


@contextmanager
def notes_on_stderr() -> Iterator[None]:
    """Print the warnings of this package as notes, one line each."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", MixedModelWarning)
        yield
    for text in dict.fromkeys(str(warning.message) for warning in caught):
        print(f"note: {of_the_shell(text)}", file=sys.stderr)


def model_arguments(args: argparse.Namespace) -> dict[str, Any]:
    """Return the arguments of `lmer` and `gls` that say what the model is."""
    return {
        "weights": args.weights,
        "offset": args.offset,
        "subset": args.subset,
        "na_action": args.na_action,
        "contrasts": _contrasts(args.contrasts),
        "residual": residual_of(args.residual),
        "variance": variance_of(args.variance),
    }


def _contrasts(given: list[str]) -> dict[str, str] | None:
    out = {}
    for text in given:
        name, equals, choice = text.partition("=")
        if not equals or not name or not choice:
            raise OptionError(f"--contrasts {text}: write the factor, '=' and the name, as f=sum")
        out[name] = choice
    return out or None


def fitted(args: argparse.Namespace, frame: pd.DataFrame, formula: str) -> LinearMixedFit:
    """Fit a model: `gls` where it is asked for, or a structure stands beside no random term."""
    options: dict[str, Any] = {
        "reml": args.reml,
        "optimizer": args.optimizer,
        # the summary prints what there is to say
        "control": Control(warn=False, max_evaluations=args.max_evaluations),
        "progress": None if args.progress else False,
        **model_arguments(args),
    }
    structured = options["residual"] is not None or options["variance"] is not None
    with notes_on_stderr():
        if args.command == "gls" or (structured and not _has_random_terms(formula)):
            return gls(formula, frame, **options)
        return lmer(formula, frame, engine=args.engine, **options)


def _has_random_terms(formula: str) -> bool:
    return bool(parse_formula(formula, require_random=False).random)


def exit_code(model: LinearMixedFit) -> int:
    return PROBLEM if any(kind is ConvergenceWarning for kind, _ in model.notes) else OK


def write_text(path: str | None, text: str) -> None:
    """Write text to a file, or to standard output for None and "-"."""
    if path is None or path == "-":
        print(text)
    else:
        write_bytes(path, (text + "\n").encode())
