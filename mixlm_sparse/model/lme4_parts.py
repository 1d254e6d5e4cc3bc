"""The parts of a fitted model by lme4's names (`getME`).

Everything is built on demand from the design and the solution; random effects are in lme4's order:
term by term, level by level, the effects of one level side by side.  Matrices are given in natural
order: `L` factors C = Lambda'Z'WZ Lambda + I itself, so the permutation is the identity.  Indices
count from 0.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse
import scipy.sparse.linalg

from mixlm_sparse.common.checks import require_names, shown
from mixlm_sparse.common.errors import OptionError
from mixlm_sparse.common.types import Matrix, Vector
from mixlm_sparse.model.fitted import FittedModel
from mixlm_sparse.model.structured import require_independent
from mixlm_sparse.solve.products.meetings import entries_of
from mixlm_sparse.solve.rows import InMemory


def getME(fit: FittedModel, name: str | Sequence[str]) -> Any:
    """Return a component by lme4's name: "X", "Z", "Lambda", "L", "RX", "devcomp", ...

    `L` is the sparse lower Cholesky factor of Lambda'Z'WZ Lambda + I in natural order, so no
    permutation applies.  Indices count from 0.

    Parameters
    ----------
    name : of a component; a list of names gives a dict of them.

    Raises
    ------
    OptionError : there is no such component; the message lists them all.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> fit = mx.lmer("Reaction ~ Days + (Days | Subject)", mx.datasets.load("sleepstudy"))
    >>> fit.getME("Zt").shape, list(fit.getME(["beta", "theta"]))
    ((36, 180), ['beta', 'theta'])
    """
    require_independent(fit, "getME")
    names = require_names("name", name, what="component")
    for each in names:
        if each not in _COMPONENTS:
            raise OptionError(
                f"getME knows no component {shown(each)}: use one of {', '.join(_COMPONENTS)}"
            )
    # what is handed out is the user's, to write to as well
    found = {each: copy.deepcopy(_COMPONENTS[each](fit)) for each in names}
    return found[names[0]] if isinstance(name, str) else found


def random_matrix(fit: FittedModel) -> scipy.sparse.csc_array:
    """Return Z, (n, q), sparse by columns."""
    blocks = _random_blocks(fit)
    if not blocks:
        return scipy.sparse.csc_array((fit.nobs, 0))
    return scipy.sparse.csc_array(scipy.sparse.hstack(blocks, format="csc"))


def _random_blocks(fit: FittedModel) -> list[scipy.sparse.csc_array]:
    """Return the columns of Z of each term, (n, L k)."""
    out = []
    matrices = fit.matrices
    n = matrices.nobs
    whole = InMemory.of(matrices).whole()
    for t, term in enumerate(matrices.terms):
        factor = matrices.factors[term.factor]
        values, own = whole.z(t), entries_of(factor.row_levels)
        k = values.shape[1]
        rows = np.repeat(np.arange(n) if own.row is None else own.row, k)
        columns = (own.level.astype(np.int64)[:, None] * k + np.arange(k)).ravel()
        values = own.columns(values)
        # structural zeros stay: the pattern is that of the design, not of its values
        out.append(
            scipy.sparse.csc_array(
                (values.ravel(), (rows, columns)), shape=(n, factor.n_levels * k)
            )
        )
    return out


def relative_factor(fit: FittedModel) -> scipy.sparse.csc_array:
    """Return Lambda, (q, q), block diagonal with the lower-triangular factor of each level.

    Elements that are zero only at this theta are stored, so that the pattern is the template's.
    """
    data, rows, columns = [np.empty(0)], [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    first = 0
    for t, n_levels in enumerate(_levels(fit)):
        T = fit.solution.Lambda(t)
        k = T.shape[0]
        j, i = np.nonzero(_pattern(fit, t).T)  # column by column
        starts = first + k * np.arange(n_levels)
        data.append(np.tile(T[i, j], n_levels))
        rows.append((starts[:, None] + i).ravel())
        columns.append((starts[:, None] + j).ravel())
        first += n_levels * k
    entries = (np.concatenate(data), (np.concatenate(rows), np.concatenate(columns)))
    return scipy.sparse.csc_array(entries, shape=(first, first))


def _pattern(fit: FittedModel, term: int) -> np.ndarray:
    """Return where the factor of a term can be different from zero, (k, k) bool."""
    return fit.system.templates[term].pattern


def cholesky_factor(fit: FittedModel) -> scipy.sparse.csc_array:
    """Return the lower triangular L with LL' = Lambda'Z'WZ Lambda + I, (q, q), natural order."""
    A = _scaled_random_matrix(fit)
    C = scipy.sparse.csc_array(A.T @ A + scipy.sparse.diags_array(np.ones(A.shape[1])))
    if C.shape[0] == 0:
        return C
    # Without pivoting the LU factor of a positive definite C is L D L'.
    factor = scipy.sparse.linalg.splu(
        C, permc_spec="NATURAL", diag_pivot_thresh=0.0, options={"SymmetricMode": True}
    )
    scale = np.sqrt(factor.U.diagonal())
    return scipy.sparse.csc_array(factor.L @ scipy.sparse.diags_array(scale))


