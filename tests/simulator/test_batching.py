"""Dynamic batching against its oracle, and the laws that its rules obey."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beta_jax import (
    Cluster,
    Group,
    Model,
    Outcome,
    ParallelConfig,
    Placement,
    PlacementError,
    Problem,
    ProfileError,
    Rules,
    Schedule,
    SimulationError,
    Workload,
    simulate,
)
from beta_jax.simulator.engine import Kernel, make_simulations, simulate_lanes
from beta_jax.types import BATCH_SIZES, BATCHING

import reference
from batching_instances import NUM_MODELS, instances, placements, problems, relaxed
from instances import CONFIGS, Instance, make_profile, workloads

ONE, TWO = ParallelConfig(1, 1), ParallelConfig(1, 2)


def assert_same(instance: Instance, outcome: Outcome) -> None:
    expected = instance.oracle()
    np.testing.assert_array_equal(outcome.good, expected.good)
    np.testing.assert_array_equal(outcome.finish, expected.finish)
    np.testing.assert_array_equal(outcome.group, expected.group)


@given(instances())
@relaxed
def test_every_request_as_in_the_oracle(instance: Instance):
    (outcome,) = simulate(*instance, outputs="requests")
    assert_same(instance, outcome)


@pytest.mark.parametrize("batching", BATCHING)
@pytest.mark.parametrize("load", [0.7, 1.5])
def test_long_and_bursty_as_in_the_oracle(batching: str, load: float):
    """With queues of tens of requests, idle events that overtake each other, and many drops."""
    rng = np.random.default_rng(7)
    profile = make_profile(
        {
            kind: {
                config: {
                    b: list((0.1 + 0.9 * b) * scale * rng.uniform(0.5, 1, config.pp) / config.pp)
                    for b in BATCH_SIZES
                }
                for config in CONFIGS
            }
            for kind, scale in (("a", 0.1), ("b", 0.3))
        }
    )
    models = tuple(Model(f"m{i}", "ab"[i % 2], (0.5, 1.0, math.inf)[i % 3]) for i in range(6))
    rules = Rules(batching=batching, max_batch=16)
    problem = Problem(models, Cluster(num_devices=64), profile, rules)
    placement = Placement(
        tuple(
            Group(config, tuple(np.flatnonzero(rng.random(6) < 0.5).tolist()))
            for config in CONFIGS * 2
        )
    )
    gaps = rng.gamma(1 / 16, 16 / (40 * load), 3000)
    workload = Workload.from_seconds(np.cumsum(gaps), rng.integers(-1, 6, 3000))
    (outcome,) = simulate(problem, placement, workload, outputs="requests")
    assert 0.3 < outcome.good.mean() < 0.99
    assert_same(Instance(problem, placement, workload), outcome)


@given(instances(), st.sampled_from((0.0, 0.02)))
@relaxed
def test_tally_counts_the_requests(instance: Instance, warmup_s: float):
    try:
        tally = simulate(*instance, warmup_s=warmup_s)
    except ValueError as error:
        assert "leaves nothing" in str(error)
        return
    (outcome,) = simulate(*instance, outputs="requests")
    counted = slice(*instance.workload.warmup_cut(warmup_s))
    good, group = outcome.good[counted], outcome.group[counted]
    model = instance.workload.model[counted]
    latency = (outcome.finish - instance.workload.arrival)[counted]
    assert tally.num_counted[0] == len(model)
    for m in range(NUM_MODELS):
        assert tally.num_requests[0, m] == (model == m).sum()
        assert tally.good[0, m] == good[model == m].sum()
        assert tally.latency_ticks[0, m] == latency[model == m].sum()
    for g in range(tally.dispatched.shape[1]):
        assert tally.dispatched[0, g] == (group == g).sum()
        assert tally.group_good[0, g] == good[group == g].sum()


@given(st.data())
@settings(relaxed, max_examples=20)
def test_lanes_do_not_touch_each_other(data: st.DataObject):
    """Lanes of a block differ in placement, deadlines and largest batch."""
    problem = data.draw(problems())
    workload = data.draw(workloads(NUM_MODELS))
    lanes = []
    for _ in range(data.draw(st.integers(2, 18))):
        rules = dataclasses.replace(
            problem.rules, max_batch=data.draw(st.sampled_from(BATCH_SIZES))
        )
        models = tuple(
            dataclasses.replace(m, slo_s=m.slo_s * data.draw(st.sampled_from((1, 2))))
            for m in problem.models
        )
        own = dataclasses.replace(problem, rules=rules, models=models)
        lanes.append(Instance(own, data.draw(placements()), workload))
    together = simulate(
        [lane.problem for lane in lanes],
        [lane.placement for lane in lanes],
        workload,
        outputs="requests",
    )
    for lane, outcome in zip(lanes, together, strict=True):
        assert_same(lane, outcome)


def without_batches(instance: Instance) -> Instance:
    off = dataclasses.replace(instance.problem.rules, batching="off", max_batch=1)
    return instance._replace(problem=dataclasses.replace(instance.problem, rules=off))


def assert_strict_is_unbatched(problem: Problem, placement: Placement, workload: Workload) -> None:
    """Where no two requests arrive at once: of these the model with the lower index is served.

    A request that waits in vain is rejected by the group that finds it, another one than the one
    that it would be sent to.
    """
    workload = Workload(workload.arrival + np.arange(len(workload)), workload.model)
    rules = dataclasses.replace(problem.rules, batching="strict", max_batch=1)
    instance = Instance(dataclasses.replace(problem, rules=rules), placement, workload)
    (batched,) = simulate(*instance, outputs="requests")
    (one_by_one,) = simulate(*without_batches(instance), outputs="requests")
    np.testing.assert_array_equal(batched.good, one_by_one.good)
    np.testing.assert_array_equal(batched.finish, one_by_one.finish)
    accepted = batched.good
    np.testing.assert_array_equal(batched.group[accepted], one_by_one.group[accepted])


@given(problems(), st.sampled_from(CONFIGS), st.sets(st.integers(0, 2)), workloads(NUM_MODELS))
@relaxed
def test_strict_single_requests_on_one_group(problem, config, hosted, workload):
    """Decision by decision the unbatched rules, whatever the group hosts."""
    group = Group(config, tuple(hosted))
    others = tuple(Group(other) for other in CONFIGS)
    assert_strict_is_unbatched(problem, Placement((group, *others)), workload)


@given(problems(), st.integers(1, 4), workloads(NUM_MODELS))
@relaxed
def test_strict_single_requests_of_one_type(problem, num_groups, workload):
    """Decision by decision the unbatched rules: equal groups of one stage that host everything."""
    models = tuple(dataclasses.replace(model, type="a") for model in problem.models)
    problem = dataclasses.replace(problem, models=models)
    placement = Placement((Group(ONE, (0, 1, 2)),) * num_groups)
    assert_strict_is_unbatched(problem, placement, workload)


@given(instances(), st.sampled_from((1, 10**6, 10**15)))
@relaxed
def test_shifting_time_changes_nothing(instance: Instance, shift: int):
    problem, placement, workload = instance
    if isinstance(placement, Schedule):
        placement = placement.placements[0]
    later = Workload(workload.arrival + shift, workload.model)
    (before,) = simulate(problem, placement, workload, outputs="requests")
    (after,) = simulate(problem, placement, later, outputs="requests")
    np.testing.assert_array_equal(before.finish + shift, after.finish)
    np.testing.assert_array_equal(before.group, after.group)


@given(instances(("strict",)))
@relaxed
def test_strict_requests_meet_their_deadline(instance: Instance):
    (outcome,) = simulate(*instance, outputs="requests")
    latency = outcome.finish - instance.workload.arrival
    for m, served in enumerate(instance.problem.models):
        own = outcome.good & (instance.workload.model == m)
        assert (latency[own] > 0).all()
        assert (latency[own] <= reference.duration_ticks(served.slo_s)).all()


def test_published_events_can_serve_a_request_before_it_arrives():
    """An event that finds nothing leaves those of other groups until long after they were due.

    At 10 s it is that of model 1's group. Group 1 then serves the next in model 0's queue, and the
    last one, which has just come, is served at an event of group 0 from the first second.
    """
    rules = Rules(stage_overhead=0, request_overhead_s=0, batching="published", max_batch=1)
    profile = make_profile({"t": {ONE: [0.5], TWO: [0.3, 0.5]}, "u": {ONE: [0.25]}})
    models = Model("m", "t", math.inf), Model("n", "u", math.inf)
    problem = Problem(models, Cluster(num_devices=4), profile, rules)
    placement = Placement((Group(TWO, (0,)), Group(ONE, (0,)), Group(ONE, (1,))))
    workload = Workload.from_seconds([0, 0, 0, 0, 10], [0, 0, 1, 0, 0])
    (outcome,) = simulate(problem, placement, workload, outputs="requests")
    assert outcome.good.all()
    np.testing.assert_allclose(outcome.finish / 1e9, [0.8, 0.5, 0.25, 10.5, 1.3])


def one_group(rules: Rules, slo_s: float = 1.0, sizes=BATCH_SIZES) -> tuple[Problem, Placement]:
    profile = make_profile({"t": {ONE: {b: [0.1 + 0.02 * b] for b in sizes}}})
    problem = Problem((Model("m", "t", slo_s),), Cluster(num_devices=1), profile, rules)
    return problem, Placement((Group(ONE, (0,)),))


def test_a_burst_by_hand():
    """Of seven requests at once one is served alone, .12 s; then four, .18 s, and two, .14 s."""
    rules = Rules(stage_overhead=0, request_overhead_s=0, batching="strict", max_batch=16)
    workload = Workload.from_seconds([1.0] * 7, [0] * 7)
    (outcome,) = simulate(*one_group(rules), workload, outputs="requests")
    expected = [0.12, *[0.3] * 4, *[0.44] * 2]
    np.testing.assert_allclose(outcome.latency_s, expected, atol=1e-6)


def test_no_requests():
    empty = Workload(np.zeros(0, np.int64), np.zeros(0, np.int32))
    tally = simulate(*one_group(Rules(batching="strict")), empty)
    assert tally.num_counted.tolist() == [0] and tally.good.tolist() == [[0]]


def test_a_batch_size_without_a_profile_is_named():
    workload = Workload.from_seconds([0.0], [0])
    for batching in BATCHING:
        problem, placement = one_group(Rules(batching=batching, max_batch=8), sizes=(1, 2, 8))
        with pytest.raises(ProfileError, match=r"t .* has no batch size 4; it has 1, 2, 8"):
            simulate(problem, placement, workload)
        rules = Rules(batching=batching, max_batch=2)
        simulate(dataclasses.replace(problem, rules=rules), placement, workload)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"batching": "dynamic"}, "off, published or strict, got 'dynamic'"),
        ({"batching": "strict", "max_batch": 3}, "one of .*16.*, got 3"),
        ({"max_batch": 2}, "batches of 2 need batching, which is off"),
        (
            {"batching": "strict", "dispatch": "round_robin"},
            "batching goes with dispatch earliest_free, not with round_robin",
        ),
    ],
)
def test_rules_that_make_no_sense(change, message):
    with pytest.raises(ValueError, match=message):
        Rules(**change)


def test_what_the_engine_cannot_represent():
    workload = Workload.from_seconds([0.0, 1.0], [0, 0])
    problem, placement = one_group(Rules(batching="strict"))
    with pytest.raises(SimulationError, match="do not fit"):
        simulate(problem, placement, Workload(np.array([0, 2**61 + 1]), np.zeros(2)))
    with pytest.raises(SimulationError, match="requests of model 1"):
        simulate(problem, placement, Workload(workload.arrival, workload.model + 1))
    [lane] = make_simulations(problem, placement, workload, 0.0)[0].lanes
    with pytest.raises(SimulationError, match="the lockstep kernel does not know Rules"):
        simulate_lanes([lane], keep_requests=False, kernel=Kernel.LOCKSTEP)
    with pytest.raises(PlacementError, match="hosts a model twice"):
        simulate(problem, Placement((Group(ONE, (0, 0)),)), workload)
