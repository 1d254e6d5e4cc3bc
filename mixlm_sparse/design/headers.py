"""Names of columns that data do not have, or have twice: what is said of them."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterable
from typing import Any

from mixlm_sparse.common.checks import listed
from mixlm_sparse.common.errors import DataError

__all__ = ["repeated_column", "unknown_column"]


def repeated_column(name: str, where: str = "the data") -> DataError:
    """Return the error of a name that several columns have."""
    return DataError(f"{where} have more than one column '{name}': rename the others")


def unknown_column(name: str, header: Iterable[Any], hint: str = "") -> DataError:
    """Return the error for a column that does not exist, with the closest names."""
    known = [str(column) for column in header]
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    close += [other for other in known if other.lower() == name.lower() and other not in close]
    alike = [other for other in known if _composed(other) == _composed(name)]
    if alike:
        remedy = f"'{alike[0]}' looks the same and is made of other characters: rename it"
    elif name in ("T", "F"):
        remedy = f"write {'TRUE' if name == 'T' else 'FALSE'} if it is meant as a truth value"
    elif name[:2] in ("i.", "c.") and name[2:] in known:  # as in Stata
        remedy = f"write {name[2:]}" if name[0] == "c" else f"write factor({name[2:]})"
    elif close:
        remedy = "did you mean " + " or ".join(f"'{other}'" for other in close) + "?"
    else:
        remedy = f"the columns are {listed(known, 12, quoted=True)}"
    error = DataError(f"the data have no column '{name}'{hint}; {remedy}")
    error.absent = name
    return error


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)
