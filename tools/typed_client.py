"""A program on the package: `mypy --strict` passes, and it runs.

`make release-check` checks it against the installed wheel.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import mixlm_sparse as mx

if TYPE_CHECKING:
    from typing_extensions import assert_type


def fitted(formula: str, data: object, *, reml: bool = True) -> mx.LinearMixedFit:
    """Fit a model, and stop at what cannot be fitted."""
    try:
        return mx.lmer(formula, data, reml=reml, control=mx.Control(warn=False))
    except mx.FormulaError as error:
        raise SystemExit(f"in the formula: {error}") from error
    except mx.MixedModelError as error:
        raise SystemExit(str(error)) from error


def described(fit: mx.LinearMixedFit) -> dict[str, float]:
    """Return what a program would store of a fit."""
    levels: Mapping[str, int] = fit.ngroups
    if TYPE_CHECKING:
        assert_type(fit.sigma, float)
        assert_type(fit.nobs, int)
        assert_type(fit.formula, str)
        assert_type(fit.is_singular(), bool)
        assert_type(fit.refit_ml(), mx.LinearMixedFit)
        assert_type(fit.bootstrap(10), mx.Bootstrap)
        assert_type(fit.emmeans("Days"), mx.MarginalMeans)
        assert_type(fit.profile(), mx.Profile)
        assert_type(fit.to_dict(), dict[str, Any])
        print(fit.sgima)  # type: ignore[attr-defined]
        fit.summary(corelation=True)  # type: ignore[call-arg]
        mx.lmer(5, None)  # type: ignore[arg-type]
    return {"sigma": fit.sigma, "criterion": fit.criterion, "groups": float(sum(levels.values()))}


def criterion_at_start(formula: str, data: object) -> float:
    """Evaluate the criterion without a fit."""
    deviance: mx.DevianceFunction = mx.deviance_function(formula, data)
    return deviance(deviance.theta0)


def main() -> None:
    """Run the program."""
    sleep = mx.datasets.load("sleepstudy")
    formula = "Reaction ~ Days + (Days | Subject)"
    fit = fitted(formula, sleep)
    assert set(described(fit)) == {"sigma", "criterion", "groups"}
    assert criterion_at_start(formula, sleep) > fit.criterion
    many: mx.ManyFits = mx.lmer_many("~ Days + (1 | Subject)", sleep, responses=["Reaction"])
    assert many.sigma.shape == (1,)


if __name__ == "__main__":
    main()
