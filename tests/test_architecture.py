"""Imports point one way, and each optional package is imported in one place only.

Read from the syntax trees: imports inside functions count too; imports under TYPE_CHECKING do not
run, and do not count.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "mixlm_sparse"
NAME = PACKAGE.name

# From the bottom up. A module imports its own layer's folder and lower layers only. What is not
# named here is a leaf: it may import anything, and no layer may import it.
LAYERS: list[set[str]] = [
    {"errors", "_types"},
    {"formula", "covariance", "factor", "text", "progress", "groupwise"},
    {"design", "formula_update", "parallel"},
    {"crossproducts"},
    {"pls"},
    {"solution"},
    {"deviance"},
    {"optimize"},
    {"arrays", "varcorr", "diagnosis", "pipeline"},
    {"fitted", "responses", "designs", "predict"},
    {"components", "tables", "simulate"},
    {"inference"},
    {"prediction_methods", "plots", "io"},
    {"result"},
    {"fit"},
]

# package -> the only module or folder that may import it
CONFINED = {
    "patsy": "design",
    "narwhals": "design",
    "sksparse": "factor/cholmod",
    "numba": "factor/kernels",
    "nlopt": "optimize",
    "matplotlib": "plots",
    "sklearn": "interop",
    "marginaleffects": "interop",
    "dask": "sources",
    "pyarrow": "sources",
    "duckdb": "sources",
}

FILES = sorted(PACKAGE.rglob("*.py"))


def module_of(path: Path) -> str:
    """ "factor/blocked" for mixlm_sparse/factor/blocked.py, "design" for
    mixlm_sparse/design/__init__.py.
    """
    relative = path.relative_to(PACKAGE).with_suffix("").as_posix()
    return relative.removesuffix("/__init__")


def statements(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes below `node` that run, that is without the bodies of `if TYPE_CHECKING:`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from statements(child)


def imported(path: Path) -> list[str]:
    """Dotted names that a file imports, relative ones resolved."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    package = [NAME, *path.relative_to(PACKAGE).parts[:-1]]
    found: list[str] = []
    for node in statements(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join([*package[: len(package) - node.level + 1], *filter(None, [base])])
            # `from mixlm_sparse import errors` imports a module
            found += [f"{base}.{alias.name}" for alias in node.names] if base == NAME else [base]
    return found


def layer_of(module: str) -> int | None:
    top = module.split("/")[0]
    return next((i for i, layer in enumerate(LAYERS) if top in layer), None)


def own_imports(path: Path) -> set[str]:
    """Top modules of this package that a file imports, its own folder excepted."""
    tops = {name.split(".")[1] for name in imported(path) if name.startswith(NAME + ".")}
    return tops - {module_of(path).split("/")[0]}


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_imports_point_down(path):
    level = layer_of(module_of(path))
    if level is None:
        return
    for other in own_imports(path):
        below = layer_of(other)
        assert below is not None, f"{module_of(path)} imports {other}, which is no layer"
        assert below < level, f"{module_of(path)} imports {other}, which stands above or beside it"


def test_folders_of_the_package_do_not_import_each_other_in_circles():
    graph: dict[str, set[str]] = {}
    for path in FILES:
        top = module_of(path).split("/")[0]
        if top != ".":
            graph.setdefault(top, set()).update(own_imports(path))
    seen: dict[str, int] = {}

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, " -> ".join([*trail, module])
        if seen.get(module) != 1:
            for other in graph.get(module, ()):
                visit(other, (*trail, module))
            seen[module] = 1

    for module in graph:
        visit(module, ())


@pytest.mark.parametrize("package", sorted(CONFINED))
def test_package_is_imported_in_one_place(package):
    home = CONFINED[package]
    users = {
        module_of(path)
        for path in FILES
        if any(name.split(".")[0] == package for name in imported(path))
    }
    strangers = {m for m in users if m != home and not m.startswith(home + "/")}
    assert not strangers
    assert len(users) <= 1, f"more than one module imports {package}: {sorted(users)}"


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_no_code_is_evaluated_or_unpickled(path):
    """A formula may come from a web form, a saved fit from a stranger."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    calls = {
        n.func.id
        for n in ast.walk(tree)
        if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)
    }
    assert not calls & {"eval", "exec", "compile", "__import__"}
    assert not {name.split(".")[0] for name in imported(path)} & {"pickle", "marshal", "shelve"}
