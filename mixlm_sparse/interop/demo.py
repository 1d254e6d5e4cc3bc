"""Fit two classical models and print their summaries: `python -m mixlm_sparse.interop.demo`."""

from __future__ import annotations

import time

import mixlm_sparse as mx

MODELS = (
    ("sleepstudy", "Reaction ~ Days + (Days | Subject)"),
    ("InstEval", "y ~ service + (1 | s) + (1 | d) + (1 | dept:service)"),
)


def main() -> None:
    """Load, fit and print each model, with the seconds that loading and fitting took."""
    for name, formula in MODELS:
        start = time.perf_counter()
        data = mx.datasets.load(name)
        loaded = time.perf_counter()
        fit = mx.lmer(formula, data)
        fitted = time.perf_counter()
        print(fit.summary())
        print(
            f"\n{name}: {len(data)} rows loaded in {loaded - start:.2f} s, "
            f"fitted in {fitted - loaded:.2f} s\n"
        )


if __name__ == "__main__":
    main()
