"""Groups ranked by a random effect, with intervals of the ranks."""

from __future__ import annotations

import numpy as np
import pandas as pd

from mixlm_sparse.common.checks import require_count, require_level, require_names
from mixlm_sparse.common.errors import OptionError
from mixlm_sparse.common.tables import result_table
from mixlm_sparse.common.text import percent
from mixlm_sparse.model.fitted import FittedModel
from mixlm_sparse.model.structured import require_random_effects
from mixlm_sparse.report.plots.data import choose, effects_of, z_value

MOST_DRAWS = 20_000_000  # numbers drawn at most: fewer simulations for very many groups


@result_table()
def rank(
    fit: FittedModel,
    group: str | None = None,
    effect: str | None = None,
    *,
    level: float = 0.95,
    nsim: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """Rank the groups of a factor by a random effect, and say how well the ranks are known.

    The effects are drawn from their conditional distribution given the variances, each group on its
    own; the limits of a rank are quantiles of its ranks in the draws.  Groups of which little is
    known may have nearly any rank, which the order alone hides.

    Parameters
    ----------
    group : grouping factor; by default the first.
    effect : random effect; by default the first of the factor.
    level : of the intervals.
    nsim : draws.
    seed : of the draws.

    Returns
    -------
    DataFrame, a row for each group from the largest effect on, with columns estimate, std_error,
    lower, upper (of the effect) and rank, rank_lower, rank_upper (1 is the largest effect).

    Raises
    ------
    OptionError : unknown factor or effect, a level outside of (0, 1).

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> fit = mx.lmer("Reaction ~ Days + (Days | Subject)", mx.datasets.load("sleepstudy"))
    >>> fit.rank(effect="Days")[["rank", "rank_lower", "rank_upper"]].head(2)
             rank  rank_lower  rank_upper
    Subject
    308         1           1           4
    337         2           1           5
    """
    require_random_effects(fit, "rank")
    level = require_level("level", level)
    nsim, seed = require_count("nsim", nsim, most=10**6), require_count("seed", seed, least=0)
    if effect is not None:
        (effect,) = require_names("effect", [effect], what="effect")
    effects = effects_of(fit, group)
    if not effects.names:
        raise OptionError(f"'{effects.label}' has no random effects to rank by")
    k = choose(effects.names, effect or effects.names[0], "effect")[0]
    values, sd = effects.values[:, k], effects.sd[:, k]
    n = values.size
    draws = max(min(nsim, MOST_DRAWS // max(n, 1)), 100)
    rng = np.random.default_rng(seed)
    ranks = np.empty((draws, n), dtype=np.int32)
    for row in ranks:
        order = np.argsort(-(values + sd * rng.standard_normal(n)), kind="stable")
        row[order] = np.arange(1, n + 1)
    tail = 0.5 * (1.0 - level)
    low, high = np.quantile(ranks, [tail, 1.0 - tail], axis=0, method="inverted_cdf")
    half = z_value(level) * sd
    order = np.argsort(-values, kind="stable")
    index = fit.ranef()[effects.label].index
    table = pd.DataFrame(
        {
            "estimate": values, "std_error": sd, "lower": values - half, "upper": values + half,
            "rank_lower": low.astype(int), "rank_upper": high.astype(int),
        },
        index=index,
    ).iloc[order]  # fmt: skip
    table.insert(4, "rank", np.arange(1, n + 1))
    table.attrs["heading"] = f"{effects.label} ranked by the random effect {effects.names[k]}"
    table.attrs["note"] = f"{percent(level)} intervals given the variances; ranks of {draws} draws"
    return table
