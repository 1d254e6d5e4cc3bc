"""Searches that come back to a known optimum end there, and only those."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mixlm_sparse as mx
from benchmarks.random_models import random_model
from benchmarks.random_structures import structured_model
from benchmarks.reliability import fit_of
from mixlm_sparse.solve.search.known import Known, place_of

T = np.array([[1.0, 0.0], [0.4, 0.7]])
END = 100.0


def known() -> Known:
    out = Known()
    out.add(END, place_of([T]))
    return out


@given(st.floats(0.0, 2.0 * np.pi), st.sampled_from([-1.0, 1.0]))
def test_axes_and_signs_do_not_matter(angle: float, sign: float) -> None:
    Q = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    assert known().back_at(place_of([sign * T @ Q]), END + 8e-6, 8e-6) == END


@pytest.mark.parametrize(
    ("size", "value", "decrease"),
    [
        (1.0, END + 8e-6, 8e-5),  # more is to be won than there is down to it
        (1.0, END + 8e-6, 1e-8),  # less: another optimum next to it, or a saddle
        (1.0, END - 1e-5, 0.0),  # lower
        (1.0, END + 1e-3, 1e-3),  # far above
        (1.01, END + 8e-6, 8e-6),  # other variances
    ],
)
def test_other_searches_go_on(size: float, value: float, decrease: float) -> None:
    assert known().back_at(place_of([size * T]), value, decrease) is None


@pytest.mark.parametrize("small", [1e-3, 1e-1, 1e3])
def test_small_variances_are_told_apart_as_large_ones_are(small: float) -> None:
    found = Known()
    found.add(END, place_of([np.diag([small, 1.0])]))
    assert found.back_at(place_of([np.diag([small, 1.0])]), END + 8e-6, 8e-6) == END
    beside = place_of([np.diag([10.0 * small, 1.0])])
    assert found.back_at(beside, END + 8e-6, 8e-6) is None


def test_a_lower_valley_beside_a_known_one_is_found() -> None:
    # singular on a face of the possible correlations, and lower inside: what the dense search finds
    fit = fit_of(structured_model(8))
    assert fit.criterion == pytest.approx(224.8145600, abs=1e-6)


def test_looks_that_come_back_take_fewer_evaluations_and_find_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fits() -> list[mx.LinearMixedFit]:
        return [fit_of(random_model(seed)) for seed in range(20_000, 20_040)]

    mx.use_compiled(False)  # compiled looks go on to their ends
    try:
        ended = fits()
        monkeypatch.setattr(Known, "back_at", lambda *_args: None)
        whole = fits()
    finally:
        mx.use_compiled(None)
    assert sum(len(fit.optimum.tried) for fit in ended) > 20
    for one, other in zip(ended, whole, strict=True):
        assert one.criterion == pytest.approx(other.criterion, abs=1e-6)
        assert len(one.optimum.tried) == len(other.optimum.tried)
        for said in one.optimum.tried:
            assert float(said.rpartition(": ")[2]) >= one.criterion - 1e-5
    counts = [sum(fit.convergence.n_evaluations for fit in some) for some in (ended, whole)]
    assert counts[0] < 0.9 * counts[1]
