"""How marginal means, slopes and contrasts are headed, and what is said below them."""

from __future__ import annotations

import pandas as pd

from mixlm_sparse.common.checks import listed
from mixlm_sparse.common.tables import ResultTable, as_result
from mixlm_sparse.inference.means.estimates import METHODS, Estimates, written

HEADINGS = {
    "pairwise": "Pairwise comparisons",
    "revpairwise": "Pairwise comparisons",
    "trt.vs.ctrl": "Comparisons with a reference",
    "trt.vs.ctrlk": "Comparisons with a reference",
    "consec": "Consecutive comparisons",
    "poly": "Polynomial contrasts",
    "interaction": "Interaction contrasts",
}


def heading(estimates: Estimates) -> str:
    """Say what the estimates are."""
    if estimates.method:
        return HEADINGS.get(estimates.method, "Contrasts")
    if estimates.what.endswith(".trend"):
        return f"Marginal slopes of {estimates.what.removesuffix('.trend')}"
    return "Marginal means"


def as_shown(estimates: Estimates, table: pd.DataFrame) -> ResultTable:
    """Return a table of the estimates with its heading and notes."""
    notes = [f"degrees of freedom: {METHODS[estimates.ddf]}; level {estimates.level:g}"]
    if estimates.averaged_over:
        notes.append(f"averaged over the levels of {', '.join(estimates.averaged_over)}")
    for inner, outer in estimates.within.items():
        notes.append(f"levels of {inner} within those of {', '.join(outer)}")
    for name, values in estimates.at.items():
        if len(values) > 1:
            over = f"averaged over {name} = {listed([written(v) for v in values], 6)}"
            notes.append(f"{over}; for a row at each, name it in specs or by")
    held = [f"{name} = {written(v[0])}" for name, v in estimates.at.items() if len(v) == 1]
    if held:
        notes.append(f"at {', '.join(held)}")
    if estimates.basis:
        notes.append(estimates.basis)
    return as_result(table, heading=heading(estimates), notes=[*notes, *table.attrs["notes"]])
