"""The table of tests of coefficients."""

from __future__ import annotations

from dataclasses import dataclass

from mixlm_sparse.common.types import Vector

METHODS = {
    "satterthwaite": "Satterthwaite's degrees of freedom",
    "kenward-roger": "Kenward-Roger's degrees of freedom",
    "normal": "the normal distribution",
}


@dataclass(frozen=True, eq=False, slots=True)
class TestColumns:
    """Tests of the fixed effects for the table, arrays (p,) each.

    Parameters
    ----------
    std_error, statistic, df, p_value : None where no tests are to be shown; infinite df stand for
        the normal distribution.
    heading : the method, for the title of the table; note : a line below it, or "".
    """

    std_error: Vector | None
    statistic: Vector | None
    df: Vector | None
    p_value: Vector | None
    heading: str = ""
    note: str = ""
