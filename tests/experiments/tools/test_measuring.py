"""The command that measures profiles: goes on after an interruption, and answers in one line."""

from __future__ import annotations

import csv
import json
import re
import time
from pathlib import Path

import pytest

import run
from beta_jax import load_profile
from experiments.engine.store import Store
from experiments.tools import measuring

from bench import Bench

OWN = ("--config", "profile:smoke", "--config.pps=1,2,4")


def execute(out_dir: Path, *arguments: str) -> int:
    return run.main(["run.py", "--out_dir", str(out_dir), *arguments], time.perf_counter())


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    made = Bench()
    made.install(monkeypatch)
    return made


def test_it_writes_both_profiles_and_every_stage(bench, tmp_path, capsys):
    assert execute(tmp_path, *OWN) == 0
    with open(tmp_path / "stages.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 2 * (1 + 2 + 4)
    assert {(row["chip"], row["dtype"]) for row in rows} == {(rows[0]["chip"], "float32")}
    assert all("{" not in value for row in rows for value in row.values())
    for cut, name in (("balanced", "profile.json"), ("even", "profile_even.json")):
        profile = load_profile(tmp_path / name)
        for config in profile.configs("tiny"):
            for batch in (1, 2):
                own = [r for r in rows if (r["cut"], int(r["pp"]), int(r["batch"]))
                       == (cut, config.pp, batch)]  # fmt: skip
                stages_s = [float(row["median_s"]) for row in own]
                assert stages_s == profile.stage_latency_s("tiny", config, batch).tolist()
        assert cut in profile.note
    assert (tmp_path / "profile.png").stat().st_size > 10_000
    printed = capsys.readouterr().out
    assert "quartiles_apart_%" in printed and "profile.json has the balanced pipelines" in printed


def test_interrupted_it_goes_on_and_writes_the_same(bench, tmp_path, monkeypatch, capsys):
    assert execute(tmp_path / "whole", *OWN) == 0
    runs, bench.runs = bench.runs, []
    add, added = Store.add, []

    def interrupted(store, records):
        add(store, records)
        added.extend(records)
        if len(added) in (3, 4, 9):
            raise KeyboardInterrupt

    monkeypatch.setattr(Store, "add", interrupted)
    codes = [execute(tmp_path / "again", *OWN) for _ in range(4)]
    assert codes == [130, 130, 130, 0]
    assert "interrupted: 9 rows are stored; the same command goes on" in capsys.readouterr().err
    assert bench.runs == runs
    assert len(added) == len({*added})
    for name in ("profile.json", "stages.csv"):
        whole, again = ((tmp_path / of / name).read_text() for of in ("whole", "again"))
        assert undated(whole) == undated(again)
    bench.runs.clear()
    assert execute(tmp_path / "again", *OWN) == 0
    assert not bench.runs
    assert execute(tmp_path / "again", *OWN, "--clean") == 0
    assert not (tmp_path / "again").exists()


def undated(text: str) -> str:
    """Without when it was measured."""
    return re.sub(r"\d{4}-\d\d-\d\dT[\d:+]+", "", text)


def test_what_does_not_fit_is_told_in_a_line_and_the_rest_goes_on(bench, tmp_path, capsys):
    bench.fails_at["output", 2] = "RESOURCE_EXHAUSTED: Out of memory allocating 3 bytes.\n\nMore"
    assert execute(tmp_path, *OWN) == 0
    error = capsys.readouterr().err
    assert error.count("\n") == 2 * 3
    assert "warning: tiny (1,1,4), balanced: does not fit from batch size 2 on; stage 3: " in error
    (config, *_) = json.loads((tmp_path / "profile.json").read_text())["types"]["tiny"]["configs"]
    assert [*config["stage_latency_s"]] == ["1"]


def test_nothing_that_fits_is_an_error(bench, tmp_path, capsys):
    assert execute(tmp_path, *OWN, "--config.memory_gib=1e-6") == 1
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(":")[0] for line in lines] == ["warning"] * 3 + ["error"]
    assert "nothing that was asked for fits the devices" in lines[-1]


def test_attention_that_this_machine_does_not_have_is_told_in_a_line(tmp_path, capsys):
    assert execute(tmp_path, *OWN, "--config.attention=cudnn") == 1
    error = capsys.readouterr().err
    assert error.startswith("error: attention: cudnn does not work: ") and error.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("models=bert-1.3",), "no architecture 'bert-1.3'; nearest: bert-1.3b"),
        (
            ("models=bert-1.3b", "architecture.layers=2"),
            "models: has no name for the type",
        ),
        (("models=a,b", "architecture.layers=2"), "tells of one type, not of a, b"),
        (("models=a", "architecture.heads=3"), "heads must divide hidden"),
        (
            ("models=a", "architecture.layers=2", "pps=4"),
            "pps: a has 2 blocks, too few",
        ),
        (("ops=64",), "ops: 64 operator-parallel devices are wanted"),
        (("batches=2",), "batches must have 1 among them"),
        (("models=",), "models is empty"),
        (("memory_gib=-1",), "memory must be > 0"),
        (("sequence=0",), "sequence must be >= 1"),
        (("architecture.block=gpt",), "expected one of bert, llama"),
    ],
)
def test_a_mistake_is_answered_in_one_line(arguments, expected, bench, tmp_path, capsys):
    assert execute(tmp_path, *OWN, *(f"--config.{one}" for one in arguments)) in (1, 2)
    error = capsys.readouterr().err
    assert expected in error and error.count("\n") <= 2 and "Traceback" not in error
    assert not bench.runs


def test_noise_is_told_and_its_rows_are_named():
    def row(batch, latency_s, apart=1.0, pp=1):
        where = {"type": "tiny", "op": 1, "pp": pp, "cut": "even", "batch": batch}
        return where | {"latency_s": latency_s, "quartiles_apart_%": apart}

    quiet = [row(1, 1.0), row(2, 0.97), row(4, 2.0), row(1, 0.5, pp=2)]
    assert measuring.doubts(quiet) == []
    apart, quicker = measuring.doubts([*quiet, row(8, 1.8, apart=26.0), row(16, 3.0), row(2, 0.1)])
    assert apart.startswith("quartiles lie more than 25 % apart: tiny (1,1,1) even batch 8; ")
    assert "smaller one: tiny (1,1,1) even batch 2, tiny (1,1,1) even batch 8; " in quicker
    assert "--config.repeats" in apart and "--clean" in apart
    (many,) = measuring.doubts([row(1, 1.0, apart=99.0, pp=pp) for pp in range(1, 8)])
    assert "and 2 more rows; " in many
