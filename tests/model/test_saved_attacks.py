"""Saved fits from anyone: special files, sizes that lie, and parts that do not go together."""

from __future__ import annotations

import io
import json
import os
import socket
import stat
import tracemalloc
import zipfile

import numpy as np
import pandas as pd
import pytest

import mixlm_sparse as mx
from tests.support.saved import sealed

N = 60


def data() -> pd.DataFrame:
    rng = np.random.default_rng(3)
    frame = pd.DataFrame(
        {
            "x": rng.normal(size=N),
            "f": rng.choice(["a", "b"], N),
            "g": rng.integers(0, 8, N),
            "h": rng.integers(0, 5, N),
            "w": rng.uniform(1, 2, N),
        }
    )
    frame["y"] = frame.x + rng.normal(size=8)[frame.g] + rng.normal(size=5)[frame.h]
    frame["y"] += rng.normal(size=N)
    return frame


@pytest.fixture(scope="module")
def fit():
    quiet = mx.Control(warn=False)
    return mx.lmer("y ~ x * f + (x | g) + (1 | h)", data(), weights="w", control=quiet)


@pytest.fixture
def path(tmp_path, fit):
    fit.save(tmp_path / "fit.mixlm")
    return tmp_path / "fit.mixlm"


def members_of(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write(path, members, method=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in sealed(members).items():
            archive.writestr(name, content)


def npy(array) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


# ------------------------------------------------------------------------------- special files


def test_a_pipe_is_neither_read_nor_replaced(tmp_path, fit):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(mx.SavedFitError, match="is a pipe"):
        mx.load(pipe)
    with pytest.raises(mx.SavedFitError, match="is a pipe"):
        fit.save(pipe)
    assert stat.S_ISFIFO(os.stat(pipe).st_mode)


def test_devices_sockets_folders_and_streams_are_refused(tmp_path, fit):
    with pytest.raises(mx.SavedFitError, match="is a device"):
        mx.load("/dev/zero")
    with pytest.raises(mx.SavedFitError, match="is a device"):
        fit.save("/dev/null")
    with pytest.raises(mx.SavedFitError, match="is a folder"):
        mx.load(tmp_path)
    with pytest.raises(mx.SavedFitError, match="open stream"):
        fit.save("/dev/stdout")
    with open(tmp_path / "out.txt", "w") as out:
        out.write("kept")
        out.flush()
        with pytest.raises(mx.SavedFitError, match="open stream"):
            fit.save(f"/dev/fd/{out.fileno()}")
    assert (tmp_path / "out.txt").read_text() == "kept"
    place = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(place))
        with pytest.raises(mx.SavedFitError):
            mx.load(place)
        with pytest.raises(mx.SavedFitError, match="is a socket"):
            fit.save(place)


def test_a_name_with_a_null_character_is_refused(fit):
    with pytest.raises(mx.OptionError, match="path"):
        fit.save("a\0b")


def test_theta_and_phi_are_one_point(path):
    members = members_of(path)
    phi = np.load(io.BytesIO(members["optimum.phi.npy"]))
    for changed, words in ((phi[:-1], "values of theta and phi"), (2.0 * phi, "two covariances")):
        write(path, {**members, "optimum.phi.npy": npy(changed)})
        with pytest.raises(mx.SavedFitError, match=words):
            mx.load(path)


@pytest.mark.parametrize("size", [1e160, 1e300, -1e300])
def test_a_point_beyond_the_numbers_is_refused(path, size):
    members = members_of(path)
    phi = np.load(io.BytesIO(members["optimum.phi.npy"]))
    phi[0] *= size
    write(path, members | {"optimum.phi.npy": npy(phi)})
    with pytest.raises(mx.SavedFitError, match="broken"):
        mx.load(path)


def test_theta_and_phi_are_one_point_beside_a_residual_structure(tmp_path):
    path = tmp_path / "teeth.mixlm"
    teeth = mx.datasets.load("Orthodont")
    by_sex = mx.VarIdent("Sex")
    mx.lmer("distance ~ age + (1 | Subject)", teeth, variance=by_sex).save(path)
    members = members_of(path)
    phi = np.load(io.BytesIO(members["optimum.phi.npy"]))
    for changed, words in ((np.nan * phi, "not finite"), (1.01 * phi, "two covariances")):
        write(path, {**members, "optimum.phi.npy": npy(changed)})
        with pytest.raises(mx.SavedFitError, match=words):
            mx.load(path)


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664])
def test_a_file_that_is_replaced_leaves_its_permissions(path, fit, mode):
    os.chmod(path, mode)
    fit.save(path)
    assert stat.S_IMODE(os.stat(path).st_mode) == mode


