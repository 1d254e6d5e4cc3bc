"""One adapter for each Python package: from a job and a data frame to a fit.

An adapter checks that the package can fit the job's model, then returns a function without
arguments that does the whole work from formula (or design) and data frame to a fit with
coefficients, and says what criterion it reached. Imports are inside the adapters: no package has to
be installed for the others to run.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.jobs import Job, Term


@dataclass(frozen=True)
class Outcome:
    """What a fit reached.

    Parameters
    ----------
    criterion : REML criterion or ML deviance as lme4 defines them; None where the package does not
        compute that of the job.
    coefficients : fixed effects, in the package's order.
    note : what a reader of the table must know.
    needed : bytes that the fit cannot do without: the columns it reads, and twice the Schur
        complement. None where it is not known.
    """

    criterion: float | None
    coefficients: list[float]
    note: str = ""
    needed: float | None = None


Fit = Callable[[], Outcome]


class UnsupportedError(Exception):
    """The package has no such model."""


def prepare(tool: str, job: Job, frame: pd.DataFrame, options: dict[str, Any]) -> Fit:
    """Return the function that fits.

    Raises
    ------
    UnsupportedError : the package has no such model.
    """
    return _ADAPTERS[tool](job, frame, dict(options))


def _mixlm(job: Job, frame: pd.DataFrame, options: dict[str, Any]) -> Fit:
    import mixlm_sparse as mx

    # None is what a user has: numba is loaded, and kernels are compiled, when that pays
    mx.use_compiled(options.pop("compiled", None))
    lmer = mx.lmer  # loads what it needs: importing is nobody's first call

    def fit() -> Outcome:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", mx.MixedModelWarning)
            result = lmer(
                job.formula,
                frame,
                reml=job.reml,
                weights=job.weights,
                offset=job.offset,
                contrasts=job.contrasts or None,
                **options,
            )
        needed = read + 2.0 * _schur_bytes(result.system.engine)
        return Outcome(float(result.criterion), result.fixef.tolist(), needed=needed)

    read = float(
        sum(frame[c].memory_usage(index=False, deep=True) for c in frame if c in job.formula)
    )
    return fit


def _schur_bytes(engine: Any) -> float:
    """Return the size of the Schur complement that an engine factors."""
    from mixlm_sparse.engines.deferred import DeferredEngine

    if isinstance(engine, DeferredEngine):  # of few numbers, and the fit has not made it
        return 0.0
    order = getattr(engine, "dense_order", 0)
    if order:
        return 8.0 * order * order
    tree = getattr(getattr(getattr(engine, "_schur", None), "_cholesky", None), "tree", None)
    return 8.0 * tree.nnz if tree is not None else 0.0


def _no_extras(job: Job, *allowed: str) -> None:
    for name in ("weights", "offset", "contrasts"):
        if getattr(job, name) and name not in allowed:
            raise UnsupportedError(f"{name} are not part of this adapter")


def _mixedlm(job: Job, frame: pd.DataFrame, options: dict[str, Any]) -> Fit:
    import mixedlm

    _no_extras(job, "weights", "offset")

    def fit() -> Outcome:
        result = mixedlm.lmer(
            job.formula, frame, REML=job.reml, weights=job.weights, offset=job.offset
        )
        criterion = result.REMLcrit if job.reml else result.deviance
        return Outcome(
            float(criterion() if callable(criterion) else criterion),
            np.asarray(result.beta, float).tolist(),
        )

    return fit


def _with_product_columns(job: Job, frame: pd.DataFrame) -> tuple[str, pd.DataFrame, str]:
    """Return formula, data and a note for packages without interactions in random terms.

    The product of two numeric columns becomes a column of its own; that is not part of the time.
    """
    products = {s for term in job.terms or () for s in term.slopes if ":" in s}
    formula, note = job.formula, ""
    for product in sorted(products):
        left, right = product.split(":")
        column = f"{left}_{right}"
        formula = formula.replace(f"{left}*{right}", f"{left} + {right} + {column}")
        frame = frame.assign(**{column: frame[left] * frame[right]})
        note = f"{product} given as a column"
    return formula, frame, note


def _glmm(job: Job, frame: pd.DataFrame, options: dict[str, Any]) -> Fit:
    import glmm

    _no_extras(job)
    formula, frame, note = _with_product_columns(job, frame)

    def fit() -> Outcome:
        # Satterthwaite's degrees of freedom are left out: nobody else computes them in the fit.
        result = glmm.fit(frame, formula, reml=job.reml, satterthwaite=False)
        return Outcome(-2 * float(result.loglik), np.asarray(result.beta, float).tolist(), note)

    return fit


def _lme_python(job: Job, frame: pd.DataFrame, options: dict[str, Any]) -> Fit:
    import lme_python

    _no_extras(job)
    formula, frame, note = _with_product_columns(job, frame)

    def fit() -> Outcome:
        result = lme_python.lmer(formula, frame, reml=job.reml)
        return Outcome(-2 * float(result.log_likelihood), list(result.coefficients), note)

    return fit


def _terms(job: Job) -> tuple[Term, ...]:
    if job.terms is None:
        raise UnsupportedError("needs the random terms apart from the formula")
    return job.terms


def _level_names(frame: pd.DataFrame, term: Term) -> pd.Series:
    """Return the levels of a term as one column of text."""
    names = frame[term.groups[0]].astype(str)
    for column in term.groups[1:]:
        names = names + ":" + frame[column].astype(str)
    return names


def _gpboost(job: Job, frame: pd.DataFrame, options: dict[str, Any]) -> Fit:
    import gpboost
    import patsy

    _no_extras(job)
    terms = _terms(job)
    if any(term.slopes for term in terms):
        raise UnsupportedError("no correlated random slopes")

    def fit() -> Outcome:
        groups = np.column_stack([_level_names(frame, term) for term in terms])
        y, X = patsy.dmatrices(job.fixed, frame)
        model = gpboost.GPModel(
            group_data=groups, likelihood="gaussian", num_parallel_threads=options["threads"]
        )
        model.fit(y=np.asarray(y).ravel(), X=np.asarray(X))
        coefficients = np.asarray(model.get_coef(), float)[0].tolist()
        likelihood = 2 * float(model.get_current_neg_log_likelihood())
        if job.reml:
            return Outcome(None, coefficients, "ML (it has no REML)")
        return Outcome(likelihood, coefficients)

    return fit


# Its variance components outside one grouping factor make dense matrices of all rows.
STATSMODELS_MAX_DENSE_ROWS = 1000


def _statsmodels(job: Job, frame: pd.DataFrame, options: dict[str, Any]) -> Fit:
    import statsmodels.formula.api as smf

    _no_extras(job)
    terms = _terms(job)
    arguments: dict[str, Any]
    one_column = frame
    if len(terms) == 1:
        (term,) = terms
        arguments = {"groups": term.groups[0], "re_formula": "~ " + " + ".join(("1", *term.slopes))}
        if len(term.groups) > 1:
            raise UnsupportedError("an interaction as the only grouping factor")
    else:
        if any(term.slopes for term in terms):
            raise UnsupportedError("random slopes in more than one term")
        if len(frame) > STATSMODELS_MAX_DENSE_ROWS:
            raise UnsupportedError("several terms make a dense matrix of all rows")
        # All rows as one group, each term as a variance component, as its documentation advises.
        one_column = frame.assign(all_rows=1)
        arguments = {
            "groups": "all_rows",
            "re_formula": "0",
            "vc_formula": {
                ":".join(t.groups): "0 + " + ":".join(f"C({g})" for g in t.groups) for t in terms
            },
        }

    def fit() -> Outcome:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = smf.mixedlm(job.fixed, one_column, **arguments).fit(reml=job.reml)
        return Outcome(-2 * float(result.llf), result.fe_params.tolist())

    return fit


def _mixedlm_rs(job: Job, frame: pd.DataFrame, options: dict[str, Any]) -> Fit:
    import mixedlm_rs

    _no_extras(job)
    terms = _terms(job)
    if len(terms) > 1 or len(terms[0].groups) > 1:
        raise UnsupportedError("one grouping factor only")
    (term,) = terms

    def fit() -> Outcome:
        model = mixedlm_rs.mixedlm(
            job.fixed,
            frame,
            groups=term.groups[0],
            re_formula="~ " + " + ".join(("1", *term.slopes)),
        )
        result = model.fit(reml=job.reml)
        return Outcome(-2 * float(result.llf), np.asarray(result.fe_params).tolist())

    return fit


_ADAPTERS: dict[str, Callable[[Job, pd.DataFrame, dict[str, Any]], Fit]] = {
    "mixlm_sparse": _mixlm,
    "mixedlm": _mixedlm,
    "glmm": _glmm,
    "lme_python": _lme_python,
    "gpboost": _gpboost,
    "statsmodels": _statsmodels,
    "mixedlm_rs": _mixedlm_rs,
}

_DISTRIBUTIONS = {
    "mixlm_sparse": "mixlm-sparse", "lme_python": "lme-python", "mixedlm_rs": "mixedlm-rs",
}  # fmt: skip


def installed() -> dict[str, str]:
    """Return package -> version of those that this interpreter has."""
    versions = {}
    for package in _ADAPTERS:
        if importlib.util.find_spec(package) is None:
            continue
        try:
            versions[package] = importlib.metadata.version(_DISTRIBUTIONS.get(package, package))
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed, from its source folder"
    return versions
