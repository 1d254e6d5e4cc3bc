"""What the package offers: names, arguments and defaults, as `public_names.txt` lists them.

A change of that file is a change of the interface.  Written anew by
`python -m tests.api.test_public_names`.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import mixlm_sparse as mx

LIST = Path(__file__).with_name("public_names.txt")
PLAIN = {name for base in (object, Exception, tuple, str) for name in dir(base)}


def lines() -> Iterator[str]:
    for name in sorted(mx.__all__):
        value = getattr(mx, name)
        if inspect.isclass(value):
            yield from of_class(name, value)
        elif inspect.ismodule(value):
            yield f"{name}: module"
            yield from (
                f"    {name}.{inner}{arguments(getattr(value, inner))}"
                for inner in sorted(value.__all__)
            )
        elif callable(value):
            yield f"{name}{arguments(value)}"
        else:
            yield name


def of_class(name: str, value: type) -> Iterator[str]:
    if issubclass(value, BaseException):
        yield f"{name}: {', '.join(base.__name__ for base in value.__bases__)}"
        return
    yield f"class {name}"
    fields = getattr(value, "__dataclass_fields__", {})
    internal = getattr(sys.modules[value.__module__], "INTERNAL", ())
    for inner in sorted({*(n for n in value.__dict__), *shown(value), *fields}):
        if inner.startswith("_") or inner in PLAIN or inner in internal:
            continue
        found = inspect.getattr_static(value, inner, None)
        called = inspect.isroutine(found) or isinstance(found, classmethod | staticmethod)
        yield f"    .{inner}{arguments(getattr(value, inner), skip=1) if called else ''}"


def shown(value: type) -> set[str]:
    return set(dir(value))


def arguments(function: object, skip: int = 0) -> str:
    """The signature without annotations, which may become more exact."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return ""
    parameters = [
        p.replace(annotation=p.empty) for p in signature.parameters.values()
    ]
    if parameters and parameters[0].name in ("self", "fit", "cls") and skip:
        parameters = parameters[1:]
    return str(signature.replace(parameters=parameters, return_annotation=signature.empty))


def test_public_names_and_arguments():
    assert list(lines()) == LIST.read_text(encoding="utf-8").splitlines(), (
        "the interface changed: if that is meant, run `python -m tests.api.test_public_names`"
    )


# What docs/stability.md promises outside of the package's own names.
PROMISED = {
    "interop.sklearn.MixedLMRegressor": (
        "(formula=None, reml=True, *, re_form=None, na_action='raise', contrasts=None, "
        "optimizer='auto', control=None, residual=None, variance=None, fixed=None)"
    ),
    "interop.sklearn.MixedLMRegressor.fit": "(self, X, y, groups=None, sample_weight=None)",
    "interop.sklearn.MixedLMRegressor.predict": "(self, X, groups=None)",
    "interop.sklearn.MixedLMRegressor.score": "(self, X, y, groups=None, sample_weight=None)",
    "interop.marginaleffects.adapter": "(fit, *, df=inf)",
    "covariance.structure.structure": "(name, arguments='')",
    "engines.choose.make_engine": "(name, system, penalties=(), estimation=None)",
}


@pytest.mark.parametrize("name", PROMISED)
def test_promised_names_elsewhere(name):
    room, module, *inner = name.split(".")
    try:
        value = importlib.import_module(f"mixlm_sparse.{room}.{module}")
    except mx.MissingPackageError as error:
        pytest.skip(str(error))
    for part in inner:
        value = getattr(value, part)
    assert arguments(value) == PROMISED[name]


def test_completion_offers_what_users_need():
    assert sorted(dir(mx)) == sorted(mx.__all__)
    modules = {name for name in dir(mx) if inspect.ismodule(getattr(mx, name))}
    assert modules == {"datasets", "plots"}


def test_star_import_takes_the_public_names():
    names: dict[str, object] = {}
    exec("from mixlm_sparse import *", names)
    assert set(names) - {"__builtins__"} == set(mx.__all__)


