"""`mixlm compile`: machine code made before anybody waits for it."""

from __future__ import annotations

import argparse
import time

from mixlm_sparse.api.compile_kernels import compile_kernels
from mixlm_sparse.interop.cli.codes import OK

__all__ = ["compile_all"]


def compile_all(args: argparse.Namespace) -> int:
    """Compile what is not kept on this machine, and say how much that was."""
    began = time.monotonic()
    count = compile_kernels(False if args.quiet else None)
    if not args.quiet:
        took = f"{time.monotonic() - began:.0f} s"
        print(f"{count} kernels compiled in {took}" if count else "all kernels are compiled")
    return OK
