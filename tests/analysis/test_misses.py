"""Why requests missed, when stages worked and how busy groups were, against slow loops."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import beta_jax
from beta_jax import (
    Cluster,
    Group,
    MissReason,
    Model,
    Outcome,
    ParallelConfig,
    Placement,
    PlacementError,
    Problem,
    Rules,
    Schedule,
    Workload,
    miss_reasons,
    simulate,
    utilisation,
    write_timeline,
)
from beta_jax.analysis.stage_times import services

import reference
from instances import Instance, instances, make_profile, worked

DISPATCHES = tuple(beta_jax.Dispatch)
SECOND = reference.TICKS_PER_SECOND
ONE, TWO = ParallelConfig(1, 1), ParallelConfig(1, 2)
relaxed = settings(max_examples=40)


def serve(instance: Instance) -> Outcome:
    (outcome,) = simulate(*instance, outputs="requests")
    return outcome


# Why requests missed.


@given(st.one_of(instances(DISPATCHES), worked(instances(DISPATCHES))))
@relaxed
def test_reasons_are_those_of_the_oracle(instance: Instance):
    outcome = serve(instance)
    misses = miss_reasons(instance.problem, instance.placement, outcome)
    expected = reference.miss_reasons(
        instance.workload.arrival.tolist(),
        instance.workload.model.tolist(),
        [reference.duration_ticks(model.slo_s) for model in instance.problem.models],
        instance.schedule(instance.groups),
        instance.oracle(),
        round(instance.problem.rules.request_overhead_s * SECOND),
        instance.workload.work,
    )
    assert [MissReason(r).name if r >= 0 else "" for r in misses.reason] == expected
    assert misses.counts.sum() == (~outcome.good).sum()
    for m, g in itertools.product(
        range(-1, len(instance.problem.models)), range(-1, misses.counts.shape[1] - 1)
    ):
        missed = ~outcome.good & (outcome.workload.model == m) & (outcome.group == g)
        assert misses.counts[m, g].sum() == missed.sum()


def by_hand(slo_s: tuple[float, float], arrivals: list[tuple[float, int]]) -> list[str]:
    """Reasons where group 0 hosts models 0, 1 for 0.25 s, and group 1 hosts 0 for a second."""
    profile = make_profile(
        {"a": {ONE: [0.25], TWO: [0.5, 0.5]}, "b": {ONE: [0.25], TWO: [0.5, 0.5]}}
    )
    models = (Model("m", "a", slo_s[0]), Model("n", "b", slo_s[1]), Model("o", "a", 1.0))
    problem = Problem(models, Cluster(3), profile, Rules("round_robin", 0.0, 0.0))
    placement = Placement((Group(ONE, (0, 1)), Group(TWO, (0,))))
    seconds, model = zip(*arrivals, strict=True)
    workload = Workload.from_seconds(seconds, model)
    (outcome,) = simulate(problem, placement, workload, outputs="requests")
    reason = miss_reasons(problem, placement, outcome).reason
    return ["" if r < 0 else MissReason(r).name for r in reason]


def test_each_reason_by_hand():
    # Model 0 takes turns between the groups, and only group 0 is fast enough.
    assert by_hand((0.5, 9.0), [(0, 0), (0, 0)]) == ["", "UNFIT_GROUP"]
    assert by_hand((0.2, 9.0), [(0, 0), (0, 0)]) == ["SLO_TOO_SHORT"] * 2
    assert by_hand((9.0, 9.0), [(0, 2), (0, -1)]) == ["NO_REPLICA"] * 2
    assert by_hand((9.0, 0.5), [(0, 1)] * 3) == ["", "", "BEHIND_OWN"]
    assert by_hand((9.0, 0.25), [(0, 0), (0, 1)]) == ["", "BEHIND_OTHER"]
    # Two of its own suffice for the third, whoever stands directly in front.
    assert by_hand((9.0, 0.5), [(0, 1), (0, 1), (0, 0), (0, 1)])[3] == "BEHIND_OWN"
    # One of its own and one other: it would have been in time without the other.
    assert by_hand((9.0, 0.5), [(0, 1), (0, 0), (0, 1)])[2] == "BEHIND_OTHER"


def test_counts_leave_out_the_warm_up_and_know_the_place(problem_and_placement: Any):
    problem, placement = problem_and_placement
    arrival_s = np.arange(100) * 1.0
    workload = Workload.from_seconds(arrival_s, np.tile([0, 1, -1, 2], 25))
    (outcome,) = simulate(problem, placement, workload, warmup_s=9.9, outputs="requests")
    misses = miss_reasons(problem, placement, outcome)
    assert outcome.counted == (10, 90)
    assert misses.counts.shape == (4, 2, 6)
    assert misses.counts[-1, -1].tolist() == [20, 0, 0, 0, 0, 0]
    assert misses.counts[2, -1, MissReason.NO_REPLICA] == 20
    assert misses.counts.sum() == 40
    assert (misses.reason >= 0).sum() == 50


@pytest.fixture
def problem_and_placement() -> tuple[Problem, Placement]:
    """One pipeline of two stages of 0.25 and 0.5 s for models 0 and 1 of three."""
    profile = make_profile({"a": {TWO: [0.25, 0.5]}})
    models = tuple(Model(f"m{i}", "a", 1.0) for i in range(3))
    problem = Problem(models, Cluster(4), profile, Rules("earliest_free", 0.0, 0.0))
    return problem, Placement((Group(TWO, (0, 1)),))


# When stages worked.


@given(st.one_of(instances(DISPATCHES), worked(instances(DISPATCHES))))
@relaxed
def test_stages_work_one_request_after_another(instance: Instance):
    """What the oracle's loop over requests and stages gives, stage by stage."""
    outcome, schedule = serve(instance), instance.schedule(instance.groups)
    served = np.zeros(len(instance.workload), bool)
    for service in services(instance.problem, instance.placement, outcome):
        stages = schedule[service.segment][1][service.position]
        clock = [0] * service.group.config.pp
        for request, begin, end in zip(service.requests, service.begin, service.end, strict=True):
            cost = stages[int(instance.workload.model[request])]
            if instance.workload.work is not None:
                cost = reference.worked(cost, instance.workload.work[request])
            clock = reference.run_stages(int(instance.workload.arrival[request]), cost, clock)
            assert end.tolist() == clock
            assert (end - begin).tolist() == list(cost)
            served[request] = True
    assert np.array_equal(served, outcome.good)


