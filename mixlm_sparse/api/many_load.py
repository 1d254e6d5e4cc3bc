"""Fits of many responses back from their files."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixlm_sparse.api.many_files import FIRST_VERSION, FORMAT, FORMAT_VERSION, responses_from
from mixlm_sparse.api.many_result import ManyFits
from mixlm_sparse.api.responses import Responses
from mixlm_sparse.common.checks import require_path
from mixlm_sparse.common.keywords import answers_unknown_keywords
from mixlm_sparse.model.call import FitOptions, ModelCall
from mixlm_sparse.model.data import held_call
from mixlm_sparse.model.designs import columns_of, with_given_response
from mixlm_sparse.model.saved.archive import Archive
from mixlm_sparse.model.saved.call import call_from, require_functions
from mixlm_sparse.model.saved.frame import part_of_data
from mixlm_sparse.model.saved.parts import options_from
from mixlm_sparse.model.saved.schema import require_many_form

__all__ = ["load_many"]


@answers_unknown_keywords
def load_many(
    path: str | os.PathLike[str], *, env: Mapping[str, Callable[..., Any]] | None = None
) -> ManyFits:
    """Load fits of many responses that `many.save(path)` wrote.

    Parameters
    ----------
    path : of the file.
    env : the functions of the user that the formula calls, by name; a file holds no code.

    Raises
    ------
    SavedFitError : the file is something else, is broken or is of a later version.
    FileNotFoundError : there is no such file.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> sleep = mx.datasets.load("sleepstudy")
    >>> many = mx.lmer_many("~ Days + (1 | Subject)", sleep, ["Reaction"])
    >>> many.save("many.mixlm", include_data=False)
    >>> mx.load_many("many.mixlm").status
    ('converged',)
    """
    archive = Archive(require_path("path", path))
    archive.require_format(
        FORMAT, FORMAT_VERSION, "holds fits of many responses", "many.save(path)", part_of_data,
        first=FIRST_VERSION,
    )  # fmt: skip
    with archive.reading():
        require_many_form(archive.document, archive)
        found = _many_from(archive.document, archive, dict(env or {}))
    return found


def _many_from(
    document: Mapping[str, Any], archive: Archive, env: Mapping[str, Callable[..., Any]]
) -> ManyFits:
    r, m, p = (len(document[name]) for name in ("names", "theta_names", "x_names"))
    for key in ("names", "theta_names", "x_names", "status", "message"):
        "".join(document[key]).encode()  # halves of a character are no text
    options = options_from(document["options"])
    if options.reml != document["reml"]:
        raise archive.broken("its options are of the other criterion")
    sizes = {"theta": (r, m), "beta": (r, p), "bse": (r, p), "sigma": (r,), "criterion": (r,)}
    found = {name: _floats(name, shape, archive) for name, shape in sizes.items()}
    texts = {
        name: tuple(
            document[name][i] for i in archive.positions(name, r, len(document[name])).tolist()
        )
        for name in ("status", "message")
    }
    nobs = archive.array("nobs", r)
    if nobs.dtype != np.int64 or (r and int(nobs.min()) < 0):
        raise archive.broken("the numbers of rows are none")
    call, given = None, None
    if document["call"] is not None:
        require_functions(document, env, "mx.load_many")
        call, given = _data_from(document, archive, options, env, nobs)
    return ManyFits(
        names=tuple(document["names"]),
        theta_names=tuple(document["theta_names"]),
        x_names=tuple(document["x_names"]),
        nobs=nobs,
        reml=document["reml"],
        complete=document["complete"],
        formula=document["formula"],
        _responses=given,
        _call=call,
        _options=options,
        theta=found["theta"],
        beta=found["beta"],
        bse=found["bse"],
        sigma=found["sigma"],
        criterion=found["criterion"],
        status=texts["status"],
        message=texts["message"],
    )


def _floats(name: str, shape: tuple[int, ...], archive: Archive) -> NDArray[np.float64]:
    """Return numbers, NaN where there are none; the criterion of a perfect fit is infinite."""
    array = archive.array(name, *shape)
    if array.dtype != np.float64:
        raise archive.broken(f"the array {name!r} is not of numbers")
    return array


def _data_from(
    document: Mapping[str, Any],
    archive: Archive,
    options: FitOptions,
    env: Mapping[str, Callable[..., Any]],
    nobs: NDArray[np.int64],
) -> tuple[ModelCall, Responses]:
    call = call_from(document, archive, options, None, env)
    if call.formula != document["formula"]:
        raise archive.broken("its formula is not that of its call")
    columns = columns_of(call)
    n = columns.table.n
    names = tuple(document["names"])
    given = Responses(names, responses_from(document["responses"], len(names), n, archive), {})
    call = held_call(replace(call, data=columns))
    matrices, _ = with_given_response(call, None, "y", columns, warn=False)  # as every use begins
    if nobs.size and int(nobs.max()) > matrices.nobs:
        raise archive.broken("its responses have more rows than the data")
    return call, given
