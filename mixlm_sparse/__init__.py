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

from mixlm_sparse import datasets
from mixlm_sparse.arrays import RandomEffect
from mixlm_sparse.design import ModelMatrices, model_matrices
from mixlm_sparse.deviance import DevianceFunction
from mixlm_sparse.errors import (
    ConvergenceWarning,
    DataError,
    EngineError,
    FormulaError,
    FormulaWarning,
    MixedModelError,
    MixedModelWarning,
    NotPositiveDefiniteError,
    OptionError,
    RankDeficiencyWarning,
    ScalingWarning,
    SingularFitWarning,
)
from mixlm_sparse.fit import deviance_function, fit_matrices, lmer, make_fit
from mixlm_sparse.formula import MixedFormula, parse_formula
from mixlm_sparse.optimize import Control, Optimum, optimize
from mixlm_sparse.pls import PenalizedSystem, penalized_system
from mixlm_sparse.result import LinearMixedFit
from mixlm_sparse.solution import PlsSolution, solve_pls
from mixlm_sparse.varcorr import VarCorr

__version__ = "0.1.0"

__all__ = [
    "Control",
    "ConvergenceWarning",
    "DataError",
    "DevianceFunction",
    "EngineError",
    "FormulaError",
    "FormulaWarning",
    "LinearMixedFit",
    "MixedFormula",
    "MixedModelError",
    "MixedModelWarning",
    "ModelMatrices",
    "NotPositiveDefiniteError",
    "Optimum",
    "OptionError",
    "PenalizedSystem",
    "PlsSolution",
    "RandomEffect",
    "RankDeficiencyWarning",
    "ScalingWarning",
    "SingularFitWarning",
    "VarCorr",
    "__version__",
    "datasets",
    "deviance_function",
    "fit_matrices",
    "lmer",
    "make_fit",
    "model_matrices",
    "optimize",
    "parse_formula",
    "penalized_system",
    "solve_pls",
]
