"""The sums of a model over rows, as a value: added, saved, loaded and fitted without the rows."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mixlm_sparse.common.checks import require_instance, require_path
from mixlm_sparse.common.errors import SavedFitError
from mixlm_sparse.common.keywords import answering_methods, answers_unknown_keywords
from mixlm_sparse.common.types import IntVector
from mixlm_sparse.design.batches.design import BatchArguments, BatchDesign
from mixlm_sparse.design.batches.merge import require_same_model, together
from mixlm_sparse.design.build import columns_asked
from mixlm_sparse.design.grouping import GroupingFactor
from mixlm_sparse.design.matrices import ModelMatrices
from mixlm_sparse.design.random_terms import term_order
from mixlm_sparse.design.saved import (
    expressions_by_text,
    factor_from_dict,
    factor_to_dict,
    part_from_dict,
    part_to_dict,
    state_from_dict,
    state_to_dict,
)
from mixlm_sparse.formula.parse import parse_formula
from mixlm_sparse.formula.syntax import deparse
from mixlm_sparse.formula.terms import group_labels
from mixlm_sparse.model.batches.check import require_sums
from mixlm_sparse.model.batches.without_rows import draft_matrices, matrices_without_rows
from mixlm_sparse.model.rowless import PRODUCTS, Reason
from mixlm_sparse.model.saved.archive import Archive, Arrays, write_archive
from mixlm_sparse.model.saved.parts import blocks_from, blocks_to, finite, whole
from mixlm_sparse.model.saved.schema import PRODUCTS_FORM, require_form
from mixlm_sparse.solve.products.accumulate import CrossProducts, merged_at
from mixlm_sparse.solve.products.arrange import arranged, settled
from mixlm_sparse.solve.products.basis import Basis, term_layout

__all__ = ["ModelProducts", "load_products"]

FORMAT = "mixlm_sparse.products"
FORMAT_VERSION = 2  # 2 brought checksums


@answering_methods
@dataclass(frozen=True, eq=False, repr=False)
class ModelProducts:
    """Everything that a fit needs of the rows: sums whose size does not depend on their number.

    Made by `mx.cross_products`; two of them, of one model, are added by `a + b`.

    Attributes
    ----------
    design : formula, arguments, columns and coding.
    factors : grouping factors in the order of the formula, without rows.
    cross : the sums, terms and factors in the order of the formula.
    n_input : rows of the data, used or not.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> sleepstudy = mx.datasets.load("sleepstudy")
    >>> formula = "Reaction ~ Days + (Days | Subject)"
    >>> levels = {"Subject": sorted(sleepstudy["Subject"].unique())}
    >>> a = mx.cross_products(formula, sleepstudy.iloc[:90], levels=levels)
    >>> b = mx.cross_products(formula, sleepstudy.iloc[90:], levels=levels)
    >>> (a + b).nobs, (a + b).ngroups
    (180, {'Subject': 18})
    """

    design: BatchDesign
    factors: tuple[GroupingFactor, ...]
    cross: CrossProducts
    n_input: int

    @property
    def formula(self) -> str:
        """The formula as text."""
        return self.design.formula.text

    @property
    def nobs(self) -> int:
        """Number of rows used."""
        return self.cross.n

    @property
    def ngroups(self) -> dict[str, int]:
        """Number of levels of each grouping factor."""
        return {factor.label: factor.n_levels for factor in self.factors}

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns of the fixed part."""
        return self.design.fixed.names

    def __repr__(self) -> str:
        groups = ", ".join(f"{label} {count}" for label, count in self.ngroups.items())
        return f"<products of {self.formula!r}: {self.nobs} rows, groups {groups}>"

    def __add__(self, other: ModelProducts) -> ModelProducts:
        """Return the products of the rows of both.

        Raises
        ------
        DataError : they are not of the same model, or are coded in different ways.
        """
        if not isinstance(other, ModelProducts):
            return NotImplemented
        require_same_model(self.design, other.design)
        found = [together(a, b) for a, b in zip(self.factors, other.factors, strict=True)]
        cross = merged_at(
            self.cross,
            other.cross,
            [at_a for _, at_a, _ in found],
            [at_b for _, _, at_b in found],
            [factor.n_levels for factor, _, _ in found],
        )
        return ModelProducts(
            self.design,
            tuple(factor for factor, _, _ in found),
            cross,
            self.n_input + other.n_input,
        )

    def __radd__(self, other: object) -> ModelProducts:
        return self if other == 0 else NotImplemented  # so that sum() works

    def in_model_order(
        self, why: Reason = PRODUCTS
    ) -> tuple[ModelMatrices, CrossProducts, tuple[int, ...], tuple[int, ...]]:
        """Return design and sums in lme4's order and the basis that rows in memory would have.

        Returns
        -------
        matrices, cross, and the places in the formula of the terms and of the factors.
        """
        spec = self.design.recipe({factor.label: factor for factor in self.factors})
        sizes = {factor.label: factor.n_levels for factor in self.factors}
        labels = list(sizes)
        # terms may have equal columns, so that they are told by their order alone
        terms = tuple(
            term_order([sizes[label] for label in group_labels(self.design.formula.random)])
        )
        factors = tuple(labels.index(factor.label) for factor in spec.factors)
        matrices = matrices_without_rows(spec, self.nobs, self.n_input, self.design.arguments, why)
        same: list[IntVector] = [np.arange(f.n_levels, dtype=np.int32) for f in self.factors]
        cross = arranged(self.cross, matrices, terms, factors, same)
        return matrices, settled(cross, matrices), terms, factors

    def save(self, path: str | os.PathLike[str]) -> None:
        """Save the products; `mx.load_products(path)` brings them back.

        The file is a zip archive of JSON and arrays, without pickle, and appears when it is
        complete.  It holds names and levels of all factors and, for each level, sums of products of
        columns: of a level with one row that is the row.

        Raises
        ------
        OSError : the file cannot be written.
        """
        arrays: Arrays = {"R": self.cross.R, "basis.R": self.cross.basis.R}
        arrays["basis.d"] = self.cross.basis.d
        arrays |= {f"Rz.{t}": R for t, R in enumerate(self.cross.basis.Rz)}
        design = self.design
        document = {
            "format": FORMAT,
            "version": FORMAT_VERSION,
            "formula": self.formula,
            "arguments": {
                role: getattr(design.arguments, role)
                for role in ("weights", "offset", "subset", "na_action")
            },
            "env": sorted(design.env),
            "given": sorted(design.given),
            "fixed": part_to_dict(design.fixed),
            "parts": [part_to_dict(part) for part in design.parts],
            "states": [
                {"call": deparse(call), **state_to_dict(state)}
                for call, state in design.states.items()
            ],
            "factors": [factor_to_dict(factor) for factor in self.factors],
            "n": self.nobs,
            "n_input": self.n_input,
            "log_weight_sum": self.cross.log_weight_sum,
            "blocks": blocks_to(self.cross.blocks, arrays),
        }
        write_archive(require_path("path", path), document, arrays)


