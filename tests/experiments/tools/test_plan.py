"""The config `plan`: what it reads, refuses and draws; the rest is in docs/planning.md."""

from __future__ import annotations

import csv
import re
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import run
from beta_jax import load_placement, load_profile

Main = Callable[..., int]
SMALL = ("--config.seeds=4", "--config.target=0.9", "--config.num_devices=8")


@pytest.fixture
def main(tmp_path: Path) -> Main:
    def call(*arguments: str) -> int:
        argv = ["run.py", "--config=plan", f"--out_dir={tmp_path / 'out'}", *arguments]
        return run.main(argv, time.perf_counter())

    return call


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_models_of_a_file_and_the_worst_of_them(main, tmp_path, capsys):
    """Names, types and SLOs are those of the file, the log asks for them by name."""
    models = tmp_path / "models.csv"
    models.write_text("type,name,slo_s,slo_scale\nbert-1.3b,chat,3,\nbert-2.6b,code,,8\n")
    log = tmp_path / "log.csv"
    lines = [f"{i / 2},{('chat', 'code')[i % 3 == 0]}\n" for i in range(600)]
    log.write_text("arrival_s,model\n" + "".join(lines))
    files = (f"--config.requests={log}", f"--config.models={models}", "--config.of=worst_model")
    assert main(*files, *SMALL) == 0, capsys.readouterr().err
    placement, found = load_placement(tmp_path / "out" / "placement.json")
    assert [(m.name, m.type) for m in found] == [("chat", "bert-1.3b"), ("code", "bert-2.6b")]
    single_s = load_profile("v100").single_device_latency_s("bert-2.6b")
    assert [m.slo_s for m in found] == pytest.approx([3.0, 8 * single_s])
    (answer,) = rows(tmp_path / "out" / "answers.csv")
    assert answer["answer"] == f"{placement.num_devices} device" + "s" * (placement.num_devices > 1)
    assert "of the worst-served model's requests" in capsys.readouterr().out


def test_it_says_what_was_assumed_and_what_would_decide(main, tmp_path, capsys):
    log = tmp_path / "log.csv"
    arrival_s = np.random.default_rng(0).exponential(0.3, 1000).cumsum()
    lines = [f"{at},{('chat', 'code')[i % 3 == 0]}\n" for i, at in enumerate(arrival_s)]
    log.write_text("arrival_s,model\n" + "".join(lines))
    assert main(f"--config.requests={log}", *SMALL, "--config.target=0.97") == 0
    out = capsys.readouterr().out
    assert out.startswith(f"{log}: models chat, code are taken as bert-2.6b; --config.model_types=")
    assert "with the only node down" in out
    (seeds,) = re.findall(r"undecided between .* \(about (\d+) seeds would tell\)", out)
    assert f"\n--config.seeds={seeds} would decide it" in out


def test_a_trace_of_fewer_functions_than_models_is_dealt_out(main, tmp_path, capsys):
    trace = tmp_path / "trace.csv"
    stamps = (f"2023-11-16 18:{i // 60:02}:{i % 60:02}.5000000,300,40\n" for i in range(600))
    trace.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n" + "".join(stamps))
    given = ("--config.requests=none", f"--config.trace={trace}", "--config.block_s=20")
    types = "--config.model_types=bert-1.3b,bert-1.3b"
    assert main(*given, types, *SMALL) == 0, capsys.readouterr().err
    (answer,) = rows(tmp_path / "out" / "answers.csv")
    assert answer["question"] == "devices" and float(answer["attainment"]) >= 0.9
    fitted = ("--config.fit=true", "--config.questions=cv", "--config.fit_window_s=300")
    assert main(*given, types, *SMALL, *fitted) == 1
    assert "1 functions have requests in the slice, too few for 2" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config.requests=none"], "which traffic? give one of requests"),
        (["--config.rate_rps=2"], "got requests and rate_rps"),
        (["--config.questions="], "questions is empty"),
        (["--config.questions=gpus"], "questions are devices, rate, slo, cv"),
        (["--config.target=1"], "100 % can never be confirmed"),
        (["--config.requests={empty}"], "the log is empty"),
        (["--config.block_s=200"], "less than two blocks of 200 s"),
        (["--config.slo_scale=0.1"], "no cluster of any size serves 99 %: the SLO of bert-2.6b-0"),
        (["--config.memory_gib=0.1"], "model bert-2.6b-0 (bert-2.6b) fits no pool"),
        (["--config.pools={free}"], "pool new has no price_per_hour"),
        (["--config.pools={none}"], "pool 2 (new) has 0 devices"),
        (["--config.questions=cv"], "a log has no CV to scale"),
        (["--config.policy=mp-serch"], "nearest: mp-search"),
        (["--config.model_types=bert-1.3b,bert-2.6b"], "the log names 8 models"),
    ],
)
def test_what_has_no_answer_is_said_in_a_line(arguments, message, main, tmp_path, capsys):
    header = "name,num_devices,profile,price_per_hour\nv100,4,v100,2\n"
    (tmp_path / "free").write_text(header + "new,4,v100,\n")
    (tmp_path / "none").write_text(header + "new,0,v100,1\n")
    (tmp_path / "empty").write_text("arrival_s,model\n")
    files = {name: tmp_path / name for name in ("free", "none", "empty")}
    types = ["--config.model_types=bert-2.6b"] if "{empty}" in arguments[0] else []
    assert main(*(a.format(**files) for a in arguments), *types) in (1, 2)
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not [*(tmp_path / "out").glob("*")]


def test_nothing_is_enough(main, tmp_path, capsys):
    arguments = ("--config.num_devices=1", "--config.seeds=4")
    assert main(*arguments) == 0, capsys.readouterr().err
    assert "nothing that is allowed gives 99 %" in capsys.readouterr().out
    assert not (tmp_path / "out" / "placement.json").exists()
    assert (tmp_path / "out" / "plan_devices.png").exists()
