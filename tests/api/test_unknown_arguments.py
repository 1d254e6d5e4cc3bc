"""Every public call answers arguments that it does not have, in the package's own words."""

from __future__ import annotations

import inspect
import pickle
from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest

import mixlm_sparse as mx
from tests.api import hostile
from tests.api.hostile import Call
from tests.support.corpus import load_data

NOT_HERE = "zz_not_here"
STAGES = ("PlsSolution", "DevianceFunction()")  # called in the loops of programs
FREE = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def constructors() -> Iterator[Call]:
    """Classes that users call."""
    for name in (
        "AR1", "AnteDependence", "CAR1", "CompoundSymmetry", "Control", "Exponential", "Gaussian",
        "Pedigree", "Precision", "RandomEffect", "Relationship", "Toeplitz", "Unstructured",
        "VarExp", "VarIdent", "VarPower",
    ):  # fmt: skip
        yield Call(name, getattr(mx, name))


def of_tables() -> Iterator[Call]:
    """Methods of a table of contrasts, most of which are those of pandas."""
    found = hostile.fit().emmeans("f").pairs()
    for name in ("contrast", "test", "confint", "joint"):
        yield Call(f"Contrasts.{name}", getattr(found, name))


@pytest.fixture(scope="module")
def calls(tmp_path_factory) -> list[Call]:
    folder = tmp_path_factory.mktemp("calls")
    every = [*constructors(), *of_tables(), *hostile.calls(folder)]
    return [call for call in every if called(call) and not stands_in(call)]


def called(call: Call) -> bool:
    """Whether it is a call, and no lookup, and not one in the loops of programs."""
    return not call.name.endswith("[]") and not call.name.startswith(STAGES)


def stands_in(call: Call) -> bool:
    """Whether the function is one of the tests, in the place of one that takes long."""
    return call.function.__module__ == hostile.__name__


def parameters(call: Call) -> list[inspect.Parameter]:
    return list(inspect.signature(call.function).parameters.values())


def test_an_unknown_keyword_is_an_error_of_the_package(calls):
    found = []
    for call in calls:
        free = {p.name for p in parameters(call) if p.kind in FREE}
        arguments = {name: value for name, value in call.arguments.items() if name not in free}
        try:
            call.function(**arguments, **{NOT_HERE: 1})
        except mx.MixedModelError as error:
            if NOT_HERE not in str(error):
                found.append(f"{call.name}: {error}")
        except Exception as error:
            found.append(f"{call.name}: {error!r}")
        else:
            found.append(f"{call.name}: taken")
    assert not found, "\n".join(found)


def test_values_beyond_the_arguments_are_errors_of_the_package(calls):
    found = []
    for call in calls:
        own = parameters(call)
        if any(p.kind is inspect.Parameter.VAR_POSITIONAL for p in own):
            continue
        try:
            call.function(*[None] * (len(own) + 1))
        except mx.MixedModelError:
            continue
        except Exception as error:
            found.append(f"{call.name}: {error!r}")
        else:
            found.append(f"{call.name}: taken")
    assert not found, "\n".join(found)


def test_arguments_that_are_needed_are_named(calls):
    found = []
    for call in calls:
        needed = [p for p in parameters(call) if p.default is p.empty and p.kind not in FREE]
        if not needed:
            continue
        try:
            call.function()
        except mx.MixedModelError as error:
            if not isinstance(error, TypeError) and needed[0].name not in str(error):
                found.append(f"{call.name}: {error}")
        except Exception as error:
            found.append(f"{call.name}: {error!r}")
        else:
            found.append(f"{call.name}: needs nothing")
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("means.pairs('tukey', 'f')", r"pairs takes adjust by place, .*name it, pairs"),
        ("means.pairs(p_adjust='holm')", r"pairs has no argument 'p_adjust': write adjust='holm'"),
        ("means.confint(0.9)", r"confint takes no argument by place, .*level=0\.9"),
        ("means.pairs().test(equal=1)", r"test has no argument 'equal'"),
        ("mx.AR1()", r"AR1 needs time: write AR1\(time\)"),
        ("mx.AR1('t', tim='u')", r"AR1 has no argument 'tim': did you mean time"),
        ("mx.AR1('t', time='t')", r"AR1 was given time twice"),
        ("mx.Control(maxiter=5)", r"Control has no argument 'maxiter'"),
        ("mx.pb_modcomp(fit)", r"pb_modcomp needs smaller: write pb_modcomp\(larger, smaller\)"),
        ("mx.anova()", r"anova needs fit"),
        ("mx.simulate('y ~ x + (1 | g)', {})", r"simulate needs beta"),
        ("mx.datasets.load()", "load needs name"),
        ("mx.plots.caterpillar(fit, level=0.9, order='x', sort=True)", "has no argument 'sort'"),
        ("fit.plot.coefficient_by()", r"coefficient_by needs by: write coefficient_by\(by\)"),
        ("fit.varcorr()", r"varcorr is an attribute, .*fit\.varcorr\['g'\]"),
        ("fit.convergence()", r"is a value, written without parentheses"),
        ("fit.profile('sigma', progress=False)('sigma')", r"Profile is a value, written without"),
    ],
)  # fmt: skip
def test_wrong_calls_name_what_to_write(what, words):
    names = {"mx": mx, "fit": hostile.fit(), "means": hostile.fit().emmeans("f")}
    with pytest.raises(TypeError, match=words) as caught:
        eval(what, names)
    assert isinstance(caught.value, mx.OptionError)


def test_contrasts_are_a_table_that_says_so_when_it_is_called():
    contrasts = hostile.fit().emmeans("f").contrasts
    with pytest.raises(TypeError, match=r"without parentheses; write \.contrast\('pairwise'\)"):
        contrasts("pairwise")
    assert not callable(contrasts)  # what can be called is no data for pandas
    back = pickle.loads(pickle.dumps(contrasts))
    pd.testing.assert_frame_equal(back.to_frame(), contrasts.to_frame())
    means = hostile.fit().emmeans("f")
    assert repr(contrasts) == repr(means.pairs()) == repr(means.contrast("pairwise"))
    again = contrasts.contrast([1, -1, 0])
    pd.testing.assert_frame_equal(again, means.pairs().contrast([1, -1, 0]))


@pytest.mark.parametrize("kind", ["Relationship", "Precision"])
def test_a_frame_brings_its_labels(kind):
    make = getattr(mx, kind)
    batches = load_data("Dyestuff")
    matrix = 0.5 * np.eye(6) + np.diag(np.linspace(0.1, 0.6, 6))
    matrix[0, 1] = matrix[1, 0] = 0.2
    labels = list("ABCDEF")
    frame = pd.DataFrame(matrix, index=labels, columns=labels)

    def criterion(known):
        return mx.lmer("Yield ~ 1 + (1 | Batch)", batches, known={"Batch": known}).criterion

    expected = criterion(make(matrix, labels))
    assert criterion(make(frame)) == expected
    assert criterion(make(frame[labels[::-1]])) == expected  # columns in another order
    assert criterion(make(frame, labels)) == expected
    assert criterion(make(frame.reset_index(drop=True), labels)) == expected
    with pytest.raises(mx.OptionError, match=f"{kind} needs labels, .*DataFrame with label"):
        make(matrix)
    with pytest.raises(mx.DataError, match="different labels: set its index to its columns"):
        make(frame.reset_index(drop=True))
    with pytest.raises(mx.DataError, match=f"labels of {kind} are not those that the rows"):
        make(frame, labels[::-1])
