"""Exit codes of the command line."""

from __future__ import annotations

OK, PROBLEM, USAGE = 0, 1, 2
INTERRUPTED = 130  # what shells give a program that Ctrl-C has ended
