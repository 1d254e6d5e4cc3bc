"""The criterion in rational arithmetic, where rounding decides: no digit is lost, whatever the
units.

One grouping factor, two columns: C falls apart into 2 x 2 blocks, and everything but the logarithms
can be computed exactly with fractions.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

import mixlm_sparse as mx
from tests.support.corpus import data_of, load_data, load_model

Rows = list[list[Fraction]]

# C is 1e12 times larger in one direction than in another: formed in graded factors, and its
# complement by rows, nearly nothing of that is lost
EXTREME_RTOL = 1e-11
BETA_RTOL = 1e-5  # of coefficients that such a theta leaves nearly undetermined


def product(A: Rows, B: Rows) -> Rows:
    return [
        [
            sum((a * row[j] for a, row in zip(left, B, strict=True)), Fraction(0))
            for j in range(len(B[0]))
        ]
        for left in A
    ]


def transpose(A: Rows) -> Rows:
    return [list(column) for column in zip(*A, strict=True)]


def det(A: Rows) -> Fraction:
    return A[0][0] * A[1][1] - A[0][1] * A[1][0]


def inverse(A: Rows) -> Rows:
    d = det(A)
    return [[A[1][1] / d, -A[0][1] / d], [-A[1][0] / d, A[0][0] / d]]


def exact_criterion(theta, y, x, groups, *, reml: bool) -> tuple[float, list[float]]:
    """Criterion and beta of y ~ x + (x | group) at theta = (l11, l21, l22)."""
    a, b, c = (Fraction(float(t)) for t in theta)
    L = [[a, Fraction(0)], [b, c]]
    logdet = 0.0
    XVX = [[Fraction(0)] * 2 for _ in range(2)]
    XVy = [[Fraction(0)] for _ in range(2)]
    yVy = Fraction(0)
    for group in dict.fromkeys(groups):
        rows = [i for i, g in enumerate(groups) if g == group]
        Z = [[Fraction(1), Fraction(float(x[i]))] for i in rows]
        v = [[Fraction(float(y[i]))] for i in rows]
        ZZ, Zv = product(transpose(Z), Z), product(transpose(Z), v)
        C = product(product(transpose(L), ZZ), L)
        C[0][0] += 1
        C[1][1] += 1
        logdet += math.log(det(C))
        # V^-1 = I - Z M Z' with M = L C^-1 L'
        M = product(product(L, inverse(C)), transpose(L))
        ZZM = product(ZZ, M)
        down, down_y = product(ZZM, ZZ), product(ZZM, Zv)
        for i in range(2):
            XVy[i][0] += Zv[i][0] - down_y[i][0]
            for j in range(2):
                XVX[i][j] += ZZ[i][j] - down[i][j]
        yVy += sum((r[0] ** 2 for r in v), Fraction(0))
        yVy -= product(product(transpose(Zv), M), Zv)[0][0]
    beta = product(inverse(XVX), XVy)
    pwrss = yVy - product(transpose(XVy), beta)[0][0]
    n = len(y)
    nu = n - 2 if reml else n
    value = logdet + nu * (1 + math.log(2 * math.pi / nu) + math.log(pwrss))
    return value + math.log(det(XVX)) if reml else value, [float(b[0]) for b in beta]


def compare(data, y, x, theta, *, reml, rtol):
    function = mx.deviance_function(f"{y} ~ {x} + ({x} | Subject)", data, reml=reml)
    exact, beta = exact_criterion(theta, data[y], data[x], data["Subject"].tolist(), reml=reml)
    assert function(np.array(theta, float)) == pytest.approx(exact, rel=rtol)
    assert function.parts(np.array(theta, float))["beta"] == pytest.approx(beta, rel=BETA_RTOL)


THETAS = [at["theta"] for at in load_model("sleep_scale")["deviance_at"]]


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("theta", THETAS)
def test_extreme_units(theta, reml):
    """Reaction x 1e-6, Days x 1e5: at theta of size 1 the slope's columns of C are 1e12 times as
    large.
    """
    data = data_of(load_model("sleep_scale"))
    compare(data, "react_micro", "days_big", theta, reml=reml, rtol=EXTREME_RTOL)


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("theta", [(1, 0, 1), (0.93, 0.018, 0.22), (0.5, -0.2, 0.7), (1, 0.3, 0)])
def test_plain_units(theta, reml):
    compare(load_data("sleepstudy"), "Reaction", "Days", theta, reml=reml, rtol=1e-12)


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("shift", [1e3, 1e6])
def test_far_origin_of_the_predictor(shift, reml):
    """Days + shift, at the theta that means the same model."""
    data = load_data("sleepstudy")
    data["far"] = data["Days"] + shift
    # intercept' = intercept - shift * slope: L' = [[1, -s], [0, 1]] L, made lower triangular again
    factor = np.array([[1.0, -shift], [0.0, 1.0]]) @ np.array([[0.97, 0.0], [0.015, 0.23]])
    lower = np.linalg.qr(factor.T)[1].T
    lower = lower * np.sign(np.diag(lower))
    theta = (lower[0, 0], lower[1, 0], lower[1, 1])
    compare(data, "Reaction", "far", theta, reml=reml, rtol=1e-7)


@pytest.mark.parametrize("shift", [1e6, 1e8])
def test_far_origin_of_the_response(shift):
    data = load_data("sleepstudy")
    data["high"] = (
        data["Reaction"] + shift
    )  # rounded here once; exact arithmetic sees the same numbers
    compare(data, "high", "Days", (0.97, 0.015, 0.23), reml=True, rtol=1e-11)
