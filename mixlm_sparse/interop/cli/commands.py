"""What the subcommands of `mixlm` do; each returns an exit code."""

from __future__ import annotations

import argparse
import io
import json
import math
import os
import sys
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mixlm_sparse.api.fit import LinearMixedFit
from mixlm_sparse.api.lmer import lmer
from mixlm_sparse.api.load import load
from mixlm_sparse.common.errors import (
    ConvergenceWarning,
    DataError,
    MixedModelWarning,
    OptionError,
    SavedFitError,
)
from mixlm_sparse.common.render import html_page
from mixlm_sparse.common.text import format_number, text_table
from mixlm_sparse.design.build import model_matrices
from mixlm_sparse.inference.models.compare import anova
from mixlm_sparse.interop.cli.codes import OK, PROBLEM
from mixlm_sparse.interop.cli.files import (
    as_factors,
    read_table,
    require_known,
    require_writable,
    write_bytes,
    write_table,
)
from mixlm_sparse.interop.cli.plan import describe_plan
from mixlm_sparse.model.saved.archive import DOCUMENT
from mixlm_sparse.report.tables.comparison import compare_table
from mixlm_sparse.solve.search.search import Control

__all__ = ["compare", "fit", "plan", "predict"]

PICTURES = (".png", ".pdf", ".svg", ".jpg", ".jpeg", ".eps")


