"""What the data determine where levels have a known covariance: against dense ranks."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.linalg

import mixlm_sparse as mx

QUIET = mx.Control(warn=False)
ANIMALS = 24


def relationship(kind: str) -> np.ndarray:
    family = np.arange(ANIMALS) // 4
    if kind == "unrelated":
        return np.eye(ANIMALS)
    if kind == "families":
        return 0.5 * np.eye(ANIMALS) + 0.5 * np.equal.outer(family, family)
    root = np.random.default_rng(5).normal(size=(ANIMALS, ANIMALS))
    return root @ root.T / ANIMALS + 0.3 * np.eye(ANIMALS)


def frame(records: str) -> pd.DataFrame:
    rng = np.random.default_rng(2)
    at = {
        "one": np.arange(ANIMALS),
        "two": np.repeat(np.arange(ANIMALS), 2),
        "mixed": np.repeat(np.arange(ANIMALS), np.where(np.arange(ANIMALS) % 3 == 0, 2, 1)),
    }[records]
    d = pd.DataFrame({"a": [f"i{k}" for k in at], "at": at, "own": [f"o{k}" for k in at]})
    d["family"] = [f"f{k}" for k in at // 4]
    d["x"] = rng.normal(size=at.size)
    d["w"] = rng.uniform(0.5, 2.0, at.size)
    d["y"] = d["x"] + rng.normal(size=6)[at // 4] + rng.normal(size=at.size)
    return d


# terms beside (1 | a): the columns of each covariance, and the factor
TERMS = {
    "(1 | a)": [("one", "one", "a")],
    "(1 | a) + (1 | own)": [("one", "one", "a"), ("one", "one", "own")],
    "(1 | a) + (1 | family)": [("one", "one", "a"), ("one", "one", "family")],
    "(x | a)": [("one", "one", "a"), ("one", "x", "a"), ("x", "x", "a")],
}
FIXED = {"x": 2, "x + family": 8}  # with their numbers of columns


def parts(d, term, A, weighted):
    """The derivatives of V by each (co)variance, and by sigma^2."""
    columns = {"one": np.ones(len(d)), "x": d["x"].to_numpy()}
    weight = d["w"].to_numpy() if weighted else np.ones(len(d))
    out = []
    for left, right, factor in TERMS[term]:
        code = pd.factorize(d[factor])[0]
        among = A[np.ix_(d["at"], d["at"])] if factor == "a" else np.equal.outer(code, code)
        product = np.outer(columns[left], columns[right])
        out.append(among * (product + product.T) / 2.0)
    return [*out, np.diag(1.0 / weight)]


@pytest.mark.parametrize(("reml", "weighted"), [(True, False), (True, True), (False, True)])
@pytest.mark.parametrize("fixed", list(FIXED))
@pytest.mark.parametrize("term", list(TERMS))
@pytest.mark.parametrize("records", ["one", "two", "mixed"])
@pytest.mark.parametrize("kind", ["unrelated", "families", "any"])
def test_against_dense_ranks(kind, records, term, fixed, reml, weighted):
    d, A = frame(records), relationship(kind)
    X = np.column_stack(
        [np.ones(len(d)), d["x"], pd.get_dummies(d["family"]).to_numpy(float)]
    )[:, : FIXED[fixed]]  # fmt: skip
    K = scipy.linalg.null_space(X.T) if reml else np.eye(len(d))
    given = parts(d, term, A, weighted)
    lengths = [np.linalg.norm(G) for G in given]
    J = np.column_stack(
        [(K.T @ G @ K).ravel() / size for G, size in zip(given, lengths, strict=True)]
    )
    values = np.linalg.svd(J, compute_uv=False)
    null = scipy.linalg.null_space(J, rcond=1e-9 / max(values[0], 1e-9))
    known = mx.Relationship(A, [f"i{k}" for k in range(ANIMALS)])
    fit = mx.lmer(
        f"y ~ {fixed} + {term}", d, known={"a": known}, reml=reml,
        weights="w" if weighted else None, control=mx.Control(warn=False, max_evaluations=3),
    )  # fmt: skip
    judged = fit.identification
    assert len(judged.directions) == null.shape[1]
    moved = (np.abs(null) > 1e-6).any(axis=1).tolist()
    assert judged.residual == (not moved[-1])
    if term == "(x | a)":
        entries = judged.entries[0]
        assert [entries[0, 0], entries[1, 0], entries[1, 1]] == [not at for at in moved[:3]]
    else:
        assert [bool(e[0, 0]) for e in judged.entries] == [not at for at in moved[:-1]]


def test_said_and_nan():
    d = frame("one")
    known = {"a": mx.Relationship(np.eye(ANIMALS), [f"i{k}" for k in range(ANIMALS)])}
    with pytest.warns(mx.ConvergenceWarning, match="the residual variance: they stand for the"):
        fit = mx.lmer("y ~ x + (1 | a)", d, known=known)
    assert fit.variance_components()["estimate"].isna().all()
    alone = mx.gls("y ~ x", d)
    np.testing.assert_allclose(fit.criterion, alone.criterion, rtol=1e-9)
    np.testing.assert_allclose(fit.bse, alone.bse, rtol=1e-6)


def test_a_loaded_fit_knows_it_without_rows(tmp_path):
    d = frame("two")
    known = {"a": mx.Relationship(np.eye(ANIMALS), [f"i{k}" for k in range(ANIMALS)])}
    fit = mx.lmer("y ~ x + (1 | a) + (1 | own)", d, known=known, control=QUIET)
    fit.save(tmp_path / "fit", include_data=False)
    again = mx.load(tmp_path / "fit")
    assert again.identification.sentence == fit.identification.sentence != ""
    assert str(again.summary()) == str(fit.summary())


def test_a_residual_structure_of_unrelated_levels_is_their_variance():
    d = frame("two").assign(t=lambda s: s.groupby("a").cumcount())
    call = {"residual": mx.CompoundSymmetry(group="a"), "control": QUIET}
    for kind, hidden in (("unrelated", True), ("families", False)):
        labels = [f"i{k}" for k in range(ANIMALS)]
        known = {"a": mx.Relationship(relationship(kind), labels)}
        judged = mx.lmer("y ~ x + (1 | a)", d, known=known, **call).identification
        assert judged.complete == (not hidden)
        assert judged.structure.tolist() == [not hidden]
