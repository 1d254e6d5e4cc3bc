"""Numbers of a table by what they are: p-values, degrees of freedom, statistics, estimates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from mixlm_sparse.common.text import (
    MAX_WIDTH,
    NEGLIGIBLE,
    as_written,
    decimals_needed,
    format_column,
    format_criterion,
    format_fixed,
    format_number,
)

SMALLEST_P = 2e-16  # smaller p-values print as below this
SHORT = 12  # numbers of a column that each show their digits
DIGITS = 4  # significant digits of the smallest standard error of a table

# Columns by what their numbers are; `x.trend`, a slope, is an estimate too.
ESTIMATES = {"estimate", "std_error", "lower", "upper", "conf_low", "conf_high", "emmean", "fit",
             "response", "ratio", "effect_size"}  # fmt: skip
P_VALUES = {"p_value", "Pr(>F)", "Pr(>Chisq)", "Pr(>Chibar2)"}
STATISTICS = {"statistic", "F value", "LRT", "Chisq", "chi2", "t value", "z value",
              "stat"}  # fmt: skip
COUNTS = {"df", "ddf", "Df", "NumDF", "DenDF", "npar"}
CRITERIA = {"AIC", "BIC", "logLik", "deviance", "aic", "bic", "llf", "criterion"}


def format_p(value: float) -> str:
    """Return a p-value: four decimals, fewer digits below .001.

    Examples
    --------
    >>> [format_p(p) for p in (0.04567, 0.000123, 1e-20)]
    ['0.0457', '1.23e-04', '<2e-16']
    """
    if not np.isfinite(value):
        return format_number(value)
    if value < SMALLEST_P:
        return "<2e-16"
    return f"{value:.4f}" if value >= 1e-3 else f"{value:.2e}"


def format_df(value: float) -> str:
    """Return degrees of freedom with one decimal."""
    return f"{value:.1f}" if np.isfinite(value) else format_number(value)


def format_ratio(value: float) -> str:
    """Return a test statistic with three decimals."""
    return format_fixed([value], 3)[0] if np.isfinite(value) else format_number(value)


def format_counts(values: Sequence[float]) -> list[str]:
    """Return degrees of freedom or counts: whole numbers if all are, else one decimal."""
    known = [v for v in values if np.isfinite(v)]
    if all(v == round(v) for v in known):
        return [as_written(float(v)) if np.isfinite(v) else format_number(v) for v in values]
    return [format_df(v) for v in values]


def format_estimates(columns: Mapping[str, Sequence[float]]) -> dict[str, list[str]]:
    """Return estimates, standard errors and limits with decimals in common.

    They show `DIGITS` digits of the smallest standard error or, without one, of the narrowest
    interval; without an interval of the smallest number.
    """
    everything = [value for values in columns.values() for value in values]
    ends = [columns.get("lower", columns.get("conf_low")), columns.get("upper")]
    ends[1] = columns.get("conf_high") if ends[1] is None else ends[1]
    errors = [v for v in columns.get("std_error", ()) if np.isfinite(v)]
    if errors:
        scale = errors
    elif ends[0] is not None and ends[1] is not None:
        widths = [b - a for a, b in zip(ends[0], ends[1], strict=True)]
        scale = [width for width in widths if np.isfinite(width)] or everything
    else:
        scale = everything
    decimals = decimals_needed(scale, DIGITS)
    wide = max((len(f"{v:.{decimals}f}") for v in everything if np.isfinite(v)), default=0)
    if wide > MAX_WIDTH:
        return {
            name: [format_number(v, DIGITS + 1) for v in values] for name, values in columns.items()
        }
    return {
        name: [f"{v:.{decimals}f}" if np.isfinite(v) else format_number(v) for v in values]
        for name, values in columns.items()
    }


def format_numbers(name: str, values: Sequence[float]) -> list[str]:
    """Return the numbers of a column as its name asks for; see the sets above."""
    if name in P_VALUES:
        return [format_p(v) for v in values]
    if name in STATISTICS:
        return [format_ratio(v) for v in values]
    if name in CRITERIA:
        return [format_criterion(v) for v in values]
    if name in COUNTS or all(v == round(v) for v in values if np.isfinite(v)):
        return format_counts(values)
    # of a long column, what is far below its usual size needs no digits
    sizes = sorted(abs(v) for v in values if np.isfinite(v) and v != 0.0)
    usual = sizes[len(sizes) // 2] / max(sizes) if len(sizes) > SHORT else NEGLIGIBLE
    return format_column(values, DIGITS, negligible=max(usual, NEGLIGIBLE))


def is_estimate(name: object) -> bool:
    """Return whether a column has estimates, their errors or their limits."""
    return isinstance(name, str) and (name in ESTIMATES or name.endswith(".trend"))
