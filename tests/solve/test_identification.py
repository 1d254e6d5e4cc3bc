"""What the data determine: against dense ranks, and as a user sees it."""

from __future__ import annotations

import re
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mixlm_sparse as mx
from mixlm_sparse.solve.judging import identification
from tests.support import corpus, dense_identification
from tests.support.dense_oracle import OracleTerm

QUIET = mx.Control(warn=False)


def frame(seed: int, groups: int = 8, each: int = 5) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    n = groups * each
    g = np.repeat(np.arange(groups), each)
    data = pd.DataFrame({"g": g, "same": np.array(list("ABCDEFGHIJKLMNOP"))[g]})
    data["arm"] = (g % 2).astype(float)  # constant within g, two values
    data["dose"] = (g % 4).astype(float)  # constant within g, four values
    data["x"] = rng.normal(size=n) + 2.0
    data["twice"] = 2.0 * data["x"] - 1.0
    data["f"] = np.array(["a", "b"])[rng.integers(0, 2, n)]
    data["isb"] = (data["f"] == "b").astype(float)
    data["isa"] = 1.0 - data["isb"]
    data["h"] = rng.integers(0, 4, n)
    data["y"] = rng.normal(size=n) + rng.normal(size=groups)[g]
    data["w"] = rng.uniform(0.5, 2.0, n)
    return data


# written terms, with the columns and the factor that they have
TERMS = {
    "(1 | g)": (["1"], "g", "us"),
    "(1 | same)": (["1"], "same", "us"),
    "(x | g)": (["1", "x"], "g", "us"),
    "(0 + x | same)": (["x"], "same", "us"),
    "(arm | g)": (["1", "arm"], "g", "us"),
    "(dose | g)": (["1", "dose"], "g", "us"),
    "(x + twice | g)": (["1", "x", "twice"], "g", "us"),
    "diag(0 + x + twice | g)": (["x", "twice"], "g", "diag"),
    "id(0 + x + twice + arm | g)": (["x", "twice", "arm"], "g", "id"),
    "(0 + f | g)": (["isa", "isb"], "g", "us"),
    "(1 | h)": (["1"], "h", "us"),
    "(1 | arm)": (["1"], "arm", "us"),
}
FIXED = {
    "1": ["1"],
    "x": ["1", "x"],
    "factor(arm)": ["1", "arm"],
    "factor(g)": ["1", *[f"g{j}" for j in range(1, 8)]],
}


def columns(data: pd.DataFrame, names: list[str]) -> np.ndarray:
    out = []
    for name in names:
        if name == "1":
            out.append(np.ones(len(data)))
        elif name[0] == "g":
            out.append((data["g"] == int(name[1:])).to_numpy(float))
        else:
            out.append(data[name].to_numpy(float))
    return np.column_stack(out)


