"""What a fit would build and take, without fitting."""

from __future__ import annotations

import textwrap
import time

import numpy as np
import pandas as pd

from mixlm_sparse.common.checks import listed
from mixlm_sparse.common.errors import NotPositiveDefiniteError
from mixlm_sparse.common.layout import WIDTH, hanging
from mixlm_sparse.common.text import display_width, shorten_all, text_table
from mixlm_sparse.design.matrices import ModelMatrices
from mixlm_sparse.engines.memory import size_text
from mixlm_sparse.model.notes import dropped_message, few_levels_message, scaling_message
from mixlm_sparse.model.plan import reachable_bytes
from mixlm_sparse.solve.criterion import criterion_and_gradient
from mixlm_sparse.solve.judging import require_residuals_apart
from mixlm_sparse.solve.system import PenalizedSystem, penalized_system

__all__ = ["describe_plan"]

MAX_NAMES = 24  # names of columns or parameters that are listed
# Evaluations that a search takes: usual numbers for up to ten parameters.
EVALUATIONS = (10, 30)


def describe_plan(
    matrices: ModelMatrices, formula: str, *, engine: str, reml: bool, frame: pd.DataFrame
) -> str:
    """Return the plan of a fit as text; forms the products and evaluates the criterion once."""
    began = time.perf_counter()
    system = penalized_system(matrices, engine)
    require_residuals_apart(system)
    formed = time.perf_counter() - began
    seconds, undefined = _seconds_of_evaluation(system, reml)
    lines = ["Plan of a linear mixed model, nothing is fitted yet"]
    lines += _wrap("Formula: ", formula)
    lines += _wrap("Method: ", "REML" if reml else "maximum likelihood")
    rows = f"{matrices.nobs} of {matrices.n_input} rows are used"
    if matrices.nobs == matrices.n_input:
        rows = f"all {matrices.nobs} rows are used"
    lines += _wrap("Data: ", f"{rows}; response {matrices.response_name}")
    lines += ["", f"Fixed part: {len(matrices.fixed.names)} columns"]
    lines += _wrap("  ", listed(matrices.fixed.names, MAX_NAMES))
    if system.dropped:
        dropped = listed(system.dropped, MAX_NAMES)
        lines += _wrap("  dropped as combinations of earlier ones: ", dropped)
    lines += ["", "Grouping factors:", *_factors(matrices)]
    lines += ["", "Random terms:", *_terms(system)]
    lines += ["", f"Parameters of the search: {system.n_theta}"]
    lines += _wrap("  ", listed(system.theta_names, MAX_NAMES))
    lines += ["", "Engine:", *(f"  {line}" for line in hanging(system.describe(), WIDTH - 2))]
    lines += ["", "Memory:", *_memory(system, frame)]
    few, many = (_time(formed + n * seconds) for n in EVALUATIONS)
    lines += ["", f"Time: products {_time(formed)}, an evaluation {_time(seconds)}"]
    if undefined:
        lines += _wrap("  ", f"the criterion is not defined at the usual start: {undefined}")
    else:
        lines += [f"  a fit of {EVALUATIONS[0]} to {EVALUATIONS[1]} evaluations {few} to {many}"]
    for message in _messages(system):
        lines += ["", *_wrap("Note: ", message)]
    return "\n".join(lines)


def _seconds_of_evaluation(system: PenalizedSystem, reml: bool) -> tuple[float, str]:
    """Return the time of one evaluation with gradient, and why it is not defined, or ""."""
    try:
        criterion_and_gradient(system.theta0, system, reml=reml)  # buffers, perhaps compilation
        began = time.perf_counter()
        criterion_and_gradient(system.theta0, system, reml=reml)
        return time.perf_counter() - began, ""
    except NotPositiveDefiniteError as error:
        return 0.0, str(error)


def _factors(matrices: ModelMatrices) -> list[str]:
    columns: list[list[str]] = [["Factor"], ["Levels"], ["Rows per level"]]
    for factor in matrices.factors:
        sizes = factor.row_counts
        columns[0].append(factor.label)
        columns[1].append(str(factor.n_levels))
        columns[2].append(f"{sizes.min()} to {sizes.max()}, median {np.median(sizes):g}")
    return _within(columns)


def _within(columns: list[list[str]]) -> list[str]:
    """Return the lines of a table whose first column is cut so that it fits the width."""
    others = sum(max(map(display_width, column)) + 2 for column in columns[1:])
    columns[0] = shorten_all(columns[0], WIDTH - 2 - others)
    return text_table(columns, indent="  ", gap="  ")


def _terms(system: PenalizedSystem) -> list[str]:
    heads = ("Term", "Effects a level", "Levels", "Effects", "Parameters", "Structure")
    columns: list[list[str]] = [[head] for head in heads]
    total = 0
    for term, template in zip(system.matrices.terms, system.templates, strict=True):
        levels = system.matrices.factors[term.factor].n_levels
        width = len(term.column_names)
        total += levels * width
        cells = (term.name, width, levels, levels * width, template.n_theta, term.structure)
        for column, cell in zip(columns, cells, strict=True):
            column.append(str(cell))
    lines = _within(columns)
    for term in system.matrices.terms:
        lines += _wrap("  ", f"{term.name}: {listed(term.column_names, MAX_NAMES)}")
    return [*lines, f"  {total} random effects in all"]


def _memory(system: PenalizedSystem, frame: pd.DataFrame) -> list[str]:
    data = int(frame.memory_usage(deep=True).sum())
    products = reachable_bytes(system.products)
    engine = reachable_bytes((system.engine, vars(system).get("fused"))) - products
    rows = system.n * (len(system.matrices.fixed.names) + 2) * 8
    parts = [
        ("data as read", data),
        ("products that do not depend on theta", products),
        ("factor and work space of the engine", max(engine, 0)),
        ("per-row results when asked for, each X once", rows),
    ]
    total = sum(size for _, size in parts)
    lines = text_table(
        [["", *(name for name, _ in parts), "estimate in all"],
         ["", *(size_text(size) for _, size in parts), size_text(total)]],
        indent="  ", gap="  ",
    )  # fmt: skip
    return lines[1:]


def _messages(system: PenalizedSystem) -> list[str]:
    messages = [scaling_message(system), few_levels_message(system)]
    if system.dropped:
        messages.append(dropped_message(system.dropped))
    return [message for message in messages if message is not None]


def _wrap(label: str, text: str) -> list[str]:
    return textwrap.wrap(
        text, WIDTH, initial_indent=label, subsequent_indent=" " * min(len(label), 8),
        break_on_hyphens=False,
    ) or [label.rstrip()]  # fmt: skip


def _time(seconds: float) -> str:
    if seconds < 1e-3:
        return f"{seconds * 1e6:.0f} us"
    return f"{seconds * 1e3:.1f} ms" if seconds < 1.0 else f"{seconds:.1f} s"
