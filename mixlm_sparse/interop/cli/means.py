"""`mixlm emmeans`: marginal means of a saved fit, and their comparisons."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any

from mixlm_sparse.api.load import load
from mixlm_sparse.common.errors import OptionError
from mixlm_sparse.common.render import html_page
from mixlm_sparse.inference.means.contrast_table import Contrasts
from mixlm_sparse.inference.means.marginal_means import MarginalMeans
from mixlm_sparse.interop.cli.codes import OK
from mixlm_sparse.interop.cli.files import require_known, require_writable, write_table
from mixlm_sparse.interop.cli.words import of_the_shell
from mixlm_sparse.interop.cli.work import notes_on_stderr, text_form

__all__ = ["emmeans"]


def emmeans(args: argparse.Namespace) -> int:
    """Print marginal means or slopes, and comparisons of them."""
    require_writable(args.output)
    if args.output is not None:
        require_known(args.output)
    fit = load(args.fit)
    options: dict[str, Any] = {
        "by": args.by or None, "at": _values(args.at), "ddf": args.ddf, "weights": args.weights,
        "level": args.level,
    }  # fmt: skip
    with notes_on_stderr():
        if args.slope is None:
            means = fit.emmeans(args.specs, type=args.type, **options)
        else:
            means = fit.emtrends(args.slope, specs=args.specs, **options)
        tables = _tables(means, args)
    forms = {"markdown": "to_markdown", "latex": "to_latex", "html": "to_html"}
    name = forms.get(args.format, "__str__")
    text = "\n\n".join(str(getattr(table, name)()) for table in tables)
    if args.format == "html":
        text = html_page(f"Marginal means: {fit.formula}", text)
    print(of_the_shell(text, table=True))
    if args.output is not None:
        write_table(tables[-1].to_frame(), args.output, text_form(args))
    return OK


def _tables(means: MarginalMeans, args: argparse.Namespace) -> list[MarginalMeans | Contrasts]:
    """Return the means and, if asked for, their comparisons."""
    method = args.contrast or means.asked
    if not method:
        if args.adjust is not None:
            raise OptionError("--adjust is for comparisons: add --contrast pairwise, say")
        return [means]
    adjust = "usual" if args.adjust is None else args.adjust
    return [
        replace(means, asked=""),
        means.contrast(method, adjust=adjust, ref=args.ref, conf_int=True),
    ]


def _values(given: list[str]) -> dict[str, list[Any]] | None:
    """Read what `--at x=1,2` says: numbers where they are, else texts."""
    out: dict[str, list[Any]] = {}
    for text in given:
        name, equals, values = text.partition("=")
        if not equals or not name.strip() or not values.strip():
            raise OptionError(f"--at {text}: write the name, '=' and values, as x=0,1 or arm=B")
        out[name.strip()] = [_number_or_text(value.strip()) for value in values.split(",")]
    return out or None


def _number_or_text(text: str) -> Any:
    try:
        return float(text)
    except ValueError:
        return text