# ------------------------------------------------------------------------------- sizes that lie


def refused_within(path, limit):
    """Refused, and no more than `limit` bytes taken."""
    tracemalloc.start()
    try:
        with pytest.raises(mx.SavedFitError):
            mx.load(path)
        assert tracemalloc.get_traced_memory()[1] < limit
    finally:
        tracemalloc.stop()


def test_a_small_file_that_unpacks_to_much_is_refused_at_once(path):
    members = members_of(path)
    members["optimum.history.npy"] = npy(np.zeros(40_000_000))
    write(path, members, zipfile.ZIP_DEFLATED)
    assert os.path.getsize(path) < 1_000_000
    refused_within(path, 5_000_000)


def test_an_array_that_says_more_than_it_has_takes_no_memory(path):
    members = members_of(path)
    header = "{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000,), }"
    header += " " * (117 - len(header)) + "\n"
    content = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode()
    members["R_x.npy"] = content + b"\0" * 80
    write(path, members)
    refused_within(path, 5_000_000)


@pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_other_ways_to_pack_are_refused(path, method):
    write(path, members_of(path), method)
    with pytest.raises(mx.SavedFitError, match="packed in a way"):
        mx.load(path)


def test_constant_columns_of_many_rows_come_back(tmp_path):
    # X of zeros and ones packs better than what is believed of a stranger
    n = 600_000
    X = np.zeros((n, 8))
    X[:, 0] = 1.0
    for j in range(1, 8):
        X[: 1000 * j, j] = 1.0
    y = np.repeat([1.0, 2.0, 4.0, 3.0], n // 4)
    y[::1000] += 1.0
    made = mx.fit_matrices(
        y, X, [(np.repeat(np.arange(8), n // 8),)], control=mx.Control(warn=False)
    )
    made.save(tmp_path / "wide.mixlm")
    assert mx.load(tmp_path / "wide.mixlm").criterion == made.criterion


# ------------------------------------------------------------ parts that do not go together


def leaves(node, place=()):
    """Yield the place of every value inside of a document."""
    items = node.items() if isinstance(node, dict) else enumerate(node)
    for key, value in items:
        yield (*place, key)
        if isinstance(value, dict | list):
            yield from leaves(value, (*place, key))


HOSTILE = [None, -1, 10**30, 1.5, "x", [], {}, True, [[[]]], "1e999"]


def load_quietly(path):
    return mx.load(path)


def test_every_value_of_the_document_is_checked(path, fit):
    members = members_of(path)
    document = json.loads(members["fit.json"])
    places = [place for place in leaves(document) if place[0] != "notes"]
    assert len(places) > 100
    for i, place in enumerate(places):
        changed = json.loads(members["fit.json"])
        node = changed
        for key in place[:-1]:
            node = node[key]
        if i % 3 == 0 and isinstance(node, dict):
            del node[place[-1]]
        else:
            node[place[-1]] = HOSTILE[i % len(HOSTILE)]
        write(path, members | {"fit.json": json.dumps(changed).encode()})
        try:
            loaded = load_quietly(path)
        except mx.SavedFitError:
            continue
        assert loaded.criterion == fit.criterion, place
        str(loaded.summary())


def related_fit():
    rng = np.random.default_rng(8)
    B = rng.normal(size=(8, 8))
    known = {"g": mx.Relationship(B @ B.T + np.eye(8), list(range(8)))}
    return mx.lmer("y ~ x + (1 | g)", data(), known=known, control=mx.Control(warn=False))


def member_fit():
    W = np.random.default_rng(9).dirichlet(np.ones(4), N)
    W[W < 0.2] = 0.0
    members = {"m": mx.membership(pd.DataFrame(W, columns=list("pqrs")))}
    formula = "y ~ x + (1 | m)"
    return mx.lmer(formula, data(), membership=members, control=mx.Control(warn=False))


@pytest.mark.parametrize("make", [related_fit, member_fit])
def test_no_sparse_matrix_of_a_file_leads_out_of_memory(make, tmp_path):
    """SciPy's code in C believes starts and rows: a wrong one ends the process, or worse."""
    path = tmp_path / "fit.mixlm"
    make().save(path)
    members = members_of(path)
    names = [name for name in members if name.endswith((".starts.npy", ".rows.npy"))]
    names += [name for name in members if name.endswith(".levels.npy")]
    assert names
    for name in names:
        array = np.load(io.BytesIO(members[name]))
        last = array.size - 1
        for place in (0, 1, last // 2, last):
            for value in (-1, -(2**40), 2**31 + 7, 2**62):
                changed = array.astype(np.int64)
                changed[place] = value
                write(path, members | {name: npy(changed)})
                with pytest.raises(mx.SavedFitError):
                    mx.load(path)
        for changed in (array[:-1], np.append(array, array[-1:])):
            write(path, members | {name: npy(changed)})
            with pytest.raises(mx.SavedFitError):
                mx.load(path)
        for changed in (array.astype(np.float64), array.astype(np.uint64) + 2**63):
            write(path, members | {name: npy(changed)})
            with pytest.raises(mx.SavedFitError):
                mx.load(path)


@pytest.mark.parametrize("include_data", [True, False])
def test_every_array_is_checked(path, fit, include_data):
    fit.save(path, include_data=include_data)
    members = members_of(path)
    optional = (*(["weights"] if include_data else []), "optimum.history", "optimum.gradient")
    optional += ("optimum.phi", "residual_quantiles", "kept.")
    for name in [name for name in members if name.endswith(".npy")]:
        array = np.load(io.BytesIO(members[name]))
        hostile = [array.astype(np.float32) * np.nan, array.ravel()[:-1], array[None]]
        if array.dtype.kind == "f":
            changed = array.copy()
            changed.ravel()[-1] = np.nan
            hostile.append(changed)
            changed = array.copy()
            changed.ravel()[0] += 1.0 + abs(changed.ravel()[0])
            hostile.append(changed)
        elif array.dtype.kind == "i":
            hostile += [array + 1000, -1 - array, array.astype("u8") + 2**63]
        for bad in [None, *hostile]:
            content = {} if bad is None else {name: npy(bad)}
            rest = {key: value for key, value in members.items() if key != name}
            write(path, rest | content)
            try:
                loaded = load_quietly(path)
            except mx.SavedFitError:
                continue
            assert name.startswith((*optional, "data.", "offset")), (name, bad)
            assert loaded.criterion == fit.criterion


def test_weights_cannot_be_left_out(path):
    members = members_of(path)
    with_rows = {k: v for k, v in members.items() if k != "weights.npy"}
    document = json.loads(members["fit.json"])
    document["data"] = None
    write(path, with_rows | {"fit.json": json.dumps(document).encode()})
    with pytest.raises(mx.SavedFitError, match="weights are missing"):
        mx.load(path)


@pytest.mark.parametrize("column", ["x", "y", "f", "g", "w"])
def test_data_given_must_have_the_values_of_the_fit(path, fit, column):
    fit.save(path, include_data=False)
    frame = data()
    assert mx.load(path, data=frame).criterion == fit.criterion
    frame[column] = frame[column].to_numpy()[::-1]
    with pytest.raises(mx.SavedFitError, match="do not go with the saved fit"):
        mx.load(path, data=frame)


def test_nothing_of_the_process_is_changed_by_loading(path):
    import warnings

    before = list(warnings.filters)
    mx.load(path)
    assert list(warnings.filters) == before


def test_rows_of_a_perfect_fit_are_checked(tmp_path):
    path = tmp_path / "fit.mixlm"
    frame = data().assign(y=lambda d: 3.0 + 2.0 * d["x"])
    mx.lmer("y ~ x + (1 | g)", frame, control=mx.Control(warn=False)).save(path)
    members = members_of(path)
    assert mx.load(path).sigma == 0.0
    for name in [name for name in members if name.startswith("data.") and "values" in name]:
        array = np.load(io.BytesIO(members[name]))
        if array.dtype.kind == "f":
            array[7] += 0.1
            write(path, members | {name: npy(array)})
            with pytest.raises(mx.SavedFitError, match="broken"):
                mx.load(path)
