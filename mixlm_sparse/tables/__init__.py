"""Tables for people: plain text that fits 100 columns, and HTML for notebooks."""

from __future__ import annotations

from mixlm_sparse.tables.summary import Summary, coefficient_columns, summarize

__all__ = ["Summary", "coefficient_columns", "summarize"]
