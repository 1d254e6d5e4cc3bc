"""Linear hypotheses about coefficients: matrices, dictionaries of names, or text.

Text is a linear equation in the names of the coefficients, such as "Days = 0", "A - B" or
"2*Days - (fB + fC)/2 = 1".  A name is taken whole, parentheses and colons included, wherever it
matches; backticks around it remove any doubt.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from mixlm_sparse.common.checks import listed, unknown_name
from mixlm_sparse.common.errors import OptionError
from mixlm_sparse.common.text import format_number
from mixlm_sparse.common.types import Matrix, Vector

_NUMBER = re.compile(r"(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")
_WORD = re.compile(r"[^\W\d][\w.]*")
MAX_LISTED = 12  # names listed in an error
MAX_LABEL = 60  # characters of a label made of coefficients


@dataclass(frozen=True, slots=True)
class Hypotheses:
    """L beta = rhs, one row for each hypothesis.

    Parameters
    ----------
    L : (q, p); rhs : (q,); labels : (q,) how tables name them.
    """

    L: Matrix
    rhs: Vector
    labels: tuple[str, ...]


def read_hypotheses(given: Any, names: Sequence[str], rhs: Any = 0.0) -> Hypotheses:
    """Read hypotheses in any of their forms.

    Parameters
    ----------
    given : (p,) or (q, p) array or DataFrame with columns named by coefficients; a dictionary
        from names to weights; text; or a list of dictionaries and texts.
    names : (p,) of the coefficients.
    rhs : value of each hypothesis, a number or (q,); text may say its own.

    Raises
    ------
    OptionError : a width that does not match, an unknown name, text that cannot be read.
    """
    names = tuple(names)
    if isinstance(given, str | Mapping):
        given = [given]
    is_list = isinstance(given, Sequence) and any(isinstance(g, str | Mapping) for g in given)
    if is_list:
        rows = [
            _of_text(one, names) if isinstance(one, str) else (*_of_mapping(one, names), 0.0, None)
            for one in given
        ]
        L = np.array([row[0] for row in rows])
        own = np.array([row[2] for row in rows])
        labels = tuple(row[1] for row in rows)
    else:
        L, labels = _of_array(given, names)
        own = np.zeros(L.shape[0])
    values = _right_side(rhs, L.shape[0])
    if values.any() and own.any():
        raise OptionError("rhs is given twice, in the text and as rhs=: give it once")
    return Hypotheses(L, values + own, labels)


def _right_side(rhs: Any, q: int) -> Vector:
    try:
        values = np.asarray(rhs, dtype=np.float64)
    except (TypeError, ValueError):
        raise OptionError(f"rhs is {rhs!r}: give a number, or one for each hypothesis") from None
    if values.shape not in ((), (1,), (q,)) or not np.isfinite(values).all():
        raise OptionError(
            f"rhs has shape {values.shape} for {q} hypotheses: give a number, or one for each"
        )
    return np.array(np.broadcast_to(values, (q,)))


def _of_array(given: Any, names: tuple[str, ...]) -> tuple[Matrix, tuple[str, ...]]:
    p = len(names)
    labels: tuple[str, ...] | None = None
    if isinstance(given, pd.Series) and all(isinstance(label, str) for label in given.index):
        given = given.to_frame().T
    if isinstance(given, pd.DataFrame):
        if not isinstance(given.index, pd.RangeIndex):
            labels = tuple(str(label) for label in given.index)
        for column in given.columns:
            _require_name(str(column), names)
        given = given.reindex(columns=list(names), fill_value=0.0)
    try:
        L = np.atleast_2d(np.asarray(given, dtype=np.float64))
    except (TypeError, ValueError):
        raise OptionError(
            "the contrast cannot be read: give a matrix with one column for each coefficient, a "
            "dictionary such as {'A': 1, 'B': -1}, or text such as 'A - B = 0'"
        ) from None
    if L.ndim != 2 or L.shape[1] != p:
        raise OptionError(
            f"the contrast has {L.shape[-1]} columns, the model has {p} coefficients "
            f"({listed(names, MAX_LISTED)}): give one number for each of them"
        )
    if not np.isfinite(L).all():
        raise OptionError("the contrast has missing or infinite numbers: give finite ones")
    return L, labels or tuple(_label(row, names) for row in L)


def _of_mapping(given: Any, names: tuple[str, ...]) -> tuple[Vector, str]:
    if not isinstance(given, Mapping):
        raise OptionError(
            f"{given!r} is no hypothesis: in a list, give dictionaries such as {{'A': 1, 'B': -1}} "
            "or texts such as 'A - B = 0'"
        )
    row = np.zeros(len(names))
    for name, weight in given.items():
        _require_name(str(name), names)
        try:
            row[names.index(str(name))] = float(weight)
        except (TypeError, ValueError):
            raise OptionError(f"the weight of {name!r} is {weight!r}: give a number") from None
    if not np.isfinite(row).all():
        raise OptionError("the contrast has missing or infinite numbers: give finite ones")
    return row, _label(row, names)


def _label(row: Vector, names: tuple[str, ...]) -> str:
    pieces = []
    for weight, name in zip(row.tolist(), names, strict=True):
        if weight == 0.0:
            continue
        sign = "-" if weight < 0 else "+"
        size = "" if abs(weight) == 1.0 else f"{format_number(abs(weight), 4)}*"
        pieces.append((sign, size + name))
    if not pieces:
        return "0"
    text = " ".join(f"{sign} {piece}" for sign, piece in pieces)
    text = text[2:] if text.startswith("+ ") else "-" + text[2:]
    return text if len(text) <= MAX_LABEL else text[: MAX_LABEL - 1] + "…"


def _require_name(name: str, names: tuple[str, ...]) -> None:
    if name not in names:
        raise unknown_name(name, names)


# ---------------------------------------------------------------------------------------------
# Text
# ---------------------------------------------------------------------------------------------

# A value is linear in the coefficients: weights, then the constant.
_Value = Vector


def _of_text(text: str, names: tuple[str, ...]) -> tuple[Vector, str, float, None]:
    reader = _Reader(text, names)
    left = reader.sum()
    right = np.zeros(len(names) + 1)
    if reader.take("="):
        reader.take("=")  # "==" means the same
        right = reader.sum()
    reader.end()
    difference = left - right
    if not difference[:-1].any():
        raise OptionError(
            f"the hypothesis {text!r} names no coefficient: {listed(names, MAX_LISTED)}"
        )
    return difference[:-1], " ".join(text.split()), float(-difference[-1]), None


class _Reader:
    """Reads sums, products and parentheses from left to right."""

    def __init__(self, text: str, names: tuple[str, ...]) -> None:
        self.text = text
        self.names = names
        self.by_length = sorted(names, key=len, reverse=True)
        self.at = 0

    def error(self, fact: str) -> OptionError:
        return OptionError(
            f"the hypothesis {self.text!r} cannot be read: {fact}; write a linear equation such as "
            f"'{self.names[-1]} = 0' in the coefficients {listed(self.names, MAX_LISTED)}"
        )

    def skip(self) -> None:
        while self.at < len(self.text) and self.text[self.at].isspace():
            self.at += 1

    def take(self, sign: str) -> bool:
        self.skip()
        if self.text.startswith(sign, self.at):
            self.at += len(sign)
            return True
        return False

    def end(self) -> None:
        self.skip()
        if self.at < len(self.text):
            raise self.error(f"unexpected {self.text[self.at :]!r}")

    def sum(self) -> _Value:
        value = -self.product() if self.take("-") else (self.take("+"), self.product())[1]
        while True:
            if self.take("+"):
                value = value + self.product()
            elif self.take("-"):
                value = value - self.product()
            else:
                return value

    def product(self) -> _Value:
        value = self.factor()
        while True:
            if self.take("*"):
                other = self.factor()
                if value[:-1].any() and other[:-1].any():
                    raise self.error("a product of coefficients is not linear")
                value = value * other[-1] if value[:-1].any() else other * value[-1]
            elif self.take("/"):
                other = self.factor()
                if other[:-1].any() or other[-1] == 0.0:
                    raise self.error("the divisor must be a number other than zero")
                value = value / other[-1]
            else:
                return value

    def factor(self) -> _Value:
        self.skip()
        if self.take("-"):
            return -self.factor()
        name = self.name()
        value = np.zeros(len(self.names) + 1)
        if name is not None:
            value[self.names.index(name)] = 1.0
            return value
        if match := _NUMBER.match(self.text, self.at):
            self.at = match.end()
            value[-1] = float(match[0])
            # R's way to write a multiple: "2 Days"
            after = self.at
            self.skip()
            if (name := self.name()) is not None:
                out = np.zeros(len(self.names) + 1)
                out[self.names.index(name)] = value[-1]
                return out
            self.at = after
            return value
        if self.take("("):
            value = self.sum()
            if not self.take(")"):
                raise self.error("a parenthesis is not closed")
            return value
        if match := _WORD.match(self.text, self.at):
            raise unknown_name(match[0], self.names)
        rest = self.text[self.at :]
        raise self.error(f"unexpected {rest!r}" if rest else "it ends too early")

    def name(self) -> str | None:
        if self.text.startswith("`", self.at):
            stop = self.text.find("`", self.at + 1)
            if stop < 0:
                raise self.error("a backtick is not closed")
            quoted = self.text[self.at + 1 : stop]
            _require_name(quoted, self.names)
            self.at = stop + 1
            return quoted
        for name in self.by_length:
            stop = self.at + len(name)
            if not self.text.startswith(name, self.at):
                continue
            following = self.text[stop : stop + 1]
            # "Days" must not match the beginning of "Days2" or "Days:x"
            if name[-1:].isalnum() and (following.isalnum() or following in ("_", ".", ":")):
                if following:
                    continue
            self.at = stop
            return name
        return None
