"""From batches of rows to products: the passes over a source, its pieces in parallel threads."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mixlm_sparse.common.errors import DataError, OptionError
from mixlm_sparse.common.progress import CountProgress, counter
from mixlm_sparse.common.types import IntVector
from mixlm_sparse.design.batches.design import BatchArguments, BatchDesign, BatchRows, GroupCoder
from mixlm_sparse.design.batches.learn import Opened, learn_design, open_batches
from mixlm_sparse.design.batches.pieces import read_piece
from mixlm_sparse.design.batches.sources import Source
from mixlm_sparse.design.columns import Part
from mixlm_sparse.design.grouping import GroupingFactor
from mixlm_sparse.design.matrices import ModelMatrices, RandomTerm
from mixlm_sparse.design.recipe import FormulaRecipe
from mixlm_sparse.engines.threads import one_blas_thread
from mixlm_sparse.formula.parse import parse_formula
from mixlm_sparse.formula.syntax import Expr
from mixlm_sparse.formula.terms import MixedFormula
from mixlm_sparse.model.batches.rows import Batches, as_rows
from mixlm_sparse.model.call import ModelCall
from mixlm_sparse.model.rowless import (
    BATCHES,
    AbsentColumns,
    AbsentValues,
    FactorWithoutRows,
    MatricesWithoutRows,
    Reason,
)
from mixlm_sparse.solve.products.accumulate import CrossProducts
from mixlm_sparse.solve.products.basis import Basis
from mixlm_sparse.solve.products.batches import (
    BatchSums,
    Pairs,
    arranged,
    first_basis,
    settled,
    sums_of,
)

__all__ = ["Summed", "matrices_without_rows", "sum_batches"]

MOST_THREADS = 4
PIECES_AHEAD = 2  # pieces in memory for each thread: one worked on, one waiting


@dataclass(frozen=True, eq=False)
class Summed:
    """What the passes over a source have given."""

    matrices: ModelMatrices
    cross: CrossProducts
    rows: Batches


def sum_batches(
    call: ModelCall,
    source: Source,
    *,
    levels: Mapping[str, Any] | None = None,
    progress: CountProgress = False,
    threads: int | None = None,
) -> Summed:
    """Form the products of a model whose rows come in batches.

    One pass for levels of factors of the fixed part and for stateful transforms, if there are any;
    one for products, in which the levels of grouping factors are met.  A third only if a level of
    the fixed part occurs in no row that is used.

    Parameters
    ----------
    levels : levels of factors of the fixed part, by column.
    threads : how many work on pieces; by default one for each core, up to `MOST_THREADS`.
    """
    call.checked()
    if call.na_action == "exclude":
        raise OptionError(
            'na_action="exclude" pads results by row, which batches do not have: use "omit"; '
            "fit.stream() tells where the rows are"
        )
    formula = parse_formula(call.formula)
    arguments = BatchArguments.of(call.weights, call.offset, call.subset, call.na_action)
    opened = open_batches(source, formula, arguments)
    warn = call.options.control.warn
    without: dict[Expr, frozenset[str]] = {}
    while True:
        design = learn_design(
            opened, formula, arguments, contrasts=call.contrasts, env=call.env, levels=levels,
            without=without, warn=warn and not without,
        )  # fmt: skip
        with one_blas_thread():
            walk = _Walk(opened, design, threads or _cores(), progress)
            walk.run()
        unused = design.unused(walk.used)
        if not unused:
            return walk.summed()
        if not source.again:
            name, labels = next((str(expr), rest) for expr, rest in unused.items())
            raise DataError(
                f"no row that is used has the level {sorted(labels)[0]!r} of {name}, which shows "
                "only at the end, and the data can be read once only: give a function that "
                "returns the iterator anew"
            )
        without = {**without, **unused}


def _cores() -> int:
    try:
        count = len(os.sched_getaffinity(0))
    except AttributeError:  # not on this system
        count = os.cpu_count() or 1
    return min(count, MOST_THREADS)


@dataclass(eq=False)
class _Walk:
    """The pass in which products are formed."""

    opened: Opened
    design: BatchDesign
    threads: int
    progress: CountProgress
    used: dict[Expr, frozenset[str]] = field(default_factory=dict)
    done: int = 0

    def __post_init__(self) -> None:
        self.coder = GroupCoder(self.design.formula)
        self.pairs = Pairs(len(self.coder.labels))
        self.draft = _draft(self.design, self.coder)
        self.basis: Basis | None = None
        self.parts: list[BatchSums] = []
        self.n_input = 0
        self._began = time.monotonic()
        self._lock = threading.Lock()

    def run(self) -> None:
        """Walk over all pieces."""
        total = self.opened.source.known_rows or 0
        pieces = self.opened.pieces()
        with counter(self.progress, "reading", "rows") as report:
            for piece in pieces:  # until the first rows that are used: they give the basis
                batch = self._rows(piece)
                if batch is not None:
                    rows = as_rows(batch, batch.codes, range(len(self.draft.terms)))
                    self.basis = first_basis(self.draft, rows)
                    self.parts = [self._sums() for _ in range(self.threads)]
                    self.parts[0].add(rows, self.coder.sizes())
                    break
            self._go_on(report(self.n_input, total))
            if self.parts:
                self._rest(pieces, lambda: self._go_on(report(self.n_input, total)))
        if not self.parts:
            raise DataError(
                "no rows are left after dropping those with missing cells and those that subset "
                "leaves out: check the values and the condition"
            )

    def _rest(self, pieces: Iterator[Any], report: Any) -> None:
        # piece i belongs to thread i modulo their number, so that sums do not depend on chance
        pools = [ThreadPoolExecutor(1) for _ in self.parts]
        waiting: list[Future[None]] = []
        try:
            for i, piece in enumerate(pieces, 1):
                which = i % len(pools)
                waiting.append(pools[which].submit(self._add, piece, which))
                if len(waiting) >= PIECES_AHEAD * len(pools):
                    waiting.pop(0).result()
                    report()
            for future in waiting:
                future.result()
                report()
        finally:
            for pool in pools:
                pool.shutdown(cancel_futures=True)

    @staticmethod
    def _go_on(wanted: bool) -> None:
        if not wanted:
            raise KeyboardInterrupt

    def _sums(self) -> BatchSums:
        assert self.basis is not None
        return BatchSums(self.draft, self.basis, self.pairs)

    def _add(self, piece: Any, which: int) -> None:
        batch = self._rows(piece)
        if batch is not None:
            rows = as_rows(batch, batch.codes, range(len(self.draft.terms)))
            self.parts[which].add(rows, self.coder.sizes())

    def _rows(self, piece: Any) -> BatchRows | None:
        table = read_piece(piece, self.opened.names, self.opened.optional)
        batch = self.design.rows(table, self.coder) if table.n else None
        with self._lock:
            self.n_input += table.n
            if batch is not None:
                for expr, labels in batch.used.items():
                    self.used[expr] = self.used.get(expr, frozenset()) | labels
        return batch

    def summed(self) -> Summed:
        """Return the sums, in the order and the basis that rows in memory would have."""
        cross = sums_of(self.parts, self.coder.sizes(), self.pairs)
        self.parts.clear()
        factors, places = self.coder.finish()
        spec = self.design.recipe(factors)
        term_places, factor_places = design_order(self.design, self.coder, spec)
        matrices = matrices_without_rows(spec, cross.n, self.n_input, self.design, BATCHES)
        cross = arranged(cross, matrices, term_places, factor_places, places)
        return Summed(
            matrices,
            settled(cross, matrices),
            Batches(
                cross.n, self.opened, self.design, self.coder, term_places, factor_places,
                tuple(places[old] for old in factor_places),
            ),
        )  # fmt: skip


def design_order(
    design: BatchDesign, coder: GroupCoder, spec: FormulaRecipe
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the places in the formula of the terms and factors of a recipe."""
    at = {id(part): place for place, part in enumerate(design.parts)}
    terms = tuple(at[id(term.part)] for term in spec.terms)
    return terms, tuple(coder.labels.index(factor.label) for factor in spec.factors)


