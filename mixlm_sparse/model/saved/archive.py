"""A zip archive of one JSON document and named arrays, written as a whole or not at all.

The arrays are `.npy` members, so that `numpy.load` opens the file too.  Only numbers and truth
values are stored, and nothing that a file holds is ever executed.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from mixlm_sparse.common.errors import SavedFitError

__all__ = ["Archive", "Arrays", "atomic_file", "write_archive"]

Arrays = dict[str, NDArray[Any]]

DOCUMENT = "fit.json"
KINDS = "biuf"  # kinds of arrays that may be stored
# Members carry this date, so that the same fit gives the same bytes.
DATE = (1980, 1, 1, 0, 0, 0)


@contextlib.contextmanager
def atomic_file(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a file that takes its name when all is written; if that fails, nothing is left of it."""
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(6)}.tmp")
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def write_archive(
    path: str | os.PathLike[str], document: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]
) -> None:
    """Write the archive to `path`, in the place of a file that may be there."""
    text = json.dumps(document, ensure_ascii=False, indent=1, allow_nan=False, default=_plain)
    with atomic_file(path) as file, zipfile.ZipFile(file, "w") as archive:
        _write(archive, DOCUMENT, text.encode())
        for name, array in arrays.items():
            if array.dtype.kind not in KINDS:
                raise TypeError(f"array {name!r} has type {array.dtype}, not numbers")
            info = _info(f"{name}.npy")
            with archive.open(info, "w", force_zip64=True) as member:
                npy.write_array(member, np.ascontiguousarray(array), allow_pickle=False)


def _plain(value: object) -> object:
    """Return a NumPy scalar as Python's."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} cannot be stored")


def _info(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, DATE)
    info.compress_type = zipfile.ZIP_DEFLATED
    info.external_attr = 0o644 << 16
    return info


def _write(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    archive.writestr(_info(name), content)


class Archive:
    """What `write_archive` wrote, read as a whole.

    Raises
    ------
    SavedFitError : the file is no such archive, or is broken.
    FileNotFoundError : it does not exist.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        self._arrays: dict[str, NDArray[Any]] = {}
        try:
            with open(path, "rb") as file, zipfile.ZipFile(file) as archive:
                members = set(archive.namelist())
                if DOCUMENT not in members:
                    raise SavedFitError(
                        f"{self.path!r} is a zip file without {DOCUMENT}, not a saved fit: give "
                        "the path that fit.save(path) wrote"
                    )
                self.document: dict[str, Any] = json.loads(archive.read(DOCUMENT))
                for member in sorted(members - {DOCUMENT}):
                    with archive.open(member) as stream:
                        array = npy.read_array(stream, allow_pickle=False)
                    self._arrays[member.removesuffix(".npy")] = array
        except zipfile.BadZipFile:
            raise SavedFitError(
                f"{self.path!r} is not a saved fit, or not the whole of it: give the path that "
                "fit.save(path) wrote, or save the fit again"
            ) from None
        except SavedFitError:
            raise
        except (ValueError, EOFError, zlib.error, NotImplementedError, RuntimeError) as error:
            raise self.broken(str(error)) from error
        if not isinstance(self.document, dict):
            raise self.broken(f"{DOCUMENT} is no object")

    def broken(self, why: str) -> SavedFitError:
        """Return the error for a file that does not hold together."""
        return SavedFitError(f"the saved fit {self.path!r} is broken ({why}): save the fit again")

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
