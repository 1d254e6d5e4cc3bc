"""Work in other processes: the same results in order, and nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from collections.abc import Iterator

import numpy as np
import pytest

import mixlm_sparse as mx
from mixlm_sparse.common.parallel import processors, run


def squares(tasks: range) -> list[int]:
    return [i * i for i in tasks]


def process_of(tasks: range) -> list[int]:
    return [os.getpid() for _ in tasks]


def fails(tasks: range) -> list[int]:
    if 5 in tasks:
        raise KeyError("five")
    return list(tasks)


def dies(tasks: range) -> list[int]:
    os._exit(3)


def prints(tasks: range) -> list[int]:
    print("a line of the user's own")
    return list(tasks)


class OddError(Exception):
    """An exception that pickles and cannot be read back."""

    def __init__(self, first: int, second: int) -> None:
        super().__init__(f"{first} beside {second}")


def odd(tasks: range) -> list[int]:
    raise OddError(1, 2)


def slow(tasks: range) -> Iterator[int]:
    for i in tasks:
        time.sleep(60.0)
        yield i


def alive(pid: int) -> bool:
    """Say whether a process runs; one that only waits to be collected does not."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        pass
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def sigma_of(fit):
    return fit.sigma


@pytest.fixture(scope="module")
def fit():
    return mx.lmer("Yield ~ 1 + (1 | Batch)", mx.datasets.load("Dyestuff"))


def test_results_come_in_order_and_from_other_processes():
    assert run(squares, 23, 4, n_jobs=2, progress=False) == ([i * i for i in range(23)], True)
    pids = run(process_of, 6, 1, n_jobs=2, progress=False)[0]
    assert os.getpid() not in pids
    assert len(set(pids)) <= 2
    assert not any(alive(pid) for pid in pids)


def test_one_piece_needs_no_other_process():
    assert run(process_of, 3, 5, n_jobs=4, progress=False)[0] == [os.getpid()] * 3


@pytest.mark.parametrize("n_jobs", [500, 10**400])
def test_no_more_processes_than_processors_are_started(n_jobs):
    done, complete = run(process_of, 40, 1, n_jobs=n_jobs, progress=False)
    assert complete
    assert 1 <= len(set(done)) <= max(processors(), 2)


def test_an_early_end_keeps_what_is_done_and_ends_the_processes():
    pids, complete = run(process_of, 40, 2, n_jobs=2, progress=lambda done, total: done < 6)
    assert (len(pids), complete) == (6, False)
    assert not any(alive(pid) for pid in pids)


def test_an_exception_comes_back_as_it_was():
    with pytest.raises(KeyError, match="five"):
        run(fails, 12, 2, n_jobs=2, progress=False)
    with pytest.raises(mx.WorkerError, match="OddError: 1 beside 2"):
        run(odd, 4, 2, n_jobs=2, progress=False)


def test_a_process_that_dies_is_said_to_have_died():
    with pytest.raises(mx.WorkerError, match=r"exit code 3.*n_jobs=1"):
        run(dies, 4, 2, n_jobs=2, progress=False)


def test_what_is_printed_does_not_get_between_the_results():
    assert run(prints, 4, 2, n_jobs=2, progress=False) == ([0, 1, 2, 3], True)


@pytest.mark.parametrize("installed", [True, False])
def test_functions_that_cannot_be_sent(fit, monkeypatch, installed):
    if installed:
        pytest.importorskip("cloudpickle")
    else:
        monkeypatch.setitem(sys.modules, "cloudpickle", None)
    options = {"nsim": 40, "seed": 1, "progress": False, "method": "cases"}
    named = fit.bootstrap(statistic=sigma_of, n_jobs=2, **options)
    np.testing.assert_array_equal(
        named.samples, fit.bootstrap(statistic=sigma_of, **options).samples
    )
    if installed:
        local = fit.bootstrap(statistic=lambda fit: fit.sigma, n_jobs=2, **options)
        np.testing.assert_array_equal(local.samples, named.samples)
    else:
        with pytest.raises(mx.OptionError, match=r"module that can be imported.*n_jobs=1"):
            fit.bootstrap(statistic=lambda fit: fit.sigma, n_jobs=2, **options)


def test_a_lock_held_by_another_thread_stops_nothing(fit):
    held, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        with fit.system.lock:
            held.set()
            go_on.wait(120.0)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    try:
        copy = fit.update(control=mx.Control(warn=False), optimizer="bfgs", data=fit.call.data)
        assert run(squares, 8, 2, n_jobs=2, progress=False)[1]
        # the work of another fit goes on while this one's engine is in use
        assert len(copy.influence("Batch", n_jobs=2, progress=False).labels) == 6
    finally:
        go_on.set()
        thread.join()


def test_filters_of_warnings_stay_as_they_were(fit):
    before = list(warnings.filters)
    fit.bootstrap(40, method="cases", seed=1, n_jobs=2, progress=False)
    assert list(warnings.filters) == before


SCRIPT = """
import mixlm_sparse as mx
fit = mx.lmer("Yield ~ 1 + (1 | Batch)", mx.datasets.load("Dyestuff"))
boot = fit.bootstrap(40, method="cases", seed=1, n_jobs=2, progress=False)
print(boot.n_done, flush=True)
"""


def script(tmp_path, text: str) -> list[str]:
    path = tmp_path / "analysis.py"
    path.write_text(textwrap.dedent(text))
    return [sys.executable, str(path)]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}


def test_a_script_needs_no_guard(tmp_path):
    done = subprocess.run(
        script(tmp_path, SCRIPT), capture_output=True, text=True, env=environment(), check=False
    )
    assert (done.stdout.split(), done.returncode) == (["40"], 0), done.stderr


def first_then_slow(tasks: range) -> list[int]:
    return process_of(tasks) if 0 in tasks else list(slow(tasks))


@pytest.mark.skipif(os.name != "posix", reason="sends the signal of a terminal")
def test_ctrl_c_ends_the_processes(tmp_path):
    text = """
    import signal
    signal.signal(signal.SIGINT, signal.default_int_handler)
    from mixlm_sparse.common.parallel import run
    from tests.common.test_parallel import first_then_slow

    def interrupt(done, total):
        signal.raise_signal(signal.SIGINT)

    found, complete = run(first_then_slow, 4, 1, n_jobs=2, progress=interrupt)
    print(*found, complete, flush=True)
    """
    done = subprocess.run(
        script(tmp_path, text), capture_output=True, text=True, env=environment(), check=False
    )
    pid, complete = done.stdout.split()
    assert complete == "False", done.stderr
    assert not alive(int(pid))
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(os.name != "posix", reason="kills by a signal")
def test_processes_end_with_their_parent(tmp_path):
    text = """
    import os, signal
    from mixlm_sparse.common.workers import elsewhere
    from tests.common.test_parallel import process_of

    pieces = [range(i, i + 1) for i in range(8)]
    for result in elsewhere(process_of, pieces, 2):
        print(*result, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run(
        script(tmp_path, text), capture_output=True, text=True, env=environment(), check=False
    )
    assert done.returncode == -signal.SIGKILL
    pid = int(done.stdout.split()[0])
    for _ in range(600):
        if not alive(pid):
            break
        time.sleep(0.1)
    assert not alive(pid)
