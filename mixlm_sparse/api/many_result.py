"""What `lmer_many` returns."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from mixlm_sparse.api.fit import LinearMixedFit
from mixlm_sparse.api.responses import Pattern, Responses
from mixlm_sparse.common.checks import shown, unknown_name
from mixlm_sparse.common.errors import DataError, OptionError
from mixlm_sparse.common.tables import PrintsAsTable, ResultTable, as_result, result_table
from mixlm_sparse.common.types import Matrix, Vector
from mixlm_sparse.model.base import announced, fit_of
from mixlm_sparse.model.call import FitOptions
from mixlm_sparse.model.designs import with_given_response
from mixlm_sparse.model.refit_rows import FAILED
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
    _responses: Responses = field(repr=False)
    _patterns: tuple[Pattern, ...] = field(repr=False)
    _options: FitOptions = field(repr=False)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def formula(self) -> str:
        """The right side that all responses share; "" if none could be fitted."""
        return str(self._patterns[0].call.formula) if self._patterns else ""

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
        """
        at = self._position(i)
        pattern = next(p for p in self._patterns if at in p.members)
        if pattern.system is None:
            raise DataError(f"response '{self.names[at]}' has no fit: {pattern.message}")
        name = self.names[at]
        matrices, call = with_given_response(pattern.call, self._responses.column(at), name)
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
