"""Fit the reference corpus here and, where R has lme4, with lme4 in the same run.

    python -m benchmarks.run_corpus [--only REGEX]

The exit code is 1 if a criterion is above lme4's tight optimum by more than `CRITERION_ATOL` or a
fit failed.
"""

from __future__ import annotations

import argparse
import re
import statistics
import sys
from typing import Any

from benchmarks.compare import add_common_options, effort_of, start_sessions, tools_of
from benchmarks.models import CorpusModel, corpus, lme4_results
from benchmarks.processes import Measurement, Session, measure
from benchmarks.report import RESULTS, duration, machine, table, write_json

CRITERION_ATOL = 1e-5  # units of the deviance; a likelihood-ratio test is read to 1e-2


def row_of(model: CorpusModel, ours: Measurement, lme4: Measurement | None) -> dict[str, Any]:
    """Return one row of the table as data; differences are None where the fit failed."""
    reached = ours.criterion
    ran = lme4 if lme4 is not None and lme4.status == "ok" else None
    # lme4's default of this run where there is one: versions may differ.
    default = model.default_criterion
    if ran is not None and ran.criterion is not None:
        default = ran.criterion
    return {
        "id": model.job.name,
        "formula": model.job.formula,
        "reml": model.job.reml,
        "nobs": model.nobs,
        "n_theta": model.n_theta,
        "criterion": reached,
        "minus_tight": None if reached is None else reached - model.criterion,
        "minus_default": None if reached is None else reached - default,
        "first_seconds": ours.first,
        "seconds": ours.later,
        "lme4_seconds": None if ran is None else ran.later,
        "ratio": ran.later / ours.later if ran and ran.later and ours.later else None,
        "status": ours.status,
        "message": ours.message or ("" if lme4 is None or ran else f"lme4: {lme4.message}"),
    }


def text_row(row: dict[str, Any]) -> list[str]:
    """Return one row as text."""

    def signed(value: float | None) -> str:
        return "–" if value is None else f"{value:+.1e}"

    return [
        row["id"],
        f"{row['nobs']}",
        f"{row['n_theta']}",
        "–" if row["criterion"] is None else f"{row['criterion']:.6f}",
        signed(row["minus_tight"]),
        signed(row["minus_default"]),
        duration(row["seconds"]),
        duration(row["lme4_seconds"]),
        "–" if row["ratio"] is None else f"{row['ratio']:.1f}",
        row["message"][:60],
    ]


HEADER = [
    "model", "rows", "theta", "criterion", "- tight", "- default", "time", "lme4", "lme4/ours", "",
]  # fmt: skip


def show(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Print the table and what stands out; return the rows that are worse than they may be."""
    print(table(HEADER, [text_row(row) for row in rows]))
    ratios = [row["ratio"] for row in rows if row["ratio"] is not None]
    if ratios:
        slower = sum(ratio < 1 for ratio in ratios)
        print(
            f"\n{len(ratios)} models: lme4's time over ours, geometric mean "
            f"{statistics.geometric_mean(ratios):.1f}, from {min(ratios):.2g} to "
            f"{max(ratios):.3g}; slower than lme4 on {slower}"
        )
    worse = [r for r in rows if r["minus_tight"] is None or r["minus_tight"] > CRITERION_ATOL]
    better = [r for r in rows if (r["minus_tight"] or 0.0) < -CRITERION_ATOL]
    print(f"above the tight optimum by more than {CRITERION_ATOL:g}, or failed: {len(worse)}")
    for row in worse:
        print(f"  {row['id']}: {row['minus_tight']} {row['message']}")
    if better:
        print(f"below lme4's tight optimum: {', '.join(row['id'] for row in better)}")
    return worse


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", help="regular expression on the names of models")
    add_common_options(parser, ["mixlm", "lme4"])
    parser.set_defaults(repetitions=3, budget=3.0)
    arguments = parser.parse_args()
    names = tools_of(arguments.tools)
    if len(names) > 2 or not names[0].startswith("mixlm"):
        parser.error("--tools takes one of mixlm's variants and optionally lme4 or lme4-noderivs")
    pattern = re.compile(arguments.only or "")
    models = [model for model in corpus() if pattern.search(model.job.name)]
    environment = machine(arguments.threads)
    sessions: dict[str, Session] = {}
    rows = []
    try:
        for number, model in enumerate(models, 1):
            missing = [name for name in names if name not in sessions or not sessions[name].alive]
            started = start_sessions(
                missing,
                threads=arguments.threads,
                peers_python=arguments.peers_python,
                say_missing=number == 1,
            )
            sessions.update(started)
            # What is not installed is asked for once.
            names = [name for name in names if name in sessions]
            if not names or not names[0].startswith("mixlm"):
                raise SystemExit("mixlm_sparse cannot be imported")
            ours, *others = measure(
                model.job, {name: sessions[name] for name in names}, effort_of(arguments)
            )
            rows.append(row_of(model, ours, others[0] if others else None))
            if sys.stderr.isatty():
                print(f"\r{number}/{len(models)} {model.job.name:30}", end="", file=sys.stderr)
        versions = {k: v for s in sessions.values() for k, v in s.versions.items()}
    finally:
        for session in sessions.values():
            session.close()
    worse = show(rows)
    out = arguments.out or RESULTS
    write_json(
        out / "corpus.json",
        {
            "machine": environment,
            "versions": {k: versions[k] for k in ("mixlm_sparse", "lme4", "R") if k in versions},
            "stored_with": lme4_results()["versions"],
            "results": rows,
        },
    )
    print(f"written to {out / 'corpus.json'}")
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())
