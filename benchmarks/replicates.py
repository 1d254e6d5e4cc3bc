"""What a replicate costs as installed: many responses of one design, with nothing compiled.

    python -m benchmarks.replicates --nsim 1000

Each line is two calls in a process of its own, whose folder for machine code is empty: the first
one, and a later one, in processor time over the number of replicates, or of a profile's points.
With `--kept` the folder of the machine is used, where `mixlm compile` may have put the compiled
search.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from time import process_time

import numpy as np

import mixlm_sparse as mx
from mixlm_sparse.inference.variance.profile.curve import Profile

# name -> (data set, formula)
DESIGNS = {
    "sleepstudy": ("sleepstudy", "Reaction ~ Days + (Days | Subject)"),
    "Penicillin": ("Penicillin", "diameter ~ 1 + (1 | plate) + (1 | sample)"),
    "Pastes": ("Pastes", "strength ~ 1 + (1 | batch/cask)"),
}
TASKS = ("bootstrap", "lmer_many", "profile", "power", "pb_modcomp")


def task(name: str, design: str, nsim: int) -> Callable[[], object]:
    """Return a call that makes `nsim` replicates, or a profile."""
    data_name, formula = DESIGNS[design]
    data = mx.datasets.load(data_name)
    response, right = formula.split(" ~ ")
    fit = mx.lmer(formula, data)
    if name == "profile":
        return lambda: fit.profile(progress=False)
    if name == "bootstrap":
        return lambda: fit.bootstrap(nsim, seed=1, progress=False)
    if name == "lmer_many":
        Y = fit.simulate(nsim, seed=1)
        return lambda: mx.lmer_many(f"~ {right}", data, np.asarray(Y), progress=False)
    effect = fit.fixef.index[-1]
    if name == "power":
        return lambda: mx.power(
            formula, data, fit, effect=effect, nsim=nsim, seed=1, progress=False
        )
    smaller = mx.lmer(f"{response} ~ 1 + (Days | Subject)", data, reml=False)
    return lambda: mx.pb_modcomp(fit, smaller, nsim=nsim, seed=1, progress=False)


def measure(name: str, design: str, nsim: int) -> None:
    """Print milliseconds a replicate of the first call and of a later one."""
    call = task(name, design, nsim)
    times = []
    for _ in range(3):
        began = process_time()
        result = call()
        spent = process_time() - began
        count = len(result.to_frame()) if isinstance(result, Profile) else nsim
        times.append(1e3 * spent / count)
    loaded = "numba" if "numba" in sys.modules else "NumPy"
    print(f"{name:<12} {design:<12} {times[0]:>8.3f} {min(times[1:]):>8.3f}  {loaded}", flush=True)


def main() -> None:
    """Measure in fresh processes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nsim", type=int, default=1000)
    parser.add_argument("--kept", action="store_true", help="use machine code that is kept on disk")
    parser.add_argument("--here", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.here:
        measure(*args.here, args.nsim)
        return
    print(f"{'call':<12} {'design':<12} {'first':>8} {'later':>8}  ms a replicate", flush=True)
    for design in DESIGNS:
        for name in TASKS if design == "sleepstudy" else TASKS[:3]:
            with tempfile.TemporaryDirectory() as empty:
                environment = dict(os.environ)
                if not args.kept:
                    environment["NUMBA_CACHE_DIR"] = empty
                command = [sys.executable, "-m", "benchmarks.replicates", "--here", name, design]
                subprocess.run([*command, "--nsim", str(args.nsim)], env=environment, check=True)


if __name__ == "__main__":
    main()
