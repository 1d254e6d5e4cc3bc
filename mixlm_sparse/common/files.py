"""Files that are written as a whole or not at all."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from mixlm_sparse.common.checks import shown
from mixlm_sparse.common.errors import MissingFileError, SavedFitError

__all__ = ["atomic_file", "file_kind"]

# Names of the open streams of a process: replacing what is behind them would lose it.
STREAMS = re.compile(r"/dev/(stdin|stdout|stderr|fd/.*)|/proc/[^/]+/fd/.*")


@contextlib.contextmanager
def atomic_file(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a file that takes its name when all is written; if that fails, nothing is left of it.

    A file that is replaced leaves its permissions to the new one.

    Raises
    ------
    SavedFitError : the path is that of a folder, a device, a pipe, a socket or an open stream, or
        may not be written.
    """
    mode = _mode_of(path)
    target = Path(os.path.realpath(path))
    if not target.parent.is_dir():
        raise MissingFileError(
            f"there is no folder {str(target.parent)!r} to save in: make it, or give another path"
        )
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(6)}.tmp")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    try:
        descriptor = os.open(temporary, flags, 0o666 if mode is None else mode)
    except OSError as error:  # no permission, a name that is too long
        raise SavedFitError(f"{shown(str(path))} cannot be written: {error.strerror}") from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            if mode is not None:
                os.chmod(temporary, mode)  # whatever the umask says
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def _mode_of(path: str | os.PathLike[str]) -> int | None:
    """Return the permissions of the file to be replaced, None if there is none."""
    name = os.fspath(path)
    if STREAMS.fullmatch(os.path.abspath(name)):
        raise SavedFitError(f"{name!r} is an open stream, not a file: give the name of a file")
    try:
        found = os.stat(name)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:  # too long, a file as a folder, a null character
        why = getattr(error, "strerror", None) or error
        raise SavedFitError(f"{shown(name)} cannot be saved to: {why}") from error
    if stat.S_ISDIR(found.st_mode):
        raise SavedFitError(f"{name!r} is a folder: give the name of a file in it")
    if not stat.S_ISREG(found.st_mode):
        raise SavedFitError(
            f"{name!r} is {file_kind(found.st_mode)}, and writing would put a file in its place: "
            "give the name of a file"
        )
    return stat.S_IMODE(found.st_mode)


def file_kind(mode: int) -> str:
    """Say what a file that is no ordinary one is."""
    kinds = {stat.S_ISDIR: "a folder", stat.S_ISFIFO: "a pipe", stat.S_ISSOCK: "a socket"}
    return next((kind for test, kind in kinds.items() if test(mode)), "a device")
