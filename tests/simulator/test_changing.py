"""Switches that load weights, and failures, against the oracle and by hand."""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beta_jax import (
    Cluster,
    Failure,
    Group,
    MissReason,
    Model,
    Outcome,
    ParallelConfig,
    Placement,
    PlacementError,
    Pool,
    Problem,
    Profile,
    Rules,
    Schedule,
    SimulationError,
    Workload,
    compare_placements,
    miss_reasons,
    simulate,
    utilisation,
)
from beta_jax.placement.devices import match_devices, number_devices, stage_bytes

import reference
from instances import MILLISECOND, Instance

relaxed = settings(max_examples=60)
ONE, TWO, WIDE = ParallelConfig(1, 1), ParallelConfig(1, 2), ParallelConfig(2, 2)
CONFIGS = (ONE, TWO, WIDE)
NUM_DEVICES = 6
NEVER = 2**62
FREE = Rules(stage_overhead=0.0, request_overhead_s=0.0)


def make_profile(latency: dict[str, Any], weight: dict[str, Any]) -> Profile:
    """Seconds and bytes of every stage, by type and configuration."""
    types = {
        kind: {
            "configs": [
                {
                    "op": config.op,
                    "pp": config.pp,
                    "stage_latency_s": {"1": latency[kind][config]},
                    "weight_bytes": weight[kind][config],
                    "act_bytes": {"1": [0.0] * config.pp},
                }
                for config in latency[kind]
            ]
        }
        for kind in latency
    }
    return Profile.from_dict({"format": "beta_jax.profile", "version": 1, "types": types})


class Changing(NamedTuple):
    problem: Problem
    schedule: Schedule | Placement
    workload: Workload
    failures: tuple[Failure, ...]

    def outcome(self) -> Outcome:
        [outcome] = simulate(*self[:3], failures=self.failures, outputs="requests")
        return outcome

    @property
    def starts_and_placements(self) -> list[tuple[float, Placement]]:
        if isinstance(self.schedule, Placement):
            return [(0.0, self.schedule)]
        return [*zip(self.schedule.start_s, self.schedule.placements, strict=True)]

    def devices(self) -> list[list[tuple[int, ...]]]:
        (_, first), *_ = self.starts_and_placements
        found = [number_devices(self.problem.cluster, first)]
        for (_, old), (_, new) in itertools.pairwise(self.starts_and_placements):
            found.append(match_devices(self.problem, old, found[-1], new))
        return found

    def oracle(self) -> tuple[reference.Outcome, list[bool]]:
        models, rules = self.problem.models, self.problem.rules
        static = Instance(self.problem, Placement(), self.workload)
        segments = [
            (
                round(start * reference.TICKS_PER_SECOND),
                [
                    ({m: static.stages(m, g.config, 1) for m in g.models}, g.config[:2], own)
                    for g, own in zip(placement.groups, devices, strict=True)
                ],
            )
            for (start, placement), devices in zip(
                self.starts_and_placements, self.devices(), strict=True
            )
        ]
        weight = {
            (config[:2], m): stage_bytes(self.problem, model, config)
            for m, model in enumerate(models)
            for config in self.problem.profile.configs(model.type)
        }
        [pool] = self.problem.cluster.pools
        bandwidth = pool.load_bandwidth_bytes_per_s
        failures = [
            (
                failure.devices(self.problem.cluster, self.devices()[0]),
                round(failure.start_s * reference.TICKS_PER_SECOND),
                failure.end_s * reference.TICKS_PER_SECOND,
            )
            for failure in self.failures
        ]
        return reference.simulate_changes(
            self.workload.arrival.tolist(),
            self.workload.model.tolist(),
            [reference.duration_ticks(model.slo_s) for model in models],
            segments,
            weight,
            math.inf if bandwidth is None else bandwidth,
            [(d, a, b if math.isinf(b) else round(b)) for d, a, b in failures],
            round(rules.request_overhead_s * reference.TICKS_PER_SECOND),
            rules.dispatch,
        )


