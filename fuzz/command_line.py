"""The command `mixlm` with words and files from anyone."""

from __future__ import annotations

import contextlib
import functools
import io
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import mixlm_sparse as mx
from fuzz.formula import FRAME, SEEDS
from fuzz.source import Source
from mixlm_sparse.interop.cli import main as shell

CSV = FRAME.to_csv(index=False).encode()
COMMANDS = ("fit", "predict", "compare", "plan", "simulate", "power", "explain")
FORMULAS = (*SEEDS, "y~x+(1|g)", "x + z", "y ~ (1 | nobody)", "--ml", "")
FLAGS = (
    "--reml", "--ml", "--no-progress", "--random-effects", "--without-data", "-q", "--stars",
    "--population", "--allow-new-levels", "--se", "--only", "--help", "--version", "--", "-",
    "--nonsense", "-x",
)  # fmt: skip
OPTIONS = (
    "--sep", "--decimal", "--format", "--weights", "--offset", "--subset", "--contrasts",
    "--na-action", "--engine", "--factor", "--optimizer", "--max-evaluations", "--ddf", "--level",
    "--tidy", "--json", "--save", "--names", "-o", "--re-form", "--interval", "--prefix", "--beta",
    "--sd", "--sigma", "--seed", "--effect", "--nsim", "--alpha", "--test", "--n", "--along",
)  # fmt: skip
VALUES = (
    "x", "y", "z", "f", "g", "h", ";", "tab", ",", ".", "html", "latex", "markdown", "x > 0",
    "f=sum", "f=nonsense", "=", "omit", "exclude", "raise", "blocked", "sparse", "cholmod",
    "bobyqa", "lbfgsb", "3", "0", "-1", "0.9", "1e9", "nan", "kenward-roger", "normal", "out.csv",
    "out.json", "out.tsv", "out.parquet", "out.mixlm", "a,b", "~ (1 | g)", "x=1", "g=1,0.5", "lr",
    "z", "12,24", "confidence", "prediction", "", "(Intercept)=2",
)  # fmt: skip
FILES = (
    "data.csv",
    "fit.mixlm",
    "strange.csv",
    "strange.mixlm",
    "data.tsv",
    "nothing.csv",
    "data",
    ".",
    "-",
)


@functools.cache
def _fit() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        mx.lmer("y ~ x + f + (x | g)", FRAME, control=mx.Control(warn=False)).save(
            Path(folder) / "a"
        )
        return (Path(folder) / "a").read_bytes()


def harmless(word: str) -> str:
    """Return a word that names no other folder and no large number of simulations."""
    return re.sub(r"(\d\d)\d+", r"\1", word.replace("/", "_").replace("..", "_").replace("~", "~ "))


def words(source: Source) -> list[str]:
    """Return what is typed after `mixlm`."""
    command = source.pick(COMMANDS)
    typed = [command]
    first = (
        "fit.mixlm"
        if command in ("predict", "simulate", "power") and source.below(4)
        else "data.csv"
    )
    typed.append(source.pick(FILES) if source.below(4) == 1 else first)
    typed += [source.pick(FORMULAS) for _ in range(2 if command == "compare" else source.below(3))]
    if command == "power":
        typed += ["--effect", "x"]
    for _ in range(source.below(6)):
        kind = source.below(8)
        if kind < 2:
            typed.append(source.pick(FLAGS))
        elif kind == 2:
            typed.append(harmless(source.text()))
        elif kind == 3:
            typed += [source.pick(OPTIONS), harmless(source.text())]
        else:
            typed += [source.pick(OPTIONS), source.pick(VALUES)]
    if source.below(8) == 1:
        place = source.below(len(typed))
        typed.insert(0, typed.pop(place))
    if command == "power":
        return [*typed, "--nsim", "2"]
    # a search to its end is most of what a fit costs: one fit in eight; `compare` makes six
    brief = command == "compare" or (command == "fit" and source.below(8) != 1)
    return [*typed, "--max-evaluations", "12"] if brief else typed


def table(source: Source) -> bytes:
    """Return a text file: the frame with some cells changed, or any bytes."""
    if source.below(4) == 1:
        return source.rest()
    sep = source.pick((",", ";", "\t", " "))
    lines = [line.split(",") for line in CSV.decode().splitlines()]
    for _ in range(source.below(8)):
        row = lines[source.below(len(lines))]
        row[source.below(len(row))] = source.pick(
            (source.text(8), str(source.number()), "", "NA", '"', "1,5")
        )
    return "\n".join(sep.join(row) for row in lines).encode("utf-8", "replace")


@functools.cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    """Return a folder of this process, which goes when the process ends; in memory if it can."""
    return tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None)


@contextlib.contextmanager
def place() -> Iterator[Path]:
    """Work in an empty folder."""
    before, folder = os.getcwd(), Path(_folder().name)
    for old in folder.iterdir():
        shutil.rmtree(old) if old.is_dir() else old.unlink()
    os.chdir(folder)
    try:
        yield folder
    finally:
        os.chdir(before)


@contextlib.contextmanager
def one_parser() -> Iterator[None]:
    """Make the parser once for all inputs: it costs more than most of what is parsed."""
    made, shell.parser = shell.parser, _parser
    try:
        yield
    finally:
        shell.parser = made


_parser = functools.cache(shell.parser)


def one(data: bytes) -> None:
    """Run a command in a folder of its own."""
    source = Source(data)
    typed = words(source)
    strange = table(source)
    with place() as folder:
        (folder / "data.csv").write_bytes(CSV)
        (folder / "fit.mixlm").write_bytes(_fit())
        for name in ("strange.csv", "strange.mixlm", "data.tsv", "data"):
            (folder / name).write_bytes(strange)
        stdin, sys.stdin = sys.stdin, io.StringIO(strange.decode("utf-8", "replace"))
        out, err = io.StringIO(), io.StringIO()
        try:
            with one_parser(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                code = shell.main(typed)
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 1
        finally:
            sys.stdin = stdin
    assert code in (0, 1, 2), f"exit code {code}"
    assert "unexpected" not in err.getvalue(), f"{typed}: {err.getvalue()}"


def seeds() -> list[bytes]:
    """Return decisions that lead to each command, with and without options."""
    return [
        bytes([command, 1, 0, 1, formula, options, 4, formula, options, 5, options, formula])
        for command in range(len(COMMANDS))
        for formula in range(4)
        for options in range(3)
    ]