@pytest.mark.parametrize(("name", "right"), [("fit", "lmer"), ("mixedlm", "lmer")])
def test_names_of_other_packages_are_answered(name, right):
    with pytest.raises(AttributeError, match=rf"use mixlm_sparse\.{right}"):
        getattr(mx, name)
    with pytest.raises(AttributeError, match="linear mixed models only"):
        mx.glmer  # noqa: B018
    assert not hasattr(mx, "nonsense")


def output(code: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_import_loads_what_is_asked_for():
    modules = "print(*sorted(sys.modules))"
    alone = set(output(f"import sys, mixlm_sparse; {modules}"))
    assert not {"numpy", "pandas", "scipy"} & alone
    heavy = {"matplotlib", "numba", "scipy.stats", "scipy.interpolate", "scipy.optimize"}
    assert not heavy & set(output(f"import sys, mixlm_sparse; mixlm_sparse.lmer; {modules}"))
    shell = "from mixlm_sparse.interop.cli.main import parser; parser().format_help()"
    assert not {"numpy", "pandas", "scipy"} & set(output(f"import sys; {shell}; {modules}"))


def test_a_fit_loads_what_it_needs():
    code = (
        "import sys, mixlm_sparse as mx; "
        "fit = mx.lmer('Yield ~ 1 + (1 | Batch)', mx.datasets.load('Dyestuff')); "
        "before = [m for m in sys.modules if m.startswith(('mixlm_sparse.inference.', "
        "'mixlm_sparse.report.'))]; "
        "print(len(before), type(fit.plot).__name__, len(fit.summary().html) > 100)"
    )
    assert output(code) == ["0", "FitPlots", "True"]


def test_modules_of_methods_that_come_later_are_those_that_type_checkers_see():
    source = Path(inspect.getfile(mx.LinearMixedFit)).read_text(encoding="utf-8")
    typed, late = {}, {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module.startswith("mixlm_sparse."):
            for alias in node.names:
                typed[alias.asname or alias.name] = f"{node.module}.{alias.name}"
        elif isinstance(node, ast.Assign) and getattr(node.value, "func", None) is not None:
            if getattr(node.value.func, "id", "") == "Late":
                late[node.targets[0].id] = f"mixlm_sparse.{node.value.args[0].value}"
    assert late == {name: typed[name] for name in late}
    assert len(late) > 20


def test_types_and_names_come_from_the_same_modules():
    tree = ast.parse(Path(mx.__file__).read_text(encoding="utf-8"))
    checked = next(node for node in tree.body if isinstance(node, ast.If))
    found = {
        alias.name: node.module
        for node in checked.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert set(found) == {*mx.__all__} - {"__version__"}
    for name, module in found.items():
        value = getattr(mx, name)
        if not inspect.ismodule(value):
            assert value is getattr(importlib.import_module(module), name)
            assert mx._HOME_OF[name] == module.removeprefix("mixlm_sparse.")


def test_results_that_are_unpickled_before_anything_is_used_have_their_plots(tmp_path):
    fit = mx.lmer("Yield ~ 1 + (1 | Batch)", mx.datasets.load("Dyestuff"))
    results = [fit.bootstrap(3, seed=1), fit.profile("sigma"), fit.influence()]
    path = tmp_path / "results"
    path.write_bytes(pickle.dumps(results))
    code = (
        f"import pickle; found = pickle.load(open({str(path)!r}, 'rb')); "
        "print(*[type(r.plot).__name__ for r in found])"
    )
    assert output(code) == ["BootstrapPlots", "ProfilePlots", "InfluencePlots"]


def test_every_room_imports_alone():
    for room in ("common", "formula", "covariance", "engines", "design", "solve", "model"):
        importlib.import_module(f"mixlm_sparse.{room}")


if __name__ == "__main__":
    LIST.write_text("\n".join(lines()) + "\n", encoding="utf-8")
