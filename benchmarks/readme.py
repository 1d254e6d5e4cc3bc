"""The short table of the README, from the results of `python -m benchmarks.installed`.

    python -m benchmarks.readme                        # from benchmarks/results/installed.json
    python -m benchmarks.readme --results FILE

`python -m benchmarks.installed --publish` writes it as well.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks.processes import REPOSITORY
from benchmarks.report import RESULTS, duration, table

README = REPOSITORY / "README.md"
BEGIN, END = "<!-- speed: begin -->", "<!-- speed: end -->"
TOOLS = {  # in the order of columns
    "default": "here", "glmm": "glmm", "lme4": "lme4", "statsmodels": "statsmodels",
}  # fmt: skip
TITLES = {
    "W1": "`sleepstudy`, 180 rows, `(Days \\| Subject)`",
    "W4": "`InstEval`, 73,421 rows, three crossed factors",
    "W5": "`Chem97`, 31,022 rows, nested",
    "W6": "`Exam`, 4,059 rows, slopes",
    "W7": "10⁶ rows, 50,000 groups, two slopes",
    "W8": "500,000 rows, 20,000 × 2,000 crossed",
    "W10": "60 × 100 crossed, 20 variance parameters",
}


def short_table(content: dict[str, Any]) -> str:
    """Return the table in Markdown with the sentence that says where it comes from."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for result in content["results"]:
        found.setdefault(result["job"], {})[result["tool"]] = result
    tools = [t for t in TOOLS if any(t in results for results in found.values())]
    rows = [
        [title, *(_cell(found[job].get(tool)) for tool in tools)]
        for job, title in TITLES.items()
        if job in found
    ]
    machine, versions = content["machine"], content["versions"]
    listed = ", ".join(f"{k} {v}" for k, v in versions.items() if k in (*TOOLS, "mixlm_sparse"))
    load = machine["load_average"]
    busy = "" if load is None or load < 1 else (
        f", beside other work (load {load:.0f}): compare within rows"
    )  # fmt: skip
    said = (
        f"One run on {machine['cores']} cores ({machine['processor']}), {content['state']}{busy}. "
        f"{listed}."
    )
    return "\n\n".join([table(["model", *(TOOLS[t] for t in tools)], rows, left=1), said])


def _cell(result: dict[str, Any] | None) -> str:
    if result is None:
        return "–"
    if result["status"] == "ok":
        return duration(result["later_seconds"])
    if result["status"] == "timeout":
        return result["message"].replace("more than ", "> ")
    return "–"


def publish(content: dict[str, Any]) -> None:
    """Put the table into README.md.

    Raises
    ------
    SystemExit : the README has no place for it.
    """
    page = README.read_text(encoding="utf-8")
    if BEGIN not in page or END not in page:
        raise SystemExit(f"{README} has no lines {BEGIN} and {END}")
    before, rest = page.split(BEGIN, 1)
    after = rest.split(END, 1)[1]
    README.write_text(
        f"{before}{BEGIN}\n\n{short_table(content)}\n\n{END}{after}", encoding="utf-8"
    )


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=RESULTS / "installed.json")
    publish(json.loads(parser.parse_args().results.read_text(encoding="utf-8")))


if __name__ == "__main__":
    main()
