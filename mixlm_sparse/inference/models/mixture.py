"""Likelihood-ratio tests with variances on the boundary of their range.

Under the hypothesis that a variance is zero the statistic is not chi-squared: half of the time the
estimate itself would be negative and the statistic is zero.  Leaving one random effect out of r + 1
correlated ones takes away one variance and r covariances, and the statistic follows

    1/2 chi2(r) + 1/2 chi2(r + 1)

(r = 0 for a random intercept alone; Stata's chibar2(01)).  If more than one effect is left out, the
weights depend on the design, but those of even and of odd degrees add up to 1/2 each, so that
1/2 chi2(df - 1) + 1/2 chi2(df) bounds p from above, and is still below the naive p.

References
----------
Self and Liang (1987), doi:10.1080/01621459.1987.10478472; Stram and Lee (1994),
doi:10.2307/2533455; Silvapulle and Sen (2005), Constrained Statistical Inference, chapter 3.
"""

from __future__ import annotations

from scipy.special import chdtrc

# Criteria of searches are certain up to this, and up to this share of their size.
CERTAIN_ATOL = 1e-6
CERTAIN_RTOL = 1e-13


def lr_statistic(smaller: float, larger: float) -> float:
    """Return chi-squared from the criteria of two models; zero where they differ by rounding.

    At zero p by a mixture jumps from one half to one: a rest of rounding must not decide that.
    """
    statistic = smaller - larger
    return statistic if not statistic <= CERTAIN_ATOL + CERTAIN_RTOL * abs(smaller) else 0.0


def naive_p(statistic: float, df: int) -> float:
    """Return P(chi2(df) > statistic); NaN without degrees of freedom."""
    return float(chdtrc(df, max(statistic, 0.0))) if df > 0 else float("nan")


def mixture_p(statistic: float, df: int) -> float:
    """Return p by 1/2 chi2(df - 1) + 1/2 chi2(df); chi2(0) is a point mass at zero."""
    if df <= 0:
        return float("nan")
    if statistic <= 0.0:
        return 1.0
    below = float(chdtrc(df - 1, statistic)) if df > 1 else 0.0
    return 0.5 * below + 0.5 * float(chdtrc(df, statistic))


def mixture_label(df: int, effects: int) -> str:
    """Say which mixture it is, and whether it is exact for large samples.

    Parameters
    ----------
    df : parameters left out.
    effects : random effects (variances) left out.
    """
    if df <= 0:
        return ""
    text = f"1/2 chi2({df - 1}) + 1/2 chi2({df})"
    return text if effects == 1 else f"{text}, upper bound"
