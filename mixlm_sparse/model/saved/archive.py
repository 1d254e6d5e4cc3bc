"""A zip archive of one JSON document and named arrays, written as a whole or not at all.

The arrays are `.npy` members, so that `numpy.load` opens the file too.  Only numbers and truth
values are stored, and nothing that a file holds is ever executed.  A file may come from anyone:
what it says of its own sizes is compared with what it has before any memory is taken.  The document
holds a checksum of each part, which shows damage.
"""

from __future__ import annotations

import json
import math
import os
import stat
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from mixlm_sparse.common.errors import MissingFileError, SavedFitError
from mixlm_sparse.common.files import atomic_file, file_kind
from mixlm_sparse.model.saved.sums import SUMS, Summed, array_sum, document_sum

__all__ = ["Archive", "Arrays", "write_archive"]

Arrays = dict[str, NDArray[Any]]

DOCUMENT = "fit.json"
KINDS = "biuf"  # kinds of arrays that may be stored
# Members carry this date, so that the same fit gives the same bytes.
DATE = (1980, 1, 1, 0, 0, 0)
# What is unpacked may be so many times the file, for a file that is not small: columns of zeros and
# ones pack well, real data do not.  Where a fit would exceed it, it is stored as it is.
UNPACKED_RATIO = 100
UNPACKED_FREE = 64_000_000
MAX_MEMBERS = 100_000
MAX_HEADER = 10_000  # bytes of the description of one array
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
ENCRYPTED = 1  # a flag of a member
# What the files of each format hold, and what reads them.
READERS = {
    "mixlm_sparse.api.lmer": ("a fit", "mx.load"),
    "mixlm_sparse.api.lmer_many": ("fits of many responses", "mx.load_many"),
    "mixlm_sparse.products": ("products", "mx.load_products"),
}
SUMMED_SINCE = 2  # the format of fits and of products that brought checksums


# ---------------------------------------------------------------------------------------------
# Writing
# ---------------------------------------------------------------------------------------------


def write_archive(
    path: str | os.PathLike[str], document: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]
) -> None:
    """Write the archive to `path`, in the place of a file that may be there."""
    for name, array in arrays.items():
        if array.dtype.kind not in KINDS:
            raise TypeError(f"array {name!r} has type {array.dtype}, not numbers")
    sums = {DOCUMENT: document_sum(json.loads(_text(document)))}
    sums |= {name: array_sum(array) for name, array in arrays.items()}
    content = _text({**document, SUMS: sums}).encode("utf-8")
    unpacked = len(content) + sum(array.nbytes for array in arrays.values())
    with atomic_file(path) as file:
        _write(file, content, arrays, zipfile.ZIP_DEFLATED)
        if unpacked > _most_unpacked(file.tell()):
            file.seek(0)
            file.truncate()
            _write(file, content, arrays, zipfile.ZIP_STORED)


def _text(document: Mapping[str, Any]) -> str:
    return json.dumps(document, ensure_ascii=False, indent=1, allow_nan=False, default=_plain)


def _write(
    file: BinaryIO, content: bytes, arrays: Mapping[str, NDArray[Any]], method: int
) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(_info(DOCUMENT, method), content)
        for name, array in arrays.items():
            with archive.open(_info(f"{name}.npy", method), "w", force_zip64=True) as member:
                npy.write_array(member, np.ascontiguousarray(array), allow_pickle=False)


def _most_unpacked(size: int) -> int:
    """Return how many bytes a file of `size` bytes may hold."""
    return max(UNPACKED_FREE, UNPACKED_RATIO * size)


