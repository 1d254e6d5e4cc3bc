"""Random small models and an independent dense search for their optimum.

    y ~ N(X beta, sigma^2 V),   V = W^-1 + sum_t (B_t B_t') * [same level],   B_t = columns_t T_t

No code of the package: n x n matrices and a general minimizer from many starts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import scipy.linalg
import scipy.optimize

Array = np.ndarray
STARTS = (0.3, 1.0, 4.0)
DRAWN = 8  # starts anywhere besides
LARGEST = 1e5  # parameters of a search: beyond, rounding is no longer small beside the noise
STEP = 1e-5  # of differences
TENFOLD = 4.0  # less than 2 log 10
SIZES = (1e3, 1e4, 1e5)  # of effects relative to the noise
FAILED = 1e10  # value where V is no covariance matrix
SHAPES = {"1": 1, "x": 2, "0 + x": 1, "x + z": 3}


class Part:
    """What adds a covariance (n, n) to V, by parameters of its own."""

    n_par: int

    @property
    def starts(self) -> list[Array]:
        """Parameters to search from, as many for every part."""
        raise NotImplementedError

    def drawn(self, rng: np.random.Generator) -> Array:
        """Return parameters anywhere."""
        raise NotImplementedError

    def covariance(self, par: Array) -> Array:
        """Return what is added, (n, n)."""
        raise NotImplementedError

    def contract(self, G: Array, par: Array) -> Array:
        """Return <G, d covariance / d par>, (n_par,)."""
        return np.array([(G * D).sum() for D in differences(self.covariance, par)])


def differences(function: Callable[[Array], Array], par: Array) -> list[Array]:
    """Return central differences by each parameter."""
    out = []
    for i in range(par.size):
        step = np.zeros(par.size)
        step[i] = STEP * max(1.0, abs(float(par[i])))
        out.append((function(par + step) - function(par - step)) / (2.0 * step[i]))
    return out


@dataclass(frozen=True)
class Term(Part):
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
        k = self.columns.shape[1]
        eye = np.eye(k)[np.tril_indices(k)] if self.structure == "us" else np.ones(self.n_par)
        return [size * eye + 0.01 for size in STARTS]

    def drawn(self, rng: np.random.Generator) -> Array:
        return np.exp(rng.normal()) * rng.normal(size=self.n_par)

    def factor(self, par: Array) -> Array:
        """Return T (k, k)."""
        k = self.columns.shape[1]
        if self.structure != "us":
            return np.diag(np.broadcast_to(par, (k,)))
        T = np.zeros((k, k))
        T[np.tril_indices(k)] = par
        return T

    def squared(self, par: Array) -> Array:
        """Return T T' (k, k)."""
        T = self.factor(par)
        return T @ T.T

    @cached_property
    def same(self) -> Array:
        """(n, n): which rows have the same level."""
        return self.codes[:, None] == self.codes

    def covariance(self, par: Array) -> Array:
        B = self.columns @ self.factor(par)
        return (B @ B.T) * self.same

    def contract(self, G: Array, par: Array) -> Array:
        core = self.columns.T @ (G * self.same) @ self.columns
        return np.array([(core * D).sum() for D in differences(self.squared, par)])


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
    residual: list[Part] = field(default_factory=list)
    call: dict[str, Any] = field(default_factory=dict)  # what else the fit is told

    @property
    def parts(self) -> list[Part]:
        """What has parameters, in their order: the terms, then the residuals."""
        return [*self.terms, *self.residual]

    def covariance_at(self, par: Array) -> Array:
        """Return V (n, n)."""
        sizes = [part.n_par for part in self.parts]
        V = np.zeros((len(self.y), len(self.y)))
        if not self.residual:
            V[np.diag_indices(len(V))] = 1.0 / self.w
        for part, own in zip(self.parts, np.split(par, np.cumsum(sizes)[:-1]), strict=True):
            V += part.covariance(own)
        return V

    def _value(self, root: Array) -> float:
        """Return -2 log likelihood (restricted for REML), beta and sigma profiled out."""
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
        """Return the criterion."""
        try:
            V = self.covariance_at(par)
            return self._value(scipy.linalg.cholesky(V, lower=True, check_finite=False))
        except scipy.linalg.LinAlgError:
            return FAILED

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

    def slope(self, par: Array) -> tuple[float, Array]:
        """Return the criterion and its gradient.

        With P = V^-1 (REML: less its part along X) and e = y less the fitted values the derivative
        by V is G = P - nu V^-1 e e' V^-1 / (e' V^-1 e); by B_t B_t' of a term it is the sum of
        columns_t' (G * [same level]) columns_t, and T T' itself takes central differences.
        """
        if not np.abs(par).max() <= LARGEST:
            return FAILED, np.zeros_like(par)
        parts = np.split(par, np.cumsum([part.n_par for part in self.parts])[:-1])
        V = self.covariance_at(par)
        try:
            root = scipy.linalg.cholesky(V, lower=True, check_finite=False)
        except scipy.linalg.LinAlgError:
            return FAILED, np.zeros_like(par)
        value = self._value(root)
        half = scipy.linalg.solve_triangular(root, np.eye(len(V)), lower=True, check_finite=False)
        inverse = half.T @ half
        Q = np.linalg.qr(half @ self.X)[0]
        fitted = half @ self.y
        left = half.T @ (fitted - Q @ (Q.T @ fitted))
        n, p = self.X.shape
        nu = n - p if self.reml else n
        G = inverse - nu / float(left @ V @ left) * np.outer(left, left)
        if self.reml:
            along = half.T @ Q
            G -= along @ along.T
        found = [part.contract(G, own) for part, own in zip(self.parts, parts, strict=True)]
        return value, np.concatenate(found)

    def lowest(self) -> Array:
        """Return the parameters at which searches from many starts find the lowest value."""
        rng = np.random.default_rng(0)
        begin = [np.concatenate(one) for one in zip(*(t.starts for t in self.parts), strict=True)]
        begin += [np.concatenate([t.drawn(rng) for t in self.parts]) for _ in range(DRAWN)]
        found = [self._search(start) for start in begin]
        best = min(found, key=lambda f: f.fun)
        again = self._search(best.x)
        return again.x if again.fun < best.fun else best.x

    def _search(self, start: Array) -> scipy.optimize.OptimizeResult:
        return scipy.optimize.minimize(
            self.slope, start, jac=True, method="BFGS", options={"gtol": 1e-7}
        )


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
    )
