"""The reference corpus: data, lme4 records, and fits that the tests share."""

from __future__ import annotations

import json
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import mixlm_sparse as mx
from mixlm_sparse.common.errors import MixedModelWarning

HERE = Path(__file__).parent
REFERENCES = HERE.parent / "references"
MODELS = sorted(path.stem for path in (REFERENCES / "models").glob("*.json"))

# Records of models with thousands of random effects: lme4's own fit takes seconds there.
LARGE = {
    "insteval_ml", "insteval3_reml", "star_reml", "sim_large_ml", "chem97_ml", "egsingle_reml",
    "sim_crossed3_rs_ml",
}  # fmt: skip


@cache
def load_json(name: str) -> Any:
    """One of the files of the reference folder, parsed. Do not change what it returns."""
    return json.loads((REFERENCES / name).read_text(encoding="utf-8"))


def load_model(model_id: str) -> dict[str, Any]:
    """The lme4 record of one model. Do not change what it returns."""
    return load_json(f"models/{model_id}.json")


@cache
def _read(name: str) -> pd.DataFrame:
    columns = load_json("data/schema.json")[name]["columns"]
    frame = pd.read_csv(
        REFERENCES / "data" / f"{name}.csv.gz",
        dtype=object,
        keep_default_na=False,
        na_values=[""],
    )
    for column, about in columns.items():
        if about["kind"] == "factor":
            frame[column] = pd.Categorical(frame[column], categories=about["levels"])
        else:
            values = [float(text) for text in frame[column]]  # every bit as written
            whole = about["kind"] == "integer" and not np.isnan(values).any()
            frame[column] = np.array(values, dtype=np.int64 if whole else np.float64)
    return frame


def load_data(name: str) -> pd.DataFrame:
    """A copy of one data set, factors as categoricals in the order of the schema."""
    return _read(name).copy()


def data_of(record: dict[str, Any]) -> pd.DataFrame:
    return load_data(record["data"].removeprefix("data/").removesuffix(".csv.gz"))


def options_of(record: dict[str, Any]) -> dict[str, Any]:
    """What `lmer` and `deviance_function` take besides formula, data and reml."""
    return {
        "weights": record["weights"],
        "offset": record["offset"],
        "contrasts": record["contrasts"] or None,
    }


def fit(model_id: str, **options: Any) -> Any:
    """The fit of one record; the same call returns the same object."""
    return _fit(model_id, tuple(sorted(options.items())))


@cache
def _fit(model_id: str, options: tuple[tuple[str, Any], ...]) -> Any:
    record = load_model(model_id)
    arguments = {"reml": record["REML"], **options_of(record), **dict(options)}
    with warnings.catch_warnings():
        # A singular fit warns, and so it should: the records tell which ones are.
        warnings.simplefilter("ignore", MixedModelWarning)
        return mx.lmer(record["formula"], data_of(record), **arguments)


def matrices_of(record: dict[str, Any]) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MixedModelWarning)
        return mx.model_matrices(record["formula"], data_of(record), **options_of(record))


@cache
def system(model_id: str, engine: str = "auto") -> Any:
    """The penalized system of one record, symbolic work done."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MixedModelWarning)
        return mx.penalized_system(matrices_of(load_model(model_id)), engine=engine)


def random_theta(model_id: str, salt: int = 0) -> np.ndarray:
    """A theta inside the bounds, of the size of the optimum, reproducible."""
    record = load_model(model_id)
    rng = np.random.default_rng([salt, *model_id.encode()])
    theta = np.asarray(record["theta"], float)
    # the size of each entry carries the unit of its column; only zeros borrow from the largest
    size = np.where(theta == 0, 0.05 * max(0.1, float(np.abs(theta).max())), np.abs(theta))
    draw = size * rng.uniform(0.3, 1.7, theta.size)
    bounded = np.array([low == 0 for low in record["lower"]])
    return np.where(bounded, draw, draw * rng.choice([-1.0, 1.0], theta.size))


def quiet(call: Any, *args: Any, **kwargs: Any) -> Any:
    """Call without the package's warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MixedModelWarning)
        return call(*args, **kwargs)
