"""A workload served part by part: the same bits as in one piece, in every kernel."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beta_jax import Group, Placement, Rules, SimulationError, Workload, simulate, simulate_part

from instances import CONFIGS, Instance, mixed_problem, placements, problems, workloads

relaxed = settings(max_examples=30)
DISPATCHES = ("earliest_free", "round_robin", "power_of_two", "shortest_queue")


@pytest.mark.usefixtures("kernel")
@given(st.data())
@relaxed
def test_parts_are_as_the_whole(data: st.DataObject):
    problem = data.draw(problems(DISPATCHES))
    workload = data.draw(workloads(len(problem.models)))
    placement = data.draw(placements(len(problem.models)))
    cuts = sorted(data.draw(st.sets(st.integers(0, len(workload)), max_size=2)))
    bounds = [0, *cuts, len(workload)]
    state, parts = None, []
    for begin, end in itertools.pairwise(bounds):
        outcome, state = simulate_part(problem, placement, workload.part(begin, end), state)
        parts.append(outcome)
    assert state.num_requests == len(workload)
    expected = Instance(problem, placement, workload).oracle()
    for name in ("finish", "good", "group"):
        joined = np.concatenate([getattr(part, name) for part in parts])
        np.testing.assert_array_equal(joined, getattr(expected, name))


def test_a_long_trace_in_parts():
    """Of a day of bursts, at its own times: no group is forgotten, and none falls idle anew."""
    problem = mixed_problem()
    rng = np.random.default_rng(0)
    arrival_s = 86400 + np.cumsum(rng.gamma(0.25, 4 * 0.03, 3000))
    workload = Workload.from_seconds(arrival_s, rng.integers(0, 6, 3000), rng.exponential(1, 3000))
    placement = Placement((Group(CONFIGS[1], (0, 1, 2)), Group(CONFIGS[0], (2, 3, 5))) * 2)
    [whole] = simulate(problem, placement, workload, outputs="requests")
    state = None
    for begin in range(0, 3000, 700):
        part = workload.part(begin, min(begin + 700, 3000))
        outcome, state = simulate_part(problem, placement, part, state)
        own = slice(begin, begin + 700)
        np.testing.assert_array_equal(outcome.finish, whole.finish[own])
        np.testing.assert_array_equal(outcome.group, whole.group[own])
    assert 0.2 < whole.good.mean() < 0.9


def test_what_cannot_go_on_is_an_error():
    problem, empty = mixed_problem(), Workload(np.zeros(0), np.zeros(0))
    placement = Placement((Group(CONFIGS[0], (0,)),))
    _, state = simulate_part(problem, placement, Workload(np.zeros(1), np.zeros(1)))
    assert simulate_part(problem, placement, empty, state)[1] is state
    with pytest.raises(SimulationError, match="the state is of other groups"):
        simulate_part(problem, Placement((Group(CONFIGS[1], (0,)),)), empty, state)
    with pytest.raises(SimulationError, match="clocks begin at 0"):
        simulate_part(problem, placement, Workload(np.array([-1]), np.zeros(1)))
    batching = dataclasses.replace(problem, rules=Rules(batching="strict", max_batch=2))
    with pytest.raises(SimulationError, match="are simulated as a whole"):
        simulate_part(batching, placement, empty)
