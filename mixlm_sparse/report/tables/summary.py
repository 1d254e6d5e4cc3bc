"""The summary of a fit, in the order in which an lme4 user reads it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from mixlm_sparse.common.checks import require_bool
from mixlm_sparse.common.errors import UnknownArgumentError
from mixlm_sparse.common.layout import WIDTH, Column
from mixlm_sparse.common.numbers import format_df, format_p, format_ratio
from mixlm_sparse.common.render import RichText
from mixlm_sparse.common.text import (
    abbreviate_all,
    format_column,
    format_criterion,
    format_fixed,
    shorten_all,
)
from mixlm_sparse.inference.fixed.coefficients import coefficient_tests
from mixlm_sparse.inference.fixed.tests import SingleTests
from mixlm_sparse.inference.variance.residual_structure import residual_table, structure_words
from mixlm_sparse.model.fitted import FittedModel
from mixlm_sparse.model.rowless import SAVED, MatricesWithoutRows
from mixlm_sparse.report.tables.short import kind_of_model
from mixlm_sparse.report.tables.summary_forms import Parts, as_html, as_latex, as_markdown, as_text

CORRELATION_MAX_P = 12  # more fixed effects than this: their correlations stay in cov_params()
CORRELATION_CELL = 6  # characters of a correlation and of the abbreviated name above it
GIVEN = "given as an array"


# What users of R and statsmodels ask of a summary.
OTHER_NAMES = {
    "tables": "summary.to_frame(), the table of coefficients", "coefficients": "summary.to_frame()",
    "coef": "summary.to_frame()", "params": "summary.to_frame()", "as_latex": "summary.to_latex()",
    "as_html": "summary.to_html()", "as_text": "str(summary)",
    "to_csv": "summary.to_frame().to_csv(...)",
    "varcor": "fit.varcorr", "sigma": "fit.sigma", "residuals": "fit.residuals()",
    "to_excel": "summary.to_frame().to_excel(...)",
    "save": "Path(path).write_text(str(summary)), or fit.save(path) for the fit",
    "as_csv": "summary.to_frame().to_csv(...)",
}  # fmt: skip


class Summary(RichText):
    """The text of a summary; a notebook shows its tables instead.

    It is a `str`: print it, search it, write it to a file.  `html` holds the notebook form,
    `to_markdown()` and `to_latex()` give the others, `to_frame()` the table of coefficients.
    """

    _parts: Parts
    _frame: pd.DataFrame

    def __new__(cls, text: str, html: str, parts: Parts, frame: pd.DataFrame) -> Summary:
        self = super().__new__(cls, text, html)
        assert isinstance(self, Summary)
        self._parts, self._frame = parts, frame
        return self

    def __getnewargs__(self) -> tuple[Any, ...]:
        return str(self), self.html, self._parts, self._frame

    def __getattr__(self, name: str) -> Any:
        remedy = OTHER_NAMES.get(name)
        raise AttributeError(f"a summary has no {name!r}" + (f": write {remedy}" if remedy else ""))

    def __getitem__(self, key: Any) -> str:
        if isinstance(key, str):
            raise UnknownArgumentError(
                f"a summary is a text, which has no {key!r}: write summary.to_frame() for the "
                "table of coefficients"
            )
        return super().__getitem__(key)

    def to_frame(self) -> pd.DataFrame:
        """Return the fixed effects: estimate, std_error, df, statistic, p_value, by coefficient."""
        return self._frame.copy()

    def to_markdown(self) -> str:
        """Return the summary in Markdown."""
        return as_markdown(self._parts)

    def to_latex(self) -> str:
        """Return the summary in LaTeX; it needs the package booktabs."""
        return as_latex(self._parts)

    def to_html(self) -> str:
        """Return the summary in HTML, as a notebook shows it."""
        return self.html


def summary(
    fit: FittedModel, *, correlation: bool | None = None, ddf: str | None = "auto"
) -> Summary:
    """Return the summary as text (a notebook shows tables).

    Parameters
    ----------
    correlation : print the correlations of the fixed effects; by default up to 12 of them.
    ddf : tests in the table of fixed effects: "satterthwaite", "kenward-roger", "normal", or
        None for t values alone.  "auto" is Satterthwaite where that takes a few seconds at
        most; otherwise the summary says that it left the tests out.

    Returns
    -------
    Summary : a `str` with `to_markdown()`, `to_latex()` and `to_html()`.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> fit = mx.lmer("Yield ~ 1 + (1 | Batch)", mx.datasets.load("Dyestuff"))
    >>> print(fit.summary())
    Linear mixed model fit by REML
    Formula: Yield ~ 1 + (1 | Batch)
       Data: 30 rows
    ...
    Random effects:
     Groups    Name         Variance  Std.Dev.
     Batch     (Intercept)      1764     42.00
     Residual                   2451     49.51
    Number of obs: 30, groups: Batch, 6
    <BLANKLINE>
    Fixed effects (t tests with Satterthwaite's degrees of freedom):
                Estimate Std. Error  df t value Pr(>|t|)
    (Intercept)  1527.50      19.38 5.0  78.804 6.23e-09
    ...
    """
    if correlation is not None:
        correlation = require_bool("correlation", correlation)
    tests = coefficient_tests(fit, ddf)
    parts = _collect(fit, correlation, tests)
    return Summary(as_text(parts), as_html(parts), parts, _frame(fit, tests))


def _frame(fit: FittedModel, tests: SingleTests | None) -> pd.DataFrame:
    frame = pd.DataFrame({"estimate": fit.solution.beta}, index=list(fit.system.x_names))
    if tests is None or not tests.shown:
        return frame.assign(std_error=fit.standard_errors, statistic=fit.t_ratios)
    return frame.assign(
        std_error=tests.std_error, df=tests.df, statistic=tests.statistic, p_value=tests.p_value
    )


def coefficient_columns(fit: FittedModel, tests: SingleTests | None = None) -> tuple[Column, ...]:
    """Return the table of fixed effects as printed: names, estimates, errors, t values.

    With `tests` also degrees of freedom and p-values.
    """
    estimate = fit.solution.beta.tolist()
    shown = tests is not None and tests.shown
    error = fit.standard_errors.tolist()
    ratio = fit.t_ratios.tolist()
    head = "t value"
    extra: list[Column] = []
    if shown:
        assert tests is not None
        error, ratio = tests.std_error.tolist(), tests.statistic.tolist()
        df = tests.df.tolist()
        normal = all(np.isinf(value) for value in df)
        head = "z value" if normal else "t value"
        if not normal:
            extra.append(Column("df", tuple(format_df(value) for value in df)))
        tails = tuple(format_p(v) for v in tests.p_value.tolist())
        extra.append(Column(f"Pr(>|{head[0]}|)", tails))
    columns = [
        Column("", tuple(fit.system.x_names)),
        Column("Estimate", tuple(format_column(estimate, alongside=error))),
        Column("Std. Error", tuple(format_column(error, alongside=estimate))),
        Column(head, tuple(format_ratio(value) for value in ratio)),
    ]
    if len(extra) == 2:  # R's order: df before t
        columns.insert(3, extra.pop(0))
    return (*columns, *extra)


def _collect(fit: FittedModel, correlation: bool | None, tests: SingleTests | None) -> Parts:
    reml = fit.reml
    name = "REML criterion" if reml else "deviance (-2 log-likelihood)"
    criterion = format_criterion(fit.criterion)
    information = [
        (label, format_criterion(value))
        for label, value in (("AIC", fit.aic), ("BIC", fit.bic), ("logLik", fit.llf))
    ]
    information.append(("df.resid", str(fit.df_resid)))
    settings = []
    if fit.matrices.weights is not None:
        settings.append(("Weights", fit.weights_name or GIVEN))
    if fit.matrices.offset is not None:
        in_formula = fit.matrices.spec is not None
        settings.append(("Offset", fit.offset_name or ("in the formula" if in_formula else GIVEN)))
    if fit.call is not None and fit.call.subset is not None:
        settings.append(("Subset", fit.subset_name or GIVEN))
    if fit.system.held is not None:
        held = ", ".join(f"{name} = {value:g}" for name, value in fit.system.held.names)
        settings.append(("Held", held))
    columns = coefficient_columns(fit, tests)
    p = len(fit.system.x_names)
    show = p <= CORRELATION_MAX_P if correlation is None else correlation
    matrix = _correlation_columns(fit) if show and p > 1 and not fit.perfect else ()
    hint = ""
    if p > CORRELATION_MAX_P and correlation is None:
        hint = f"Correlations of the {p} fixed effects: summary(correlation=True) or cov_params()"
    return Parts(
        title=f"{kind_of_model(fit)} fit by {'REML' if reml else 'maximum likelihood'}",
        formula=fit.formula,
        data=_data_line(fit),
        settings=tuple(settings),
        criterion_name=f"{name} at convergence: {criterion}",
        information=tuple(information),
        residuals=_residual_quantiles(fit),
        random=tuple(tuple(c) for c in fit.varcorr.cells()) if fit.matrices.terms else (),
        structures=tuple(term.words for term in fit.varcorr.terms if term.words),
        structure=_structure(fit),
        structure_words=tuple(structure_words(fit)),
        counts=_counts(fit),
        fixed=columns,
        fixed_heading=tests.heading if tests is not None else "",
        fixed_note=_fixed_note(fit, tests.note) if tests is not None else "",
        correlation=matrix,
        correlation_hint=hint,
        status=fit.convergence.headline,
        messages=fit.messages,
    )


def _structure(fit: FittedModel) -> tuple[tuple[str, ...], ...]:
    """Return the parameters of the residuals as columns of text, header first."""
    if fit.matrices.law is None:
        return ()
    table = residual_table(fit)
    numbers = ["estimate", "std_error", "lower", "upper"]
    heads = ["Estimate", "Std. Error", "95% lower", "upper"]
    sigma = format_column([fit.varcorr.sigma])[0]
    first = "sigma" if fit.matrices.terms == () else None
    names = [*(["sigma"] if first else []), *map(str, table["parameter"])]
    columns = [("", *names)]
    for head, name in zip(heads, numbers, strict=True):
        cells = [format_fixed([value], 4)[0] for value in table[name].tolist()]
        own = [sigma if name == "estimate" else ""] if first else []
        columns.append((head, *own, *cells))
    return tuple(columns)


def _fixed_note(fit: FittedModel, note: str) -> str:
    """Return the note below the coefficients; what the last notes say anyway is left to them."""
    sentence = fit.identification.sentence
    if sentence and any(sentence in message for message in fit.messages):
        note = note.replace(sentence, "NaN where the data do not determine a value: see below")
    return note


def _data_line(fit: FittedModel) -> str:
    dropped = fit.matrices.n_input - fit.nobs
    if not dropped:
        return f"{fit.nobs} rows"
    total = fit.matrices.n_input
    return f"{fit.nobs} of {total} rows ({dropped} left out: missing cells or subset)"


def _counts(fit: FittedModel) -> str:
    groups = "; ".join(f"{label}, {count}" for label, count in fit.ngroups.items())
    return f"Number of obs: {fit.nobs}" + (f", groups: {groups}" if groups else "")


def _residual_quantiles(fit: FittedModel) -> tuple[tuple[str, str], ...]:
    if not fit.sigma > 0:
        return ()
    batches = isinstance(fit.matrices, MatricesWithoutRows) and fit.matrices.why is not SAVED
    if batches and "residual_quantiles" not in vars(fit):
        return ()  # rows that come in batches are not sorted for a summary
    names = ("Min", "1Q", "Median", "3Q", "Max")
    return tuple(zip(names, format_fixed(fit.residual_quantiles.tolist(), 4), strict=True))


def _correlation_columns(fit: FittedModel) -> tuple[tuple[str, ...], ...]:
    vcov = fit.cov_params().to_numpy()  # NaN where the data do not determine an error
    sd = np.sqrt(np.diag(vcov))
    corr = vcov / np.outer(sd, sd)
    names = fit.system.x_names
    p = len(names)
    room = max(24, WIDTH - (CORRELATION_CELL + 1) * (p - 1))
    columns = [("", *shorten_all(names[1:], room))]
    heads = abbreviate_all(names, CORRELATION_CELL)
    for j in range(p - 1):
        cells = [_correlation(corr[i, j]) if i > j else "" for i in range(1, p)]
        columns.append((heads[j], *cells))
    return tuple(columns)


def _correlation(value: float) -> str:
    text = f"{value:.3f}"
    return {"nan": "NaN", "-0.000": "0.000"}.get(text, text)
