"""Fits of many responses in files: what comes back, and what is refused."""

from __future__ import annotations

import json
import os
import warnings
import zipfile

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import mixlm_sparse as mx
from mixlm_sparse.model.saved.sums import SUMS, document_sum
from tests.support.corpus import load_data

DOCUMENT = "fit.json"
FORMULA = "~ Days + (Days | Subject)"
RESULTS = ("theta", "beta", "bse", "sigma", "criterion", "nobs")
TEXTS = (
    "names", "theta_names", "x_names", "status", "message", "formula", "reml", "complete",
)  # fmt: skip


def twice(x):
    return 2.0 * x


def sleep() -> pd.DataFrame:
    rng = np.random.default_rng(4)
    frame = load_data("sleepstudy").copy()
    n = len(frame)
    frame["w"] = 1.0 + np.arange(n) % 3
    frame["arm"] = np.where(frame["Subject"].astype(int) % 2 == 0, "a", "b")
    frame["when"] = pd.Timestamp("2024-01-01") + pd.to_timedelta(np.arange(n), unit="D")
    for i in range(4):
        frame[f"r{i}"] = frame["Reaction"] + 20.0 * (i + 1) * rng.normal(size=n)
    frame.loc[::7, "r1"] = np.nan
    frame.loc[:, "text"] = "no number"
    return frame


def matrix() -> np.ndarray:
    return sleep()[["r0", "r1", "r2"]].to_numpy()


CASES = {
    "named": lambda: mx.lmer_many(FORMULA, sleep(), ["r0", "r1", "text", "r2"]),
    "matrix": lambda: mx.lmer_many(FORMULA, sleep(), matrix()),
    "whole numbers": lambda: mx.lmer_many(FORMULA, sleep(), np.round(matrix()[:, [0]]).astype(int)),
    "frame": lambda: mx.lmer_many(FORMULA, sleep(), sleep()[["r0", "r3"]]),
    "sparse": lambda: mx.lmer_many(
        FORMULA, sleep(), sp.csc_array(np.maximum(matrix()[:, [0, 2]] - 300.0, 0.0)), reml=False
    ),
    "weights": lambda: mx.lmer_many(
        FORMULA, sleep(), ["r0"], weights="w", offset=np.arange(180.0) / 100, subset="Days > 1"
    ),
    "contrasts": lambda: mx.lmer_many(
        "~ arm * Days + (1 | Subject)", sleep(), ["r0"], contrasts={"arm": "sum"}
    ),
    "env": lambda: mx.lmer_many(
        "~ twice(Days) + (1 | Subject)", sleep(), ["r0"], env={"twice": twice}
    ),
    "known": lambda: mx.lmer_many(
        "~ Days + (1 | Subject)", sleep(), ["r0"],
        known={"Subject": mx.Relationship(0.5 * (np.eye(18) + 1), sorted(set(sleep()["Subject"])))},
    ),
    "control": lambda: mx.lmer_many(
        FORMULA, sleep(), ["r0"], optimizer="bobyqa", engine="blocked",
        control=mx.Control(xtol=1e-6, second_looks=False),
    ),
    "structure": lambda: mx.lmer_many(
        "~ Days + cs(0 + arm | Days) + (1 | Subject)", sleep(), ["r0", "r3"],
        control=mx.Control(warn=False),
    ),
    "ended": lambda: mx.lmer_many(
        FORMULA, sleep(), matrix()[:, [0, 2] * 400], progress=lambda done, total: False
    ),
}  # fmt: skip


def same(again: mx.ManyFits, many: mx.ManyFits) -> None:
    for name in RESULTS:
        np.testing.assert_array_equal(getattr(again, name), getattr(many, name))
    for name in TEXTS:
        assert getattr(again, name) == getattr(many, name)
    pd.testing.assert_frame_equal(again.to_frame(), many.to_frame())
    assert repr(again) == repr(many)


@pytest.mark.parametrize("case", CASES)
def test_what_is_saved_comes_back(case, tmp_path):
    many = CASES[case]()
    path, lean = tmp_path / "many.mixlm", tmp_path / "lean.mixlm"
    many.save(path)
    many.save(lean, include_data=False)
    env = {"env": {"twice": twice}} if case == "env" else {}
    again, bare = mx.load_many(path, **env), mx.load_many(lean)
    same(again, many)
    same(bare, many)
    for i, status in enumerate(many.status):
        if i > 4:
            break
        if status == "failed":
            with pytest.raises(mx.DataError, match=r"has no fit: .*must be numeric"):
                again.fit(i)
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", mx.MixedModelWarning)
            one, other = again.fit(i), many.fit(i)
        assert one.criterion == other.criterion
        assert one.formula == other.formula
        pd.testing.assert_series_equal(one.fixef, other.fixef)
        pd.testing.assert_series_equal(one.fittedvalues, other.fittedvalues)
        with pytest.raises(mx.SavedFitError, match="save them with include_data=True"):
            bare.fit(i)
    once, again_too = tmp_path / "a.mixlm", tmp_path / "b.mixlm"
    again.save(once)
    bare.save(again_too)  # which has no data to include
    same(mx.load_many(once, **env), many)
    assert again_too.read_bytes() == lean.read_bytes()
    many.save(once)
    assert once.read_bytes() == path.read_bytes()


