"""What `lmer_many` returns."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from mixlm_sparse.api.fit import LinearMixedFit
from mixlm_sparse.api.many_files import FORMAT, FORMAT_VERSION, coded, responses_to
from mixlm_sparse.api.responses import Responses
from mixlm_sparse.common.checks import require_bool, require_path, shown, unknown_name
from mixlm_sparse.common.errors import DataError, OptionError, SavedFitError
from mixlm_sparse.common.tables import PrintsAsTable, ResultTable, as_result, result_table
from mixlm_sparse.common.types import Matrix, Vector
from mixlm_sparse.model.base import announced, fit_of
from mixlm_sparse.model.call import FitOptions, ModelCall
from mixlm_sparse.model.designs import with_given_response
from mixlm_sparse.model.refit_rows import FAILED
from mixlm_sparse.model.saved.archive import Arrays, write_archive
from mixlm_sparse.model.saved.call import call_to
from mixlm_sparse.model.saved.known import known_to
from mixlm_sparse.model.saved.parts import options_to
from mixlm_sparse.solve.optimize import optimize
from mixlm_sparse.solve.system import penalized_system

NOT_RUN = "not run"
FAILURES_SHOWN = 5  # responses without a fit that are named below the table


@dataclass(frozen=True, eq=False, repr=False)
class ManyFits(PrintsAsTable):
    """Fits of one formula to many responses; row i belongs to response i.

    Parameters
    ----------
    names : (r,) of the responses.
    theta : (r, m); theta_names : (m,).
    beta, bse : (r, p) coefficients and their standard errors; x_names : (p,).
    sigma, criterion : (r,).
    nobs : (r,) rows used.
    status : (r,) "converged", "singular", "perfect fit", "not converged", "evaluation limit",
        "failed" (no fit: see message) or "not run" (ended early).
    message : (r,) the status in words.
    reml : which criterion.
    formula : the right side that all responses share.

    What is not there is NaN.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> fit = mx.lmer("Reaction ~ Days + (Days | Subject)", mx.datasets.load("sleepstudy"))
    >>> many = mx.lmer_many(fit.formula, mx.datasets.load("sleepstudy"), fit.simulate(3, seed=1))
    >>> many.beta.round(2)
    array([[260.52,  12.37],
           [253.17,   9.19],
           [243.87,   9.23]])
    >>> many.fit(0).formula
    'Reaction1 ~ Days + (Days | Subject)'
    """

    _entry: ClassVar[str] = ".fit({key}) for the fit of a response, .to_frame() for a table of all"
    names: tuple[str, ...]
    theta: Matrix
    theta_names: tuple[str, ...]
    beta: Matrix
    bse: Matrix
    x_names: tuple[str, ...]
    sigma: Vector
    criterion: Vector
    nobs: np.ndarray
    status: tuple[str, ...]
    message: tuple[str, ...]
    reml: bool
    complete: bool
    formula: str
    _responses: Responses | None = field(repr=False)
    _call: ModelCall | None = field(repr=False)
    _options: FitOptions = field(repr=False)

    def __len__(self) -> int:
        return len(self.names)

    @property
    @result_table("Responses without a fit", labels=["response"], uncounted=True)
    def failures(self) -> pd.DataFrame:
        """The responses without a fit, with the reason."""
        failed = [i for i, s in enumerate(self.status) if s in (FAILED, NOT_RUN)]
        return pd.DataFrame(
            {
                "response": [self.names[i] for i in failed],
                "message": [self.message[i] for i in failed],
            },
            index=failed,
        )

    def to_frame(self) -> pd.DataFrame:
        """Return a row for each response.

        Columns: response, nobs, status, message, criterion, sigma, the coefficients by name, their
        standard errors as "se_NAME" and theta as "theta_NAME".
        """
        columns: dict[str, Any] = {
            "response": list(self.names),
            "nobs": self.nobs,
            "status": list(self.status),
            "message": list(self.message),
            "criterion": self.criterion,
            "sigma": self.sigma,
        }
        columns |= {name: self.beta[:, j] for j, name in enumerate(self.x_names)}
        columns |= {f"se_{name}": self.bse[:, j] for j, name in enumerate(self.x_names)}
        columns |= {f"theta_{name}": self.theta[:, j] for j, name in enumerate(self.theta_names)}
        return pd.DataFrame(columns)

    def fit(self, i: int | str) -> LinearMixedFit:
        """Return the whole fit of one response.

        Parameters
        ----------
        i : its position or its name.

        Raises
        ------
        OptionError : there is no such response.
        DataError : it has no fit; the message says why.
        SavedFitError : the fits were saved without their data.
        """
        at = self._position(i)
        name = self.names[at]
        if self.status[at] == FAILED and not self.nobs[at]:
            raise DataError(f"response '{name}' has no fit: {self.message[at]}")
        if self._call is None or self._responses is None:
            raise SavedFitError(
                "these fits were saved without their data, which the whole fit of a response "
                "needs: save them with include_data=True"
            )
        matrices, call = with_given_response(self._call, self._responses.column(at), name)
        start = self.theta[at] if self.status[at] == "converged" else None
        system = penalized_system(
            matrices, self._options.engine, estimation=self._options.control.estimation
        )
        optimum = optimize(
            system,
            reml=self.reml,
            start=start,
            optimizer=self._options.optimizer,
            control=self._options.control,
        )
        call = replace(call, options=self._options)
        fit = fit_of(LinearMixedFit, system, optimum, self._options, call.formula, call)
        return announced(fit)

    def save(self, path: str | os.PathLike[str], *, include_data: bool = True) -> None:
        """Save the fits; `mx.load_many(path)` brings them back.

        The file is a zip archive of JSON and arrays, without pickle.  It appears under its name
        when it is complete; a file of this name that was there is replaced then.

        Parameters
        ----------
        path : of the file, by custom "name.mixlm".
        include_data : also store the responses and the columns of the data that the formula
            uses, which `fit(i)` needs.  Without them the file holds the results.

        Raises
        ------
        SavedFitError : the data have a column of a kind that cannot be stored.
        OSError : the file cannot be written.

        Examples
        --------
        >>> import mixlm_sparse as mx, tempfile, pathlib
        >>> sleep = mx.datasets.load("sleepstudy").assign(half=lambda d: d["Reaction"] / 2)
        >>> many = mx.lmer_many("~ Days + (Days | Subject)", sleep, ["Reaction", "half"])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     many.save(pathlib.Path(folder) / "many.mixlm")
        ...     again = mx.load_many(pathlib.Path(folder) / "many.mixlm")
        >>> (again.beta == many.beta).all(), round(again.fit("Reaction").criterion, 4)
        (np.True_, 1743.6283)
        """
        path = require_path("path", path)
        include_data = require_bool("include_data", include_data)
        kinds, status = coded(self.status)
        texts, message = coded(self.message)
        arrays: Arrays = {
            "theta": self.theta, "beta": self.beta, "bse": self.bse, "sigma": self.sigma,
            "criterion": self.criterion, "nobs": np.asarray(self.nobs, dtype=np.int64),
            "status": status, "message": message,
        }  # fmt: skip
        document: dict[str, Any] = {
            "format": FORMAT,
            "version": FORMAT_VERSION,
            "formula": self.formula,
            "reml": bool(self.reml),
            "complete": bool(self.complete),
            "names": list(self.names),
            "theta_names": list(self.theta_names),
            "x_names": list(self.x_names),
            "status": kinds,
            "message": texts,
            "options": options_to(self._options),
            "matrices": None,
            "call": None,
            "data": None,
            "responses": None,
        }
        if include_data and self._call is not None and self._responses is not None:
            call = self._call
            matrices, _ = with_given_response(call, warn=False)
            assert matrices.spec is not None
            spec = matrices.spec.to_dict()
            document["matrices"] = {
                "n_input": matrices.n_input,
                "factors": [{"label": f.label, "n_levels": f.n_levels} for f in matrices.factors],
                "spec": {"env": spec["env"], "factors": spec["factors"]},
            }
            if any(factor.known is not None for factor in matrices.factors):
                document["known"] = known_to(matrices.factors, arrays)
            document["call"] = call_to(matrices, call, document, arrays, include_data)
            document["responses"] = responses_to(self._responses, arrays)
        write_archive(path, document, arrays)

    def _position(self, i: int | str) -> int:
        if isinstance(i, str):
            if i not in self.names:
                raise unknown_name(i, self.names, "response")
            return self.names.index(i)
        whole = isinstance(i, int | np.integer) and not isinstance(i, bool)
        if not whole or not -len(self) <= i < len(self):
            raise OptionError(
                f"there is no response {shown(i)}: give a name, or a position of the {len(self)}, "
                "counted from 0"
            )
        return int(i) % len(self)

    def _table(self) -> ResultTable:
        table = self.to_frame().drop(columns=["message", "criterion"]).set_index("response")
        table = table.drop(columns=[f"theta_{name}" for name in self.theta_names])
        counts = [f"{self.status.count(s)} {s}" for s in dict.fromkeys(self.status)]
        if len(counts) == 1:
            table = table.drop(columns="status")
        if len(table) and len(set(self.nobs.tolist())) == 1:
            table = table.drop(columns="nobs")
            counts.append(f"{self.nobs[0]} rows each")
        failed = self.failures
        notes = [", ".join(counts) or "no responses"]
        notes += [
            f"{name}: {text}"
            for name, text in failed[["response", "message"]].head(FAILURES_SHOWN).to_numpy()
        ]
        if len(failed) > FAILURES_SHOWN:
            notes.append(f"{len(failed) - FAILURES_SHOWN} more in failures")
        kind = "REML" if self.reml else "ML"
        responses = "1 response" if len(self) == 1 else f"{len(self)} responses"
        return as_result(
            table, heading=f"Linear mixed models of {responses} by {kind}",
            formulas={"Formula": self.formula} if self.formula else {}, notes=notes,
        )  # fmt: skip
