"""Files of fits, of many fits and of products from anyone: real ones with edits of every depth."""

from __future__ import annotations

import copy
import functools
import hashlib
import io
import json
import os
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

import mixlm_sparse as mx
from fuzz.formula import FRAME
from fuzz.source import Source
from mixlm_sparse.model.saved.sums import SUMS, document_sum

Members = dict[str, bytes]
DOCUMENT = "fit.json"
QUIET = mx.Control(warn=False)
MOST_EDITS = 6

VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 10**9, 10**400, -(2**63), 0.5, -0.0, 1e308, "", "y", "1", "g",
    "x" * 5000, "y ~ x + (x | g)", "__import__('os')", "\ud800", "\0", [], {}, [[]], [None],
    {"": None}, [1, 2, 3],
)  # fmt: skip
HEADERS = ("<f8", "<f4", "<i4", "<i8", "|b1", "|O", "<U1", "<c16", "|V4", ">f8", "<M8[ns]", "|S0")


def _members(save: Callable[[Path], None]) -> Members:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "saved"
        save(path)
        with zipfile.ZipFile(path) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
    document = json.loads(members[DOCUMENT])
    del document[SUMS]  # `packed` makes them again, when all edits are made
    return {**members, DOCUMENT: json.dumps(document).encode()}


@functools.cache
def fits() -> list[Members]:
    """Return files of fits of several kinds, with and without data."""
    rows = FRAME.assign(day=np.tile([1, 2, 3, 4], 12))
    made = [
        mx.lmer("y ~ x * f + (x | g) + (1 | h)", FRAME, weights="z", control=QUIET),
        mx.lmer("y ~ poly(x, 2) + cs(0 + t | g)", FRAME, control=QUIET),
        mx.gls("y ~ x", rows, residual=mx.AR1(time="day", group="g"), control=QUIET),
        mx.lmer(
            "y ~ x + (1 | g)",
            FRAME,
            known={"g": mx.Relationship(np.eye(12), list(range(12)))},
            control=QUIET,
        ),
    ]
    whole = [_members(fit.save) for fit in made]
    nothing_left = FRAME.assign(y=np.sin(FRAME["g"]) + 1e-9 * FRAME["y"])
    made.append(mx.lmer("y ~ x + (1 | g) + (1 | h)", nothing_left, control=QUIET))
    trial = {"residual": mx.Unstructured("day", "g"), "variance": mx.VarIdent("f")}
    made.append(mx.lmer("y ~ x * f + (1 | h)", rows, control=QUIET, **trial))
    lean = [_members(functools.partial(fit.save, include_data=False)) for fit in made]
    return whole + lean


@functools.cache
def products() -> list[Members]:
    """Return files of products."""
    formulas = ("y ~ x + (x | g)", "y ~ x + f + (1 | g) + (1 | h)", "y ~ poly(x, 2) + (1 | g/h)")
    levels = {"f": ["a", "b", "c"]}
    made = []
    for formula in formulas:
        given = {"levels": levels} if "f" in formula else {}
        made.append(_members(mx.cross_products(formula, FRAME, **given).save))
    return made