@given(instances(DISPATCHES))
@relaxed
def test_busy_time_is_all_there_is(instance: Instance):
    outcome = serve(instance)
    if not len(instance.workload):
        return
    edge_s, of_group = utilisation(instance.problem, instance.placement, outcome, 7)
    assert edge_s[0] == instance.workload.arrival_s[0] and len(edge_s) == 8
    edges = [round(edge * SECOND) for edge in edge_s.tolist()]
    if isinstance(instance.placement, Schedule):
        assert not (of_group < 0).any()
        return
    for index, group in enumerate(instance.placement.groups):
        busy = [0] * 7
        for service in services(instance.problem, instance.placement, outcome):
            if service.position == index:
                for begin, end in zip(service.begin.ravel(), service.end.ravel(), strict=True):
                    for b, (low, high) in enumerate(itertools.pairwise(edges)):
                        inside = min(int(end), high) - max(int(begin), low)
                        busy[b] += group.config.op * max(inside, 0)
        devices = group.config.num_devices
        expected = [
            b / (devices * (high - low))
            for b, (low, high) in zip(busy, itertools.pairwise(edges), strict=True)
        ]
        assert of_group[index] == pytest.approx(expected, abs=1e-6)
        assert of_group[index].max() <= 1 + 1e-12


def test_utilisation_by_hand(problem_and_placement: Any):
    """Stage 0 works in [0, .25) and [.25, .5), stage 1 in [.25, .75) and [.75, 1.25)."""
    problem, placement = problem_and_placement
    patient = tuple(dataclasses.replace(model, slo_s=math.inf) for model in problem.models)
    problem = dataclasses.replace(problem, models=patient)
    workload = Workload.from_seconds([0, 0], [0, 1])
    (outcome,) = simulate(problem, placement, workload, outputs="requests")
    edge_s, of_group = utilisation(problem, placement, outcome, 5)
    assert edge_s.tolist() == [0, 0.25, 0.5, 0.75, 1, 1.25]
    assert of_group.tolist() == [[0.5, 1, 0.5, 0.5, 0.5]]
    # Nothing is served: there are bins all the same.
    (outcome,) = simulate(problem, placement, Workload.from_seconds([3], [2]), outputs="requests")
    edge_s, of_group = utilisation(problem, placement, outcome, 2)
    assert edge_s.tolist() == [3, 3 + 1e-9, 3 + 2e-9] and of_group.tolist() == [[0, 0]]
    # A schedule: the second placement is in force from its first request on, with two groups.
    twice = Placement((Group(TWO, (0,)), Group(TWO, (1,))))
    schedule = Schedule((0.0, 1.0), (placement, twice))
    workload = Workload.from_seconds([0, 1.25], [0, 1])
    (outcome,) = simulate(problem, schedule, workload, outputs="requests")
    edge_s, of_group = utilisation(problem, schedule, outcome, 4)
    assert edge_s.tolist() == [0, 0.5, 1, 1.5, 2]
    np.testing.assert_array_equal(of_group, [[0.5, 0.25, 0, 0], [np.nan, np.nan, 0.5, 0.5]])


