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

from mixlm_sparse import datasets, plots
from mixlm_sparse.arrays import RandomEffect
from mixlm_sparse.design import ModelMatrices, model_matrices
from mixlm_sparse.deviance import DevianceFunction
from mixlm_sparse.errors import (
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
    SavedFitError,
    ScalingWarning,
    SingularFitWarning,
    SkippedGroupsWarning,
)
from mixlm_sparse.factor.kernels import use_compiled
from mixlm_sparse.fit import deviance_function, fit_matrices, lmer, make_fit
from mixlm_sparse.formula import MixedFormula, parse_formula
from mixlm_sparse.inference.bootstrap import Bootstrap
from mixlm_sparse.inference.compare import anova
from mixlm_sparse.inference.diagnostics import AllFits, all_fit
from mixlm_sparse.inference.emmeans import MarginalMeans
from mixlm_sparse.inference.influence import Influence
from mixlm_sparse.inference.pb_modcomp import PBModcomp, pb_modcomp
from mixlm_sparse.inference.profile import ParameterProfile, Profile
from mixlm_sparse.inference.reduce import StepResult
from mixlm_sparse.inference.robust import RobustCovariance
from mixlm_sparse.lm_list import LmList, lm_list
from mixlm_sparse.loading import load
from mixlm_sparse.many import ManyFits, lmer_many
from mixlm_sparse.optimize import Control, Optimum, optimize
from mixlm_sparse.pls import PenalizedSystem, penalized_system
from mixlm_sparse.power import Power, power
from mixlm_sparse.result import LinearMixedFit
from mixlm_sparse.simulate import simulate
from mixlm_sparse.solution import PlsSolution, solve_pls
from mixlm_sparse.tables import compare_table
from mixlm_sparse.varcorr import VarCorr

__version__ = "0.1.0"

__all__ = [
    "AllFits",
    "Bootstrap",
    "Control",
    "ConvergenceWarning",
    "DataError",
    "DevianceFunction",
    "EngineError",
    "FewLevelsWarning",
    "FormulaError",
    "FormulaWarning",
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
    "NotPositiveDefiniteError",
    "Optimum",
    "OptionError",
    "PBModcomp",
    "ParameterProfile",
    "PenalizedSystem",
    "PlsSolution",
    "Power",
    "Profile",
    "RandomEffect",
    "RankDeficiencyWarning",
    "RefitWarning",
    "RobustCovariance",
    "SavedFitError",
    "ScalingWarning",
    "SingularFitWarning",
    "SkippedGroupsWarning",
    "StepResult",
    "VarCorr",
    "__version__",
    "all_fit",
    "anova",
    "compare_table",
    "datasets",
    "deviance_function",
    "fit_matrices",
    "lm_list",
    "lmer",
    "lmer_many",
    "load",
    "make_fit",
    "model_matrices",
    "optimize",
    "parse_formula",
    "pb_modcomp",
    "penalized_system",
    "plots",
    "power",
    "simulate",
    "solve_pls",
    "use_compiled",
]
