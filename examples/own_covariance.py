"""A covariance structure of your own: a random walk over the columns of a term.

    b_k = sigma theta (e_1 + ... + e_k),   so   T = theta tril(1)

One class registers it; formulas, search, inference and tables then know `walk(... | g)`.
"""

import numpy as np

import mixlm_sparse as mx
from mixlm_sparse.covariance.structure import CovarianceStructure, structure


@structure("walk")
class Walk(CovarianceStructure):
    """Random walk: one parameter, the relative standard deviation of a step."""

    closed_under = "one scale"
    correlated = False

    @property
    def start(self):
        return np.ones(1)

    @property
    def lower(self):
        return np.zeros(1)

    def names(self, group, columns):
        return (f"{group}.walk",)

    def factor(self, theta):
        return theta[0] * np.tril(np.ones((self.k, self.k)))

    def dT(self, theta):
        return np.tril(np.ones((self.k, self.k)))[None]

    def theta_of(self, M):
        return np.sqrt((M[:1] ** 2).sum(axis=1))


def dense_criterion(y, X, Z_of_row, groups, theta):
    """Return -2 log likelihood at theta with beta and sigma profiled out, from V itself."""
    n, k = Z_of_row.shape
    step = theta**2 * np.minimum.outer(np.arange(1, k + 1), np.arange(1, k + 1))
    V = np.eye(n) + (groups[:, None] == groups) * (Z_of_row @ step @ Z_of_row.T)
    solved = np.linalg.solve(V, X)
    residual = y - X @ np.linalg.solve(X.T @ solved, solved.T @ y)
    pwrss = residual @ np.linalg.solve(V, residual)
    return np.linalg.slogdet(V)[1] + n * (1.0 + np.log(2.0 * np.pi * pwrss / n))


def main():
    data = mx.datasets.load("Orthodont").assign(visit=lambda d: d["age"].astype(int).astype(str))
    data["visit"] = data["visit"].astype("category").cat.set_categories(["8", "10", "12", "14"])
    fit = mx.lmer("distance ~ age + walk(0 + visit | Subject)", data, reml=False)
    print(fit.varcorr)
    X = np.column_stack([np.ones(len(data)), data["age"]])
    indicators = (data["visit"].cat.codes.to_numpy()[:, None] == np.arange(4)).astype(float)
    groups = data["Subject"].to_numpy()
    dense = dense_criterion(
        data["distance"].to_numpy(float), X, indicators, groups, fit.theta[0]
    )
    print("criterion", round(fit.criterion, 6), "from the dense matrix", round(dense, 6))
    return fit.criterion, dense


if __name__ == "__main__":
    main()
