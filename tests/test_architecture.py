"""The import rule of the house: rooms on floors, no circle, each optional package in one module.

Read from the syntax trees: imports inside functions and under TYPE_CHECKING count too.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "mixlm_sparse"
NAME = PACKAGE.name

# From the bottom up. A room imports lower floors only, never a neighbour on its own floor.
FLOORS: list[set[str]] = [
    {"common"},
    {"covariance", "engines", "datasets"},
    {"formula"},  # asks the registry of covariance structures which names there are
    {"design"},
    {"solve"},
    {"model"},
    {"inference"},
    {"report"},
    {"api"},
    {"interop"},
]
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}

# package -> the only module that may import it
CONFINED = {
    "patsy": "design",
    "narwhals": "design",
    "sksparse": "engines/cholmod",
    "numba": "engines/kernels",
    "nlopt": "solve/search",
    "matplotlib": "report/plots",
    "sklearn": "interop",
    "marginaleffects": "interop",
    "dask": "design",
    "pyarrow": "design",
    "duckdb": "design",
    "tqdm": "common",
}

FILES = sorted(PACKAGE.rglob("*.py"))


def module_of(path: Path) -> str:
    """ "solve/rows" for mixlm_sparse/solve/rows.py, "solve" for mixlm_sparse/solve/__init__.py."""
    return path.relative_to(PACKAGE).with_suffix("").as_posix().removesuffix("/__init__")


MODULES = {module_of(path): path for path in FILES}


def imported(path: Path) -> set[str]:
    """Dotted names that a file imports, members that are modules told apart from names."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path} has a relative import"
            base = node.module or ""
            members = {f"{base}.{alias.name}" for alias in node.names}
            modules = {name for name in members if as_module(name) in MODULES}
            found |= modules or {base}
            if modules and modules != members:
                found.add(base)
    return found


def as_module(dotted: str) -> str:
    return dotted.removeprefix(NAME + ".").replace(".", "/")


def own_imports(path: Path) -> set[str]:
    """Modules of this package that a file imports."""
    return {
        as_module(name)
        for name in imported(path)
        if name.startswith(NAME + ".") and as_module(name) in MODULES
    }


def inside_rooms(module: str) -> bool:
    return module.split("/")[0] in FLOOR_OF


def test_every_folder_is_a_room():
    folders = {p.name for p in PACKAGE.iterdir() if (p / "__init__.py").exists()}
    assert folders == set(FLOOR_OF)


@pytest.mark.parametrize("module", [m for m in MODULES if inside_rooms(m)])
def test_imports_point_down(module):
    room = module.split("/")[0]
    for other in own_imports(MODULES[module]):
        other_room = other.split("/")[0]
        if other_room != room:
            assert inside_rooms(other), f"{module} imports {other}, which is no room"
            assert FLOOR_OF[other_room] < FLOOR_OF[room], f"{module} imports {other}"


def test_files_do_not_import_each_other_in_circles():
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, " -> ".join([*trail[trail.index(module) :], module])
        if module not in done:
            for other in sorted(own_imports(MODULES[module])):
                visit(other, (*trail, module))
            done.add(module)

    for module in MODULES:
        visit(module, ())


@pytest.mark.parametrize("package", sorted(CONFINED))
def test_package_is_imported_in_one_module(package):
    home = CONFINED[package]
    users = [
        m for m, path in MODULES.items() if package in {i.split(".")[0] for i in imported(path)}
    ]
    assert len(users) <= 1, f"more than one module imports {package}: {users}"
    assert all(user == home or user.startswith(home + "/") for user in users), users


@pytest.mark.parametrize(
    "module",
    [m for m in MODULES if inside_rooms(m) and FLOOR_OF[m.split("/")[0]] < FLOOR_OF["api"]],
)
def test_nothing_below_the_api_names_the_fit_of_the_users(module):
    names = {
        n.id
        for n in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8")))
        if isinstance(n, ast.Name)
    }
    assert "LinearMixedFit" not in names


@pytest.mark.parametrize("module", MODULES)
def test_no_code_is_evaluated_or_unpickled(module):
    """A formula may come from a web form, a saved fit from a stranger."""
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    calls = {
        n.func.id
        for n in ast.walk(tree)
        if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)
    }
    assert not calls & {"eval", "exec", "compile", "__import__"}
    # the pipe to a process that this one started carries what this one wrote, never a file
    unpickles = {"common/workers"}
    if module not in unpickles:
        assert not {i.split(".")[0] for i in imported(MODULES[module])} & {
            "pickle",
            "marshal",
            "shelve",
        }
