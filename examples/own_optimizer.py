"""An optimizer of your own on `deviance_function`: a pattern search, which needs values only.

The criterion is a function of theta with bounds.  What comes out is handed to `optimize` as its
start, which certifies it and leads to a fit with everything else.
"""

import numpy as np

import mixlm_sparse as mx


def pattern_search(function, start, lower, step=0.5, tolerance=1e-7):
    """Minimize by steps along the axes, halved when none of them helps."""
    theta, value = np.array(start), function(start)
    while step > tolerance:
        moves = [theta + sign * step * e for e in np.eye(theta.size) for sign in (1.0, -1.0)]
        moves = [np.maximum(move, lower) for move in moves]
        values = [function(move) for move in moves]
        best = int(np.argmin(values))
        if values[best] < value:
            theta, value = moves[best], values[best]
        else:
            step /= 2.0
    return theta, value


def main():
    formula, data = "Reaction ~ Days + (Days | Subject)", mx.datasets.load("sleepstudy")
    deviance = mx.deviance_function(formula, data)
    theta, value = pattern_search(deviance, deviance.theta0, deviance.lower)
    fit = mx.lmer(formula, data, start=theta)
    print("pattern search ", theta.round(4), round(value, 6))
    print("lmer from there", fit.theta.round(4), round(fit.criterion, 6))
    return value, fit.criterion


if __name__ == "__main__":
    main()
