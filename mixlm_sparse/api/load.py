"""Saved fits back from their files."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from mixlm_sparse.api.fit import LinearMixedFit
from mixlm_sparse.common.keywords import answers_unknown_keywords
from mixlm_sparse.model.saved.model import load_fit

__all__ = ["load"]


@answers_unknown_keywords
def load(
    path: str | os.PathLike[str],
    *,
    data: Any = None,
    env: Mapping[str, Callable[..., Any]] | None = None,
    engine: str | None = None,
) -> LinearMixedFit:
    """Load a fit that `fit.save(path)` wrote.

    Parameters
    ----------
    path : of the file.
    data : the data of the fit, where the file does not hold them, or more columns than it holds,
        for `update`.  They must be the same rows.
    env : the functions of the user that the formula calls, by name; a file holds no code.
    engine : another engine than that of the fit, such as "blocked" where CHOLMOD is missing.

    Returns
    -------
    LinearMixedFit : the same fit; nothing is estimated anew.

    Raises
    ------
    SavedFitError : the file is something else, is broken, is of a later version, or does not go
        with `data`.
    FileNotFoundError : there is no such file.

    Examples
    --------
    >>> import mixlm_sparse as mx, tempfile, pathlib
    >>> fit = mx.lmer("Yield ~ 1 + (1 | Batch)", mx.datasets.load("Dyestuff"))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     fit.save(pathlib.Path(folder) / "dye.mixlm")
    ...     again = mx.load(pathlib.Path(folder) / "dye.mixlm")
    >>> again.criterion == fit.criterion
    True
    """
    from mixlm_sparse.inference.kept import KEEPERS  # loaded with the first file, not before

    return load_fit(path, LinearMixedFit, data=data, env=env, engine=engine, keepers=KEEPERS)
