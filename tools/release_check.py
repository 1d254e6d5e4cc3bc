"""Build the distributions and try them as users get them: `make release-check`.

    python tools/release_check.py            # builds into dist/, checks, installs, tries
    python tools/release_check.py --final    # also what holds for a release only

1. The sdist is built from the sources, and the wheel from the sdist, as installers do.
2. One version everywhere; what must be in the files is, and nothing else; `twine check --strict`.
3. The wheel is installed with its dependencies alone into a new environment, where
   `tools/smoke.py` runs in an empty folder and `tools/typed_client.py` passes mypy --strict.

Needs the extra `release` (build, twine, mypy).
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DIST = ROOT / "dist"
TOOLS = ROOT / "tools"

IN_WHEEL = (
    "mixlm_sparse/py.typed",
    "mixlm_sparse/messages/index.md",
    "mixlm_sparse/report/tables/fit.schema.json",
)
IN_SDIST = (
    "pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff", "SECURITY.md",
    "Makefile", "mixlm_sparse/py.typed", "tests/conftest.py", "docs/index.md", "examples/em.py",
    "fuzz/__main__.py", "recipe/recipe.yaml", "tools/lower_bounds.py", "tools/release_check.py",
)  # fmt: skip
NEVER = re.compile(r"__pycache__|\.py[co]$|\.ipynb_checkpoints|(^|/)\.|\.egg-info")


class ReleaseError(Exception):
    """Something that must not be released."""


def run(*command: str | Path, cwd: Path = ROOT) -> None:
    """Run a command; its output is that of this program.

    Raises
    ------
    ReleaseError : it failed.
    """
    words = [str(word) for word in command]
    # the package is the installed one: nothing of this checkout is on the path
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "MYPYPATH")}
    if subprocess.run(words, cwd=cwd, env=environment, check=False).returncode:
        raise ReleaseError(" ".join(words))


def first(pattern: str, path: Path) -> str:
    """Return what the pattern finds in a file of the sources."""
    found = re.search(pattern, path.read_text(encoding="utf-8"), re.M)
    if found is None:
        raise ReleaseError(f"{path.relative_to(ROOT)}: nothing like {pattern!r}")
    return found[1]


def version() -> str:
    """Return the version, which stands in the package; who repeats it must agree.

    Raises
    ------
    ReleaseError : a file names another version.
    """
    own = first(r'^__version__ = "([^"]+)"', ROOT / "mixlm_sparse" / "__init__.py")
    others = {
        "CITATION.cff": first(r"^version: (\S+)", ROOT / "CITATION.cff"),
        "recipe/recipe.yaml": first(r'^  version: "([^"]+)"', ROOT / "recipe" / "recipe.yaml"),
    }
    for name, other in others.items():
        if other != own:
            raise ReleaseError(f"{name} has version {other}, the package {own}")
    return own


def require_final(own: str) -> None:
    """Refuse a version that is none of a release, or that the changelog does not know."""
    if not re.fullmatch(r"\d+\.\d+\.\d+", own):
        raise ReleaseError(f"{own} is no version of a release")
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    if not re.search(rf"^## \[{re.escape(own)}\] - \d{{4}}-\d\d-\d\d$", text, re.M):
        raise ReleaseError(f"CHANGELOG.md has no head '## [{own}] - year-month-day'")


def build(own: str) -> tuple[Path, Path]:
    """Build both distributions into dist/, and return (wheel, sdist)."""
    shutil.rmtree(DIST, ignore_errors=True)
    run(sys.executable, "-m", "build", "--outdir", DIST)
    wheel = DIST / f"mixlm_sparse-{own}-py3-none-any.whl"
    sdist = DIST / f"mixlm_sparse-{own}.tar.gz"
    if {path.name for path in DIST.iterdir()} != {wheel.name, sdist.name}:
        raise ReleaseError(f"dist/ holds {sorted(p.name for p in DIST.iterdir())}")
    return wheel, sdist


def require_contents(wheel: Path, sdist: Path) -> None:
    """Compare what the files hold with what they must."""
    with zipfile.ZipFile(wheel) as archive:
        in_wheel = [name for name in archive.namelist() if not name.endswith("/")]
    with tarfile.open(sdist) as files:
        in_sdist = [m.name.partition("/")[2] for m in files.getmembers() if m.isfile()]
    for path, names, wanted in ((wheel, in_wheel, IN_WHEEL), (sdist, in_sdist, IN_SDIST)):
        missing = sorted(set(wanted) - set(names))
        foreign = [n for n in names if NEVER.search(n) and Path(n).name != ".gitignore"]
        if missing or foreign:
            raise ReleaseError(f"{path.name}: without {missing}, with {foreign[:5]}")
        print(f"{path.name}: {len(names)} files, {path.stat().st_size / 1e6:.1f} MB")
    roots = {name.partition("/")[0] for name in in_wheel}
    if any(root != "mixlm_sparse" and not root.endswith(".dist-info") for root in roots):
        raise ReleaseError(f"{wheel.name} would install {sorted(roots)}")
    sources = {p.relative_to(ROOT).as_posix() for p in (ROOT / "mixlm_sparse").rglob("*.py")}
    if sources - set(in_wheel):
        raise ReleaseError(f"{wheel.name} lacks {sorted(sources - set(in_wheel))[:5]}")


def try_installed(wheel: Path, folder: Path) -> None:
    """Install the wheel into an environment of its own and use it there."""
    venv.create(folder / "clean", with_pip=True)
    python = folder / "clean" / ("Scripts" if os.name == "nt" else "bin") / "python"
    run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", wheel)
    run(python, "-m", "pip", "check")
    empty = folder / "empty"
    empty.mkdir()
    run(python, "-I", "-W", "error", TOOLS / "smoke.py", cwd=empty)
    shutil.copy(TOOLS / "typed_client.py", empty / "client.py")
    run(
        sys.executable, "-m", "mypy", "--strict", "--python-executable", python,
        "--cache-dir", folder / "cache", "client.py", cwd=empty,
    )  # fmt: skip
    run(python, "-I", "-W", "error", empty / "client.py", cwd=empty)


def main() -> int:
    """Check everything; return the exit code."""
    words = argparse.ArgumentParser(description="Build the distributions and try them.")
    words.add_argument("--final", action="store_true", help="what holds for a release only, too")
    final = words.parse_args().final
    try:
        own = version()
        if final:
            require_final(own)
        wheel, sdist = build(own)
        require_contents(wheel, sdist)
        run(sys.executable, "-m", "twine", "check", "--strict", wheel, sdist)
        with tempfile.TemporaryDirectory() as folder:
            try_installed(wheel, Path(folder))
    except ReleaseError as error:
        print(f"not to be released: {error}", file=sys.stderr)
        return 1
    print(f"mixlm_sparse {own}: wheel and sdist may be released")
    return 0


if __name__ == "__main__":
    sys.exit(main())
