"""A small sample of `python -m tests.fuzz`, the same every time."""

from __future__ import annotations

import ast
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st

from fuzz import calls, commands, files
from fuzz.hunt import Target, hunt


@pytest.mark.parametrize("name", files.TARGETS)
def test_damaged_files_are_read_or_refused_by_name(name: str):
    found = hunt(files.TARGETS[name], start=0, num_inputs=30)
    assert found.num_inputs == 30
    assert not found.defects, "\n".join(text for _, text in found.defects.values())


def test_odd_command_lines_succeed_or_name_what_is_odd():
    found = hunt(commands.COMMANDS["command_line"], start=0, num_inputs=8)
    assert not found.defects, "\n".join(text for _, text in found.defects.values())


def test_the_fuzzer_finds_the_smallest_input():
    def feed(value: list[int]) -> None:
        if sum(value) > 100:
            raise KeyError(value)

    found = hunt(Target(st.lists(st.integers(0, 99)), feed), start=0, num_inputs=1000)
    ((shown, trace),) = found.defects.values()
    assert sum(ast.literal_eval(shown)) == 101 and "KeyError" in trace


@pytest.mark.parametrize("name", calls.CALLS)
def test_calls_that_are_fed_are_good(name: str):
    call = calls.CALLS[name]
    assert {*call.numbers, *call.texts, *call.arrays} <= {*call.good}
    call.call(**call.good)


@pytest.mark.parametrize("name", calls.TARGETS)
def test_odd_arguments_are_taken_or_refused_by_name(name: str):
    found = hunt(calls.TARGETS[name], start=0, num_inputs=300)
    assert not found.defects, "\n".join(text for _, text in found.defects.values())


ONCE_FOUND = [
    ("Schedule", {"start_s": [2**62, 2**63]}),
    ("plan", {"mttr_h": 1e308}),
    ("plan", {"warmup_s": 1e308}),
    ("plan", {"seeds": 2**31}),
    ("plan", {"steps": [0]}),
    ("simulate", {"warmup_s": -1}),
    ("utilisation", {"num_bins": 2**53 + 1}),
    ("latency_summary", {"of": [1, [2]]}),
    ("write_timeline", {"start_s": math.nan}),
    ("Log", {"block_s": 1e-320}),
    ("Log", {"rate": 1e308}),
    ("Failure", {"end_s": 2**64}),
    ("Workload", {"model": 1e308}),
    ("Workload", {"arrival": [0.5, 1.5]}),
    ("from_seconds", {"arrival_s": [1e300]}),
    ("synthesize", {"duration_s": 2**31}),
    ("synthesize", {"process": 0}),
    ("synthesize_many", {"start_s": math.nan, "seeds": []}),
    ("Model", {"name": "a\nb\nc\nd\ne", "type": 0}),
    ("replay", {"window_s": 1e-320}),
    ("replay", {"rate_scale": 1e-320}),
    ("replay_vanilla", {"replicas": 2**53}),
    ("Group", {"pp": np.array(2)}),
    ("Architecture", {"sequence": None}),
    ("MeasureSettings", {"dtype": np.ones(2)}),
    ("power_of_two", {"seed": [1]}),
    ("erlang_b", {"num_servers": 1e308}),
    ("mdc_wait_s", {"num_servers": 2**31}),
    ("mm1_wait_s", {"rate_rps": np.ones(2), "service_s": []}),
    ("deadline_attainment", {"slo_s": None}),
]


@pytest.mark.parametrize(("name", "odd"), ONCE_FOUND, ids=str)
@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_what_the_fuzzer_once_found(name: str, odd: dict[str, Any]):
    calls.feed(calls.Odd(name, odd))
