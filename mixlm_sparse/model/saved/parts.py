"""Parts of a fit that know nothing of its data: products, optimum, options, messages."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

import numpy as np

from mixlm_sparse.common import errors
from mixlm_sparse.common.errors import MixedModelWarning
from mixlm_sparse.engines.interface import BlockSystem, FactorBlock, PairBlock
from mixlm_sparse.model.notes import Notes
from mixlm_sparse.model.run import FitOptions
from mixlm_sparse.model.saved.archive import Archive, Arrays
from mixlm_sparse.solve.products.basis import TermLayout
from mixlm_sparse.solve.products.final import Products
from mixlm_sparse.solve.search.search import Control, Optimum

__all__ = [
    "notes_from",
    "optimum_from",
    "optimum_to",
    "options_from",
    "options_to",
    "products_from",
    "products_to",
]


def products_to(products: Products, arrays: Arrays) -> dict[str, Any]:
    """Return what describes the products; their arrays are added to `arrays`."""
    arrays["R_x"] = products.R_x
    arrays["beta_ols"] = products.beta_ols
    for t, Rz in enumerate(products.Rz):
        arrays[f"Rz.{t}"] = Rz
    for g, factor in enumerate(products.blocks.factors):
        arrays[f"ztz.{g}"] = factor.ztz
        arrays[f"ztx.{g}"] = factor.ztx
    for (g, h), pair in products.blocks.pairs.items():
        arrays[f"pair.{g}.{h}.rows"] = pair.rows
        arrays[f"pair.{g}.{h}.cols"] = pair.cols
        arrays[f"pair.{g}.{h}.values"] = pair.values
    return {
        "n": products.n,
        "log_weight_sum": products.log_weight_sum,
        "kept": list(products.kept),
        "yy": products.yy,
        "y_length": products.y_length,
        "factors": [f.label for f in products.blocks.factors],
        "pairs": [list(key) for key in products.blocks.pairs],
        "layout": [[place.factor, place.first, place.width] for place in products.layout],
    }


def products_from(saved: Mapping[str, Any], archive: Archive) -> Products:
    """Return the products; arrays that do not fit each other are a SavedFitError."""
    p = len(saved["kept"])
    layout = tuple(TermLayout(*place) for place in saved["layout"])
    factors = []
    for g, label in enumerate(saved["factors"]):
        K = sum(place.width for place in layout if place.factor == g)
        ztz = archive.array(f"ztz.{g}", None, K, K)
        factors.append(FactorBlock(label, ztz, archive.array(f"ztx.{g}", len(ztz), K, p + 1)))
    pairs = {}
    for g, h in saved["pairs"]:
        rows = archive.array(f"pair.{g}.{h}.rows", None).astype(np.int32)
        size = rows.size
        pairs[g, h] = PairBlock(
            rows,
            archive.array(f"pair.{g}.{h}.cols", size).astype(np.int32),
            archive.array(f"pair.{g}.{h}.values", size, factors[g].width, factors[h].width),
        )
        for codes, factor in ((pairs[g, h].rows, factors[g]), (pairs[g, h].cols, factors[h])):
            if size and not 0 <= int(codes.min()) <= int(codes.max()) < factor.n_levels:
                raise archive.broken(f"levels of {factor.label} out of range")
    return Products(
        n=saved["n"],
        log_weight_sum=saved["log_weight_sum"],
        kept=tuple(saved["kept"]),
        R_x=archive.array("R_x", p, p),
        beta_ols=archive.array("beta_ols", p),
        yy=saved["yy"],
        y_length=saved["y_length"],
        blocks=BlockSystem(tuple(factors), pairs),
        layout=layout,
        Rz=tuple(
            archive.array(f"Rz.{t}", place.width, place.width) for t, place in enumerate(layout)
        ),
    )


def optimum_to(optimum: Optimum, arrays: Arrays) -> dict[str, Any]:
    """Return the optimum as plain data; its arrays are added to `arrays`."""
    out: dict[str, Any] = {}
    for item in fields(Optimum):
        value = getattr(optimum, item.name)
        if item.name == "history":
            value = np.asarray(value, dtype=np.float64)
        if isinstance(value, np.ndarray):
            arrays[f"optimum.{item.name}"] = value
        elif isinstance(value, float | np.floating):
            out[item.name] = _number(float(value))
        else:
            out[item.name] = list(value) if isinstance(value, tuple) else value
    return out


def _number(value: float) -> float | str:
    """Return a number as JSON knows it; infinities and NaN by name."""
    return value if math.isfinite(value) else str(value)


def optimum_from(saved: Mapping[str, Any], archive: Archive) -> Optimum:
    """Return the optimum of `optimum_to`."""
    values: dict[str, Any] = {}
    for item in fields(Optimum):
        name = item.name
        if name not in saved:
            values[name] = archive.array(f"optimum.{name}", None)
        elif str(item.type) == "float":
            values[name] = float(saved[name])
        else:
            values[name] = tuple(saved[name]) if isinstance(saved[name], list) else saved[name]
    values["history"] = tuple(values["history"].tolist())
    return Optimum(**values)


def options_to(options: FitOptions) -> dict[str, Any]:
    """Return the options; start and progress belong to one search only."""
    return {
        "reml": bool(options.reml),
        "optimizer": options.optimizer,
        "engine": options.engine,
        "control": asdict(options.control),
    }


def options_from(saved: Mapping[str, Any]) -> FitOptions:
    """Return the options of `options_to`."""
    return FitOptions(
        reml=saved["reml"],
        optimizer=saved["optimizer"],
        engine=saved["engine"],
        control=Control(**saved["control"]),
    )


def notes_from(saved: list[Mapping[str, Any]]) -> Notes:
    """Return the notes; a category that this version does not know becomes the root."""
    notes: list[tuple[type[MixedModelWarning], str]] = []
    for note in saved:
        category = getattr(errors, note["category"], None)
        if not (isinstance(category, type) and issubclass(category, MixedModelWarning)):
            category = MixedModelWarning
        notes.append((category, str(note["text"])))
    return tuple(notes)
