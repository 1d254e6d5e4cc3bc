"""The fitted model as users see it: what `FittedModel` holds, and a table of methods.

A method is a function of its room with the fit as its first argument; it is entered here once, and
its signature and docstring live there.  Those rooms know `FittedModel` only; they reach further
fits through its methods `refit`, `refit_ml` and `update`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mixlm_sparse.api.aliases import no_entries, other_name
from mixlm_sparse.api.attribute import Attribute
from mixlm_sparse.api.late import Late
from mixlm_sparse.api.uncalled import shows_uncalled
from mixlm_sparse.common.keywords import answering_methods
from mixlm_sparse.common.layout import hanging
from mixlm_sparse.engines.threads import calm_methods
from mixlm_sparse.model.fitted import FittedModel

if TYPE_CHECKING:
    from mixlm_sparse.api import save as saved
    from mixlm_sparse.inference.cases import influence as cases
    from mixlm_sparse.inference.fixed import coefficients
    from mixlm_sparse.inference.fixed import robust as sandwich
    from mixlm_sparse.inference.means import emmeans as means
    from mixlm_sparse.inference.means import joint
    from mixlm_sparse.inference.models import compare, diagnostics, linear, serial
    from mixlm_sparse.inference.models import drop1 as fixed_terms
    from mixlm_sparse.inference.models import ranova as random_terms
    from mixlm_sparse.inference.models import step as elimination
    from mixlm_sparse.inference.resample import bootstrap as replicates
    from mixlm_sparse.inference.variance import components, shares
    from mixlm_sparse.inference.variance import confint as intervals
    from mixlm_sparse.inference.variance import heritability as inherited
    from mixlm_sparse.inference.variance import residual_structure as structures
    from mixlm_sparse.inference.variance.profile import compute as profiles
    from mixlm_sparse.model import lme4_parts
    from mixlm_sparse.model import simulate as simulations
    from mixlm_sparse.model.batches import fits as batches
    from mixlm_sparse.model.predict import predict as predictions
    from mixlm_sparse.report.plots import methods as pictures
    from mixlm_sparse.report.tables import as_dict as documents
    from mixlm_sparse.report.tables import for_maketables as maketables
    from mixlm_sparse.report.tables import rank as ranks
    from mixlm_sparse.report.tables import short as shorts
    from mixlm_sparse.report.tables import stream as streamed
    from mixlm_sparse.report.tables import summary as summaries
    from mixlm_sparse.report.tables import tidy as tables
else:  # loaded with the first of their methods that is asked for
    cases = Late("inference.cases.influence")
    coefficients = Late("inference.fixed.coefficients")
    sandwich = Late("inference.fixed.robust")
    means = Late("inference.means.emmeans")
    joint = Late("inference.means.joint")
    compare = Late("inference.models.compare")
    diagnostics = Late("inference.models.diagnostics")
    linear = Late("inference.models.linear")
    serial = Late("inference.models.serial")
    fixed_terms = Late("inference.models.drop1")
    random_terms = Late("inference.models.ranova")
    elimination = Late("inference.models.step")
    replicates = Late("inference.resample.bootstrap")
    components = Late("inference.variance.components")
    shares = Late("inference.variance.shares")
    intervals = Late("inference.variance.confint")
    inherited = Late("inference.variance.heritability")
    structures = Late("inference.variance.residual_structure")
    profiles = Late("inference.variance.profile.compute")
    lme4_parts = Late("model.lme4_parts")
    simulations = Late("model.simulate")
    batches = Late("model.batches.fits")
    predictions = Late("model.predict.predict")
    saved = Late("api.save")
    pictures = Late("report.plots.methods")
    documents = Late("report.tables.as_dict")
    maketables = Late("report.tables.for_maketables")
    ranks = Late("report.tables.rank")
    streamed = Late("report.tables.stream")
    shorts = Late("report.tables.short")
    summaries = Late("report.tables.summary")
    tables = Late("report.tables.tidy")

# What other modules of the package read; completion does not offer it.
INTERNAL = frozenset(
    {
        "error_reason", "fitted_used", "has_error", "kept", "n_determined", "normalized_used",
        "notes", "options", "pearson_used", "perfect", "resid_used", "residual_quantiles",
        "scaled_residuals_used", "standard_errors", "t_ratios",
    }
)  # fmt: skip


@answering_methods
@calm_methods
@dataclass(frozen=True, eq=False, repr=False)
class LinearMixedFit(FittedModel):
    """A fitted linear mixed model.

        y | b ~ N(X beta + Z b + o, sigma^2 W^{-1}),  b ~ N(0, sigma^2 Lambda Lambda')

    Made by `lmer`, `fit_matrices` or `make_fit`; never changed afterwards.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> fit = mx.lmer("Reaction ~ Days + (Days | Subject)", mx.datasets.load("sleepstudy"))
    >>> fit.fixef.round(3)
    (Intercept)    251.405
    Days            10.467
    dtype: float64
    >>> fit.varcorr
     Groups    Name         Variance  Std.Dev.  Corr
     Subject   (Intercept)    612.09    24.740
               Days            35.07     5.922  0.07
     Residual                 654.94    25.592
    """

    # coefficients and terms of the fixed part
    pvalues = Attribute(coefficients.pvalues)
    df_coefficients = coefficients.df_coefficients
    conf_int = coefficients.conf_int
    vcov_adjusted = coefficients.vcov_adjusted
    contest = coefficients.contest
    wald_test = coefficients.wald_test
    robust = sandwich.robust
    emmeans = means.emmeans
    emtrends = means.emtrends
    joint_tests = joint.joint_tests

    # variance parameters
    variance_components = components.variance_components
    residual_structure = Attribute(structures.residual_structure)
    confint = intervals.confint
    profile = profiles.profile
    icc = shares.icc
    heritability = inherited.heritability
    r2 = shares.r2

    # other models
    anova = compare.anova
    ranova = random_terms.ranova
    drop1 = fixed_terms.drop1
    step = elimination.step
    lr_vs_lm = linear.lr_vs_lm

    # diagnosis
    singularity = diagnostics.singularity
    rePCA = diagnostics.rePCA
    all_fit = diagnostics.all_fit
    influence = cases.influence
    acf = serial.acf
    variogram = serial.variogram

    # predictions and new responses
    predict = predictions.predict
    simulate = simulations.simulate_fit
    bootstrap = replicates.bootstrap

    # tables, plots, files
    summary = summaries.summary
    tidy = tables.tidy
    glance = tables.glance
    augment = tables.augment
    stream = streamed.stream
    group_sizes = tables.group_sizes
    to_dict = documents.to_dict
    rank = ranks.rank
    plot = Attribute(pictures.FitPlots)
    getME = lme4_parts.getME
    save = saved.save
    append = batches.append
    endog_names = Attribute(maketables.endog_names)
    for_maketables = maketables.for_maketables

    def describe_engine(self) -> str:
        """Say in words how the system is factored and evaluated.

        Examples
        --------
        >>> import mixlm_sparse as mx
        >>> fit = mx.lmer("Reaction ~ Days + (Days | Subject)", mx.datasets.load("sleepstudy"))
        >>> print(fit.describe_engine().splitlines()[1].strip())
        eliminated in closed form: Subject (18 levels, 2 effects a level)
        """
        return "\n".join(hanging(self.system.describe()))

    __str__ = shorts.short_text

    def _repr_html_(self) -> str:
        return self.summary().html

    if not TYPE_CHECKING:  # a misspelled name is an error for type checkers

        def __getattr__(self, name: str) -> Any:
            if name.startswith("__maketables_"):  # the plug-in of the package maketables
                return getattr(self.for_maketables(), name)
            if name.startswith("_"):
                raise AttributeError(name)
            return other_name(self, name)

        def __getitem__(self, key: object) -> Any:
            raise no_entries(self, key)

    def __dir__(self) -> list[str]:
        return [name for name in super().__dir__() if name not in INTERNAL]


shows_uncalled(LinearMixedFit, "summary")
