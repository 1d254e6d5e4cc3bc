"""The call of a fit as plain data of its file, and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from mixlm_sparse.common.errors import SavedFitError
from mixlm_sparse.design.matrices import ModelMatrices
from mixlm_sparse.design.readers import open_table
from mixlm_sparse.model.call import FitOptions, ModelCall
from mixlm_sparse.model.data import ROLES, columns_of_call
from mixlm_sparse.model.rowless import AbsentFrame, MatricesWithoutRows
from mixlm_sparse.model.saved.archive import Archive, Arrays
from mixlm_sparse.model.saved.frame import (
    argument_from,
    argument_to,
    contrasts_from,
    contrasts_to,
    frame_from,
    frame_to,
)
from mixlm_sparse.model.saved.known import known_from
from mixlm_sparse.model.saved.parts import held_from
from mixlm_sparse.model.saved.structure import structure_from

__all__ = ["call_from", "call_to", "require_functions"]

# What arguments of a loaded call are that were arrays.
AS_READ = (np.ndarray, pd.Categorical, pd.api.extensions.ExtensionArray)


def call_to(
    matrices: ModelMatrices,
    call: ModelCall,
    document: dict[str, Any],
    arrays: Arrays,
    include_data: bool,
) -> dict[str, Any]:
    """Return the arguments of the call as plain data; arrays and columns go to `arrays`."""
    about: dict[str, Any] = {
        "formula": call.formula,
        "na_action": call.na_action,
        "contrasts": contrasts_to(call.contrasts),
        "response": call.response is not None,
    }
    given = {role: getattr(call, role) for role in ROLES}
    simple = all(value is None or isinstance(value, str) for value in given.values())
    if not include_data and simple:
        return about | given
    if isinstance(matrices, MatricesWithoutRows):  # arrays came from a file, row by row
        arrived = {role: v for role, v in given.items() if isinstance(v, AS_READ)}
        table = open_table(pd.DataFrame(arrived), list(arrived))
        given = {role: v if isinstance(v, (str, *AS_READ)) else None for role, v in given.items()}
    else:
        table = columns_of_call(call)
    about |= {role: argument_to(role, value, table, arrays) for role, value in given.items()}
    if include_data:
        document["data"] = "frame"
        about["frame"] = frame_to(table, arrays)
        if call.response is not None:
            arrays["response"] = call.response
    return about


def require_functions(
    document: Mapping[str, Any], env: Mapping[str, Any], reader: str = "mx.load"
) -> None:
    """Raise a SavedFitError unless the functions that the formula calls are given."""
    spec = document["matrices"]["spec"]
    absent = [] if spec is None else [name for name in spec["env"] if name not in env]
    if absent:
        raise SavedFitError(
            f"the formula calls the function '{absent[0]}', and a file holds no code: pass it "
            f"again as {reader}(path, env={{'{absent[0]}': function}})"
        )


def call_from(
    document: Mapping[str, Any],
    archive: Archive,
    options: FitOptions,
    data: Any,
    env: Mapping[str, Callable[..., Any]],
) -> ModelCall:
    about = document["call"]
    n = int(document["matrices"]["n_input"])
    frame: Any = data
    if data is None:
        frame = AbsentFrame() if document["data"] is None else frame_from(about["frame"], archive)
    response = None
    if about["response"]:
        if "response" in archive:
            response = archive.array("response", None)
        elif data is not None:
            raise SavedFitError(
                "the response of this fit was given to refit(y) and is not in the file: load it "
                "without data=, or save it with include_data=True"
            )
    held = held_from(document.get("held"))
    return ModelCall(
        formula=about["formula"],
        data=frame,
        **{role: argument_from(role, about[role], archive, n) for role in ROLES},
        na_action=about["na_action"],
        contrasts=contrasts_from(about["contrasts"]),
        env=dict(env) or None,
        fixed=None if held is None else dict(held.names),
        **structure_from(document.get("structure")),
        known=known_from(document, archive),
        response=response,
        options=options,
    )
