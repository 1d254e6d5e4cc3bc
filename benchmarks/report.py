"""Tables, JSON and pictures of measurements."""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path
from typing import Any

from benchmarks.processes import TOOLS, Measurement

RESULTS = Path(__file__).parent / "results"


def duration(seconds: float | None) -> str:
    """Return seconds as text with three digits: "1.23 ms", "45.6 s"."""
    if seconds is None:
        return "–"
    if seconds < 1e-3:
        return f"{seconds * 1e6:.3g} µs"
    if seconds < 1:
        return f"{seconds * 1e3:.3g} ms"
    return f"{seconds:.3g} s" if seconds < 1000 else f"{seconds:.0f} s"


def table(header: list[str], rows: list[list[str]], *, left: int = 1) -> str:
    """Return rows of text as a Markdown table, the first `left` columns aligned left."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]

    def line(cells: list[str]) -> str:
        aligned = [
            cell.ljust(width) if index < left else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return "| " + " | ".join(aligned) + " |"

    rule = [
        "-" * width if index < left else "-" * (width - 1) + ":"
        for index, width in enumerate(widths)
    ]
    return "\n".join([line(header), "| " + " | ".join(rule) + " |", *map(line, rows)])


def machine(threads: int) -> dict[str, Any]:
    """Return what a reader must know of the machine; the load is that at the time of the call."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": threads,
        "system": platform.platform(),
        "python": platform.python_version(),
        "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write `content` and make its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1), encoding="utf-8")


# ---------------------------------------------------------------------------------- comparisons


def base_of(measurements: list[Measurement]) -> Measurement:
    """Return the first tool that fitted: ratios and differences are to it."""
    return next((result for result in measurements if result.status == "ok"), measurements[0])


def comparison_rows(measurements: list[Measurement]) -> list[list[str]]:
    """Return the rows of one job."""
    base = base_of(measurements)
    rows = []
    for result in measurements:
        ratio = (
            f"{result.later / base.later:.2f}"
            if result.status == "ok" and result.later and base.later and base.status == "ok"
            else "–"
        )
        difference = (
            f"{result.criterion - base.criterion:+.2g}"
            if result.criterion is not None and base.criterion is not None
            else "–"
        )
        rows.append(
            [
                result.job if result is measurements[0] else "",
                result.tool,
                duration(result.first),
                duration(result.later) if result.status == "ok" else _refusal(result),
                ratio,
                "0" if result is base and result.criterion is not None else difference,
                "–" if result.megabytes is None else f"{result.megabytes:.0f} MB",
                result.note or (result.message if result.status != "ok" else ""),
            ]
        )
    return rows


COMPARISON_HEADER = [
    "workload", "tool", "first call", "later calls", "ratio", "criterion", "memory", "note",
]  # fmt: skip


def _refusal(result: Measurement) -> str:
    return {"timeout": "timeout", "unsupported": "no such model", "error": "failed"}[result.status]


# Colours of Okabe and Ito, told apart by people with any colour vision; marks differ too.
_STYLES = {
    "mixlm": ("#D55E00", "o"), "lme4": ("#0072B2", "s"), "lme4-noderivs": ("#56B4E9", "s"),
    "glmm": ("#009E73", "^"), "mixedlm": ("#CC79A7", "v"), "mixedlm-rs": ("#E69F00", "D"),
    "lme-python": ("#000000", "P"), "gpboost": ("#999999", "X"), "statsmodels": ("#8B5A2B", "*"),
    "mixlm-blocked": ("#D55E00", "<"), "mixlm-cholmod": ("#D55E00", ">"),
    "mixlm-bobyqa": ("#D55E00", "d"),
}  # fmt: skip


def comparison_picture(
    path: Path, results: list[list[Measurement]], titles: dict[str, str], subtitle: str
) -> None:
    """Draw time and memory by workload, one mark a tool; a hollow mark is a timeout.

    Raises
    ------
    ImportError : matplotlib is not installed.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 1.9 + 0.42 * len(results)), layout="constrained")
    time_axes, memory_axes = figure.subplots(1, 2, sharey=True, width_ratios=[3, 2])
    used = [name for name in TOOLS if any(m.tool == name for job in results for m in job)]
    for name in used:
        colour, mark = _STYLES[name]
        style: dict[str, Any] = {"color": colour, "marker": mark, "linestyle": "none", "ms": 7}
        rows = [(row, m) for row, job in enumerate(results) for m in job if m.tool == name]
        done = [(row, m) for row, m in rows if m.status == "ok" and m.later is not None]
        time_axes.plot([m.later for _, m in done], [row for row, _ in done], label=name, **style)
        with_memory = [(row, m) for row, m in done if m.megabytes]
        memory_axes.plot(
            [max(1.0, m.megabytes or 0) for _, m in with_memory],
            [row for row, _ in with_memory],
            **style,
        )
        late = [(row, m) for row, m in rows if m.status == "timeout"]
        limits = [float(m.message.removeprefix("more than ").removesuffix(" s")) for _, m in late]
        time_axes.plot(limits, [row for row, _ in late], fillstyle="none", **style)
    time_axes.set_yticks(
        range(len(results)), [f"{job[0].job}  {titles[job[0].job]}" for job in results], fontsize=8
    )
    time_axes.invert_yaxis()
    time_axes.set_xlabel("seconds, later calls (hollow: gave up then)")
    memory_axes.set_xlabel("MB above the loaded data (peak)")
    for axes in (time_axes, memory_axes):
        axes.set_xscale("log")
        axes.grid(axis="x", color="#dddddd")
        axes.grid(axis="y", color="#eeeeee")
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=5, fontsize=8, frameon=False)
    figure.suptitle(subtitle, fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)


def growth_picture(
    path: Path, results: dict[str, dict[str, dict[str, list[tuple[int, float]]]]]
) -> None:
    """Draw time against size: one panel an axis and shape, one line a tool.

    Parameters
    ----------
    results : axis -> shape -> tool -> (size, seconds).

    Raises
    ------
    ImportError : matplotlib is not installed.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter

    shapes = list(next(iter(results.values())))
    figure = Figure(figsize=(3.1 * len(shapes), 6), layout="constrained")
    panels = figure.subplots(len(results), len(shapes), squeeze=False, sharey=True)
    labelled: set[str] = set()
    for row, (axis, by_shape) in zip(panels, results.items(), strict=True):
        for axes, shape in zip(row, shapes, strict=True):
            for tool, curve in by_shape[shape].items():
                colour, mark = _STYLES[tool]
                axes.plot(
                    *zip(*curve, strict=True),
                    color=colour,
                    marker=mark,
                    ms=5,
                    label=None if tool in labelled else tool,
                )
                labelled.add(tool)
            axes.set_xscale("log")
            axes.set_yscale("log")
            axes.xaxis.set_minor_formatter(NullFormatter())  # they overlap below a decade
            axes.set_title(shape, fontsize=9)
            axes.set_xlabel(axis, fontsize=8)
            axes.grid(color="#e5e5e5")
            axes.spines[["top", "right"]].set_visible(False)
        row[0].set_ylabel("seconds")
    figure.legend(loc="outside lower center", ncols=6, fontsize=8, frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
