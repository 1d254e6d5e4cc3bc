"""The table of methods: what help and completion show, and that a fit answers as its functions."""

from __future__ import annotations

import inspect

import numpy as np
import pandas as pd
import pytest

import mixlm_sparse as mx
from tests.support import corpus


def methods() -> list[str]:
    public = [name for name in dir(mx.LinearMixedFit) if not name.startswith("_")]
    return [name for name in public if inspect.isfunction(getattr(mx.LinearMixedFit, name))]


@pytest.mark.parametrize("name", methods())
def test_help_lists_every_parameter_where_the_method_is(name):
    method = getattr(mx.LinearMixedFit, name)
    text = inspect.getdoc(method)
    assert text
    assert "see the class" not in text.lower()
    assert "`InferenceMethods" not in text
    for parameter in list(inspect.signature(method).parameters)[1:]:
        assert parameter in text, f"{name} does not say what {parameter} is"


def test_completion_leaves_out_what_is_internal():
    fit = corpus.fit("sleep_rs_reml")
    shown = set(dir(fit))
    assert {"emmeans", "fixef", "plot", "refit", "save", "summary"} <= shown
    assert not {"emit_notes", "aligned", "pearson_used", "standard_errors"} & shown


def test_anova_is_one_function_for_fits_and_lists_of_fits():
    fit = corpus.fit("sleep_rs_reml")
    smaller = fit.update(". ~ . - Days")
    pd.testing.assert_frame_equal(mx.anova(fit), fit.anova())
    pd.testing.assert_frame_equal(mx.anova([smaller, fit]), smaller.anova(fit))
    pd.testing.assert_frame_equal(mx.anova(smaller, fit), smaller.anova(fit))
    with pytest.raises(mx.OptionError, match="takes fits of lmer or a list of them"):
        mx.anova(fit, "b")


def test_components_by_several_names():
    fit = corpus.fit("sleep_rs_reml")
    found = fit.getME(["theta", "Zt"])
    np.testing.assert_array_equal(found["theta"], fit.theta)
    by_column = fit.getME("Ztlist")
    assert list(by_column) == ["Subject.(Intercept)", "Subject.Days"]
    np.testing.assert_array_equal(
        by_column["Subject.Days"].toarray(), found["Zt"].toarray()[1::2]
    )
    with pytest.raises(mx.OptionError, match="getME knows no component 'Q'"):
        fit.getME(["theta", "Q"])
