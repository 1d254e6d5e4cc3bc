"""Structures over times: what stands left of the bar must have places in time."""

from __future__ import annotations

import pytest

import mixlm_sparse as mx


@pytest.mark.parametrize("structure", ["ar1", "toep"])
def test_an_intercept_has_no_place_among_times(structure) -> None:
    data = mx.datasets.load("Orthodont")
    with pytest.raises(mx.FormulaError, match=rf"write {structure}\(0 \+ age \| Subject\)"):
        mx.lmer(f"distance ~ Sex + {structure}(age | Subject)", data)


def test_times_that_are_equally_far_apart_may_have_any_unit() -> None:
    data = mx.datasets.load("Orthodont")
    formula = "distance ~ Sex + ar1(0 + age | Subject)"
    fits = [mx.lmer(formula, data.assign(age=data["age"] * unit)) for unit in (1.0, 0.1)]
    assert fits[0].criterion == pytest.approx(fits[1].criterion, abs=1e-8)
