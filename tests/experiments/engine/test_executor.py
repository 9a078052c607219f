"""Points computed on several machines: the same bytes, whatever happens to the machines."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

import run
from experiments.engine import executor, keys, ray_executor, schedule
from experiments.engine.store import FILE, Store
from experiments.report import results

ROOT = Path(run.__file__).parent
SWEEP = ["--config=sweep", "--config.num_models=3", "--config.num_devices=1,2,3"]
SWEEP += ["--config.rates=2,4,6,8", "--config.durations_s=30", "--config.seeds=2"]
MARK = "BETA_JAX_TEST_CLUSTER"


def call(folder: Path, *arguments: str) -> int:
    return run.main(["run.py", f"--out_dir={folder}", *SWEEP, *arguments], time.perf_counter())


def files(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in (*results.FILES, FILE)}


@pytest.fixture(scope="module")
def embedded(tmp_path_factory) -> dict[str, bytes]:
    """What a run in this process leaves."""
    folder = tmp_path_factory.mktemp("embedded")
    assert call(folder) == 0
    return files(folder)


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(schedule, "FIRST_BLOCK", 1)
    monkeypatch.setattr(schedule, "BLOCK_S", 0.0)
    monkeypatch.setattr(schedule, "SHARED_BLOCK_S", 0.0)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Of a Ray cluster of two machines, both of them this one."""
    cluster_utils = pytest.importorskip("ray.cluster_utils")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(MARK, str(uuid.uuid4()))
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        node = {"num_cpus": 1, "object_store_memory": 2**27, "include_dashboard": False}
        cluster = cluster_utils.Cluster(initialize_head=True, head_node_args=node)
        del node["include_dashboard"]
        cluster.add_node(**node)
        yield cluster.address
        cluster.shutdown()


def computing() -> list[int]:
    """The processes of workers that are in the middle of a block. Ray names them after it."""
    mark = f"{MARK}={os.environ.get(MARK)}".encode()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            busy = (process / "cmdline").read_bytes().startswith(b"ray::Worker.compute")
            if busy and mark in (process / "environ").read_bytes().split(b"\0"):
                found.append(int(process.name))
    return found


@pytest.mark.slow
def test_two_machines_leave_what_one_process_leaves_though_it_is_interrupted_and_one_is_killed(
    address, embedded, small_blocks, tmp_path, monkeypatch, capsys
):
    on_ray = "--executor=ray", f"--ray_address={address}"
    add = Store.add

    def interrupt(store: Store, records) -> None:
        add(store, records)
        if len(store.records) == 6:
            raise KeyboardInterrupt

    monkeypatch.setattr(Store, "add", interrupt)
    assert call(tmp_path, *on_ray) == 130
    assert "interrupted: 6 of 48 results are stored" in capsys.readouterr().err
    assert embedded[FILE].startswith((tmp_path / FILE).read_bytes())
    killed = []

    def kill_one(store: Store, records) -> None:
        add(store, records)
        for _ in range(100 if not killed else 0):  # until one is in the middle of a block
            for process in computing()[:1]:
                os.kill(process, signal.SIGKILL)
                killed.append(process)
                return
            time.sleep(0.005)

    monkeypatch.setattr(Store, "add", kill_one)
    assert call(tmp_path, *on_ray) == 0
    assert files(tmp_path) == embedded
    assert len(killed) == 1
    assert capsys.readouterr().err.count("died; what it was at is computed again") == 1
    # What is stored is not computed again, and asks for no cluster.
    assert call(tmp_path, "--executor=ray", "--ray_address=127.0.0.1:1") == 0


@pytest.mark.slow
def test_a_block_over_which_every_worker_dies_ends_the_run(address, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(ray_executor, "ATTEMPTS", 2)
    ended = threading.Event()

    def kill_all() -> None:
        while not ended.wait(0.01):
            for process in computing():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)

    killer = threading.Thread(target=kill_all)
    killer.start()
    try:
        assert call(tmp_path, "--executor=ray", f"--ray_address={address}") == 1
    finally:
        ended.set()
        killer.join()
    error = capsys.readouterr().err
    assert error.count("warning: ") == 1
    last = error.splitlines()[-1]
    assert last.startswith("error: 2 workers died over the same 48 results, the last one on ")


