"""The design of a fit to an archive and back, with its rows or without."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import Any

import numpy as np

from mixlm_sparse.common.errors import (
    SavedFitError,
)
from mixlm_sparse.design.columns import ArrayColumns, ColumnSource, Part
from mixlm_sparse.design.grouping import GroupingFactor, MemberFactor
from mixlm_sparse.design.levels import level_labels
from mixlm_sparse.design.matrices import ModelMatrices, RandomTerm
from mixlm_sparse.design.members import Members
from mixlm_sparse.design.recipe import FormulaRecipe
from mixlm_sparse.design.saved import factor_from_dict, factor_to_dict
from mixlm_sparse.model.rowless import (
    SAVED,
    SUMMED,
    AbsentColumns,
    AbsentValues,
    FactorWithoutRows,
    MatricesWithoutRows,
    Reason,
)
from mixlm_sparse.model.saved.archive import Archive, Arrays
from mixlm_sparse.model.saved.members import members_from, members_to
from mixlm_sparse.model.saved.parts import (
    whole,
)
from mixlm_sparse.solve.products.final import Products
from mixlm_sparse.solve.rows import InMemory

__all__ = ["matrices_to", "require_same", "rows_to", "stored_matrices"]

# The response given to `load` may differ from that of the fit by the rounding of a text file, and
# its length by that of sums over rows whose weights range over many orders.
SAME_RESPONSE_RTOL = 1e-7


def matrices_to(matrices: ModelMatrices, arrays: Arrays) -> dict[str, Any]:
    """Return the design without its rows; weights and offset belong to the model and stay."""
    absent = []
    for name in ("weights", "offset"):
        values: Any = getattr(matrices, name)
        if isinstance(values, AbsentValues):
            absent.append(name)
        elif values is not None:
            arrays[name] = values
    about: dict[str, Any] = {
        "absent": absent,
        "summed": isinstance(matrices, MatricesWithoutRows) and matrices.why is not SAVED,
        "response": matrices.response_name,
        "nobs": matrices.nobs,
        "n_input": matrices.n_input,
        "na_action": matrices.na_action,
        "fixed": list(matrices.fixed.names),
        "terms": [
            {
                "name": term.name,
                "factor": term.factor,
                "columns": list(term.column_names),
                "structure": term.structure,
            }
            for term in matrices.terms
        ],
        "factors": [{"label": f.label, "n_levels": f.n_levels} for f in matrices.factors],
        "spec": None if matrices.spec is None else matrices.spec.to_dict(),
    }
    if matrices.spec is None:
        for saved, factor in zip(about["factors"], matrices.factors, strict=True):
            saved["levels"] = list(factor.levels)  # what reads no tables reads these
            saved["tables"] = factor_to_dict(factor)["tables"]
    return about


def rows_to(matrices: ModelMatrices, arrays: Arrays) -> None:
    """Add response, columns and codes to `arrays`."""
    arrays["y"] = matrices.y
    arrays["X"] = matrices.X
    everything = slice(0, matrices.nobs)
    for t, term in enumerate(matrices.terms):
        arrays[f"Z.{t}"] = term.columns.block(everything)
    for g, factor in enumerate(matrices.factors):
        levels = factor.row_levels
        if isinstance(levels, Members):
            arrays |= members_to(levels, f"codes.{g}")
        else:
            assert isinstance(levels, np.ndarray)
            arrays[f"codes.{g}"] = levels
    if matrices.rows is not None:
        arrays["rows"] = matrices.rows


def require_same(
    about: Mapping[str, Any],
    matrices: ModelMatrices,
    products: Products,
    archive: Archive,
    *,
    given: bool,
) -> None:
    """Raise a SavedFitError unless the design evaluated is that of the fit."""
    found: list[tuple[str, Any, Any]] = [
        ("rows", matrices.nobs, about["nobs"]),
        ("columns of the fixed part", list(matrices.fixed.names), about["fixed"]),
        (
            "levels",
            [{"label": f.label, "n_levels": f.n_levels} for f in matrices.factors],
            [{"label": f["label"], "n_levels": f["n_levels"]} for f in about["factors"]],
        ),
    ]
    for what, have, want in found:
        if have != want:
            if given:
                raise SavedFitError(
                    f"the data do not go with the saved fit: {what} {have}, in the fit {want}: "
                    "give the data that the model was fitted to"
                )
            raise archive.broken(f"{what} {have} instead of {want}")
    rows = InMemory.of(replace(matrices, law=None)).whole()
    length = float(np.sqrt((rows.target * rows.weighted(rows.target)).sum()))
    if not math.isclose(length, products.y_length, rel_tol=SAME_RESPONSE_RTOL):
        if given:
            raise SavedFitError(
                "the data do not go with the saved fit: they have another response; give the data "
                "that the model was fitted to"
            )
        raise archive.broken("the response is not that of the fit")


def stored_matrices(
    about: Mapping[str, Any],
    archive: Archive,
    env: Mapping[str, Callable[..., Any]],
    *,
    with_rows: bool,
    known: Mapping[str, Any],
) -> ModelMatrices:
    n, n_input = (whole(about[name], archive, name) for name in ("nobs", "n_input"))
    spec = None if about["spec"] is None else FormulaRecipe.from_dict(about["spec"], env)
    if spec is not None:
        _require_recipe(spec, about, archive)
    why = SUMMED if about.get("summed") else SAVED
    factors = []
    for g, saved in enumerate(about["factors"]):
        if spec is None:
            typed = {"label": "", "n_levels": 0, "tables": [saved["levels"]], "keys": None, **saved}
            tables, keys = factor_from_dict(typed).tables, None
            if [len(table) for table in tables] != [saved["n_levels"]]:
                raise archive.broken(f"the levels of {saved['label']} are incomplete")
        else:
            tables, keys = spec.factors[g].known.tables, spec.factors[g].known.keys
        if with_rows:
            label, levels = saved["label"], saved["n_levels"]
            if f"codes.{g}" in archive:
                codes = archive.positions(f"codes.{g}", n, levels)
                factors.append(GroupingFactor(label, codes, levels, tables, keys, known.get(label)))
            else:
                members = members_from(f"codes.{g}", n, levels, archive)
                none = np.empty(0, dtype=np.int32)
                factors.append(
                    MemberFactor(label, none, levels, tables, keys, known.get(label), members)
                )
        else:
            factors.append(_absent_factor(saved, tables, keys, known.get(saved["label"]), why))

    def columns(name: str, names: list[str]) -> ColumnSource:
        if not with_rows:
            return AbsentColumns(tuple(names), why)
        return ArrayColumns(tuple(names), archive.numbers(name, n, len(names)))

    terms = tuple(
        RandomTerm(
            name=saved["name"],
            factor=saved["factor"],
            column_names=tuple(saved["columns"]),
            structure=saved["structure"],
            columns=columns(f"Z.{t}", saved["columns"]),
            places=None if spec is None else spec.terms[t].part.places,
        )
        for t, saved in enumerate(about["terms"])
    )
    matrices = ModelMatrices(
        y=archive.numbers("y", n) if with_rows else np.empty(0),
        fixed=columns("X", about["fixed"]),
        factors=tuple(factors),
        terms=terms,
        weights=_row_values("weights", about, archive, n),
        offset=_row_values("offset", about, archive, n),
        nobs=n,
        n_input=n_input,
        rows=archive.positions("rows", n, n_input) if "rows" in archive else None,
        na_action=about["na_action"],
        response_name=about["response"],
        spec=spec,
    )
    if with_rows:
        return matrices
    values = {item.name: getattr(matrices, item.name) for item in fields(ModelMatrices)}
    return MatricesWithoutRows(**values, why=why)


def _absent_factor(
    saved: Mapping[str, Any], tables: Any, keys: Any, known: Any, why: Reason
) -> GroupingFactor:
    none = np.empty(0, dtype=np.int32)
    return FactorWithoutRows(saved["label"], none, saved["n_levels"], tables, keys, known, why)


def _row_values(name: str, about: Mapping[str, Any], archive: Archive, n: int) -> Any:
    """Return weights or offset: numbers, a word that they are not there, or None."""
    if name in archive:
        return archive.numbers(name, n)
    return AbsentValues(SUMMED) if name in about.get("absent", ()) else None


def _require_recipe(spec: FormulaRecipe, about: Mapping[str, Any], archive: Archive) -> None:
    """Raise a SavedFitError unless the recipe makes the columns and levels of the fit."""
    names = [list(spec.fixed.names), *(list(term.part.names) for term in spec.terms)]
    if any(not 0 <= term.factor < len(spec.factors) for term in spec.terms):
        raise archive.broken("a term of the recipe has no grouping factor")
    levels = [(f.known.label, f.known.n_levels) for f in spec.factors]
    if names != [about["fixed"], *(term["columns"] for term in about["terms"])] or levels != [
        (f["label"], f["n_levels"]) for f in about["factors"]
    ]:
        raise archive.broken("the recipe of the columns is another")
    for part in (spec.fixed, *(term.part for term in spec.terms)):
        _require_part(part, archive)
    for f in spec.factors:
        if any(len(set(level_labels(table))) != len(table) for table in f.known.tables):
            raise archive.broken(f"levels of {f.label} occur twice")
        if len(f.known.tables) != len(f.components):
            raise archive.broken(f"the levels of {f.label} are incomplete")
        sizes = [len(table) for table in f.known.tables]
        count = sizes[0] if f.known.keys is None else len(f.known.keys)
        out_of_range = f.known.keys is not None and not (
            (f.known.keys >= 0) & (f.known.keys < math.prod(sizes))
        ).all()
        if count != f.known.n_levels or out_of_range:
            raise archive.broken(f"the levels of {f.label} are incomplete")


def _require_part(part: Part, archive: Archive) -> None:
    """Raise a SavedFitError unless the columns of a part are those of its terms."""
    assign = [0] * part.intercept
    for i, term in enumerate(part.terms, 1):
        assign += [i] * math.prod(len(operand.names) for operand in term)
        for operand in term:
            labels, table = operand.levels, operand.table
            if not all(isinstance(label, str) for label in labels) or len(set(labels)) != len(
                labels
            ):
                raise archive.broken("levels of the recipe occur twice, or are no text")
            shape = len(labels), len(operand.names)
            if table is not None and not (table.shape == shape and np.isfinite(table).all()):
                raise archive.broken("the codes of the levels of the recipe are incomplete")
        if not term:
            raise archive.broken("a term of the recipe names nothing")
    if list(part.assign) != assign or len(part.term_labels) != len(part.terms):
        raise archive.broken("the columns of the recipe are not those of its terms")
    if len(part.names) != len(assign):
        raise archive.broken("the names of the columns of the recipe are incomplete")