@st.composite
def problems(draw, loads: bool) -> Problem:
    seconds = st.sampled_from((0.01, 0.02, 0.05, 0.2))
    num_bytes = st.sampled_from((0.0, 1.0, 2.5, 4.0))

    def table(values: Any) -> dict[str, Any]:
        return {
            kind: {c: draw(st.lists(values, min_size=c.pp, max_size=c.pp)) for c in CONFIGS}
            for kind in "ab"
        }

    slo = st.sampled_from((0.03, 0.2, 0.5, math.inf))
    models = tuple(Model(f"m{i}", "ab"[i % 2], draw(slo)) for i in range(3))
    bandwidth = draw(st.sampled_from((0.0, 3.0, 50.0, math.inf)))
    cluster = Cluster(
        NUM_DEVICES, devices_per_node=4, load_bandwidth_bytes_per_s=bandwidth if loads else None
    )
    dispatch = draw(st.sampled_from(("earliest_free", "earliest_free", "earliest_finish")))
    rules = Rules(dispatch, request_overhead_s=draw(st.sampled_from((0.0, 0.011))))
    return Problem(models, cluster, make_profile(table(seconds), table(num_bytes)), rules)


@st.composite
def placements(draw) -> Placement:
    groups, left = [], NUM_DEVICES
    for _ in range(draw(st.integers(1, 4))):
        config = draw(st.sampled_from([c for c in CONFIGS if c.num_devices <= max(left, 1)]))
        if config.num_devices > left:
            break
        left -= config.num_devices
        groups.append(Group(config, tuple(draw(st.sets(st.integers(0, 2))))))
    if draw(st.booleans()):
        order = iter(draw(st.permutations(range(NUM_DEVICES))))
        groups = [
            dataclasses.replace(g, devices=tuple(itertools.islice(order, g.config.num_devices)))
            for g in groups
        ]
    return Placement(tuple(groups))


@st.composite
def workloads(draw) -> Workload:
    gaps = st.sampled_from((0, 0, 1, 7, 40, 100, 600))
    size = draw(st.integers(1, 40))
    gap = draw(st.lists(gaps, min_size=size, max_size=size))
    model = draw(st.lists(st.integers(-1, 2), min_size=size, max_size=size))
    return Workload(np.cumsum(np.array(gap, np.int64)) * MILLISECOND, np.array(model, np.int32))


def times(workload: Workload) -> st.SearchStrategy[float]:
    """While something arrives, at the very moment or not."""
    end = float(workload.arrival_s[-1])
    at_arrivals = st.sampled_from(workload.arrival_s.tolist())
    return st.one_of(at_arrivals, st.floats(0, end + 0.3).map(lambda t: round(t, 3)))


@st.composite
def changing(draw, switches: bool, fails: bool) -> Changing:
    problem, workload = draw(problems(loads=switches)), draw(workloads())
    schedule: Any = draw(placements())
    if switches:
        start_s = sorted(draw(st.sets(times(workload), min_size=1, max_size=3)))
        segments = [schedule, *(draw(placements()) for _ in start_s)]
        schedule = Schedule((-1.0, *start_s), tuple(segments))
    failures = []
    for _ in range(draw(st.integers(1, 3)) if fails else 0):
        start, end = sorted([draw(times(workload)), draw(st.one_of(times(workload)))])
        which = {"device": draw(st.integers(0, NUM_DEVICES - 1))}
        if draw(st.booleans()):
            which = {"node": draw(st.integers(0, 1))}
        elif not switches and schedule.groups:
            which = {"group": draw(st.integers(0, len(schedule.groups) - 1))}
        failures.append(Failure(start, end if end > start else math.inf, **which))
    return Changing(problem, schedule, workload, tuple(failures))


def assert_as_in_the_oracle(case: Changing) -> None:
    outcome, (expected, lost) = case.outcome(), case.oracle()
    reason = miss_reasons(case.problem, case.schedule, outcome).reason
    assert (reason == MissReason.FAILED).tolist() == lost
    assert np.array_equal(reason == MissReason.NO_REPLICA, expected.group < 0)
    assert np.array_equal(reason < 0, expected.good)
    np.testing.assert_array_equal(outcome.good, expected.good)
    np.testing.assert_array_equal(outcome.finish, expected.finish)
    np.testing.assert_array_equal(outcome.group, expected.group)
    assert outcome.changes is not None and outcome.changes.failed.tolist() == lost


@given(changing(switches=True, fails=False))
@relaxed
def test_switches_as_in_the_oracle(case: Changing):
    assert_as_in_the_oracle(case)


@given(changing(switches=False, fails=True))
@relaxed
def test_failures_as_in_the_oracle(case: Changing):
    assert_as_in_the_oracle(case)


@given(changing(switches=True, fails=True))
@relaxed
def test_both_as_in_the_oracle(case: Changing):
    assert_as_in_the_oracle(case)


