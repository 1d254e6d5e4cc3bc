"""How often the package is right: random models, random starts, invariance, a soak.

    python -m benchmarks.reliability --size 0.1

The whole (size 1): 15,000 random small models against an independent dense search; 500 random
starts of each hard model; inference on 1,000 models under another order, labels and units; 10,000
fits of one model in flat memory.  Ends with exit code 1 if a claim of the table is broken.
"""

from __future__ import annotations

import argparse
import re
import resource
import sys
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np
import pandas as pd
import threadpoolctl

import mixlm_sparse as mx
from benchmarks.random_models import Model, random_model
from benchmarks.random_residuals import residual_model
from benchmarks.random_structures import structured_model
from benchmarks.random_visits import visits_model

T = TypeVar("T")

ABOVE = 1e-5  # largest excess of a criterion over the best that is known
RELATIVE = 1e-4  # largest change of an inference under what should not change it
GROWTH = 20.0  # MB that a soak may add after its first tenth
# Fits that repay making machine code, which takes half a minute.
MAKING_SEEN = 1_000
HARD = {
    "sleepstudy, ||": ("Reaction ~ Days + (Days || Subject)", "sleepstudy"),
    "sleepstudy, slopes": ("Reaction ~ Days + (Days | Subject)", "sleepstudy"),
    "Penicillin, crossed": ("diameter ~ 1 + (1 | plate) + (1 | sample)", "Penicillin"),
    "Orthodont, quadratic slopes": ("distance ~ age + (age + I(age^2) | Subject)", "Orthodont"),
    "Pastes, nested": ("strength ~ 1 + (1 | batch/cask)", "Pastes"),
}


@dataclass
class Claim:
    """One row of the report: what was done how often, the worst that was seen, what broke."""

    what: str
    count: int
    worst: str
    broken: list[str] = field(default_factory=list)


class Found(list[str]):
    """What broke, said as it is found: a whole run takes long."""

    def append(self, line: str) -> None:
        super().append(line)
        print(line, file=sys.stderr, flush=True)


def fit_of(model: Model) -> mx.LinearMixedFit:
    return mx.lmer(
        model.formula, model.data, reml=model.reml, weights=model.weights, offset=model.offset,
        control=mx.Control(warn=False), progress=False, **model.call,
    )  # fmt: skip


def models(count: int, seed: int) -> list[Claim]:
    """Compare the optimum of each model with that of the dense search."""
    return _against_dense("models", random_model, count, seed)


def structures(count: int, seed: int) -> list[Claim]:
    """The same for structured terms: cs, ar1, toep."""
    return _against_dense("structured models", structured_model, count, seed)


def residuals(count: int, seed: int) -> list[Claim]:
    """The same for residual laws and structures, beside each other and further terms."""
    return _against_dense("models with residual laws", residual_model, count, seed)


def visits(count: int, seed: int) -> list[Claim]:
    """The same for residuals correlated by visits, or by unequal times."""
    return _against_dense("models with correlations of visits", visits_model, count, seed)


def _against_dense(
    what: str, make: Callable[[int], Model], count: int, seed: int
) -> list[Claim]:
    excess, statuses, above, silent, open_ = [], Counter(), Found(), Found(), Found()
    for i in range(seed, seed + count):
        model = make(i)
        fit = fit_of(model)
        statuses[fit.convergence.status] += 1
        over = fit.criterion - _dense(model.best)
        if not over <= ABOVE:
            line = f"model {i}: {model.formula} ({model.kind}) is {over:.2e} above"
            said = _said(fit, model)
            if said:
                open_.append(f"{line}, {said}")
                continue
            above.append(line)
        excess.append(over)
        if not fit.convergence.status:
            silent.append(f"model {i} has no status")
    reached = ", ".join(f"{name} {number}" for name, number in statuses.most_common())
    worst = f"{max(excess, default=0.0):.1e} above"
    return [
        Claim(f"{what} against a dense search", count, worst, above),
        Claim(f"{what} with a status", count, reached, silent),
        Claim(f"{what} above it that say so", len(open_), "; ".join(open_) or "none", []),
    ]


def _dense(ask: Callable[[], T]) -> T:
    """Return what a dense search finds, on one thread: on more of them small matrices wait.

    On a busy machine that took twenty times as long.
    """
    with threadpoolctl.threadpool_limits(limits=1):
        return ask()


def _said(fit: mx.LinearMixedFit, model: Model) -> str:
    """Return what a fit above the dense search says of itself; "" if it claims to be the best.

    Either that the search did not converge, or that there is no minimum: then the dense search
    must fall without end as well.
    """
    status = fit.convergence.status
    if not fit.convergence.converged:
        return f"which says {status}"
    if status in ("local optimum", "no residual") and _dense(model.has_no_minimum):
        return f"which says {status}; the dense criterion has no minimum either"
    return ""


def starts(count: int, seed: int) -> list[Claim]:
    """Fit hard models from random starts."""
    claims = []
    for name, (formula, data) in HARD.items():
        frame = mx.datasets.load(data)
        best = mx.lmer(formula, frame, control=mx.Control(warn=False), progress=False)
        rng = np.random.default_rng([seed, len(name)])
        worst, broken = 0.0, Found()
        for _ in range(count):
            start = 10.0 ** rng.uniform(-3, 3, best.theta.size)
            start *= np.where(np.isfinite(best.lower), 1.0, rng.choice([-1.0, 1.0]))
            again = mx.lmer(
                formula, frame, start=start, control=mx.Control(warn=False), progress=False
            )
            over = again.criterion - best.criterion
            worst = max(worst, abs(over))
            if not abs(over) <= ABOVE:
                broken.append(f"{name} from {start.round(4).tolist()}: {over:+.2e}")
        claims.append(Claim(f"starts of {name}", count, f"{worst:.1e} apart", broken))
    return claims