def _scaled_random_matrix(fit: FittedModel) -> scipy.sparse.csc_array:
    """Return sqrt(W) Z Lambda, (n, q)."""
    A = random_matrix(fit) @ relative_factor(fit)
    root_w = scipy.sparse.diags_array(InMemory.of(fit.matrices).whole().sqrt_w)
    return scipy.sparse.csc_array(root_w @ A)


def cross_factor(fit: FittedModel) -> Matrix:
    """Return RZX = L^{-1} Lambda'Z'WX, (q, p)."""
    X = InMemory.of(fit.matrices).whole().root_weighted(fit.model_matrix())
    right = _scaled_random_matrix(fit).T @ X
    L = scipy.sparse.csr_array(cholesky_factor(fit))
    out: Matrix = scipy.sparse.linalg.spsolve_triangular(L, right, lower=True)
    return out


def theta_index(fit: FittedModel) -> np.ndarray:
    """Return Lind: the data of Lambdat, by columns, are theta[Lind]."""
    out = []
    system = fit.system
    for t, (template, part) in enumerate(zip(system.templates, system.chart.slices, strict=True)):
        position = template.positions
        if position is None:
            raise OptionError(
                f"term '{fit.matrices.terms[t].name}' has the structure "
                f"'{fit.matrices.terms[t].structure}', whose factor is no copy of theta: "
                "there is no Lind; use Lambda"
            )
        by_column = position[position >= 0] + part.start  # rows of T are columns of T'
        out.append(np.tile(by_column, _levels(fit)[t]))
    return np.concatenate(out) if out else np.empty(0, dtype=np.int64)


def spherical_effects(fit: FittedModel) -> Vector:
    """Return u, (q,)."""
    return _joined([fit.solution.u(t) for t in range(len(fit.matrices.terms))])


def random_effects(fit: FittedModel) -> Vector:
    """Return b = Lambda u, (q,)."""
    return _joined([fit.solution.b(t) for t in range(len(fit.matrices.terms))])


def _joined(parts: list[Matrix]) -> Vector:
    return np.concatenate([part.ravel() for part in parts]) if parts else np.empty(0)


def _levels(fit: FittedModel) -> list[int]:
    return [fit.matrices.factors[term.factor].n_levels for term in fit.matrices.terms]


def _widths(fit: FittedModel) -> list[int]:
    return [len(term.column_names) for term in fit.matrices.terms]


def _sizes(fit: FittedModel) -> list[int]:
    return [n * k for n, k in zip(_levels(fit), _widths(fit), strict=True)]


def _random_rows(fit: FittedModel) -> dict[str, scipy.sparse.csc_array]:
    """Return lme4's Ztlist: the rows of Zt, (L, n), of each effect of each term."""
    out = {}
    for term, block in zip(fit.matrices.terms, _random_blocks(fit), strict=True):
        k = len(term.column_names)
        for j, column in enumerate(term.column_names):
            out[f"{term.name}.{column}"] = scipy.sparse.csc_array(block[:, j::k].T)
    return out


def _factor_list(fit: FittedModel) -> dict[str, pd.Categorical[Any]]:
    return {
        f.label: pd.Categorical.from_codes(f.codes, categories=pd.Index(f.levels))
        for f in fit.matrices.factors
    }


