"""The config `llm_check`: a simulated engine against one that is known."""

from __future__ import annotations

import csv
import time

import numpy as np
import pandas as pd
import pytest

import run
from beta_jax.llm import (
    Engine,
    LinearStepTime,
    Prefixes,
    TokenRequests,
    load_run,
    save_engine,
    save_token_requests,
    simulate,
)

from llm_runs import write_tables


def execute(out_dir, *arguments: str) -> int:
    command = ["run.py", "--out_dir", str(out_dir), "--config", "llm_check", *arguments]
    return run.main(command, time.perf_counter())


@pytest.fixture
def folder(tmp_path):
    """A run by tables; the real engine took twice as long for everything."""
    folder = tmp_path / "measured"
    folder.mkdir()
    rng = np.random.default_rng(0)
    arrival = np.sort(rng.integers(0, 2000, 40))
    prompt, answer = rng.integers(1, 30, 40), rng.integers(1, 30, 40)
    hashed = (prompt + answer) // 4
    parent = np.arange(40) - 1
    shared = np.minimum(hashed, np.append(0, hashed[:-1])) // 2
    requests = TokenRequests(arrival, prompt, answer, Prefixes(hashed, parent, shared))
    engine = Engine(8, 16, 40, LinearStepTime(1, 0, 0, 0), 4, True)
    write_tables(folder, 3, engine, skew=True, ranks=1)
    save_token_requests(requests, folder / "requests.csv")
    outcome = simulate(*load_run(folder))
    queued = arrival / 1e9
    frame = pd.DataFrame({"id": np.arange(40), "output_tokens": answer, "queued_s": queued})
    frame["scheduled_s"] = queued + 2 * outcome.queue_delay_s
    frame["first_token_s"] = queued + 2 * outcome.ttft_s
    frame["last_token_s"] = queued + 2 * outcome.latency_s
    frame.to_csv(folder / "measured.csv", index=False)
    return folder


def table(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_errors_of_means_and_quantiles(folder, tmp_path, capsys):
    out = tmp_path / "checked"
    assert execute(out, f"--config.run={folder}") == 0
    printed = capsys.readouterr()
    assert "Not simulated:" in printed.out
    assert "40 of 40 requests had their first token within 2 s" in printed.out
    assert "warning" not in printed.err
    everything = table(out / "table.csv")
    rows, below = everything[:9], everything[9:]
    assert {row["requests"] for row in rows} == {"all"}
    assert {row["requests"] for row in below} == {"TTFT < 2 s"}  # none is above
    assert [row["mean_error_percent"] for row in below] == [r["mean_error_percent"] for r in rows]
    models = "tables", "linear model", "without prefix reuse"
    assert [(row["model"], row["quantity"]) for row in rows] == [
        (model, name) for model in models for name in ("TTFT", "TPOT", "End to end")
    ]
    for row in rows[:3]:
        for name in ("mean", "p50", "p90", "p99"):
            assert float(row[f"{name}_error_percent"]) == pytest.approx(-50, abs=0.1)
        assert float(row["median_request_error_percent"]) == pytest.approx(50, abs=0.1)
    assert {row["mean_error_percent"] for row in rows[3:6]}.isdisjoint(
        row["mean_error_percent"] for row in rows[:3]
    )
    assert len(table(out / "compared.csv")) == 3 * 40
    assert (out / "report.html").exists() and (out / "llm_check.png").exists()


def test_an_engine_of_coefficients_and_requests_that_differ(folder, tmp_path, capsys):
    linear = Engine(8, 16, 40, LinearStepTime(1000, 10, 10, 10), 4)
    save_engine(linear, tmp_path / "engine.json")
    frame = pd.read_csv(folder / "measured.csv").iloc[:-1].copy()
    frame.loc[3, "output_tokens"] += 1
    frame.loc[5:, ["queued_s", "scheduled_s", "first_token_s", "last_token_s"]] += 1
    frame.to_csv(tmp_path / "other.csv", index=False)
    arguments = [f"--config.run={folder}", f"--config.engine={tmp_path / 'engine.json'}"]
    assert execute(tmp_path / "out", *arguments, f"--config.measured={tmp_path / 'other.csv'}") == 0
    printed = capsys.readouterr()
    assert "1 requests were answered with another number of tokens" in printed.err
    assert "1 of 40 requests were not measured" in printed.err
    assert "up to 1 s from when they should" in printed.err
    assert {row["model"] for row in table(tmp_path / "out" / "table.csv")} == {"linear model"}


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("id", 7, "measured.csv: row 8: id is 7, wanted each only once"),
        ("id", 99, "id is 99, but there are 40 requests"),
        ("output_tokens", 0, "row 8: output_tokens is 0, wanted a whole number, 1 or more"),
        ("first_token_s", float("nan"), "row 8: first_token_s is nan, wanted seconds"),
        ("last_token_s", -1, "row 8: last_token_s is -1.0, wanted no less than first_token_s"),
    ],
)
def test_bad_measurements_are_one_line(folder, tmp_path, capsys, column, value, message):
    frame = pd.read_csv(folder / "measured.csv")
    frame.loc[8, column] = value
    frame.to_csv(folder / "measured.csv", index=False)
    assert execute(tmp_path / "out", f"--config.run={folder}") != 0
    printed = capsys.readouterr().err
    assert message in printed
    assert "Traceback" not in printed


def test_errors_are_told_apart_by_measured_ttft(folder, tmp_path, capsys):
    frame = pd.read_csv(folder / "measured.csv")
    ttft = np.sort(frame["first_token_s"] - frame["queued_s"])
    limit = (ttft[9] + ttft[10]) / 2
    assert (
        execute(tmp_path / "out", f"--config.run={folder}", f"--config.ttft_limit_s={limit}") == 0
    )
    rows = [row for row in table(tmp_path / "out" / "table.csv") if row["model"] == "tables"]
    assert [row["number"] for row in rows] == ["40"] * 3 + ["10"] * 3 + ["30"] * 3
    all_, below, above = (float(row["measured_mean_s"]) for row in rows[::3])
    assert below < limit < above and 40 * all_ == pytest.approx(10 * below + 30 * above)
    printed = capsys.readouterr().out
    assert "In this run 10 of 40 requests" in printed and "it is an overload" in printed
    assert "With 10 requests errors below" in printed


def test_a_wrong_folder_is_said_with_what_one_holds(folder, tmp_path, capsys):
    assert execute(tmp_path / "out") != 0
    error = capsys.readouterr().err
    assert "--config.run=measured_run: no such folder; give one that holds requests.csv" in error
    (folder / "measured.csv").unlink()
    assert execute(tmp_path / "out", f"--config.run={folder}") != 0
    error = capsys.readouterr().err
    assert f"--config.run={folder}: lacks measured.csv; such a folder holds" in error
