"""Every public object has a docstring with an example, and a page of the interface.

That the examples are right is for `pytest --doctest-modules mixlm_sparse`.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import mixlm_sparse as mx
from tests.api.test_public_names import LIST

API = Path(__file__).parents[2] / "docs" / "api.md"
ERRORS = {
    name
    for name in mx.__all__
    if inspect.isclass(getattr(mx, name)) and issubclass(getattr(mx, name), Exception)
}
OBJECTS = sorted({*mx.__all__} - ERRORS - {"__version__", "datasets", "plots"})


def members(name: str) -> list[str]:
    """The public members of a class, as `public_names.txt` lists them."""
    found = re.search(rf"^class {name}\n((?:    .*\n)*)", LIST.read_text("utf-8"), re.M)
    assert found is not None
    return re.findall(r"^    \.(\w+)", found[1], re.M)


FIT = [n for n in members("LinearMixedFit") if n not in mx.LinearMixedFit.__dataclass_fields__]


def documented() -> Iterator[tuple[str, Any]]:
    for name in OBJECTS:
        yield name, getattr(mx, name)
    for module in (mx.plots, mx.datasets):
        for name in module.__all__:
            yield f"{module.__name__.split('.')[-1]}.{name}", getattr(module, name)
    for name in FIT:
        if callable(getattr(mx.LinearMixedFit, name)):
            yield f"LinearMixedFit.{name}", getattr(mx.LinearMixedFit, name)


@pytest.mark.parametrize(("name", "value"), list(documented()))
def test_a_docstring_has_an_example(name, value):
    text = inspect.getdoc(value) or ""
    assert re.search(r"^Examples\n-+\n(.|\n)*>>> ", text, re.M), f"{name} has no example"


@pytest.mark.parametrize("name", FIT)
def test_an_attribute_of_the_fit_says_what_it_is(name):
    assert inspect.getdoc(inspect.getattr_static(mx.LinearMixedFit, name))


@pytest.fixture(scope="module")
def entries() -> set[str]:
    """What the page of the interface names, each with a page of its own."""
    if not API.is_file():
        pytest.skip("the documentation is not beside the tests")
    text = API.read_text(encoding="utf-8")
    module, found = "", set()
    for line in text.splitlines():
        if match := re.match(r"\.\. currentmodule:: mixlm_sparse(?:\.report\.(\w+))?$", line):
            module = f"{match[1]}." if match[1] else ""
        elif match := re.match(r"\.\. autofunction:: mixlm_sparse\.(.*)$", line):
            found.add(match[1])
        elif match := re.match(r"   ([\w.]+)$", line):
            found.add(module + match[1])
    return found


def test_every_public_object_is_on_the_pages(entries):
    wanted = {*OBJECTS, *(f"LinearMixedFit.{name}" for name in FIT)}
    wanted |= {f"plots.{name}" for name in mx.plots.__all__}
    wanted |= {f"datasets.{name}" for name in mx.datasets.__all__}
    assert sorted(wanted - entries) == []


def test_every_error_and_warning_is_on_the_pages():
    from mixlm_sparse.common import errors

    assert "automodule:: mixlm_sparse.common.errors" in API.read_text(encoding="utf-8")
    assert sorted(ERRORS - set(dir(errors))) == []
