"""A frame in which every combination of the factors occurs."""

from __future__ import annotations

import numpy as np
import pandas as pd


def example(n=60):
    """Every combination of the factors occurs; x and z have no ties."""
    i = np.arange(n)
    return pd.DataFrame(
        {
            "y": np.sin(7.0 * i),
            "x": np.cos(3.0 * i),
            "z": 1.5 + np.sin(5.0 * i),
            "f": np.array(list("abc"))[i % 3],
            "g": np.array(list("uvwx"))[i % 4],
            "h": np.array(list("pq"))[(i // 12) % 2],
            "k": 1 + (i // 5) % 4,
            "b": i % 5 < 2,
            "o": pd.Categorical.from_codes(
                (i // 2) % 4, categories=["lo", "mid", "hi", "top"], ordered=True
            ),
            "s": i // 6,
        }
    )


EXAMPLE = example()
