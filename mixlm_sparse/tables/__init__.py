"""Tables for people: text that fits 100 columns, Markdown, LaTeX, and HTML for notebooks."""

from __future__ import annotations

from mixlm_sparse.tables.comparison import compare_table
from mixlm_sparse.tables.for_maketables import MaketablesMethods, MaketablesModel
from mixlm_sparse.tables.summary import Summary, TestColumns, coefficient_columns, summarize

__all__ = [
    "MaketablesMethods",
    "MaketablesModel",
    "Summary",
    "TestColumns",
    "coefficient_columns",
    "compare_table",
    "summarize",
]
