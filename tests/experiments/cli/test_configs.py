"""Every config says how to run it; the ones without a test file of their own run."""

from __future__ import annotations

import ast
import csv
import time
from pathlib import Path

import pytest

import run

ROOT = Path(__file__).resolve().parents[3]
CONFIGS = sorted(path for path in (ROOT / "configs").glob("*.py") if path.stem != "__init__")


def execute(out_dir: Path, *arguments: str) -> int:
    return run.main(["run.py", "--out_dir", str(out_dir), *arguments], time.perf_counter())


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_docstring_states_the_command_and_the_time(path: Path):
    text = ast.get_docstring(ast.parse(path.read_text())) or ""
    assert f"python run.py --config {path.stem}" in text
    assert "Takes " in text


def test_ablation(tmp_path: Path):
    assert execute(tmp_path, "--config", "sec6_5:smoke") == 0
    assert (tmp_path / "ablation.pdf").stat().st_size and (tmp_path / "ablation.png").stat().st_size
    with open(tmp_path / "table.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6
    assert all(0 <= float(row["slo_attainment"]) <= 1 for row in rows)
    attainment = {row["policy"]: float(row["slo_attainment"]) for row in rows if row["x"] == "8.0"}
    assert attainment["mp-search-sep"] >= attainment["mp-round-robin"]


def test_loading(tmp_path: Path):
    """What stays has nothing to load; what changes is served better the faster that loads."""
    chosen = ("--config", "loading:smoke", "--config.loads_gib_s=0.5,8,inf")
    assert execute(tmp_path, *chosen) == 0
    assert (tmp_path / "loading.png").stat().st_size > 10_000
    with open(tmp_path / "table.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    found: dict[str, list[float]] = {}
    for row in rows:
        found.setdefault(row["policy"], []).append(float(row["slo_attainment"]))
    assert len({*found.pop("mp-search")}) == 1
    for of_replaced in found.values():
        assert of_replaced == sorted(of_replaced) and of_replaced[0] < of_replaced[-1]


def test_batching(tmp_path: Path):
    """Placed without batches whatever serves them, and with them no worse."""
    assert execute(tmp_path, "--config", "batching:smoke") == 0
    assert (tmp_path / "batching.pdf").stat().st_size and (tmp_path / "batching.png").stat().st_size
    with open(tmp_path / "table.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * (2 + 2 + 1)
    assert {row["rules.batching"] for row in rows} == {"published"}
    found = {(int(r["rules.max_batch"]), r["policy"], r["x"]): r for r in rows}
    for (size, policy, x), row in found.items():
        alone = found[1, policy, x]
        assert (row["placement"], row["train_score"]) == (alone["placement"], alone["train_score"])
        assert row["train_batched"] == "False"
        assert float(row["slo_attainment"]) >= float(alone["slo_attainment"])
        assert size == 1 or x == "3.0" or row["slo_attainment"] != alone["slo_attainment"]
    chosen = ("--config", "batching:smoke", "--config.slo_scales=10", "--config.max_batches=4")
    assert execute(tmp_path, *chosen, "--config.train_batched=true") == 0
    with open(tmp_path / "table.csv", newline="") as file:
        [row] = csv.DictReader(file)
    assert "train_batched" not in row
    assert float(row["train_score"]) > float(found[4, "mp-search", "10.0"]["train_score"])


def test_fresh_training_traffic_is_longer(tmp_path: Path):
    from configs import sec6_5

    fresh = sec6_5.EXPERIMENT.points(sec6_5.CONFIG)
    assert len(fresh) == 48
    assert {p.scenario.train_duration_s for p in fresh if p.scenario.rate_rps == 128} == {234.375}
    assert {p.scenario.train_duration_s for p in fresh if p.scenario.rate_rps == 8} == {3750.0}


def test_trace_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    chosen = ("--config", "trace_report", "--config.trace=maf2_like", "--config.end=0.6.0")
    assert execute(tmp_path, *chosen) == 0
    assert "share of the top function" in capsys.readouterr().out
    first = (tmp_path / "trace_report.png").read_bytes()
    assert execute(tmp_path, *chosen, "--plot_only") == 0
    assert (tmp_path / "trace_report.png").read_bytes() == first
    assert execute(tmp_path, "--config", "trace_report", "--config.trace=no_such_file") == 1
    assert "no_such_file" in capsys.readouterr().err
