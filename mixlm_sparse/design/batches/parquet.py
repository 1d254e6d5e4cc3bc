"""Parquet files and Arrow tables as a source: their parts must have the same columns."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixlm_sparse.common.checks import listed
from mixlm_sparse.common.errors import DataError, MissingFileError
from mixlm_sparse.design.batches.arrow import arrow, is_text, kind_of, mark_texts, readable
from mixlm_sparse.design.batches.pieces import piece_rows
from mixlm_sparse.design.headers import repeated_column

__all__ = ["Dataset", "parquet_source"]

GLOB = set("*?[")


# What reads files that people name in the place of a frame.
READERS = {
    ".csv": "pandas.read_csv", ".tsv": "pandas.read_table", ".txt": "pandas.read_table",
    ".xlsx": "pandas.read_excel", ".xls": "pandas.read_excel", ".json": "pandas.read_json",
    ".feather": "pandas.read_feather", ".dta": "pandas.read_stata", ".sav": "pandas.read_spss",
    ".sas7bdat": "pandas.read_sas", ".xpt": "pandas.read_sas", ".rds": "pyreadr.read_r",
}  # fmt: skip


def parquet_source(path: str | os.PathLike[str]) -> Dataset:
    """Open a Parquet file, a folder of them, or those that a pattern names."""
    text = os.fspath(path)
    paths: Any = text
    if GLOB & set(text) and not os.path.exists(text):
        paths = sorted(glob.glob(text, recursive=True))
        if not paths:
            raise MissingFileError(f"no file is called {text!r}: check the pattern and its folder")
    elif not os.path.exists(text):
        raise MissingFileError(f"there is no file or folder {text!r}: check its name")
    elif os.path.isdir(text) and not any(Path(text).rglob("*.parquet")):
        raise MissingFileError(f"the folder {text!r} has no Parquet file (*.parquet) in it")
    elif (reader := READERS.get(os.path.splitext(text)[1].lower())) is not None:
        raise DataError(
            f"{text!r} is no Parquet file by its name, and other files are not read: give the "
            f"frame, {reader}({text!r})"
        )
    dataset = arrow("dataset")
    try:
        plain = dataset.dataset(paths, format="parquet", partitioning="hive")
        texts = [field.name for field in plain.schema if is_text(field.type)]
        if not texts:
            return Dataset(plain, repr(text))
        # text is stored as a dictionary, and need not be spelled out for each row
        reading = dataset.ParquetReadOptions(dictionary_columns=texts)
        found = dataset.dataset(
            paths, format=dataset.ParquetFileFormat(read_options=reading), partitioning="hive"
        )
        return Dataset(found, repr(text), texts=frozenset(texts))
    except (OSError, ValueError, TypeError) as error:
        _require_different_names(text)
        raise _broken(text, error) from error


def _require_different_names(path: str) -> None:
    """Raise a DataError if a file that can be read has columns of one name."""
    try:
        names = arrow("parquet").read_schema(path).names
    except (OSError, ValueError):  # a folder, or broken
        return
    for name in names:
        if names.count(name) > 1:
            raise repeated_column(name, f"the data in {path!r}")


def _broken(what: str, error: Exception) -> DataError:
    return DataError(
        f"{what} cannot be read as Parquet ({readable(error)}): if it is the right file, it is "
        "not whole; write it again"
    )


@dataclass(frozen=True, eq=False)
class Dataset:
    """A pyarrow Dataset: Parquet files or tables."""

    data: Any
    name: str
    again: bool = True
    texts: frozenset[str] = frozenset()  # columns that are read as dictionaries, and are text

    @property
    def rows(self) -> int | None:
        """Number of rows, from the footers."""
        try:
            return int(self.data.count_rows())
        except (OSError, ValueError) as error:
            raise _broken(self.name, error) from error

    @property
    def known_rows(self) -> int | None:
        return self.rows

    @property
    def header(self) -> tuple[str, ...]:
        return tuple(self.data.schema.names)

    def pieces(self, names: Sequence[str]) -> Iterator[Any]:
        """Yield record batches."""
        wanted = [name for name in names if name in self.data.schema.names]
        for name in wanted:
            if self.data.schema.names.count(name) > 1:
                raise repeated_column(name)
        data = self._agreed(wanted)
        size = piece_rows(len(wanted))
        try:
            for batch in data.to_batches(
                columns=wanted, batch_size=size, batch_readahead=2, fragment_readahead=1,
                **_scan_options(data),
            ):  # fmt: skip
                yield mark_texts(batch, self.texts)
        except (OSError, ValueError, TypeError) as error:
            raise _broken(self.name, error) from error

    def _agreed(self, names: Sequence[str]) -> Any:
        """Return the dataset with one type for each column, if its files agree about them."""
        pa = arrow()
        schema = self.data.schema
        types: dict[str, list[Any]] = {name: [] for name in names}
        parts = list(self.data.get_fragments())
        for place, fragment in enumerate(parts):
            where = getattr(fragment, "path", self.name)
            try:
                own = _own_schema(fragment)
            except (OSError, ValueError) as error:
                raise _broken(where, error) from error
            for name in names:
                if name in own.names:
                    types[name].append(own.field(name).type)
                if types[name] and len(types[name]) <= place:
                    # what no file has is told by the names of folders
                    first = getattr(parts[0], "path", self.name)
                    lacking = where if name not in own.names else first
                    raise DataError(
                        f"{lacking} has no column '{name}', which other files of {self.name} "
                        "have: write it with the same columns, or leave the file out"
                    )
        changed = schema
        for name, found in types.items():
            if not found:
                continue
            place = schema.get_field_index(name)
            changed = changed.set(place, pa.field(name, _common_type(name, found, self.name)))
        if changed.equals(schema):
            return self.data
        return arrow("dataset").dataset(
            self.data.files,
            schema=changed,
            format=self.data.format,
            filesystem=self.data.filesystem,
            partitioning="hive",
        )


def _scan_options(data: Any) -> dict[str, Any]:
    """Return options that keep a scan from holding the whole file, as it does by default."""
    if type(getattr(data, "format", None)).__name__ != "ParquetFileFormat":
        return {}
    options = arrow("dataset").ParquetFragmentScanOptions(pre_buffer=False)
    return {"fragment_scan_options": options}


def _own_schema(fragment: Any) -> Any:
    """Return the columns that a fragment has itself; `physical_schema` is that of the dataset."""
    if hasattr(fragment, "path") and hasattr(fragment, "filesystem"):
        return fragment.format.inspect(fragment.path, fragment.filesystem)
    return fragment.physical_schema


def _common_type(name: str, found: list[Any], where: str) -> Any:
    pa = arrow()
    distinct = [dtype for place, dtype in enumerate(found) if dtype not in found[:place]]
    some = [dtype for dtype in distinct if kind_of(dtype) != "null"]
    if len(some) <= 1:
        return some[0] if some else found[0]
    kinds = {kind_of(dtype) for dtype in some}
    if len(kinds) > 1:
        raise DataError(
            f"column '{name}' is {listed(map(str, distinct))} in different files of {where}: "
            "write it with one type"
        )
    if kinds == {"number"}:
        whole = all(pa.types.is_signed_integer(dtype) for dtype in some)
        return pa.int64() if whole else pa.float64()
    if kinds == {"text"}:
        return pa.large_string() if not any(map(pa.types.is_dictionary, some)) else pa.string()
    return some[0]
