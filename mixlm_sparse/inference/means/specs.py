"""What means are wanted of: names, lists of names, or R's way, "pairwise ~ a | b"."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mixlm_sparse.common.checks import require_names
from mixlm_sparse.common.errors import OptionError
from mixlm_sparse.inference.means.families import require_method
from mixlm_sparse.inference.means.predictors import PREDICTOR

_BETWEEN = re.compile(r"[*:+]")


@dataclass(frozen=True, slots=True)
class Specs:
    """Predictors of the table, those that separate families, and a family of contrasts or ""."""

    names: tuple[str, ...]
    by: tuple[str, ...]
    method: str = ""


def read_specs(specs: Any, by: Any, known: Sequence[str]) -> Specs:
    """Read `specs` and `by`.

    Parameters
    ----------
    specs : a name, several, or text such as "~ a", "~ a | b", "pairwise ~ a * b", "a:b"; None for
        no name.
    by : a name or several.
    known : the predictors that there are.

    Raises
    ------
    OptionError : an unknown or repeated name, text that cannot be read.
    """
    method = ""
    grouping = require_names(
        "by", [] if by is None else [by] if isinstance(by, str) else by, known, PREDICTOR,
        empty=True,
    )  # fmt: skip
    if isinstance(specs, str) and specs not in known and specs.replace("`", "") not in known:
        wanted, more, method = _of_text(specs, known)
        if more and grouping:
            raise OptionError(f"by is given twice, in {specs!r} and as by=: give it once")
        grouping = grouping or more
    else:
        given = [] if specs is None else [specs] if isinstance(specs, str) else specs
        wanted = require_names("specs", given, known, PREDICTOR, empty=True)
    repeated = [name for name in grouping if name in wanted]
    if repeated:
        raise OptionError(f"{repeated[0]!r} is named twice: leave it out of specs or of by")
    return Specs(tuple(wanted), tuple(grouping), method)


def _of_text(text: str, known: Sequence[str]) -> tuple[list[str], list[str], str]:
    left, _, right = text.rpartition("~")
    if "~" in left:
        raise OptionError(f"specs is {text!r}, with more than one ~: write 'pairwise ~ a | b'")
    method = require_method(left.strip()) if left.strip() else ""
    first, bar, second = right.partition("|")
    if "|" in second:
        raise OptionError(f"specs is {text!r}, with more than one |: write '~ a | b + c'")
    return _names(first, known), _names(second, known) if bar else [], method


def _names(text: str, known: Sequence[str]) -> list[str]:
    if text.strip() in ("", "1"):
        return []
    whole = text.strip().replace("`", "")
    if whole in known:
        return [whole]
    names = [name.strip().replace("`", "") for name in _BETWEEN.split(text)]
    return require_names("specs", names, known, PREDICTOR)
