"""Random effects of a solution as tables: per level, and their variances."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixlm_sparse.common.tables import Tables, as_result
from mixlm_sparse.common.types import Array3
from mixlm_sparse.covariance.random import structure_class
from mixlm_sparse.design.matrices import RandomTerm
from mixlm_sparse.model.varcorr import TermCovariance, VarCorr
from mixlm_sparse.solve.solution import PlsSolution
from mixlm_sparse.solve.system import PenalizedSystem

__all__ = [
    "coefficients_by_level", "conditional_covariances", "effects_by_level", "variance_components",
]  # fmt: skip


def variance_components(
    solution: PlsSolution,
    sigma: float,
    *,
    no_residual: bool = False,
    known: Sequence[NDArray[np.bool_]] | None = None,
    residual: bool = True,
) -> VarCorr:
    """Return variances, standard deviations and correlations of the random effects.

    Parameters
    ----------
    sigma : what theta is relative to; with `no_residual` it is held, and the residual has none.
    known : per term, (k, k) whether the data determine each entry; others are NaN.
    residual : whether they determine the residual variance.
    """
    system = solution.system
    terms = []
    for t, term in enumerate(system.matrices.terms):
        T = sigma * solution.Lambda(t)
        determined = np.ones(T.shape, dtype=bool) if known is None else known[t]
        template = system.templates[t]
        natural = template.natural_parameters
        shared: tuple[tuple[str, str, float], ...] = ()
        if any(par.label for par in natural):  # theta are these parameters
            theta = solution.theta[system.chart.slices[t]].tolist()
            shared = tuple(
                (
                    par.kind,
                    par.label or term.column_names[par.row],
                    (sigma * value if par.kind == "sd" else value)
                    if determined.all()
                    else float("nan"),
                )
                for par, value in zip(natural, theta, strict=True)
            )
        terms.append(
            TermCovariance(
                name=term.name,
                group=system.matrices.factors[term.factor].label,
                columns=term.column_names,
                covariance=np.where(determined, T @ T.T, np.nan),
                correlated=len(term.column_names) > 1 and template.correlated,
                shared=shared,
                words=_structure_words(term, system),
            )
        )
    left = 0.0 if no_residual else sigma if residual else float("nan")
    return VarCorr(tuple(terms), left, system.matrices.weights is not None)


def _structure_words(term: RandomTerm, system: PenalizedSystem) -> str:
    """Say what structure a term has, where it is not the general one of independent levels."""
    factor = system.matrices.factors[term.factor]
    cls, label = structure_class(term.structure), factor.label
    related = ""
    if factor.known is not None:
        used = int(system.products.blocks.factors[term.factor].ztz.any(axis=(1, 2)).sum())
        beside = f", {used} with rows" if 0 < used < factor.n_levels else ""
        related = f"{label}: levels with a known covariance ({factor.n_levels}{beside})"
    if cls.name == "us" or not cls.words:
        return related
    names = term.column_names
    columns = names[0] if len(names) == 1 else f"{names[0]} ... {names[-1]}"
    text = f"{cls.written(f'{columns} | {label}')}: {cls.words}"
    return f"{text}; {related}" if related else text


def effects_by_level(solution: PlsSolution) -> dict[str, pd.DataFrame]:
    """Return the conditional modes by grouping factor, (levels, effects).

    The index has the levels in the type that the data have.
    """
    matrices = solution.system.matrices
    effects = Tables()
    for g, factor in enumerate(matrices.factors):
        terms = [t for t, term in enumerate(matrices.terms) if term.factor == g]
        frame = pd.DataFrame(
            np.hstack([solution.b(t) for t in terms]),
            index=factor.index,
            columns=[name for t in terms for name in matrices.terms[t].column_names],
        )
        effects[factor.label] = as_result(frame)
    return effects


def conditional_covariances(solution: PlsSolution, scale: float) -> dict[str, Array3]:
    """Return sigma^2 Lambda C^{-1} Lambda' of all effects of a level, (L, K, K) by factor."""
    return {
        factor.label: scale
        * solution.grown(np.matmul(np.matmul(Lambda, block), Lambda.T), Lambda @ Lambda.T)
        for factor, Lambda, block in zip(
            solution.system.matrices.factors,
            solution.reference_factors,
            solution.selected_inverse.diag,
            strict=True,
        )
    }


def coefficients_by_level(solution: PlsSolution) -> dict[str, pd.DataFrame]:
    """Return fixed effects plus random effects by grouping factor."""
    fixed = dict(zip(solution.system.x_names, solution.beta.tolist(), strict=True))
    effects = effects_by_level(solution)
    extra = [name for frame in effects.values() for name in frame.columns if name not in fixed]
    base = {**dict.fromkeys(extra, 0.0), **fixed}
    place = {name: j for j, name in enumerate(base)}
    out = Tables()
    for label, frame in effects.items():
        values = np.tile(np.array(list(base.values())), (len(frame), 1))
        for j, name in enumerate(frame.columns):
            values[:, place[name]] += frame.iloc[:, j].to_numpy()
        out[label] = as_result(pd.DataFrame(values, index=frame.index, columns=list(base)))
    return out
