"""Tables in files: CSV, Parquet and Feather, by the end of the name."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mixlm_sparse.common.checks import listed
from mixlm_sparse.common.errors import DataError, MissingPackageError, OptionError
from mixlm_sparse.common.files import atomic_file

__all__ = [
    "TextForm", "as_factors", "read_table", "require_writable", "write_bytes", "write_table",
]  # fmt: skip

STANDARD = "-"  # standard input or output
TEXT = {".csv": ",", ".tsv": "\t", ".txt": "\t"}
BINARY = {".parquet": "parquet", ".pq": "parquet", ".feather": "feather", ".arrow": "feather"}
COMPRESSED = (".gz", ".bz2", ".xz", ".zst", ".zip")


@dataclass(frozen=True, slots=True)
class TextForm:
    """How text files are written; None is what the name of the file says, and a point."""

    separator: str | None = None
    decimal: str | None = None

    def options(self, path: str) -> dict[str, Any]:
        """Return the arguments of pandas for a file."""
        separator = self.separator or TEXT.get(kind_of(path), ",")
        decimal = self.decimal or "."
        if separator == decimal:
            raise OptionError(
                f"cells and decimals cannot both be marked by {decimal!r}: add --sep ';', say"
            )
        return {"sep": separator, "decimal": decimal}


PLAIN = TextForm()  # as the name of the file says


def kind_of(path: str) -> str:
    """Return the end of the name that says what a file holds, without that of its compression."""
    suffixes = [suffix.lower() for suffix in Path(path).suffixes]
    if suffixes and suffixes[-1] in COMPRESSED:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def require_known(path: str) -> None:
    """Raise a DataError unless the name of a table ends as it should."""
    if path == STANDARD or kind_of(path) in TEXT or path.lower().endswith(tuple(BINARY)):
        return
    known = ", ".join([*TEXT, *BINARY])
    raise DataError(f"{path!r}: the kind of the file is not known by its name: use one of {known}")


def read_table(path: str, form: TextForm = TextForm()) -> pd.DataFrame:
    """Read a table; "-" is CSV from standard input.

    Raises
    ------
    DataError : the kind is not known, or the file does not hold what its name says.
    MissingPackageError : pyarrow is needed.
    OSError : the file cannot be read.
    """
    require_known(path)
    if path == STANDARD:
        return _text(path, sys.stdin, form)
    if not os.path.exists(path):
        raise FileNotFoundError(f"there is no file {path!r}")
    if kind_of(path) in TEXT:
        return _text(path, path, form)
    reader = pd.read_parquet if BINARY[kind_of(path)] == "parquet" else pd.read_feather
    return _parsed(path, lambda: reader(path))


def _text(path: str, source: Any, form: TextForm) -> pd.DataFrame:
    """Read a text file, and refuse what another separator or mark of decimals would explain."""
    options = form.options(path)
    frame = _parsed(path, lambda: pd.read_csv(source, low_memory=False, **options))
    what = "standard input" if path == STANDARD else repr(path)
    if frame.shape[1] == 1:  # no model has the response alone
        for mark, word in ((";", "';'"), ("\t", "tab"), (",", "comma")):
            if mark in str(frame.columns[0]) and mark != options["sep"]:
                raise DataError(
                    f"{what} has one column, {str(frame.columns[0])[:60]!r}: it seems that "
                    f"{word} separates its cells: add --sep {word}"
                )
    if form.decimal is None:
        for name in frame.columns:
            if _has_decimal_commas(frame[name]):
                raise DataError(
                    f"{what}: column {str(name)!r} holds numbers with decimal commas: add "
                    "--decimal , (or --decimal . to take them as text)"
                )
    return frame


def _has_decimal_commas(column: pd.Series[Any]) -> bool:
    if pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column):
        return False
    cells = column.dropna().astype(str)
    commas = cells.str.fullmatch(r"\s*[-+]?\d*,\d+(?:[eE][-+]?\d+)?\s*")
    plain = cells.str.fullmatch(r"\s*[-+]?\d+\s*")
    return bool(commas.any() and np.all(commas | plain))


def _parsed(path: str, read: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    what = "standard input" if path == STANDARD else repr(path)
    try:
        return read()
    except ImportError as error:
        raise MissingPackageError(
            f"reading {what} needs pyarrow: pip install pyarrow"
        ) from error
    except pd.errors.EmptyDataError:
        raise DataError(f"{what} is empty: it must have a line of names, then rows") from None
    except (ValueError, pd.errors.ParserError) as error:  # pyarrow's errors are ValueErrors
        reason = str(error).strip().splitlines()[0] if str(error).strip() else "no table"
        if isinstance(error, UnicodeDecodeError):
            reason += "; write it as UTF-8, as by iconv -f LATIN1 -t UTF-8"
        raise DataError(f"{what} cannot be read as {kind_of(path) or '.csv'}: {reason}") from error
    except OSError as error:
        if type(error) is OSError:  # pyarrow says of a broken file that it cannot be read
            raise DataError(f"{what} cannot be read as {kind_of(path)}: {error}") from error
        raise


def as_factors(frame: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """Return the frame with the columns named as factors; their levels are sorted."""
    for name in names:
        if name not in frame.columns:
            raise DataError(
                f"--factor {name}: the data have no such column; they have "
                + listed(frame.columns, 12, quoted=True)
            )
    return frame.assign(**{name: pd.Categorical(frame[name]) for name in names})


def require_writable(path: str | None) -> None:
    """Raise an error now rather than after long work, if `path` cannot be written."""
    if path is None or path == STANDARD:
        return
    folder = Path(path).resolve().parent
    if not folder.is_dir():
        raise FileNotFoundError(f"{path!r} cannot be written: there is no folder {str(folder)!r}")
    if not os.access(folder, os.W_OK):
        raise PermissionError(f"{path!r} cannot be written: no permission in {str(folder)!r}")
    if Path(path).is_dir():
        raise IsADirectoryError(f"{path!r} cannot be written: it is a folder")


def write_bytes(path: str, content: bytes) -> None:
    """Write a file as a whole, or not at all."""
    with atomic_file(path) as file:
        file.write(content)


def write_table(frame: pd.DataFrame, path: str, form: TextForm = TextForm()) -> None:
    """Write a table; "-" is CSV to standard output."""
    if path == STANDARD:
        frame.to_csv(sys.stdout, index=False, **form.options(path))
        return
    buffer = io.BytesIO()
    if kind_of(path) in TEXT:
        options = form.options(path)
        compression: Any = "infer"
        text = frame.to_csv(index=False, **options)
        if path.lower().endswith(COMPRESSED):
            # by way of the path, whose end names the compression
            frame.to_csv(path, index=False, compression=compression, **options)
            return
        buffer.write(text.encode())
    else:
        try:
            if BINARY[kind_of(path)] == "parquet":
                frame.to_parquet(buffer, index=False)
            else:
                frame.to_feather(buffer)
        except ImportError as error:
            raise MissingPackageError(
                f"writing {path!r} needs pyarrow: pip install pyarrow"
            ) from error
    write_bytes(path, buffer.getvalue())
