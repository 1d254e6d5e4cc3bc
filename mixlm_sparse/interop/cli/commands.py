"""What the subcommands of `mixlm` do; each returns an exit code."""

from __future__ import annotations

import argparse
import io
import json
import math
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mixlm_sparse.api.fit import LinearMixedFit
from mixlm_sparse.api.load import load
from mixlm_sparse.common.errors import DataError
from mixlm_sparse.common.render import html_page
from mixlm_sparse.design.build import model_matrices
from mixlm_sparse.interop.cli.codes import OK
from mixlm_sparse.interop.cli.files import (
    require_known,
    require_writable,
    write_bytes,
    write_table,
)
from mixlm_sparse.interop.cli.plan import describe_plan
from mixlm_sparse.interop.cli.words import of_the_shell
from mixlm_sparse.interop.cli.work import (
    exit_code,
    fitted,
    model_arguments,
    notes_on_stderr,
    read,
    text_form,
    write_text,
)
from mixlm_sparse.report.explain import explain as explanation

__all__ = ["explain", "fit", "plan", "predict"]

PICTURES = (".png", ".pdf", ".svg", ".jpg", ".jpeg", ".eps")


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
    frame = read(args, args.data)
    model = fitted(args, frame, args.formula)
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
        print(of_the_shell(forms[args.format](), table=True))
    with notes_on_stderr():
        if args.tidy is not None:
            write_table(_tidy(model, args), args.tidy, text_form(args))
        if args.json is not None:
            write_text(args.json, json.dumps(_as_json(model, args), indent=2, ensure_ascii=False))
        if args.plot is not None:
            _draw(model, args.plot, args.plot_kind)
    if args.quiet:  # the summary says them otherwise
        for text in model.messages:
            print(f"note: {of_the_shell(text)}", file=sys.stderr)
    return exit_code(model)


def _ddf(args: argparse.Namespace) -> str:
    return "satterthwaite" if args.ddf == "auto" else str(args.ddf)


def _tidy(model: LinearMixedFit, args: argparse.Namespace) -> pd.DataFrame:
    effects = ["fixed", "ran_pars"]
    if args.random_effects:
        effects.append("ran_vals")
    return model.tidy(effects, ddf=_ddf(args), conf_int=True, level=args.level)


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
        "residual_structure": _records(model.residual_structure),
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
        "messages": [of_the_shell(text) for text in model.messages],
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
# predict and plan
# ---------------------------------------------------------------------------------------------


def predict(args: argparse.Namespace) -> int:
    """Predict for new rows and write them."""
    require_writable(args.output)
    require_known(args.output)
    model = load(args.fit)
    frame = read(args, args.data)
    with notes_on_stderr():
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
    write_table(table, args.output, text_form(args))
    return OK


def plan(args: argparse.Namespace) -> int:
    """Print what a fit would build, without fitting."""
    frame = read(args, args.data)
    with notes_on_stderr():
        matrices = model_matrices(args.formula, frame, **model_arguments(args))
        text = describe_plan(
            matrices, args.formula, engine=args.engine, reml=args.reml, frame=frame
        )
        print(of_the_shell(text, table=True))
    return OK


def explain(args: argparse.Namespace) -> int:
    """Print the page on a message."""
    print(explanation(args.about))
    return OK
