"""The data and the fit that most tests of the interface use."""

from __future__ import annotations

import pytest

from tests.support import corpus


@pytest.fixture
def sleep():
    return corpus.load_data("sleepstudy")


@pytest.fixture
def fit():
    return corpus.fit("sleep_rs_reml")
