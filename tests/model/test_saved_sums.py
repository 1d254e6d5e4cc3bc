"""Damage of a saved file is noticed, however small, and the part that is damaged is named."""

from __future__ import annotations

import io
import json
import zipfile

import numpy as np
import pytest

import mixlm_sparse as mx
from tests.support.saved import sealed

SLEEP = "Reaction ~ Days + (Days | Subject)"


@pytest.fixture
def path(tmp_path):
    mx.lmer(SLEEP, mx.datasets.load("sleepstudy")).save(tmp_path / "fit.mixlm")
    return tmp_path / "fit.mixlm"


def members_of(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write(path, members):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def nudged(content: bytes) -> bytes:
    """The array with the last bit of its last entry changed."""
    array = np.load(io.BytesIO(content))
    flat = array.reshape(-1)
    flat[-1] = np.nextafter(flat[-1], np.inf) if array.dtype.kind == "f" else flat[-1] ^ 1
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def test_the_sums_are_those_of_the_parts(path):
    members = members_of(path)
    assert json.loads(sealed(members)["fit.json"]) == json.loads(members["fit.json"])


def test_the_last_bit_of_every_array_is_noticed(path):
    members = members_of(path)
    arrays = [name for name in members if name.endswith(".npy")]
    assert len(arrays) > 8
    for name in arrays:
        content = nudged(members[name])
        assert content != members[name]
        write(path, members | {name: content})
        with pytest.raises(mx.SavedFitError, match=r"is broken.*is not as saved"):
            mx.load(path)


def test_a_column_is_named(path):
    members = members_of(path)
    columns = json.loads(members["fit.json"])["call"]["frame"]["columns"]
    place = next(i for i, column in enumerate(columns) if column["name"] == "Days")
    name = f"data.{place}.values.npy"
    write(path, members | {name: nudged(members[name])})
    with pytest.raises(mx.SavedFitError, match="column 'Days' of the data is not as saved"):
        mx.load(path)


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d["optimum"].update(criterion=d["optimum"]["criterion"] * (1 + 1e-15)),
        lambda d: d["optimum"].update(seconds=1e9),
        lambda d: d["notes"].append({"category": "DataWarning", "text": "something else"}),
        lambda d: d.update(more=1),
        lambda d: d["checksums"].pop("fit.json"),
    ],
)
def test_the_document_is_summed_too(path, change):
    members = members_of(path)
    document = json.loads(members["fit.json"])
    change(document)
    write(path, members | {"fit.json": json.dumps(document).encode()})
    with pytest.raises(mx.SavedFitError, match=r"fit\.json.*is not as saved"):
        mx.load(path)


@pytest.mark.parametrize("sums", [None, [], "x", {}])
def test_sums_that_are_none(path, sums):
    members = members_of(path)
    document = json.loads(members["fit.json"])
    document["checksums"] = sums
    write(path, members | {"fit.json": json.dumps(document).encode()})
    with pytest.raises(mx.SavedFitError, match=r"checksums are missing|is not as saved"):
        mx.load(path)


def test_parts_that_come_or_go(path):
    members = members_of(path)
    write(path, members | {"more.npy": members["R_x.npy"]})
    with pytest.raises(mx.SavedFitError, match="the array 'more' was added"):
        mx.load(path)
    write(path, {name: content for name, content in members.items() if name != "R_x.npy"})
    with pytest.raises(mx.SavedFitError, match="the array 'R_x' is missing"):
        mx.load(path)


def test_how_the_archive_is_packed_plays_no_part(path):
    members = members_of(path)
    want = mx.load(path).criterion
    compact = json.dumps(json.loads(members["fit.json"])).encode()
    write(path, dict(reversed((members | {"fit.json": compact}).items())))
    assert mx.load(path).criterion == want


def test_products_are_summed(tmp_path):
    path = tmp_path / "a.products"
    mx.cross_products(SLEEP, mx.datasets.load("sleepstudy")).save(path)
    members = members_of(path)
    for name in [name for name in members if name.endswith(".npy")]:
        write(path, members | {name: nudged(members[name])})
        words = f"the array '{name.removesuffix('.npy')}' is not as saved"
        with pytest.raises(mx.SavedFitError, match=words):
            mx.load_products(path)
