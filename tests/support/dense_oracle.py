"""Everything about a linear mixed model at a given theta, from the dense marginal covariance.

    y ~ N(X beta + o, sigma² V),   V = Z Lambda Lambda' Z' + W^-1

No sparse algebra, no profiling by penalized least squares, no code of the package: n x n matrices
and textbook formulas, so that agreement with the package means something. Test modules only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Array = np.ndarray


@dataclass(frozen=True)
class OracleTerm:
    """One random term: `columns` (n, k) multiply the effects of level `codes` (n,)."""

    columns: Array
    codes: Array
    n_levels: int

    @property
    def k(self) -> int:
        return self.columns.shape[1]

    @property
    def n_theta(self) -> int:
        return self.k * (self.k + 1) // 2

    def Z(self) -> Array:
        """(n, n_levels * k), level-major: the columns of level j are j*k ... j*k + k - 1."""
        n = len(self.codes)
        Z = np.zeros((n, self.n_levels * self.k))
        for row in range(n):
            start = self.codes[row] * self.k
            Z[row, start : start + self.k] = self.columns[row]
        return Z


@dataclass(frozen=True)
class OracleSolution:
    criterion: float
    reml: bool
    beta: Array
    sigma_sq: float
    vcov_unscaled: Array  # (X'V^-1 X)^-1; times sigma_sq it is Var(beta)
    u: list[Array]  # per term (levels, k), spherical
    b: list[Array]  # per term (levels, k)
    cond_var_unscaled: list[
        Array
    ]  # per term (levels, k, k); times sigma_sq it is Var(b | y, theta)
    fitted: Array
    fitted_fixed: Array
    leverage: Array
    ldL2: float
    ldRX2: float
    pwrss: float
    ussq: float
    wrss: float

    @property
    def sigma(self) -> float:
        return float(np.sqrt(self.sigma_sq))

    @property
    def vcov(self) -> Array:
        return self.sigma_sq * self.vcov_unscaled


def lower_triangles(theta: Array, terms: Sequence[OracleTerm]) -> list[Array]:
    """One k x k matrix per term from theta in lme4's order (lower triangles by columns)."""
    factors, at = [], 0
    for term in terms:
        factor = np.zeros((term.k, term.k))
        for column in range(term.k):
            for row in range(column, term.k):
                factor[row, column] = theta[at]
                at += 1
        factors.append(factor)
    assert at == len(theta)
    return factors


def solve(
    y: Array,
    X: Array,
    terms: Sequence[OracleTerm],
    factors: Sequence[Array],
    *,
    weights: Array | None = None,
    offset: Array | None = None,
    reml: bool = True,
) -> OracleSolution:
    """Evaluate the model at `factors`: the relative covariance factor (k, k) of each term."""
    n, p = X.shape
    w = np.ones(n) if weights is None else np.asarray(weights, float)
    o = np.zeros(n) if offset is None else np.asarray(offset, float)
    Zs = [term.Z() for term in terms]
    Lambdas = [np.kron(np.eye(t.n_levels), f) for t, f in zip(terms, factors, strict=True)]

    V = np.diag(1 / w)
    for Z, Lambda in zip(Zs, Lambdas, strict=True):
        V = V + Z @ Lambda @ Lambda.T @ Z.T
    Vinv = np.linalg.inv(V)
    logdet_V = np.linalg.slogdet(V)[1]

    XtVinvX = X.T @ Vinv @ X
    vcov_unscaled = np.linalg.inv(XtVinvX)
    beta = np.linalg.solve(XtVinvX, X.T @ Vinv @ (y - o))
    fixed = X @ beta + o
    r = y - fixed
    pwrss = float(r @ Vinv @ r)

    ldRX2 = float(np.linalg.slogdet(XtVinvX)[1])
    nu = n - p if reml else n
    # -2 log-likelihood with sigma² = pwrss / nu put in; log|sigma² V| = nu-part + log|V|
    criterion = logdet_V + nu * (1 + np.log(2 * np.pi * pwrss / nu)) + (ldRX2 if reml else 0.0)

    u, b, cond_var = [], [], []
    fitted = fixed.copy()
    for term, Z, Lambda in zip(terms, Zs, Lambdas, strict=True):
        u_t = Lambda.T @ Z.T @ Vinv @ r  # E(u | y)
        b_t = Lambda @ u_t
        ZL = Z @ Lambda
        variance = (
            Lambda @ (np.eye(Lambda.shape[0]) - ZL.T @ Vinv @ ZL) @ Lambda.T
        )  # Var(b | y) / sigma²
        k, levels = term.k, term.n_levels
        u.append(u_t.reshape(levels, k))
        b.append(b_t.reshape(levels, k))
        cond_var.append(
            np.array([variance[j * k : j * k + k, j * k : j * k + k] for j in range(levels)])
        )
        fitted = fitted + Z @ b_t

    # y - fitted = W^-1 V^-1 r = W^-1 P (y - o), hence the smoother is I - W^-1 P
    P = Vinv - Vinv @ X @ vcov_unscaled @ X.T @ Vinv
    leverage = 1 - np.diag(P) / w
    ussq = float(sum((u_t**2).sum() for u_t in u))
    wrss = float((w * (y - fitted) ** 2).sum())
    return OracleSolution(
        criterion=float(criterion),
        reml=reml,
        beta=beta,
        sigma_sq=pwrss / nu,
        vcov_unscaled=vcov_unscaled,
        u=u,
        b=b,
        cond_var_unscaled=cond_var,
        fitted=fitted,
        fitted_fixed=fixed,
        leverage=leverage,
        ldL2=float(logdet_V + np.log(w).sum()),  # |V| = |Lambda'Z'WZ Lambda + I| / |W|
        ldRX2=ldRX2,
        pwrss=pwrss,
        ussq=ussq,
        wrss=wrss,
    )


