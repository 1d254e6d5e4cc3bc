"""Files that earlier versions wrote are read, and give the numbers that were written beside them.

A file of `tests/saved_before` stays as it was written.  Who raises a format's version adds
files of the new one:

    python -m tests.model.test_saved_formats
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import mixlm_sparse as mx
from mixlm_sparse.model.batches import products
from mixlm_sparse.model.saved import model

FOLDER = Path(__file__).parents[1] / "saved_before"
FITS = sorted(FOLDER.glob("fit_*.mixlm"))
PRODUCTS = sorted(FOLDER.glob("products_*.mixlm"))
QUIET = mx.Control(warn=False)


def data() -> pd.DataFrame:
    rng = np.random.default_rng(20)
    g, day = np.repeat(np.arange(10), 6), np.tile(np.arange(6), 10)
    frame = pd.DataFrame({"g": g, "day": day, "f": np.tile(["a", "b", "c"], 20)})
    frame["x"] = rng.normal(size=60).round(3)
    frame["w"] = rng.uniform(0.5, 2.0, 60).round(3)
    y = 3.0 + frame["x"] + rng.normal(size=10)[g] + rng.normal(size=60)
    return frame.assign(y=y.round(3))


def fits() -> dict[str, mx.LinearMixedFit]:
    frame = data()
    related = {"g": mx.Relationship(0.5 * (np.eye(10) + 1.0), list(range(10)))}
    return {
        "slopes": mx.lmer("y ~ poly(x, 2) + f + (x | g)", frame, weights="w", control=QUIET),
        "structure": mx.lmer("y ~ x + cs(0 + f | g)", frame, reml=False, control=QUIET),
        "residual": mx.gls("y ~ x", frame, residual=mx.AR1(time="day", group="g"), control=QUIET),
        "known": mx.lmer("y ~ x + (1 | g)", frame, known=related, control=QUIET),
    }


def lean_fits() -> dict[str, mx.LinearMixedFit]:
    """Fits that need the latest format where they are saved without their data."""
    structure = {"residual": mx.AR1(time="day", group="g"), "variance": mx.VarIdent(by="f")}
    return {
        "lean": mx.lmer("y ~ x + (1 | h)", data().assign(h=lambda d: d["day"] % 4), control=QUIET,
                        **structure),
        "lean_gls": mx.gls("y ~ x", data(), control=QUIET, **structure),
        # written when its working parameters were others
        "lean_visits": mx.gls(
            "y ~ x", data(), control=QUIET, residual=mx.Unstructured("day", "g")
        ),
    }  # fmt: skip


def numbers(fit: mx.LinearMixedFit, *, lean: bool = False) -> dict[str, Any]:
    rows = data().assign(h=lambda d: d["day"] % 4).head(4)
    fitted = {} if lean else {"fitted": np.asarray(fit.fittedvalues).tolist()[:4]}
    return fitted | {
        "criterion": fit.criterion,
        "sigma": fit.sigma,
        "estimates": fit.tidy(["fixed", "ran_pars"])["estimate"].tolist(),
        "std_error": fit.bse.tolist(),
        "df": fit.tidy(effects="fixed")["df"].tolist(),
        "predictions": np.asarray(fit.predict(rows)).tolist(),
    }


def expected(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.with_suffix(".json").read_text("utf-8"))
    return found


@pytest.mark.parametrize("path", FITS, ids=lambda path: path.stem)
def test_a_fit_of_an_earlier_version_gives_its_numbers(path):
    fit = mx.load(path)
    lean = path.name.startswith("fit_lean")
    found = numbers(fit, lean=lean)
    for name, values in expected(path).items():
        np.testing.assert_allclose(found[name], values, rtol=1e-6, err_msg=name)
    if lean:
        fit = mx.load(path, data=data().assign(h=lambda d: d["day"] % 4))
    # what was saved is a fit to go on with
    again = fit.refit(np.asarray(data()["y"]) + 1.0)
    assert again.fixef.iloc[0] == pytest.approx(fit.fixef.iloc[0] + 1.0, rel=1e-5)


@pytest.mark.parametrize("path", PRODUCTS, ids=lambda path: path.stem)
def test_products_of_an_earlier_version_give_their_numbers(path):
    found = mx.fit_products(mx.load_products(path), control=QUIET)
    wanted = expected(path)
    assert found.criterion == pytest.approx(wanted["criterion"], rel=1e-9)
    np.testing.assert_allclose(found.fixef, wanted["fixef"], rtol=1e-6)


def test_every_format_has_files():
    for paths, version in ((FITS, model.FORMAT_VERSION), (PRODUCTS, products.FORMAT_VERSION)):
        kept = {int(path.stem.rpartition("_")[2]) for path in paths}
        assert kept == set(range(1, version + 1))


def write() -> None:
    """Write files of the formats as they are now, where there are none."""
    FOLDER.mkdir(exist_ok=True)
    kinds = ((fits(), model.WITHOUT_STRUCTURE), (lean_fits(), model.FORMAT_VERSION))
    for made, version in kinds:
        lean = version > model.WITHOUT_STRUCTURE
        for name, fit in made.items():
            path = FOLDER / f"fit_{name}_{version}.mixlm"
            if not path.exists():
                fit.save(path, include_data=not lean)
                text = json.dumps(numbers(fit, lean=lean), indent=1) + "\n"
                path.with_suffix(".json").write_text(text, "utf-8")
    path = FOLDER / f"products_{products.FORMAT_VERSION}.mixlm"
    if not path.exists():
        found = mx.cross_products("y ~ x + (x | g)", data())
        found.save(path)
        fit = mx.fit_products(found, control=QUIET)
        wanted = {"criterion": fit.criterion, "fixef": fit.fixef.tolist()}
        path.with_suffix(".json").write_text(json.dumps(wanted, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    write()