@pytest.mark.slow
def test_workers_that_would_compute_something_else_are_refused(
    address, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(ray_executor.metadata, "version", lambda name: "0.0.1")
    assert call(tmp_path, "--executor=ray", f"--ray_address={address}") == 1
    *warnings, error = filter(None, capsys.readouterr().err.splitlines())
    for line in warnings:
        assert "is refused: other than here are jaxlib (0.0.1 here, " in line
    assert len(warnings) == 2
    assert error.startswith("error: no machine of the Ray cluster can compute this: ")
    assert not (tmp_path / FILE).exists()


# What workers say, and what is made of it, without a cluster.


class Cases(list):
    """The cases that a run would compute, which it hands out in one block."""

    workers = 1

    def compute(self, blocks, *_):
        self.extend(case for block in blocks for case in block)
        raise KeyboardInterrupt
        yield

    def close(self) -> None:
        pass


@pytest.fixture(scope="module")
def cases(tmp_path_factory) -> Cases:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(executor, "named", lambda *_: Cases.own)
        Cases.own = Cases()
        assert call(tmp_path_factory.mktemp("none")) == 130
    return Cases.own


def test_a_worker_computes_what_the_embedded_executor_does(cases, tmp_path):
    worker = ray_executor.Worker(os.getcwd(), ["configs.sweep"])
    block, make_keys = cases[:2], keys.Keys()
    same = [make_keys(case) for case in block]
    jaxlib = ray_executor.metadata.version("jaxlib")
    done = worker.compute(block, jaxlib, same)
    assert isinstance(done, executor.Done) and [*done.records] == block
    unfit = worker.compute(block, jaxlib, [same[0], "0" * 64])
    assert unfit.case == block[1] and not unfit.problem
    assert worker.compute(block, "0.0.1", same).case == block[0]
    assert unfit.statement == ray_executor.statement(unfit.case, make_keys)
    assert worker.host()


def test_a_worker_that_lacks_a_file_says_so(cases):
    case = cases[0]._replace(scenario=dataclasses.replace(cases[0].scenario, profile="gone.json"))
    unfit = ray_executor.Worker("/no/such/folder", []).compute([case], "", [""])
    assert unfit.problem == "gone.json: No such file or directory"


def test_what_differs_is_named(cases, monkeypatch):
    here = ray_executor.statement(cases[0], keys.Keys())
    assert ray_executor.differences(here, here) == "other than here are "
    changes = {"jaxlib": "0.0.1", "the code of experiments.engine.compute": "0" * 64}
    text = ray_executor.differences(here, here | changes)
    assert text.endswith(" here, 0.0.1 there), the code of experiments.engine.compute")
    flags = "x86_64  flags : sse avx2 avx512f"
    text = ray_executor.differences({"processor": flags}, {"processor": flags[:-8]})
    assert text == "other than here are processor (avx512f)"
    text = ray_executor.differences({name: "1" for name in "abcdef"}, {})
    assert text.endswith("d (1 here, nothing there), and 2 more")


# What is answered in one line.


@pytest.mark.parametrize(
    ("arguments", "code", "answer"),
    [
        (["--executor=dask"], 2, "unknown --executor 'dask'; known: embedded, ray"),
        (["--ray_address=host:1"], 2, "--ray_address needs --executor=ray"),
        (
            ["--executor=ray", "--ray_address=127.0.0.1:1"],
            1,
            "there is no Ray cluster at 127.0.0.1:1: Connection refused",
        ),
        (
            ["--executor=ray", "--ray_address=somewhere"],
            1,
            "there is no Ray cluster at somewhere: an address is HOST:PORT",
        ),
    ],
)
def test_a_mistake_is_answered_in_one_line(arguments, code, answer, tmp_path, capsys):
    pytest.importorskip("ray")
    assert call(tmp_path, *arguments) == code
    assert capsys.readouterr().err == f"error: {answer}\n"


def test_the_environment_names_a_cluster_too(tmp_path, monkeypatch, capsys):
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_ADDRESS", "ray://127.0.0.1:1")
    assert call(tmp_path, "--executor=ray") == 1
    assert "no Ray cluster at ray://127.0.0.1:1: " in capsys.readouterr().err


def test_without_ray_it_says_how_to_get_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert call(tmp_path, "--executor=ray") == 1
    error = capsys.readouterr().err
    assert error.startswith("error: --executor=ray needs Ray, which is not installed")
    assert error.count("\n") == 1


def test_what_is_not_made_of_points_runs_here_only(tmp_path, capsys):
    argv = ["run.py", "--config=selfcheck", f"--out_dir={tmp_path}", "--executor=ray"]
    assert run.main(argv, time.perf_counter()) == 1
    assert "--executor=embedded" in capsys.readouterr().err
