"""A small sample of `python -m tests.fuzz`, the same every time."""

from __future__ import annotations

import ast

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