def _inference(fit: mx.LinearMixedFit, slope: float, unit: float) -> np.ndarray:
    """Return what no units, origins, order or labels should change."""
    names = ["x", "z"]
    out = [fit.bse.reindex(names).to_numpy() * [slope, 1.0] / unit, [fit.sigma / unit]]
    for ddf in ("satterthwaite", "kenward-roger"):
        t = fit.tidy(effects="fixed", ddf=ddf).set_index("term").reindex(names)
        out += [t["statistic"], t["df"], t["p_value"]]
    return np.concatenate(out)


def _moved_x(model: Model, rng: np.random.Generator) -> tuple[float, float]:
    """Return a unit and an origin of x that leave the model the same."""
    texts = re.findall(r"(\w*)\(([^()|]*) \|", model.formula)
    slopes = [(name, effects) for name, effects in texts if "x" in effects]
    scale = 1.0 if any(name == "id" for name, _ in slopes) else 10.0 ** rng.integers(-3, 4)
    # an intercept beside x, and covariances between them, follow the origin
    free = all(name == "" and not effects.startswith("0") for name, effects in slopes)
    spread = scale * float(model.data["x"].std())
    return float(scale), float(rng.choice([0.0, 10.0, 1000.0])) * spread if free else 0.0


def invariance(count: int, seed: int) -> list[Claim]:
    """Compare inference after rows are shuffled, levels renamed, units and origins changed."""
    worst, broken = 0.0, Found()
    for i in range(seed, seed + count):
        model = random_model(i)
        rng = np.random.default_rng([seed, i])
        shuffled = model.data.sample(frac=1.0, random_state=int(rng.integers(2**31)))
        groups = [name for name in ("g", "h") if name in shuffled]
        renamed = shuffled.assign(
            **{g: shuffled[g].map(dict(_renamed(shuffled[g], rng))) for g in groups}
        )
        unit = 1000.0
        scale, origin = _moved_x(model, rng)
        moved = renamed.assign(
            y=renamed["y"] * unit, o=renamed["o"] * unit, x=renamed["x"] * scale + origin
        )
        pair = [fit_of(model), fit_of(replace(model, data=moved))]
        one, other = _inference(pair[0], 1.0, 1.0), _inference(pair[1], scale, unit)
        with np.errstate(invalid="ignore"):
            change = np.abs(one - other) / np.maximum(np.abs(one), 1e-8)
        if (np.isnan(one) != np.isnan(other)).any():
            broken.append(f"model {i}: {model.formula} ({model.kind}) has other missing numbers")
        largest = float(np.nanmax(change, initial=0.0))
        worst = max(worst, largest)
        if largest > RELATIVE:
            broken.append(f"model {i}: {model.formula} ({model.kind}) changes by {largest:.1e}")
    what = "models under order, labels, units, origins"
    return [Claim(what, count, f"{worst:.1e} relative", broken)]


def _renamed(column: pd.Series, rng: np.random.Generator) -> list[tuple[str, str]]:
    levels = sorted(set(column))
    return list(zip(levels, [f"r{j}" for j in rng.permutation(len(levels))], strict=True))


def soak(count: int, seed: int) -> list[Claim]:
    """Fit one model again and again, with its inference, and watch the memory.

    In each form of the kernels: machine code that is made on the way is no leak, but 200 MB.
    """
    frame = mx.datasets.load("sleepstudy")
    forms = {"NumPy": False, "machine code": True}
    if count < MAKING_SEEN:
        del forms["machine code"]
    out = []
    for form, compiled in forms.items():
        mx.use_compiled(compiled)
        first = 0.0
        for i in range(count):
            fit = mx.lmer("Reaction ~ Days + (Days | Subject)", frame, progress=False)
            fit.pvalues  # noqa: B018
            if i == count // 10:
                first = _resident()
        grown = _resident() - first
        broken = [f"memory grew by {grown:.1f} MB, {form}"] if grown > GROWTH else []
        out.append(Claim(f"fits in flat memory, {form}", count, f"{grown:+.1f} MB", broken))
    mx.use_compiled(None)
    return out


def _resident() -> float:
    """Return the memory in use now, MB (the peak where /proc does not exist)."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * resource.getpagesize() / 2**20
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


PARTS = {
    "models": (models, 10_000),
    "structures": (structures, 2_000),
    "residuals": (residuals, 2_000),
    "visits": (visits, 1_000),
    "starts": (starts, 500),
    "invariance": (invariance, 1_000),
    "soak": (soak, 10_000),
}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--size", type=float, default=1.0, help="share of the whole, such as 0.1")
    parser.add_argument("--seed", type=int, default=0, help="number of the first model")
    parser.add_argument("--only", choices=list(PARTS), nargs="+", default=list(PARTS))
    given = parser.parse_args(arguments)
    warnings.simplefilter("ignore", mx.MixedModelWarning)
    claims = []
    print("| what | count | worst | broken |\n| --- | --- | --- | --- |")
    for name in given.only:
        run, whole = PARTS[name]
        for claim in run(max(1, round(whole * given.size)), given.seed):
            claims.append(claim)
            row = (claim.what, f"{claim.count:,}", claim.worst, f"{len(claim.broken)}")
            print("| " + " | ".join(row) + " |", flush=True)
    for claim in claims:
        for line in claim.broken:
            print(line)
    return int(any(claim.broken for claim in claims))


if __name__ == "__main__":
    sys.exit(main())
