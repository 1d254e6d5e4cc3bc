"""Files without rows, changed by anyone: refused, or harmless."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import warnings

import numpy as np
import pytest

import mixlm_sparse as mx
from tests.model.test_saved_attacks import HOSTILE, data, leaves, members_of, npy, write

QUIET = mx.Control(warn=False)


def frame():
    found = data().assign(t=lambda d: d.groupby("g").cumcount())
    return found.assign(v=lambda d: d.t % 4, gg=lambda d: 100 * d.g + d.t // 4)


FITS = {
    "crossed": lambda: mx.lmer(
        "y ~ x * f + (1 | h)", frame(), weights="w", control=QUIET,
        residual=mx.AR1("t", "g"), variance=mx.VarIdent("f"),
    ),
    "known": lambda: mx.lmer(
        "y ~ x * f + I(2 * x) + (1 | g)", frame(), weights="w", control=QUIET,
        known={"g": mx.Relationship(0.5 * (np.eye(8) + 1.0), list(range(8)))},
    ),
    "visits": lambda: mx.gls("y ~ x", frame(), residual=mx.Unstructured("v", "gg"), control=QUIET),
}  # fmt: skip


@pytest.fixture(scope="module", params=sorted(FITS))
def fit(request):
    return FITS[request.param]()


@pytest.fixture
def path(tmp_path, fit):
    fit.save(tmp_path / "fit.mixlm", include_data=False)
    return tmp_path / "fit.mixlm"


def answers(loaded, fit):
    """Ask a fit that was taken: it answers, or says in the package's words why not."""
    assert loaded.criterion == fit.criterion
    for ask in (
        lambda: str(loaded.summary()),
        lambda: loaded.residual_structure,
        lambda: loaded.describe_engine(),
        lambda: loaded.predict(frame().head(5), se=True),
        lambda: loaded.confint(method="wald"),
        lambda: loaded.anova(),
        lambda: loaded.anova(type=2),
        lambda: loaded.tidy(ddf="kenward-roger"),
        lambda: loaded.emmeans("x"),
        lambda: loaded.emtrends("x"),
        lambda: loaded.joint_tests(),
        lambda: loaded.r2(),
    ):
        with warnings.catch_warnings(), contextlib.suppress(mx.MixedModelError):
            warnings.simplefilter("ignore", mx.MixedModelWarning)
            ask()


def test_every_value_is_checked(path, fit):
    members = members_of(path)
    document = json.loads(members["fit.json"])
    own = ("residuals", "structure", "matrices", "kept")
    places = [place for place in leaves(document) if place[0] in own]
    assert len(places) > 60
    taken = 0
    for i, place in enumerate(places):
        for hostile in ("leave out", "twice", HOSTILE[i % len(HOSTILE)]):
            changed = copy.deepcopy(document)
            node = changed
            for key in place[:-1]:
                node = node[key]
            if hostile == "leave out":
                del node[place[-1]]
            elif hostile == "twice" and isinstance(node, list):
                node.append(node[-1])
            else:
                node[place[-1]] = hostile
            write(path, members | {"fit.json": json.dumps(changed).encode()})
            try:
                loaded = mx.load(path)
            except mx.SavedFitError:
                continue
            taken += 1
            answers(loaded, fit)
    assert taken < len(places)


def test_every_array_is_checked(path, fit):
    members = members_of(path)
    own = ("residuals.", "curvature.", "optimum.rho", "kept.")
    names = [name for name in members if name.startswith(own)]
    assert len(names) >= 7
    for name in names:
        array = np.load(io.BytesIO(members[name]))
        bad = [array.astype(np.float32) * np.nan, array.ravel()[:-1], array[None]]
        if array.dtype.kind == "f":
            bad.append(np.where(np.arange(array.size).reshape(array.shape) == 0, np.nan, array))
            bad += [1e200 * array, 0.0 * array, -array]
        elif array.dtype.kind == "i":
            bad += [array + 1000, -1 - array, array.astype("u8") + 2**63]
        for j, one in enumerate(bad):
            write(path, {**members, name: npy(one)})
            try:
                loaded = mx.load(path)
            except mx.SavedFitError:
                continue
            assert j > 3, name  # of the wrong kind or shape, or with NaN
            answers(loaded, fit)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d, a: a.pop("residuals.open.npy"), "missing"),
        (lambda d, a: d["residuals"].update(strata=["", "a"]), "strata"),
        (lambda d, a: d["residuals"].update(labels=[str(i) for i in range(10**5)]), "visits"),
        (lambda d, a: d["residuals"].update(length=1.0), "response"),
        (lambda d, a: d["structure"].update(residual=None, variance=None), "structure is missing"),
        (lambda d, a: d.update(residuals=None), "sums|weights|response"),
        (lambda d, a: a.pop("kept.shares.cov_X.npy"), "missing"),
        (lambda d, a: d["kept"]["predictors"]["columns"].append({"name": "z"}), "broken"),
    ],
)
def test_what_does_not_go_together_is_named(path, fit, change, words):
    if fit.matrices.law is None:
        return
    members = members_of(path)
    document = json.loads(members["fit.json"])
    change(document, members)
    write(path, members | {"fit.json": json.dumps(document).encode()})
    with pytest.raises(mx.SavedFitError, match=words):
        mx.load(path)


def test_visits_are_counted_before_their_pairs_are_named(path, fit):
    """So many names would fill the memory."""
    if fit.matrices.law is None:
        return
    members = members_of(path)
    document = json.loads(members["fit.json"])
    n = 10**6
    document["matrices"].update(nobs=n, n_input=n)
    document["products"]["n"] = n
    document["residuals"]["labels"] = [str(i) for i in range(30_000)]
    document["residuals"]["visits"] = []
    sizes = np.full(n // 10, 10)
    write(path, members | {"fit.json": json.dumps(document).encode(),
                           "residuals.sizes.npy": npy(sizes)})  # fmt: skip
    with pytest.raises(mx.SavedFitError, match="broken"):
        mx.load(path)


def test_rows_of_a_design_are_checked(tmp_path):
    """A fit made stage by stage keeps the places of its rows as they are."""
    design = mx.model_matrices(
        "y ~ x + (1 | h)", frame().assign(b=lambda d: d.g < 4),
        residual=mx.AR1("t", "g", by="b"), variance=mx.VarIdent("f"),
    )  # fmt: skip
    system = mx.penalized_system(design)
    fit = mx.make_fit(system, mx.optimize(system))
    path = tmp_path / "fit.mixlm"
    fit.save(path)
    members = members_of(path)
    names = [name for name in members if name.startswith("residuals.")]
    assert len(names) >= 6
    for name in names:
        array = np.load(io.BytesIO(members[name]))
        kinds = [array.astype(np.float32) * np.nan, array.ravel()[:-1], array[None], array + 1000]
        for bad in [*kinds, -1 - array.astype(int), np.roll(array, 1), np.zeros_like(array)]:
            write(path, {**members, name: npy(bad)})
            try:
                loaded = mx.load(path)
            except mx.SavedFitError:
                continue
            assert loaded.criterion == fit.criterion
            np.testing.assert_allclose(loaded.residuals("normalized"), fit.residuals("normalized"))
