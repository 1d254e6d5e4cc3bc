"""Searches that come back to a known optimum end there, and only those."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

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


def test_looks_that_come_back_take_fewer_evaluations_and_are_told_all_the_same() -> None:
    looks = evaluations = 0
    for seed in range(20_000, 20_040):
        fit = fit_of(random_model(seed))
        if fit.optimum.tried:
            looks += len(fit.optimum.tried)
            evaluations += fit.convergence.n_evaluations
            first, *others = (float(end.rpartition(": ")[2]) for end in fit.optimum.tried)
            assert min(first, *others) == pytest.approx(fit.criterion, abs=1e-5)
    assert looks > 20
    assert evaluations < 24 * looks
