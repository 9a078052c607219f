"""Finished results survive: SIGKILL, Ctrl-C, full disks, damaged files and a second run."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import run
from beta_jax import backend
from experiments.cli.folder import LOCK, locked
from experiments.engine import compute, executor, keys, schedule
from experiments.engine.store import FILE, Store, StoreError, digest
from experiments.experiment import Experiment
from experiments.report import results

ROOT = Path(run.__file__).parent
SWEEP = ["--config=sweep", "--config.num_models=3", "--config.num_devices=1,2,3"]
SWEEP += ["--config.rates=2,4,6,8", "--config.durations_s=30", "--config.seeds=5"]
NUM_RESULTS = 3 * 4 * 5 * 2
RECORD = {"metrics": {"slo_attainment": 0.1, "latency_mean_s": float("nan")}, "layout": "1x(1,1,1)"}

Main = Callable[..., int]


def call(folder: Path, *arguments: str) -> int:
    return run.main(["run.py", f"--out_dir={folder}", *arguments], start=time.perf_counter())


@pytest.fixture
def small_blocks(monkeypatch):
    """A block is stored for every scenario, instead of one for them all."""
    monkeypatch.setattr(schedule, "FIRST_BLOCK", 1)
    monkeypatch.setattr(schedule, "BLOCK_S", 0.0)
    monkeypatch.setattr(schedule, "SHARED_BLOCK_S", 0.0)


@pytest.fixture
def undrawn(monkeypatch):
    """Figures take longer than results of a test that looks at the results alone."""
    monkeypatch.setattr(Experiment, "draw", lambda *_: [])


@pytest.fixture(scope="module")
def complete(tmp_path_factory) -> Path:
    """The folder of an uninterrupted run of `SWEEP`."""
    folder = tmp_path_factory.mktemp("complete")
    assert call(folder, *SWEEP) == 0
    return folder


def tables(folder: Path) -> dict[str, bytes]:
    names = (*results.FILES, "attainment.png", "latency.png")
    return {name: (folder / name).read_bytes() for name in names}


def lines(folder: Path) -> list[bytes]:
    path = folder / FILE
    return path.read_bytes().splitlines(keepends=True) if path.exists() else []


# The file.


def test_what_was_added_is_read_back_exactly(tmp_path):
    store = Store(tmp_path / FILE)
    store.add({"a": RECORD, "b": {"x": 1 / 3}})
    store.add({"c": {"text": "line\nbreak, \u00e9"}})
    again = Store(tmp_path / FILE)
    assert repr(again.records) == repr(store.records) and again.damaged == 0
    assert len(lines(tmp_path)) == 3


def test_a_store_in_memory_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = Store(None)
    store.add({"a": RECORD})
    assert store.records["a"] is RECORD and not any(tmp_path.iterdir())


@given(data=st.data())
def test_whatever_a_file_is_cut_or_changed_to_only_whole_results_are_believed(
    data, tmp_path_factory
):
    folder = tmp_path_factory.mktemp("store")
    path = folder / FILE
    records = {key: {"value": i} for i, key in enumerate("abcde")}
    Store(path).add(records)
    content = bytearray(path.read_bytes())
    damage = data.draw(st.sampled_from(["cut", "change", "insert"]))
    at = data.draw(st.integers(0, len(content) - 1))
    if damage == "cut":
        del content[at:]
    elif damage == "change":
        content[at] ^= data.draw(st.integers(1, 255))
    else:
        content[at:at] = data.draw(st.binary(min_size=1, max_size=20))
    path.write_bytes(content)
    store = Store(path)
    assert store.records.items() <= records.items()
    if damage != "cut":
        assert len(store.records) >= 3  # a changed end of a line costs both lines
    store.add({"f": {"value": 5}})
    mended = Store(path)
    assert mended.damaged == 0 and mended.records == store.records | {"f": {"value": 5}}


def test_a_line_that_is_no_result_is_not_believed(tmp_path):
    text = json.dumps(["a"])
    checksum = hashlib.sha256(text.encode()).hexdigest()
    (tmp_path / FILE).write_text(f"{checksum} {text}\n")
    store = Store(tmp_path / FILE)
    assert store.damaged == 1 and not store.records


def test_digests_tell_values_apart_and_forget_the_order_of_keys():
    assert digest({"a": 1, "b": 2.0}) == digest({"b": 2.0, "a": 1})
    assert len({digest(value) for value in (1, 1.0, "1", [1], None)}) == 5


def test_a_write_that_fails_half_way_leaves_no_half(tmp_path, monkeypatch):
    store = Store(tmp_path / FILE)
    store.add({"a": RECORD})
    before = lines(tmp_path)

    def fail(_: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(StoreError, match="Input/output error; what was finished"):
            store.add({"b": RECORD})
    assert lines(tmp_path) == before and "b" not in store.records


# Resuming.


@pytest.fixture
def computed(monkeypatch) -> list[int]:
    """The sizes of the blocks that are computed."""
    sizes = []
    original = compute.compute_block

    def count(block, *arguments):
        sizes.append(len(block))
        return original(block, *arguments)

    monkeypatch.setattr(compute, "compute_block", count)
    return sizes


def test_programs_are_forgotten_when_there_are_many_which_changes_nothing(
    complete, tmp_path, monkeypatch
):
    forgotten = []
    forget = backend.forget_programs
    monkeypatch.setattr(backend, "forget_programs", lambda: forgotten.append(forget()))
    assert call(tmp_path / "few", *SWEEP) == 0
    assert not forgotten
    monkeypatch.setattr(executor, "MOST_PROGRAMS", -1)
    assert call(tmp_path / "none", *SWEEP) == 0
    assert forgotten
    assert tables(tmp_path / "none") == tables(tmp_path / "few") == tables(complete)


def test_a_second_run_computes_nothing_and_more_seeds_only_what_is_new(
    complete, tmp_path, computed
):
    folder = shutil.copytree(complete, tmp_path / "copy")
    assert call(folder, *SWEEP) == 0
    assert computed == [] and tables(folder) == tables(complete)
    assert call(folder, *SWEEP, "--config.seeds=6", "--config.rates=2,3") == 0
    assert sum(computed) == 2 * (3 * 1 + 3 * 6)  # policies x devices x seeds of the two rates


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    "change",
    [
        "--config.warmup_s=9",
        "--config.rules.stage_overhead=0.01",
        "--config.train_seed=77",
        "--config.memory_gib=12.5",
    ],
)
def test_whatever_determines_a_result_is_a_part_of_its_key(change, complete, tmp_path, computed):
    folder = shutil.copytree(complete, tmp_path / "copy")
    assert call(folder, *SWEEP, change) == 0
    assert sum(computed) == NUM_RESULTS


@pytest.mark.usefixtures("undrawn")
def test_a_file_is_known_by_its_content_not_by_its_name(complete, tmp_path, computed):
    folder = shutil.copytree(complete, tmp_path / "copy")
    profile = tmp_path / "other_name.json"
    shutil.copy(ROOT / "data/profiles/v100.json", profile)
    assert call(folder, *SWEEP, f"--config.profile={profile}") == 0
    assert computed == []
    document = json.loads(profile.read_text())
    profile.write_text(json.dumps(document | {"note": "changed"}))
    assert call(folder, *SWEEP, f"--config.profile={profile}") == 0
    assert sum(computed) == NUM_RESULTS


@pytest.mark.usefixtures("undrawn")
def test_newer_code_believes_no_old_result(complete, tmp_path, computed, monkeypatch):
    folder = shutil.copytree(complete, tmp_path / "copy")
    monkeypatch.setattr(keys, "_code", lambda: "newer")
    assert call(folder, *SWEEP) == 0
    assert sum(computed) == NUM_RESULTS


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    "arguments, believed",
    [
        (["--config.rng=legacy"], True),
        (["--config.rng=jax"], False),
        (["--config.rng=legacy", "--config.policies=sr-ilp"], False),
    ],
)
def test_another_machine_believes_results_that_are_exact(
    arguments, believed, tmp_path, computed, monkeypatch
):
    small = [*SWEEP, "--config.seeds=1", "--config.test_seed=99"]
    small += ["--config.warmup_s=1", *arguments]
    assert call(tmp_path / "out", *small) == 0
    first = sum(computed)
    monkeypatch.setattr(keys.fingerprint, "machine", lambda: "another")
    assert call(tmp_path / "out", *small) == 0
    assert sum(computed) == first * (1 if believed else 2)


def test_blocks_of_any_size_make_the_same_bytes(complete, tmp_path, small_blocks):
    assert call(tmp_path / "out", *SWEEP) == 0
    assert tables(tmp_path / "out") == tables(complete)


def test_a_damaged_store_is_mended_with_one_message(complete, tmp_path, computed, capsys):
    folder = shutil.copytree(complete, tmp_path / "copy")
    damaged = lines(folder)
    damaged[7] = damaged[7].replace(b"e", b"f", 1)
    damaged[30] = damaged[30][:-40] + b"\0" * 39 + b"\n"
    damaged[-1] = damaged[-1][:99]
    (folder / FILE).write_bytes(b"".join(damaged))
    assert call(folder, *SWEEP) == 0
    messages = capsys.readouterr().err.splitlines()
    (message,) = (line for line in messages if "damaged" in line)
    assert f"3 lines of {folder / FILE}" in message
    assert f"{NUM_RESULTS - 3} sound results are kept" in message
    assert sum(computed) == 3
    assert tables(folder) == tables(complete)
    assert call(folder, *SWEEP) == 0
    assert "damaged" not in capsys.readouterr().err


DRIVER = textwrap.dedent("""
    import os, signal, sys, time
    import run
    from experiments.engine import files, runner, schedule, store
    schedule.FIRST_BLOCK, schedule.BLOCK_S, schedule.SHARED_BLOCK_S = 1, 0.0, 0.0

    def arm(number, function, line):
        def count(frame, event, _):
            nonlocal line
            if frame.f_code is not function.__code__:
                return None
            line -= event == "line"
            if event == "line" and line == 0:
                os.kill(os.getpid(), number)
            return count
        sys.settrace(count)

    {start}
    sys.exit(run.main(["run.py", *sys.argv[1:]], start=time.perf_counter()))