def test_a_function_of_the_formula_is_asked_for(tmp_path):
    CASES["env"]().save(tmp_path / "many")
    with pytest.raises(mx.SavedFitError, match=r"mx\.load_many\(path, env=\{'twice': function\}\)"):
        mx.load_many(tmp_path / "many")


def test_each_file_names_its_reader(tmp_path):
    many = CASES["frame"]()
    many.save(tmp_path / "many")
    many.fit(0).save(tmp_path / "fit")
    mx.cross_products("r0 ~ Days + (1 | Subject)", sleep()).save(tmp_path / "products")
    readers = {"many": mx.load_many, "fit": mx.load, "products": mx.load_products}
    for name in readers:
        for other, read in readers.items():
            if name == other:
                read(tmp_path / name)
                continue
            words = rf"read it by mx\.{readers[name].__name__}\(path\)"
            with pytest.raises(mx.SavedFitError, match=words):
                read(tmp_path / name)


# -- files from anyone ---------------------------------------------------------------------------


def members(path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def rewritten(path, parts: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)


@pytest.fixture
def path(tmp_path):
    CASES["sparse"]().save(tmp_path / "many")
    return tmp_path / "many"


def test_every_part_is_summed(path):
    parts = members(path)
    for name, content in parts.items():
        changed = bytearray(content)
        place = len(changed) - 3
        changed[place] ^= 1
        rewritten(path, {**parts, name: bytes(changed)})
        with pytest.raises(mx.SavedFitError):
            mx.load_many(path)
        rewritten(path, {other: value for other, value in parts.items() if other != name})
        with pytest.raises(mx.SavedFitError):
            mx.load_many(path)
    rewritten(path, {**parts, "more.npy": parts["theta.npy"]})
    with pytest.raises(mx.SavedFitError, match="was added"):
        mx.load_many(path)
    for size in (0, 10, 400, -1):
        path.write_bytes(b"")
        rewritten(path, parts)
        whole = path.read_bytes()
        path.write_bytes(whole[:size])
        with pytest.raises(mx.SavedFitError):
            mx.load_many(path)


def test_versions(path):
    parts = members(path)
    document = json.loads(parts[DOCUMENT])
    for version, words in ((99, "later version"), (1, "its format is 1"), ("2", "its format is")):
        rewritten(path, {**parts, DOCUMENT: json.dumps({**document, "version": version}).encode()})
        with pytest.raises(mx.SavedFitError, match=words):
            mx.load_many(path)


def sealed(path, parts: dict[str, bytes], arrays: dict[str, np.ndarray], **document) -> None:
    """Write the file with other arrays and another document, and sums that go with them."""
    import hashlib
    import io

    parts = dict(parts)
    for name, array in arrays.items():
        stream = io.BytesIO()
        np.save(stream, array)
        parts[f"{name}.npy"] = stream.getvalue()
    about = {**json.loads(parts[DOCUMENT]), **document}
    sums = {
        name.removesuffix(".npy"): hashlib.sha256(content).hexdigest()
        for name, content in parts.items()
        if name != DOCUMENT
    }
    about[SUMS] = sums
    about[SUMS] = {**sums, DOCUMENT: document_sum(about)}
    rewritten(path, {**parts, DOCUMENT: json.dumps(about).encode()})


def test_parts_that_do_not_go_together_are_refused_whatever_their_sums(path):
    parts = members(path)
    stored = mx.load_many(path)
    r, m = stored.theta.shape
    arrays = [
        {"theta": np.zeros((r, m + 1))}, {"beta": np.zeros((r + 1, 2))},
        {"sigma": np.zeros(r, dtype=np.float32)}, {"nobs": np.full(r, 10**6)},
        {"nobs": np.full(r, -1)}, {"nobs": np.zeros(r)}, {"status": np.full(r, 7)},
        {"message": np.full(r, -1)}, {"responses.starts": np.full(r + 1, 10**9)},
        {"responses.rows": np.full(5, 10**6)}, {"responses.values": np.zeros(3)},
    ]  # fmt: skip
    for change in arrays:
        sealed(path, parts, change)
        with pytest.raises(mx.SavedFitError):
            mx.load_many(path)
    document = json.loads(parts[DOCUMENT])
    for change in (
        {"formula": "~ Days"}, {"names": ["a"]}, {"reml": True}, {"names": [1, 2]},
        {"names": ["\ud800"] * r},
        {"responses": "pickle"}, {"responses": "dense"}, {"options": {}}, {"call": {}},
        {"data": None}, {"matrices": None}, {"x_names": []},
        {"call": {**document["call"], "formula": "~ nothere + (1 | Subject)"}},
    ):  # fmt: skip
        sealed(path, parts, {}, **change)
        with pytest.raises(mx.SavedFitError):
            mx.load_many(path)
    sealed(path, parts, {})
    same(mx.load_many(path), stored)


def test_a_failed_write_leaves_the_old_file(path, monkeypatch):
    before = path.read_bytes()
    many = CASES["frame"]()

    def full(*_):
        raise OSError("no space left")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="no space"):
        many.save(path)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]
