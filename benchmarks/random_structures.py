"""Random small models with structured terms: cs, ar1 and toep, with one variance or several.

As `random_models`, whose dense search they share; the structures are written here once more, as
plain covariance matrices.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from benchmarks.random_models import STARTS, Array, Model, Term

STRUCTURES = ("cs", "ar1", "toep")
KINDS = {0.0: "singular", 0.3: "small", 1.0: "usual", 10.0: "large"}


@dataclass(frozen=True)
class StructuredTerm(Term):
    """A term whose parameters are roots of standard deviations, then correlations on the line."""

    common: bool = False  # one variance

    @property
    def n_sd(self) -> int:
        return 1 if self.common else self.columns.shape[1]

    @property
    def n_par(self) -> int:
        k = self.columns.shape[1]
        return self.n_sd + (k - 1 if self.structure == "toep" else 1)

    @property
    def starts(self) -> list[Array]:
        """Correlations of zero, positive ones and negative ones."""
        turns = (0.01, 0.8, -0.8)
        others = self.n_par - self.n_sd
        return [
            np.r_[np.full(self.n_sd, np.sqrt(size)), np.full(others, turn)]
            for size, turn in zip(STARTS, turns, strict=True)
        ]

    def drawn(self, rng: np.random.Generator) -> Array:
        sizes = np.exp(0.5 * rng.normal()) * rng.normal(size=self.n_sd)
        return np.r_[sizes, 1.5 * rng.normal(size=self.n_par - self.n_sd)]

    def factor(self, par: Array) -> Array:
        k = self.columns.shape[1]
        sd = np.broadcast_to(par[: self.n_sd] ** 2, (k,))
        R = _correlation(self.structure, par[self.n_sd :], k)
        values, vectors = np.linalg.eigh(R)
        return sd[:, None] * vectors * np.sqrt(np.maximum(values, 0.0))


def _correlation(structure: str, w: Array, k: int) -> Array:
    apart = np.abs(np.subtract.outer(np.arange(k), np.arange(k)))
    if structure == "cs":
        least = -1.0 / (k - 1)
        rho = least + (1.0 - least) * 0.5 * (1.0 + np.tanh(w[0]))
        return np.where(apart == 0, 1.0, rho)
    if structure == "ar1":
        return np.tanh(w[0]) ** apart
    return _autocorrelations(np.tanh(w))[apart]


def _autocorrelations(partial: Array) -> Array:
    """Return the autocorrelations (k,) of the partial ones (k - 1,), by Durbin and Levinson."""
    r, a = [1.0], np.zeros(0)
    for p in partial:
        left = 1.0 - float(a @ np.array(r[1:][: a.size]))
        r.append(float(a @ np.array(r[1:][::-1][: a.size])) + p * left)
        a = np.append(a - p * a[::-1], p)
    return np.array(r)


def structured_model(seed: int) -> Model:
    """Return a model with a structured term, alone or beside an intercept of another factor."""
    rng = np.random.default_rng([20261127, seed])
    k, levels = int(rng.integers(3, 5)), int(rng.integers(8, 20))
    n = levels * k + int(rng.integers(levels, 3 * levels))
    g = np.r_[np.repeat(np.arange(levels), k), rng.integers(0, levels, n - levels * k)]
    f = np.r_[np.tile(np.arange(k), levels), rng.integers(0, k, n - levels * k)]
    h, x = rng.integers(0, rng.integers(4, 8), n), rng.normal(size=n)
    structure = str(rng.choice(STRUCTURES))
    common = bool(rng.random() < 0.5)
    size = float(rng.choice(list(KINDS)))
    columns = np.eye(k)[f]
    term = StructuredTerm(columns, g, structure, common)
    roots = np.sqrt(size * rng.uniform(0.5, 1.5, term.n_sd))
    truth = np.r_[roots, rng.normal(size=term.n_par - term.n_sd)]
    b = rng.normal(size=(levels, k)) @ term.factor(truth).T
    X = np.column_stack([np.ones(n), x])
    y = X @ rng.normal(size=2) + b[g, f] + rng.normal(size=n)
    hom = "TRUE" if common else "FALSE"
    terms: list[Term] = [term]
    text = f"y ~ x + {structure}(0 + f | g, hom = {hom})"
    if rng.random() < 0.3:
        terms.append(Term(X[:, :1], h, "us"))
        y = y + rng.normal(size=h.max() + 1)[h]
        text += " + (1 | h)"
    data = pd.DataFrame({"y": y, "x": x, "f": f.astype(str), "g": g, "h": h})
    return Model(
        formula=text,
        data=data,
        reml=bool(rng.random() < 0.7),
        weights=None,
        offset=None,
        y=y,
        X=X,
        w=np.ones(n),
        terms=terms,
        kind=KINDS[size],
    )
