"""A penalized spline smoother, the additive model y = f(x) + e, on `fit_matrices`.

    f(x) = beta_0 + beta_1 x + sum_k b_k (x - kappa_k)_+,   b_k ~ N(0, sigma^2 theta^2)

The truncated lines are the columns of one random term with one variance ("id"): REML chooses the
smoothing, lambda = 1 / theta^2.  A term needs groups, and the curve is one: rows left of the first
knot have zeros in all columns, so that they can be a group of their own and change nothing.
"""

import numpy as np

import mixlm_sparse as mx


def basis(x, knots):
    """Return the truncated lines, (n, k)."""
    return np.maximum(x[:, None] - knots, 0.0)


def design(x):
    return np.column_stack([np.ones_like(x), x])


def smooth(x, y, n_knots=20):
    """Return the fit and its knots."""
    knots = np.quantile(x, np.linspace(0.05, 0.95, n_knots))
    curve = np.where(x > knots[0], "curve", "left of it")
    term = mx.RandomEffect(curve, basis(x, knots), name="f", structure="id")
    control = mx.Control(warn=False)  # two groups are few for a variance, were they groups
    return mx.fit_matrices(y, design(x), [term], control=control), knots


def main():
    rng = np.random.default_rng(2)
    x = np.sort(rng.uniform(0.0, 1.0, 300))
    truth = np.sin(2.0 * np.pi * x)
    y = truth + rng.normal(scale=0.3, size=x.size)
    fit, knots = smooth(x, y)
    # the smoother as textbooks write it, at the same lambda
    B = np.column_stack([design(x), basis(x, knots)])
    penalty = np.diag([0.0, 0.0, *np.full(knots.size, 1.0 / fit.theta[0] ** 2)])
    ridge = B @ np.linalg.solve(B.T @ B + penalty, B.T @ y)
    fitted = np.asarray(fit.fittedvalues)
    error = np.sqrt(np.mean((fitted - truth) ** 2))
    print(f"lambda {1.0 / fit.theta[0] ** 2:.3g}, sigma {fit.sigma:.3f}")
    print(f"root mean square error of the curve {error:.3f}")
    print(f"largest difference to the ridge formula {np.abs(fitted - ridge).max():.1e}")
    return fitted, ridge, error


if __name__ == "__main__":
    main()
