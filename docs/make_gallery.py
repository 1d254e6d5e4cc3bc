"""Run the code of gallery.md and write its pictures.

python docs/make_gallery.py [name ...]     only the pictures named, such as caterpillar

A block of Python is run, and what it calls `figure` is saved as the picture that follows it.
"""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path
from typing import Any

import matplotlib as mpl

HERE = Path(__file__).resolve().parent
BLOCK = re.compile(
    r"```python\n(?P<code>.*?)```|!\[[^\]]*\]\((?P<picture>figures/[\w.]+)\)", re.DOTALL
)
DPI = 150


def main(wanted: list[str]) -> None:
    """Draw all pictures, or those named."""
    sys.path.insert(0, str(HERE.parent))
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    (HERE / "figures").mkdir(exist_ok=True)
    names: dict[str, Any] = {}
    text = (HERE / "gallery.md").read_text(encoding="utf-8")
    began = time.perf_counter()
    for match in BLOCK.finditer(text):
        if match["code"] is not None:
            names.pop("figure", None)
            began = time.perf_counter()
            exec(match["code"], names)  # the documentation's own code
            continue
        path = HERE / match["picture"]
        if not wanted or path.stem.removeprefix("gallery_") in wanted:
            names["figure"].savefig(path, dpi=DPI)
            print(f"{path.name}: {time.perf_counter() - began:.1f} s")
        plt.close("all")


if __name__ == "__main__":
    main(sys.argv[1:])