def places(value: Any, trail: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the ways to all parts of a JSON document."""
    found = [trail]
    items = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, part in items:
        found += places(part, (*trail, key))
    return found


def edit_document(text: bytes, source: Source) -> bytes:
    """Change, drop, double or exchange one part of the document."""
    document = json.loads(text)
    ways = [way for way in places(document) if way]
    if not ways:
        return text
    way = ways[source.below(min(len(ways), 2**31))]
    parent = functools.reduce(lambda part, key: part[key], way[:-1], document)
    kind = source.below(5)
    if kind == 0:
        parent[way[-1]] = source.pick(VALUES)
    elif kind == 1:
        parent[way[-1]] = source.number()
    elif kind == 2:
        del parent[way[-1]]
    elif kind == 3:
        other = ways[source.below(min(len(ways), 2**31))]
        parent[way[-1]] = copy.deepcopy(
            functools.reduce(lambda part, key: part[key], other, document)
        )
    elif isinstance(parent, list):
        parent.append(copy.deepcopy(parent[way[-1]]))
    else:
        parent[source.text(8)] = source.pick(VALUES)
    return json.dumps(document).encode("utf-8", "surrogatepass")


def edit_array(content: bytes, source: Source) -> bytes:
    """Change numbers, type, shape or length of an array, or put one in its place."""
    kind = source.below(5)
    if kind == 0:
        changed = bytearray(content)
        for _ in range(1 + source.below(8)):
            changed[source.below(len(changed))] = source.below(256)
        return bytes(changed)
    array = np.load(io.BytesIO(content))
    if kind == 1 and array.size:
        array = array.copy()
        flat = array.reshape(-1)
        with np.errstate(all="ignore"):
            flat[source.below(flat.size)] = (
                np.nan_to_num(source.number()) if array.dtype.kind in "iub" else source.number()
            )
    elif kind == 2:
        array = array.reshape(-1)[: source.below(array.size + 1)]
    elif kind == 3:
        array = np.zeros(
            (source.below(4),) * source.below(4), source.pick(("f8", "f4", "i4", "i8", "b1", "u1"))
        )
    else:
        says = {"descr": source.pick(HEADERS), "fortran_order": source.flag()}
        header = repr({**says, "shape": (10 ** source.below(20),)})
        padded = header + " " * (-(len(header) + 11) % 64) + "\n"
        return (
            b"\x93NUMPY\x01\x00"
            + len(padded).to_bytes(2, "little")
            + padded.encode()
            + source.take(source.below(64))
        )
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def edited(members: Members, source: Source) -> Members:
    """Return the members after a few edits."""
    members = dict(members)
    for _ in range(source.below(MOST_EDITS + 1)):
        kind = source.below(8)
        names = sorted(members)
        name = names[source.below(len(names))] if names else DOCUMENT
        try:
            if kind < 4 and DOCUMENT in members:
                members[DOCUMENT] = edit_document(members[DOCUMENT], source)
            elif kind < 6 and name.endswith(".npy"):
                members[name] = edit_array(members[name], source)
            elif kind == 6:
                members.pop(name, None)
            else:
                members[source.text(12) or "a.npy"] = members.get(
                    name, source.take(source.below(64))
                )
        except Exception:
            continue  # an edit of what an earlier one has broken
    return members


def sealed(members: Members) -> Members:
    """Return the members with their checksums: who means harm makes these too."""
    try:
        document = json.loads(members[DOCUMENT])
        sums = {
            name.removesuffix(".npy"): hashlib.sha256(content).hexdigest()
            for name, content in members.items()
        }
        sums[DOCUMENT] = document_sum(document)
        document[SUMS] = sums
        content = json.dumps(document).encode("utf-8", "surrogatepass")
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return members
    return {**members, DOCUMENT: content}


def packed(members: Members, source: Source) -> bytes:
    """Return the file, in rare cases with damage that the archive itself has."""
    stream = io.BytesIO()
    method = zipfile.ZIP_DEFLATED if source.flag() else zipfile.ZIP_STORED
    damage = source.below(8)
    if damage != 4:
        members = sealed(members)
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name or "_"), content, method)
    content = bytearray(stream.getvalue())
    if damage == 1:
        for _ in range(1 + source.below(8)):
            content[source.below(len(content))] = source.below(256)
    elif damage == 2:
        del content[source.below(len(content)) :]
    elif damage == 3:
        return source.rest()
    return bytes(content)


def _read(files: list[Members], data: bytes, use: Callable[[str], None]) -> None:
    source = Source(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the damage that is done here
        content = packed(edited(files[source.below(len(files))], source), source)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "saved")
        Path(path).write_bytes(content)
        use(path)


def _use_fit(path: str) -> None:
    fit = mx.load(path)
    str(fit.summary())
    fit.ranef()
    fit.variance_components()


@functools.cache
def many() -> list[Members]:
    """Return files of fits of many responses, dense and sparse, with and without data."""
    Y = np.column_stack([FRAME["y"], np.where(FRAME["x"] > 0, FRAME["y"], np.nan)])
    stored = sp.csc_array(np.maximum(Y[:, [0, 0]], 0.0))
    made = [
        mx.lmer_many("~ x * f + (x | g)", FRAME, Y, weights="z", control=QUIET),
        mx.lmer_many("~ x + (1 | g)", FRAME, stored, control=QUIET),
        mx.lmer_many("~ poly(x, 2) + (1 | g) + (1 | h)", FRAME, ["y", "z"], control=QUIET),
    ]
    lean = functools.partial(made[0].save, include_data=False)
    return [*(_members(fits.save) for fits in made), _members(lean)]


def _use_many(path: str) -> None:
    found = mx.load_many(path)
    repr(found)
    if len(found):
        str(found.fit(0).varcorr)


def _use_products(path: str) -> None:
    found = mx.load_products(path)
    repr(found)
    fit = mx.fit_products(found + found)
    str(fit.varcorr)


def one_fit(data: bytes) -> None:
    """Load an edited file of a fit, and use it where it loads."""
    _read(fits(), data, _use_fit)


def one_products(data: bytes) -> None:
    """Load edited products, add and fit them where they load."""
    _read(products(), data, _use_products)


def one_many(data: bytes) -> None:
    """Load edited fits of many responses, and fit one of them where they load."""
    _read(many(), data, _use_many)


def seeds() -> list[bytes]:
    """Return decisions for files as they are, and with single edits of each kind."""
    plain = [bytes([which, 0, 0, 0]) for which in range(6)]
    rng = np.random.default_rng(2)
    single = [bytes([i % 6, 1, i % 8]) + rng.bytes(12) for i in range(48)]
    return [*plain, *single]
