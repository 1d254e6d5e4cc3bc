"""The one set of checks of arguments.

Each check takes the argument's name as the user writes it and the value, returns the value in the
type that the code works with, and raises an `OptionError` that says what was given and what to
write instead.  A check never evaluates the truth of what it was given, so that arrays, frames and
missing values are refused like any other wrong value.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixlm_sparse.common.errors import DataError, MixedModelError, OptionError
from mixlm_sparse.common.text import printable, shorten
from mixlm_sparse.common.types import Vector

NA_ACTIONS = ("omit", "exclude", "raise")  # what happens to rows with missing cells

T = TypeVar("T")

MAX_REPLICATES = 10**7  # responses that are drawn, or models that are fitted again
MAX_LENGTH = 10**9  # entries of a sequence that is turned into an array
MAX_ENTRIES = 10**6  # values of a list that are looked at one by one
MAX_LISTED = 8  # names listed in a message
MAX_NAME = 60  # characters of one name in a message
MAX_SHOWN = 80  # characters of a value in a message


# ---------------------------------------------------------------------------------------------
# What a message shows
# ---------------------------------------------------------------------------------------------


def listed(names: Iterable[object], most: int = MAX_LISTED, quoted: bool = False) -> str:
    """Return names for a message: the first `most` of them, and how many more there are.

    Examples
    --------
    >>> listed(["a", "b"], quoted=True)
    "'a', 'b'"
    >>> listed(range(5), most=2), listed([])
    ('0, 1 and 3 more', 'none')
    """
    names, quote = list(names), "'" if quoted else ""
    shown = [f"{quote}{shorten(printable(str(name)), MAX_NAME)}{quote}" for name in names[:most]]
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(shown) + more if shown else "none"


def shown(value: object) -> str:
    """Return a value for a message: short, on one line, and never an exception of its own.

    Examples
    --------
    >>> shown("zz"), shown(np.zeros((2, 3))), shown(np.float64(0.5))
    ("'zz'", 'an array of shape (2, 3)', '0.5')
    """
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, int) and value.bit_length() > 200:
        return "a whole number of more than 60 digits"
    noun = "an array" if isinstance(value, np.ndarray) else f"a {type(value).__name__}"
    try:
        shape = getattr(value, "shape", None)
        if isinstance(shape, tuple) and shape:
            return f"{noun} of shape {shape}"
        if isinstance(value, list | tuple | set | frozenset | range | Mapping) and len(value) > 20:
            return f"{noun} of {len(value)} entries"
        text = " ".join(repr(value).split())
    except Exception:  # a foreign __repr__ or __len__ may raise anything
        text = noun
    return shorten(printable(text), MAX_SHOWN)


def unknown_name(name: object, names: Sequence[str], what: str = "coefficient") -> OptionError:
    """Return the error that lists what there is, and what was perhaps meant."""
    near = get_close_matches(name, list(names), n=1) if isinstance(name, str) else []
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    return OptionError(f"there is no {what} {shown(name)}{hint}: use one of {listed(names, 12)}")


# ---------------------------------------------------------------------------------------------
# Words and names
# ---------------------------------------------------------------------------------------------


def plain_name(name: str) -> str:
    """Return a user's name of a column or coefficient without backticks around it.

    Examples
    --------
    >>> plain_name("`day of study`"), plain_name("Days"), plain_name("`a`:`b`")
    ('day of study', 'Days', 'a:b')
    """
    return name.replace("`", "")


def require_one_of(argument: str, value: object, known: Sequence[str | None]) -> Any:
    """Return `value`; an OptionError that lists what is known, unless it is one of `known`."""
    if (value is None or isinstance(value, str)) and value in known:
        return None if value is None else str(value)
    near = get_close_matches(value, [k for k in known if k], n=1) if isinstance(value, str) else []
    hint = f" (did you mean {near[0]!r}?)" if near and near[0] != value else ""
    raise OptionError(
        f"{argument} is {shown(value)}{hint}: use one of {', '.join(map(repr, known))}"
    )


def require_names(
    argument: str,
    value: object,
    known: Sequence[str] | None = None,
    what: str = "name",
    *,
    empty: bool = False,
    once: bool = True,
) -> list[str]:
    """Return one name or several as a list of plain names, in the order given.

    Parameters
    ----------
    value : text, or an iterable of texts.
    known : the names there are; None where any name will do.
    what : what is named, in the singular, for the message.
    empty : an empty list is an answer; otherwise it is an error.
    once : a name that is given twice is returned once.

    Raises
    ------
    OptionError : not names, none at all, or not among `known`.
    """
    names = [value] if isinstance(value, str) else list(_texts(argument, value, what))
    chosen = [name if _in(name, known) else plain_name(name) for name in names]
    if once:
        chosen = list(dict.fromkeys(chosen))
    if not chosen and not empty:
        raise OptionError(f"{argument} is empty: give at least one {what}")
    if known is not None:
        for name in chosen:
            if name not in known:
                raise OptionError(f"{argument}: {unknown_name(name, known, what)}")
    return chosen


def _in(name: str, known: Sequence[str] | None) -> bool:
    return known is not None and name in known


def _texts(argument: str, value: Any, what: str) -> Iterator[str]:
    """Yield the entries; stops at the first that is no text, however many there are."""
    several = isinstance(value, Iterable) and not isinstance(value, Mapping | bytes)
    if not several or getattr(value, "ndim", 1) != 1:
        raise OptionError(f"{argument} is {shown(value)}: give a {what} or a list of them")
    for name in value:
        if not isinstance(name, str):
            raise OptionError(f"{argument} has the entry {shown(name)}: use the {what} as text")
        yield str(name)


# ---------------------------------------------------------------------------------------------
# Numbers and flags
# ---------------------------------------------------------------------------------------------


def require_bool(argument: str, value: object) -> bool:
    """Return a flag; NumPy's truth values count, words and numbers do not."""
    if isinstance(value, bool | np.bool_):
        return bool(value)
    raise OptionError(f"{argument} is {shown(value)}: use True or False")


