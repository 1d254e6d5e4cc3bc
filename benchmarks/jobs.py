"""What a benchmark process is asked to fit.

A `Job` names files, not objects, so that it can be sent to another interpreter or to R.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Term:
    """One random term, for tools that have no lme4 formula.

    Parameters
    ----------
    groups : columns whose combinations are the levels: ("school",) or ("batch", "cask").
    slopes : numeric columns beside the intercept, correlated with it and with each other.
    """

    groups: tuple[str, ...]
    slopes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Job:
    """One model on one data set.

    Parameters
    ----------
    name : what the tables call it.
    formula : lme4 syntax.
    csv : the data for R; also for Python where `parquet` is None.
    parquet : the data for Python.
    factors : categorical columns with their levels in order; None means all values, sorted.
    reml, weights, offset, contrasts : as in `lmer`; weights and offset are column names.
    terms : the random part again; None where only tools with lme4 formulas can take the job.
    """

    name: str
    formula: str
    csv: Path
    parquet: Path | None = None
    factors: dict[str, list[str] | None] = field(default_factory=dict)
    reml: bool = True
    weights: str | None = None
    offset: str | None = None
    contrasts: dict[str, str] = field(default_factory=dict)
    terms: tuple[Term, ...] | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the job as plain data that `json` can write."""
        record = asdict(self)
        record["csv"] = str(self.csv)
        record["parquet"] = None if self.parquet is None else str(self.parquet)
        return record

    @staticmethod
    def from_json(record: dict[str, Any]) -> Job:
        """Return the job that `as_json` wrote."""
        terms = record["terms"]
        return Job(
            **{
                **record,
                "csv": Path(record["csv"]),
                "parquet": None if record["parquet"] is None else Path(record["parquet"]),
                "terms": None
                if terms is None
                else tuple(Term(tuple(t["groups"]), tuple(t["slopes"])) for t in terms),
            }
        )

    @property
    def fixed(self) -> str:
        """The formula without its random terms: ``y ~ x``. Only for jobs with `terms`."""
        response, _, right = self.formula.partition("~")
        kept = [piece.strip() for piece in _split_plus(right) if "|" not in piece]
        return f"{response.strip()} ~ {' + '.join(kept) or '1'}"


def _split_plus(text: str) -> list[str]:
    pieces, depth = [""], 0
    for character in text:
        depth += (character == "(") - (character == ")")
        if character == "+" and depth == 0:
            pieces.append("")
        else:
            pieces[-1] += character
    return pieces
