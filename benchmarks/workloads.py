"""The workloads W1 to W15: data sets of many shapes, generated with fixed seeds.

W1 to W6 are data sets of the reference corpus, W7 to W15 are simulated. Files go to
`benchmarks/cache`, which git ignores: Parquet for Python, CSV for R.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.jobs import Job, Term

CACHE = Path(__file__).parent / "cache"
MANY_LEVELS = 100  # factors with as many are grouping factors, not fixed effects
VERSION = 1  # of the generators; a change of any of them must raise it, so that caches renew


@dataclass(frozen=True)
class Workload:
    """A model with the function that makes its data.

    Parameters
    ----------
    name, title : "W8" and one line about its shape.
    formula : lme4 syntax.
    terms : its random part, for tools without lme4 formulas.
    generate : scale -> data; scale 1 is the published size. None for data of the corpus.
    corpus_data : the data set of the corpus, for W1 to W6.
    """

    name: str
    title: str
    formula: str
    terms: tuple[Term, ...]
    generate: Callable[[float], pd.DataFrame] | None = None
    corpus_data: str | None = None

    def job(self, scale: float = 1.0) -> Job:
        """Return the job, its files written if they are not there yet.

        Parameters
        ----------
        scale : factor on rows and levels of a simulated workload; 1 is the published size.
        """
        if self.generate is None:
            assert self.corpus_data is not None
            return _cached(self, f"{self.name}_{self.corpus_data}", self._load_corpus_data)
        generate = self.generate
        return _cached(self, f"{self.name}_v{VERSION}_x{scale:g}", lambda: generate(scale))

    def _load_corpus_data(self) -> pd.DataFrame:
        # Here and not at the top: simulated workloads need no test data.
        from tests.support.corpus import load_data

        assert self.corpus_data is not None
        return load_data(self.corpus_data)


def _cached(workload: Workload, stem: str, make: Callable[[], pd.DataFrame]) -> Job:
    """Write the files of a workload once and return its job."""
    CACHE.mkdir(exist_ok=True)
    parquet, csv, meta = (CACHE / f"{stem}.{end}" for end in ("parquet", "csv", "json"))
    if not meta.exists():
        frame = make()
        frame.to_parquet(parquet)
        frame.to_csv(csv, index=False)
        factors = {
            column: _stored_levels(values)
            for column, values in frame.items()
            if isinstance(values.dtype, pd.CategoricalDtype)
        }
        # Last, so that an interrupted run does not leave half-written data that look complete.
        meta.write_text(json.dumps({"factors": factors, "rows": len(frame)}), encoding="utf-8")
    factors = json.loads(meta.read_text(encoding="utf-8"))["factors"]
    return Job(workload.name, workload.formula, csv, parquet, factors, terms=workload.terms)


def _stored_levels(values: pd.Series) -> list[str] | None:
    """Return the levels of a factor in order, or None where their order is nobody's matter."""
    levels = values.cat.categories
    return list(map(str, levels)) if len(levels) < MANY_LEVELS else None


# ---------------------------------------------------------------------------------- generators


def factor(codes: np.ndarray) -> Any:
    """Return integer codes as a categorical column with text levels, as R's factors have."""
    used, renumbered = np.unique(codes, return_inverse=True)
    levels = pd.Index([str(code) for code in used])
    return pd.Categorical.from_codes(renumbered, categories=levels)


def correlated_effects(
    rng: np.random.Generator, n_levels: int, sds: list[float], correlation: float = 0.3
) -> np.ndarray:
    """Draw (n_levels, k) random effects with standard deviations `sds`, equally correlated."""
    k = len(sds)
    corr = np.full((k, k), correlation) + (1 - correlation) * np.eye(k)
    return rng.normal(size=(n_levels, k)) @ np.linalg.cholesky(corr).T * sds


def _size(published: int, scale: float) -> int:
    return max(4, round(published * scale))


