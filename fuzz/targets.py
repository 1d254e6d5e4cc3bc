"""The targets by name, and what counts as a finding."""

from __future__ import annotations

import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import mixlm_sparse as mx
from fuzz import command_line, formula, frames, saved
from mixlm_sparse.common.errors import MixedModelError, MixedModelWarning

PACKAGE = str(Path(mx.__file__).parent)
SLOW = 20.0  # processor seconds of one input, with coverage and without compiled kernels


@dataclass(frozen=True)
class Target:
    """One way in.

    Attributes
    ----------
    one : calls the package with what the bytes say.
    seeds : returns bytes to begin with.
    most : bytes of an input.
    tokens : what inputs are made of, for the mutations.
    """

    one: Callable[[bytes], None]
    seeds: Callable[[], list[bytes]]
    most: int
    tokens: tuple[str, ...] = ()


TARGETS = {
    "formula": Target(formula.one, formula.seeds, 300, formula.TOKENS),
    "load": Target(saved.one_fit, saved.seeds, 200),
    "many": Target(saved.one_many, saved.seeds, 200),
    "products": Target(saved.one_products, saved.seeds, 200),
    "frames": Target(frames.one, frames.seeds, 600),
    "structures": Target(frames.one_structured, frames.seeds, 600),
    "command_line": Target(command_line.one, command_line.seeds, 400),
}


@dataclass(frozen=True)
class Finding:
    """What an input did that it must not.

    Attributes
    ----------
    kind : the error and where it arose, equal for equal causes.
    text : the traceback.
    """

    kind: str
    text: str


def tried(target: Target, data: bytes) -> Finding | None:
    """Run one input; return what it found.

    The package's own errors and warnings are answers.  Every other error, a warning of another
    package, an exit by force and an input that takes longer than `SLOW` are findings.
    """
    began = time.process_time()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.simplefilter("ignore", MixedModelWarning)
            target.one(data)
    except MixedModelError:
        pass
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        frames_ = traceback.extract_tb(error.__traceback__)
        own = [f for f in frames_ if f.filename.startswith(PACKAGE)] or frames_
        where = f"{Path(own[-1].filename).name}:{own[-1].name}:{own[-1].lineno}"
        return Finding(f"{type(error).__name__} in {where}", traceback.format_exc())
    spent = time.process_time() - began
    if spent > SLOW:
        return Finding(f"slow: {spent:.0f} s", "")
    return None
