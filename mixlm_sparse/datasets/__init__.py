"""Classical data sets of the mixed-model literature, with the levels in the order of the source.

>>> import mixlm_sparse as mx
>>> mx.datasets.load("sleepstudy").head(2)
   Reaction  Days Subject
0  249.5600   0.0     308
1  258.7047   1.0     308
"""

from __future__ import annotations

import json
from functools import lru_cache
from importlib.resources import files
from typing import Any

import numpy as np
import pandas as pd

from mixlm_sparse.common.errors import OptionError
from mixlm_sparse.common.keywords import answers_unknown_keywords

__all__ = ["describe", "load", "names"]

_FOLDER = files(__name__) / "data"


@answers_unknown_keywords
def names() -> list[str]:
    """Names that `load` accepts.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> mx.datasets.names()[:3]
    ['BodyWeight', 'cake', 'Chem97']
    """
    return sorted(_index(), key=str.casefold)


@answers_unknown_keywords
def load(name: str) -> pd.DataFrame:
    """Load one data set.

    Parameters
    ----------
    name : one of `names()`; upper and lower case do not matter.

    Returns
    -------
    DataFrame with fresh copies; factors are categoricals whose categories are in the order of the
    source, which fixes the base level of treatment contrasts and the order of the random effects.

    Raises
    ------
    OptionError : there is no such data set.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> mx.datasets.load("Penicillin").head(2)
       diameter plate sample
    0      27.0     a      A
    1      23.0     a      B
    """
    name = _canonical(name)
    columns: dict[str, Any] = _index()[name]["columns"]
    with (_FOLDER / f"{name}.csv.gz").open("rb") as stream:
        frame = pd.read_csv(
            stream, compression="gzip", dtype=object, keep_default_na=False, na_values=[""]
        )
    for column, about in columns.items():
        if "levels" in about:
            frame[column] = pd.Categorical(frame[column], categories=about["levels"])
        else:
            # from the text, since pandas' own fast parser may miss the last bit
            values = frame[column].to_numpy().astype(np.float64)
            whole = about["kind"] == "integer" and not np.isnan(values).any()
            frame[column] = values.astype(np.int64) if whole else values
    return frame


@answers_unknown_keywords
def describe(name: str) -> str:
    """Say what a data set holds and where it comes from.

    Raises
    ------
    OptionError : there is no such data set.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> print(mx.datasets.describe("dyestuff"))
    Dyestuff: Yield of dyestuff by batch
    30 rows
      Batch  factor, 6 levels: batch of intermediate product
      Yield  double: yield of dyestuff (grams of standard colour)
    Source: Davies and Goldsmith (1972), Statistical Methods in Research and Production,
    4th ed., Oliver and Boyd, section 6.4.
    Taken from R package lme4.
    """
    name = _canonical(name)
    info = _index()[name]
    width = max(len(column) for column in info["columns"])
    lines = [f"{name}: {info['title']}", f"{info['rows']} rows"]
    for column, about in info["columns"].items():
        kind = f"factor, {len(about['levels'])} levels" if "levels" in about else about["kind"]
        lines.append(f"  {column:<{width}}  {kind}: {about['description']}")
    lines += [f"Source: {info['source']}", f"Taken from {info['taken_from']}."]
    return "\n".join(lines)


@lru_cache(maxsize=1)
def _index() -> dict[str, Any]:
    index: dict[str, Any] = json.loads((_FOLDER / "datasets.json").read_text(encoding="utf-8"))
    return index


def _canonical(name: str) -> str:
    by_folded = {known.casefold(): known for known in _index()}
    try:
        return by_folded[name.casefold()]
    except (KeyError, AttributeError):
        raise OptionError(
            f"there is no data set {name!r}; choose one of {', '.join(names())}"
        ) from None
