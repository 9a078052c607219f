"""A published run: every token of every request, to the nanosecond."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from beta_jax.llm import load_run, simulate

import reference_llm


@pytest.fixture(scope="module")
def folder(shared: Path) -> Path:
    return shared / "data" / "llm" / "rtx4090-llama8b"


@pytest.fixture(scope="module")
def published(folder: Path) -> tuple[dict[str, list[int]], list[list[int]]]:
    """Columns of requests, and the times of each one's tokens."""
    with (folder / "expected.csv").open() as file:
        rows = [*csv.DictReader(file)]
    steps = np.loadtxt(folder / "expected_steps.csv", np.int64, delimiter=",", skiprows=1)[:, 1]
    names = "queue_delay", "ttft", "tpot", "latency"
    columns = {name: [int(row[f"{name}_ns"]) for row in rows] for name in names}
    tokens = list[list[int]]()
    for row in rows:
        tokens.append([])
        for part in row["token_steps"].split(";"):
            first, _, last = part.partition("-")
            tokens[-1] += steps[int(first) : int(last or first) + 1].tolist()
    assert (len(rows), sum(map(len, tokens))) == (300, 195_753)
    return columns, tokens


def test_every_token_is_as_published(folder, published):
    outcome = simulate(*load_run(folder))
    columns, tokens = published
    for name, wanted in columns.items():
        assert (getattr(outcome, f"{name}_ps") // 1000).tolist() == wanted
    for request, times in enumerate(tokens):
        assert outcome.token_times_ps(request).tolist() == [1000 * time for time in times]
    assert (outcome.preemptions, outcome.recomputed_tokens) == (194, 110_596)
    assert (outcome.steps, outcome.calls) == (6137, 926)  # as many as the rules' authors report


@pytest.mark.slow
def test_so_are_those_of_the_oracle(folder, published):
    tables = reference_llm.Tables(folder)
    run = tables.run
    engine = reference_llm.Engine(*(run[name] for name in reference_llm.Engine._fields))
    found = reference_llm.simulate(
        reference_llm.read_requests(folder / "requests.csv"), engine, tables
    )
    columns, tokens = published
    for name, wanted in columns.items():
        assert getattr(found, name) == wanted
    assert found.token_times == tokens
