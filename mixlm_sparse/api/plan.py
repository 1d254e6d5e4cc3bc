"""What a fit would take, before it is made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from mixlm_sparse.common.keywords import answers_unknown_keywords
from mixlm_sparse.design.membership import joined
from mixlm_sparse.engines.threads import calm
from mixlm_sparse.formula.parse import formula_text
from mixlm_sparse.formula.terms import MixedFormula
from mixlm_sparse.model.call import FitOptions, ModelCall
from mixlm_sparse.model.plan import Plan, plan_of
from mixlm_sparse.solve.search.control import Control, control_of

__all__ = ["plan"]


@answers_unknown_keywords
@calm
def plan(
    formula: str | MixedFormula,
    data: Any,
    reml: bool = True,
    weights: Any = None,
    offset: Any = None,
    subset: Any = None,
    contrasts: Mapping[str, Any] | None = None,
    engine: str = "auto",
    control: Control | None = None,
    env: Mapping[str, Callable[..., Any]] | None = None,
    known: Mapping[str, Any] | None = None,
    membership: Mapping[str, Any] | None = None,
) -> Plan:
    """Say what a fit would take: rows, random effects by term, structure, memory, seconds.

    The products of the rows are formed and the criterion is evaluated twice; nothing is searched
    for.  Where a model does not fit into memory, `fits` is False and `reason` tells what would
    help; `lmer` then raises the same text before it takes the memory.

    Parameters
    ----------
    formula, data, reml, weights, offset, subset, contrasts, engine, control, env, known, membership
        : as in `lmer`.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> plan = mx.plan("Reaction ~ Days + (Days | Subject)", mx.datasets.load("sleepstudy"))
    >>> plan.nobs, plan.q, plan.fits
    (180, 36, True)
    """
    options = FitOptions(reml=reml, engine=engine, control=control_of(control))
    return plan_of(
        ModelCall(
            formula=formula_text(formula),
            data=joined(data, membership),
            weights=weights,
            offset=offset,
            subset=subset,
            contrasts=contrasts,
            env=env,
            known=known,
            options=options,
        )
    )