def require_number(
    argument: str,
    value: object,
    *,
    least: float = -math.inf,
    most: float = math.inf,
    above: float = -math.inf,
    below: float = math.inf,
    finite: bool = True,
    example: str = "",
) -> float:
    """Return a real number, which lies where it must, as a float.

    Parameters
    ----------
    least, most : bounds that are allowed themselves.
    above, below : bounds that are not.
    finite : infinite numbers are errors; NaN always is.
    example : what to write instead, for the message.
    """
    number = _real(value)
    inside = least <= number <= most and not (number <= above > -math.inf)
    if inside and not (number >= below < math.inf) and (math.isfinite(number) or not finite):
        return number
    bounds = [f"of at least {least:g}"] if math.isfinite(least) else []
    bounds += [f"above {above:g}"] if math.isfinite(above) else []
    bounds += [f"of at most {most:g}"] if math.isfinite(most) else []
    bounds += [f"below {below:g}"] if math.isfinite(below) else []
    if bounds == ["above 0"]:
        bounds = ["that is positive"]
    range_ = " and ".join(bounds) if bounds else ("that is finite" if finite else "that is not NaN")
    remedy = f", such as {example}" if example else ""
    raise OptionError(f"{argument} is {shown(value)}: use a number {range_}{remedy}")


def _real(value: object) -> float:
    """Return a number as a float, and NaN for what is none."""
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value.item()
    if isinstance(value, bool | np.bool_) or not isinstance(
        value, int | float | np.integer | np.floating
    ):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.inf


def require_level(argument: str, level: object) -> float:
    """Return a probability strictly between 0 and 1; a percentage is named as such."""
    number = _real(level)
    if 0.0 < number < 1.0:
        return number
    example = f"{number / 100.0:g}" if 1.0 < number < 100.0 else "0.95"
    raise OptionError(
        f"{argument} is {shown(level)}: use a number between 0 and 1, such as {example}"
    )


def require_count(argument: str, value: object, least: int = 1, most: int | None = None) -> int:
    """Return a whole number of at least `least` (and at most `most`)."""
    if _is_whole(value) and value >= least and (most is None or value <= most):  # type: ignore[operator]
        return int(value)  # type: ignore[call-overload, no-any-return]
    upper = "" if most is None else f" and at most {most}"
    raise OptionError(
        f"{argument} is {shown(value)}: use a whole number of at least {least}{upper}"
    )