def one_factor(
    seed: int, n: int, n_groups: int, slope_sds: list[float], coefficients: list[float]
) -> pd.DataFrame:
    """Rows at random in groups; y ~ x.. + (1 + x.. | g) with a slope for each of `slope_sds`."""
    rng = np.random.default_rng(seed)
    g = rng.integers(n_groups, size=n)
    names = ["x"] if len(coefficients) == 1 else [f"x{i + 1}" for i in range(len(coefficients))]
    X = rng.normal(size=(n, len(coefficients)))
    b = correlated_effects(rng, n_groups, [0.8, *slope_sds])[g]
    y = 1 + X @ coefficients + b[:, 0] + rng.normal(size=n)
    for column in range(len(slope_sds)):
        y += b[:, column + 1] * X[:, column]
    return pd.DataFrame({"y": y, **dict(zip(names, X.T, strict=True)), "g": factor(g)})


def two_crossed(seed: int, n: int, n_users: int, n_items: int) -> pd.DataFrame:
    """Rows at random cells of a table; y ~ x + (1 | user) + (1 | item)."""
    rng = np.random.default_rng(seed)
    user, item, x = rng.integers(n_users, size=n), rng.integers(n_items, size=n), rng.normal(size=n)
    y = 3 + 0.2 * x + rng.normal(0, 0.7, n_users)[user] + rng.normal(0, 0.5, n_items)[item]
    y += rng.normal(size=n)
    return pd.DataFrame({"y": y, "x": x, "user": factor(user), "item": factor(item)})


def maximal(seed: int, n: int, n_subjects: int, n_items: int) -> pd.DataFrame:
    """A two-by-two experiment; y ~ A*B + (A*B | subj) + (A*B | item), A and B coded +-0.5."""
    rng = np.random.default_rng(seed)
    subj, item = rng.integers(n_subjects, size=n), rng.integers(n_items, size=n)
    A, B = rng.choice([-0.5, 0.5], n), rng.choice([-0.5, 0.5], n)
    X = np.column_stack([np.ones(n), A, B, A * B])
    b = correlated_effects(rng, n_subjects, [0.8, 0.4, 0.3, 0.5])[subj]
    c = correlated_effects(rng, n_items, [0.5, 0.3, 0.3, 0.4])[item]
    y = X @ [1.0, 0.5, -0.3, 0.2] + np.einsum("ij,ij->i", X, b + c) + rng.normal(size=n)
    return pd.DataFrame({"y": y, "A": A, "B": B, "subj": factor(subj), "item": factor(item)})


N_SMALL_FACTORS = 20


