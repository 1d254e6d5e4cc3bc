"""Run the command `mixlm`, in a process of its own or in this one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import mixlm_sparse as mx
from mixlm_sparse.interop.cli.main import main

ROOT = Path(mx.__file__).parent.parent


def shell(*arguments, stdin=None, cwd):
    """Run the command in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}
    environment.pop("MPLBACKEND", None)
    return subprocess.run(
        [sys.executable, "-m", "mixlm_sparse", *map(str, arguments)],
        input=stdin, capture_output=True, text=True, cwd=cwd, env=environment, timeout=120,
        check=False,
    )  # fmt: skip


def run(capsys, *arguments):
    """Run the command in this process: exit code, output, errors."""
    try:
        code = main([str(argument) for argument in arguments])
    except SystemExit as error:
        code = int(error.code or 0)
    captured = capsys.readouterr()
    return code, captured.out, captured.err
