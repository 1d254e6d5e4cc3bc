"""Packages that results are handed to or compared with; some are large, and none is needed."""

from __future__ import annotations

from types import ModuleType

import pytest


def needed(name: str) -> ModuleType:
    """Import a package of the extra `test-tools`, or skip the test with what installs it."""
    return pytest.importorskip(
        name, reason=f"{name} is not installed: pip install '.[test-tools]' (make tools)"
    )