def by_hand(bandwidth: float | None = 2.0, slo_s: float = math.inf) -> Problem:
    """One device takes a second, a pipeline a second per stage of 4 and 1 bytes."""
    latency = {kind: {ONE: [1.0], TWO: [1.0, 1.0]} for kind in "ab"}
    weight = {kind: {ONE: [5.0], TWO: [4.0, 1.0]} for kind in "ab"}
    models = (Model("m", "a", slo_s), Model("n", "b", slo_s))
    cluster = Cluster(4, devices_per_node=2, load_bandwidth_bytes_per_s=bandwidth)
    return Problem(models, cluster, make_profile(latency, weight), FREE)


def latencies(case: Changing) -> list[float]:
    return case.outcome().latency_s.tolist()


def test_a_switch_by_hand():
    """At 10 s both groups are kept; model 1 is there after 2 s of loading, and after 2.5 s."""
    old = Placement((Group(TWO, (0,)), Group(ONE, (0,))))
    new = Placement((Group(ONE, (1,)), Group(TWO, (0, 1))))
    schedule = Schedule((0.0, 10.0), (old, new))
    workload = Workload.from_seconds([9.5, 10, 10.5, 10.5, 11.9, 12, 12.5], [0, 0, 0, 1, 1, 1, 1])
    case = Changing(by_hand(), schedule, workload, ())
    assert case.outcome().group.tolist() == [0, 1, 1, -1, -1, 1, 0]
    assert latencies(case) == pytest.approx([2, 1, 2, 0, 0, 2, 1])
    assert_as_in_the_oracle(case)
    free = case._replace(problem=by_hand(None))
    assert free.outcome().changes is None
    assert latencies(free) == pytest.approx([2, 1, 2, 1, 1, 2, 1.4])
    change = compare_placements(case.problem, old, new)
    assert change.bytes_moved == 10 and change.groups[1].kept == (0,)


def test_a_new_group_waits_for_its_devices_and_their_load():
    """Two devices, free at 11 s and idle, become a pipeline: it loads 4 bytes from then on."""
    old = Placement((Group(ONE, (0,)), Group(ONE, (0,))))
    schedule = Schedule((0.0, 10.0), (old, Placement((Group(TWO, (0,)),))))
    workload = Workload.from_seconds([10, 10.5, 10.5], [0, 0, 0])
    case = Changing(by_hand(), schedule, workload, ())
    assert latencies(case) == pytest.approx([1, 4.5, 5.5])
    assert_as_in_the_oracle(case)
    never = case._replace(problem=by_hand(0.0))
    assert never.outcome().group.tolist() == [0, -1, -1]


def test_what_a_device_has_of_a_group_it_need_not_load():
    """The new pipeline has device 0, with stage 0 of the old one: 1 byte is loaded, not 4."""
    old = Placement((Group(TWO, (0,), (0, 1)),))
    for devices, load_s in (((0, 2), 0.5), ((2, 1), 2.0), ((1, 0), 2.0), ((0, 1), 0.0)):
        schedule = Schedule((0.0, 10.0), (old, Placement((Group(TWO, (0,), devices),))))
        case = Changing(by_hand(), schedule, Workload.from_seconds([0, 10.1], [0, 0]), ())
        assert latencies(case) == pytest.approx([2, 2 + max(load_s - 0.1, 0)])
        assert_as_in_the_oracle(case)


def test_what_leaves_as_its_group_fails_is_served():
    """Stage 2 ends at 2 s and at 3 s; the group fails at 2 s, is back at 5 s, and loads 2 s."""
    placement = Placement((Group(TWO, (0,)),))
    workload = Workload.from_seconds([0, 0, 2, 5], [0, 0, 0, 0])
    for failure in (Failure(2, 5, group=0), Failure(2, 5, device=1), Failure(2, 5, node=0)):
        case = Changing(by_hand(), placement, workload, (failure,))
        outcome = case.outcome()
        assert outcome.good.tolist() == [True, False, False, True]
        assert outcome.changes is not None
        assert outcome.changes.failed.tolist() == [False, True, False, False]
        assert outcome.finish.tolist() == [2 * 10**9, 2 * 10**9, 2 * 10**9, 9 * 10**9]
        assert outcome.group.tolist() == [0, 0, -1, 0]
        assert_as_in_the_oracle(case)
        tally = simulate(*case[:3], failures=case.failures)
        assert tally.good.tolist() == [[2, 0]] and tally.dispatched.tolist() == [[3]]
        assert tally.latency_ticks.tolist() == [[6 * 10**9, 0]]
    at_once = case._replace(problem=by_hand(None))
    assert at_once.outcome().finish[-1] == 7 * 10**9
    other = Changing(by_hand(), placement, workload, (Failure(2, 5, node=1),))
    assert other.outcome().good.all()


