"""The reference corpus as a table: data, formula, and what lme4 found.

The models and their data are those of `tests/references`. What lme4 computed for them is stored in
`benchmarks/lme4.json`; `Rscript benchmarks/reference.R` computes it again.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from benchmarks.jobs import Job
from tests.support.corpus import MODELS, REFERENCES, load_json, load_model

LME4_RESULTS = Path(__file__).parent / "lme4.json"


@dataclass(frozen=True)
class CorpusModel:
    """One row of the table.

    Parameters
    ----------
    job : data, formula, weights, offset, contrasts, REML or ML.
    criterion : the REML criterion or ML deviance at the best optimum that lme4's criterion has.
    default_criterion : the same where lme4's default optimizer stops.
    default_seconds : how long that took when the results were stored; another machine, another
        time, so no base for a ratio.
    nobs, n_theta : size.
    tags : what the model is an example of.
    """

    job: Job
    criterion: float
    default_criterion: float
    default_seconds: float
    nobs: int
    n_theta: int
    tags: tuple[str, ...]


def job_of(record: dict[str, Any]) -> Job:
    """Return the job of one record of `tests/references/models`."""
    name = Path(record["data"]).name.removesuffix(".csv.gz")
    columns = load_json("data/schema.json")[name]["columns"]
    return Job(
        name=record["id"],
        formula=record["formula"],
        csv=REFERENCES / record["data"],
        factors={c: info["levels"] for c, info in columns.items() if info["kind"] == "factor"},
        reml=record["REML"],
        weights=record["weights"],
        offset=record["offset"],
        contrasts=record["contrasts"] or {},
    )


@lru_cache(maxsize=1)
def lme4_results() -> dict[str, Any]:
    """Return what `reference.R` stored: {"versions": ..., "models": {id: {...}}}."""
    results: dict[str, Any] = json.loads(LME4_RESULTS.read_text(encoding="utf-8"))
    return results


def corpus_model(model_id: str) -> CorpusModel:
    """Return one row of the table.

    Raises
    ------
    KeyError : `lme4.json` has no such model; run ``Rscript benchmarks/reference.R``.
    """
    record, stored = load_model(model_id), lme4_results()["models"][model_id]
    return CorpusModel(
        job=job_of(record),
        criterion=stored["criterion"],
        default_criterion=stored["default_criterion"],
        default_seconds=stored["default_seconds"],
        nobs=record["nobs"],
        n_theta=record["n_theta"],
        tags=tuple(record["tags"]),
    )


def corpus() -> list[CorpusModel]:
    """Return every model of the corpus, in the order of their names."""
    return [corpus_model(model_id) for model_id in MODELS]


if __name__ == "__main__":
    for model_id in MODELS:
        job = job_of(load_model(model_id))
        print(f"{job.name:26} {job.csv.name:24} {'REML' if job.reml else 'ML':4} {job.formula}")
