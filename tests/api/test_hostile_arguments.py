"""Whatever stands in an argument: a result, or an error of the package that can be shown.

Every public function and method, with every hostile value in every argument.  A call that never
ends, or that takes all memory, shows as a suite that does not end.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

import mixlm_sparse as mx
from mixlm_sparse.common.errors import MissingPackageError
from tests.api import hostile, test_public_names

matplotlib = pytest.importorskip("matplotlib")
LONGEST = 1500  # of a message


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("saved")


def faults(call: hostile.Call) -> Iterator[str]:
    pyplot = pytest.importorskip("matplotlib.pyplot")
    for name in call.names():
        hide = hostile.HIDDEN.get(name)
        tries = [(k, v) for k, v in hostile.values() if name != "n_jobs" or k not in hostile.MANY]
        if hide:
            tries += [(f"hidden {label}", value) for label, value in hostile.VALUES.items()]
        for label, value in tries:
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", mx.MixedModelWarning)
                    call(name, hide(value) if hide and label.startswith("hidden") else value)
                if not hide and not call.suits(name, value):
                    yield f"{name}={label}: accepted"
            except mx.MixedModelError as error:
                message = str(error)
                if len(message) > LONGEST or message != message.encode().decode():
                    yield f"{name}={label}: the message cannot be shown"
            except RuntimeError as error:
                if str(error) != "broken":  # what the user's object raises is the user's
                    yield f"{name}={label}: {error!r:.200}"
            except Exception as error:
                yield f"{name}={label}: {error!r:.200}"
            if call.name.startswith("plots."):
                pyplot.close("all")


def public_calls() -> Iterator[str]:
    """What the list of public names says can be called with an argument.

    Functions, and methods of the objects that a user gets; residual structures are called by fits.
    """
    owner = ""
    given = {"fit", *hostile.results()}
    for line in test_public_names.lines():
        name, _, arguments = line.strip().partition("(")
        if line.startswith("class "):
            owner = name.removeprefix("class ").replace("LinearMixedFit", "fit")
        elif arguments not in ("", ")") and (not name.startswith(".") or owner in given):
            yield owner + name if name.startswith(".") else name


def test_every_public_call_is_in_the_table(folder):
    tried = {call.name for call in hostile.calls(folder)}
    of_mapping = {".get"}  # Python's own
    missing = [
        name
        for name in public_calls()
        if not {name, name.partition(".")[0]} & (tried | hostile.INSIDE)
        and not any(name.endswith(end) for end in of_mapping)
    ]
    assert not missing


@pytest.mark.parametrize("kind", ["of_package", "of_fit", "of_results", "of_plots"])
def test_only_errors_of_the_package_come_out(kind, folder, monkeypatch):
    monkeypatch.chdir(folder)  # where "zz" is saved
    takes_folder = kind in ("of_package", "of_fit")
    make = getattr(hostile, kind)
    found = []
    for call in make(folder) if takes_folder else make():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", mx.MixedModelWarning)
            try:
                if call.works:
                    call()  # the arguments of the table are good ones
            except MissingPackageError:  # another package takes the result
                continue
        found += [f"{call.name}: {fault}" for fault in faults(call)]
    assert not found, "\n".join([f"{len(found)} faults", *found[:40]])