# Timelines.


@pytest.mark.parametrize("change", [False, True])
def test_a_timeline_shows_every_stage_and_rejection(
    change: bool, tmp_path: Path, problem_and_placement: Any
):
    problem, placement = problem_and_placement
    shown = Schedule((0.0, 2.0), (placement, placement)) if change else placement
    workload = Workload.from_seconds([1, 1, 1, 3, 3.5, 4], [0, 1, 0, 2, -1, 1])
    (outcome,) = simulate(problem, shown, workload, outputs="requests")
    path = tmp_path / "timeline.json"
    assert write_timeline(path, problem, shown, outcome) == 6
    events = json.loads(path.read_text())["traceEvents"]
    names = {e["pid"]: e["args"]["name"] for e in events if e["name"] == "process_name"}
    threads = {
        (e["pid"], e["tid"]): e["args"]["name"] for e in events if e["name"] == "thread_name"
    }
    slices = [
        (names[e["pid"]], threads[e["pid"], e["tid"]], e["name"], e["ts"], e["dur"])
        for e in events
        if e["ph"] == "X"
    ]
    first, last = "group 0 (1,1,2)", "group 0 (1,1,2)"
    if change:
        first, last = f"placement 0, {first}", f"placement 1, {last}"
    assert sorted(slices) == sorted(
        [
            (first, "stage 0", "m0", 1e6, 25e4),
            (first, "stage 1", "m0", 1.25e6, 5e5),
            (last, "stage 0", "m1", 4e6, 25e4),
            (last, "stage 1", "m1", 4.25e6, 5e5),
        ]
    )
    marks = [
        (names[e["pid"]], threads[e["pid"], e["tid"]], e["name"], e["ts"], e["args"]["missed"])
        for e in events
        if e["ph"] == "i"
    ]
    nowhere = "no group hosts the model"
    assert marks == [
        (first, "rejected", "m1", 1e6, "BEHIND_OTHER"),
        (first, "rejected", "m0", 1e6, "BEHIND_OWN"),
        (nowhere, "rejected", "m2", 3e6, "NO_REPLICA"),
        (nowhere, "rejected", "a model that is not served", 3.5e6, "NO_REPLICA"),
    ]
    assert write_timeline(path, problem, shown, outcome, (1.5, 3.5)) == 1
    events = json.loads(path.read_text())["traceEvents"]
    assert [e["args"]["request"] for e in events if e["ph"] != "M"] == [3]


def test_another_placements_outcome_is_refused(problem_and_placement: Any, tmp_path: Path):
    problem, placement = problem_and_placement
    workload = Workload.from_seconds([0, 5], [0, 1])
    (outcome,) = simulate(problem, placement, workload, outputs="requests")
    slower = dataclasses.replace(problem, rules=Rules())
    for function in (utilisation, lambda *a: write_timeline(tmp_path / "t", *a)):
        with pytest.raises(ValueError, match="outcome is not of this problem and placement"):
            function(slower, placement, outcome)
        with pytest.raises(ValueError, match="served models that it does not host"):
            function(problem, Placement((Group(TWO, (1,)),)), outcome)
        with pytest.raises(PlacementError, match="no profile"):
            function(problem, Placement((Group(ONE, (0,)),)), outcome)
    assert not [*tmp_path.iterdir()]
    with pytest.raises(PlacementError, match="no profile"):
        miss_reasons(problem, Placement((Group(ONE, (0,)),)), outcome)
    with pytest.raises(ValueError, match="num_bins must be >= 1"):
        utilisation(problem, placement, outcome, 0)
