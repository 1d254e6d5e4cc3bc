"""Settings of the search."""

from __future__ import annotations

from dataclasses import dataclass, fields

from mixlm_sparse.common.checks import (
    require_bool,
    require_count,
    require_instance,
    require_number,
    require_one_of,
    require_path,
)
from mixlm_sparse.common.keywords import answering_calls
from mixlm_sparse.engines.krylov.settings import (
    LOOSEST,
    MOST_VECTORS,
    SEED,
    TIGHTEST,
    TOLERANCE,
    VECTORS,
    Estimation,
)

RANK_DEFICIENT = ("drop", "error")


@answering_calls
@dataclass(frozen=True, slots=True, repr=False)
class Control:
    """Settings of the search; the defaults reach the tight optimum.

    Parameters
    ----------
    max_evaluations : evaluations of the criterion before the search gives up; None chooses by
        optimizer and number of parameters.
    tolerance : a gradient search ends when a Newton step predicts a smaller decrease of the
        criterion than this.
    xtol, ftol : a derivative-free search ends when steps of the (scaled) parameters, or changes of
        the criterion, are below these.
    gradient_tolerance : largest predicted decrease, computed from the exact gradient, with which an
        optimum is called converged.
    check_boundary : test optima on the boundary and leave false ones.
    second_looks : search from other places too where the structure of the model says that the
        criterion may have several valleys; False keeps the first optimum found.
    warn : emit warnings about singular fits, dropped columns, scales and convergence.
    rank_deficient : columns of the fixed part that are combinations of earlier ones: "drop" leaves
        them out and says so, "error" refuses the model.
    checkpoint : name of a file in which the search keeps its best point: the same call, made again,
        goes on from there.  Further fits from the fit do not write it.
    krylov_vectors : random vectors, at least, that engine="krylov" estimates from; what they leave
        uncertain falls like the root of their number, which time and memory are proportional to.
    krylov_tolerance : share that the processes of this engine leave out, from 1e-12 to 1e-3;
        solutions are a thousand times as exact.
    krylov_seed : where its random signs come from; another one shows what depends on chance.

    Examples
    --------
    >>> import mixlm_sparse as mx
    >>> control = mx.Control(max_evaluations=500, warn=False)
    >>> fit = mx.lmer("Yield ~ 1 + (1 | Batch)", mx.datasets.load("Dyestuff2"), control=control)
    >>> fit.convergence.status
    'singular'
    """

    max_evaluations: int | None = None
    tolerance: float = 1e-12
    xtol: float = 1e-8
    ftol: float = 1e-11
    gradient_tolerance: float = 1e-6
    check_boundary: bool = True
    second_looks: bool = True
    warn: bool = True
    rank_deficient: str = "drop"
    checkpoint: str | None = None
    krylov_vectors: int = VECTORS
    krylov_tolerance: float = TOLERANCE
    krylov_seed: int = SEED

    def __post_init__(self) -> None:
        if self.max_evaluations is not None:
            # NLopt takes Python's numbers only
            count = require_count("max_evaluations", self.max_evaluations)
            object.__setattr__(self, "max_evaluations", count)
        for name in ("tolerance", "xtol", "ftol", "gradient_tolerance"):
            number = require_number(name, getattr(self, name), least=0.0, example="1e-8")
            object.__setattr__(self, name, number)
        whole = {"krylov_vectors": (1, MOST_VECTORS), "krylov_seed": (0, 2**63 - 1)}
        for name, (least, most) in whole.items():
            count = require_count(name, getattr(self, name), least, most)
            object.__setattr__(self, name, count)
        tolerance = require_number(
            "krylov_tolerance", self.krylov_tolerance, least=TIGHTEST, most=LOOSEST, example="1e-6"
        )
        object.__setattr__(self, "krylov_tolerance", tolerance)
        for name in ("check_boundary", "second_looks", "warn"):
            object.__setattr__(self, name, require_bool(name, getattr(self, name)))
        require_one_of("rank_deficient", self.rank_deficient, RANK_DEFICIENT)
        if self.checkpoint is not None:
            object.__setattr__(self, "checkpoint", require_path("checkpoint", self.checkpoint))

    @property
    def estimation(self) -> Estimation:
        """What engine="krylov" estimates with."""
        return Estimation(self.krylov_vectors, self.krylov_tolerance, self.krylov_seed)

    def __repr__(self) -> str:
        """Show what differs from the defaults."""
        changed = [
            f"{one.name}={getattr(self, one.name)!r}"
            for one in fields(self)
            if getattr(self, one.name) != one.default
        ]
        return f"Control({', '.join(changed)})"


DEFAULTS = Control()


def control_of(control: Control | None) -> Control:
    """Return settings of a search; None stands for the defaults."""
    remedy = "use mx.Control(...), for example mx.Control(max_evaluations=1000)"
    return DEFAULTS if control is None else require_instance("control", control, Control, remedy)
