"""The self-check passes here, and fails where the simulator does something else."""

from __future__ import annotations

import csv
import dataclasses
import time
from pathlib import Path

import numpy as np
import pytest

import run
from beta_jax import Dispatch, Outcome, Rules
from beta_jax.theory import systems
from experiments.tools import exact_equalities, selfcheck

SMALL = ("--config", "selfcheck:smoke")


def execute(out_dir: Path, *arguments: str) -> int:
    return run.main(["run.py", "--out_dir", str(out_dir), *arguments], time.perf_counter())


def verdicts(out_dir: Path) -> dict[str, str]:
    with open(out_dir / "selfcheck.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    return {f"{row['case']}: {row['quantity']}": row["verdict"] for row in rows}


def test_a_sound_installation_passes(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert execute(tmp_path, *SMALL) == 0
    text = capsys.readouterr().out
    assert text.startswith("JAX ") and "all 66 checks passed" in text
    assert "standard_error" in text
    found = verdicts(tmp_path)
    assert len(found) == 66 and {*found.values()} == {"pass"}
    assert (tmp_path / "selfcheck.png").stat().st_size > 10_000


def test_a_simulator_with_an_overhead_too_many_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    real = systems.simulate

    def slow(problems, *arguments, **options):
        rules = Rules(stage_overhead=0.009, request_overhead_s=0)
        slower = [dataclasses.replace(problem, rules=rules) for problem in problems]
        return real(slower, *arguments, **options)

    monkeypatch.setattr(systems, "simulate", slow)
    assert execute(tmp_path, *SMALL) == 1
    output = capsys.readouterr()
    assert "FAIL" in output.out
    assert "of 66 checks failed: M/D/1" in output.err and output.err.count("\n") == 1
    failed = [name for name, verdict in verdicts(tmp_path).items() if verdict == "FAIL"]
    assert len(failed) >= 5
    assert (tmp_path / "selfcheck.png").exists()


def test_a_request_that_finishes_a_tick_late_is_found(monkeypatch: pytest.MonkeyPatch):
    """Wrong in one of the programs only, as a miscompiled one is."""
    real = exact_equalities._in_lockstep

    def late(*arguments):
        result = real(*arguments)
        first = result[0]
        moved = first.finish + (np.arange(len(first.finish)) == 7)
        result[0] = Outcome(first.workload, moved, first.good, first.group, first.counted)
        return result

    averages = systems.averages()
    assert all(map(selfcheck.passes, exact_equalities.compare(averages, 3)))
    monkeypatch.setattr(exact_equalities, "_in_lockstep", late)
    failed = [one for one in exact_equalities.compare(averages, 3) if not selfcheck.passes(one)]
    assert [one.case for one in failed] == [
        "27 lanes: in lockstep, or alone",
        *(f"20 lanes, {dispatch}: in lockstep, or alone" for dispatch in Dispatch),
        "20 lanes, random work: in lockstep, or alone",
    ]
    assert [one.simulated for one in failed] == [1] * len(failed)


def test_no_replications_no_check(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    for option, expected in [
        ("replications=1", "replications"),
        ("duration_s=10", "duration_s must be in"),
        ("seed=-1", "seed must be >= 0"),
    ]:
        assert execute(tmp_path, *SMALL, f"--config.{option}") in (1, 2)
        assert expected in capsys.readouterr().err
    assert not [*tmp_path.iterdir()]