def criterion(theta: Array, y: Array, X: Array, terms: Sequence[OracleTerm], **options) -> float:
    return solve(y, X, terms, lower_triangles(theta, terms), **options).criterion


def gradient(
    theta: Array,
    y: Array,
    X: Array,
    terms: Sequence[OracleTerm],
    *,
    weights: Array | None = None,
    offset: Array | None = None,
    reml: bool = True,
) -> Array:
    """d criterion / d theta, entry by entry from dV/dtheta.

    With V_i = dV/dtheta_i and P the projection above,
        d log|V| = tr(V^-1 V_i)
        d pwrss = -(Py)' V_i (Py)
        d log|X'V^-1X| = -tr((X'V^-1X)^-1 X'V^-1 V_i V^-1 X)
    """
    n, p = X.shape
    w = np.ones(n) if weights is None else np.asarray(weights, float)
    o = np.zeros(n) if offset is None else np.asarray(offset, float)
    factors = lower_triangles(theta, terms)
    ZLs = [t.Z() @ np.kron(np.eye(t.n_levels), f) for t, f in zip(terms, factors, strict=True)]
    V = np.diag(1 / w) + sum(ZL @ ZL.T for ZL in ZLs)
    Vinv = np.linalg.inv(V)
    VinvX = Vinv @ X
    G = np.linalg.inv(X.T @ VinvX)
    Py = Vinv @ (y - o) - VinvX @ (G @ (VinvX.T @ (y - o)))
    pwrss = float((y - o) @ Py)
    nu = n - p if reml else n
    out, at = np.zeros(len(theta)), 0
    for term, ZL in zip(terms, ZLs, strict=True):
        Z = term.Z()
        for column in range(term.k):
            for row in range(column, term.k):
                unit = np.zeros((term.k, term.k))
                unit[row, column] = 1.0
                dZL = Z @ np.kron(np.eye(term.n_levels), unit)
                dV = dZL @ ZL.T + ZL @ dZL.T
                value = np.sum(Vinv * dV) - nu / pwrss * float(Py @ dV @ Py)
                if reml:
                    value -= float(np.sum(G * (VinvX.T @ dV @ VinvX)))
                out[at] = value
                at += 1
    return out


def central_difference(theta: Array, *args, step: float = 1e-5, **options) -> Array:
    """The gradient again, by differences of the criterion: checks `gradient`."""
    out = np.zeros(len(theta))
    for i in range(len(theta)):
        up, down = np.array(theta, float), np.array(theta, float)
        up[i] += step
        down[i] -= step
        out[i] = (criterion(up, *args, **options) - criterion(down, *args, **options)) / (2 * step)
    return out
