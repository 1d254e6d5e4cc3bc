"""A fitted model to an archive and back.

What is stored: the formula and the recipe of its columns, the theta-free products, the optimum, the
options, the messages; and the columns of the data, unless they are to be left out.  The solution is
computed anew from theta, which takes one factorization.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from mixlm_sparse.common.checks import require_one_of, require_path
from mixlm_sparse.common.errors import (
    DataError,
    EngineError,
    FormulaError,
    MissingPackageError,
    OptionError,
    SavedFitError,
)
from mixlm_sparse.design.matrices import ModelMatrices
from mixlm_sparse.engines.choose import make_engine
from mixlm_sparse.engines.names import ENGINES
from mixlm_sparse.model.base import fit_of
from mixlm_sparse.model.call import FitOptions, ModelCall
from mixlm_sparse.model.data import held_call
from mixlm_sparse.model.fitted import FittedModel
from mixlm_sparse.model.rowless import MatricesWithoutRows, NoRows, with_parts
from mixlm_sparse.model.rowless_residuals import LawWithoutRows
from mixlm_sparse.model.run import matrices_of
from mixlm_sparse.model.saved.archive import Archive, Arrays, write_archive
from mixlm_sparse.model.saved.call import call_from, call_to, require_functions
from mixlm_sparse.model.saved.check import (
    require_consistent,
    require_point,
    require_rows,
    require_solution,
    require_sums_of_columns,
    require_weights,
)
from mixlm_sparse.model.saved.design import (
    matrices_to,
    require_same,
    rows_to,
    stored_matrices,
)
from mixlm_sparse.model.saved.frame import (
    part_of_data,
)
from mixlm_sparse.model.saved.kept import Keeper, kept_from, kept_to
from mixlm_sparse.model.saved.known import known_from, known_to
from mixlm_sparse.model.saved.parts import (
    held_from,
    held_to,
    notes_from,
    optimum_from,
    optimum_to,
    options_from,
    options_to,
    products_from,
    products_to,
)
from mixlm_sparse.model.saved.residuals import (
    curvature_from,
    curvature_to,
    law_from,
    law_rows_to,
    require_hidden,
    residuals_to,
    rho_from,
    rho_to,
    whitened_from,
)
from mixlm_sparse.model.saved.schema import require_fit_form
from mixlm_sparse.model.saved.separated import separated_from, separated_to
from mixlm_sparse.model.saved.structure import structure_to
from mixlm_sparse.solve.products.final import Products
from mixlm_sparse.solve.solution import PlsSolution
from mixlm_sparse.solve.system import PenalizedSystem, penalized_system, penalties_of

__all__ = ["FORMAT_VERSION", "load_fit", "write_fit"]

FORMAT = "mixlm_sparse.api.lmer"
FORMAT_VERSION = 3  # 2 brought checksums, 3 residual structures without columns of data
WITHOUT_STRUCTURE = 2  # what else is written as before, so that earlier versions read it

F = TypeVar("F", bound=FittedModel)


def write_fit(
    fit: FittedModel,
    path: str | os.PathLike[str],
    *,
    include_data: bool,
    keepers: Sequence[Keeper] = (),
) -> None:
    """Write the file of a fit; see `api.save`.

    Parameters
    ----------
    keepers : of what is computed of the rows where these are left out.
    """
    structure = structure_to(fit)
    arrays: Arrays = {}
    optimum = replace(fit.optimum, rho=rho_to(fit.matrices.law, fit.optimum.rho))
    document: dict[str, Any] = {
        "format": FORMAT,
        "version": WITHOUT_STRUCTURE,
        "formula": fit.formula,
        "matrices": matrices_to(fit.matrices, arrays),
        "products": products_to(fit.system.products, arrays),
        "engine": fit.system.engine.name,
        "optimum": optimum_to(optimum, arrays),
        "options": options_to(fit.options),
        "notes": [{"category": kind.__name__, "text": text} for kind, text in fit.notes],
        "call": None,
        "data": None,
    }
    if structure is not None:
        document["structure"] = structure
    if fit.system.held is not None:
        document["held"] = held_to(fit.system.held)
    if fit.system.known:
        document["known"] = known_to(fit.matrices.factors, arrays)
    has_rows = not isinstance(fit.matrices, MatricesWithoutRows)
    include_data = include_data and has_rows
    apart = None if include_data else separated_to(fit, arrays)
    if apart is not None:
        document["apart"] = apart
    without = fit.matrices.law is not None and not include_data
    if without:
        document["version"] = FORMAT_VERSION
        document["residuals"] = residuals_to(fit, arrays)
        curvature_to(fit, arrays)
    if not include_data:
        document["kept"] = kept_to(fit, keepers, arrays)
    if fit.sigma > 0.0 and (has_rows or "residual_quantiles" in vars(fit)):
        arrays["residual_quantiles"] = fit.residual_quantiles
    if fit.call is not None:
        document["call"] = call_to(fit.matrices, fit.call, document, arrays, include_data)
    elif include_data:
        rows_to(fit.matrices, arrays)
        document["data"] = "matrices"
        if fit.matrices.law is not None:
            document |= {"version": FORMAT_VERSION, "residuals": residuals_to(fit, arrays)}
            law_rows_to(fit.matrices.law, arrays)
    if apart is not None or without:
        _require_to_load(fit, document, arrays, keepers)
    write_archive(path, document, arrays)


def _require_to_load(
    fit: FittedModel, document: Mapping[str, Any], arrays: Arrays, keepers: Sequence[Keeper]
) -> None:
    """Raise an OptionError where sums stand for rows of which they have too few digits."""
    env = None if fit.call is None else fit.call.env
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "fit")
        write_archive(path, document, arrays)
        try:
            load_fit(path, type(fit), env=env, keepers=keepers)
        except SavedFitError:
            raise OptionError(
                "sums of the rows have too few digits to stand for the rows of this fit (weights "
                "or columns that differ by many orders, beside as many random effects as rows): "
                "save it with include_data=True"
            ) from None


def load_fit(
    path: str | os.PathLike[str],
    cls: type[F],
    *,
    data: Any = None,
    env: Mapping[str, Callable[..., Any]] | None = None,
    engine: str | None = None,
    keepers: Sequence[Keeper] = (),
) -> F:
    """Load a fit as an object of class `cls`; see `mx.load`."""
    archive = Archive(require_path("path", path))
    document = archive.document
    archive.require_format(FORMAT, FORMAT_VERSION, "is a saved fit", "fit.save(path)", part_of_data)
    if engine is not None:
        require_one_of("engine", engine, ENGINES)
    with archive.reading(EngineError, MissingPackageError):
        require_fit_form(document, archive)
        fit = _fit_from(document, archive, cls, data, env or {}, engine)
        if isinstance(fit.matrices, MatricesWithoutRows):
            kept_from(fit, document.get("kept") or {}, keepers, archive)
    return fit


def _fit_from(
    document: Mapping[str, Any],
    archive: Archive,
    cls: type[F],
    data: Any,
    env: Mapping[str, Callable[..., Any]],
    engine: str | None,
) -> F:
    options = options_from(document["options"])
    if engine is not None:
        options = replace(options, engine=engine).checked()
    products = products_from(document["products"], archive)
    require_functions(document, env)
    matrices, call = _matrices_from(document, archive, products, options, data, env)
    if document.get("held") is not None:  # the formula does not say in which form a term is held
        saved = document["matrices"]["terms"]
        terms = [
            replace(term, structure=about["structure"])
            for term, about in zip(matrices.terms, saved, strict=True)
        ]
        matrices = with_parts(matrices, terms=tuple(terms))
    name = document["engine"] if engine is None else engine
    name = name if name in ENGINES else "auto"  # "none", of a model without random effects
    law = matrices.law
    if law is None and document.get("residuals") is not None:
        law, state = law_from(document, matrices, archive)
        matrices = with_parts(matrices, law=law, residuals=state)
    if law is not None and not isinstance(law, LawWithoutRows):
        return _structured(
            document, archive, cls, matrices, call, name, options, given=data is not None
        )
    optimum = optimum_from(document["optimum"], archive)
    optimum = replace(optimum, rho=rho_from(law, optimum.rho))
    whitened = None
    if law is not None:
        whitened = whitened_from(document["residuals"], law, products, optimum, archive)
    try:
        made = make_engine(
            name, products.blocks, penalties_of(matrices), options.control.estimation
        )
    except EngineError as error:
        raise EngineError(f"{error}; or load the fit with engine='blocked'") from error
    has_rows = not isinstance(matrices, MatricesWithoutRows)
    system = PenalizedSystem(
        matrices=matrices,
        products=products,
        templates=tuple(term.template for term in matrices.terms),
        engine=made,
        may_fuse=options.engine == "auto",
        held=held_from(document.get("held")),
        separated=separated_from(document.get("apart"), products, archive),
        source=NoRows(products.n, matrices.why)
        if isinstance(matrices, MatricesWithoutRows)
        else None,
        whitened=whitened,
    )
    require_sums_of_columns(products, archive, whitened=whitened is not None)
    require_consistent(system, archive)
    require_weights(matrices, products, archive)
    require_point(system, optimum, archive)
    notes = notes_from(document["notes"])
    fit = fit_of(
        cls, system, optimum, options, document["formula"], call, notes=notes,
        # rows that are not there are not whitened again
        solution=None if whitened is None else PlsSolution(optimum.theta.copy(), system),
    )  # fmt: skip
    if "residual_quantiles" in archive:
        # a cached property: what is stored need not be computed, where the rows may be absent
        vars(fit)["residual_quantiles"] = archive.numbers("residual_quantiles", 5)
    require_solution(fit, archive)
    if whitened is not None:
        require_hidden(fit, archive)
        curvature_from(fit, archive)
    if has_rows:
        require_rows(fit, archive, given=data is not None)
    return fit


def _structured(
    document: Mapping[str, Any],
    archive: Archive,
    cls: type[F],
    matrices: ModelMatrices,
    call: ModelCall | None,
    engine: str,
    options: FitOptions,
    *,
    given: bool,
) -> F:
    """Return a fit with a residual structure, whose products are formed of its rows again."""
    system = penalized_system(matrices, engine)
    optimum = optimum_from(document["optimum"], archive)
    optimum = replace(optimum, rho=rho_from(matrices.law, optimum.rho))
    sizes = optimum.theta.shape, optimum.phi.shape, optimum.rho.shape
    if sizes != ((system.n_theta,), (system.n_theta,), (system.n_rho,)):
        raise archive.broken("the number of parameters is not that of the model")
    if not np.isfinite(optimum.rho).all():
        raise archive.broken("the parameters of the residuals are not finite")
    require_point(system, optimum, archive)
    notes = notes_from(document["notes"])
    fit = fit_of(cls, system, optimum, options, document["formula"], call, notes=notes)
    require_solution(fit, archive, given=given)
    require_rows(fit, archive, given=given)
    return fit


# ---------------------------------------------------------------------------------------------
# The design
# ---------------------------------------------------------------------------------------------


def _matrices_from(
    document: Mapping[str, Any],
    archive: Archive,
    products: Products,
    options: FitOptions,
    data: Any,
    env: Mapping[str, Callable[..., Any]],
) -> tuple[ModelMatrices, ModelCall | None]:
    about = document["matrices"]
    kind = document["data"]
    call = None
    if document["call"] is not None:
        call = call_from(document, archive, options, data, env)
    elif data is not None:
        raise SavedFitError(
            "this fit was made from matrices, without a formula, so that data= is of no use to it: "
            "load it without"
        )
    if kind == "frame" or (call is not None and data is not None):
        assert call is not None
        matrices, call = _evaluated(call, given=data is not None)
        require_same(about, matrices, products, archive, given=data is not None)
        return matrices, call
    known = known_from(document, archive) or {}
    return stored_matrices(about, archive, env, with_rows=kind == "matrices", known=known), call


def _evaluated(call: ModelCall, *, given: bool) -> tuple[ModelMatrices, ModelCall]:
    try:
        held = held_call(call)
        return matrices_of(held, warn=False), held  # the fit has warned when it was made
    except (DataError, FormulaError) as error:
        if given:
            raise SavedFitError(f"the data do not go with the saved fit: {error}") from error
        raise SavedFitError(f"the saved data do not go with the fit: {error}") from error
