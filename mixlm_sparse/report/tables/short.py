"""A fit in a few lines, as `print(fit)` shows it: what R prints of a model, without tests."""

from __future__ import annotations

from mixlm_sparse.common.layout import WIDTH, wrap
from mixlm_sparse.common.text import display_width, format_criterion, format_number, text_table
from mixlm_sparse.model.fitted import FittedModel

SHOWN = 24  # coefficients that are printed; fit.fixef has all
DIGITS = 5


def kind_of_model(fit: FittedModel) -> str:
    """Return what the model is called."""
    if fit.matrices.terms:
        return "Linear mixed model"
    return "Generalized least squares" if fit.matrices.law is not None else "Linear model"


def short_text(fit: FittedModel) -> str:
    """Return formula, criterion, variance components and coefficients."""
    method = "REML" if fit.reml else "ML"
    groups = "".join(f", {count} levels of {label}" for label, count in fit.ngroups.items())
    criterion = "REML criterion" if fit.reml else "deviance"
    lines = [
        f"{kind_of_model(fit)} fit by {method}",
        *wrap("Formula: ", fit.formula, WIDTH),
        *wrap("", f"{criterion} {format_criterion(fit.criterion)}, {fit.nobs} rows{groups}; "
             f"{fit.convergence.status}", WIDTH),
    ]
    if fit.matrices.terms:
        lines += ["Random effects:", *str(fit.varcorr).splitlines()]
    else:
        lines.append(f"Residual standard deviation: {format_number(fit.varcorr.sigma, DIGITS)}")
    lines += ["Fixed effects:", *_coefficients(fit)]
    count = len(fit.messages)
    said = f", fit.messages {count} message{'' if count == 1 else 's'}" if count else ""
    return "\n".join([*lines, f"fit.summary() has the tests{said}"])


def _coefficients(fit: FittedModel) -> list[str]:
    """Return names above numbers, as many side by side as have room."""
    pairs = [
        (str(name), format_number(value, DIGITS))
        for name, value in zip(fit.fixef.index[:SHOWN], fit.fixef.tolist(), strict=False)
    ]
    rows: list[list[tuple[str, str]]] = [[]]
    used = 0
    for pair in pairs:
        width = max(map(display_width, pair)) + 2
        if rows[-1] and used + width > WIDTH:
            rows.append([])
            used = 0
        rows[-1].append(pair)
        used += width
    lines = [line for row in rows if row for line in text_table(row, left=0, gap="  ")]
    more = len(fit.fixef) - len(pairs)
    return [*lines, f"and {more} more in fit.fixef"] if more > 0 else lines
