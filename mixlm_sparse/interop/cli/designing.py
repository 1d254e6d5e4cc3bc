"""`mixlm power` and `mixlm simulate`: responses of a saved fit, or of a planned design."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from mixlm_sparse.api.fit import LinearMixedFit
from mixlm_sparse.api.load import load
from mixlm_sparse.api.power import power as estimate_power
from mixlm_sparse.api.power_curve import power_curve
from mixlm_sparse.api.power_result import Power, PowerCurve
from mixlm_sparse.common.errors import DataError, OptionError
from mixlm_sparse.common.render import html_page
from mixlm_sparse.interop.cli.codes import OK
from mixlm_sparse.interop.cli.comparing import is_saved_fit
from mixlm_sparse.interop.cli.files import require_known, require_writable, write_table
from mixlm_sparse.interop.cli.work import notes_on_stderr, read, text_form
from mixlm_sparse.model.base import unit_of_theta
from mixlm_sparse.model.call import ModelCall
from mixlm_sparse.model.data import ROLES
from mixlm_sparse.model.designs import with_given_response
from mixlm_sparse.model.simulate import simulate as draw

__all__ = ["power", "simulate"]


@dataclass(frozen=True, slots=True)
class Planned:
    """A design with the parameters that responses are drawn from."""

    formula: str
    frame: pd.DataFrame
    parameters: dict[str, Any]
    reml: bool
    options: dict[str, Any]  # weights, offset, subset, contrasts


def power(args: argparse.Namespace) -> int:
    """Estimate the power to find an effect, for the design or for several numbers of groups."""
    require_writable(args.output)
    if args.output is not None:
        require_known(args.output)
    if args.along is not None and args.n is None:
        raise OptionError("--along needs --n, the numbers of groups to try")
    fit = load(args.model) if is_saved_fit(args.model) else None
    if fit is not None and _structures(fit):
        raise OptionError(_without(fit))
    planned = _planned(args, fit)
    given = (planned.formula, planned.frame, planned.parameters, args.effect)
    options: dict[str, Any] = {
        "nsim": args.nsim, "alpha": args.alpha, "seed": args.seed, "test": args.test,
        "reml": planned.reml, **planned.options,
    }  # fmt: skip
    with notes_on_stderr():
        found: Power | PowerCurve
        if args.n is None:
            found = estimate_power(*given, **options)
        else:
            found = power_curve(*given, args.n, args.along, **options)
    forms = {"markdown": "to_markdown", "latex": "to_latex", "html": "to_html"}
    text = str(getattr(found, forms[args.format])() if args.format in forms else found)
    print(html_page(f"Power: {planned.formula}", text) if args.format == "html" else text)
    if args.output is not None:
        write_table(found.to_frame(), args.output, text_form(args))
    return OK


def simulate(args: argparse.Namespace) -> int:
    """Draw responses and write them beside the columns of the design."""
    require_writable(args.output)
    require_known(args.output)
    frame, drawn = _drawn(args)
    names = [f"{args.prefix}{i + 1}" for i in range(args.nsim)]
    table = pd.DataFrame(drawn, columns=names)
    if not args.only:
        taken = [name for name in names if name in frame.columns]
        if taken:
            raise DataError(
                f"the data have a column {taken[0]!r} already: name the responses otherwise with "
                "--prefix, or write them alone with --only"
            )
        table = pd.concat([frame.reset_index(drop=True), table], axis=1)
    write_table(table, args.output, text_form(args))
    return OK


def _drawn(args: argparse.Namespace) -> tuple[pd.DataFrame, Any]:
    """Return the columns of the design and responses (n, nsim) for its rows."""
    fit = load(args.model) if is_saved_fit(args.model) else None
    with notes_on_stderr():
        if fit is not None and _structures(fit):
            _require_own(args, fit)
            return _frame(fit), _by_row(fit, fit.simulate(args.nsim, seed=args.seed))
        planned = _planned(args, fit)
        drawn = draw(
            planned.formula,
            planned.frame,
            **planned.parameters,
            **planned.options,
            nsim=args.nsim,
            seed=args.seed,
        )
        return planned.frame, drawn


def _by_row(fit: LinearMixedFit, drawn: Any) -> Any:
    """Return responses (n_input, nsim) with NaN for the rows that the fit did not use."""
    rows = fit.matrices.rows
    if rows is None or len(drawn) == fit.matrices.n_input:
        return drawn
    out = np.full((fit.matrices.n_input, drawn.shape[1]), np.nan)
    out[rows] = drawn
    return out


def _planned(args: argparse.Namespace, fit: LinearMixedFit | None) -> Planned:
    beta, sd = _numbers("--beta", args.beta), _numbers("--sd", args.sd)
    if any(len(values) != 1 for values in beta.values()):
        raise OptionError("--beta: give one number for each coefficient")
    coefficients = {name: values[0] for name, values in beta.items()}
    if fit is None:
        if args.formula is None:
            raise OptionError(
                f"{args.model!r} is no saved fit: give the formula after it, and parameters by "
                "--beta, --sd and --sigma"
            )
        if not sd:
            raise OptionError("--sd: give the standard deviation of every random term, as --sd g=1")
        frame = read(args, args.model)
        spread = {name: v if len(v) > 1 else v[0] for name, v in sd.items()}
        matrices, _ = with_given_response(ModelCall(args.formula, frame).checked())
        whole = {**dict.fromkeys(matrices.fixed.names, 0.0), **coefficients}
        sigma = 1.0 if args.sigma is None else args.sigma
        return Planned(args.formula, frame, {"beta": whole, "sd": spread, "sigma": sigma}, True, {})
    if args.formula is not None or sd:
        raise OptionError(
            "a saved fit has its formula and its random effects: give --beta and --sigma alone, or "
            "a file with the design and a formula"
        )
    unknown = [name for name in coefficients if name not in fit.fixef.index]
    if unknown:
        raise OptionError(
            f"--beta {unknown[0]}: the fit has the coefficients {', '.join(fit.fixef.index)}"
        )
    unit = unit_of_theta(fit)
    sigma = unit if args.sigma is None else args.sigma
    fixed: dict[str, float] = dict(zip(fit.fixef.index, fit.fixef.tolist(), strict=True))
    parameters = {
        "beta": {**fixed, **coefficients},
        "theta": fit.theta * unit / sigma,  # the random effects stay as they are
        "sigma": sigma,
    }
    options = {role: getattr(fit.call, role) for role in (*ROLES, "contrasts")}
    return Planned(fit.formula, _frame(fit), parameters, fit.reml, options)


def _structures(fit: LinearMixedFit) -> list[str]:
    """Return what a fit has that a formula and its parameters do not say."""
    call = fit.call
    if call is None:
        return []
    given = {
        "--residual": call.residual, "--variance": call.variance, "known=": call.known,
        "fixed=": call.fixed,
    }  # fmt: skip
    return [name for name, value in given.items() if value is not None]


def _without(fit: LinearMixedFit) -> str:
    return (
        f"the fit has {', '.join(_structures(fit))}, and responses would be drawn without: use "
        "mixlm simulate with the fit alone, or a fit without them"
    )


def _require_own(args: argparse.Namespace, fit: LinearMixedFit) -> None:
    """Raise an OptionError for other parameters than those of the fit."""
    if args.beta or args.sd or args.sigma is not None or args.formula is not None:
        raise OptionError(_without(fit))


def _frame(fit: LinearMixedFit) -> pd.DataFrame:
    """Return the data that a fit was saved with."""
    source = getattr(fit.matrices.data, "source", None)
    if not isinstance(source, pd.DataFrame):
        raise DataError(
            "the fit was saved without its data: save it with them, or give a file with the design "
            "and a formula"
        )
    return source


def _numbers(option: str, given: list[str]) -> dict[str, list[float]]:
    out: dict[str, list[float]] = {}
    for text in given:
        name, equals, values = text.rpartition("=")
        try:
            out[name.strip()] = [float(value) for value in values.split(",")]
        except ValueError:
            equals = ""
        if not equals or not name:
            raise OptionError(f"{option} {text}: write the name, '=' and a number, as x=0.5")
    return out
