"""One small tree of exceptions and warnings.

Every message says the fact, then the remedy, in the user's own words.
"""

from __future__ import annotations

import sys

from mixlm_sparse.common.text import printable, shorten

MAX_MESSAGE = 1500  # columns of a message; what is longer is cut in the middle


class _ReadableError(Exception):
    """An exception whose text every terminal can show, however long the user's words are."""

    def __str__(self) -> str:
        return shorten(printable(Exception.__str__(self)), MAX_MESSAGE)


class MixedModelError(_ReadableError):
    """Root of all errors that this package raises on purpose."""


class FormulaError(MixedModelError, ValueError):
    """The formula cannot be read, or asks for something that is not allowed."""


class DataError(MixedModelError, ValueError):
    """The data do not fit the formula: missing column, wrong kind, too few levels, ...

    `absent` names the column that the data do not have, where that is the error.
    """

    absent: str = ""


class OptionError(MixedModelError, ValueError):
    """An argument has a value that the function does not know."""


class UnknownArgumentError(OptionError, TypeError):
    """A function was called with a keyword that it does not have."""


class MissingArgumentError(OptionError, TypeError):
    """A function was called without an argument that it needs."""


class UnknownKeyError(OptionError, KeyError):
    """A mapping, such as a profile, was asked for a name that it does not have."""



class EngineError(MixedModelError, RuntimeError):
    """A numerical engine is not installed or cannot serve the model."""


class NotPositiveDefiniteError(MixedModelError, ArithmeticError):
    """A matrix that must be positive definite is not, at the given theta."""


class MixedModelWarning(_ReadableError, UserWarning):  # noqa: N818
    """Root of all warnings of this package."""


class SingularFitWarning(MixedModelWarning):
    """A variance is estimated as zero or a correlation as one."""


class RankDeficiencyWarning(MixedModelWarning):
    """Columns of the fixed-effects matrix were dropped as linear combinations of earlier ones."""


class ScalingWarning(MixedModelWarning):
    """Columns are on wildly different scales."""


class FormulaWarning(MixedModelWarning):
    """The formula means something other than its look suggests."""


class ConvergenceWarning(MixedModelWarning):
    """The optimizer stopped before the optimum was certified."""


class CheckpointWarning(MixedModelWarning):
    """A search cannot keep its best point in the file that was given: it goes on without."""


class CompilationWarning(MixedModelWarning):
    """Machine code cannot be made or kept here: answers are the same, and come later."""


class MissingPackageError(MixedModelError, ImportError):
    """An optional package is asked for and not installed."""


class SkippedGroupsWarning(MixedModelWarning):
    """Groups were left out, because they have too few rows or too little variation."""


class RefitWarning(MixedModelWarning):
    """A method that is defined for another criterion made the model fitted again by it."""


class FewLevelsWarning(MixedModelWarning):
    """A grouping factor has so few levels that its variance is hardly known."""


class SavedFitError(MixedModelError, ValueError):
    """A file is not a saved fit, is broken, or lacks what is asked of it."""


class RowsAbsentError(MixedModelError, ValueError):
    """Rows are asked of a fit whose rows are not at hand: they come in batches, or were summed."""


class WorkerError(MixedModelError, RuntimeError):
    """A process that was to do a part of the work did not start, or ended before it was done."""


class MissingFileError(SavedFitError, FileNotFoundError):
    """There is no file, or no folder, of the name given."""


def caller_level() -> int:
    """Return the stack level, seen from the caller, of the first frame outside the package."""
    package = __name__.partition(".")[0]
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(package):
        level, frame = level + 1, frame.f_back
    return level
