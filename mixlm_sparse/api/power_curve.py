"""Power against the number of groups: the planned design with fewer or more of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

import numpy as np
import pandas as pd

from mixlm_sparse.api.power import power
from mixlm_sparse.api.power_result import PowerCurve
from mixlm_sparse.common.checks import listed, require_count, require_instance, shown
from mixlm_sparse.common.errors import OptionError
from mixlm_sparse.common.keywords import answers_unknown_keywords
from mixlm_sparse.formula.parse import parse_formula
from mixlm_sparse.formula.syntax import Name
from mixlm_sparse.inference.cases.row_groups import is_nested
from mixlm_sparse.model.draws import seed_sequence
from mixlm_sparse.model.fitted import FittedModel

MOST_POINTS = 200
# Arguments that hold a value for each row, which a design of another size does not have.
BY_ROW = ("weights", "offset", "subset")


@answers_unknown_keywords
def power_curve(
    formula: str,
    data: Any,
    parameters: Mapping[str, Any] | FittedModel,
    effect: str | list[str] | tuple[str, ...],
    n: Iterable[int],
    along: str | None = None,
    *,
    seed: Any = None,
    **options: Any,
) -> PowerCurve:
    """Estimate the power to find an effect for several numbers of groups.

    The design with n groups has the first n levels of a grouping factor in the data or, where there
    are fewer, all of them again and again under new names (with those of factors that lie within
    it; factors that cross it stay as they are).  The power for one n does not depend on which
    others are asked for.

    Parameters
    ----------
    formula, data, parameters, effect : as in `power`.
    n : numbers of groups.
    along : grouping factor, a column of the data; by default the only one of the formula.
    seed : whole number or SeedSequence.
    **options : as in `power`: nsim, alpha, test, reml, n_jobs, level, interval, progress, ...;
        `weights`, `offset` and `subset` by name.

    Returns
    -------
    PowerCurve : prints as a table; `to_frame()`, `plot()`, and the `Power` of each n in `points`.

    Raises
    ------
    OptionError : what `power` raises; no such factor; numbers of groups that are none.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> plan = {"x": [0.0, 1.0] * 30, "g": [f"g{i // 6}" for i in range(60)]}
    >>> truth = {"beta": {"(Intercept)": 0.0, "x": 0.8}, "sd": {"g": 0.5}, "sigma": 1.0}
    >>> found = mx.power_curve("y ~ x + (1 | g)", plan, truth, "x", [5, 20], nsim=100, seed=1)
    >>> found.to_frame()["power"].is_monotonic_increasing
    True
    """
    counts = _counts(n)
    for name in BY_ROW:
        if options.get(name) is not None and not isinstance(options[name], str):
            raise OptionError(
                f"{name} is {shown(options[name])}: name a column, for the design changes its size"
            )
    frame = _frame(data)
    factors = _factors(formula, frame)
    name = _along(along, factors)
    root = seed_sequence(seed)
    points = []
    for count in counts:
        # its own stream for each n, whatever the others are
        own = np.random.SeedSequence(root.entropy, spawn_key=(*root.spawn_key, count))
        design = _design(frame, name, count, factors)
        points.append(power(formula, design, parameters, effect, seed=own, **options))
    return PowerCurve(name, tuple(counts), tuple(points))


def _counts(n: Any) -> list[int]:
    several = isinstance(n, Iterable) and not isinstance(n, str | bytes | Mapping)
    given = list(islice(n, MOST_POINTS + 1)) if several and getattr(n, "ndim", 1) == 1 else [n]
    if not given or len(given) > MOST_POINTS:
        raise OptionError(f"n is {shown(n)}: give 1 to {MOST_POINTS} numbers of groups")
    return sorted({require_count("n", one, least=2, most=10**6) for one in given})


def _frame(data: Any) -> pd.DataFrame:
    if isinstance(data, pd.DataFrame):
        return data
    if not (isinstance(data, Mapping | list | tuple) or hasattr(data, "to_pandas")):
        raise OptionError(f"data is {shown(data)}: give the planned design as a data frame")
    rows = isinstance(data, list | tuple) and all(isinstance(row, Mapping) for row in data)
    try:
        if hasattr(data, "to_pandas"):
            data = data.to_pandas()
        if not rows and not isinstance(data, pd.DataFrame | Mapping):
            raise TypeError
        return pd.DataFrame(data)
    except (TypeError, ValueError, OverflowError):
        raise OptionError(
            f"data is {shown(data)}: give the planned design as a data frame"
        ) from None


def _factors(formula: str, frame: pd.DataFrame) -> list[str]:
    """Return the columns that the random terms are grouped by."""
    require_instance("formula", formula, str, "give it as text, as in 'y ~ x + (x | g)'")
    parsed = parse_formula(formula, require_response=False)
    parts = [one for part in parsed.random for one in part.components]
    names = dict.fromkeys(one.id for one in parts if isinstance(one, Name))
    return [name for name in names if name in frame.columns]


def _along(along: Any, factors: list[str]) -> str:
    if along is None and len(factors) == 1:
        return factors[0]
    if not isinstance(along, str) or along not in factors:
        fact = "the formula has several grouping factors" if along is None else (
            f"along is {shown(along)}"
        )  # fmt: skip
        raise OptionError(f"{fact}: say along= one of {listed(factors, quoted=True)}")
    return str(along)


def _design(frame: pd.DataFrame, along: str, count: int, factors: list[str]) -> pd.DataFrame:
    """Return the rows of `count` groups: the first levels, and copies of all under new names."""
    codes, levels = pd.factorize(frame[along])
    if not len(levels):
        raise OptionError(f"along names {along!r}, which has no level in the data")
    within = [name for name in factors if name == along or _lies_in(frame[name], codes)]
    pieces = []
    for copy in range(-(-count // len(levels))):
        last = min(count - copy * len(levels), len(levels))
        piece = frame[(codes >= 0) & (codes < last)].copy()
        for name in within:
            own = piece[name].astype(str)
            piece[name] = own if copy == 0 else own + f" ({copy + 1})"
        pieces.append(piece)
    return pd.concat(pieces, ignore_index=True)


def _lies_in(column: pd.Series[Any], outer: np.ndarray) -> bool:
    codes = pd.factorize(column)[0]
    known = (codes >= 0) & (outer >= 0)
    inner, outer = codes[known].astype(np.int32), outer[known].astype(np.int32)
    return bool(known.any()) and is_nested(inner, outer)
