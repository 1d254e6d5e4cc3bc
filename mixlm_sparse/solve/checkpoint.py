"""The best point of a search in a file, so that a long one can be taken up again.

The file is JSON, replaced as a whole whenever the criterion has fallen.  Where that fails (a full
disk), what it held stays as it was, and the search goes on with a warning.  It holds theta, the
criterion, how many evaluations it took, and what tells the model apart: a digest of names and
sizes, and sums of the products.  The sums are compared to a relative 1e-9, for the order in which
batches or threads came changes their last digits.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mixlm_sparse.common.checks import shown
from mixlm_sparse.common.errors import (
    CheckpointWarning,
    MixedModelError,
    OptionError,
    caller_level,
)
from mixlm_sparse.common.files import atomic_file
from mixlm_sparse.common.types import Vector
from mixlm_sparse.solve.search.objective import Progress
from mixlm_sparse.solve.system import PenalizedSystem

FORMAT = "mixlm_sparse checkpoint"
VERSION = 1
SAME_RTOL = 1e-9
MOST_BYTES = 10_000_000  # a checkpoint is a few kilobytes; nothing longer is read


class Checkpoint:
    """A file that follows one search.

    Attributes
    ----------
    theta : (m,) where an earlier search of the same model was, with rho of a residual structure;
        None at first.
    criterion, evaluations : there.
    """

    def __init__(self, path: str, system: PenalizedSystem, *, reml: bool, warn: bool) -> None:
        """Read the file if there is one.

        Parameters
        ----------
        warn : say so where the file cannot be written any more.

        Raises
        ------
        OptionError : it is no checkpoint, or that of another model or other data.
        """
        self._path = path
        self._warn = warn
        self._written = 0  # evaluations of the point that the file holds
        self._model = _digest(system, reml=reml)
        self._sums = list(_sums(system))
        self.theta: Vector | None = None
        self.criterion = float("inf")
        self.evaluations = 0
        found = _read(path)
        if found is not None:
            self._take(found, system.n_theta + system.n_rho)

    def _take(self, found: dict[str, Any], m: int) -> None:
        try:
            theta = np.array(found["theta"], dtype=np.float64)
            sums = np.array(found["sums"], dtype=np.float64)
            criterion, evaluations = float(found["criterion"]), int(found["evaluations"])
            model = found["model"]
        except (KeyError, TypeError, ValueError):
            raise OptionError(_broken(self._path)) from None
        if model != self._model or sums.shape != (len(self._sums),):
            raise OptionError(
                f"checkpoint {shown(self._path)} is of another model: give the formula, the data "
                "and reml= that it was begun with, or another name for the file"
            )
        if not np.allclose(sums, self._sums, rtol=SAME_RTOL, atol=0.0):
            raise OptionError(
                f"checkpoint {shown(self._path)} is of the same model with other data: give the "
                "data that it was begun with, or another name for the file"
            )
        if theta.shape != (m,) or not np.isfinite(theta).all() or not np.isfinite(criterion):
            raise OptionError(_broken(self._path))
        self.theta, self.criterion, self.evaluations = theta, criterion, evaluations
        self._written = evaluations

    def following(self, progress: Progress | None) -> Progress:
        """Return a progress function that writes the file, and passes everything on."""
        before = self.evaluations

        def follow(evaluation: int, criterion: float, theta: Vector) -> object:
            if criterion < self.criterion:
                self.theta, self.criterion = theta.copy(), criterion
                self.evaluations = before + evaluation
                self._write()
            return None if progress is None else progress(evaluation, criterion, theta)

        return follow

    def _write(self) -> None:
        assert self.theta is not None
        document = {
            "format": FORMAT,
            "version": VERSION,
            "model": self._model,
            "sums": self._sums,
            "theta": self.theta.tolist(),
            "criterion": self.criterion,
            "evaluations": self.evaluations,
        }
        try:
            with atomic_file(self._path) as file:
                file.write(json.dumps(document, indent=1).encode())
        except MixedModelError as error:  # the name or the folder is wrong
            if not self._written:
                raise
            self._lost(str(error))
        except OSError as error:  # a full disk, a share that has gone
            self._lost(error.strerror or str(error))
        else:
            self._written = self.evaluations

    def _lost(self, why: str) -> None:
        """Warn, once, that the file does not follow the search any more."""
        if not self._warn:
            return
        self._warn = False
        kept = "there is no file" if not self._written else (
            f"the file holds the best of the first {self._written} evaluations"
        )
        warnings.warn(
            f"checkpoint {shown(self._path)} cannot be written ({why}): the search goes on, and "
            f"{kept}; make room, or end it and give another name",
            CheckpointWarning,
            stacklevel=caller_level(),
        )


def _broken(path: str) -> str:
    return f"{shown(path)} is no checkpoint, or a broken one: remove it, or give another name"


def _read(path: str) -> dict[str, Any] | None:
    """Return the document of the file, None if there is no file."""
    place = Path(path)
    try:
        if not place.is_file() or place.stat().st_size > MOST_BYTES:
            if place.exists():
                raise OptionError(_broken(path))
            return None
        found = json.loads(place.read_bytes())
    except (OSError, ValueError, RecursionError):
        raise OptionError(_broken(path)) from None
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise OptionError(_broken(path))
    if found.get("version") != VERSION:
        raise OptionError(
            f"checkpoint {shown(path)} has version {shown(found.get('version'))}, and this package "
            f"reads version {VERSION}: remove it, or give another name"
        )
    return found


def _digest(system: PenalizedSystem, *, reml: bool) -> str:
    """Return a digest of what a model is apart from numbers: names, sizes, structure."""
    held = system.held
    parts = [
        reml,
        system.n,
        system.x_names,
        [(t.name, t.k) for t in system.templates],
        system.theta_names,
        system.n_rho,
        None if held is None else (held.names, held.sigma),
        [(f.label, f.n_levels, f.width) for f in system.products.blocks.factors],
        [(key, pair.rows.size) for key, pair in system.products.blocks.pairs.items()],
    ]
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _sums(system: PenalizedSystem) -> Iterator[float]:
    """Yield numbers that change if rows, columns, weights or the response do; signs do not count.

    The working columns are unique up to signs.  Levels count with different weights.
    """
    products = system.products
    yield products.yy
    yield products.y_length
    yield float(np.abs(products.R_x).sum())
    yield products.log_weight_sum
    for f in products.blocks.factors:
        weights = 1.0 + np.arange(f.n_levels) % 1009 / 1009.0
        yield float(weights @ np.abs(f.ztz).sum(axis=(1, 2)))
        yield float(weights @ np.abs(f.response).sum(axis=1))
    for pair in products.blocks.pairs.values():
        weights = 1.0 + (pair.rows % 1009 + pair.cols % 997) / 2006.0
        yield float(weights @ np.abs(pair.values).sum(axis=(1, 2)))
