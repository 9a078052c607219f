"""Requests with work of their own: every kernel against the oracles, and what relies on none."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beta_jax import (
    Cluster,
    Group,
    Model,
    ParallelConfig,
    Placement,
    Problem,
    Rules,
    SimulationError,
    Workload,
    attainment_bound,
    place,
    simulate,
)
from beta_jax.search.bounds.partition import PartitionBound
from beta_jax.search.local.moves import make_space
from beta_jax.simulator.engine import ArraySimulator, Lane
from beta_jax.types import MOST_WORK, ONE_WORK

import batching_instances
import golden
from instances import Instance, instances, make_profile, mixed_problem, worked

relaxed = settings(max_examples=40)
ONE, TWO = ParallelConfig(1, 1), ParallelConfig(1, 2)
BATCHED = 3
"""Of the 15 published cases."""


def assert_as_in_the_oracle(instance: Instance) -> None:
    (outcome,) = simulate(*instance, outputs="requests")
    expected = instance.oracle()
    np.testing.assert_array_equal(outcome.good, expected.good)
    np.testing.assert_array_equal(outcome.finish, expected.finish)
    np.testing.assert_array_equal(outcome.group, expected.group)


@pytest.mark.usefixtures("kernel")
@given(worked(instances(("earliest_free", "earliest_finish", "shortest_queue"))))
@relaxed
def test_every_request_as_in_the_oracle(instance: Instance):
    assert_as_in_the_oracle(instance)


@given(worked(batching_instances.instances()))
@relaxed
def test_of_a_batch_the_largest_work_counts(instance: Instance):
    assert_as_in_the_oracle(instance)


def test_the_second_of_a_pipeline_finishes_at_21_not_at_12():
    """Stages (1, 1), works 10 then 1: one clock per group would not know. And 0.4 of 3 ns is 1."""
    problem = Problem(
        (Model("m", "t", np.inf),),
        Cluster(2),
        make_profile({"t": {TWO: [1.0, 1.0]}}),
        Rules(stage_overhead=0, request_overhead_s=0),
    )
    placement = Placement((Group(TWO, (0,)),))
    workload = Workload.from_seconds([0, 0], [0, 0], [10, 1])
    (outcome,) = simulate(problem, placement, workload, outputs="requests")
    assert (outcome.finish / 1e9).tolist() == [20, 21]
    profile = make_profile({"t": {TWO: [3e-9, 3e-9]}})
    workload = Workload.from_seconds([0, 1], [0, 0], [0.4, 0.5])
    problem = dataclasses.replace(problem, profile=profile)
    (outcome,) = simulate(problem, placement, workload, outputs="requests")
    assert (outcome.finish - workload.arrival).tolist() == [2, 4]  # half a tick is rounded up


def assert_ones_change_nothing(shared: Path, batches: bool) -> None:
    cases = [golden.load_case(path) for path in sorted((shared / "golden/cases").glob("*.json"))]
    cases = [case for case in cases if case.problem.rules.batches == batches]
    assert len(cases) == (BATCHED if batches else 15 - BATCHED)
    plain = [case.workload for case in cases]
    ones = [dataclasses.replace(w, work=np.full(len(w), ONE_WORK)) for w in plain]
    given = [case.problem for case in cases], [case.placement for case in cases]
    outcomes = simulate(*given, ones, outputs="requests")
    for case, outcome in zip(cases, outcomes, strict=True):
        np.testing.assert_array_equal(outcome.good, case.good, err_msg=case.name)
        assert np.abs(outcome.finish / 1e9 - case.finish_s).max() < 1e-6, case.name
    for one, other in zip(simulate(*given, plain, outputs="requests"), outcomes, strict=True):
        np.testing.assert_array_equal(one.finish, other.finish)
        np.testing.assert_array_equal(one.group, other.group)


@pytest.mark.usefixtures("kernel")
def test_work_of_one_changes_no_bit_of_a_golden_case(shared: Path):
    assert_ones_change_nothing(shared, batches=False)


def test_work_of_one_changes_no_bit_of_a_golden_case_with_batches(shared: Path):
    assert_ones_change_nothing(shared, batches=True)


def traffic(problem: Problem, work: bool) -> Workload:
    rng = np.random.default_rng(0)
    arrival_s = np.cumsum(rng.gamma(0.25, 4 * 0.05, 400))
    model = rng.integers(0, len(problem.models), 400)
    return Workload.from_seconds(arrival_s, model, rng.exponential(1.0, 400) if work else None)


def test_shortcuts_that_assume_one_work_per_model_ask():
    problem = mixed_problem(devices=1, slo_s=0.15)
    plain, worked = traffic(problem, False), traffic(problem, True)
    lanes = [Lane(problem, (TWO,), ((0, 2),), w, (0, 400)) for w in (plain, worked)]
    assert [lane.num_clocks for lane in lanes] == [1, 2]
    assert dataclasses.replace(lanes[1], configs=(ONE,)).num_clocks == 1
    assert attainment_bound(problem, plain) < 1 == attainment_bound(problem, worked)
    wanted = [((ONE,), (0, 1))]
    with pytest.raises(ValueError, match="no bound is known"):
        PartitionBound(problem, worked, wanted)
    slow = (slice(0, 1), slice(0, None, 2))  # 0.4 s: not within the SLO, if work is what it says
    assert (np.asarray(make_space(problem, [plain], [ONE]).weight[slow]) == 2**62).all()
    assert (np.asarray(make_space(problem, [plain, worked], [ONE]).weight[slow]) < 2**62).all()


def test_searches_score_by_the_works(monkeypatch: pytest.MonkeyPatch):
    """Also where only what an addition changes is simulated."""
    problem = mixed_problem(devices=4)
    workload = traffic(problem, True)
    results = [place("sr-greedy", problem, workload)]
    monkeypatch.setattr("beta_jax.search.fill.greedy.LONG_SEARCH", 0)
    results.append(place("sr-greedy", problem, workload))
    for result in results:
        tally = simulate(problem, result.placement, workload)
        latency_s = float(tally.latency_mean_all_s[0])
        score = tally.attainment[0] - latency_s / 1e4 + result.static.num_replicas / 1e6
        assert result.placement == results[0].placement
        assert result.score == pytest.approx(score, abs=1e-12)


def test_placements_as_arrays_serve_the_works():
    problem = mixed_problem(devices=4)
    workload = traffic(problem, True)
    hosted, config = np.zeros((1, 2, 6), np.bool_), np.array([[0, 1]])
    hosted[0, 0, :3] = hosted[0, 1, 3:] = True
    placement = Placement((Group(ONE, (0, 1, 2)), Group(TWO, (3, 4, 5))))
    good, latency = ArraySimulator(problem, [workload], [ONE, TWO], 2)(hosted, config)
    tally = simulate(problem, placement, workload)
    assert (good[0] == tally.good).all() and (latency[0] == tally.latency_ticks).all()


def test_what_cannot_be_computed_is_an_error():
    problem = mixed_problem(slo_s=1.0)
    long = dataclasses.replace(
        problem, profile=make_profile({k: {ONE: [5.0]} for k in ("fast", "slow")})
    )
    workload = Workload(np.zeros(1), np.zeros(1), np.array([MOST_WORK]))
    for rules in (Rules(), Rules(batching="strict", max_batch=1)):
        ruled = dataclasses.replace(long, rules=rules)
        with pytest.raises(SimulationError, match=r"stages of 5\.0\d* s and work up to 32768"):
            simulate(ruled, Placement((Group(ONE, (0,)),)), workload)


@given(st.lists(st.integers(1, MOST_WORK), max_size=5))
def test_fixed_point_is_kept(work: list[int]):
    ratio = np.array(work, np.float64) / ONE_WORK
    assert Workload.from_seconds(
        np.zeros(len(work)), np.zeros(len(work)), ratio
    ).work == pytest.approx(work)