def _column_names(fit: FittedModel) -> dict[str, tuple[str, ...]]:
    return {term.name: term.column_names for term in fit.matrices.terms}


def _deviance_components(fit: FittedModel) -> dict[str, dict[str, float | int]]:
    """Return lme4's devcomp: `cmp` with the parts of the criterion, `dims` with the sizes."""
    s = fit.solution
    n, p = fit.nobs, fit.system.p
    return {
        "cmp": {
            "ldL2": s.ldL2,
            "ldRX2": s.ldRX2,
            "wrss": s.wrss,
            "ussq": s.ussq,
            "pwrss": s.pwrss,
            "REML" if fit.reml else "dev": fit.criterion,
            "sigmaML": float(np.sqrt(s.pwrss / n)),
            "sigmaREML": float(np.sqrt(s.pwrss / (n - p))),
        },
        "dims": {
            "N": n,
            "n": n,
            "p": p,
            "nmp": n - p,
            "q": fit.system.q,
            "nth": int(fit.theta.size),
            "reTrms": len(fit.matrices.terms),
            "REML": p if fit.reml else 0,
        },
    }


def _mean(fit: FittedModel) -> Vector:
    return fit.fitted_used


_COMPONENTS: dict[str, Callable[[FittedModel], Any]] = {
    "X": lambda fit: fit.model_matrix(),
    "Z": random_matrix,
    "Zt": lambda fit: scipy.sparse.csc_array(random_matrix(fit).T),
    "Ztlist": _random_rows,
    "y": lambda fit: fit.matrices.y,
    "mu": _mean,
    "offset": lambda fit: InMemory.of(fit.matrices).whole().offset,
    "weights": lambda fit: InMemory.of(fit.matrices).whole().weights,
    "u": spherical_effects,
    "b": random_effects,
    "beta": lambda fit: fit.solution.beta,
    "fixef": lambda fit: fit.fixef,
    "theta": lambda fit: fit.theta,
    "lower": lambda fit: fit.lower,
    "sigma": lambda fit: fit.sigma,
    "Lambda": relative_factor,
    "Lambdat": lambda fit: scipy.sparse.csc_array(relative_factor(fit).T),
    "Lind": theta_index,
    "Tlist": lambda fit: {
        term.name: fit.solution.Lambda(t) for t, term in enumerate(fit.matrices.terms)
    },
    "A": lambda fit: scipy.sparse.csc_array((random_matrix(fit) @ relative_factor(fit)).T),
    "L": cholesky_factor,
    "RX": lambda fit: fit.solution.RX,
    "RZX": cross_factor,
    "flist": _factor_list,
    "cnms": _column_names,
    "Gp": lambda fit: np.concatenate([[0], np.cumsum(_sizes(fit), dtype=np.int64)]),
    "Tp": lambda fit: np.concatenate(
        [[0], np.cumsum([t.n_theta for t in fit.system.templates], dtype=np.int64)]
    ),
    "devcomp": _deviance_components,
    "n": lambda fit: fit.nobs,
    "N": lambda fit: fit.nobs,
    "p": lambda fit: fit.system.p,
    "q": lambda fit: fit.system.q,
    "m": lambda fit: int(fit.theta.size),
    "k": lambda fit: len(fit.matrices.terms),
    "n_rtrms": lambda fit: len(fit.matrices.terms),
    "n_rfacs": lambda fit: len(fit.matrices.factors),
    "m_i": lambda fit: {
        term.name: template.n_theta
        for term, template in zip(fit.matrices.terms, fit.system.templates, strict=True)
    },
    "p_i": lambda fit: dict(zip(_names(fit), _widths(fit), strict=True)),
    "l_i": lambda fit: dict(zip(_names(fit), _levels(fit), strict=True)),
    "q_i": lambda fit: dict(zip(_names(fit), _sizes(fit), strict=True)),
    "REML": lambda fit: fit.system.p if fit.reml else 0,
    "is_REML": lambda fit: fit.reml,
}


def _names(fit: FittedModel) -> list[str]:
    return [term.name for term in fit.matrices.terms]