@answers_unknown_keywords
def load_products(
    path: str | os.PathLike[str], *, env: Mapping[str, Callable[..., Any]] | None = None
) -> ModelProducts:
    """Load products that `products.save(path)` wrote.

    Parameters
    ----------
    path : of the file.
    env : the functions of the user that the formula calls, by name; a file holds no code.

    Raises
    ------
    SavedFitError : the file is something else, is broken or is of a later version.
    FileNotFoundError : there is no such file.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> sleepstudy = mx.datasets.load("sleepstudy")
    >>> products = mx.cross_products("Reaction ~ Days + (Days | Subject)", sleepstudy)
    >>> products.save("sleep.products")
    >>> round(mx.fit_products(mx.load_products("sleep.products")).criterion, 4)
    1743.6283
    """
    archive = Archive(require_path("path", path))
    saved = archive.document
    archive.require_format(FORMAT, FORMAT_VERSION, "holds products", "products.save(path)")
    with archive.reading():
        require_form(saved, archive, PRODUCTS_FORM)
        found = _products_from(saved, archive, dict(env or {}))
    return found


def _products_from(
    saved: Mapping[str, Any], archive: Archive, env: Mapping[str, Callable[..., Any]]
) -> ModelProducts:
    for name in saved["env"]:
        if name not in env:
            raise SavedFitError(
                f"the formula calls the function '{name}', and a file holds no code: pass it as "
                f"mx.load_products(path, env={{'{name}': function}})"
            )
    formula = parse_formula(saved["formula"])
    known = expressions_by_text(formula.expressions)
    arguments = BatchArguments(**saved["arguments"])
    names, optional = columns_asked(formula, arguments.given())
    states = {
        known[state["call"]]: state_from_dict({k: v for k, v in state.items() if k != "call"})
        for state in saved["states"]
    }
    design = BatchDesign(
        formula,
        arguments,
        {name: env[name] for name in saved["env"]},
        tuple(names),
        tuple(optional),
        states,
        part_from_dict(saved["fixed"], known),
        tuple(part_from_dict(part, known) for part in saved["parts"]),
        frozenset(saved["given"]),
    )
    factors = tuple(factor_from_dict(factor) for factor in saved["factors"])
    labels = list(dict.fromkeys(group_labels(formula.random)))
    if [f.label for f in factors] != labels or len(design.parts) != len(formula.random):
        raise archive.broken("its terms are not those of its formula")
    draft = draft_matrices(design, tuple(labels), PRODUCTS)
    layout = term_layout(draft)
    P = len(design.fixed.names) + 1
    blocks = blocks_from(saved["blocks"], layout, P, archive)
    for factor, block in zip(factors, blocks.factors, strict=True):
        size = len(factor.tables[0]) if factor.keys is None else len(factor.keys)
        cells = math.prod(len(table) for table in factor.tables)
        if factor.keys is not None and not ((factor.keys >= 0) & (factor.keys < cells)).all():
            raise archive.broken(f"the levels of {factor.label} are not there")
        if factor.n_levels != block.n_levels or factor.n_levels != size:
            raise archive.broken(f"the levels of {factor.label} are incomplete")
    basis = Basis(
        archive.numbers("basis.R", P - 1, P - 1),
        archive.numbers("basis.d", P - 1),
        tuple(archive.numbers(f"Rz.{t}", p.width, p.width) for t, p in enumerate(layout)),
    )
    if (np.diag(basis.R) == 0.0).any() or any((np.diag(R) == 0.0).any() for R in basis.Rz):
        raise archive.broken("its basis is singular")
    n, n_input = (whole(saved[name], archive, name) for name in ("n", "n_input"))
    if not 0 < n <= n_input:
        raise archive.broken(f"{n} rows of {n_input}")
    cross = CrossProducts(
        basis=basis,
        n=n,
        log_weight_sum=finite(saved["log_weight_sum"], archive, "log_weight_sum"),
        R=archive.numbers("R", P, P),
        blocks=blocks,
        layout=layout,
        levels=None,
    )
    require_sums(cross, archive)
    found = ModelProducts(design, factors, cross, n_input)
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        matrices = found.in_model_order()[0]  # as every use of them begins
    if any(term.template.k != len(term.column_names) for term in matrices.terms):
        raise archive.broken("the columns of a term are not those of its covariance")
    return found


def require_products(value: object) -> ModelProducts:
    """Return products, checked to be some."""
    return require_instance(
        "products", value, ModelProducts, "use mx.cross_products(formula, data)"
    )