""")
# It may send itself a signal before a line of a function, counted over all calls: where it matters,
# and at the same place on any machine.
# Forked after the imports, before JAX starts: a child costs a second less than a fresh process.
FORK = textwrap.dedent("""
    while order := sys.stdin.readline().split():
        child = os.fork()
        if not child:
            sys.stdout = sys.stderr = open(os.devnull, "w")
            function = store._append if order[0] == "store" else files.write
            arm(signal.SIGKILL, function, int(order[1]))
            break
        print(os.waitpid(child, 0)[1], flush=True)
    else:
        sys.exit()
""")


def process(folder: Path, start: str) -> subprocess.Popen[str]:
    # A cache of its own: whoever is killed while writing one must not spoil the user's.
    environment = os.environ | {"XDG_CACHE_HOME": str(folder.parent / "cache")}
    return subprocess.Popen(
        [sys.executable, "-c", DRIVER.format(start=start), *SWEEP, f"--out_dir={folder}"],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_twelve_sigkills_change_no_byte(complete, tmp_path):
    """Before any line of storing a block, later of writing a file at the end."""
    folder = tmp_path / "out"
    orders = [("store", line) for line in range(20, 100, 11)]  # so each time another line of it
    orders += [("write", line) for line in range(5, 50, 12)]
    stored = []
    with process(folder, FORK) as parent:
        assert parent.stdin and parent.stdout

        def child(function: str, line: int) -> int:
            print(function, line, file=parent.stdin, flush=True)
            return int(parent.stdout.readline())

        for order in orders:
            assert child(*order) == signal.SIGKILL
            assert Store(folder / FILE).damaged == 0
            stored.append(len(lines(folder)))
        assert child("write", 0) == 0
        parent.stdin.close()
    assert stored == sorted(stored) and stored[-5] < NUM_RESULTS == stored[-4]
    assert tables(folder) == tables(complete)


def test_ctrl_c_ends_with_130_and_keeps_what_is_finished(complete, tmp_path):
    folder = tmp_path / "out"
    start = "from experiments.engine import compute; arm(signal.SIGINT, compute.compute_block, 200)"
    with process(folder, start) as started:
        _, errors = started.communicate()
    assert started.returncode == 130
    kept = len(Store(folder / FILE).records)
    assert 0 < kept < NUM_RESULTS
    last = errors.splitlines()[-1]
    assert last == (
        f"error: interrupted: {kept} of {NUM_RESULTS} results are stored; the same command goes on "
        "from there"
    )
    assert "Traceback" not in errors
    assert [path.name for path in folder.iterdir()] == [FILE]
    assert call(folder, *SWEEP) == 0
    assert tables(folder) == tables(complete)


def test_two_runs_on_one_directory_are_one_too_many(tmp_path, capsys):
    folder = tmp_path / "out"
    folder.mkdir()
    with locked(folder):
        assert call(folder, *SWEEP) == 1
        assert "another run is writing there" in capsys.readouterr().err
        assert call(folder, *SWEEP, "--clean") == 1
        assert "another run is writing there" in capsys.readouterr().err
    assert not any(folder.iterdir())


def test_the_lock_of_a_dead_process_locks_nothing(tmp_path):
    code = f"""
