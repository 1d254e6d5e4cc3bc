"""What an installed package must do without anything but its dependencies.

Run by the Python of a clean environment in an empty folder: `python -I -W error smoke.py`.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import subprocess
import sys
import sysconfig
from importlib import resources
from pathlib import Path

import mixlm_sparse as mx

SLEEP = "Reaction ~ Days + (Days | Subject)"


def shell(*arguments: str) -> str:
    """Run the installed command, and return what it prints."""
    command = Path(sysconfig.get_path("scripts")) / "mixlm"
    done = subprocess.run([command, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not done.stderr, done.stderr
    return done.stdout


def main() -> None:
    """Use the package as a new user does."""
    assert "site-packages" in mx.__file__, mx.__file__
    assert importlib.metadata.version("mixlm-sparse") == mx.__version__
    assert (resources.files("mixlm_sparse") / "py.typed").is_file()
    absent = [name for name in ("matplotlib", "pytest", "mypy") if importlib.util.find_spec(name)]
    assert not absent, f"not a clean environment: {absent}"

    data = mx.datasets.load("sleepstudy")
    fit = mx.lmer(SLEEP, data)
    assert abs(fit.criterion - 1743.6282719584908) < 1e-6
    assert "Linear mixed model fit by REML" in str(fit.summary())
    assert len(fit.predict(data)) == 180
    assert abs(mx.lmer(SLEEP, data, reml=False).criterion - 1751.9393444637046) < 1e-6
    trial = mx.gls("Reaction ~ Days", data, residual=mx.CompoundSymmetry(group="Subject"))
    assert "Generalized least squares" in str(trial.summary())
    fit.save("sleep.mixlm")
    assert mx.load("sleep.mixlm").criterion == fit.criterion
    assert "singular" in str(mx.explain("singular-fit")).lower()
    try:
        fit.plot.qq()
        said = "a plot without matplotlib"
    except mx.MissingPackageError as error:
        said = str(error)
    assert "pip install matplotlib" in said, said

    assert "fit a model" in shell("--help")
    assert shell("--version").split() == ["mixlm_sparse", mx.__version__]
    data.to_csv("sleep.csv", index=False)
    assert "REML criterion at convergence: 1743.6" in shell("fit", "sleep.csv", SLEEP)
    print(f"mixlm_sparse {mx.__version__} works in Python {sys.version.split()[0]}")


if __name__ == "__main__":
    main()