def test_why_requests_missed_is_asked_of_each_life_of_a_group():
    """The group serves model 0 until 4 s, is away from 2.5 s to 5 s, and then model 1 is first."""
    placement = Placement((Group(ONE, (0, 1)),))
    workload = Workload.from_seconds([0, 0, 2, 5, 5, 5], [0, 0, 0, 1, 0, 1])
    failure = Failure(2.5, 5, group=0)
    case = Changing(by_hand(math.inf, slo_s=1.9), placement, workload, (failure,))
    outcome = case.outcome()
    misses = miss_reasons(case.problem, placement, outcome)
    names = ["" if r < 0 else MissReason(r).name for r in misses.reason]
    assert names == ["", "BEHIND_OWN", "FAILED", "", "BEHIND_OTHER", "BEHIND_OWN"]
    assert misses.counts[0, 0, MissReason.FAILED] == 1 and misses.counts.sum() == 4
    with pytest.raises(ValueError, match="not retraced where groups load weights or fail"):
        utilisation(case.problem, placement, outcome)


@given(placements(), placements())
@settings(relaxed, max_examples=40)
def test_devices_are_matched_for_the_fewest_bytes(old: Placement, new: Placement):
    old, new = (
        Placement(tuple(dataclasses.replace(g, devices=()) for g in one.groups))
        for one in (old, new)
    )
    weight = {kind: {ONE: [2.0], TWO: [1.0, 3.0], WIDE: [5.0, 1.0]} for kind in "ab"}
    latency = {kind: {c: [1.0] * c.pp for c in CONFIGS} for kind in "ab"}
    problem = by_hand()
    models = (*problem.models, Model("o", "a", 1.0))
    cluster = Cluster(NUM_DEVICES)
    problem = Problem(models, cluster, make_profile(latency, weight), FREE)
    numbered = number_devices(cluster, old)
    devices = match_devices(problem, old, numbered, new)
    assert sorted(map(len, devices)) == sorted(g.config.num_devices for g in new.groups)
    assert len({d for own in devices for d in own}) == new.num_devices

    def loaded(matched: dict[int, int]) -> int:
        total = 0
        for b, group in enumerate(new.groups):
            had = old.groups[matched[b]].models if b in matched else ()
            own = (problem.models[m] for m in {*group.models} - {*had})
            total += sum(sum(stage_bytes(problem, m, group.config)) * group.config.op for m in own)
        return total

    chosen = {
        b: numbered.index(own) for b, own in enumerate(devices) if own in numbered
        and old.groups[numbered.index(own)].config == new.groups[b].config
    }  # fmt: skip
    best = min(
        loaded({b: a for b, a in zip(range(len(new.groups)), some, strict=False) if a is not None})
        for some in itertools.permutations(
            [*range(len(old.groups)), *[None] * len(new.groups)], len(new.groups)
        )
        if all(
            a is None or old.groups[a].config == group.config
            for a, group in zip(some, new.groups, strict=False)
        )
    )
    assert loaded(chosen) == best == compare_placements(problem, old, new).bytes_moved


def test_nothing_that_does_not_change_is_touched():
    """One segment, no failure: the engine's usual way."""
    placement = Placement((Group(TWO, (0,)), Group(ONE, (1,))))
    workload = Workload.from_seconds(np.arange(20) * 0.7, np.arange(20) % 2)
    [one] = simulate(by_hand(slo_s=4), Schedule((0.0,), (placement,)), workload, outputs="requests")
    [other] = simulate(by_hand(None, slo_s=4), placement, workload, outputs="requests")
    [switched] = simulate(
        by_hand(slo_s=4), Schedule((0.0, 5.0), (placement,) * 2), workload, outputs="requests"
    )
    for outcome in (one, switched):
        np.testing.assert_array_equal(outcome.finish, other.finish)
        np.testing.assert_array_equal(outcome.group, other.group)


