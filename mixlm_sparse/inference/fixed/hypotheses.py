"""Linear hypotheses about coefficients: matrices, dictionaries of names, or text.

Text is a linear equation in the names of the coefficients, such as "Days = 0", "A - B" or
"2*Days - (fB + fC)/2 = 1".  A name is taken whole, parentheses and colons included, wherever it
matches; backticks around it, or around the column in it, remove any doubt.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from mixlm_sparse.common.checks import listed, plain_name, require_array, shown, unknown_name
from mixlm_sparse.common.errors import OptionError
from mixlm_sparse.common.text import format_number
from mixlm_sparse.common.types import Matrix, Vector

_NUMBER = re.compile(r"(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")
_WORD = re.compile(r"[^\W\d][\w.]*")
_OF_PATSY = re.compile(r"[\w.]+(?:\([^()]*\))?\[[^\]]*\]")  # f[T.b], as statsmodels has it
MAX_LISTED = 12  # names listed in an error
MAX_LABEL = 60  # characters of a label made of coefficients
MAX_DEPTH = 80  # parentheses and signs within each other


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


def read_hypotheses(
    given: Any, names: Sequence[str], rhs: Any = 0.0, *, kept: Sequence[int] | None = None
) -> Hypotheses:
    """Read hypotheses in any of their forms.

    Parameters
    ----------
    given : (p,) or (q, p) array or DataFrame with columns named by coefficients; a dictionary
        from names to weights; text; or a list of dictionaries and texts.
    names : (p,) of the coefficients.
    rhs : value of each hypothesis, a number or (q,); text may say its own.
    kept : positions of the coefficients that the fit has; an array may have one column for each of
        them, or for each of all.

    Raises
    ------
    OptionError : a width that does not match, an unknown name, text that cannot be read.
    """
    names = tuple(names)
    kept = list(range(len(names)) if kept is None else kept)
    if isinstance(given, str | Mapping):
        given = [given]
    if isinstance(given, range):
        raise OptionError(f"the hypothesis is {shown(given)}: give weights, names or text")
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
        L, labels = _of_array(given, names, kept)
        own = np.zeros(L.shape[0])
    if not (np.isfinite(own).all() and np.isfinite(L).all()):
        raise OptionError(f"the hypothesis is {shown(given)}: its numbers must be finite")
    values = _right_side(rhs, L.shape[0])
    if values.any() and own.any():
        raise OptionError("rhs is given twice, in the text and as rhs=: give it once")
    return Hypotheses(L, values + own, labels)


def _right_side(rhs: Any, q: int) -> Vector:
    values = require_array("rhs", rhs, "give a number, or one for each")
    if values.shape not in ((), (q,)) or not np.isfinite(values).all():
        raise OptionError(
            f"rhs is {shown(rhs)} for {q} hypotheses: give a finite number, or one for each"
        )
    return np.array(np.broadcast_to(values, (q,)))


def _of_array(
    given: Any, names: tuple[str, ...], kept: list[int]
) -> tuple[Matrix, tuple[str, ...]]:
    labels: tuple[str, ...] | None = None
    if isinstance(given, pd.Series) and all(isinstance(label, str) for label in given.index):
        given = given.to_frame().T
    if isinstance(given, pd.DataFrame):
        if not isinstance(given.index, pd.RangeIndex):
            labels = tuple(str(label) for label in given.index)
        places = [_position(str(column), names) for column in given.columns]
        wide = np.zeros((len(given), len(names)), dtype=object)
        wide[:, places] = given.to_numpy(dtype=object)
        given, kept = wide, list(range(len(names)))
    remedy = (
        "give a matrix with one column for each coefficient, a dictionary such as "
        "{'A': 1, 'B': -1}, or text such as 'A - B = 0'"
    )
    L = np.atleast_2d(require_array("the contrast", given, remedy))
    shown = [names[j] for j in kept]
    if not shown:  # a model without coefficients has no hypotheses
        return np.zeros((0, len(names))), ()
    if L.ndim != 2 or L.shape[1] not in (len(kept), len(names)):
        raise OptionError(
            f"the contrast has {L.shape[-1]} columns, the model has {len(kept)} coefficients "
            f"({listed(shown, MAX_LISTED)}): give one number for each of them"
        )
    if not np.isfinite(L).all():
        raise OptionError("the contrast has missing or infinite numbers: give finite ones")
    if L.shape[1] != len(names):
        narrow, L = L, np.zeros((L.shape[0], len(names)))
        L[:, kept] = narrow
    return L, labels or tuple(_label(row, names) for row in L)


def _of_mapping(given: Any, names: tuple[str, ...]) -> tuple[Vector, str]:
    if not isinstance(given, Mapping):
        raise OptionError(
            f"{given!r} is no hypothesis: in a list, give dictionaries such as {{'A': 1, 'B': -1}} "
            "or texts such as 'A - B = 0'"
        )
    row = np.zeros(len(names))
    for name, weight in given.items():
        place = _position(str(name), names)
        try:
            row[place] = float(weight)
        except (TypeError, ValueError, OverflowError, MemoryError):
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


def _position(name: str, names: tuple[str, ...]) -> int:
    """Return the place of a name, written with or without backticks."""
    if name in names:
        return names.index(name)
    plain = [plain_name(known) for known in names]
    if plain_name(name) not in plain:
        raise unknown_name(name, names)
    return plain.index(plain_name(name))


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
        plain = [(plain_name(name), place) for place, name in enumerate(names)]
        self.by_length = sorted(plain, key=lambda pair: -len(pair[0]))
        self.at = 0
        self.depth = 0

    def error(self, fact: str) -> OptionError:
        return OptionError(
            f"the hypothesis {self.text!r} cannot be read: {fact}; write a linear equation such as "
            f"'{self.names[-1] if self.names else 'x'} = 0' in the coefficients "
            f"{listed(self.names, MAX_LISTED)}"
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
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise self.error(f"it nests more than {MAX_DEPTH} parentheses or signs")
        value = self._factor()
        self.depth -= 1
        return value

    def _factor(self) -> _Value:
        self.skip()
        if self.take("-"):
            return -self.factor()
        place = self.name()
        value = np.zeros(len(self.names) + 1)
        if place is not None:
            value[place] = 1.0
            return value
        if match := _NUMBER.match(self.text, self.at):
            self.at = match.end()
            value[-1] = float(match[0])
            # R's way to write a multiple: "2 Days"
            after = self.at
            self.skip()
            if (place := self.name()) is not None:
                out = np.zeros(len(self.names) + 1)
                out[place] = value[-1]
                return out
            self.at = after
            return value
        if self.take("("):
            value = self.sum()
            if not self.take(")"):
                raise self.error("a parenthesis is not closed")
            return value
        if self.text.startswith("`", self.at):
            stop = self.text.find("`", self.at + 1)
            if stop < 0:
                raise self.error("a backtick is not closed")
            raise unknown_name(self.text[self.at + 1 : stop], self.names)
        for pattern in (_OF_PATSY, _WORD):
            if match := pattern.match(self.text, self.at):
                raise unknown_name(match[0], self.names)
        rest = self.text[self.at :]
        raise self.error(f"unexpected {rest!r}" if rest else "it ends too early")

    def name(self) -> int | None:
        """Return the place of the name that begins here, the longest that matches."""
        for name, place in self.by_length:
            stop = self._end_of(name)
            if stop is None:
                continue
            following = self.text[stop : stop + 1]
            # "Days" must not match the beginning of "Days2" or "Days:x"
            open_ended = name[-1:].isalnum() and self.text[stop - 1] != "`"
            if open_ended and following and (following.isalnum() or following in "_.:["):
                continue
            self.at = stop
            return place
        return None

    def _end_of(self, name: str) -> int | None:
        """Return where `name` ends if it begins here, whatever backticks are within."""
        at, ticks = self.at, 0
        for letter in name:
            while self.text.startswith("`", at):
                at, ticks = at + 1, ticks + 1
            if not self.text.startswith(letter, at):
                return None
            at += 1
        if ticks % 2 == 0:
            return at
        return at + 1 if self.text.startswith("`", at) else None
