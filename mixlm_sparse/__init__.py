"""Linear mixed models: lme4's formulas and answers, sparse algebra, exact gradients.

>>> import mixlm_sparse as mx
>>> sleepstudy = mx.datasets.load("sleepstudy")
>>> fit = mx.lmer("Reaction ~ Days + (Days | Subject)", sleepstudy)
>>> print(fit.summary())
Linear mixed model fit by REML
Formula: Reaction ~ Days + (Days | Subject)
...
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mixlm_sparse import datasets
    from mixlm_sparse.api.compile_kernels import compile_kernels
    from mixlm_sparse.api.fit import LinearMixedFit
    from mixlm_sparse.api.gls import gls
    from mixlm_sparse.api.lm_list import LmList, lm_list
    from mixlm_sparse.api.lmer import deviance_function, fit_matrices, lmer, make_fit
    from mixlm_sparse.api.load import load
    from mixlm_sparse.api.many import lmer_many
    from mixlm_sparse.api.many_load import load_many
    from mixlm_sparse.api.many_result import ManyFits
    from mixlm_sparse.api.plan import plan
    from mixlm_sparse.api.power import power
    from mixlm_sparse.api.power_curve import power_curve
    from mixlm_sparse.api.power_result import Power, PowerCurve
    from mixlm_sparse.api.products import cross_products, fit_products
    from mixlm_sparse.common.errors import (
        CheckpointWarning,
        CompilationWarning,
        ConvergenceWarning,
        DataError,
        EngineError,
        FewLevelsWarning,
        FormulaError,
        FormulaWarning,
        MissingPackageError,
        MixedModelError,
        MixedModelWarning,
        NotPositiveDefiniteError,
        OptionError,
        RankDeficiencyWarning,
        RefitWarning,
        RowsAbsentError,
        SavedFitError,
        ScalingWarning,
        SingularFitWarning,
        SkippedGroupsWarning,
        WorkerError,
    )
    from mixlm_sparse.covariance.serial import AR1, CAR1, AnteDependence
    from mixlm_sparse.covariance.spatial import Exponential, Gaussian
    from mixlm_sparse.covariance.variance import VarExp, VarIdent, VarPower
    from mixlm_sparse.covariance.visits import CompoundSymmetry, Toeplitz, Unstructured
    from mixlm_sparse.design.arrays import RandomEffect
    from mixlm_sparse.design.build import model_matrices
    from mixlm_sparse.design.known import Precision, Relationship
    from mixlm_sparse.design.matrices import ModelMatrices
    from mixlm_sparse.design.membership import membership
    from mixlm_sparse.design.pedigree import Pedigree
    from mixlm_sparse.engines.decisions import use_compiled
    from mixlm_sparse.engines.threads import use_threads
    from mixlm_sparse.formula.parse import parse_formula
    from mixlm_sparse.formula.terms import MixedFormula
    from mixlm_sparse.inference.cases.influence import Influence
    from mixlm_sparse.inference.fixed.robust import RobustCovariance
    from mixlm_sparse.inference.means.marginal_means import MarginalMeans
    from mixlm_sparse.inference.models.compare import anova
    from mixlm_sparse.inference.models.diagnostics import AllFits, all_fit
    from mixlm_sparse.inference.models.step import StepResult
    from mixlm_sparse.inference.resample.pb_modcomp import PBModcomp, pb_modcomp
    from mixlm_sparse.inference.resample.result import Bootstrap
    from mixlm_sparse.inference.variance.profile.curve import ParameterProfile, Profile
    from mixlm_sparse.model.batches.products import ModelProducts, load_products
    from mixlm_sparse.model.plan import Plan
    from mixlm_sparse.model.simulate import simulate
    from mixlm_sparse.model.varcorr import VarCorr
    from mixlm_sparse.report import plots
    from mixlm_sparse.report.explain import explain
    from mixlm_sparse.report.tables.comparison import compare_table
    from mixlm_sparse.solve.criterion import DevianceFunction
    from mixlm_sparse.solve.optimize import optimize
    from mixlm_sparse.solve.search.control import Control
    from mixlm_sparse.solve.search.optimum import Optimum
    from mixlm_sparse.solve.solution import PlsSolution, solve_pls
    from mixlm_sparse.solve.system import PenalizedSystem, penalized_system

__version__ = "0.1.0"

# Where each public name is defined; a name is loaded when it is asked for first.
_HOMES = {
    "api.compile_kernels": ("compile_kernels",),
    "api.fit": ("LinearMixedFit",),
    "api.gls": ("gls",),
    "api.lm_list": ("LmList", "lm_list"),
    "api.lmer": ("deviance_function", "fit_matrices", "lmer", "make_fit"),
    "api.load": ("load",),
    "api.many": ("lmer_many",),
    "api.many_load": ("load_many",),
    "api.many_result": ("ManyFits",),
    "api.plan": ("plan",),
    "api.power": ("power",),
    "api.power_curve": ("power_curve",),
    "api.power_result": ("Power", "PowerCurve"),
    "api.products": ("cross_products", "fit_products"),
    "common.errors": (
        "CheckpointWarning",
        "CompilationWarning",
        "ConvergenceWarning",
        "DataError",
        "EngineError",
        "FewLevelsWarning",
        "FormulaError",
        "FormulaWarning",
        "MissingPackageError",
        "MixedModelError",
        "MixedModelWarning",
        "NotPositiveDefiniteError",
        "OptionError",
        "RankDeficiencyWarning",
        "RefitWarning",
        "RowsAbsentError",
        "SavedFitError",
        "ScalingWarning",
        "SingularFitWarning",
        "SkippedGroupsWarning",
        "WorkerError",
    ),
    "covariance.serial": ("AR1", "CAR1", "AnteDependence"),
    "covariance.spatial": ("Exponential", "Gaussian"),
    "covariance.variance": ("VarExp", "VarIdent", "VarPower"),
    "covariance.visits": ("CompoundSymmetry", "Toeplitz", "Unstructured"),
    "design.arrays": ("RandomEffect",),
    "design.build": ("model_matrices",),
    "design.known": ("Precision", "Relationship"),
    "design.membership": ("membership",),
    "design.matrices": ("ModelMatrices",),
    "design.pedigree": ("Pedigree",),
    "engines.decisions": ("use_compiled",),
    "engines.threads": ("use_threads",),
    "formula.parse": ("parse_formula",),
    "formula.terms": ("MixedFormula",),
    "inference.cases.influence": ("Influence",),
    "inference.fixed.robust": ("RobustCovariance",),
    "inference.means.marginal_means": ("MarginalMeans",),
    "inference.models.compare": ("anova",),
    "inference.models.diagnostics": ("AllFits", "all_fit"),
    "inference.models.step": ("StepResult",),
    "inference.resample.pb_modcomp": ("PBModcomp", "pb_modcomp"),
    "inference.resample.result": ("Bootstrap",),
    "inference.variance.profile.curve": ("ParameterProfile", "Profile"),
    "model.batches.products": ("ModelProducts", "load_products"),
    "model.plan": ("Plan",),
    "model.simulate": ("simulate",),
    "model.varcorr": ("VarCorr",),
    "report.explain": ("explain",),
    "report.tables.comparison": ("compare_table",),
    "solve.criterion": ("DevianceFunction",),
    "solve.optimize": ("optimize",),
    "solve.search.control": ("Control",),
    "solve.search.optimum": ("Optimum",),
    "solve.solution": ("PlsSolution", "solve_pls"),
    "solve.system": ("PenalizedSystem", "penalized_system"),
}
_MODULES = {"datasets": "datasets", "plots": "report.plots"}

__all__ = [
    "AR1",
    "CAR1",
    "AllFits",
    "AnteDependence",
    "Bootstrap",
    "CheckpointWarning",
    "CompilationWarning",
    "CompoundSymmetry",
    "Control",
    "ConvergenceWarning",
    "DataError",
    "DevianceFunction",
    "EngineError",
    "Exponential",
    "FewLevelsWarning",
    "FormulaError",
    "FormulaWarning",
    "Gaussian",
    "Influence",
    "LinearMixedFit",
    "LmList",
    "ManyFits",
    "MarginalMeans",
    "MissingPackageError",
    "MixedFormula",
    "MixedModelError",
    "MixedModelWarning",
    "ModelMatrices",
    "ModelProducts",
    "NotPositiveDefiniteError",
    "Optimum",
    "OptionError",
    "PBModcomp",
    "ParameterProfile",
    "Pedigree",
    "PenalizedSystem",
    "Plan",
    "PlsSolution",
    "Power",
    "PowerCurve",
    "Precision",
    "Profile",
    "RandomEffect",
    "RankDeficiencyWarning",
    "RefitWarning",
    "Relationship",
    "RobustCovariance",
    "RowsAbsentError",
    "SavedFitError",
    "ScalingWarning",
    "SingularFitWarning",
    "SkippedGroupsWarning",
    "StepResult",
    "Toeplitz",
    "Unstructured",
    "VarCorr",
    "VarExp",
    "VarIdent",
    "VarPower",
    "WorkerError",
    "__version__",
    "all_fit",
    "anova",
    "compare_table",
    "compile_kernels",
    "cross_products",
    "datasets",
    "deviance_function",
    "explain",
    "fit_matrices",
    "fit_products",
    "gls",
    "lm_list",
    "lmer",
    "lmer_many",
    "load",
    "load_many",
    "load_products",
    "make_fit",
    "membership",
    "model_matrices",
    "optimize",
    "parse_formula",
    "pb_modcomp",
    "penalized_system",
    "plan",
    "plots",
    "power",
    "power_curve",
    "simulate",
    "solve_pls",
    "use_compiled",
    "use_threads",
]

_ELSEWHERE = {  # what users of other packages type
    "fit": "lmer", "lme": "lmer", "lmm": "lmer", "mixedlm": "lmer", "MixedLM": "lmer",
    "mixed": "lmer", "lmList": "lm_list", "allFit": "all_fit", "read": "load",
    "lmerControl": "Control", "data": "datasets.load",
}  # fmt: skip

_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:
    """Load a public name, with the modules that it needs."""
    value: object
    if name in _HOME_OF:
        value = getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    elif name in _MODULES:
        value = import_module(f"{__name__}.{_MODULES[name]}")
    else:
        raise _unknown(name)
    globals()[name] = value
    return value


def _unknown(name: str) -> AttributeError:
    if name in _ELSEWHERE:
        return AttributeError(f"{__name__} has no {name!r}: use {__name__}.{_ELSEWHERE[name]}")
    if name in ("glmer", "glmm", "nlmer"):
        return AttributeError(
            f"{__name__} fits linear mixed models only, there is no {name!r}: for binary responses "
            "and counts use bambi, or R's lme4 and glmmTMB"
        )
    if name in ("wide_to_long", "melt", "reshape", "pivot_longer"):
        return AttributeError(
            f"{__name__} has no {name!r}: rows are made from columns by pandas.melt or "
            "pandas.wide_to_long"
        )
    if not name.startswith("_"):
        if name in import_module(f"{__name__}.datasets").names():
            return AttributeError(
                f"{__name__} has no {name!r}: use {__name__}.datasets.load({name!r})"
            )
        fit: type = import_module(f"{__name__}.api.fit").LinearMixedFit
        answers: dict[str, str] = import_module(f"{__name__}.api.aliases").ANSWERS
        if name in answers:
            return AttributeError(f"{__name__} has no {name!r}: {answers[name]}")
        of_fit = [other for other in (name, *_words(name)) if hasattr(fit, other)]
        if of_fit:
            fact = f"{__name__} has no {name!r}"
            return AttributeError(f"{fact}: it belongs to a fit, fit.{of_fit[0]}")
    return AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _words(name: str) -> list[str]:
    aliases = import_module(f"{__name__}.api.aliases")
    return [table[name] for table in (aliases.SAME, aliases.CALLED) if name in table]


def __dir__() -> list[str]:
    return list(__all__)
