"""The fuzz targets without their engine: seeds, inputs that once broke something, and any bytes."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mixlm_sparse as mx
from fuzz.source import Source
from fuzz.targets import TARGETS, Target, tried

BROKE = sorted((Path(__file__).parent / "once_broke").glob("*/*"))


def require_nothing(name: str, data: bytes) -> None:
    finding = tried(TARGETS[name], data)
    assert finding is None, f"{finding.kind}\n{finding.text}"


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_find_nothing(name):
    seeds = TARGETS[name].seeds()
    assert seeds
    for data in seeds:
        assert len(data) <= TARGETS[name].most
        require_nothing(name, data)


@pytest.mark.parametrize("path", BROKE, ids=[f"{p.parent.name}-{p.name}" for p in BROKE])
def test_what_once_broke_is_mended(path):
    require_nothing(path.parent.name, path.read_bytes())


@pytest.mark.parametrize("name", TARGETS)
def test_any_bytes_find_nothing(name):
    @settings(max_examples=25)
    @given(st.binary(max_size=TARGETS[name].most))
    def check(data):
        require_nothing(name, data)

    check()


def test_what_counts_as_a_finding():
    def raising(error):
        def one(data):
            raise error

        return tried(Target(one, list, 10), b"")

    assert raising(mx.FormulaError("no")) is None
    assert raising(mx.SingularFitWarning("no")).kind.startswith("SingularFitWarning")
    for error in (ValueError("x"), RecursionError(), MemoryError(), SystemExit(0), OSError(5)):
        assert raising(error).kind.startswith(type(error).__name__)
    assert raising(ZeroDivisionError()).kind.startswith("ZeroDivisionError in test_fuzz.py:one:")


def test_equal_bytes_make_equal_decisions():
    def decisions(data):
        source = Source(data)
        return repr([[source.number() for _ in range(20)], source.text(), source.below(10**6)])

    assert decisions(bytes(range(200))) == decisions(bytes(range(200)))
    empty = Source(b"")
    assert (empty.below(5), empty.text(), empty.number(), empty.rest()) == (0, "", 0.0, b"")
