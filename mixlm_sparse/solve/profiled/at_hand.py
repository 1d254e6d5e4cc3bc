"""The last gradient of a search, where it is asked for again: at a leg's end, on the boundary."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mixlm_sparse.common.types import Matrix, Vector
from mixlm_sparse.solve.chart import Chart
from mixlm_sparse.solve.criterion import Evaluation
from mixlm_sparse.solve.profiled.axes import same_in_other_axes


@dataclass(frozen=True, eq=False, slots=True)
class AtHand:
    """The criterion at a point of a search, and its derivatives there.

    Parameters
    ----------
    x : (m,) phi, and after it parameters of the residuals, if there are any.
    rotations : the axes in which phi is (see `axes`), the very list.
    evaluation : the criterion there, and its derivative by every working Lambda.
    gradient : its derivative (m,) by x.
    """

    x: Vector
    rotations: list[Matrix] | None
    evaluation: Evaluation
    gradient: Vector

    def at(self, x: Vector, rotations: list[Matrix] | None) -> tuple[float, Vector] | None:
        """Return value and gradient (m,), if it is at this point in these axes; else None."""
        if rotations is not self.rotations or not np.array_equal(x, self.x):
            return None
        return self.evaluation.value, self.gradient

    def moved(
        self,
        x: Vector,
        rotations: list[Matrix] | None,
        to: Vector,
        factors: Sequence[Matrix],
        chart: Chart,
    ) -> AtHand:
        """Return what is known at x for another point (m,) of the same covariances.

        That is in unturned axes.  The criterion is a function of T T': with T Q, Q orthogonal, in
        the place of T its derivative by T is turned by Q as well, and nothing is to be evaluated.
        What is at another point than x, or would be of other covariances, stays as it is.

        Parameters
        ----------
        factors : the working Lambda at x, (k, k) per term.
        """
        if self.at(x, rotations) is None:
            return self
        phi = to[: chart.m]
        turns = same_in_other_axes(factors, chart.factors(phi))
        if turns is None:
            return self
        slopes = [G @ Q for G, Q in zip(chart.split(self.evaluation.slopes), turns, strict=True)]
        gradient = np.concatenate([chart.pull_back(phi, slopes), self.gradient[chart.m :]])
        there = Evaluation(self.evaluation.value, chart.merge(slopes))
        return AtHand(to.copy(), None, there, gradient)


NOTHING = AtHand(np.empty(0), None, Evaluation(math.inf, []), np.empty(0))
