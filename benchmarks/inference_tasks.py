"""What `benchmarks.inference` times: models, and the tests, intervals and diagnostics of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np
import pandas as pd

import mixlm_sparse as mx
from tests.support.corpus import load_data

Fit = mx.LinearMixedFit
Numbers = dict[str, dict[str, float]]  # column -> label -> value, as inference.R has it


# --------------------------------------------------------------------------------------- models


def simulated(n: int, n_groups: int) -> pd.DataFrame:
    """Return a random intercept and slope for groups of about equal size."""
    rng = np.random.default_rng(1)
    codes = rng.integers(0, n_groups, n)
    x = rng.normal(size=n)
    b = rng.normal(size=(n_groups, 2))
    y = x + b[codes, 0] + 0.5 * b[codes, 1] * x + rng.normal(size=n)
    return pd.DataFrame({"y": y, "x": x, "g": pd.Categorical(codes)})


@dataclass(frozen=True)
class Model:
    """A model of this benchmark; `data` makes the frame."""

    formula: str
    data: Callable[[], pd.DataFrame]


def _packaged(name: str) -> Callable[[], pd.DataFrame]:
    return partial(mx.datasets.load, name)


MODELS = {
    "sleepstudy": Model("Reaction ~ Days + (Days | Subject)", _packaged("sleepstudy")),
    "cake": Model("angle ~ recipe * temperature + (1 | recipe:replicate)", _packaged("cake")),
    "InstEval": Model("y ~ service * dept + (1 | s) + (1 | d)", _packaged("InstEval")),
    "beets": Model(
        "sugpct ~ block + sow + harvest + (1 | block:harvest)", partial(load_data, "beets")
    ),
    "HSB": Model("mathach ~ meanses + cses * sector + (cses | school)", _packaged("HSB")),
    "n=5,000": Model("y ~ x + (x | g)", partial(simulated, 5_000, 100)),
    "n=50,000": Model("y ~ x + (x | g)", partial(simulated, 50_000, 1_000)),
    "Penicillin": Model("diameter ~ 1 + (1 | plate) + (1 | sample)", _packaged("Penicillin")),
    "Pastes": Model("strength ~ 1 + (1 | batch/cask)", _packaged("Pastes")),
    "carrots": Model(
        "Preference ~ sens2 + Gender + Homesize + Age + (1 | Product) + (sens2 | Consumer)",
        partial(load_data, "carrots"),
    ),
    "Exam": Model("normexam ~ standLRT + (standLRT | school)", _packaged("Exam")),
}


@cache
def frame_of(name: str) -> pd.DataFrame:
    """Return the data of a model."""
    return MODELS[name].data()


def fit_of(name: str) -> Fit:
    """Fit a model. A new fit keeps nothing of what was computed for another one."""
    return mx.lmer(MODELS[name].formula, frame_of(name))


# ---------------------------------------------------------------------------------------- tasks


@dataclass(frozen=True)
class Task:
    """Something that is done with a fit, on the clock.

    Parameters
    ----------
    kind : its name in inference.R, or what it is where R has none.
    what : how the table says it.
    model : of `MODELS`.
    work : is timed.
    numbers : what is compared, from the fit and what `work` returned; None where R has no such task
        or would take too long.
    """

    kind: str
    what: str
    model: str
    work: Callable[[Fit], Any]
    numbers: Callable[[Fit, Any], Numbers] | None = None

    @property
    def name(self) -> str:
        return f"{self.kind}_{self.model}"

    @property
    def weighed(self) -> bool:
        """Whether memory is measured, on both sides in a process that does nothing else."""
        return self.kind == "kenward_roger"


def labelled(frame: pd.DataFrame, **columns: str) -> Numbers:
    """Return columns of a table under other names, by the table's index."""
    labels = [str(label) for label in frame.index]
    return {
        key: dict(zip(labels, frame[column].astype("float64"), strict=True))
        for key, column in columns.items()
    }


def _satterthwaite(fit: Fit) -> pd.DataFrame:
    fit.summary(ddf="satterthwaite")
    return fit.anova()


def _satterthwaite_numbers(fit: Fit, terms: pd.DataFrame) -> Numbers:
    coefficients = fit.tidy().set_index("term")
    return {
        **labelled(coefficients, df="df", p="p_value"),
        **labelled(terms, **{"anova df": "DenDF", "anova F": "F value", "anova p": "Pr(>F)"}),
    }