def _is_whole(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def require_jobs(value: object) -> int:
    """Return a number of processes, or -1 for all processors."""
    if _is_whole(value) and (value == -1 or value >= 1):  # type: ignore[operator]
        return int(value)  # type: ignore[call-overload, no-any-return]
    raise OptionError(f"n_jobs is {shown(value)}: use a number of processes, or -1 for all")


# ---------------------------------------------------------------------------------------------
# Arrays and objects
# ---------------------------------------------------------------------------------------------


def require_vector(
    argument: str, value: Any, length: int | None = None, *, of: str = "", finite: bool = True
) -> Vector:
    """Return real numbers, one or several, as an array of one dimension.

    Parameters
    ----------
    length : how many there must be.
    of : what they belong to, for the message: "the coefficients".
    finite : infinite numbers are errors, as NaN always is.
    """
    wanted = "numbers" if length is None else f"{length} number{'s' if length != 1 else ''}"
    remedy = f"give {wanted}{' for ' + of if of else ''}"
    numbers = np.atleast_1d(require_array(argument, value, remedy))
    if numbers.ndim != 1 or (length is not None and numbers.size != length):
        size = f"{numbers.size} values" if numbers.ndim == 1 else f"shape {numbers.shape}"
        raise OptionError(f"{argument} has {size}: {remedy}")
    bad = ~np.isfinite(numbers) if finite else np.isnan(numbers)
    if bad.any():
        first = int(np.flatnonzero(bad)[0])
        raise OptionError(f"{argument} has {numbers[first]} in place {first}: {remedy}")
    return numbers


def require_array(
    argument: str, value: Any, remedy: str, error: type[MixedModelError] = OptionError
) -> NDArray[np.float64]:
    """Return real numbers in an array of any shape; may share memory with `value`.

    Parameters
    ----------
    remedy : what to give, for the message.
    error : what is raised for anything else; NaN and infinite numbers are let through.
    """
    try:
        if isinstance(value, range) or _length(value) > MAX_LENGTH:
            raise TypeError
        raw = np.asarray(value)
        if raw.dtype.kind not in "biufO":  # texts, dates and complex numbers would be converted
            raise TypeError
        return raw.astype(np.float64, copy=False)
    except (TypeError, ValueError, OverflowError, MemoryError):
        fact = "not numeric" if isinstance(value, np.ndarray) and value.ndim else shown(value)
        raise error(f"{argument} is {fact}: {remedy}") from None


def shape_of(value: Any) -> tuple[int, ...]:
    """Return the shape of an array of anything; () for what is one value, or no array."""
    if isinstance(value, range):  # which may have no end
        return ()
    try:
        return np.shape(value)
    except (TypeError, ValueError, MemoryError, OverflowError):  # rows of different lengths, ...
        return ()


def entries(argument: str, value: Any) -> list[Any]:
    """Return one value or several as a list; an OptionError for more than can be held."""
    if not isinstance(value, list | tuple | range | np.ndarray | pd.Series | pd.Index):
        return [value]
    if isinstance(value, np.ndarray) and value.ndim == 0:
        return [value.item()]
    if len(value) > MAX_ENTRIES:
        raise OptionError(f"{argument} has {len(value)} values: give at most {MAX_ENTRIES}")
    return list(value)


def _length(value: Any) -> int:
    try:
        return len(value)
    except Exception:  # a foreign __len__ may raise anything
        return 0


def require_instance(argument: str, value: object, kind: type[T], remedy: str) -> T:
    """Return an object of a class; otherwise an OptionError with the remedy."""
    if isinstance(value, kind):
        return value
    raise OptionError(f"{argument} is {shown(value)}: {remedy}")


def require_mapping(argument: str, value: object, example: str) -> dict[str, Any]:
    """Return a mapping from names as a dict; None is an empty one."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise OptionError(f"{argument} is {shown(value)}: use a dictionary such as {example}")
    for key in value:
        if not isinstance(key, str):
            raise OptionError(f"{argument} has the key {shown(key)}: its keys are names, as text")
    return {str(key): found for key, found in value.items()}


def require_path(argument: str, value: Any) -> str:
    """Return the name of a file as text."""
    try:
        path = os.fsdecode(value) if isinstance(value, str | bytes | os.PathLike) else ""
        os.fsencode(path)
    except (TypeError, UnicodeError):
        path = ""
    if not path or "\0" in path:
        raise OptionError(f"{argument} is {shown(value)}: give the name of a file")
    return path


def require_same_index(argument: str, value: Any, index: Any, of: str = "the data") -> None:
    """Refuse a Series or frame whose labels are not those of the rows: its order would be taken.

    Parameters
    ----------
    index : of the rows, or None if they have no labels.
    of : whose rows they are, for the message.
    """
    labelled = isinstance(value, pd.Series | pd.DataFrame)
    if index is None or not labelled or len(value) != len(index) or value.index.equals(index):
        return
    raise DataError(
        f"{argument} is a {type(value).__name__} whose index differs from that of {of}: "
        f"align it, or pass {argument}.to_numpy() if the rows are in the same order"
    )


def require_sound(what: str, matrix: Any) -> None:
    """Refuse a sparse matrix whose indices point outside: code in C believes them."""
    check = getattr(matrix, "check_format", None)
    if check is not None:
        try:
            check(full_check=True)
        except ValueError as error:
            raise DataError(
                f"{what}: the sparse matrix is broken ({error}): make it again"
            ) from None
