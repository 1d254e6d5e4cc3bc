"""Random small models and an independent dense search for their optimum.

    y ~ N(X beta, sigma^2 V),   V = W^-1 + sum_t (B_t B_t') * [same level],   B_t = columns_t T_t

No code of the package: n x n matrices and a general minimizer from several starts.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import scipy.linalg
import scipy.optimize

Array = np.ndarray
STARTS = (0.3, 1.0, 4.0)
TENFOLD = 4.0  # less than 2 log 10
SIZES = (1e3, 1e4, 1e5)  # of effects relative to the noise
FAILED = 1e10  # value where V is no covariance matrix
SHAPES = {"1": 1, "x": 2, "0 + x": 1, "x + z": 3}


@dataclass(frozen=True)
class Term:
    """One random term: columns (n, k), codes (n,), and how T depends on its parameters."""

    columns: Array
    codes: Array
    structure: str

    @property
    def n_par(self) -> int:
        k = self.columns.shape[1]
        return {"us": k * (k + 1) // 2, "diag": k, "id": 1}[self.structure]

    @property
    def starts(self) -> list[Array]:
        """Parameters to search from."""
        k = self.columns.shape[1]
        eye = np.eye(k)[np.tril_indices(k)] if self.structure == "us" else np.ones(self.n_par)
        return [size * eye + 0.01 for size in STARTS]

    def factor(self, par: Array) -> Array:
        k = self.columns.shape[1]
        if self.structure != "us":
            return np.diag(np.broadcast_to(par, (k,)))
        T = np.zeros((k, k))
        T[np.tril_indices(k)] = par
        return T


@dataclass(frozen=True)
class Model:
    """A formula with its data, and the same model as arrays in units of order one.

    `shift` is what the units of the data add to the criterion.
    """

    formula: str
    data: pd.DataFrame
    reml: bool
    weights: str | None
    offset: str | None
    y: Array
    X: Array
    w: Array
    terms: list[Term]
    kind: str
    shift: float = 0.0
    same: list[Array] = field(default_factory=list)

    def covariance(self, factors: list[Array]) -> Array:
        V = np.diag(1.0 / self.w)
        for term, T, same in zip(self.terms, factors, self.same, strict=True):
            B = term.columns @ T
            V += (B @ B.T) * same
        return V

    def criterion(self, V: Array) -> float:
        """Return -2 log likelihood (restricted for REML), beta and sigma profiled out."""
        try:
            root = scipy.linalg.cholesky(V, lower=True, check_finite=False)
        except scipy.linalg.LinAlgError:
            return FAILED
        XY = scipy.linalg.solve_triangular(
            root, np.column_stack([self.X, self.y]), lower=True, check_finite=False
        )
        R = np.linalg.qr(XY, mode="r")
        n, p = self.X.shape
        nu = n - p if self.reml else n
        value = 2.0 * np.log(np.diag(root)).sum()
        value += nu * (1.0 + np.log(2.0 * np.pi * R[-1, -1] ** 2 / nu))
        if self.reml:
            value += 2.0 * np.log(np.abs(np.diag(R)[:-1])).sum()
        return float(value)

    def at(self, par: Array) -> float:
        parts = np.split(par, np.cumsum([t.n_par for t in self.terms])[:-1])
        factors = [t.factor(p) for t, p in zip(self.terms, parts, strict=True)]
        return self.criterion(self.covariance(factors))

    def best(self) -> float:
        """Return the lowest criterion that searches from several starts find."""
        return self.at(self.lowest()) + self.shift

    def has_no_minimum(self) -> bool:
        """Say whether the criterion falls by `TENFOLD` or more each time effects may be tenfold.

        Where random effects with a singular covariance can be the response, it falls by 2 log 10
        for each contrast that they leave out, from one size to the next, without end.
        """
        par, values = self.lowest(), []
        for most in SIZES:

            def within(at: Array, most: float = most) -> float:
                return self.at(at) if np.abs(at).max() <= most else FAILED

            options = {"xatol": 1e-9, "fatol": 1e-9, "maxfev": 400 * par.size}
            start = par * (0.9 * most / np.abs(par).max())
            found = scipy.optimize.minimize(within, start, method="Nelder-Mead", options=options)
            par = found.x
            values.append(float(found.fun))
        return bool((np.diff(values) < -TENFOLD).all())

    def lowest(self) -> Array:
        """Return the parameters at which searches from several starts find the lowest value."""
        found = []
        for parts in zip(*(t.starts for t in self.terms), strict=True):
            by_slope = scipy.optimize.minimize(self.at, np.concatenate(parts), method="BFGS")
            found.append(by_slope)
        lowest = min(found, key=lambda f: f.fun)
        options = {"xatol": 1e-7, "fatol": 1e-9, "maxfev": 400 * lowest.x.size}
        polished = scipy.optimize.minimize(
            self.at, lowest.x, method="Nelder-Mead", options=options
        )
        return polished.x if polished.fun < lowest.fun else lowest.x


def _groups(rng: np.random.Generator, n: int, kind: str) -> dict[str, Array]:
    g = rng.integers(0, rng.integers(3, 12), n)
    if kind == "one":
        return {"g": g}
    if kind == "nested":
        return {"g": g, "h": g * 4 + rng.integers(0, rng.integers(2, 5), n)}
    return {"g": g, "h": rng.integers(0, rng.integers(3, 9), n)}


def random_model(seed: int) -> Model:
    """Return a model: nested, crossed, slopes, structures, weights, offset, singular, odd units."""
    rng = np.random.default_rng([20261126, seed])
    n = int(rng.integers(24, 90))
    layout = str(rng.choice(["one", "nested", "crossed"]))
    groups = _groups(rng, n, layout)
    x, z = rng.normal(size=n), rng.normal(size=n)
    X = np.column_stack([np.ones(n), x, z])
    # how large random effects are beside the residuals: none, hardly any, as usual, huge
    size = float(rng.choice([0.0, 0.1, 1.0, 1.0, 30.0]))
    terms, written, y = [], [], X @ rng.normal(size=3)
    for name, codes in groups.items():
        shape = str(rng.choice(list(SHAPES), p=[0.5, 0.25, 0.15, 0.1]))
        columns = {"1": X[:, :1], "x": X[:, :2], "0 + x": X[:, 1:2], "x + z": X}[shape]
        k = columns.shape[1]
        structure = str(rng.choice(["us", "diag", "id"])) if k > 1 else "us"
        bar = f"{shape} | {name}"
        written.append(f"({bar})" if structure == "us" else f"{structure}({bar})")
        terms.append(Term(columns, codes, structure))
        effects = size * rng.normal(size=(codes.max() + 1, k)) @ rng.normal(size=(k, k))
        y = y + (columns * effects[codes]).sum(axis=1)
    weighted, has_offset, reml = rng.random() < 0.3, rng.random() < 0.2, rng.random() < 0.7
    w = rng.uniform(0.3, 3.0, n) if weighted else np.ones(n)
    y = y + rng.normal(size=n) / np.sqrt(w)
    offset = rng.normal(size=n) if has_offset else np.zeros(n)

    # units of the data: no term says "id" of columns whose units differ
    fixed = any(t.structure == "id" for t in terms)
    unit = 10.0 ** rng.integers(-6, 7) if rng.random() < 0.4 else 1.0
    scale = 10.0 ** rng.integers(-4, 5) if rng.random() < 0.4 and not fixed else 1.0
    nu = n - 3 if reml else n
    shift = nu * np.log(unit**2) + (2.0 * np.log(scale) if reml else 0.0)
    frame = pd.DataFrame({"y": unit * (y + offset), "x": scale * x, "z": z, "w": w})
    frame["o"] = unit * offset
    for name, codes in groups.items():
        frame[name] = np.char.add("level", codes.astype(str))
    kind = {0.0: "singular", 0.1: "near-flat", 1.0: "usual", 30.0: "large"}[size]
    return Model(
        formula=f"y ~ x + z + {' + '.join(written)}",
        data=frame,
        reml=reml,
        weights="w" if weighted else None,
        offset="o" if has_offset else None,
        y=y,
        X=X,
        w=w,
        terms=terms,
        kind=kind,
        shift=float(shift),
        same=[t.codes[:, None] == t.codes for t in terms],
    )
