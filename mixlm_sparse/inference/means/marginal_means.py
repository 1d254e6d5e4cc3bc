"""Marginal means and slopes as a result: a table, tests, comparisons."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from mixlm_sparse.common.checks import require_bool, require_level, require_number
from mixlm_sparse.common.errors import OptionError
from mixlm_sparse.common.late import LatePlots
from mixlm_sparse.common.tables import PrintsAsTable, ResultTable, result_table
from mixlm_sparse.inference.fixed.estimable import kept_part
from mixlm_sparse.inference.fixed.methods import joint_test, moments, reason_of
from mixlm_sparse.inference.fixed.tests import f_table
from mixlm_sparse.inference.means.adjustments import (
    require_across,
    require_adjust,
    require_side,
)
from mixlm_sparse.inference.means.contrast_table import (
    Contrasts,
    NamedContrasts,
    as_contrasts,
)
from mixlm_sparse.inference.means.contrasts import (
    contrasts_in_turn,
    contrasts_of,
    interaction_contrasts,
    is_each,
    usual_adjustment,
    without,
)
from mixlm_sparse.inference.means.effect_sizes import effect_sizes
from mixlm_sparse.inference.means.estimates import METHODS, Estimates, Question, written
from mixlm_sparse.inference.means.letters import lettered
from mixlm_sparse.inference.means.regrid import on_scale
from mixlm_sparse.inference.means.shown import as_shown, heading

# What the tables are made of; completion does not offer it.
INTERNAL = frozenset(
    {
        "asked", "basis", "carried", "cautions", "covariance", "families", "labels", "sums",
        "table", "tested",
    }
)  # fmt: skip


@dataclass(frozen=True, eq=False, repr=False)
class MarginalMeans(PrintsAsTable, Estimates):
    """Estimates at cells of the reference grid, averaged over the other factors.

    Prints as its table; `to_frame()` is that table.  `pairs` compares the cells of each `by` group
    with each other, `contrast` takes other families of contrasts, `test` other hypotheses,
    `confint` other intervals, `joint` tests all rows together, `letters` marks what does not
    differ, `eff_size` divides differences by a standard deviation.  After a `specs` such as
    "pairwise ~ f", `contrasts` are those.

    Parameters
    ----------
    asked : family of contrasts that `specs` named, "" for none.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> machines = mx.lmer("score ~ Machine + (1 | Worker)", mx.datasets.load("Machines"))
    >>> means = machines.emmeans("Machine")
    >>> means.pairs()
    Pairwise comparisons (Satterthwaite)
    contrast  estimate  std_error    df  statistic   p_value
    A - B       -7.967      1.054  46.0     -7.559  3.97e-09
    A - C      -13.917      1.054  46.0    -13.205    <2e-16
    B - C       -5.950      1.054  46.0     -5.646  2.90e-06
    Note: p-values adjusted by Tukey's method for a family of 3 means
    >>> means.test(null=60, side="greater")["p_value"].round(4).tolist()
    [0.9927, 0.445, 0.0158]
    """

    plot = LatePlots()

    asked: str = ""

    # -- tables -------------------------------------------------------------------------------

    def to_frame(self) -> pd.DataFrame:
        """Return the table: predictors, estimate, std_error, df, lower, upper."""
        asked = Question(self.adjust, self.level, tests=False, limits=True)
        return self.table(asked)

    def confint(
        self,
        *,
        level: float | None = None,
        adjust: str | None = None,
        cross_adjust: str | None = "none",
        side: str = "two-sided",
    ) -> Contrasts:
        """Return the table with limits.

        Parameters
        ----------
        level : coverage; None that of `emmeans`.
        adjust, cross_adjust : as in `contrast`, for the rows of each `by` group; None as in the
            table.
        side : "two-sided"; "greater" for lower limits alone, "less" for upper ones.
        """
        level = self.level if level is None else require_level("level", level)
        asked = Question(
            self._adjust(adjust), level, side=require_side(side), tests=False, limits=True,
            across=require_across(cross_adjust),
        )  # fmt: skip
        return self._answer(asked, f"Intervals, level {level:g}")

    def test(
        self,
        null: float = 0.0,
        *,
        side: str = "two-sided",
        delta: float = 0.0,
        adjust: str | None = None,
        cross_adjust: str | None = "none",
        conf_int: bool = False,
    ) -> Contrasts:
        """Test each estimate.

        Parameters
        ----------
        null : value under the hypothesis, on the scale of the model.
        side : the alternative: "two-sided" ("="), "less" ("<") or "greater" (">").
        delta : a margin.  "two-sided" then tests equivalence (two one-sided tests: closer to
            `null` than delta), "greater" non-inferiority (above null - delta), "less"
            non-superiority (below null + delta).
        adjust, cross_adjust : as in `contrast`, for the rows of each `by` group; None as in the
            table.
        conf_int : with limits.

        Returns
        -------
        DataFrame with the cells, estimate, std_error, df, statistic, p_value.
        """
        asked = Question(
            self._adjust(adjust),
            self.level,
            null=require_number("null", null),
            side=require_side(side),
            delta=require_number("delta", delta, least=0.0),
            limits=require_bool("conf_int", conf_int),
            across=require_across(cross_adjust),
        )
        what = "contrasts" if self.method else "marginal means"
        return self._answer(asked, f"Tests of {what}")

    @result_table()
    def joint(self) -> pd.DataFrame:
        """Test that all rows of each `by` group are zero together.

        Returns
        -------
        DataFrame with NumDF, DenDF, F value and Pr(>F), one row for each group.
        """
        method = moments(self.fit, self.ddf)
        rows_of = kept_part(self.fit, self.L)
        found, labels = [], []
        for key, rows in self.families():
            L = rows_of[rows]
            known = np.isfinite(L).all(axis=1)
            found.append(joint_test(self.fit, method, L[known], -self.offset[rows][known]))
            labels.append(", ".join(f"{k} = {written(v)}" for k, v in key.items()) or "all")
        table = f_table(self.fit, found, labels)[["NumDF", "DenDF", "F value", "Pr(>F)"]]
        table.attrs["heading"] = f"Joint tests ({METHODS[self.ddf]})"
        table.attrs["note"] = reason_of(self.fit, found)
        return table

    # -- comparisons --------------------------------------------------------------------------

    def pairs(
        self,
        adjust: str | None = "tukey",
        *,
        by: Any = "same",
        simple: Any = None,
        reverse: bool = False,
        conf_int: bool = False,
        cross_adjust: str | None = "none",
    ) -> Contrasts:
        """Compare every two cells of each group.

        Parameters
        ----------
        adjust, cross_adjust : of the p-values (and limits) within each group, and across groups;
            see `contrast`.
        by : columns that separate groups; None for none.
        simple : the factor (or factors) to compare within each combination of the others; "each"
            for every factor in turn.
        reverse : later minus earlier instead of earlier minus later.
        conf_int : also return simultaneous limits.

        Returns
        -------
        DataFrame with the columns of `by`, contrast, estimate, std_error, df, statistic, p_value
        and, if asked for, lower and upper.
        """
        return self.contrast(
            "pairwise", adjust=adjust, by=by, simple=simple, reverse=reverse, conf_int=conf_int,
            cross_adjust=cross_adjust,
        )  # fmt: skip

    def contrast(
        self,
        method: Any = "eff",
        *,
        by: Any = "same",
        simple: Any = None,
        interaction: Any = None,
        adjust: str | None = "usual",
        ref: Any = None,
        reverse: bool = False,
        conf_int: bool = False,
        null: float = 0.0,
        side: str = "two-sided",
        delta: float = 0.0,
        cross_adjust: str | None = "none",
        max_degree: int = 6,
    ) -> Contrasts:
        """Compare the cells of each group by a family of contrasts.

        Parameters
        ----------
        method : "pairwise", "revpairwise", "trt.vs.ctrl" (each with `ref`, the first unless said
            otherwise; "trt.vs.ctrlk": the last), "consec" (each with the one before), "mean_chg"
            (those after with those before), "eff" (each with the mean), "del.eff" (with the mean
            of the others), "poly" (orthogonal polynomials), "helmert", "identity".  Or weights: a
            dictionary such as {"late": [0, -1, 1]} or {"late": {"b": -1, "c": 1}}, (k,) or (c, k)
            numbers for the k cells of a group or of the whole table, or a DataFrame with the labels
            of cells as columns.
        by : columns that separate groups; None for none.  Contrasts of contrasts:
            `means.contrast("pairwise", by="b").contrast("pairwise", by="contrast")`.
        simple : the factor to compare within each combination of the others; "each" for every
            factor in turn, where its own column then says ".".
        interaction : a family for each factor of the table (or one for all): products of them.
        adjust : of p-values and limits within each group: "tukey" (all pairs), "dunnett" or "mvt"
            (exact, by the multivariate t distribution), "scheffe", "sidak", "bonferroni", "holm",
            "hochberg", "hommel", "fdr" (Benjamini-Hochberg), "BY" or "none".  "usual" is Tukey's
            for pairs, Dunnett's for comparisons with a reference, "mvt" for consec and mean_chg,
            "fdr" for effects, otherwise none.
        ref : level of the reference, or several, whose mean it is then.
        reverse : turn all signs.
        conf_int : with simultaneous limits (Bonferroni's for methods that go step by step).
        null, side, delta : as in `test`.
        cross_adjust : across the groups of `by`, on top of `adjust`: "bonferroni", "sidak" or
            "none".
        max_degree : of polynomial contrasts, the largest one.

        Returns
        -------
        Contrasts : a DataFrame with the columns of `by`, contrast, estimate ("ratio" on the scale
        of a response whose logarithm was modelled), std_error, df, statistic, p_value.

        Examples
        --------
        >>> import mixlm_sparse as mx
        >>> machines = mx.lmer("score ~ Machine + (1 | Worker)", mx.datasets.load("Machines"))
        >>> machines.emmeans("Machine").contrast({"A against others": [1, -0.5, -0.5]})
        Contrasts (Satterthwaite)
        contrast          estimate  std_error    df  statistic   p_value
        A against others  -10.9417     0.9127  46.0    -11.988  9.38e-16
        """
        each = is_each(self, simple)
        if require_bool("reverse", reverse) and interaction is not None:
            raise OptionError("reverse is not for interaction contrasts: name revpairwise instead")
        if interaction is not None and each:
            raise OptionError("interaction contrasts are of all factors: leave out simple='each'")
        if simple is not None and not each:
            by = without(self, simple)
        options: dict[str, Any] = {"ref": ref, "reverse": reverse, "max_degree": max_degree}
        if interaction is not None:
            found = interaction_contrasts(self, interaction, by=by)
        elif each:
            found = contrasts_in_turn(self, method, **options)
        else:
            found = contrasts_of(self, method, by=by, **options)
        usual = isinstance(adjust, str) and adjust == "usual"
        name = usual_adjustment(found) if usual else require_adjust(adjust)
        found = replace(found, adjust=name)
        return found.test(
            null, side=side, delta=delta, conf_int=conf_int, cross_adjust=cross_adjust
        )

    def regrid(self, scale: str = "response") -> MarginalMeans:
        """Return the means on the scale of the data for good: contrasts are differences there.

        Parameters
        ----------
        scale : "response", back from the transformation of the formula; or "log", the logarithms of
            these, whose comparisons are ratios of means, by the delta method.
        """
        return on_scale(self, scale)

    @property
    def contrasts(self) -> Contrasts:
        """The contrasts that `specs` named, as in "pairwise ~ f"; all pairs if it named none."""
        found = self.contrast(self.asked or "pairwise")
        return as_contrasts(found.estimates, found, found.attrs, NamedContrasts)

    @result_table("Marginal means with letters")
    def letters(
        self, *, alpha: float = 0.05, adjust: str = "tukey", reverse: bool = False
    ) -> pd.DataFrame:
        """Return the table with letters: rows of a group that share one do not differ.

        Parameters
        ----------
        alpha : level of the tests.
        adjust : of the comparisons, as in `contrast`.
        reverse : from the largest to the smallest instead of upwards.

        Returns
        -------
        DataFrame sorted by the estimate within each group, with the column `letters`; a mean that
        is not estimable has none.

        Examples
        --------
        >>> import mixlm_sparse as mx
        >>> machines = mx.lmer("score ~ Machine + (1 | Worker)", mx.datasets.load("Machines"))
        >>> machines.emmeans("Machine").letters()["letters"].tolist()
        ['a', 'b', 'c']
        """
        alpha = require_level("alpha", alpha)
        adjust, reverse = require_adjust(adjust), require_bool("reverse", reverse)
        table = self.to_frame()
        p = self.pairs(adjust)["p_value"].to_numpy()
        out = lettered(self, table, p, alpha=alpha, reverse=reverse)
        out.attrs["labels"] = table.attrs["labels"]
        out.attrs["notes"] = [
            *table.attrs["notes"],
            f"rows that share a letter do not differ (alpha {alpha:g}, adjust {adjust})",
        ]
        return out

    @result_table("Effect sizes")
    def eff_size(
        self,
        sigma: Any = "total",
        *,
        edf: float | None = None,
        method: Any = "pairwise",
        by: Any = "same",
        level: float | None = None,
    ) -> pd.DataFrame:
        """Return differences in standard deviations (Cohen's d), with intervals.

        Parameters
        ----------
        sigma : the standard deviation: "total" (random effects and residual of an average row),
            "residual", or a number.
        edf : its degrees of freedom, which measure its error; None takes Satterthwaite's from the
            fit, and infinity (no error) for a number.
        method, by : contrasts, as in `contrast`.
        level : coverage; None that of `emmeans`.

        Returns
        -------
        DataFrame with the contrasts, effect_size, std_error, df, lower, upper.
        """
        level = self.level if level is None else require_level("level", level)
        means = self if self.method else contrasts_of(self, method, by=by)
        return effect_sizes(means, sigma, edf, level)

    def __dir__(self) -> list[str]:
        return [name for name in super().__dir__() if name not in INTERNAL]

    # -- how it prints ------------------------------------------------------------------------

    def _adjust(self, adjust: str | None) -> str:
        return self.adjust if adjust is None else require_adjust(adjust)

    def _answer(self, asked: Question, what: str) -> Contrasts:
        table = self.table(asked)
        about = dict(table.attrs)
        called = heading(self) if self.method else what
        about["heading"] = f"{called} ({METHODS[self.ddf]})"
        return as_contrasts(self, table, about)

    def __repr__(self) -> str:
        pieces = [self._table().text()]
        if self.asked:
            pieces.append(self.contrasts.text())
        return "\n\n".join(pieces)

    def _repr_html_(self) -> str:
        return self.to_html() + (str(self.contrasts.to_html()) if self.asked else "")

    def _table(self) -> ResultTable:
        return as_shown(self, self.to_frame())
