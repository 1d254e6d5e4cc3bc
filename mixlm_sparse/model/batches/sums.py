"""From batches of rows to products: the passes over a source, its pieces in parallel threads."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

from mixlm_sparse.common.errors import DataError, OptionError
from mixlm_sparse.common.progress import CountProgress, counter
from mixlm_sparse.common.types import IntVector
from mixlm_sparse.design.batches.cluster import Partitions, reduce_partitions
from mixlm_sparse.design.batches.design import BatchArguments, BatchDesign, BatchRows, GroupCoder
from mixlm_sparse.design.batches.learn import learn_design
from mixlm_sparse.design.batches.opened import Opened, open_batches
from mixlm_sparse.design.batches.pieces import read_piece
from mixlm_sparse.design.batches.sources import Frames, Source, batch_source
from mixlm_sparse.design.matrices import ModelMatrices
from mixlm_sparse.design.table import Table
from mixlm_sparse.design.texts import warn_of_levels
from mixlm_sparse.engines.threads import one_blas_thread
from mixlm_sparse.formula.parse import parse_formula
from mixlm_sparse.formula.syntax import Expr
from mixlm_sparse.formula.terms import MixedFormula
from mixlm_sparse.model.batches.products import ModelProducts
from mixlm_sparse.model.batches.rows import Batches, as_rows
from mixlm_sparse.model.batches.without_rows import draft_matrices
from mixlm_sparse.model.call import ModelCall
from mixlm_sparse.model.rowless import BATCHES
from mixlm_sparse.solve.products.accumulate import CrossProducts
from mixlm_sparse.solve.products.arrange import arranged
from mixlm_sparse.solve.products.batches import (
    BatchSums,
    DigitsLostError,
    Pairs,
    sums_from,
    sums_of,
)

__all__ = ["Summed", "products_of", "sum_batches", "sum_more", "sum_partitions"]

MOST_THREADS = 4
NO_ROWS = (
    "no rows are left after dropping those with missing cells and those that subset leaves out: "
    "check the values and the condition"
)
Used = dict[Expr, frozenset[str]]  # levels of the fixed part that occur
Part = tuple[ModelProducts, Used] | None  # of one partition; None without rows
Sums = TypeVar("Sums")
PIECES_AHEAD = 2  # pieces in memory for each thread: one worked on, one waiting


@dataclass(frozen=True, eq=False)
class Summed:
    """What the passes over a source have given.

    Attributes
    ----------
    places : per factor, the level of every code of `coder`.
    """

    products: ModelProducts
    opened: Opened
    coder: GroupCoder
    places: tuple[IntVector, ...]

    def placed(self, products: ModelProducts, places: Sequence[IntVector]) -> Summed:
        """Return the same with products whose levels are at other places, per factor."""
        own = tuple(new[old] for new, old in zip(places, self.places, strict=True))
        return replace(self, products=products, places=own)

    def system_parts(self) -> tuple[ModelMatrices, CrossProducts, Batches]:
        """Return design and sums in lme4's order, and the rows to walk over again."""
        matrices, cross, terms, factors = self.products.in_model_order(BATCHES)
        rows = Batches(
            cross.n, self.opened, self.products.design, self.coder, terms, factors,
            tuple(self.places[old] for old in factors),
        )  # fmt: skip
        return matrices, cross, rows


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

    def walk(opened: Opened, design: BatchDesign) -> tuple[_Walk, Used, int] | None:
        with one_blas_thread():
            found = _Walk(opened, design, threads or _cores(), progress)
            return (found, found.used, found.nobs) if found.run() else None

    return _summed_with(call, source, levels, walk).total()


def _summed_with(
    call: ModelCall,
    source: Source,
    levels: Mapping[str, Any] | None,
    walk: Callable[[Opened, BatchDesign], tuple[Sums, Used, int] | None],
) -> Sums:
    """Return what `walk` sums, without levels of the fixed part that no row that is used has.

    Parameters
    ----------
    walk : sums the rows of a design; returns the sums, the levels that occur and how many rows are
        used, None without rows.
    """
    formula, arguments = _checked(call)
    opened = open_batches(source, formula, arguments)
    warn = call.options.control.warn
    without: dict[Expr, frozenset[str]] = {}
    while True:
        design = learn_design(
            opened, formula, arguments, contrasts=call.contrasts, env=call.env, levels=levels,
            without=without, warn=warn and not without,
        )  # fmt: skip
        found = walk(opened, design)
        if found is None:
            raise DataError(NO_ROWS)
        sums, used, nobs = found
        unused = design.unused(used)
        if not unused:
            if warn:
                warn_of_levels((design.fixed, *design.parts), opened.first.columns, nobs)
            return sums
        if not source.again:
            name, labels = next((str(expr), rest) for expr, rest in unused.items())
            raise DataError(
                f"no row that is used has the level {sorted(labels)[0]!r} of {name}, which shows "
                "only at the end, and the data can be read once only: give a function that "
                "returns the iterator anew"
            )
        without = {**without, **unused}


def products_of(
    call: ModelCall,
    levels: Mapping[str, Any] | None = None,
    progress: CountProgress = False,
) -> ModelProducts:
    """Form the products of a call, wherever its rows are."""
    source = batch_source(call.data)
    if isinstance(source, Partitions):
        return sum_partitions(call, source, levels=levels)
    return sum_batches(call, source, levels=levels, progress=progress).products


