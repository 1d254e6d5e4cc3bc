"""Adjustment of p-values and intervals for a family of comparisons.

    tukey        all pairs of k means, by the studentized range (exact with equal variances)
    dunnett, mvt the largest of these correlated t statistics: multivariate t with their own
                 correlations (for comparisons with a control, Dunnett's test)
    scheffe      every contrast of the space that the family spans: t^2 / r against F(r, df)
    sidak        1 - (1 - p)^n
    bonferroni   n p
    holm         Bonferroni one step after the other;  hochberg: from the largest p downwards;
                 hommel: the closed test by Simes's inequality, at least as powerful as hochberg
    fdr (BH)     the false discovery rate, Benjamini and Hochberg;  BY: under any dependence
    none

The methods that go step by step have no simultaneous intervals of their own: limits are
Bonferroni's.

Across g families, p-values adjusted within each become g p (bonferroni) or 1 - (1 - p)^g (sidak),
and limits have coverage 1 - (1 - level) / g or level^(1/g) within each: the whole table then keeps
the level, where families are adjusted so that each keeps it.

References
----------
Hochberg and Tamhane (1987), Multiple comparison procedures; Hommel (1988),
doi:10.1093/biomet/75.2.383; Wright (1992), doi:10.2307/2532694; Benjamini and Yekutieli (2001),
doi:10.1214/aos/1013699998.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import fdtrc, fdtri, stdtr, stdtrit

from mixlm_sparse.common.checks import require_one_of
from mixlm_sparse.common.errors import OptionError
from mixlm_sparse.common.types import Matrix, Vector
from mixlm_sparse.inference.means.max_t import MaxT, max_t

ADJUSTMENTS = (
    "tukey", "dunnett", "mvt", "scheffe", "sidak", "bonferroni", "holm", "hochberg", "hommel",
    "fdr", "BY", "none",
)  # fmt: skip
ALIASES = {
    "bh": "fdr", "bonf": "bonferroni", "by": "BY", "dunnettx": "dunnett", "hsd": "tukey",
    "tukey-hsd": "tukey",
    "single-step": "mvt", "fdr_bh": "fdr", "fdr_by": "BY", "holm-sidak": "sidak",
}  # fmt: skip
NAMES = {
    "tukey": "Tukey's method",
    "dunnett": "Dunnett's method, by the multivariate t distribution",
    "mvt": "the multivariate t distribution",
    "scheffe": "Scheffé's method",
    "sidak": "Šidák's method",
    "bonferroni": "Bonferroni's method",
    "holm": "Holm's method",
    "hochberg": "Hochberg's method",
    "hommel": "Hommel's method",
    "fdr": "the false discovery rate (Benjamini-Hochberg)",
    "BY": "the false discovery rate (Benjamini-Yekutieli)",
}
# Their limits are Bonferroni's.
STEPWISE = ("holm", "hochberg", "hommel", "fdr", "BY")
ACROSS = ("none", "bonferroni", "sidak")  # what families together are adjusted by
SIDES = ("two-sided", "less", "greater")
SIDE_ALIASES = {
    "=": "two-sided", "!=": "two-sided", "two.sided": "two-sided", "equivalence": "two-sided",
    "<": "less", "left": "less", "nonsuperiority": "less", "smaller": "less",
    ">": "greater", "right": "greater", "noninferiority": "greater", "larger": "greater",
}  # fmt: skip
TUKEY_MAX_DF = 1e5  # beyond it the studentized range is that of infinite df


def require_adjust(adjust: object) -> str:
    """Return the canonical name of a method; None is "none"."""
    if adjust is None:
        return "none"
    if isinstance(adjust, str):
        adjust = ALIASES.get(adjust.lower(), adjust.lower())
    return str(require_one_of("adjust", adjust, ADJUSTMENTS))


def require_across(cross_adjust: object) -> str:
    """Return how p-values and limits are adjusted across families; None is "none"."""
    if cross_adjust is None:
        return "none"
    folded = cross_adjust.lower() if isinstance(cross_adjust, str) else cross_adjust
    return str(require_one_of("cross_adjust", folded, ACROSS))


def p_across(p: Vector, families: int, across: str) -> Vector:
    """Return p-values (k,), adjusted within their family, as those of one of so many families."""
    if across == "none" or families < 2:
        return p
    if across == "bonferroni":
        return np.asarray(np.minimum(1.0, families * p), dtype=np.float64)
    return np.asarray(-np.expm1(families * np.log1p(-np.minimum(p, 1.0 - 1e-16))))


def level_within(level: float, families: int, across: str) -> float:
    """Return the coverage of limits within each family that keeps `level` across all."""
    if across == "none" or families < 2:
        return level
    return 1.0 - (1.0 - level) / families if across == "bonferroni" else level ** (1.0 / families)


def require_side(side: object) -> str:
    """Return the alternative: "two-sided", "less" or "greater"."""
    if isinstance(side, str):
        side = SIDE_ALIASES.get(side, side)
    return str(require_one_of("side", side, SIDES))


def tail_p(statistic: Vector, df: Vector, side: str) -> Vector:
    """Return p-values of t statistics, (k,)."""
    with np.errstate(invalid="ignore"):
        if side == "two-sided":
            return np.asarray(2.0 * stdtr(df, -np.abs(statistic)), dtype=np.float64)
        sign = 1.0 if side == "less" else -1.0
        return np.asarray(stdtr(df, sign * statistic), dtype=np.float64)


@dataclass(frozen=True, eq=False)
class Family:
    """Tests that are adjusted together.

    Parameters
    ----------
    covariance : (k, k) of the estimates, NaN where there is none.
    pairs : whether these are all pairs of some means.
    side : the alternative.
    distance : the tests are about a distance (equivalence), which is no family of t statistics.
    """

    covariance: Matrix
    pairs: bool = False
    side: str = "two-sided"
    distance: bool = False

    def require(self, adjust: str) -> None:
        """Raise an OptionError if a method does not suit these tests."""
        if adjust == "tukey" and not self.pairs:
            raise OptionError(
                "adjust is 'tukey', which is for all pairs of means: use 'mvt' (exact), 'sidak' or "
                "'holm'"
            )
        if adjust in ("tukey", "scheffe", "dunnett", "mvt") and self.distance:
            raise OptionError(
                f"adjust is {adjust!r}, which is not for tests of equivalence: use 'holm', 'sidak' "
                "or 'none'"
            )
        if adjust in ("tukey", "scheffe") and self.side != "two-sided":
            raise OptionError(
                f"adjust is {adjust!r}, which is two-sided: use 'mvt' (exact), 'sidak' or 'holm'"
            )

    def size(self, adjust: str) -> int:
        """Return the number of tests; Tukey's method counts means, Scheffé's the rank."""
        known = np.isfinite(np.diag(self.covariance))
        n = int(known.sum())
        if adjust == "tukey":
            return _means_of(n)
        return self._rank(known) if adjust == "scheffe" and n else n

    def p_values(self, statistic: Vector, df: Vector, p: Vector, adjust: str) -> Vector:
        """Return the adjusted p-values (k,) of tests with p-values p; NaN are no members."""
        self.require(adjust)
        known = np.isfinite(p)
        n = int(known.sum())
        out = np.array(p, dtype=np.float64)
        if n < 2 or adjust == "none":
            return out
        own = p[known]
        if adjust == "bonferroni":
            out[known] = np.minimum(1.0, n * own)
        elif adjust == "sidak":
            out[known] = -np.expm1(n * np.log1p(-np.minimum(own, 1.0 - 1e-16)))
        elif adjust in STEPWISE:
            out[known] = _stepwise(own, adjust)
        else:
            found = self._joint_p(statistic[known], df[known], known, adjust)
            # between the single test and Bonferroni's bound, whatever a numerical integral says;
            # Scheffé's method covers more than these tests and may be above
            most = 1.0 if adjust == "scheffe" else np.minimum(1.0, n * own)
            out[known] = np.clip(found, own, most)
        return out

    def _joint_p(
        self, statistic: Vector, df: Vector, known: np.ndarray, adjust: str
    ) -> Vector:
        size = np.abs(statistic)
        if adjust == "tukey":
            from scipy.stats import studentized_range  # slow to load, and seldom needed

            found = studentized_range.sf(
                np.sqrt(2.0) * size, _means_of(int(known.sum())), np.minimum(df, TUKEY_MAX_DF)
            )
            return np.asarray(found, dtype=np.float64)
        if adjust == "scheffe":
            r = self._rank(known)
            return _f_tail(size**2 / r, r, df)
        largest = self._max_t(known)
        signed = {"two-sided": size, "less": -statistic, "greater": statistic}[self.side]
        return np.array(
            [largest.exceeds(float(t), float(d)) for t, d in zip(signed, df, strict=True)]
        )

    def critical(self, level: float, df: Vector, adjust: str) -> Vector:
        """Return half widths of simultaneous intervals in standard errors, (k,)."""
        self.require(adjust)
        df = np.where(np.isnan(df), np.inf, df)
        known = np.isfinite(np.diag(self.covariance))
        n = int(known.sum())
        tail = 1.0 - level
        if n < 2 or adjust == "none":
            pass
        elif adjust == "bonferroni" or adjust in STEPWISE:
            tail = tail / n
        elif adjust == "sidak":
            tail = float(-np.expm1(np.log(level) / n))
        else:
            distinct, place = np.unique(df.round(6), return_inverse=True)
            found = np.array([self._joint_critical(level, d, known, adjust) for d in distinct])
            out: Vector = found[place]
            return out
        half = 0.5 * tail if self.side == "two-sided" else tail
        return np.asarray(-stdtrit(df, half), dtype=np.float64)

    def _joint_critical(self, level: float, df: float, known: np.ndarray, adjust: str) -> float:
        if adjust == "tukey":
            from scipy.stats import studentized_range  # as above

            k = _means_of(int(known.sum()))
            found = studentized_range.ppf(level, k, min(df, TUKEY_MAX_DF))
            return float(found / np.sqrt(2.0))
        if adjust == "scheffe":
            r = self._rank(known)
            return float(np.sqrt(r * _f_quantile(level, r, df)))
        return self._max_t(known).quantile(level, df)

    def _correlations(self, known: np.ndarray) -> Matrix:
        V = self.covariance[np.ix_(known, known)]
        sd = np.sqrt(np.diag(V))
        out: Matrix = V / np.outer(sd, sd)
        return out

    def _rank(self, known: np.ndarray) -> int:
        sizes = np.linalg.eigvalsh(self._correlations(known))
        return int((sizes > 1e-9 * sizes[-1]).sum())

    def _max_t(self, known: np.ndarray) -> MaxT:
        return max_t(self._correlations(known), two_sided=self.side == "two-sided")


def note_of(adjust: str, sizes: list[int], *, limits: bool, tests: bool) -> str:
    """Say how p-values and limits were adjusted.

    Parameters
    ----------
    sizes : of each family, see `Family.size`.
    """
    if adjust == "none" or not sizes or not (limits or tests):
        return ""
    counts = sorted(set(sizes))
    if counts[-1] < (3 if adjust == "tukey" else 2):
        return ""
    size = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    what = f"a family of {size} tests" if tests else f"a family of {size} intervals"
    if adjust == "scheffe":
        what = f"contrasts of rank {size}"
    if adjust == "tukey":
        what = f"a family of {size} means"
    if adjust in STEPWISE and limits:
        second = f"limits by Bonferroni's method for {what}"
        if not tests:
            return second
        return f"p-values adjusted by {NAMES[adjust]} for {what}; {second}"
    return f"{_what(limits, tests)} adjusted by {NAMES[adjust]} for {what}"


def note_across(across: str, families: int, *, limits: bool, tests: bool) -> str:
    """Say how families were adjusted together."""
    if across == "none" or families < 2:
        return ""
    return f"{_what(limits, tests)} adjusted across {families} families by {NAMES[across]}"


def _what(limits: bool, tests: bool) -> str:
    return " and ".join([*(["p-values"] if tests else []), *(["limits"] if limits else [])])


def _means_of(pairs: int) -> int:
    """Return the number of means that have so many pairs; those not estimable do not count."""
    return int(np.ceil(0.5 * (1.0 + np.sqrt(1.0 + 8.0 * pairs)) - 1e-9))


def _stepwise(p: Vector, adjust: str) -> Vector:
    """Return adjusted p-values of the methods that go through them in order of size."""
    n = p.size
    order = np.argsort(p, kind="stable")
    sorted_p, rank = p[order], np.arange(1, n + 1)
    if adjust == "hommel":
        steps = _hommel(sorted_p)
    elif adjust == "holm":
        steps = np.maximum.accumulate((n - rank + 1) * sorted_p)
    else:
        factor = n - rank + 1.0 if adjust == "hochberg" else n / rank
        if adjust == "BY":
            factor = factor * (1.0 / rank).sum()
        steps = np.minimum.accumulate((factor * sorted_p)[::-1])[::-1]
    out = np.empty(n)
    out[order] = np.minimum(1.0, steps)
    return out


def _hommel(p: Vector) -> Vector:
    """Return Hommel's adjusted p-values of n rising ones.

    The closed test rejects a hypothesis if Simes's test, min_k m p_(k) / k, rejects every set with
    it.  Of the sets of size m that is least likely for the one with the m - 1 largest others, so
    that n sets tell for each hypothesis.
    """
    n = p.size
    out = p.copy()
    for m in range(2, n + 1):
        # the m - 1 largest have the ranks from 2 on
        others = float((m * p[n - m + 1 :] / np.arange(2, m + 1)).min())
        first = np.minimum(p, p[n - m])  # one of the m largest makes their own set
        out = np.maximum(out, np.minimum(m * first, others))
    return out


def _f_tail(F: Vector, r: int, df: Vector) -> Vector:
    # beyond 1e8 the F distribution is that of infinite df to all digits shown
    return np.asarray(fdtrc(r, np.minimum(df, 1e8), F), dtype=np.float64)


def _f_quantile(level: float, r: int, df: float) -> float:
    return float(fdtri(r, min(df, 1e8), level))