def _means(fit: Fit) -> tuple[pd.DataFrame, pd.DataFrame]:
    means = fit.emmeans("recipe")
    return means.to_frame(), means.pairs("none")


def _means_numbers(fit: Fit, found: tuple[pd.DataFrame, pd.DataFrame]) -> Numbers:
    return {
        **labelled(found[0].set_index("recipe"), lower="lower", upper="upper", df="df"),
        **labelled(found[1].set_index("contrast"), p="p_value"),
    }


def _influence_numbers(fit: Fit, estimates: pd.DataFrame) -> Numbers:
    return labelled(estimates, **{f"without group: {name}": name for name in fit.fixef.index})


def _step_numbers(fit: Fit, found: mx.StepResult) -> Numbers:
    return {
        **labelled(found.fixed, eliminated="Eliminated", df="DenDF", p="Pr(>F)"),
        **labelled(found.random, LRT="LRT"),
    }


def _kenward_roger(model: str, *, compared: bool = True) -> Task:
    return Task(
        "kenward_roger",
        "Kenward-Roger: standard errors, df, p of coefficients",
        model,
        lambda fit: fit.tidy(ddf="kenward-roger").set_index("term"),
        (lambda fit, found: labelled(found, se="std_error", df="df", p="p_value"))
        if compared
        else None,
    )


ALL_EFFECTS = ["fixed", "ran_pars", "ran_vals"]

TASKS = [
    _kenward_roger("beets"),
    _kenward_roger("HSB"),
    _kenward_roger("n=5,000"),
    _kenward_roger("n=50,000", compared=False),
    *(
        Task(
            "satterthwaite", "Satterthwaite: summary and anova, type III", model,
            _satterthwaite, _satterthwaite_numbers,
        )
        for model in ("sleepstudy", "cake", "InstEval")
    ),
    *(
        Task(
            "profile", "profile confint, all parameters", model, lambda fit: fit.confint(),
            lambda fit, found: labelled(found, lower="lower", upper="upper"),
        )
        for model in ("sleepstudy", "Penicillin", "Pastes")
    ),
    *(
        Task(
            "components", "standard errors of variance components", model,
            lambda fit: fit.variance_components(),
            lambda fit, found: labelled(found, se="std_error"),
        )
        for model in ("sleepstudy", "HSB")
    ),
    *(
        Task(
            "ranova", "ranova", model, lambda fit: fit.ranova(),
            lambda fit, found: labelled(found, LRT="LRT", p="Pr(>Chisq)"),
        )
        for model in ("sleepstudy", "carrots")
    ),
    Task(
        "drop1_F", "drop1, F by Satterthwaite", "carrots", lambda fit: fit.drop1(test="F"),
        lambda fit, found: labelled(found, df="DenDF", F="F value", p="Pr(>F)"),
    ),
    Task(
        "drop1_lrt", "drop1, likelihood ratio", "carrots", lambda fit: fit.drop1(),
        lambda fit, found: labelled(found, LRT="LRT", p="Pr(>Chisq)"),
    ),
    Task("step", "step", "carrots", lambda fit: fit.step(), _step_numbers),
    Task("means", "marginal means and pairs of recipes", "cake", _means, _means_numbers),
    *(
        Task(
            "robust", "CR2 standard errors, df, p", model, lambda fit: fit.robust().table(),
            lambda fit, found: labelled(found, se="std_error", df="df", p="p_value"),
        )
        for model in ("sleepstudy", "HSB")
    ),
    *(
        Task(
            "influence", f"influence by {group}, refitted", model,
            lambda fit, group=group: fit.influence(group).estimates(),  # type: ignore[misc]
            _influence_numbers,
        )
        for model, group in (("sleepstudy", "Subject"), ("Exam", "school"))
    ),
    *(
        Task(kind, what, model, work)
        for model in ("sleepstudy", "InstEval")
        for kind, what, work in (
            ("icc", "icc with intervals", lambda fit: fit.icc()),
            ("r2", "r2 with intervals", lambda fit: fit.r2()),
            ("tidy", "tidy: fixed, ran_pars, ran_vals", lambda fit: fit.tidy(ALL_EFFECTS)),
        )
    ),
]  # fmt: skip