@contextmanager
def _notes_on_stderr() -> Iterator[None]:
    """Print the warnings of this package as notes, one line each."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", MixedModelWarning)
        yield
    for text in dict.fromkeys(str(warning.message) for warning in caught):
        print(f"note: {text}", file=sys.stderr)


def _model_arguments(args: argparse.Namespace) -> dict[str, Any]:
    return {
        "weights": args.weights,
        "offset": args.offset,
        "subset": args.subset,
        "na_action": args.na_action,
        "contrasts": _contrasts(args.contrasts),
    }


def _contrasts(given: list[str]) -> dict[str, str] | None:
    out = {}
    for text in given:
        name, equals, choice = text.partition("=")
        if not equals or not name or not choice:
            raise OptionError(f"--contrasts {text}: write the factor, '=' and the name, as f=sum")
        out[name] = choice
    return out or None


def _fitted(args: argparse.Namespace, frame: pd.DataFrame, formula: str) -> LinearMixedFit:
    with _notes_on_stderr():
        return lmer(
            formula,
            frame,
            reml=args.reml,
            **_model_arguments(args),
            optimizer=args.optimizer,
            engine=args.engine,
            # the summary prints what there is to say
            control=Control(warn=False, max_evaluations=args.max_evaluations),
            progress=None if args.progress else False,
        )


def _code(model: LinearMixedFit) -> int:
    return PROBLEM if any(kind is ConvergenceWarning for kind, _ in model.notes) else OK


# ---------------------------------------------------------------------------------------------
# fit
# ---------------------------------------------------------------------------------------------


def fit(args: argparse.Namespace) -> int:
    """Fit a model, print its summary and write what was asked for."""
    for path in (args.tidy, args.json, args.plot, args.save):
        require_writable(path)
    if args.tidy is not None:
        require_known(args.tidy)
    if args.plot is not None and not args.plot.lower().endswith(PICTURES):
        raise DataError(f"--plot {args.plot}: use one of {', '.join(PICTURES)}")
    frame = as_factors(read_table(args.data), args.factor)
    model = _fitted(args, frame, args.formula)
    if args.save is not None:  # first: nothing else can be lost then
        model.save(args.save, include_data=args.include_data)
    if not args.quiet:
        summary = model.summary(ddf=args.ddf)
        forms: dict[str, Callable[[], str]] = {
            "text": lambda: str(summary),
            "markdown": summary.to_markdown,
            "latex": summary.to_latex,
            "html": lambda: html_page(model.formula, summary.to_html()),
        }
        print(forms[args.format]())
    with _notes_on_stderr():
        if args.tidy is not None:
            write_table(_tidy(model, args), args.tidy)
        if args.json is not None:
            _write_text(args.json, json.dumps(_as_json(model, args), indent=2, ensure_ascii=False))
        if args.plot is not None:
            _draw(model, args.plot, args.plot_kind)
    code = _code(model)
    if code and args.quiet:
        for text in model.messages:
            print(f"note: {text}", file=sys.stderr)
    return code


def _ddf(args: argparse.Namespace) -> str:
    return "satterthwaite" if args.ddf == "auto" else str(args.ddf)


def _tidy(model: LinearMixedFit, args: argparse.Namespace) -> pd.DataFrame:
    effects = ["fixed", "ran_pars"]
    if args.random_effects:
        effects.append("ran_vals")
    return model.tidy(effects, ddf=_ddf(args), conf_int=True, level=args.level)


def _write_text(path: str, text: str) -> None:
    if path == "-":
        print(text)
    else:
        write_bytes(path, (text + "\n").encode())


def _as_json(model: LinearMixedFit, args: argparse.Namespace) -> dict[str, Any]:
    """Return everything about a fit that a program may want, as plain data."""
    report = model.convergence
    matrices = model.matrices
    return {
        "formula": model.formula,
        "method": "REML" if model.reml else "ML",
        "nobs": model.nobs,
        "rows": matrices.n_input,
        "groups": model.ngroups,
        "criterion": _number(model.criterion),
        "loglik": _number(model.llf),
        "aic": _number(model.aic),
        "bic": _number(model.bic),
        "df_resid": model.df_resid,
        "sigma": _number(model.sigma),
        "theta": {
            name: _number(value)
            for name, value in zip(model.theta_names, model.theta.tolist(), strict=True)
        },
        "fixed": _records(model.tidy("fixed", ddf=_ddf(args), conf_int=True, level=args.level)),
        "ddf": _ddf(args),
        "level": args.level,
        "random": _records(model.varcorr.to_frame()),
        "dropped_columns": list(model.system.dropped),
        "convergence": {
            "status": report.status,
            "converged": report.converged,
            "singular": bool(report.singular),
            "message": report.message,
            "largest_gradient": _number(report.max_abs_gradient),
            "evaluations": report.n_evaluations,
            "seconds": _number(report.seconds),
            "optimizer": report.optimizer,
            "engine": report.engine,
        },
        "messages": list(model.messages),
    }


def _number(value: Any) -> Any:
    """Return a number as JSON knows it: what is not finite becomes null."""
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return [
        {str(name): _number(value) for name, value in record.items()}
        for record in frame.astype(object).to_dict("records")
    ]


def _draw(model: LinearMixedFit, path: str, kind: str) -> None:
    os.environ.setdefault("MPLBACKEND", "Agg")  # nothing is shown, and there may be no screen
    figure = model.plot(kind)
    buffer = io.BytesIO()
    figure.savefig(buffer, format=Path(path).suffix.lower().lstrip("."))
    write_bytes(path, buffer.getvalue())


# ---------------------------------------------------------------------------------------------
# compare
# ---------------------------------------------------------------------------------------------


def compare(args: argparse.Namespace) -> int:
    """Show models side by side, and test each against the next smaller one."""
    require_writable(args.output)
    first, *others = args.models
    if _is_saved_fit(first):
        models = [load(path) for path in args.models]
        names = [Path(path).stem for path in args.models]
    else:
        formulas = others
        if any("~" not in formula for formula in formulas):
            raise DataError(
                f"{first!r} is no saved fit, so that the others must be formulas, and "
                f"{next(f for f in formulas if '~' not in f)!r} is none"
            )
        frame = as_factors(read_table(first), args.factor)
        models = [_fitted(args, frame, formula) for formula in formulas]
        names = [f"m{i + 1}" for i in range(len(models))]
    if len(models) < 2:
        raise OptionError("give two or more models: saved fits, or a data file and formulas")
    if args.names is not None:
        names = [name.strip() for name in args.names.split(",")]
    elif len(set(names)) < len(names):
        names = [f"m{i + 1}" for i in range(len(models))]
    table = compare_table(models, names=names, stars=args.stars, format=args.format)
    out = [str(table)]
    if args.format == "html":
        out = [html_page(", ".join(names), str(table))]
    if args.format == "text":
        out = [f"{name}: {model.formula}" for name, model in zip(names, models, strict=True)]
        out += ["", str(table)]
        out += ["", *_tests(models, names)]
    if args.output is None:
        print("\n".join(out))
    else:
        _write_text(args.output, "\n".join(out))
    return max(_code(model) for model in models)


def _is_saved_fit(path: str) -> bool:
    """Return whether the file is an archive with a fit, by its content."""
    if path != "-" and not os.path.exists(path):
        raise FileNotFoundError(f"there is no file {path!r}")
    if path == "-" or not zipfile.is_zipfile(path):
        return path.lower().endswith(".mixlm")  # broken: let `load` say so
    with zipfile.ZipFile(path) as archive:
        return DOCUMENT in archive.namelist()


def _tests(models: list[LinearMixedFit], names: list[str]) -> list[str]:
    try:
        table = anova(*models, names=names)
    except (DataError, SavedFitError, OptionError) as error:
        print(f"note: no likelihood-ratio tests: {error}", file=sys.stderr)
        return []
    columns: list[list[str]] = [["", *map(str, table.index)]]
    for name in table.columns:
        values = table[name].tolist()
        p_value = str(name).startswith("Pr")
        columns.append([str(name), *(_cell(value, p_value=p_value) for value in values)])
    heading = "Likelihood-ratio tests, each model against the one above"
    lines = [f"{heading}:", *text_table(columns, gap="  ")]
    note = table.attrs.get("note", "")
    return [*lines, f"({note})"] if note else lines


def _cell(value: float, *, p_value: bool) -> str:
    if not math.isfinite(value):
        return "" if math.isnan(value) else format_number(value)
    if p_value:
        return f"{value:.4f}" if value >= 1e-4 else f"{value:.2e}"
    return str(int(value)) if float(value).is_integer() else f"{value:.2f}"


# ---------------------------------------------------------------------------------------------
# predict and plan
# ---------------------------------------------------------------------------------------------


def predict(args: argparse.Namespace) -> int:
    """Predict for new rows and write them."""
    require_writable(args.output)
    require_known(args.output)
    model = load(args.fit)
    frame = as_factors(read_table(args.data), args.factor)
    with _notes_on_stderr():
        result = model.predict(
            frame,
            "population" if args.population else args.re_form,
            allow_new_levels=args.allow_new_levels,
            se=args.se,
            interval=args.interval,
            level=args.level,
        )
    table = result if isinstance(result, pd.DataFrame) else pd.DataFrame({"fit": result})
    table = table.add_prefix(args.prefix).reset_index(drop=True)
    if not args.only:
        taken = [name for name in table.columns if name in frame.columns]
        if taken:
            raise DataError(
                f"the data have a column {taken[0]!r} already: name the predictions otherwise with "
                "--prefix, or write them alone with --only"
            )
        table = pd.concat([frame.reset_index(drop=True), table], axis=1)
    write_table(table, args.output)
    return OK


def plan(args: argparse.Namespace) -> int:
    """Print what a fit would build, without fitting."""
    frame = as_factors(read_table(args.data), args.factor)
    with _notes_on_stderr():
        matrices = model_matrices(args.formula, frame, **_model_arguments(args))
        print(
            describe_plan(matrices, args.formula, engine=args.engine, reml=args.reml, frame=frame)
        )
    return OK