@settings(max_examples=120)
@given(
    written=st.lists(st.sampled_from(sorted(TERMS)), min_size=1, max_size=3, unique=True),
    fixed=st.sampled_from(sorted(FIXED)),
    seed=st.integers(0, 1000),
    reml=st.booleans(),
    weighted=st.booleans(),
)
def test_against_dense_ranks(written, fixed, seed, reml, weighted):
    data = frame(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        matrices = mx.model_matrices(
            f"y ~ {fixed} + {' + '.join(written)}", data, weights="w" if weighted else None
        )
        judged = identification(mx.penalized_system(matrices), reml=reml)
    X = columns(data, FIXED[fixed])
    by_text = dict(zip(_normalized(matrices), range(len(written)), strict=True))
    terms, structures = [None] * len(written), [""] * len(written)
    for text in written:
        names, group, structure = TERMS[text]
        codes = np.unique(data[group], return_inverse=True)[1]
        at = by_text[tuple(names), group, structure]
        terms[at] = OracleTerm(columns(data, names), codes, int(codes.max()) + 1)
        structures[at] = structure
    weights = data["w"].to_numpy() if weighted else None
    basis, labels = dense_identification.directions(
        X, terms, weights, reml=reml, structures=structures
    )
    assert len(judged.directions) == basis.shape[1]
    for t, known in enumerate(dense_identification.determined(basis, labels, terms)):
        if structures[t] == "id":
            known = np.full_like(known, known[0, 0]) | ~np.eye(len(known), dtype=bool)
        np.testing.assert_array_equal(judged.entries[t], known)
    if reml and not weighted and "id" not in structures:
        eye = np.eye(X.shape[1])
        expected = [
            not dense_identification.variance_moves(basis, X, terms, row, labels) for row in eye
        ]
        np.testing.assert_array_equal(judged.coefficients(eye), expected)


def _normalized(matrices):
    """Terms as (columns, group, structure), in the names of this file."""
    plain = {"(Intercept)": "1", "fa": "isa", "fb": "isb"}
    for term in matrices.terms:
        names = tuple(plain.get(name, name) for name in term.column_names)
        yield names, matrices.factors[term.factor].label, term.structure


@pytest.mark.parametrize(
    ("formula", "sentence"),
    [
        ("y ~ factor(arm) + (1 | arm)", r"variance of \(1 \| arm\): the fixed part"),
        ("y ~ x + (1 | g) + (1 | same)", r"\(1 \| g\) and .*\(1 \| same\).*same effects"),
        ("y ~ x + (arm | g)", r"variance of arm in \(1 \+ arm \| g\)"),
        ("y ~ x + (x | g) + (1 | g)", r"\(Intercept\) in \(1 \+ x \| g\) and the variance of"),
        ("y ~ x + (1 | g) + (0 + f | g)", r"\(1 \| g\) and the variances and covariances"),
    ],
)
def test_the_fit_says_it_once(formula, sentence):
    data = frame(3)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        fit = mx.lmer(formula, data)
    texts = [str(w.message) for w in found if "do not determine" in str(w.message)]
    assert len(texts) == 1
    assert len(texts[0]) <= 420
    assert re.search(sentence, texts[0])
    assert fit.identification.sentence in fit.convergence.message
    summary = " ".join(str(fit.summary()).split())
    assert summary.count("the data do not determine the") == 1
    assert not fit.identification.complete


@settings(max_examples=60)
@given(
    written=st.lists(st.sampled_from(sorted(TERMS)), min_size=1, max_size=2, unique=True),
    fixed=st.sampled_from(sorted(FIXED)),
    seed=st.integers(0, 1000),
    reml=st.booleans(),
)
def test_a_fit_judges_as_its_design_does(written, fixed, seed, reml):
    """What a fit takes from the Hessian of its optimum is what the information says."""
    try:
        fit = mx.lmer(
            f"y ~ {fixed} + {' + '.join(written)}", frame(seed), reml=reml, control=QUIET
        )
    except mx.DataError:  # as many effects as rows
        return
    design = mx.penalized_system(fit.system.matrices)
    judged = identification(design, reml=reml, phi=fit.optimum.phi)
    for own, of_design in zip(fit.identification.entries, judged.entries, strict=True):
        np.testing.assert_array_equal(own, of_design)
    assert fit.identification.residual == judged.residual


@pytest.mark.parametrize(
    "formula",
    [
        "y ~ x + (1 | g)",
        "y ~ x + (x | g)",
        "y ~ x + (dose | g)",  # a variance that is quadratic in dose
        "y ~ x + id(0 + x + twice + arm | g)",
        "y ~ x + diag(0 + x + twice | g)",
        "y ~ 0 + (1 | g)",
    ],
)
def test_silence_where_everything_is_determined(formula):
    fit = mx.lmer(formula, frame(3), control=QUIET)
    assert fit.identification.complete
    assert fit.identification.sentence == ""
    assert fit.identification.coefficients(np.eye(fit.system.p)).all()


def test_ordinary_singular_fits_are_determined():
    fit = mx.lmer("Yield ~ 1 + (1 | Batch)", mx.datasets.load("Dyestuff2"), control=QUIET)
    assert fit.convergence.status == "singular"
    assert fit.identification.complete


def test_two_parameterizations_of_the_corpus():
    fit = corpus.fit("hsb_ses_diag_ml")
    judged = fit.identification
    assert len(judged.directions) == 1
    assert judged.residual
    known = dict(zip(judged.terms, judged.entries, strict=True))
    assert known["(0 + ses | school)"].all()
    assert not known["(1 | school)"].any()
    assert not known["(0 + minorityNo + minorityYes | school)"].any()


def test_only_tests_of_what_hides_the_variance_are_undetermined():
    data = frame(3)
    fit = mx.lmer("y ~ factor(g) + x + (1 | g)", data, control=QUIET)
    names = list(fit.fixef.index)
    known = fit.identification.coefficients(np.eye(len(names)))
    assert known[names.index("x")]
    assert not known[[i for i, name in enumerate(names) if name != "x"]].any()
    assert fit.identification.hypothesis(np.eye(len(names))[[names.index("x")]])
    assert not fit.identification.hypothesis(np.eye(len(names)))


@pytest.mark.parametrize("noise", [1e-5, 1e-6])
def test_nearly_flat(noise):
    data = frame(3, 16)
    data["almost"] = data["arm"] + noise * np.random.default_rng(2).normal(size=len(data))
    fit = mx.lmer("y ~ 1 + (almost | g)", data, control=QUIET)
    assert not fit.identification.parameter(0, 1, 1)


def test_one_large_group_hides_nothing():
    rng = np.random.default_rng(3)
    g = np.concatenate([np.zeros(200_000, dtype=int), np.repeat(np.arange(1, 11), 5)])
    fit = mx.lmer("y ~ 1 + (1 | g)", pd.DataFrame({"y": rng.normal(size=g.size), "g": g}),
                  control=QUIET)  # fmt: skip
    assert fit.identification.complete


@pytest.mark.parametrize("shift", [0.0, 1e3, 1e6])
@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_origin_and_unit_do_not_matter(shift, scale):
    data = frame(3)
    data["arm"] = scale * (data["arm"] + shift)
    data["x"] = scale * (data["x"] + shift)
    flat = mx.lmer("y ~ x + (arm | g)", data, control=QUIET)
    assert len(flat.identification.directions) == 1
    assert mx.lmer("y ~ x + (x | g)", data, control=QUIET).identification.complete


# -------------------------------------------------------------------------- effects and rows


def test_an_effect_for_each_row_is_the_residual():
    data = frame(3)
    data["row"] = np.arange(len(data))
    for term in ("(1 | row)", "(x | row)", "(factor(x) | g)"):
        with pytest.raises(mx.DataError, match="cannot be told from that of the residuals"):
            mx.lmer(f"y ~ 1 + {term}", data, control=QUIET)


def test_an_effect_for_some_rows_is_a_variance_of_its_own():
    """Residual variances by treatment, as a random effect of one arm's rows."""
    rng = np.random.default_rng(8)
    data = frame(3, 16, 6)
    data["row"] = np.arange(len(data))
    sd = np.where(data["f"] == "a", 0.5, 2.0)
    data["y"] = rng.normal(size=16)[data["g"]] + sd * rng.normal(size=len(data))
    fit = mx.lmer("y ~ f + (1 | g) + (0 + isb | row)", data, control=QUIET)
    assert fit.identification.complete
    V = np.diag(np.where(data["f"] == "b", fit.scale + fit.varcorr["row"].iloc[0, 0], fit.scale))
    same = data["g"].to_numpy()[:, None] == data["g"].to_numpy()
    V += fit.varcorr["g"].iloc[0, 0] * same
    X = np.column_stack([np.ones(len(data)), data["isb"]])
    inner = X.T @ np.linalg.solve(V, X)
    beta = np.linalg.solve(inner, X.T @ np.linalg.solve(V, data["y"]))
    r = data["y"] - X @ beta
    dense = (
        np.linalg.slogdet(V)[1] + np.linalg.slogdet(inner)[1] + r @ np.linalg.solve(V, r)
        + (len(data) - 2) * np.log(2 * np.pi)
    )  # fmt: skip
    assert fit.criterion == pytest.approx(dense, rel=1e-9)


def test_more_effects_than_rows_but_one_variance():
    rng = np.random.default_rng(10)
    m = 60
    u = 2.0 * rng.normal(size=(m, 3))
    data = pd.DataFrame({"id": np.repeat(np.arange(m), 2)})
    Z = np.tile([[-1.0, 1.0, 0.0], [0.0, -1.0, 1.0]], (m, 1))
    data[["d1", "d2", "d3"]] = Z
    data["y"] = (Z * u[data["id"]]).sum(axis=1) + rng.normal(size=2 * m)
    fit = mx.lmer("y ~ 1 + id(0 + d1 + d2 + d3 | id)", data, control=QUIET)
    assert fit.identification.complete
    assert fit.system.q > fit.nobs
    for start in (0.1, 20.0):
        again = mx.lmer(
            "y ~ 1 + id(0 + d1 + d2 + d3 | id)", data, start=[start], control=QUIET
        )
        assert again.criterion == pytest.approx(fit.criterion, rel=1e-10)


def hardly_seen(kind: str) -> tuple[str, pd.DataFrame]:
    """A term whose effects are those of another, or of the fixed part, up to a part in 10^3."""
    rng = np.random.default_rng(0)
    g, x = rng.integers(0, 10, 80), rng.normal(size=80)
    _, arm = rng.normal(size=10), g % 3
    data = pd.DataFrame({"g": g, "x": x, "arm": arm})
    data["y"] = 1.0 + 0.5 * x + rng.normal(size=80) + rng.normal(size=10)[g]
    if kind == "another term":
        data["s"] = 1.0 + 1e-6 * rng.normal(size=80)
        return "y ~ x + (1 | g) + (0 + s | g)", data
    near = np.eye(3)[arm][:, 1:] + 3e-4 * rng.normal(size=(80, 2))
    data["a1"], data["a2"] = near.T
    return "y ~ x + a1 + a2 + (1 | arm) + (1 | g)", data


@pytest.mark.parametrize("kind", ["another term", "the fixed part"])
def test_what_is_hardly_seen_does_not_depend_on_the_start(kind):
    formula, data = hardly_seen(kind)
    fit = mx.lmer(formula, data, control=QUIET)
    assert not fit.identification.complete
    rng = np.random.default_rng(1)
    for start in 10.0 ** rng.uniform(-1, 2, (4, 2)):
        again = mx.lmer(formula, data, start=start, control=QUIET)
        assert again.criterion == pytest.approx(fit.criterion, abs=1e-9)
        np.testing.assert_allclose(again.theta, fit.theta, rtol=1e-6)