def sum_partitions(
    call: ModelCall, source: Partitions, *, levels: Mapping[str, Any] | None = None
) -> ModelProducts:
    """Form the products of the partitions of a Dask DataFrame where they lie, and add them there.

    Passes and parameters are those of `sum_batches`; one partition is read here, to see what the
    columns are.
    """

    def walk(opened: Opened, design: BatchDesign) -> tuple[ModelProducts, Used, int] | None:
        names = (*opened.names, *opened.optional)
        found = reduce_partitions(source.columns(names), partial(_of_partition, design), _both)
        return None if found is None else (*found, found[0].nobs)

    return _summed_with(call, source, levels, walk)


def _of_partition(design: BatchDesign, piece: Any) -> Part:
    """Return the products of one partition, and the levels that occur; None without rows."""
    opened = Opened(
        Frames(lambda: iter([piece]), True), design.names, design.optional,
        Table(0, {}, frozenset(), ()), (), None,
    )  # fmt: skip
    with one_blas_thread():
        walk = _Walk(opened, design, 1, False)
        if not walk.run():
            return None
    products = walk.total().products
    return replace(products, cross=replace(products.cross, matrices=None)), walk.used


def _both(a: Part, b: Part) -> Part:
    if a is None or b is None:
        return b if a is None else a
    used = {expr: labels | b[1].get(expr, frozenset()) for expr, labels in a[1].items()}
    return a[0] + b[0], used


def sum_more(design: BatchDesign, source: Source) -> ModelProducts:
    """Form the products of more rows of a model whose columns are known."""
    opened = open_batches(source, design.formula, design.arguments)
    with one_blas_thread():
        walk = _Walk(opened, design, _cores(), False)
        if not walk.run():
            raise DataError(NO_ROWS)
    return walk.total().products


def _checked(call: ModelCall) -> tuple[MixedFormula, BatchArguments]:
    call.checked()
    if call.na_action == "exclude":
        raise OptionError(
            'na_action="exclude" pads results by row, which batches do not have: use "omit"; '
            "fit.stream() tells where the rows are"
        )
    arguments = BatchArguments.of(call.weights, call.offset, call.subset, call.na_action)
    return parse_formula(call.formula), arguments


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
    wide: bool = True
    used: dict[Expr, frozenset[str]] = field(default_factory=dict)
    done: int = 0

    def __post_init__(self) -> None:
        self.coder = GroupCoder(self.design.formula)
        self.pairs = Pairs(len(self.coder.labels))
        self.draft = draft_matrices(self.design, self.coder.labels, BATCHES)
        self.parts: list[BatchSums] = []
        self.n_input = self.nobs = 0
        self.watch = self.opened.watch()
        self._began = time.monotonic()
        self._lock = threading.Lock()

    def run(self) -> bool:
        """Walk over all pieces; return whether the model uses a row of them."""
        total = self.opened.source.known_rows or 0
        pieces = self.opened.pieces()
        with counter(self.progress, "reading", "rows") as report:
            for piece in pieces:  # until the first rows that are used: they give the basis
                batch = self._rows(piece)
                if batch is not None:
                    rows = as_rows(batch, batch.codes, range(len(self.draft.terms)))
                    self.parts = sums_from(
                        self.draft, rows, self.pairs, self.threads, wide=self.wide
                    )
                    self.parts[0].add(rows, self.coder.sizes())
                    break
            self._go_on(report(self.n_input, total))
            if self.parts:
                self._rest(pieces, lambda: self._go_on(report(self.n_input, total)))
        self.watch.end()
        return bool(self.parts)

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

    def _add(self, piece: Any, which: int) -> None:
        batch = self._rows(piece)
        if batch is not None:
            rows = as_rows(batch, batch.codes, range(len(self.draft.terms)))
            self.parts[which].add(rows, self.coder.sizes())

    def _rows(self, piece: Any) -> BatchRows | None:
        table = read_piece(piece, self.opened.names, self.opened.optional)
        self.watch.add(table)
        batch = self.design.rows(table, self.coder) if table.n else None
        with self._lock:
            self.n_input += table.n
            if batch is not None:
                self.nobs += batch.n
                for expr, labels in batch.used.items():
                    self.used[expr] = self.used.get(expr, frozenset()) | labels
        return batch

    def total(self) -> Summed:
        """Return the sums of all rows; once more where sparse columns are nearly dependent.

        Sums of squares of columns as they are have lost the digits of such columns; the second
        pass fills all columns in, which takes as long as it does in memory.
        """
        try:
            return self._summed()
        except DigitsLostError:
            if not self.opened.source.again:
                raise
        again = _Walk(self.opened, self.design, self.threads, self.progress, wide=False)
        with one_blas_thread():
            again.run()
        return again._summed()

    def _summed(self) -> Summed:
        cross = sums_of(self.parts, self.coder.sizes(), self.pairs)
        self.parts.clear()
        factors, places = self.coder.finish()
        same = range(len(self.draft.terms)), range(len(factors))
        cross = arranged(cross, self.draft, *same, places)
        products = ModelProducts(self.design, tuple(factors.values()), cross, self.n_input)
        return Summed(products, self.opened, self.coder, tuple(places))
