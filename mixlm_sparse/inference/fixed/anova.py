"""Tables of F tests of the fixed-effects terms."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from mixlm_sparse.common.tables import result_table
from mixlm_sparse.inference.fixed.coefficients import F_COLUMNS, f_row, moments, require_ddf
from mixlm_sparse.inference.fixed.terms import anova_type, term_hypotheses
from mixlm_sparse.model.fitted import FittedModel

_TITLES = {
    "satterthwaite": "with Satterthwaite's method",
    "kenward-roger": "with Kenward-Roger's method",
    "normal": "by the normal distribution",
    "none": "without tests",
}


@result_table()
def anova_table(fit: FittedModel, *, type: Any = 3, ddf: str | None = "satterthwaite") -> (
    pd.DataFrame
):  # fmt: skip
    """Test every term of the fixed part; see `InferenceMethods.anova`."""
    kind = anova_type(type)
    name = require_ddf(ddf)
    hypotheses, note = term_hypotheses(fit, kind)
    method = moments(fit, name)
    rows = [
        f_row(fit, method, h.L, np.zeros(h.L.shape[0]), test=name != "none") for h in hypotheses
    ]
    table = pd.DataFrame(
        rows, columns=F_COLUMNS, index=pd.Index([h.label for h in hypotheses], dtype=object)
    ).astype({"NumDF": np.int64})
    if name == "none":
        table = table.drop(columns=["DenDF", "Pr(>F)"])
    table.attrs["heading"] = f"Type {'I' * kind} analysis of variance {_TITLES[name]}"
    table.attrs["note"] = "; ".join(text for text in (note, method.note) if text)
    return table
