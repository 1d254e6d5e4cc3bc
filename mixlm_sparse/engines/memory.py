"""What an engine would need of memory, said before it is taken."""

from __future__ import annotations

import os
from pathlib import Path

from mixlm_sparse.common.errors import EngineError

__all__ = ["free_bytes", "require_memory", "size_text"]

LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
USAGES = ("/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory/memory.usage_in_bytes")


def free_bytes() -> int | None:
    """Return the bytes that this process could still take, None where the system does not say."""
    found = [n for n in (_available(), _left_in_container()) if n is not None]
    return min(found) if found else None


def _available() -> int | None:
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def _left_in_container() -> int | None:
    for limit, usage in zip(LIMITS, USAGES, strict=True):
        try:
            return int(Path(limit).read_text()) - int(Path(usage).read_text())
        except (OSError, ValueError):  # not in a container, or without a limit ("max")
            continue
    return None


def require_memory(needed: float, what: str, remedy: str) -> None:
    """Raise an EngineError if more memory is needed than there is.

    Parameters
    ----------
    needed : bytes.
    what : what needs them, for the message.
    """
    free = free_bytes()
    if free is not None and needed > free:
        raise EngineError(
            f"{what} needs about {size_text(needed)} of memory, and {size_text(free)} are free: "
            f"{remedy}"
        )


def size_text(size: float) -> str:
    """Return a number of bytes as people say it."""
    if size < 1e6:
        return f"{size / 1e3:.1f} kB"
    return f"{size / 1e6:.1f} MB" if size < 1e9 else f"{size / 1e9:.2f} GB"
