"""An EM loop on the solution at one theta: the likelihood rises at every step.

beta and sigma are profiled out by `solve_pls` (they maximize the likelihood itself); then

    Sigma_new = mean_j (b_j b_j' + sigma^2 V_j),   sigma^2 V_j = Cov(b_j | y)

and theta is the Cholesky factor of Sigma_new / sigma^2.
"""

import numpy as np

import mixlm_sparse as mx


def em(system, steps=200):
    """Return the criterion after each step, and theta."""
    lower = np.tril_indices(len(system.matrices.terms[0].column_names))
    columns = np.lexsort((lower[0], lower[1]))  # theta goes down the columns
    theta = mx.DevianceFunction(system, reml=False).theta0
    deviance = mx.DevianceFunction(system, reml=False)
    history = [deviance(theta)]
    for _ in range(steps):
        solution = mx.solve_pls(theta, system)
        sigma_sq = solution.pwrss / system.n
        b, V = solution.b(0), solution.conditional_covariance(0)
        relative = (np.einsum("lj,lk->jk", b, b) / sigma_sq + V.sum(axis=0)) / len(b)
        theta = np.linalg.cholesky(relative)[lower][columns]
        history.append(deviance(theta))
    return np.array(history), theta


def main():
    formula, data = "Reaction ~ Days + (Days | Subject)", mx.datasets.load("sleepstudy")
    system = mx.penalized_system(mx.model_matrices(formula, data))
    history, theta = em(system)
    optimum = mx.optimize(system, reml=False)
    print("EM  ", theta.round(4), history[[1, 10, -1]].round(4))
    print("lmer", optimum.theta.round(4), round(optimum.criterion, 4))
    return history, optimum.criterion


if __name__ == "__main__":
    main()
