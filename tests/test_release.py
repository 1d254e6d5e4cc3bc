"""What is released: one version, one list of dependencies, and files that hold what they must."""

from __future__ import annotations

import importlib.util
import re
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import mixlm_sparse as mx
from tests.support.wheel import built

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.skipif(
    not (ROOT / "tools" / "release_check.py").is_file(),
    reason="the tests run without the sources of the package",
)
CONDA = {"matplotlib": "matplotlib-base"}  # names that differ there


def tool(name: str):
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def release():
    return tool("release_check")


def read_toml(name: str):
    tomllib = pytest.importorskip("tomllib")
    return tomllib.loads((ROOT / name).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def project():
    return read_toml("pyproject.toml")["project"]


def bounds(lines) -> dict[str, str]:
    """Return {name: least version} of lines such as "numpy>=1.26"."""
    found = (re.match(r"([A-Za-z0-9_-]+)(?:\[.*?\])?\s*>=\s*([\d.]+)", line) for line in lines)
    return {match[1]: match[2] for match in found if match}


def test_one_version(release, project):
    assert project["dynamic"] == ["version"]
    assert release.version() == mx.__version__


@pytest.mark.parametrize("name", ["CITATION.cff", "recipe/recipe.yaml"])
def test_a_file_with_another_version_is_named(release, name, tmp_path, monkeypatch):
    for known in ("mixlm_sparse/__init__.py", "CITATION.cff", "recipe/recipe.yaml"):
        copy = tmp_path / known
        copy.parent.mkdir(exist_ok=True)
        text = (ROOT / known).read_text(encoding="utf-8")
        copy.write_text(text.replace(mx.__version__, "9.9") if known == name else text, "utf-8")
    monkeypatch.setattr(release, "ROOT", tmp_path)
    with pytest.raises(release.ReleaseError, match=rf"{name} has version 9\.9"):
        release.version()


def test_a_release_is_in_the_changelog(release, tmp_path, monkeypatch):
    (tmp_path / "CHANGELOG.md").write_text("# Changelog\n\n## [1.2.0] - 2030-01-31\n", "utf-8")
    monkeypatch.setattr(release, "ROOT", tmp_path)
    release.require_final("1.2.0")
    with pytest.raises(release.ReleaseError, match=r"no head '## \[1\.2\.1\]"):
        release.require_final("1.2.1")
    with pytest.raises(release.ReleaseError, match="no version of a release"):
        release.require_final("1.2.0.dev1")


def test_the_conda_recipe_has_the_dependencies_of_the_package(project):
    yaml = pytest.importorskip("yaml")
    recipe = yaml.safe_load((ROOT / "recipe" / "recipe.yaml").read_text(encoding="utf-8"))
    assert f">={recipe['context']['python_min']}" == project["requires-python"]
    tools = read_toml("pyproject.toml")["build-system"]["requires"]
    assert bounds(tools).items() <= bounds(recipe["requirements"]["host"]).items()
    run = [line for line in recipe["requirements"]["run"] if not line.startswith("python ")]
    assert bounds(run) == bounds(project["dependencies"])
    extras = bounds(
        line
        for name in ("plots", "arrow", "sklearn", "cholmod", "progress")
        for line in project["optional-dependencies"][name]
    )
    wanted = {CONDA.get(name, name): bound for name, bound in extras.items()}
    assert bounds(recipe["requirements"]["run_constraints"]) == wanted
    assert recipe["build"]["python"]["entry_points"] == [
        f"{name} = {target}" for name, target in project["scripts"].items()
    ]
    assert recipe["about"]["license"] == project["license"]
    assert recipe["about"]["summary"] == project["description"]


def test_the_conda_recipe_is_read_by_rattler_build():
    rattler = pytest.importorskip("rattler_build", reason="pip install py-rattler-build reads it")
    text = (ROOT / "recipe" / "recipe.yaml").read_text(encoding="utf-8")
    (rendered,) = rattler.Stage0Recipe.from_yaml(text).render(rattler.VariantConfig())
    assert rendered.recipe.package.name == "mixlm-sparse"
    assert str(rendered.recipe.package.version) == mx.__version__


def test_the_tests_need_no_large_package(project, capsys):
    assert not re.search("marginaleffects|arviz|jax", str(tool("lower_bounds").bounds(["test"])))
    every = " ".join(tool("lower_bounds").bounds(["test-tools"]))
    assert "marginaleffects==" in every
    assert "pytest==" in every


def test_every_dependency_has_a_lower_bound(project):
    lines = [*project["dependencies"]]
    for name in ("plots", "progress", "arrow", "dask", "processes", "sklearn", "test"):
        lines += project["optional-dependencies"][name]
    own = ("mixlm-sparse[", "pandas-stubs", "scipy-stubs")
    assert not [line for line in lines if ">=" not in line and not line.startswith(own)]


def archives(folder: Path, wheel: list[str], sdist: list[str]) -> tuple[Path, Path]:
    with zipfile.ZipFile(folder / "a.whl", "w") as archive:
        for name in wheel:
            archive.writestr(name, "")
    with tarfile.open(folder / "a.tar.gz", "w:gz") as files:
        for name in sdist:
            files.addfile(tarfile.TarInfo(f"mixlm_sparse-1/{name}"))
    return folder / "a.whl", folder / "a.tar.gz"


def test_contents_that_are_missing_or_foreign_are_named(release, tmp_path, capsys):
    sources = [p.relative_to(ROOT).as_posix() for p in (ROOT / "mixlm_sparse").rglob("*.py")]
    wheel = [*release.IN_WHEEL, *sources]
    sdist = list(release.IN_SDIST)
    release.require_contents(*archives(tmp_path, wheel, sdist))
    with pytest.raises(release.ReleaseError, match=r"without \['mixlm_sparse/py\.typed'\]"):
        release.require_contents(*archives(tmp_path, wheel[1:], sdist))
    with pytest.raises(release.ReleaseError, match=r"with \['docs/\.secret'\]"):
        release.require_contents(*archives(tmp_path, wheel, [*sdist, "docs/.secret"]))
    with pytest.raises(release.ReleaseError, match=r"would install \[.*'tests'\]"):
        release.require_contents(*archives(tmp_path, [*wheel, "tests/a.py"], sdist))
    with pytest.raises(release.ReleaseError, match=r"lacks \['mixlm_sparse/.*\.py'"):
        release.require_contents(*archives(tmp_path, wheel[:-1], sdist))


def test_the_wheel_names_the_version_and_is_for_every_python_3(tmp_path):
    assert built(tmp_path).name == f"mixlm_sparse-{mx.__version__}-py3-none-any.whl"


def test_the_typed_client_runs():
    assert sys.version_info >= (3, 10)
    tool("typed_client").main()
