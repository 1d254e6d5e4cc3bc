"""What one design leaves undetermined in the fits of all responses that share it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from mixlm_sparse.common.errors import ConvergenceWarning
from mixlm_sparse.model.notes import Notes, dropped_notes, identification_message
from mixlm_sparse.model.refit_rows import Row
from mixlm_sparse.solve.judging import identification
from mixlm_sparse.solve.system import PenalizedSystem

__all__ = ["design_notes", "determined_rows"]


def determined_rows(rows: Sequence[Row], system: PenalizedSystem, *, reml: bool) -> list[Row]:
    """Return the rows with NaN for standard errors that depend on what the data do not determine.

    They say so in their messages, as `ConvergenceReport.message` does of one fit.  Which variances
    are determined is a question to the design alone (`solve.judging`).

    Parameters
    ----------
    rows : of fits to responses of the design of `system`.
    """
    judged = identification(system, reml=reml)
    if judged.complete:
        return list(rows)
    known = judged.coefficients(np.eye(system.p))
    return [
        row
        if row.bse is None
        else row._replace(
            bse=np.where(known, row.bse, np.nan), message=f"{row.message}; {judged.sentence}"
        )
        for row in rows
    ]


def design_notes(systems: Iterable[PenalizedSystem], *, reml: bool) -> Notes:
    """Return what is to be said once of all responses of these designs: the first of each kind."""
    notes: Notes = ()
    for system in systems:
        own = dropped_notes(system)
        judged = identification(system, reml=reml)
        if not judged.complete:
            own += ((ConvergenceWarning, identification_message(judged)),)
        said = {category for category, _ in notes}
        notes += tuple(note for note in own if note[0] not in said)
    return notes
