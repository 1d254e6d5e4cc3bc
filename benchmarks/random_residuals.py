"""Random small models as users write them: residual laws, structures, two factors, side by side.

As `random_models`, whose dense search they share.  Residuals are D C D / w: C is an AR1 over times,
one correlation for all or none, D a standard deviation for each level or a power of a covariate.
Groups are few or many, times unbalanced, scales odd.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

import mixlm_sparse as mx
from benchmarks.random_models import STARTS, Array, Model, Part, Term
from benchmarks.random_structures import StructuredTerm

KINDS = {0.0: "singular", 0.3: "small", 1.0: "usual", 10.0: "large"}
MOST_LOG = 6.0  # of ratios of standard deviations in a search: beyond, they are a limit
REACHES = (4.0, 6.0, 8.0)  # the same where it is asked whether the criterion falls without end
FALL = 1.8  # less than the 2 by which it does at least from one to the next


@dataclass(frozen=True)
class Residual(Part):
    """Rows of a group (codes) at times, in strata s, with a positive covariate v.

    Parameters
    ----------
    correlation, variance : "ar1", "cs" or ""; "ident", "power" or "".
    reach : limit of the log of a ratio; bounded : of what a correlation is the tanh of, too.
    """

    w: Array
    codes: Array
    times: Array
    s: Array
    v: Array
    correlation: str
    variance: str
    reach: float = MOST_LOG
    bounded: bool = False

    @property
    def n_sd(self) -> int:
        return {"ident": int(self.s.max()), "power": 1, "": 0}[self.variance]

    @property
    def n_par(self) -> int:
        return self.n_sd + bool(self.correlation)

    @property
    def starts(self) -> list[Array]:
        turns = (0.01, 0.8, -0.8) if self.correlation else ()
        return [np.r_[np.zeros(self.n_sd), turns[i : i + 1]] for i in range(len(STARTS))]

    def drawn(self, rng: np.random.Generator) -> Array:
        return rng.normal(size=self.n_par)

    def covariance(self, par: Array) -> Array:
        sd, turn = par[: self.n_sd], par[self.n_sd :]
        log_sd = np.zeros(len(self.w))
        if self.variance == "ident":
            log_sd = np.append(0.0, self.reach * np.tanh(sd / self.reach))[self.s]
        elif self.variance == "power":
            log_sd = sd[0] * np.log(self.v)
        size = np.exp(log_sd) / np.sqrt(self.w)
        return np.outer(size, size) * self._within(turn)

    def _within(self, turn: Array) -> Array:
        """Return C (n, n)."""
        same = self.codes[:, None] == self.codes
        if not self.correlation:
            return np.eye(len(self.w))
        if self.bounded:
            turn = self.reach * np.tanh(turn / self.reach)
        if self.correlation == "ar1":
            return same * np.tanh(turn[0]) ** np.abs(np.subtract.outer(self.times, self.times))
        least = -1.0 / (np.bincount(self.codes).max() - 1)
        rho = least + (1.0 - least) * 0.5 * (1.0 + np.tanh(turn[0]))
        C = np.where(same, rho, 0.0)
        np.fill_diagonal(C, 1.0)
        return C

    def written(self) -> dict[str, Any]:
        """Return what the fit is told."""
        out: dict[str, Any] = {}
        if self.correlation == "ar1":
            out["residual"] = mx.AR1("t", "g")
        elif self.correlation == "cs":
            out["residual"] = mx.CompoundSymmetry("g")
        if self.variance:
            out["variance"] = mx.VarIdent("s") if self.variance == "ident" else mx.VarPower("v")
        return out


@dataclass(frozen=True)
class ResidualModel(Model):
    """The same with a residual law, whose parameters may run away instead of the effects."""

    def has_no_minimum(self) -> bool:
        """Say whether the criterion falls without end as a ratio or a correlation goes farther.

        Beside effects at their best it falls by a whole number for each log standard deviation.
        """
        if not self.residual:
            return super().has_no_minimum()
        values = []
        for reach in REACHES:
            (own,) = self.residual
            assert isinstance(own, Residual)
            law = replace(own, reach=reach, bounded=True)
            values.append(replace(self, residual=[law]).best())
        return bool((np.diff(values) < -FALL).all()) or super().has_no_minimum()


def residual_model(seed: int) -> Model:
    """Return a model with a residual law, a structure, or both, beside other terms."""
    rng = np.random.default_rng([20261128, seed])
    levels, k = int(rng.choice([4, 6, 10, 15])), int(rng.integers(3, 6))
    # visits of each group, some of them missing
    g, t = (a.ravel() for a in np.meshgrid(range(levels), range(k), indexing="ij"))
    kept = rng.random(g.size) < rng.choice([0.8, 1.0])
    kept[:k] = kept[::k] = True
    # rows at a visit, of an arm each
    again = 2 if levels * k < 30 else int(rng.choice([1, 2]))
    g, t = np.tile(g[kept], again), np.tile(t[kept], again)
    n = g.size
    correlation = str(rng.choice(["", "ar1", "cs"])) if again == 1 else ""
    variance = str(rng.choice(["", "ident", "power"]))
    x, h, s = rng.normal(size=n), rng.integers(0, rng.integers(3, 7), n), rng.integers(0, 3, n)
    s[:3], v = range(3), np.exp(rng.normal(size=n))
    w = rng.uniform(0.3, 3.0, n) if rng.random() < 0.3 else np.ones(n)
    X = np.column_stack([np.ones(n), x])
    size, terms, written = float(rng.choice(list(KINDS))), [], []
    structure = str(rng.choice(["cs", "ar1", "toep", "diag", "us"]))
    if not correlation and (variance or rng.random() < 0.7) and again == 2:
        columns = np.eye(k)[t]
        if structure in ("diag", "us"):
            terms.append(Term(columns[:, : min(k, 3)], g, structure))
            columns = columns[:, : min(k, 3)]
            inside = " + ".join(f"t{j}" for j in range(columns.shape[1]))
            bar = f"0 + {inside} | g"
            written.append(f"({bar})" if structure == "us" else f"diag({bar})")
        else:
            common = bool(rng.random() < 0.5)
            terms.append(StructuredTerm(columns, g, structure, common))
            written.append(f"{structure}(0 + f | g, hom = {'TRUE' if common else 'FALSE'})")
    elif correlation != "cs":
        slope = rng.random() < 0.4
        terms.append(Term(X if slope else X[:, :1], g, "us"))
        written.append("(x | g)" if slope else "(1 | g)")
    if rng.random() < 0.4 or not terms:
        terms.append(Term(X[:, :1], h, "us"))
        written.append("(1 | h)")
    residual = Residual(w, g, t, s, v, correlation, variance)
    y = X @ rng.normal(size=2)
    for term in terms:
        b = rng.normal(size=(int(term.codes.max()) + 1, term.columns.shape[1]))
        T = term.factor(rng.uniform(0.3, 1.5, term.n_par))
        y = y + size * (term.columns * (b @ T.T)[term.codes]).sum(axis=1)
    R = residual.covariance(rng.uniform(-1.0, 1.0, residual.n_par))
    y = y + np.linalg.cholesky(R) @ rng.normal(size=n)
    offset = rng.normal(size=n) if rng.random() < 0.2 else np.zeros(n)
    unit = float(10.0 ** rng.integers(-8, 9)) if rng.random() < 0.3 else 1.0
    reml = bool(rng.random() < 0.7)
    data = pd.DataFrame(
        {"y": unit * (y + offset), "o": unit * offset, "x": x, "t": t, "g": g, "h": h, "w": w}
    )
    data["f"], data["s"], data["v"] = t.astype(str), s.astype(str), v
    for j in range(k):
        data[f"t{j}"] = (t == j).astype(float)
    law = bool(correlation or variance)
    return ResidualModel(
        formula=f"y ~ x + {' + '.join(written)}",
        data=data.sample(frac=1.0, random_state=seed),
        reml=reml,
        weights="w" if not (w == 1.0).all() else None,
        offset="o" if offset.any() else None,
        y=y,
        X=X,
        w=w,
        terms=terms,
        kind=", ".join(filter(None, (KINDS[size], correlation, variance))),
        shift=float((n - 2 if reml else n) * np.log(unit**2)),
        residual=[residual] if law else [],
        call=residual.written(),
    )
