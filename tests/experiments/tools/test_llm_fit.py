"""The config `llm_fit`: coefficients of tables and of measured steps."""

from __future__ import annotations

import csv
import dataclasses
import time

import pytest

import run
from beta_jax.llm import Engine, LinearStepTime, fit_linear, load_engine, random_steps, save_engine

from llm_runs import write_tables

LINEAR = Engine(8, 16, 40, LinearStepTime(1000, 10, 20, 30), 4)


def execute(out_dir, *arguments: str) -> int:
    command = ["run.py", "--out_dir", str(out_dir), "--config", "llm_fit", *arguments]
    return run.main(command, time.perf_counter())


def test_tables_become_an_engine_of_coefficients(tmp_path):
    folder, out = tmp_path / "tables", tmp_path / "out"
    folder.mkdir()
    write_tables(folder, 5, dataclasses.replace(LINEAR, prefix_caching=True), skew=False, ranks=1)
    chosen = f"--config.source={folder}", "--config.number=500", "--config.seed=7"
    assert execute(out, *chosen) == 0
    engine, given = load_engine(out / "tables-linear.json"), load_engine(folder)
    shape = random_steps(given, 500, 7)
    assert engine.step_time == fit_linear(shape, given.step_time.step_ps(shape)).step_time
    assert (engine.num_blocks, engine.block_size, engine.prefix_caching) == (40, 4, False)
    assert "tables-linear.json" in (out / "report.html").read_text()
    with open(out / "errors.csv", newline="") as file:
        rows = [*csv.DictReader(file)]
    assert rows[-1]["steps"] == "all"
    assert sum(int(row["number"]) for row in rows[:-1]) == int(rows[-1]["number"]) == 500
    assert (out / "llm_fit.png").exists()
    # Measured steps have no engine, and that of before is gone.
    path = tmp_path / "steps.csv"
    steps = ["0,1000,4,4.24", "100,0,0,2", "0,30,3,1.69", "7,16,1,1.42"]
    path.write_text("\n".join(["prefill_tokens,cached_tokens,decodes,time_us", *steps]))
    assert execute(out, f"--config.source={path}") == 0
    assert not list(out.glob("*-linear.json"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere", "there is no such file or folder"),
        ("engine.json", "its step time is linear already"),
        ("short.csv", "the column 'decodes' is missing"),
    ],
)
def test_bad_sources_are_one_line(tmp_path, capsys, name, message):
    save_engine(LINEAR, tmp_path / "engine.json")
    (tmp_path / "short.csv").write_text("prefill_tokens,cached_tokens,time_us\n1,1,1\n")
    assert execute(tmp_path / "out", f"--config.source={tmp_path / name}") != 0
    printed = capsys.readouterr().err
    assert message in printed
    assert "Traceback" not in printed
