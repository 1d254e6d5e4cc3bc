"""`mixlm compare`: models side by side, and tests of each against the next smaller one."""

from __future__ import annotations

import argparse
import os
import sys
import zipfile
from pathlib import Path

from mixlm_sparse.api.fit import LinearMixedFit
from mixlm_sparse.api.load import load
from mixlm_sparse.common.errors import DataError, OptionError, SavedFitError
from mixlm_sparse.common.layout import wrap
from mixlm_sparse.common.render import html_page
from mixlm_sparse.inference.models.compare import anova
from mixlm_sparse.interop.cli.files import require_writable
from mixlm_sparse.interop.cli.words import of_the_shell
from mixlm_sparse.interop.cli.work import exit_code, fitted, read, write_text
from mixlm_sparse.model.saved.archive import DOCUMENT
from mixlm_sparse.report.tables.comparison import compare_table

__all__ = ["compare", "is_saved_fit"]


def compare(args: argparse.Namespace) -> int:
    """Show models side by side, and test each against the next smaller one."""
    require_writable(args.output)
    models, names = _models(args)
    if len(models) < 2:
        raise OptionError("give two or more models: saved fits, or a data file and formulas")
    _require_one_response(models, names)
    if args.names is not None:
        names = [name.strip() for name in args.names.split(",")]
    elif len(set(names)) < len(names):
        names = [f"m{i + 1}" for i in range(len(models))]
    table = str(compare_table(models, names=names, stars=args.stars, format=args.format))
    out = [table]
    if args.format == "text":
        formulas = [
            line
            for name, model in zip(names, models, strict=True)
            for line in wrap(f"{name}: ", " ".join(model.formula.split()))
        ]
        out = [*formulas, "", table]
    tests = _tests(models, names, args.format)
    if tests:
        out += ["", tests]
    text = "\n".join(out)
    write_text(args.output, html_page(", ".join(names), text) if args.format == "html" else text)
    return max(exit_code(model) for model in models)


def _models(args: argparse.Namespace) -> tuple[list[LinearMixedFit], list[str]]:
    first, *others = args.models
    if is_saved_fit(first):
        return [load(path) for path in args.models], [Path(path).stem for path in args.models]
    if any("~" not in formula for formula in others):
        raise DataError(
            f"{first!r} is no saved fit, so that the others must be formulas, and "
            f"{next(f for f in others if '~' not in f)!r} is none"
        )
    frame = read(args, first)
    models = [fitted(args, frame, formula) for formula in others]
    return models, [f"m{i + 1}" for i in range(len(models))]


def is_saved_fit(path: str) -> bool:
    """Return whether the file is an archive with a fit, by its content.

    Raises
    ------
    FileNotFoundError : there is no such file.
    """
    if path != "-" and not os.path.exists(path):
        raise FileNotFoundError(f"there is no file {path!r}")
    if path == "-" or not zipfile.is_zipfile(path):
        return path.lower().endswith(".mixlm")  # broken: let `load` say so
    with zipfile.ZipFile(path) as archive:
        return DOCUMENT in archive.namelist()


def _require_one_response(models: list[LinearMixedFit], names: list[str]) -> None:
    """Raise a DataError if models have different responses: columns that mean different things."""
    responses = [model.matrices.response_name for model in models]
    for name, response in zip(names, responses, strict=True):
        if response != responses[0]:
            raise DataError(
                f"{names[0]} is a model of {responses[0]}, {name} of {response}: their estimates "
                "and likelihoods cannot be compared; give models of one response"
            )


def _tests(models: list[LinearMixedFit], names: list[str], form: str) -> str:
    try:
        table = anova(*models, names=names)
    except (DataError, SavedFitError, OptionError) as error:
        print(f"note: no likelihood-ratio tests: {of_the_shell(str(error))}", file=sys.stderr)
        return ""
    if form == "markdown":
        return str(table.to_markdown())
    if form == "latex":
        return str(table.to_latex())
    return str(table.to_html()) if form == "html" else str(table)
