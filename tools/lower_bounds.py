"""Print the oldest version of every dependency that pyproject.toml promises to work with.

    python tools/lower_bounds.py plots arrow > bounds.txt     # the core and these extras
    pip install -r bounds.txt

Needs Python 3.11 for tomllib.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import tomllib

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENT = re.compile(r"^([A-Za-z0-9_.-]+)(\[[^\]]*\])?\s*>=\s*([0-9][0-9.]*)")


def bounds(extras: list[str]) -> list[str]:
    """Return "name==version" of the core and of the extras, those they refer to included."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    optional = project["optional-dependencies"]
    found: dict[str, str] = {}
    waiting = [*project["dependencies"], *(line for extra in extras for line in optional[extra])]
    while waiting:
        line = waiting.pop(0)
        own = re.match(rf"^{re.escape(project['name'])}\[([^\]]*)\]", line)
        if own:
            waiting += [text for name in own[1].split(",") for text in optional[name.strip()]]
            continue
        match = REQUIREMENT.match(line)
        if match:
            name, extra, version = match.groups()
            found[name] = f"{name}{extra or ''}=={version}"
    return list(found.values())


if __name__ == "__main__":
    print("\n".join(bounds(sys.argv[1:])))
