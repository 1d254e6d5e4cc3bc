"""The checks of arguments: what passes, what does not, and that no value breaks the message."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from mixlm_sparse.common import checks
from mixlm_sparse.common.errors import OptionError, UnknownKeyError


class Hostile:
    def __repr__(self) -> str:
        raise RuntimeError("no repr")

    def __bool__(self) -> bool:
        raise RuntimeError("no truth value")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no equality")

    __hash__ = None  # type: ignore[assignment]


WRONG = [
    [], {}, {"a": 1}, {1}, object(), Hostile(), np.zeros(3), np.zeros((2, 2)), pd.NA, pd.NaT,
    pd.Series([1.0, 2.0]), pd.DataFrame({"a": [1]}), b"x", 1j, "\ud800", lambda: 0, 10**400,
    float("nan"), range(10**12),
]  # fmt: skip


@pytest.mark.parametrize("value", WRONG, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize(
    "check",
    [
        lambda v: checks.require_one_of("word", v, ("a", "b")),
        lambda v: checks.require_bool("word", v),
        lambda v: checks.require_level("word", v),
        lambda v: checks.require_count("word", v, most=10),
        lambda v: checks.require_number("word", v),
        lambda v: checks.require_names("word", v, ["x", "y"]),
    ],
    ids=["one_of", "bool", "level", "count", "number", "names"],
)
def test_what_is_none_of_them_is_refused_by_name(check, value):
    with pytest.raises(OptionError, match=r"word|there is no") as caught:
        check(value)
    message = str(caught.value)
    assert len(message) < 300
    message.encode("utf-8")


def test_values_that_pass_come_back_in_plain_types():
    assert checks.require_one_of("o", np.str_("a"), ("a", "b")) == "a"
    assert checks.require_one_of("o", None, ("a", None)) is None
    assert checks.require_bool("b", np.True_) is True
    assert checks.require_level("level", np.float32(0.5)) == 0.5
    assert checks.require_count("nsim", np.int64(3)) == 3
    assert checks.require_number("x", np.array(2)) == 2.0
    assert checks.require_number("x", np.inf, finite=False) == np.inf
    assert checks.require_names("terms", "`day of study`") == ["day of study"]
    assert checks.require_names("terms", pd.Index(["b", "a", "b"])) == ["b", "a"]
    assert checks.require_names("terms", [], empty=True) == []


def test_messages_name_the_remedy():
    with pytest.raises(OptionError, match=r"level is 95: .* such as 0\.95"):
        checks.require_level("level", 95)
    with pytest.raises(OptionError, match=r"level is 90: .* such as 0\.9"):
        checks.require_level("level", 90)
    with pytest.raises(OptionError, match="did you mean 'profile'"):
        checks.require_one_of("method", "profil", ("profile", "wald"))
    with pytest.raises(OptionError, match="tol is -1: use a number of at least 0"):
        checks.require_number("tol", -1, least=0)
    with pytest.raises(OptionError, match="se is 'no': use True or False"):
        checks.require_bool("se", "no")
    with pytest.raises(OptionError, match=r"there is no term 'Dayz' .did you mean 'Days'"):
        checks.require_names("terms", "Dayz", ["Days"], "term")


def test_long_lists_and_long_names_are_cut():
    names = [f"level {i}" for i in range(5000)]
    assert checks.listed(names).endswith("and 4992 more")
    assert len(checks.listed(["x" * 10_000])) == checks.MAX_NAME
    assert len(checks.shown("x" * 10_000)) == checks.MAX_SHOWN
    assert checks.shown(list(range(1000))) == "a list of 1000 entries"


def test_numbers_in_a_row():
    assert checks.require_vector("theta", 1).tolist() == [1.0]
    assert checks.require_vector("theta", pd.Series([1, 2]), 2).tolist() == [1.0, 2.0]
    assert checks.require_vector("bound", [np.inf], finite=False).tolist() == [np.inf]
    with pytest.raises(OptionError, match=r"theta has 3 values: give 2 numbers for a, b"):
        checks.require_vector("theta", [1, 2, 3], 2, of="a, b")
    with pytest.raises(OptionError, match=r"theta has nan in place 1"):
        checks.require_vector("theta", [1, np.nan])
    for value in ([[1], [1, 2]], "1", None, 1j, range(10**12), Hostile(), [10**400], np.eye(2)):
        with pytest.raises(OptionError, match="theta"):
            checks.require_vector("theta", value)


def test_objects_mappings_and_processes():
    assert checks.require_instance("fit", 3, int, "use a number") == 3
    with pytest.raises(OptionError, match=r"fit is 'a': use a number"):
        checks.require_instance("fit", "a", int, "use a number")
    assert checks.require_mapping("at", None, "{'x': 1}") == {}
    with pytest.raises(OptionError, match=r"at is \[1\]: use a dictionary such as {'x': 1}"):
        checks.require_mapping("at", [1], "{'x': 1}")
    with pytest.raises(OptionError, match="at has the key 1"):
        checks.require_mapping("at", {1: 2}, "{'x': 1}")
    assert checks.require_jobs(np.int64(-1)) == -1
    with pytest.raises(OptionError, match="n_jobs is 0"):
        checks.require_jobs(0)


def test_every_message_can_be_shown():
    error = OptionError("there is no column '\ud800' in " + "z" * 100_000)
    assert len(str(error)) == 1500
    str(error).encode("utf-8")
    assert str(UnknownKeyError("there is no 'x'")) == "there is no 'x'"
