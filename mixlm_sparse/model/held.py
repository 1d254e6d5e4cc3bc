"""`fixed=`: variance parameters that are held at values, by the names that tables give them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from mixlm_sparse.common.checks import listed, plain_name, require_number, shown
from mixlm_sparse.common.errors import NotPositiveDefiniteError, OptionError
from mixlm_sparse.design.matrices import ModelMatrices
from mixlm_sparse.engines.krylov.settings import Estimation
from mixlm_sparse.model.parameters import VarianceParameter, variance_parameters
from mixlm_sparse.solve.held import HeldCoordinates
from mixlm_sparse.solve.hold import Held, Hold
from mixlm_sparse.solve.products.accumulate import CrossProducts
from mixlm_sparse.solve.rows import RowSource
from mixlm_sparse.solve.system import PenalizedSystem, penalized_system

NATURAL_US = "us(natural)"


def held_system(
    matrices: ModelMatrices,
    engine: str,
    fixed: Any,
    *,
    cross: CrossProducts | None = None,
    source: RowSource | None = None,
    estimation: Estimation | None = None,
) -> PenalizedSystem:
    """Return the system of a design with the parameters of `fixed` held.

    Parameters
    ----------
    fixed : name of a standard deviation, correlation or sigma -> its value; None for none.
    cross, source, estimation : as in `penalized_system`.

    Raises
    ------
    OptionError : what is wrong with `fixed`, by name.
    """
    system = penalized_system(
        matrices, engine, cross=cross, source=source, estimation=estimation
    )
    if fixed is None:
        return system
    if not isinstance(fixed, Mapping) or not fixed:
        raise OptionError(
            f"fixed is {shown(fixed)}: give a dict such as {{'sigma': 1.0}}, or leave it out"
        )
    if system.whitened is not None:
        raise OptionError(
            "fixed= beside residual= or variance= is not possible: hold parameters in a model with "
            "independent residuals"
        )
    chosen = _chosen(fixed, variance_parameters(system))
    if any(par.term >= 0 for par, _ in chosen) and any(
        t.name == "us" and t.k > 1 for t in system.templates
    ):
        if cross is not None:
            raise OptionError(
                "fixed= holds a standard deviation or correlation beside (x | g) only where all "
                "rows are in memory: give the data as one frame, or hold sigma alone"
            )
        # standard deviations and correlations as coordinates, so that one can be held
        terms = tuple(
            replace(term, structure=NATURAL_US)
            if template.name == "us" and template.k > 1
            else term
            for term, template in zip(matrices.terms, system.templates, strict=True)
        )
        system = penalized_system(
            replace(matrices, terms=terms), engine, estimation=estimation
        )
        by_name = {par.name: par for par in variance_parameters(system)}
        chosen = [(by_name[par.name], value) for par, value in chosen]
    _require_one_value(chosen, system)
    sigma = [value for par, value in chosen if par.kind == "sigma"]
    held = Held(
        names=tuple((par.name, value) for par, value in chosen),
        holds=tuple(
            Hold(par.term, par.index, par.kind, par.row, value)
            for par, value in chosen
            if par.kind != "sigma"
        ),
        sigma=sigma[0] if sigma else None,
    )
    system = replace(system, held=held)
    coordinates = HeldCoordinates.of(system)
    try:
        coordinates.expand(coordinates.reduce(system.chart.start, 1.0))
    except NotPositiveDefiniteError as error:
        raise OptionError(f"the values of fixed do not go together: {error}") from None
    return system


def _chosen(
    fixed: Mapping[Any, Any], parameters: tuple[VarianceParameter, ...]
) -> list[tuple[VarianceParameter, float]]:
    """Return the parameters that are named, with their values, checked."""
    by_name = {par.name: par for par in parameters}
    found: dict[str, float] = {}
    for name, value in fixed.items():
        key = plain_name(name) if isinstance(name, str) and name not in by_name else name
        if not isinstance(key, str) or key not in by_name:
            raise OptionError(
                f"fixed names {shown(name)}, which is no variance parameter of the model: use "
                f"{listed(tuple(by_name), 12, quoted=True)}"
            )
        number = require_number(f"fixed[{key!r}]", value)
        par = by_name[key]
        if par.kind == "cor" and not par.least < number < 1.0:
            raise OptionError(
                f"fixed[{key!r}] is {number:g}: a correlation here is between {par.least:.4g} and 1"
            )
        if par.kind != "cor" and not number > 0.0:
            raise OptionError(
                f"fixed[{key!r}] is {number:g}: a standard deviation is positive; leave the effect "
                "out of the formula to have none"
            )
        found[key] = number
    return [(by_name[name], value) for name, value in found.items()]


def _require_one_value(
    chosen: list[tuple[VarianceParameter, float]], system: PenalizedSystem
) -> None:
    """Refuse two values for what is one parameter, as all standard deviations of `id` are."""
    known: dict[tuple[int, int], tuple[str, float]] = {}
    for par, value in chosen:
        if par.term < 0:
            continue
        at = par.term, system.templates[par.term].held_coordinate(par.index)
        name, before = known.setdefault(at, (par.name, value))
        if name != par.name:
            raise OptionError(
                f"fixed has {name} = {before:g} and {par.name} = {value:g}, which are one "
                "parameter of the term: give one of them"
            )


def still_there(fixed: Any, system: PenalizedSystem) -> dict[str, float] | None:
    """Return what of `fixed` names parameters of a system, None if nothing does."""
    names = {par.name for par in variance_parameters(system)}
    left = {name: value for name, value in (fixed or {}).items() if plain_name(name) in names}
    return left or None