def _draft(design: BatchDesign, coder: GroupCoder) -> ModelMatrices:
    """Return a design in the order of the formula, of which the levels are not known yet."""
    none = np.empty(0, dtype=np.int32)
    factors = tuple(GroupingFactor(label, none, 0) for label in coder.labels)
    terms = tuple(
        _term(part, coder.labels.index(label), label, random.structure, BATCHES)
        for part, label, random in zip(
            design.parts, coder.label_of_term, design.formula.random, strict=True
        )
    )
    return MatricesWithoutRows(
        y=np.empty(0),
        fixed=AbsentColumns(design.fixed.names, BATCHES),
        factors=factors,
        terms=terms,
        weights=None,
        offset=None,
        nobs=0,
        n_input=0,
        why=BATCHES,
    )


def _term(part: Part, factor: int, name: str, structure: str, why: Reason) -> RandomTerm:
    return RandomTerm(name, factor, part.names, structure, AbsentColumns(part.names, why))


def matrices_without_rows(
    spec: FormulaRecipe, n: int, n_input: int, design: Any, why: Reason
) -> ModelMatrices:
    """Return the design of a recipe whose rows are not held.

    Parameters
    ----------
    n, n_input : rows used, and rows of the data.
    design : what has the arguments `weights` and `offset` of the model.
    """
    none: IntVector = np.empty(0, dtype=np.int32)
    formula: MixedFormula = spec.formula
    absent: Any = AbsentValues(why)
    arguments = design.arguments
    has_offset = arguments.offset is not None or bool(formula.fixed.offsets)
    return MatricesWithoutRows(
        y=np.empty(0),
        fixed=AbsentColumns(spec.fixed.names, why),
        factors=tuple(
            FactorWithoutRows(f.label, none, f.known.n_levels, f.known.tables, f.known.keys, why)
            for f in spec.factors
        ),
        terms=tuple(
            _term(term.part, term.factor, term.name, term.structure, why) for term in spec.terms
        ),
        weights=None if arguments.weights is None else absent,
        offset=absent if has_offset else None,
        nobs=n,
        n_input=n,
        na_action=arguments.na_action,
        response_name=formula.response_name,
        spec=spec,
        why=why,
    )
