"""A folder with data in which commands are run."""

from __future__ import annotations

import pytest

from tests.support import corpus


@pytest.fixture
def sleep():
    frame = corpus.load_data("sleepstudy")
    return frame.assign(Subject="S" + frame["Subject"].astype(str))


@pytest.fixture
def folder(tmp_path, monkeypatch, sleep):
    """An empty folder with data, which is the working directory."""
    monkeypatch.chdir(tmp_path)
    sleep.to_csv("sleep.csv", index=False)
    return tmp_path