def _plain(value: object) -> object:
    """Return a NumPy scalar as Python's."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} cannot be stored")


def _info(name: str, method: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, DATE)
    info.compress_type = method
    info.external_attr = 0o644 << 16
    return info


# ---------------------------------------------------------------------------------------------
# Reading
# ---------------------------------------------------------------------------------------------


class Archive:
    """What `write_archive` wrote, read as a whole.

    Raises
    ------
    SavedFitError : the file is no such archive, or is broken.
    FileNotFoundError, PermissionError : it does not exist or cannot be opened.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        self._arrays: dict[str, NDArray[Any]] = {}
        self._sums: dict[str, str] = {}  # of the parts as they were read
        with _regular_file(self.path) as file:
            try:
                with zipfile.ZipFile(file) as archive:
                    members = self._checked_members(archive, os.fstat(file.fileno()).st_size)
                    document = json.loads(archive.read(members.pop(DOCUMENT)))
                    if isinstance(document, dict):
                        self._sums[DOCUMENT] = document_sum(document)
                    for name, info in sorted(members.items()):
                        self._arrays[name.removesuffix(".npy")] = self._read(archive, info)
            except zipfile.BadZipFile:
                raise SavedFitError(
                    f"{self.path!r} is not a saved fit, or not the whole of it: give the path that "
                    "fit.save(path) wrote, or save the fit again"
                ) from None
            except SavedFitError:
                raise
            except Exception as error:  # a hostile file makes the readers raise anything
                raise self.broken(f"{type(error).__name__}: {error}") from error
        if not isinstance(document, dict):
            raise self.broken(f"{DOCUMENT} is no object")
        self.document: dict[str, Any] = document

    def require_format(
        self,
        name: str,
        version: int,
        what: str,
        written_by: str,
        part: Callable[[Mapping[str, Any], str], str] | None = None,
        *,
        first: int = 1,
    ) -> None:
        """Raise a SavedFitError unless the file says that it is of this format, and is undamaged.

        Parameters
        ----------
        name : of the format; `version` is the latest that this code reads.
        what : the file should be, such as "is a saved fit"; `written_by` says what writes one.
        part : names the part of the document that an array holds, in the user's words.
        first : the earliest version that was ever written.
        """
        said = self.document.get("format")
        if said != name and isinstance(said, str) and said in READERS:
            words, reader = READERS[said]
            raise SavedFitError(f"{self.path!r} holds {words}: read it by {reader}(path)")
        if said != name:
            raise SavedFitError(
                f"{self.path!r} does not say that it {what}: give the path that {written_by} wrote"
            )
        found = self.document.get("version")
        if type(found) is not int or found < first:
            raise self.broken(f"its format is {found!r:.40}")
        if found > version:
            raise SavedFitError(
                f"{self.path!r} was saved by a later version of mixlm_sparse (format {found}; "
                f"this one reads formats up to {version}): upgrade mixlm_sparse"
            )
        if found >= SUMMED_SINCE:
            self._require_sums(part)

    def _require_sums(self, part: Callable[[Mapping[str, Any], str], str] | None) -> None:
        """Raise a SavedFitError that names the first part which is not as it was written."""
        sums = self.document.get(SUMS)
        if not isinstance(sums, dict):
            raise self.broken("its checksums are missing")
        if sums.get(DOCUMENT) != self._sums[DOCUMENT]:
            raise self.broken(f"{DOCUMENT}, which holds its names and options, is not as saved")
        for name in [name for name in sums if name != DOCUMENT]:
            words = f"the array {name!r:.60}" if part is None else part(self.document, name)
            if name not in self._sums:
                raise self.broken(f"{words} is missing")
            if sums[name] != self._sums[name]:
                raise self.broken(f"{words} is not as saved")
        added = next((name for name in self._sums if name not in sums), None)
        if added is not None:
            raise self.broken(f"the array {added!r:.60} was added")

    def _checked_members(self, archive: zipfile.ZipFile, size: int) -> dict[str, zipfile.ZipInfo]:
        """Return the members by name, if their sizes go with that of the file."""
        infos = archive.infolist()
        members = {info.filename: info for info in infos}
        if DOCUMENT not in members:
            raise SavedFitError(
                f"{self.path!r} is a zip file without {DOCUMENT}, not a saved fit: give "
                "the path that fit.save(path) wrote"
            )
        if len(members) != len(infos) or len(infos) > MAX_MEMBERS:
            raise self.broken("members occur twice, or are too many")
        for info in infos:
            if info.compress_type not in METHODS or info.flag_bits & ENCRYPTED:
                raise self.broken(f"{info.filename} is packed in a way that save does not use")
        if sum(info.compress_size for info in infos) > size:
            raise self.broken("its members overlap")
        if sum(info.file_size for info in infos) > _most_unpacked(size):
            raise self.broken("it would unpack to far more than a fit of its size")
        return members

    def _read(self, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> NDArray[Any]:
        """Return an array, once its description goes with the size of its member."""
        with archive.open(info) as stream:
            version = npy.read_magic(stream)
            header = {
                (1, 0): npy.read_array_header_1_0,
                (2, 0): npy.read_array_header_2_0,
            }[version]
            shape, _, dtype = header(stream, max_header_size=MAX_HEADER)
            length = math.prod(shape) * dtype.itemsize
            if dtype.kind not in KINDS or stream.tell() + length != info.file_size:
                raise self.broken(f"{info.filename} does not have the size that it says")
        with archive.open(info) as member:
            summed = Summed(member)
            array: NDArray[Any] = npy.read_array(
                summed, allow_pickle=False, max_header_size=MAX_HEADER
            )
            if summed.read(1):  # to the end, where the checksum is compared
                raise self.broken(f"{info.filename} is longer than it says")
        self._sums[info.filename.removesuffix(".npy")] = summed.digits()
        return array

    def broken(self, why: str) -> SavedFitError:
        """Return the error for a file that does not hold together."""
        return SavedFitError(f"the saved fit {self.path!r} is broken ({why}): save the fit again")

    @contextmanager
    def reading(self, *passed: type[Exception]) -> Iterator[None]:
        """Say that the file is broken where its readers fail.

        What a changed document makes of them may be any error.

        Parameters
        ----------
        passed : errors that say something else, besides those of saved files.
        """
        own: tuple[type[Exception], ...] = (SavedFitError, *passed)
        try:
            yield
        except own:
            raise
        except Exception as error:
            raise self.broken(f"{type(error).__name__}: {error}") from error

    def __contains__(self, name: str) -> bool:
        return name in self._arrays

    def array(self, name: str, *shape: int | None) -> NDArray[Any]:
        """Return an array by name.

        Parameters
        ----------
        *shape : the shape that it must have, None for any length; without it any shape.
        """
        if name not in self._arrays:
            raise self.broken(f"the array {name!r} is missing")
        array = self._arrays[name]
        if shape and (
            array.ndim != len(shape)
            or any(want is not None and have != want
                   for have, want in zip(array.shape, shape, strict=True))
        ):  # fmt: skip
            raise self.broken(f"the array {name!r} has shape {array.shape}")
        return array

    def numbers(self, name: str, *shape: int | None) -> NDArray[np.float64]:
        """Return an array of finite floats; for `shape` see `array`."""
        array = self.array(name, *shape)
        if array.dtype != np.float64 or not np.isfinite(array).all():
            raise self.broken(f"the array {name!r} is not of finite numbers")
        return array

    def positions(self, name: str, shape: int | None, size: int) -> NDArray[np.int32]:
        """Return whole numbers (shape,) from 0 to size - 1."""
        array = self.array(name, shape)
        if array.dtype.kind not in "iu" or (
            array.size and not 0 <= int(array.min()) <= int(array.max()) < size
        ):
            raise self.broken(f"the array {name!r} has positions out of range")
        return array.astype(np.int32)

    def starts(self, name: str, size: int) -> NDArray[np.int64]:
        """Return where `size` runs begin and the last one ends, (size + 1,): from 0, in order.

        Code in C that reads sparse matrices believes them, and would write beyond its memory.
        """
        array = self.array(name, size + 1)
        if array.dtype.kind not in "iu" or array[0] != 0 or (array[1:] < array[:-1]).any():
            raise self.broken(f"the array {name!r} is no list of starts")
        return array.astype(np.int64)


def _regular_file(path: str) -> BinaryIO:
    """Open a file to read; a pipe or a device, which may never end, is refused."""
    # without O_NONBLOCK a pipe would make the opening wait for a writer
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        descriptor = os.open(path, flags)
    except FileNotFoundError:
        raise MissingFileError(f"there is no file {path!r}: check its name and folder") from None
    except PermissionError:
        raise
    except (OSError, ValueError) as error:  # a socket; a null character in the name
        raise SavedFitError(f"{path!r} cannot be opened as a saved fit: {error}") from error
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        raise SavedFitError(
            f"{path!r} is {file_kind(mode)}, not a saved fit: give the path that fit.save(path) "
            "wrote"
        )
    return os.fdopen(descriptor, "rb")
