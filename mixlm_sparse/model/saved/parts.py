"""Parts of a fit that know nothing of its data: products, optimum, options, messages."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, fields
from itertools import combinations
from typing import Any

import numpy as np

from mixlm_sparse.common import errors
from mixlm_sparse.common.errors import MixedModelWarning
from mixlm_sparse.common.types import Matrix
from mixlm_sparse.engines.interface import BlockSystem, FactorBlock, PairBlock
from mixlm_sparse.model.call import FitOptions
from mixlm_sparse.model.notes import Notes
from mixlm_sparse.model.saved.archive import Archive, Arrays
from mixlm_sparse.solve.hold import Held, Hold
from mixlm_sparse.solve.products.basis import TermLayout, triangular_inverse
from mixlm_sparse.solve.products.final import Products
from mixlm_sparse.solve.search.control import Control
from mixlm_sparse.solve.search.optimum import Optimum

__all__ = [
    "basis_from",
    "blocks_from",
    "blocks_to",
    "finite",
    "notes_from",
    "optimum_from",
    "optimum_to",
    "options_from",
    "options_to",
    "products_from",
    "products_to",
    "whole",
]


def products_to(products: Products, arrays: Arrays) -> dict[str, Any]:
    """Return what describes the products; their arrays are added to `arrays`."""
    arrays["R_x"] = products.R_x
    arrays["beta_ols"] = products.beta_ols
    if products.D.size:
        arrays["dropped_combinations"] = products.D
    for t, Rz in enumerate(products.Rz):
        arrays[f"Rz.{t}"] = Rz
    return {
        **blocks_to(products.blocks, arrays),
        "n": products.n,
        "log_weight_sum": products.log_weight_sum,
        "kept": list(products.kept),
        "yy": products.yy,
        "y_length": products.y_length,
        "layout": [[place.factor, place.first, place.width] for place in products.layout],
    }


def blocks_to(blocks: BlockSystem, arrays: Arrays) -> dict[str, Any]:
    """Return what describes Z'WZ and Z'W[X y]; their arrays are added to `arrays`."""
    for g, factor in enumerate(blocks.factors):
        arrays[f"ztz.{g}"] = factor.ztz
        arrays[f"ztx.{g}"] = factor.ztx
    for (g, h), pair in blocks.pairs.items():
        arrays[f"pair.{g}.{h}.rows"] = pair.rows
        arrays[f"pair.{g}.{h}.cols"] = pair.cols
        arrays[f"pair.{g}.{h}.values"] = pair.values
    return {
        "factors": [f.label for f in blocks.factors],
        "pairs": [list(key) for key in blocks.pairs],
    }


def products_from(saved: Mapping[str, Any], archive: Archive) -> Products:
    """Return the products; what does not go together is a SavedFitError."""
    kept = tuple(whole(j, archive, "kept") for j in saved["kept"])
    p = len(kept)
    if list(kept) != sorted(set(kept)):
        raise archive.broken("the kept columns are out of order")
    layout = tuple(
        TermLayout(*(whole(value, archive, "layout") for value in place))
        for place in saved["layout"]
    )
    blocks = blocks_from(saved, layout, p + 1, archive)
    R_x = basis_from("R_x", p, archive)
    Rz = tuple(basis_from(f"Rz.{t}", place.width, archive) for t, place in enumerate(layout))
    return Products(
        n=whole(saved["n"], archive, "n"),
        log_weight_sum=finite(saved["log_weight_sum"], archive, "log_weight_sum"),
        kept=kept,
        R_x=R_x,
        D=(
            archive.numbers("dropped_combinations", p, None)
            if "dropped_combinations" in archive
            else np.zeros((p, 0))
        ),
        beta_ols=archive.numbers("beta_ols", p),
        yy=finite(saved["yy"], archive, "yy"),
        y_length=finite(saved["y_length"], archive, "y_length"),
        blocks=blocks,
        layout=layout,
        Rz=Rz,
    )


def basis_from(name: str, width: int, archive: Archive) -> Matrix:
    """Return the triangle (width, width) of columns; its squares and its inverse are numbers."""
    R = archive.numbers(name, width, width)
    with np.errstate(all="ignore"):
        both = (R, triangular_inverse(R)) if width else ()
        regular = all(np.isfinite((M**2).sum()) for M in both)
    if np.tril(R, -1).any() or not np.diag(R).all() or not regular:
        raise archive.broken(f"the array {name!r} is no basis of columns")
    return R


def blocks_from(
    saved: Mapping[str, Any], layout: Sequence[TermLayout], P: int, archive: Archive
) -> BlockSystem:
    """Return the blocks of `blocks_to`, with P columns of [X y]."""
    count = len(saved["factors"])
    if any(place.factor >= count for place in layout):
        raise archive.broken("a term has no grouping factor")
    factors = []
    for g, label in enumerate(saved["factors"]):
        K = sum(place.width for place in layout if place.factor == g)
        ztz = archive.numbers(f"ztz.{g}", None, K, K)
        ztx = archive.numbers(f"ztx.{g}", len(ztz), K, P)
        factors.append(FactorBlock(str(label), ztz, ztx))
    # of one factor with itself only where rows have several of its levels
    if sorted((g, h) for g, h in saved["pairs"] if g != h) != list(combinations(range(count), 2)):
        raise archive.broken("pairs of grouping factors are missing")
    pairs = {
        (g, h): _pair_from(g, h, factors, archive) for g, h in map(tuple, saved["pairs"])
    }
    return BlockSystem(tuple(factors), pairs)


def _pair_from(g: int, h: int, factors: list[FactorBlock], archive: Archive) -> PairBlock:
    rows = archive.positions(f"pair.{g}.{h}.rows", None, factors[g].n_levels)
    cols = archive.positions(f"pair.{g}.{h}.cols", rows.size, factors[h].n_levels)
    if (np.diff(rows.astype(np.int64) * factors[h].n_levels + cols) <= 0).any():
        raise archive.broken(f"pairs of {factors[g].label} and {factors[h].label} are not sorted")
    if g == h and (rows >= cols).any():
        raise archive.broken(f"pairs of levels of {factors[g].label} are not sorted")
    shape = rows.size, factors[g].width, factors[h].width
    return PairBlock(rows, cols, archive.numbers(f"pair.{g}.{h}.values", *shape))


def whole(value: Any, archive: Archive, what: str) -> int:
    """Return a whole number from 0 on."""
    if type(value) is not int or not 0 <= value < 2**53:
        raise archive.broken(f"{what} is {value!r:.40}, no count")
    return value


def finite(value: Any, archive: Archive, what: str) -> float:
    """Return a finite number."""
    if type(value) not in (int, float) or not math.isfinite(value):
        raise archive.broken(f"{what} is {value!r:.40}, no number")
    return float(value)


def optimum_to(optimum: Optimum, arrays: Arrays) -> dict[str, Any]:
    """Return the optimum as plain data; its arrays are added to `arrays`."""
    out: dict[str, Any] = {}
    for item in fields(Optimum):
        value = getattr(optimum, item.name)
        if item.name == "history":
            value = np.asarray(value, dtype=np.float64)
        if isinstance(value, np.ndarray):
            if value.size or item.default_factory is MISSING:
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
    """Return the optimum of `optimum_to`; values of another type are a SavedFitError."""
    values: dict[str, Any] = {}
    for item in fields(Optimum):
        name, kind = item.name, str(item.type)
        if name not in saved:
            optional = item.default is not MISSING or item.default_factory is not MISSING
            if optional and f"optimum.{name}" not in archive:
                continue
            values[name] = archive.array(f"optimum.{name}", None)
        elif kind == "float":
            values[name] = float(saved[name])
        elif kind == "float | None":
            given = saved[name]
            values[name] = None if given is None else finite(given, archive, name)
        else:
            value = saved[name]
            plain = {"int": int, "bool": bool, "str": str}.get(kind)
            if plain is not None and type(value) is not plain:
                raise archive.broken(f"{name} is {value!r:.40}")
            values[name] = tuple(value) if isinstance(value, list) else value
    values["history"] = tuple(values["history"].tolist())
    if not np.isfinite(values["theta"]).all():
        raise archive.broken("theta is not finite")
    if values.get("sigma") is not None and values["sigma"] <= 0.0:
        raise archive.broken("sigma is not positive")
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
    ).checked()


def notes_from(saved: list[Mapping[str, Any]]) -> Notes:
    """Return the notes; a category that this version does not know becomes the root."""
    notes: list[tuple[type[MixedModelWarning], str]] = []
    for note in saved:
        category = getattr(errors, note["category"], None)
        if not (isinstance(category, type) and issubclass(category, MixedModelWarning)):
            category = MixedModelWarning
        notes.append((category, str(note["text"])))
    return tuple(notes)


def held_to(held: Held) -> dict[str, Any]:
    """Return parameters that are held as plain data."""
    return {
        "names": [[name, value] for name, value in held.names],
        "holds": [[h.term, h.parameter, h.kind, h.effect, h.value] for h in held.holds],
        "sigma": held.sigma,
    }


def held_from(saved: Mapping[str, Any] | None) -> Held | None:
    """Return the parameters of `held_to`; None where there are none."""
    if saved is None:
        return None
    return Held(
        names=tuple((str(name), float(value)) for name, value in saved["names"]),
        holds=tuple(
            Hold(int(term), int(parameter), str(kind), int(effect), float(value))
            for term, parameter, kind, effect, value in saved["holds"]
        ),
        sigma=None if saved["sigma"] is None else float(saved["sigma"]),
    )
