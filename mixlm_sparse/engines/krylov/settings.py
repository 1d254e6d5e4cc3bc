"""How engine="krylov" estimates, and what memory it needs for that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mixlm_sparse.engines.blocked.rest import RestFactor
from mixlm_sparse.engines.interface import BlockSystem
from mixlm_sparse.engines.memory import require_memory

# Random vectors, at least; and groups of them, whose spread is the standard error.
VECTORS = 16
LEAST_GROUPS = 4
MOST_VECTORS = 4096
SEED = 20250514
# What is left of log(M)z outside of its basis, as a share: slopes are that exact, values far more.
TOLERANCE = 1e-9
TIGHTEST, LOOSEST = 1e-12, 1e-3
# Residuals of conjugate gradients are this much smaller: nothing is estimated of solutions.
OF_SOLUTIONS = 1e-3
# Steps of the Lanczos process that memory is asked for at a time; most take no more.
STEPS_AT_A_TIME = 25
NUMBER = 8.0  # bytes
INDEX = 4.0


@dataclass(frozen=True, slots=True)
class Estimation:
    """Settings of the estimates; errors fall like 1 / sqrt(vectors).

    Parameters
    ----------
    vectors : random vectors, at least.
    tolerance : share of log(M)z that the Lanczos process may leave out.
    seed : where the signs come from.
    """

    vectors: int = VECTORS
    tolerance: float = TOLERANCE
    seed: int = SEED

    @property
    def residual(self) -> float:
        """Residual, as a share, at which conjugate gradients end."""
        return OF_SOLUTIONS * self.tolerance


def require_engine_memory(
    system: BlockSystem, eliminated: int, rest: Sequence[RestFactor], vectors: int
) -> None:
    """Raise an EngineError if the engine does not fit into memory, before it takes any.

    With m columns of the rest, t vectors, P columns of [X y] and the eliminated factor's L levels
    of K effects, an evaluation holds about

        8 m (steps t + 4 t + 6 P) + 48 L K (K + P) + the entries of Z'WZ, where these are copied.

    Parameters
    ----------
    vectors : t, all of them.
    """
    e = system.factors[eliminated]
    m = sum(r.n_levels * r.width for r in rest)
    P = e.columns
    K, L = e.width, e.n_levels
    bytes_needed = NUMBER * m * ((min(STEPS_AT_A_TIME, m) + 4.0) * vectors + 6.0 * P)
    bytes_needed += 6.0 * NUMBER * L * K * (K + P)
    bytes_needed += sum(8.0 * NUMBER * r.n_levels * r.width**2 for r in rest)
    entries = columns = 0.0
    among = sum(float(r.n_levels * r.width**2) for r in rest)
    for (g, h), pair in system.pairs.items():
        if eliminated not in (g, h):
            among += 2.0 * pair.values.size
            continue
        plain = len(rest) == 1 and rest[0].width == 1
        if not plain or g != eliminated:
            entries += pair.values.size
            columns += pair.values.size / K
    # sorted by level: what there was, and its copy
    bytes_needed += 2.0 * (NUMBER * entries + 2.0 * INDEX * columns)
    bytes_needed += among * (2.0 * NUMBER + 6.0 * INDEX)
    what = f"engine='krylov' with {vectors} vectors over {m} random effects"
    require_memory(bytes_needed, what, _remedy(vectors))


def require_basis_memory(m: int, vectors: int, steps: int) -> None:
    """Raise an EngineError if there is no memory for more steps of the Lanczos process.

    Parameters
    ----------
    m, vectors : size of a step; steps : those that have been made.
    """
    require_memory(
        NUMBER * m * vectors * STEPS_AT_A_TIME,
        f"engine='krylov', whose estimate has not come to its end after {steps} steps,",
        _remedy(vectors),
    )


def _remedy(vectors: int) -> str:
    fewer = "" if vectors <= VECTORS else "use fewer vectors, Control(krylov_vectors=16), "
    return (
        f"{fewer}leave out levels with few rows, put a factor into the fixed part or leave it out, "
        "or fit on a machine with more memory"
    )