from pathlib import Path; from experiments.cli.folder import locked; import os
with locked(Path({str(tmp_path)!r})): os.kill(os.getpid(), 9)
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT)
    assert (tmp_path / LOCK).exists()
    with locked(tmp_path):
        pass
    assert not any(tmp_path.iterdir())


# Full disks.


@pytest.fixture
def tiny_disk(tmp_path) -> Iterator[Path]:
    """A file system of 40 kB; skips where it cannot be mounted (only root may)."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = functools.partial(subprocess.run, capture_output=True)
    if mount(["mount", "-t", "tmpfs", "-o", "size=40k", "none", str(folder)]).returncode:
        pytest.skip("cannot mount a tmpfs here")
    yield folder
    mount(["umount", str(folder)])


def test_a_full_disk_loses_nothing_finished(tiny_disk, complete, small_blocks, computed, capsys):
    folder = tiny_disk / "out"
    assert call(folder, *SWEEP) == 1
    error = capsys.readouterr().err
    assert "No space left on device" in error or "the disk is full" in error
    assert error.count("\n") == 1 and "what was finished before is stored" in error
    store = Store(folder / FILE)
    assert 0 < len(store.records) < NUM_RESULTS and store.damaged == 0
    assert [path.name for path in folder.iterdir()] == [FILE]
    subprocess.run(["mount", "-o", "remount,size=4m", str(tiny_disk)], check=True)
    computed.clear()
    assert call(folder, *SWEEP) == 0
    assert sum(computed) == NUM_RESULTS - len(store.records)
    assert tables(folder) == tables(complete)


def test_a_limit_on_the_file_acts_as_a_full_disk(tmp_path, small_blocks, capsys):
    folder = tmp_path / "out"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, limits[1]))
    try:
        assert call(folder, *SWEEP) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    error = capsys.readouterr().err
    assert f"cannot write {folder / FILE}" in error and error.count("\n") == 1
    store = Store(folder / FILE)
    assert 0 < len(store.records) < NUM_RESULTS and store.damaged == 0


def test_a_disk_that_is_full_for_tables_leaves_the_old_ones(complete, tmp_path, capsys):
    folder = shutil.copytree(complete, tmp_path / "copy")
    before = tables(folder)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        assert call(folder, *SWEEP, "--config.rates=2") == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "File too large" in capsys.readouterr().err
    assert tables(folder) == before
    assert not [*folder.glob("*.tmp")]


# Cleaning.


def test_clean_deletes_what_the_config_wrote_and_nothing_else(complete, tmp_path, capsys):
    folder = shutil.copytree(complete, tmp_path / "copy")
    (folder / "table.csv.tmp").touch()
    (folder / "notes.txt").write_text("mine")
    assert call(folder, *SWEEP, "--clean") == 0
    assert "results.jsonl" in capsys.readouterr().out
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]
    assert call(folder, *SWEEP, "--clean") == 0
    (folder / "notes.txt").unlink()
    assert call(folder, *SWEEP, "--clean") == 0
    assert not folder.exists()
    assert call(folder, *SWEEP, "--clean") == 0


def test_clean_spares_the_results_of_another_config(complete, capsys):
    before = tables(complete)
    assert call(complete, "--config=sec6_3", "--clean") == 1
    assert "holds results of sweep, not of sec6_3" in capsys.readouterr().err
    assert tables(complete) == before


@pytest.mark.parametrize("name", ["evaluate", "quickstart", "sec6_3:smoke", "sweep:smoke"])
def test_clean_knows_every_file_that_a_run_writes(name, tmp_path):
    assert call(tmp_path / "out", f"--config={name}") == 0
    assert call(tmp_path / "out", f"--config={name}", "--clean") == 0
    assert not (tmp_path / "out").exists()
