"""A Gibbs sampler whose step for all random effects is one `solve` of an engine.

    y = X beta + Z u tau + e,   e ~ N(0, sigma^2 I),   u ~ N(0, sigma^2 I),   Lambda = tau_g I

For crossed factors the draw of u given the rest has the precision C / sigma^2 with
C = Lambda'Z'Z Lambda + I.  With white noise e1 (n), e2 (q),

    u = C^{-1} (Lambda'Z'(r + sigma e1) + sigma e2)

has the right mean and covariance: no factor is taken apart.  Priors are flat in beta, log sigma and
the standard deviations of the random effects.
"""

import numpy as np

import mixlm_sparse as mx
from mixlm_sparse.engines.choose import make_engine


def gibbs(system, X, y, codes, draws, seed):
    """Draw (sigma, sd of each factor, beta) for random intercepts."""
    rng = np.random.default_rng(seed)
    engine = make_engine("auto", system.products.blocks)
    levels = [len(f.ztz) for f in system.products.blocks.factors]
    n, p = X.shape
    XtX, sigma, tau = X.T @ X, y.std(), np.ones(len(levels))
    b = [np.zeros(count) for count in levels]
    out = np.empty((draws, 1 + len(levels) + p))
    for draw in range(draws):
        # beta given the random effects
        rest = y - sum(effect[code] for effect, code in zip(b, codes, strict=True))
        root = np.linalg.cholesky(np.linalg.inv(XtX))
        beta = np.linalg.solve(XtX, X.T @ rest) + sigma * root @ rng.normal(size=p)
        # all random effects given the others
        noisy = y - X @ beta + sigma * rng.normal(size=n)
        right = [
            scale * np.bincount(code, noisy, count) + sigma * rng.normal(size=count)
            for scale, code, count in zip(tau, codes, levels, strict=True)
        ]
        engine.factorize([np.array([[scale]]) for scale in tau])
        u = engine.solve([side[:, None, None] for side in right])
        b = [scale * effect[:, 0, 0] for scale, effect in zip(tau, u, strict=True)]
        # variances given the effects
        residual = y - X @ beta - sum(e[code] for e, code in zip(b, codes, strict=True))
        sigma = np.sqrt(residual @ residual / rng.chisquare(n))
        sd = [np.sqrt(effect @ effect / rng.chisquare(effect.size - 1)) for effect in b]
        tau = np.array(sd) / sigma
        out[draw] = [sigma, *sd, *beta]
    return out


def main(draws=4000):
    data = mx.datasets.load("Penicillin")
    fit = mx.lmer("diameter ~ 1 + (1 | plate) + (1 | sample)", data)
    codes = [factor.codes for factor in fit.matrices.factors]
    sample = gibbs(fit.system, fit.model_matrix(), data["diameter"].to_numpy(), codes, draws, 1)
    middle = np.median(sample[draws // 5 :], axis=0)
    names = ["sigma", *(f"sd {f.label}" for f in fit.matrices.factors), "mean"]
    estimates = [fit.sigma, *fit.varcorr.to_frame()["sdcor"][:-1], fit.fixef.iloc[0]]
    for name, posterior, estimate in zip(names, middle, estimates, strict=True):
        print(f"{name:12s} posterior median {posterior:7.3f}   REML {estimate:7.3f}")
    return names, middle, np.array(estimates)


if __name__ == "__main__":
    main()
