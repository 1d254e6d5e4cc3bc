"""Fuzz a target: `python -m fuzz formula --seconds 600`.

Runs atheris (libFuzzer) on the package with NumPy kernels, from the seeds of the target, with
limits of time and memory for an input.  Findings do not end the run: each kind is kept once, as the
input and its traceback, in the folder of findings.  At the end stand executions, coverage (edges
of the package's bytecode) and findings.

    pip install atheris
    python -m fuzz all --seconds 600            # each target in turn
    python -m fuzz load --replay found/load/*   # run inputs again, without atheris
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

NAMES = ("formula", "load", "many", "products", "frames", "structures", "command_line")
MEGABYTES = 3000  # of the process
SECONDS_AN_INPUT = 120
LINE = re.compile(rb"#(\d+)\s+\w+\s+cov: (\d+) ft: (\d+) corp: (\d+)/")


def replay(name: str, files: list[Path]) -> int:
    """Run inputs again, and print what they find."""
    from fuzz.targets import TARGETS, tried

    found = 0
    for path in files:
        finding = tried(TARGETS[name], path.read_bytes())
        print(f"{path}: {'-' if finding is None else finding.kind}")
        if finding is not None:
            print(finding.text)
            found += 1
    return int(found > 0)


def child(name: str, folder: Path, arguments: list[str]) -> None:
    """Fuzz in this process, which libFuzzer ends."""
    import atheris

    with atheris.instrument_imports(include=["mixlm_sparse"]):
        import importlib
        import pkgutil

        import mixlm_sparse as mx

        skipped = re.compile(r"\.plots\b|__main__|marginaleffects|sklearn|demo|cholmod")
        for module in pkgutil.walk_packages(mx.__path__, "mixlm_sparse."):
            if not skipped.search(module.name):
                importlib.import_module(module.name)
        from fuzz.targets import TARGETS, tried

    mx.use_compiled(False)
    target = TARGETS[name]
    kinds: set[str] = set()

    def one(data: bytes) -> None:
        finding = tried(target, data)
        if finding is not None and finding.kind not in kinds:
            kinds.add(finding.kind)
            place = folder / f"{len(kinds):03d}"
            place.with_suffix(".bin").write_bytes(data)
            place.with_suffix(".txt").write_text(f"{finding.kind}\n\n{finding.text}", "utf-8")
            print(f"FOUND {finding.kind}", file=sys.stderr, flush=True)

    atheris.Setup([sys.argv[0], *arguments], one)
    atheris.Fuzz()


def fuzz(name: str, seconds: int, seed: int, found: Path) -> int:
    """Fuzz one target in a process of its own; print a line of the table, return the findings."""
    from fuzz.targets import TARGETS

    target = TARGETS[name]
    folder = found / name
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    with tempfile.TemporaryDirectory() as work:
        corpus, words = Path(work) / "corpus", Path(work) / "words"
        corpus.mkdir()
        for i, data in enumerate(target.seeds()):
            (corpus / f"{i:03d}").write_bytes(data)
        # only printable ASCII stands in a dictionary as it is
        escaped = (
            re.sub(rb"[^ !#-\[\]-~]", lambda m: b"\\x%02X" % m[0][0], t.encode())
            for t in target.tokens
        )
        words.write_bytes(b"".join(b'"%s"\n' % token for token in escaped))
        done = subprocess.run(
            [sys.executable, "-m", "fuzz", name, "--found", str(folder), "--child",
             str(corpus), f"-max_total_time={seconds}", f"-seed={seed}", f"-max_len={target.most}",
             "-len_control=0",
             f"-timeout={SECONDS_AN_INPUT}", f"-rss_limit_mb={MEGABYTES}",
             *([f"-dict={words}"] if target.tokens else []),
             f"-artifact_prefix={folder}/", "-print_final_stats=1"],
            stderr=subprocess.PIPE, check=False,
        )  # fmt: skip
        (folder / "log.txt").write_bytes(done.stderr[-200_000:])
    lines = LINE.findall(done.stderr)
    executions, edges, _, corpus_size = (int(part) for part in lines[-1]) if lines else (0, 0, 0, 0)
    peak = re.search(rb"peak_rss_mb:\s+(\d+)", done.stderr)
    kinds = len(list(folder.glob("*.txt"))) - 1
    ended = "" if done.returncode == 0 else f", ended with {done.returncode}: see {folder}/log.txt"
    memory = peak[1].decode() if peak else "?"
    print(
        f"| `{name}` | {executions:,} | {edges:,} | {corpus_size:,} | {memory} | {kinds}{ended} |",
        flush=True,
    )
    return kinds + (done.returncode != 0)


def main() -> int:
    """Run what the command line says."""
    words = argparse.ArgumentParser(prog="python -m fuzz", description="Fuzz a target.")
    words.add_argument("target", choices=(*NAMES, "all"))
    words.add_argument("--seconds", type=int, default=600, help="a target; default: 600")
    words.add_argument("--seed", type=int, default=1, help="of the mutations; default: 1")
    words.add_argument(
        "--found", type=Path, default=Path("found"), help="folder of findings; default: found"
    )
    words.add_argument("--replay", type=Path, nargs="+", metavar="FILE", help="run these inputs")
    words.add_argument("--child", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    args = words.parse_args()
    if args.child:
        child(args.target, args.found, args.child)
        return 0
    names = NAMES if args.target == "all" else (args.target,)
    if args.replay:
        return replay(args.target, args.replay)
    print("| target | executions | edges | inputs kept | peak MB | kinds of findings |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    return int(sum([fuzz(name, args.seconds, args.seed, args.found) for name in names]) > 0)


if __name__ == "__main__":
    sys.exit(main())
