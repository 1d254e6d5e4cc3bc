"""Growing maps from keys to codes, compiled and not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixlm_sparse.engines import decisions
from mixlm_sparse.engines.keys import KeyMap

KEYS = st.one_of(
    st.integers(-5, 5), st.integers(-(10**7), 10**7), st.integers(-(2**63), 2**63 - 1)
)


@pytest.fixture(params=[True, False])
def machine_code(request, monkeypatch):
    monkeypatch.setattr(decisions, "_switch", request.param)


@pytest.mark.usefixtures("machine_code")
class TestKeyMap:
    @settings(max_examples=60, deadline=None)
    @given(batches=st.lists(st.lists(KEYS, max_size=30), min_size=1, max_size=6))
    def test_codes_are_the_order_of_appearance(self, batches):
        known = KeyMap()
        for batch in batches:
            keys = np.array(batch, dtype=np.int64)
            codes = known.encode(keys)
            assert (known.values[codes] == keys).all()
        seen = [key for batch in batches for key in batch]
        assert sorted(known.values.tolist()) == sorted(set(seen))

    def test_many_keys_in_any_range(self):
        rng = np.random.default_rng(0)
        for pool in (
            np.arange(30_000), rng.integers(-(2**62), 2**62, 30_000), 3_000_000 * np.arange(500)
        ):  # fmt: skip
            known = KeyMap()
            keys = rng.choice(pool, 60_000)
            codes = np.concatenate([known.encode(part) for part in np.array_split(keys, 7)])
            assert (known.values[codes] == keys).all()
            assert len(known) == np.unique(keys).size


def test_going_over_to_machine_code_keeps_codes(monkeypatch):
    known = KeyMap()
    monkeypatch.setattr(decisions, "_switch", False)
    first = known.encode(np.array([70, 5, 70, -1]))
    monkeypatch.setattr(decisions, "_switch", True)
    again = known.encode(np.array([5, 6, 70, -1]))
    assert [first[0], first[1], first[3]] == [again[2], again[0], again[3]]
    assert len(known) == 4
