"""The config `llm`: what it simulates, stores, answers, refuses and draws."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import run
from beta_jax.llm import LinearStepTime, TokenRequests, load_engine, save_token_requests

Main = Callable[..., int]
SMALL = ("--config.duration_s=60", "--config.seeds=2", "--config.warmup_s=0")
SMALL += ("--config.rates=0.5,1", "--config.rounds=0")


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    path = tmp_path / "small.json"
    step_time = {"base_ps": 10**10, "prefill_token_ps": 10**8}
    step_time |= {"cached_token_ps": 10**6, "decode_ps": 10**8}
    numbers = {"max_num_seqs": 8, "max_num_batched_tokens": 512, "num_blocks": 2000}
    numbers |= {"block_size": 16, "prefix_caching": False}
    path.write_text(json.dumps(numbers | {"step_time": step_time}))
    return path


@pytest.fixture
def main(tmp_path: Path, engine: Path) -> Main:
    def call(*arguments: str) -> int:
        argv = ["run.py", "--config=llm", f"--out_dir={tmp_path / 'out'}"]
        return run.main([*argv, f"--config.engine={engine}", *arguments], time.perf_counter())

    return call


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_the_shipped_engine_is_the_published_one():
    engine = load_engine("data/engines/rtx4090-llama-3.1-8b.json")
    assert engine.step_time == LinearStepTime(16_320_000_000, 83_427_000, 188_700, 44_107_000)
    assert (engine.num_blocks, engine.max_num_seqs) == (2588, 256)


def test_a_sweep_its_answers_and_going_on_with_it(main, tmp_path, capsys):
    out = tmp_path / "out"
    asked = (*SMALL, "--config.num_blocks=900,2000", "--config.ttft_limit_s=0.3")
    asked += ("--config.service_rps=2", "--config.target=0.8")
    assert main(*asked) == 0, capsys.readouterr().err
    printed = capsys.readouterr().out
    table = rows(out / "table.csv")
    assert {row["engine"] for row in table} == {"900 blocks", "2000 blocks"}
    sweep = [row for row in table if row["num_engines"] == "1" and row["rate_rps"] != "2.0"]
    assert len(sweep) == 2 * 2 * 2
    curves = rows(out / "curves.csv")
    one = [row for row in sweep if row["engine"] == "2000 blocks" and row["rate_rps"] == "1.0"]
    [mean] = [
        row
        for row in curves
        if row["engine"] == "2000 blocks" and row["rate_rps"] == "1.0" and row["num_engines"] == "1"
    ]
    assert float(mean["attainment"]) == np.mean([float(row["attainment"]) for row in one])
    answers = rows(out / "answers.csv")
    assert [row["question"] for row in answers] == ["rate", "engines"] * 2
    for row in answers:
        assert row["in_words"] in printed
        if row["question"] == "engines":
            assert int(row["answer"]) >= 1 and "2 requests/s with 80 % needs" in row["in_words"]
    for name in ("llm.png", "llm_engines.svg", "report.html", "curves.csv"):
        assert (out / name).stat().st_size > 1000
    # The same again is read, not simulated; what is lacking is made anew, and equal.
    before, store = (out / "table.csv").read_bytes(), out / "results.jsonl"
    stored = store.read_text().splitlines(keepends=True)
    assert main(*asked) == 0 and store.read_text() == "".join(stored)
    store.write_text("".join(stored[::2]))
    assert main(*asked) == 0 and len(store.read_text().splitlines()) == len(stored)
    assert (out / "table.csv").read_bytes() == before
    assert main(*asked, "--plot_only") == 0


def test_traces_logs_and_estimated_blocks(main, tmp_path, capsys):
    trace = tmp_path / "trace.csv"
    stamps = (f"2023-11-16 18:00:{i / 2:06.3f},{100 + i},{5 + i}" for i in range(110))
    trace.write_text("\n".join(["TIMESTAMP,ContextTokens,GeneratedTokens", *stamps]))
    given = (*SMALL, f"--config.trace={trace}")
    assert main(*given) == 0, capsys.readouterr().err
    assert len(rows(tmp_path / "out" / "table.csv")) == 4
    assert main(*given, "--config.replay=true") == 0, capsys.readouterr().err
    assert "one sample at every rate, and no intervals" in capsys.readouterr().out
    assert [row["num_requests"] for row in rows(tmp_path / "out" / "table.csv")] == ["110.0"] * 2
    log = tmp_path / "log.csv"
    save_token_requests(TokenRequests(np.arange(9) * 10**9, np.full(9, 99), np.full(9, 9)), log)
    blocks = ("--config.model=llama-3.1-8b", "--config.device_gib=23.5")
    read = (*SMALL, f"--config.requests={log}", *blocks)
    assert main(*read) == 0, capsys.readouterr().err
    assert "estimated: 2658 blocks" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config.requests=log.csv", "--config.trace=t.csv"], "give one of trace and requests"),
        (["--config.rates=0"], "rates are requests/s > 0, got 0"),
        (["--config.rates="], "rates is empty"),
        (["--config.engine={missing}"], "No such file"),
        (["--config.engine={unknown}"], "num_devices"),
        (["--config.num_blocks=0"], "num_blocks is 0, wanted a whole number from 1"),
        (["--config.num_blocks=9"], "tokens can never fit in 9 blocks of 16"),
        (["--config.max_num_seqs=-1"], "max_num_seqs is -1"),
        (["--config.target=1"], "target must be between 0 and 1"),
        (["--config.ttft_limit_s=0"], "ttft_limit_s must be > 0 seconds, got 0"),
        (["--config.cv=0"], "CV of gamma arrivals must be in"),
        (["--config.duration_s=-5"], "duration_s must be > 0"),
        (["--config.seeds=0"], "seeds must be 1 to 10000, got 0"),
        (["--config.rates=1e9"], "traffic of some 6e+10 requests, at most"),
        (["--config.process=mmpp"], "CV of mmpp arrivals must be > 1"),
        (["--config.service_rps=0"], "service_rps must be > 0"),
        (["--config.lengths=azure"], "no law and no trace 'azure'; known: azure_conversation"),
        (["--config.model=llama-3.1-8b"], "give both, or none"),
        (["--config.model=lama-3.1-8b", "--config.device_gib=24"], "nearest: llama-3.1-8b"),
        (["--config.model=llama-3.1-8b", "--config.device_gib=12"], "no block of keys and values"),
        (["--config.requests={unsorted}"], "row 1: arrival_ns is 1"),
        (["--config.requests={zero}"], "row 0: output_tokens is 0"),
        (["--config.requests={nan}"], "row 1: arrival_ns is nan"),
        (["--config.requests={forward}"], "an earlier row, or -1"),
    ],
)
def test_what_makes_no_sense_is_said_in_a_line(arguments, message, main, engine, tmp_path, capsys):
    header, prefixes = "arrival_ns,input_tokens,output_tokens", "hashed_blocks,prefix_parent"
    contents = {
        "unknown": engine.read_text().replace("{", '{"num_devices": 2, ', 1),
        "unsorted": f"{header}\n5,10,10\n1,10,10\n",
        "zero": f"{header}\n5,10,0\n9,10,10\n",
        "nan": f"{header}\n5,10,10\nnan,10,10\n",
        "forward": f"{header},{prefixes},prefix_blocks\n5,16,16,2,1,1\n6,16,16,2,-1,0\n",
    }
    named = {name: tmp_path / f"{name}.csv" for name in (*contents, "missing")}
    for name, text in contents.items():
        named[name].write_text(text)
    assert main(*SMALL, *(a.format(**named) for a in arguments)) in (1, 2)
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "out" / "table.csv").exists()
