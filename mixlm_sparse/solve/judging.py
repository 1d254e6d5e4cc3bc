"""Judging what the data determine: which variances and tests have an answer at all.

The law of the data is y ~ N(X beta, V), V = sigma^2 W^{-1} + sum_i tau_i G_i, where tau are the
variances and covariances of the random effects and G_i = Z_t E_i Z_t' with E_i symmetric.  REML
uses the law of the contrasts K'y alone, K'X = 0.  V is linear in (tau, sigma^2), so that a
direction c of these parameters leaves the law as it is, everywhere, where and only where

    sum_i c_i K'G_i K = 0    (ML: sum_i c_i G_i = 0),    G_0 = W^{-1}.

These are the null vectors of the Gram matrix of the K'G_i K, which with K orthonormal (and rows
multiplied by sqrt(W)) is

    J_ik = tr(P G_i P G_k),    P = I - Q Q',  Q an orthonormal basis of X (ML: P = I),

twice the expected information at V = I.  Any other V would have the same null vectors, since
P_V = K (K'VK)^{-1} K', so that neither theta nor a response is needed, and an estimate of zero is
no obstacle: what is judged is the covariance, not its factor.  `information` forms J exactly, in
one pass over the blocks of Z'WZ: no factor, no random numbers, nothing of size n or q^2.

A direction that the data see, but hardly: J has eigenvalues of the size of the curvature of the
criterion along the direction.  Where one is small, the average information at Lambda = I and where
the fit is, in which large and small groups count alike, decides; below 1e-6 of what the effects
would have alone a (co)variance is decided by rounding and chance, and is undetermined too.

Of the fixed effects, the covariance (X'V^{-1}X)^{-1} may depend on an undetermined direction while
the estimates do not.  With H = V^{-1}X(X'V^{-1}X)^{-1}, d Cov(beta) / dc = H'G_c H, where
G_c = sum_i c_i G_i; with K'G_c K = 0 this is, at V = I, D_c = Q'G_c Q in the columns Q, and the
estimates move with the part Q'G_c P of G_c.

References
----------
Searle, Casella and McCulloch (1992), Variance Components, sections 6.6 and 11.3, for the
information; Rothenberg (1971), doi:10.2307/1913267, for identification by its rank.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np

from mixlm_sparse.common.errors import DataError
from mixlm_sparse.common.types import Array3, Matrix, Vector
from mixlm_sparse.covariance.random import structure_class
from mixlm_sparse.solve.beside_known import half_known, times_known, unseen_beside_known
from mixlm_sparse.solve.identification import (
    MAX_NAMED,
    PART_RTOL,
    Direction,
    Identification,
    joined,
)
from mixlm_sparse.solve.information import (
    NULL_RTOL,
    Generator,
    average_information,
    generators,
    information_of,
)
from mixlm_sparse.solve.products.basis import level_rows
from mixlm_sparse.solve.system import PenalizedSystem
from mixlm_sparse.solve.whitened.frame import Hidden
from mixlm_sparse.solve.whitened.unseen import hidden_directions

__all__ = ["hidden_in", "identification", "require_residuals_apart", "unseen"]

# Below this a direction is looked at again where large and small groups count alike ...
SUSPECT_RTOL = 1e-7
# ... and is flat below this.
FLAT_RTOL = 1e-6
# A correlation matrix with an eigenvalue below this is singular.
SINGULAR = 1e-6


def identification(
    system: PenalizedSystem, *, reml: bool, phi: Vector | None = None, residuals: bool = True
) -> Identification:
    """Judge what the data determine.

    Parameters
    ----------
    system : the model; its response is not looked at.
    reml : whether the law of contrasts counts, or that of the data.
    phi : (m,) where the fit is, which counts for directions that are hardly seen.
    residuals : whether the parameters of a residual structure are judged with the others, where
        `system` has them, or are taken as known.
    """
    names = () if system.whitened is None or not residuals else system.whitened.law.names
    if not system.templates and not names:
        return Identification((), (), (), (), system.products.R_x)
    directions: tuple[Direction, ...] = ()
    if system.templates:
        seen = information_of(system, reml=reml)
        found, scale = seen.generators, seen.scale
        null, tolerance = unseen(system, reml=reml, phi=phi)
        directions = tuple(_direction(system, found, c / scale, scale, tolerance) for c in null.T)
        if system.known:
            directions += _directions_of_known(system, reml=reml)
        still = np.zeros(len(names))
        directions = tuple(replace(direction, rho=still) for direction in directions)
    if names:
        directions += _directions_of_residuals(system, reml=reml)
    return Identification(
        directions=directions,
        terms=tuple(_term_text(system, t) for t in range(len(system.templates))),
        columns=tuple(term.column_names for term in system.matrices.terms),
        lengths=tuple(np.sqrt((Rz * Rz).sum(axis=0)) for Rz in system.chart.Rz),
        R_x=system.products.R_x,
        residual_names=names,
        singular=bool(names) and _singular_correlations(system),
    )


def _singular_correlations(system: PenalizedSystem) -> bool:
    """Say whether correlations of all visits are those of a singular matrix, as far as is known."""
    assert system.whitened is not None
    law, rho = system.whitened.law, system.whitened.rho
    if law.correlation is None or not law.by_visits:
        return False
    visits = np.arange(law.places.T, dtype=np.float64)[None]
    return any(
        np.linalg.eigvalsh(law.correlation.correlation(visits, rho[law.part(s)], law.places)).min()
        < SINGULAR
        for s in range(len(law.strata))
    )


def unseen(
    system: PenalizedSystem, *, reml: bool, phi: Vector | None = None
) -> tuple[Matrix, float]:
    """Return the directions of the variance parameters that the data do not see, or hardly.

    Returns
    -------
    null : (g + 1, r), the parameters in units of `Seen.scale`.
    tolerance : parts of a direction below this are none.
    """
    seen = information_of(system, reml=reml)
    if not seen.values.size or seen.values[0] > SUSPECT_RTOL:  # they are ascending
        return seen.vectors[:, :0], PART_RTOL
    values, null = seen.values, seen.null
    if ((values > NULL_RTOL) & (values <= SUSPECT_RTOL)).any():
        places = [system.chart.start] if phi is None else [system.chart.start, phi]
        flat = min(
            (_flat_at(system, seen.generators, at, reml=reml) for at in places),
            key=lambda c: c.shape[1],
        )
        if flat.shape[1] > null.shape[1]:
            return flat, float(np.sqrt(FLAT_RTOL))
    return null, PART_RTOL


def _flat_at(
    system: PenalizedSystem, found: list[Generator], phi: Vector, *, reml: bool
) -> Matrix:
    """Return directions (g + 1, r) that the average information at phi hardly sees."""
    lambdas = system.chart.lambdas(phi)
    values, vectors = np.linalg.eigh(average_information(system, found, lambdas, project=reml))
    flat = vectors[:, values <= FLAT_RTOL]
    return np.vstack([flat, np.zeros(flat.shape[1])])


def require_residuals_apart(system: PenalizedSystem) -> None:
    """Refuse random effects that cannot be told from the residuals, such as one for each row.

    Raises
    ------
    DataError : a combination of the random effects' covariances is that of the residuals.
    """
    if system.known or (system.held is not None and system.held.sigma is not None):
        return
    products = system.products
    n, q = products.n, products.blocks.q
    if n > products.p + q:
        return  # rows are left that no effect reaches
    judged = identification(system, reml=False, residuals=False)
    if judged.residual:
        return
    variance = "variance" if len(judged.involved) == 1 else "variances"
    raise DataError(
        f"the {variance} of {joined(judged.involved)} cannot be told from that of the residuals: "
        f"{q} random effects for {n} rows; remove the term, or use a coarser grouping factor or "
        "fewer columns"
    )


def _directions_of_known(system: PenalizedSystem, *, reml: bool) -> tuple[Direction, ...]:
    """Describe the directions that move variances of levels with a known covariance."""
    found = generators(system, known=True)
    free = system.held is None or system.held.sigma is None
    null: Matrix | None = system.judged.get((reml, "known"))
    if null is None:
        null = unseen_beside_known(system, found, reml=reml and system.p > 0, with_sigma=free)
        system.judged[reml, "known"] = null
    return tuple(
        replace(_direction(system, found, c, None, PART_RTOL), settled=False) for c in null.T
    )


def _directions_of_residuals(system: PenalizedSystem, *, reml: bool) -> tuple[Direction, ...]:
    """Describe the directions that move the parameters of a residual structure."""
    whitened = system.whitened
    assert whitened is not None
    hidden = hidden_in(system, reml=reml)
    found = generators(system, known=True)
    out = []
    g, slopes = len(found), whitened.law.natural(whitened.rho)[1]
    for c, within in zip(hidden.changes.T, hidden.within, strict=True):
        rho = slopes @ c[g:-1]
        one = _direction(system, found, np.delete(c, slice(g, -1)), None, PART_RTOL, within)
        out.append(replace(one, rho=rho, settled=False))
    return tuple(out)


def hidden_in(system: PenalizedSystem, *, reml: bool) -> Hidden:
    """Return the directions that move the parameters of a residual structure, and not the law."""
    whitened = system.whitened
    assert whitened is not None
    if whitened.hidden is not None:
        return whitened.hidden
    hidden: Hidden | None = system.judged.get((reml, "residuals"))
    if hidden is None:
        free = system.held is None or system.held.sigma is None
        hidden = hidden_directions(
            whitened, generators(system, known=True), partial(half_known, system),
            reml=reml and system.p > 0, with_sigma=free,
        )  # fmt: skip
        system.judged[reml, "residuals"] = hidden
    return hidden


def _direction(
    system: PenalizedSystem,
    found: list[Generator],
    c: Vector,
    scale: Vector | None,
    tolerance: float,
    within: Matrix | None = None,
) -> Direction:
    """Describe the direction c (g + 1,) of the variance parameters.

    Parameters
    ----------
    scale : (g + 1,) units in which parts of less than `tolerance` are none; None where they have
        been taken out.
    within : (p, p) what the residuals' parameters, which move too, add to Q'G_c Q.
    """
    chart = system.chart
    if scale is not None:
        c = c / np.abs(c * scale).max()
        c = np.where(np.abs(c * scale) > tolerance, c, 0.0)
    covariances = [np.zeros((t.k, t.k)) for t in chart.templates]
    merged = [np.zeros((K, K)) for K in chart.widths]
    for value, generator in zip(c[:-1], found, strict=True):
        covariances[generator.term] += value * generator.E
        merged[generator.factor] += value * generator.merged
    inverses = [np.linalg.inv(Rz) for Rz in chart.Rz]
    sigma_sq = float(c[-1])
    # G_c Q = Z (E R) + sigma_sq Q
    R = [f.ztx[:, :, :-1] for f in system.products.blocks.factors]
    ER = [times_known(system, f, np.matmul(E, r))
          for f, (E, r) in enumerate(zip(merged, R, strict=True))]  # fmt: skip
    p = system.p
    D = sigma_sq * np.eye(p)
    size = abs(sigma_sq)
    for r, er in zip(R, ER, strict=True):
        D += level_rows(r).T @ level_rows(er)
        size += float(np.sqrt((r * r).sum() * (er * er).sum()))
    if within is not None:
        D += within
        size += float(np.abs(within).max(initial=0.0))
    D = np.where(np.abs(D) > tolerance * size, D, 0.0)
    if within is None:
        moves = _moves_beta(system, ER, sigma_sq, D) > tolerance * size**2
    else:  # only what fixed effects hide can move them
        moves = bool(D.any())
    return Direction(
        covariances=tuple(
            inverse @ change @ inverse.T
            for inverse, change in zip(inverses, covariances, strict=True)
        ),
        sigma_sq=sigma_sq,
        rho=np.zeros(0),
        lost_in_fixed=bool(D.any()),
        cov_beta=D,
        moves_beta=moves,
    )


def _moves_beta(system: PenalizedSystem, ER: list[Array3], sigma_sq: float, D: Matrix) -> float:
    """Return |P G_c Q|^2, (Q'G_c)(G_c Q) less its part in Q."""
    p = system.p
    AER = system.engine.multiply(ER)
    beyond = sum(
        (level_rows(er).T @ level_rows(a) for er, a in zip(ER, AER, strict=True)),
        np.zeros((p, p)),
    )
    beyond = beyond + 2.0 * sigma_sq * D - sigma_sq**2 * np.eye(p) - D @ D
    return float(np.trace(beyond))


def _term_text(system: PenalizedSystem, t: int) -> str:
    """Write a random term as a formula has it."""
    term = system.matrices.terms[t]
    names = ["1" if name == "(Intercept)" else name for name in term.column_names]
    if "1" not in names:
        names.insert(0, "0")
    if len(names) > MAX_NAMED:
        names[MAX_NAMED - 1 :] = ["..."]
    text = f"{' + '.join(names)} | {system.matrices.factors[term.factor].label}"
    return structure_class(term.structure).written(text)
