"""Names, order and coding of columns as in R; the designs of the corpus."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mixlm_sparse.common.errors import DataError, FormulaWarning, OptionError
from mixlm_sparse.covariance.diag import Diagonal
from mixlm_sparse.design.build import model_matrices
from tests.design.example import EXAMPLE
from tests.support.corpus import MODELS, data_of, load_model, options_of

# What R's model.matrix calls its columns.
R_NAMES = list(
    json.loads((Path(__file__).parent / "r_names.json").read_text(encoding="utf-8")).items()
)


@pytest.mark.parametrize(("right", "names"), R_NAMES, ids=[row[0] for row in R_NAMES])
def test_columns_are_named_and_ordered_as_in_r(right, names):
    matrices = model_matrices(f"y ~ {right} + (1 | s)", EXAMPLE)
    assert list(matrices.fixed.names) == names
    assert matrices.X.shape == (60, len(names))
    assert matrices.X.flags.c_contiguous
    assert matrices.spec.fixed.assign[-1] == len(matrices.spec.fixed.term_labels)


@pytest.mark.parametrize("model_id", MODELS)
def test_corpus(model_id):
    """Names, order, rows, levels and values of every reference model."""
    record = load_model(model_id)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FormulaWarning)
        m = model_matrices(record["formula"], data_of(record), **options_of(record))
    kept = [place for place, name in enumerate(m.fixed.names)
            if name not in record["dropped_columns"]]  # fmt: skip
    assert [m.fixed.names[place] for place in kept] == list(record["fixef"])
    assert (m.nobs, m.n_input - m.nobs) == (record["nobs"], record["n_rows_dropped"])
    theta_names = []
    assert len(m.terms) == len(record["random_terms"])
    for term, expected in zip(m.terms, record["random_terms"], strict=True):
        factor = m.factors[term.factor]
        assert (term.name, factor.label) == (expected["varcorr_name"], expected["factor"])
        assert list(term.column_names) == expected["terms"]
        assert factor.n_levels == expected["n_levels"]
        assert factor.levels[: len(expected["levels"])] == expected["levels"]
        names = term.column_names
        for j, second in enumerate(names):
            theta_names.append(f"{factor.label}.{second}")
            theta_names += [f"{factor.label}.{first}.{second}" for first in names[j + 1 :]]
    assert theta_names == record["theta_names"]
    head = len(record["head_rows"])
    rows = np.arange(m.nobs) if m.rows is None else m.rows
    assert (rows[:head] + 1).tolist() == record["head_rows"]
    fitted = m.fixed.block(slice(0, head))[:, kept] @ np.array(list(record["fixef"].values()))
    if m.offset is not None:
        fitted = fitted + m.offset[:head]
    np.testing.assert_allclose(fitted, record["fitted_fixed_head"], rtol=1e-9)
    y = np.add(record["fitted_head"], record["residuals_head"])
    np.testing.assert_allclose(m.y[:head], y, rtol=1e-9)


@pytest.mark.parametrize(
    ("choice", "names"),
    [
        ("treatment", ["fb", "fc"]),
        ("contr.treatment", ["fb", "fc"]),
        ("SAS", ["fa", "fb"]),
        ("sum", ["f1", "f2"]),
        ("contr.helmert", ["f1", "f2"]),
        ("poly", ["f.L", "f.Q"]),
        (np.array([[1, 0], [0, 1], [-1, -1]]), ["f1", "f2"]),
        (pd.DataFrame([[1.0], [-1]  , [0]], index=list("cab"), columns=[".ca"]), ["f.ca"]),
    ],
)  # fmt: skip
def test_contrasts_argument(choice, names):
    m = model_matrices("y ~ f + (f | s)", EXAMPLE, contrasts={"f": choice})
    assert list(m.fixed.names[1:]) == names
    assert m.terms[0].column_names == ("(Intercept)", "fb", "fc")  # the random part keeps its own


def test_contrast_matrices():
    X = model_matrices("y ~ f + (1 | s)", EXAMPLE, contrasts={"f": "sum"}).X[:3, 1:]
    np.testing.assert_array_equal(X, [[1, 0], [0, 1], [-1, -1]])
    X = model_matrices("y ~ f + (1 | s)", EXAMPLE, contrasts={"f": "helmert"}).X[:3, 1:]
    np.testing.assert_array_equal(X, [[-1, -1], [1, -1], [0, 2]])
    X = model_matrices("y ~ f + (1 | s)", EXAMPLE, contrasts={"f": "poly"}).X[:3, 1:]
    half, sixth = np.sqrt(1 / 2), np.sqrt(1 / 6)
    np.testing.assert_allclose(X, [[-half, sixth], [0, -2 * sixth], [half, sixth]], atol=1e-12)


@pytest.mark.parametrize(
    ("contrasts", "error", "message"),
    [
        ({"f": "foo"}, DataError, "'foo' is not known"),
        ({"f": np.eye(2)}, DataError, "2 rows, but 3 levels"),
        ({"f": np.eye(3)}, DataError, "linearly dependent"),
        ({"x": "sum"}, DataError, "numeric"),
        ({"ff": "sum"}, DataError, "no column 'ff'"),
        ({"g": "sum"}, FormulaWarning, "no effect"),
        ("sum", OptionError, "dictionary"),
    ],
)
def test_contrasts_that_do_not_fit(contrasts, error, message):
    with pytest.raises(error, match=message):
        model_matrices("y ~ x + f + (1 | s)", EXAMPLE, contrasts=contrasts)


def test_patsy_style_contrasts():
    m = model_matrices("y ~ C(f, Treatment('b')) + C(g, Sum) + (1 | s)", EXAMPLE)
    assert m.fixed.names[1:3] == ('C(f, Treatment("b"))a', 'C(f, Treatment("b"))c')
    assert m.fixed.names[3:] == ("C(g, Sum)1", "C(g, Sum)2", "C(g, Sum)3")


def test_unused_levels_are_dropped_after_rows():
    frame = EXAMPLE.assign(
        f=pd.Categorical(EXAMPLE["f"], categories=["z", "c", "b", "a"]),
        x=EXAMPLE["x"].where(EXAMPLE["f"] != "b"),
    )
    m = model_matrices("y ~ x + f + (1 | s) + (1 | g:f)", frame)
    assert m.fixed.names == ("(Intercept)", "x", "fa")
    assert not any("b" in level for level in m.factors[0].levels)


def test_structures_over_levels_read_numbers_as_levels(monkeypatch):
    monkeypatch.setattr(Diagonal, "over_levels", True)
    m = model_matrices("y ~ x + diag(0 + k | g)", EXAMPLE)
    assert m.terms[0].column_names == ("k1", "k2", "k3", "k4")
    assert m.terms[0].structure == "diag"


def test_double_bar_with_a_factor_says_so():
    with pytest.warns(FormulaWarning, match=r"diag\(f \| s\)"):
        m = model_matrices("y ~ x + (x + f || s)", EXAMPLE)
    assert [t.column_names for t in m.terms] == [("(Intercept)",), ("x",), ("fa", "fb", "fc")]
    assert [t.name for t in m.terms] == ["s", "s.1", "s.2"]
    assert len(m.factors) == 1


def test_terms_keep_their_order_when_levels_do_not_increase():
    m = model_matrices("y ~ 1 + (1 | s) + (1 | g) + (0 + x | g) + (1 | f)", EXAMPLE)
    assert [t.name for t in m.terms] == ["s", "g", "g.1", "f"]


def test_reordering_reverses_ties():
    m = model_matrices("y ~ 1 + (1 | g) + (0 + x | g) + (1 | s)", EXAMPLE)
    assert [(t.name, t.column_names) for t in m.terms] == [
        ("s", ("(Intercept)",)), ("g", ("x",)), ("g.1", ("(Intercept)",)),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("values", "levels"),
    [
        ([10, 9, 10, 9, 100, 100], ["9", "10", "100"]),
        ([10.0, 9, 10, 9, 0.5, 0.5], ["0.5", "9", "10"]),
        (["10", "9", "10", "9", "100", "100"], ["10", "100", "9"]),
        ([True, False, True, False, True, True], ["FALSE", "TRUE"]),
        (np.array([2**62, -(2**62), 2**62, 5, 5, 5]), [str(-(2**62)), "5", str(2**62)]),
        (np.array([250, 3, 250, 3, 7, 7], dtype=np.uint8), ["3", "7", "250"]),
        (np.array([-128, 127, 127, -128, 0, 0], dtype=np.int8), ["-128", "0", "127"]),
        (pd.Categorical(list("babacc"), categories=list("dcba")), ["c", "b", "a"]),
        (pd.to_datetime(["2020-02-01", "2020-01-01"] * 3), ["2020-01-01", "2020-02-01"]),
    ],
)
def test_levels_of_groups(values, levels):
    m = model_matrices("y ~ 1 + (1 | g)", {"y": np.arange(6.0), "g": values})
    factor = m.factors[0]
    assert factor.levels == levels
    assert factor.codes.dtype == np.int32
    assert factor.n_levels == len(levels)
    if not isinstance(values, pd.DatetimeIndex):
        assert [levels[code] for code in factor.codes] == [written(value) for value in values]


def written(value):
    if isinstance(value, bool):
        return str(value).upper()
    return f"{value:g}" if isinstance(value, float) else str(value)


def test_combinations_that_occur_are_levels():
    m = model_matrices("y ~ 1 + (1 | h/f)", EXAMPLE[(EXAMPLE.h == "p") | (EXAMPLE.f == "b")])
    assert m.factors[0].label == "f:h"
    assert m.factors[0].levels == ["a:p", "b:p", "b:q", "c:p"]


def test_the_same_formula_reads_other_kinds_of_columns():
    # what is kept of a formula between fits must not depend on the frame that was read first
    n = 24
    rng = np.random.default_rng(5)
    base = {"y": rng.normal(size=n), "g": np.arange(n) % 4}
    numbers = pd.DataFrame({**base, "x": rng.normal(size=n)})
    texts = pd.DataFrame({**base, "x": np.array(["a", "b", "c"])[np.arange(n) % 3]})
    formula = "y ~ x + (x | g)"
    for frame, names in [
        (numbers, ("(Intercept)", "x")),
        (texts, ("(Intercept)", "xb", "xc")),
        (numbers.assign(x=numbers.x > 0), ("(Intercept)", "xTRUE")),
        (numbers.astype({"x": "float32"}), ("(Intercept)", "x")),
        (texts[texts.x != "b"], ("(Intercept)", "xc")),
        (numbers, ("(Intercept)", "x")),
    ]:
        matrices = model_matrices(formula, frame, warn=False)
        assert matrices.fixed.names == names
        assert matrices.terms[0].column_names == names
    with pytest.raises(DataError, match="contrasts are given for 'x', which is numeric"):
        model_matrices(formula, numbers, contrasts={"x": "sum"})
    assert model_matrices(formula, texts, contrasts={"x": "sum"}).fixed.names[1:] == ("x1", "x2")


def test_functions_of_one_formula_may_change_their_width():
    n = 12
    frame = pd.DataFrame({"y": np.arange(n) % 5, "x": np.arange(n) / n, "g": np.arange(n) % 3})
    for width in (1, 2, 3, 1):
        env = {"powers": lambda x, k=width: np.column_stack([x**j for j in range(1, k + 1)])}
        matrices = model_matrices("y ~ powers(x) + (1 | g)", frame, env=env)
        names = ["powers(x)"] if width == 1 else [f"powers(x){j + 1}" for j in range(width)]
        assert matrices.fixed.names == ("(Intercept)", *names)
        assert matrices.X.shape == (n, width + 1)
