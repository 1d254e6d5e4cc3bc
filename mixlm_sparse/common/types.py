"""Array types used throughout the package."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]  # (n,)
Matrix = NDArray[np.float64]  # (n, p)
Array3 = NDArray[np.float64]  # (levels, k, m)
IntVector = NDArray[np.int32]  # codes and positions
