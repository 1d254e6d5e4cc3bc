"""Families of contrasts by name: coefficients of k means, and what each is called.

    pairwise, revpairwise   a - b for every two;  tukey is another name of pairwise
    trt.vs.ctrl             each minus the reference (the first; `ref=`), trt.vs.ctrlk the last;
                            dunnett is another name
    consec                  each minus the one before
    mean_chg                the mean of those after minus the mean of those before
    eff, del.eff            each minus the mean of all, of the others
    poly                    orthogonal polynomials in the position, in smallest whole numbers
    helmert                 each minus the mean of those before
    identity                the means themselves
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from math import gcd, lcm
from typing import Any

import numpy as np
import pandas as pd

from mixlm_sparse.common.checks import (
    listed,
    require_array,
    require_one_of,
    require_vector,
    shown,
    unknown_name,
)
from mixlm_sparse.common.errors import OptionError
from mixlm_sparse.common.types import Matrix

METHODS = (
    "pairwise", "revpairwise", "trt.vs.ctrl", "trt.vs.ctrlk", "consec", "mean_chg", "eff",
    "del.eff", "poly", "helmert", "identity",
)  # fmt: skip
ALIASES = {"tukey": "pairwise", "dunnett": "trt.vs.ctrl", "trt.vs.ctrl1": "trt.vs.ctrl"}
# How each family is adjusted unless the user says otherwise.
USUAL = {
    "pairwise": "tukey", "revpairwise": "tukey", "trt.vs.ctrl": "dunnett",
    "trt.vs.ctrlk": "dunnett", "consec": "mvt", "mean_chg": "mvt", "eff": "fdr", "del.eff": "fdr",
}  # fmt: skip
POLYNOMIALS = ("linear", "quadratic", "cubic", "quartic")
MOST_DEGREES = 6


@dataclass(frozen=True, eq=False, slots=True)
class Coefficients:
    """Contrasts of k means.

    Parameters
    ----------
    M : (c, k); labels : (c,) what each is called.
    """

    M: Matrix
    labels: tuple[str, ...]


def require_method(method: object) -> str:
    """Return the canonical name of a family; "-" and "_" stand for the points."""
    if isinstance(method, str):
        folded = method.lower()
        for name in (folded, folded.replace("-", ".").replace("_", ".")):
            name = ALIASES.get(name, name)
            if name in METHODS:
                return name
        if folded.replace("-", "_").replace(".", "_") == "mean_chg":
            return "mean_chg"
    return str(require_one_of("method", method, METHODS))


def named_family(
    method: str,
    labels: Sequence[str],
    *,
    ref: Any = None,
    reverse: bool = False,
    max_degree: int = MOST_DEGREES,
) -> Coefficients:
    """Return the contrasts of a family.

    Parameters
    ----------
    method : see the module.
    labels : (k,) of the means.
    ref : label or position (from 0; -1 is the last) of the reference, or several, whose mean it
        then is.
    reverse : turn every sign.
    max_degree : of polynomials.
    """
    k = len(labels)
    if ref is not None and not method.startswith("trt"):
        raise OptionError(f"ref is for method='trt.vs.ctrl': {method!r} has no reference")
    eye = np.eye(k)
    if method in ("pairwise", "revpairwise"):
        return _pairs(labels, reverse != (method == "revpairwise"))
    if method.startswith("trt"):
        rows, names = _against(labels, ref, last=method.endswith("k"), reverse=reverse)
        return Coefficients(rows, names)
    if method == "consec":
        rows = eye[1:] - eye[:-1]
        ends = [(b, a) for a, b in pairwise(labels)]
        called = [f"{a} - {b}" if not reverse else f"{b} - {a}" for a, b in ends]
    elif method == "mean_chg":
        rows = np.array([
            np.r_[np.full(i, -1.0 / i), np.full(k - i, 1.0 / (k - i))] for i in range(1, k)
        ]).reshape(-1, k)  # fmt: skip
        called = [f"{a}|{b}" for a, b in pairwise(labels)]
    elif method in ("eff", "del.eff"):
        rows = eye - 1.0 / k
        if method == "del.eff" and k > 1:
            rows = rows * (k / (k - 1.0))
        called = [f"{label} effect" for label in labels]
    elif method == "helmert":
        rows = np.array([
            np.r_[np.full(i, -1.0 / i), 1.0, np.zeros(k - i - 1)] for i in range(1, k)
        ]).reshape(-1, k)  # fmt: skip
        called = [f"{labels[i]} vs earlier" for i in range(1, k)]
    elif method == "poly":
        rows = _polynomials(k)[:max_degree]
        degrees = [f"degree {d}" for d in range(5, MOST_DEGREES + 1)]
        called = [*POLYNOMIALS, *degrees][: len(rows)]
    else:
        rows, called = eye, list(labels)
    return Coefficients(-rows if reverse else rows, tuple(called))


def _pairs(labels: Sequence[str], reverse: bool) -> Coefficients:
    k = len(labels)
    first, second = np.triu_indices(k, 1)
    if reverse:
        first, second = np.tril_indices(k, -1)
    rows = np.eye(k)[first] - np.eye(k)[second]
    ends = zip(first.tolist(), second.tolist(), strict=True)
    names = tuple(f"{labels[i]} - {labels[j]}" for i, j in ends)
    return Coefficients(rows, names)


def _against(
    labels: Sequence[str], ref: Any, *, last: bool, reverse: bool
) -> tuple[Matrix, tuple[str, ...]]:
    k = len(labels)
    given = [k - 1 if last else 0] if ref is None else ref
    several = isinstance(given, list | tuple | np.ndarray | pd.Index | range)
    places = list(dict.fromkeys(_place(one, labels) for one in (given if several else [given])))
    if not places:
        raise OptionError(f"ref is {shown(ref)}: give a level, or several")
    control = np.zeros(k)
    control[places] = 1.0 / len(places)
    treated = [i for i in range(k) if i not in places]
    if not treated:
        raise OptionError("ref names every level: leave out those to compare with it")
    rows = np.eye(k)[treated] - control
    name = ", ".join(labels[i] for i in places)
    name = f"mean({name})" if len(places) > 1 else name
    names = tuple(
        f"{name} - {labels[i]}" if reverse else f"{labels[i]} - {name}" for i in treated
    )
    return (-rows if reverse else rows), names


def _place(ref: Any, labels: Sequence[str]) -> int:
    k = len(labels)
    if isinstance(ref, int | np.integer) and not isinstance(ref, bool):
        if str(ref) in labels:
            return labels.index(str(ref))
        if -k <= ref < k:
            return int(ref) % k
    elif isinstance(ref, str) and ref in labels:
        return labels.index(ref)
    elif str(ref) in labels:
        return labels.index(str(ref))
    raise OptionError(f"ref: {unknown_name(ref, list(labels), 'level')}")


def _polynomials(k: int) -> Matrix:
    """Return orthogonal polynomials in 0, ..., k - 1 (degrees, k), in smallest whole numbers.

    Gram and Schmidt on the powers, in rational arithmetic; the last number of each is positive.
    """
    basis = [[Fraction(1)] * k]
    for degree in range(1, min(k - 1, MOST_DEGREES) + 1):
        row = [Fraction(i) ** degree for i in range(k)]
        for other in basis:
            inner = sum((a * b for a, b in zip(row, other, strict=True)), Fraction(0))
            share = inner / sum((a * a for a in other), Fraction(0))
            row = [a - share * b for a, b in zip(row, other, strict=True)]
        scale = lcm(*(a.denominator for a in row))
        whole = [int(a * scale) for a in row]
        divisor = gcd(*whole) * (1 if whole[-1] > 0 else -1)
        basis.append([Fraction(a // divisor) for a in whole])
    return np.array([[float(a) for a in row] for row in basis[1:]]).reshape(-1, k)


def given_contrasts(given: Any, labels: Sequence[str]) -> Coefficients:
    """Read coefficients: numbers, a matrix, a frame, or dictionaries.

    Parameters
    ----------
    given : (k,) or (c, k) numbers; a DataFrame whose columns are labels of means; a dictionary from
        the names of contrasts to numbers (k,) or to dictionaries {label of a mean: weight}; or one
        dictionary {label: weight}.
    labels : (k,) of the means.
    """
    if isinstance(given, Mapping):
        if not given:
            raise OptionError("the dictionary of contrasts is empty: give at least one")
        if all(isinstance(v, int | float | np.number) for v in given.values()):
            given = {"contrast": given}
        rows = [_row(weights, labels, str(name)) for name, weights in given.items()]
        return Coefficients(np.array(rows), tuple(str(name) for name in given))
    names: tuple[str, ...] | None = None
    if isinstance(given, pd.DataFrame):
        names = tuple(str(name) for name in given.index)
        given = [_row(dict(row), labels, str(name)) for name, row in given.iterrows()]
    M = np.atleast_2d(require_array("the contrast", given, "give a number for each cell"))
    if M.ndim != 2 or M.shape[1] != len(labels):
        raise OptionError(
            f"the contrast has {M.shape[-1]} weights, the table has {len(labels)} rows: give one "
            "for each"
        )
    if not np.isfinite(M).all():
        raise OptionError("the weights have missing or infinite numbers: give finite ones")
    return Coefficients(M, names or tuple(_label(row, labels) for row in M))


def _row(weights: Any, labels: Sequence[str], name: str) -> np.ndarray:
    if not isinstance(weights, Mapping):
        return require_vector(f"contrast {name!r}", weights, len(labels), of="the means")
    row = np.zeros(len(labels))
    for label, weight in weights.items():
        if str(label) not in labels:
            raise unknown_name(label, list(labels), "mean")
        row[labels.index(str(label))] = require_vector(
            f"the weight of {label!r}", weight, 1, of=f"contrast {name!r}"
        )[0]
    return row


def _label(row: np.ndarray, labels: Sequence[str]) -> str:
    """Return what a row of weights says: "A - B", or the numbers where it is longer."""
    used = np.flatnonzero(row)
    if used.size == 2 and sorted(row[used].tolist()) == [-1.0, 1.0]:
        plus, minus = (used[0], used[1]) if row[used[0]] > 0 else (used[1], used[0])
        return f"{labels[plus]} - {labels[minus]}"
    return f"({listed([f'{w:g}' for w in row], 12)})"