@pytest.mark.parametrize(
    ("change", "failures", "error", "message"),
    [
        ({}, [Failure(1, group=2)], PlacementError, "group 2 cannot fail, there are 2"),
        ({}, [Failure(1, device=4)], PlacementError, "device 4 cannot fail, there are 4"),
        ({}, [Failure(1, node=-1)], PlacementError, "node -1 cannot fail, there are 2"),
        ({"rules": Rules(batching="strict")}, [Failure(1, node=0)], SimulationError, "in batches"),
    ],
)
def test_failures_of_what_is_not_there(change: Any, failures: Any, error: Any, message: str):
    problem = dataclasses.replace(by_hand(), **change)
    placement = Placement((Group(TWO, (0,)), Group(ONE, (1,))))
    workload = Workload.from_seconds([0], [0])
    with pytest.raises(error, match=message):
        simulate(problem, placement, workload, failures=failures)


def test_what_cannot_be_is_an_error():
    placement, workload = Placement((Group(TWO, (0,)),)), Workload.from_seconds([0], [0])
    schedule = Schedule((0.0, 1.0), (placement,) * 2)
    node = [Failure(1, node=0)]
    with pytest.raises(SimulationError, match="need a load bandwidth of the cluster"):
        simulate(by_hand(None), schedule, workload, failures=node)
    with pytest.raises(PlacementError, match="failures name devices or nodes"):
        simulate(by_hand(), schedule, workload, failures=[Failure(1, group=0)])
    batching = dataclasses.replace(by_hand(), rules=Rules(batching="published"))
    with pytest.raises(SimulationError, match="do not go with requests served in batches"):
        simulate(batching, schedule, workload)
    with pytest.raises(SimulationError, match="begins at 0 seconds or later"):
        simulate(by_hand(), schedule, Workload(np.array([-1]), np.zeros(1)))
    for arguments in ({}, {"group": 0, "node": 0}):
        with pytest.raises(ValueError, match="one of a group, a device or a node"):
            Failure(1.0, 2.0, **arguments)
    for times_s in ((2.0, 1.0), (-1.0, 1.0), (math.inf, math.inf), (math.nan, 1.0)):
        with pytest.raises(ValueError, match="a failure lasts from start_s >= 0 to a later end_s"):
            Failure(*times_s, node=0)
    with pytest.raises(ValueError, match="load_bandwidth_bytes_per_s must be >= 0, got -1"):
        Cluster(4, load_bandwidth_bytes_per_s=-1)
    with pytest.raises(ValueError, match="for every pool, infinite ones too, or for none"):
        Cluster(pools=[Pool("a", 4), Pool("b", 4, load_bandwidth_bytes_per_s=1.0)])
    for devices in ((0,), (0, 0), (3, 4)):
        with pytest.raises(PlacementError, match=r"listed are|which are not in 0 to 3"):
            simulate(by_hand(), Placement((Group(TWO, (0,), devices),)), workload)


@pytest.mark.parametrize("dispatch", ["round_robin", "power_of_two", "shortest_queue"])
def test_simulations_go_side_by_side(dispatch: str):
    """Changing and static ones in one call; and what a rule remembers outlives a failure."""
    problem = dataclasses.replace(
        by_hand(slo_s=4.0), rules=Rules(dispatch, stage_overhead=0, request_overhead_s=0)
    )
    pair = Placement((Group(TWO, (0, 1)), Group(ONE, (0, 1)), Group(ONE, (1,))))
    other = Placement((Group(ONE, (1,)), Group(TWO, (0, 1)), Group(ONE, (0,))))
    schedule = Schedule((0.0, 4.0, 9.0), (pair, other, pair))
    workload = Workload.from_seconds(np.arange(60) * 0.3, np.arange(60) % 2)
    lanes = [pair, schedule, other, Schedule((0.0, 7.0), (other, pair))]
    together = simulate(problem, lanes, workload, outputs="requests")
    tally = simulate(problem, lanes, workload)
    for row, (lane, outcome) in enumerate(zip(lanes, together, strict=True)):
        [alone] = simulate(problem, lane, workload, outputs="requests")
        np.testing.assert_array_equal(alone.finish, outcome.finish)
        np.testing.assert_array_equal(alone.group, outcome.group)
        assert (outcome.changes is None) == isinstance(lane, Placement)
        assert tally.good[row].sum() == outcome.good.sum()
        assert tally.dispatched[row].sum() == (outcome.group >= 0).sum()
    # A node that hosts nothing fails: nothing else is different.
    spare = dataclasses.replace(problem, cluster=Cluster(6, devices_per_node=2))
    [failing] = simulate(
        spare, pair, workload, failures=[Failure(3, 6, node=2)], outputs="requests"
    )
    np.testing.assert_array_equal(failing.finish, together[0].finish)
    np.testing.assert_array_equal(failing.group, together[0].group)
