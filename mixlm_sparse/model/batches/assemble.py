"""From a call whose rows come in batches to the parts of a fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from mixlm_sparse.design.batches.cluster import Partitions
from mixlm_sparse.design.batches.sources import batch_source
from mixlm_sparse.design.known import read_known
from mixlm_sparse.model.batches.related import related
from mixlm_sparse.model.batches.sums import sum_batches, sum_partitions
from mixlm_sparse.model.call import ModelCall
from mixlm_sparse.model.data import held_contrasts
from mixlm_sparse.model.held import held_system
from mixlm_sparse.model.rowless import CLUSTER, NoRows
from mixlm_sparse.solve.rows import RowSource
from mixlm_sparse.solve.system import PenalizedSystem


def assemble_batches(
    call: ModelCall, levels: Mapping[str, Any] | None = None
) -> tuple[PenalizedSystem, ModelCall]:
    """Form the products of rows that come in batches; the call returned holds their source."""
    source = batch_source(call.data)
    known = read_known(call.known)
    rows: RowSource
    if isinstance(source, Partitions):
        products = sum_partitions(call, source, levels=levels)
        if known is not None:
            products = related(products, known)[0]
        matrices, cross, _, _ = products.in_model_order(CLUSTER)
        rows = NoRows(cross.n, CLUSTER)
    else:
        progress = call.options.progress
        bar = None if callable(progress) else progress
        found = sum_batches(call, source, levels=levels, progress=bar)
        if known is not None:
            found = found.placed(*related(found.products, known))
        matrices, cross, rows = found.system_parts()
    system = held_system(
        matrices, call.options.engine, call.fixed, cross=cross, source=rows,
        estimation=call.options.control.estimation,
    )  # fmt: skip
    contrasts = held_contrasts(call.contrasts)
    return system, replace(call, data=source, contrasts=contrasts, known=known)
