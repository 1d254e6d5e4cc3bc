"""The fit as JSON: valid under the published schema, and the numbers of the fit."""

from __future__ import annotations

import json
from importlib import resources

import jsonschema
import numpy as np
import pytest

import mixlm_sparse as mx
from tests.support import corpus

SCHEMA = json.loads(
    (resources.files("mixlm_sparse.report.tables") / "fit.schema.json").read_text("utf-8")
)


def read(fit, **options):
    """Return the document as another language reads it."""
    document = json.loads(json.dumps(fit.to_dict(**options), allow_nan=False))
    jsonschema.validate(document, SCHEMA)
    return document


def numbers(values):
    return np.array(values, dtype=np.float64)


@pytest.mark.parametrize("name", ["sleep_rs_reml", "oxboys_ml", "penicillin_reml"])
def test_numbers_are_those_of_the_fit(name):
    fit = corpus.fit(name)
    found = read(fit, cond_var=True)
    np.testing.assert_array_equal(numbers(found["theta"]), fit.theta)
    np.testing.assert_array_equal(numbers(found["fixef"]["values"]), fit.fixef)
    np.testing.assert_array_equal(numbers(found["vcov"]["values"]), fit.cov_params())
    np.testing.assert_allclose(
        numbers(found["coefficients"]["values"])[:, [1, 2, 4]].T,
        [fit.bse, fit.df_coefficients(), fit.pvalues],
        rtol=1e-12,
    )
    effects, variances = fit.ranef(cond_var=True)
    for group, frame in effects.items():
        np.testing.assert_array_equal(numbers(found["ranef"][group]["values"]), frame)
        np.testing.assert_array_equal(
            numbers(found["ranef"][group]["postVar"]), variances[group]
        )
    for term, own in zip(found["VarCorr"], fit.varcorr.terms, strict=True):
        np.testing.assert_array_equal(numbers(term["covariance"]), own.covariance)
    assert found["criterion"] == fit.criterion
    assert found["ngrps"] == fit.ngroups
    unbounded = [value is None for value in found["lower"]]
    np.testing.assert_array_equal(unbounded, np.isinf(fit.lower))


def test_singular_fits_gls_and_undetermined_numbers():
    singular = mx.lmer(
        "distance ~ 1 + (age | Sex)", mx.datasets.load("Orthodont"), control=mx.Control(warn=False)
    )
    assert read(singular)["optinfo"]["singular"] is bool(singular.is_singular())
    residual = mx.CompoundSymmetry(group="Subject")
    gls = mx.gls("distance ~ age", mx.datasets.load("Orthodont"), residual=residual)
    structure = read(gls, ddf="normal")["residual_structure"]
    assert structure["names"] == ["rho"]
    assert structure["values"] == gls.residual_structure["estimate"].tolist()
    sums = mx.fit_products(
        mx.cross_products(
            "distance ~ age + (1 | Subject)",
            mx.datasets.load("Orthodont"),
        )
    )
    assert read(sums)["nobs"] == 108


def test_the_schema_refuses_what_is_not_of_the_form():
    document = corpus.fit("sleep_rs_reml").to_dict()
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    for change in ({"theta": ["1"]}, {"format": "mixlm_sparse/fit/0"}, {"more": 1}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**document, **change}, SCHEMA)


def test_arguments_are_checked():
    fit = corpus.fit("sleep_rs_reml")
    with pytest.raises(mx.OptionError, match="cond_var"):
        fit.to_dict(cond_var="no")
    with pytest.raises(mx.OptionError, match="ddf"):
        fit.to_dict(ddf="exact")