def many_small(seed: int, n: int) -> pd.DataFrame:
    """Twenty crossed factors of 5 to 20 levels; y ~ x + (1 | f1) + ... + (1 | f20)."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=n)
    y = 1 + 0.5 * x + rng.normal(size=n)
    factors = {}
    for index, n_levels in enumerate(np.linspace(5, 20, N_SMALL_FACTORS).round().astype(int)):
        codes = rng.integers(n_levels, size=n)
        y += rng.normal(0, rng.uniform(0.2, 1.0), n_levels)[codes]
        factors[f"f{index + 1}"] = factor(codes)
    return pd.DataFrame({"y": y, "x": x, **factors})


def ratings(seed: int, n: int, n_users: int, n_items: int) -> pd.DataFrame:
    """Ratings 1 to 5 of distinct pairs; y ~ 1 + (1 | user) + (1 | item).

    Activity and popularity follow lognormal laws with the ratio of mean to median of a public
    collection of a million film ratings (users: median 96, mean 166; films: median 123, mean 270).
    A pair occurs once, which flattens the top a little: the medians come out as 116 and 149. A few
    users and films hold a large part of the rows, and pairs of popular films meet often.
    """
    rng = np.random.default_rng(seed)
    activity = rng.lognormal(0, np.sqrt(2 * np.log(166 / 96)), n_users)
    popularity = rng.lognormal(0, np.sqrt(2 * np.log(270 / 123)), n_items)
    # Everybody rates one item and every item is rated once, so that no level is lost.
    cells = np.unique(
        np.concatenate(
            [
                np.arange(n_users) * n_items + rng.choice(n_items, n_users, p=_share(popularity)),
                rng.choice(n_users, n_items, p=_share(activity)) * n_items + np.arange(n_items),
            ]
        )
    )
    while cells.size < n:
        wanted = 2 * (n - cells.size) + 1000
        users = rng.choice(n_users, wanted, p=_share(activity))
        items = rng.choice(n_items, wanted, p=_share(popularity))
        new = np.setdiff1d(users * n_items + items, cells)
        cells = np.concatenate([cells, rng.permutation(new)[: n - cells.size]])
    user, item = np.divmod(rng.permutation(cells), n_items)
    score = 3.6 + rng.normal(0, 0.43, n_users)[user] + rng.normal(0, 0.55, n_items)[item]
    y = np.clip(np.round(score + rng.normal(0, 0.9, cells.size)), 1, 5)
    return pd.DataFrame({"y": y, "user": factor(user), "item": factor(item)})


def _share(weights: np.ndarray) -> np.ndarray:
    return np.asarray(weights / weights.sum())


def three_vectors(seed: int, n: int, levels: tuple[int, int, int]) -> pd.DataFrame:
    """Three crossed factors; y ~ u + (1 + u | g) + (1 + u | h) + (1 + u | i)."""
    rng = np.random.default_rng(seed)
    u = rng.normal(size=n)
    y = 1 + 0.4 * u + rng.normal(size=n)
    factors = {}
    spreads = ([0.7, 0.3], [0.5, 0.2], [0.4, 0.3])
    for name, n_levels, sds in zip("ghi", levels, spreads, strict=True):
        codes = rng.integers(n_levels, size=n)
        b = correlated_effects(rng, n_levels, sds)[codes]
        y += b[:, 0] + b[:, 1] * u
        factors[name] = factor(codes)
    return pd.DataFrame({"y": y, "u": u, **factors})


def nested_slopes(seed: int, n: int, n_schools: int, n_classes: int) -> pd.DataFrame:
    """Classes in schools; y ~ x + (1 + x | school) + (1 + x | cls), classes named uniquely."""
    rng = np.random.default_rng(seed)
    school_of = np.concatenate(  # no school without a class
        [np.arange(n_schools), rng.integers(n_schools, size=n_classes - n_schools)]
    )
    cls = np.concatenate([np.arange(n_classes), rng.integers(n_classes, size=n - n_classes)])
    school, x = school_of[cls], rng.normal(size=n)
    b = correlated_effects(rng, n_schools, [0.5, 0.25])[school]
    b += correlated_effects(rng, n_classes, [0.4, 0.2])[cls]
    y = 2 + 0.5 * x + b[:, 0] + b[:, 1] * x + rng.normal(size=n)
    return pd.DataFrame({"y": y, "x": x, "school": factor(school), "cls": factor(cls)})


# --------------------------------------------------------------------------------------- table

_USER_ITEM = (Term(("user",)), Term(("item",)))
_W11_TERMS = tuple(Term((f"f{i + 1}",)) for i in range(N_SMALL_FACTORS))

WORKLOADS: tuple[Workload, ...] = (
    Workload(
        "W1", "sleepstudy, 180 rows, slopes",
        "Reaction ~ Days + (Days | Subject)", (Term(("Subject",), ("Days",)),),
        corpus_data="sleepstudy",
    ),
    Workload(
        "W2", "Penicillin, 144 rows, crossed",
        "diameter ~ 1 + (1 | plate) + (1 | sample)", (Term(("plate",)), Term(("sample",))),
        corpus_data="Penicillin",
    ),
    Workload(
        "W3", "Pastes, 60 rows, nested",
        "strength ~ 1 + (1 | batch/cask)", (Term(("batch",)), Term(("batch", "cask"))),
        corpus_data="Pastes",
    ),
    Workload(
        "W4", "InstEval, 73,421 rows, three terms",
        "y ~ service + (1 | s) + (1 | d) + (1 | dept:service)",
        (Term(("s",)), Term(("d",)), Term(("dept", "service"))),
        corpus_data="InstEval",
    ),
    Workload(
        "W5", "Chem97, 31,022 rows, nested",
        "score ~ gcsecnt + (1 | lea/school)", (Term(("lea",)), Term(("lea", "school"))),
        corpus_data="Chem97",
    ),
    Workload(
        "W6", "Exam, 4,059 rows, slopes",
        "normexam ~ standLRT + (standLRT | school)", (Term(("school",), ("standLRT",)),),
        corpus_data="Exam",
    ),
    Workload(
        "W7", "10^6 rows, 50,000 groups, two slopes",
        "y ~ x1 + x2 + (1 + x1 + x2 | g)", (Term(("g",), ("x1", "x2")),),
        lambda s: one_factor(7, _size(1_000_000, s), _size(50_000, s), [0.4, 0.3], [0.5, -0.5]),
    ),
    Workload(
        "W8", "500,000 rows, 20,000 x 2,000 crossed",
        "y ~ x + (1 | user) + (1 | item)", _USER_ITEM,
        lambda s: two_crossed(8, _size(500_000, s), _size(20_000, s), _size(2_000, s)),
    ),
    Workload(
        "W9", "5 10^6 rows, 200,000 groups",
        "y ~ x + (1 | g)", (Term(("g",)),),
        lambda s: one_factor(9, _size(5_000_000, s), _size(200_000, s), [], [0.5]),
    ),
    Workload(
        "W10", "maximal, 10,000 rows, 60 x 100, 20 theta",
        "y ~ A*B + (A*B | subj) + (A*B | item)",
        (Term(("subj",), ("A", "B", "A:B")), Term(("item",), ("A", "B", "A:B"))),
        lambda s: maximal(10, _size(10_000, s), _size(60, s), _size(100, s)),
    ),
    Workload(
        "W11", "20 small crossed terms, 20,000 rows",
        "y ~ x + " + " + ".join(f"(1 | f{i + 1})" for i in range(N_SMALL_FACTORS)), _W11_TERMS,
        lambda s: many_small(11, _size(20_000, s)),
    ),
    Workload(
        "W12", "ratings, 10^6 rows, 6,040 x 3,706, skewed degrees",
        "y ~ 1 + (1 | user) + (1 | item)", _USER_ITEM,
        # Rows by the square of the scale: the share of filled cells stays as it is.
        lambda s: ratings(12, _size(1_000_000, s * s), _size(6_040, s), _size(3_706, s)),
    ),
    Workload(
        "W13", "three crossed slopes, 130,000 rows, 9 theta",
        "y ~ u + (1 + u | g) + (1 + u | h) + (1 + u | i)",
        (Term(("g",), ("u",)), Term(("h",), ("u",)), Term(("i",), ("u",))),
        lambda s: three_vectors(
            13, _size(130_000, s), (_size(9_500, s), _size(340, s), _size(70, s))
        ),
    ),
    Workload(
        "W14", "200,000 rows, 40,000 x 8,000 crossed, sparse",
        "y ~ x + (1 | user) + (1 | item)", _USER_ITEM,
        lambda s: two_crossed(14, _size(200_000, s), _size(40_000, s), _size(8_000, s)),
    ),
    Workload(
        "W15", "nested slopes, 300,000 rows, 2,000 / 20,000",
        "y ~ x + (1 + x | school) + (1 + x | cls)",
        (Term(("school",), ("x",)), Term(("cls",), ("x",))),
        lambda s: nested_slopes(15, _size(300_000, s), _size(2_000, s), _size(20_000, s)),
    ),
)  # fmt: skip

BY_NAME = {workload.name: workload for workload in WORKLOADS}


def chosen(names: str | None) -> list[Workload]:
    """Return the workloads of a list such as "W1,W4", or all for None.

    Raises
    ------
    SystemExit : a name is not known.
    """
    if names is None:
        return list(WORKLOADS)
    wanted = [name.strip().upper() for name in names.split(",")]
    unknown = [name for name in wanted if name not in BY_NAME]
    if unknown:
        raise SystemExit(f"no workload {', '.join(unknown)}; there are {', '.join(BY_NAME)}")
    return [BY_NAME[name] for name in wanted]
