"""Random designs for Hypothesis: nested, crossed, unbalanced, single-row groups; several terms per
factor; weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from hypothesis import strategies as st

from tests.support.dense_oracle import OracleTerm


@dataclass(frozen=True)
class Design:
    """A formula with its data, and the same model as arrays, the terms in lme4's order."""

    formula: str
    data: pd.DataFrame
    X: np.ndarray
    terms: tuple[OracleTerm, ...]
    weights: str | None
    offset: str | None
    kind: str

    @property
    def y(self) -> np.ndarray:
        return self.data["y"].to_numpy()

    @property
    def m(self) -> int:
        return sum(term.n_theta for term in self.terms)

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """What a failing test prints: not its arrays."""
        printer.text(
            f"Design({self.formula!r}, n={len(self.data)}, kind={self.kind!r}, "
            f"levels={[t.n_levels for t in self.terms]}, weights={self.weights}, "
            f"offset={self.offset})"
        )

    def array(self, column: str | None) -> np.ndarray | None:
        return None if column is None else self.data[column].to_numpy()

    @property
    def options(self) -> dict[str, Any]:
        """weights and offset as arrays, for the oracle."""
        return {"weights": self.array(self.weights), "offset": self.array(self.offset)}


def lme4_order(n_levels: list[int]) -> list[int]:
    """Terms as written if their numbers of levels never increase, else by decreasing number, ties
    reversed.
    """
    if n_levels == sorted(n_levels, reverse=True):
        return list(range(len(n_levels)))
    return list(reversed(np.argsort(n_levels, kind="stable").tolist()))


# How the random terms of one factor are written, with the columns each term has.
_TERMS_OF_A_FACTOR: list[list[tuple[str, list[str]]]] = [
    [("1", ["1"])],
    [("x1", ["1", "x1"])],
    [("0 + x1", ["x1"])],
    [("x1 + x2", ["1", "x1", "x2"])],
    [("1", ["1"]), ("0 + x1", ["x1"])],
    [("x1", ["1", "x1"]), ("0 + x2", ["x2"])],
    [("0 + x1 + x2", ["x1", "x2"])],
]


def _codes(rng: np.random.Generator, kind: str, n: int, factors: int) -> list[np.ndarray]:
    sizes = rng.integers(2, 8, factors)
    if kind == "nested":
        sizes = np.sort(sizes)
        codes = [rng.integers(0, sizes[0], n)]
        for _ in range(1, factors):
            codes.append(codes[-1] * 2 + rng.integers(0, 2, n))
    elif kind == "single rows":
        # half of the groups have one row only
        codes = [np.minimum(np.arange(n), n // 2) for _ in range(1)]
        codes += [rng.integers(0, size, n) for size in sizes[1:]]
        codes = [rng.permutation(c) for c in codes]
    elif kind == "unbalanced":
        codes = [np.minimum(rng.geometric(0.5, n) - 1, size - 1) for size in sizes]
    else:
        codes = [rng.integers(0, size, n) for size in sizes]
    compact = [np.unique(c, return_inverse=True)[1].astype(np.int64) for c in codes]
    return [c if c.max() >= 1 else np.arange(n) % 2 for c in compact]


@st.composite
def designs(draw: st.DrawFn, *, weighted: bool | None = None) -> Design:
    """A model with 1 to 3 grouping factors and up to 6 terms."""
    kind = draw(st.sampled_from(["crossed", "nested", "unbalanced", "single rows"]))
    factors = draw(st.integers(1, 3))
    written = [draw(st.sampled_from(_TERMS_OF_A_FACTOR)) for _ in range(factors)]
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n = draw(st.integers(50, 90))
    if kind == "single rows":
        written[0] = _TERMS_OF_A_FACTOR[0]  # more columns would need more random effects than rows
    with_weights = draw(st.booleans()) if weighted is None else weighted
    with_offset = draw(st.booleans())
    fixed = draw(st.sampled_from(["1", "x1", "x1 + x2", "0 + x1"]))

    codes = _codes(rng, kind, n, factors)
    data = pd.DataFrame({"x1": rng.normal(size=n), "x2": rng.uniform(-1, 1, n)})
    columns = {"1": np.ones(n), "x1": data["x1"].to_numpy(), "x2": data["x2"].to_numpy()}
    parts, terms, levels = [fixed], [], []
    y = rng.normal(size=n) + 3.0
    for f, (code, in_factor) in enumerate(zip(codes, written, strict=True)):
        count = int(code.max()) + 1
        data[f"g{f}"] = pd.Categorical.from_codes(code, [f"L{j:03d}" for j in range(count)])
        for text, names in in_factor:
            Z = np.column_stack([columns[name] for name in names])
            if Z.shape[1] * count >= n:  # lme4 refuses as many random effects as rows
                text, Z = "1", np.ones((n, 1))
            if f"({text} | g{f})" in parts:
                continue
            parts.append(f"({text} | g{f})")
            terms.append(OracleTerm(Z, code, count))
            levels.append(count)
            y = y + np.einsum("ij,ij->i", Z, rng.normal(size=(count, Z.shape[1]))[code])
    data["y"] = y
    data["w"] = rng.uniform(0.2, 5.0, n)
    data["o"] = rng.normal(size=n)
    X = np.column_stack(
        {
            "1": [columns["1"]],
            "x1": [columns["1"], columns["x1"]],
            "x1 + x2": [columns["1"], columns["x1"], columns["x2"]],
            "0 + x1": [columns["x1"]],
        }[fixed]
    )
    order = lme4_order(levels)
    return Design(
        formula="y ~ " + " + ".join(parts),
        data=data,
        X=X,
        terms=tuple(terms[i] for i in order),
        weights="w" if with_weights else None,
        offset="o" if with_offset else None,
        kind=kind,
    )


@st.composite
def designs_with_theta(draw: st.DrawFn) -> tuple[Design, np.ndarray]:
    """A design and a theta: inside, near the boundary, or on it."""
    design = draw(designs())
    where = draw(st.sampled_from(["inside", "near", "singular", "zero"]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    theta: list[float] = []
    for term in design.terms:
        factor = np.tril(rng.normal(size=(term.k, term.k)))
        np.fill_diagonal(factor, rng.uniform(0.2, 2.0, term.k))
        if where == "near":
            factor[-1, -1] *= 1e-6
        elif where == "singular":
            factor[-1, -1] = 0.0  # a correlation of one, or a variance of zero if k is 1
        elif where == "zero":
            factor[:] = 0.0
        theta += [factor[i, j] for j in range(term.k) for i in range(j, term.k)]
    return design, np.array(theta)
