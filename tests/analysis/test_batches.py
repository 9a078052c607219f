"""What requests that are served in batches met, against slow loops and by hand."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beta_jax import (
    Cluster,
    Group,
    MissReason,
    Model,
    Outcome,
    ParallelConfig,
    Placement,
    Problem,
    Rules,
    Schedule,
    Workload,
    miss_reasons,
    simulate,
    utilisation,
    write_timeline,
)
from beta_jax.analysis.stage_times import Service, services
from beta_jax.types import BATCHING

import reference
import reference_batching
from batching_instances import instances, relaxed
from instances import Instance, make_profile, worked

TWO = ParallelConfig(1, 2)


def serve(instance: Instance) -> Outcome:
    (outcome,) = simulate(*instance, outputs="requests")
    return outcome


def oracle_arguments(instance: Instance) -> tuple:
    slo = [reference.duration_ticks(model.slo_s) for model in instance.problem.models]
    return (
        instance.workload.arrival.tolist(),
        instance.workload.model.tolist(),
        slo,
        instance.schedule(instance.batch_groups),
    )


@given(st.one_of(instances(), worked(instances())))
@relaxed
def test_reasons_are_those_of_the_oracle(instance: Instance):
    outcome, rules = serve(instance), instance.problem.rules
    misses = miss_reasons(instance.problem, instance.placement, outcome)
    expected = reference_batching.miss_reasons(
        *oracle_arguments(instance),
        instance.oracle(),
        round(rules.request_overhead_s * reference.TICKS_PER_SECOND),
        batching=rules.batching,
        work=instance.workload.work,
    )
    assert [MissReason(r).name if r >= 0 else "" for r in misses.reason] == expected
    assert misses.counts.sum() == (~outcome.good).sum()


def batches_of(service: Service) -> list[list[int]]:
    """The requests of each batch."""
    return [service.requests[service.batch == b].tolist() for b in range(len(service.begin))]


@given(st.one_of(instances(), worked(instances())))
@relaxed
def test_stages_work_on_one_batch_after_another(instance: Instance):
    """By both rules: each batch as long as one of its size takes, in the order of the stages."""
    outcome, schedule = serve(instance), instance.schedule(instance.batch_groups)
    oracle, rules = instance.oracle(), instance.problem.rules
    overhead = round(rules.request_overhead_s * reference.TICKS_PER_SECOND)
    served = np.zeros(len(instance.workload), bool)
    for service in services(instance.problem, instance.placement, outcome):
        group, begin, end = (
            schedule[service.segment][1][service.position],
            service.begin,
            service.end,
        )
        assert (begin[:, 1:] >= end[:, :-1]).all() and (begin[1:] >= end[:-1]).all()
        for batch, members in enumerate(batches_of(service)):
            [model] = {*instance.workload.model[members].tolist()}
            cost, work = group[model][len(members)], instance.workload.work
            if work is not None:
                cost = reference.worked(cost, work[members].max())
            assert (end - begin)[batch].tolist() == list(cost)
            served[members] = True
            late = 0 if rules.batching == "published" else overhead
            assert {*oracle.finish[members].tolist()} == {end[batch, -1] + late}
            [truly] = {*oracle.start[members].tolist()}
            if rules.batching == "strict":
                assert begin[batch, 0] == truly
            else:
                assert begin[batch, 0] >= truly
    np.testing.assert_array_equal(served, outcome.good)


@given(instances(("published",)))
@relaxed
def test_published_stages_cannot_begin_later(instance: Instance):
    """Each waits for nothing but what comes next: its next stage, or the next batch, or the end."""
    for service in services(instance.problem, instance.placement, serve(instance)):
        num_batches, num_stages = service.begin.shape
        for batch, stage in itertools.product(range(num_batches), range(num_stages - 1)):
            following = [service.begin[batch, stage + 1]]
            following += service.begin[batch + 1 : batch + 2, stage].tolist()
            assert service.end[batch, stage] == min(following)


@given(instances())
@relaxed
def test_a_batch_is_busy_once(instance: Instance):
    if not len(instance.workload) or isinstance(instance.placement, Schedule):
        return
    outcome = serve(instance)
    edge_s, of_group = utilisation(instance.problem, instance.placement, outcome, 5)
    for service in services(instance.problem, instance.placement, outcome):
        busy_s = (of_group[service.position] * np.diff(edge_s)).sum() * service.group.config.pp
        assert busy_s == pytest.approx((service.end - service.begin).sum() / 1e9, abs=1e-6)


def by_hand(
    batching: str, slo_s: float = math.inf, max_batch: int = 2, overhead_s: float = 0
) -> tuple[Problem, Placement]:
    """Two stages of 1 and 2 s, of 1 and 3 for two requests."""
    profile = make_profile({"t": {TWO: {1: [1.0, 2.0], 2: [1.0, 3.0]}}})
    rules = Rules(
        stage_overhead=0, request_overhead_s=overhead_s, batching=batching, max_batch=max_batch
    )
    models = Model("m", "t", slo_s), Model("n", "t", math.inf)
    return Problem(models, Cluster(2), profile, rules), Placement((Group(TWO, (0, 1)),))


def test_stages_by_hand():
    """The second batch may begin at 1; a request that waits for the last stage until 3, as late as
    at 2 by the published rules, where its finish says no more."""
    workload = Workload.from_seconds([0, 0.5, 0.5], [0, 0, 0])
    for batching, begin in (("strict", [[0, 1], [1, 3]]), ("published", [[0, 1], [2, 3]])):
        problem, placement = by_hand(batching)
        (outcome,) = simulate(problem, placement, workload, outputs="requests")
        [service] = services(problem, placement, outcome)
        assert service.batch.tolist() == [0, 1, 1]
        assert (service.begin / 1e9).tolist() == begin
        assert (service.end / 1e9).tolist() == [[1, 3], [begin[1][0] + 1, 6]]
        edge_s, of_group = utilisation(problem, placement, outcome, 1)
        assert edge_s.tolist() == [0, 6]
        assert of_group[0, 0] == pytest.approx((1 + 2 + 1 + 3) / (2 * 6))


@pytest.mark.parametrize("batching", BATCHING)
def test_misses_by_hand(batching: str):
    """Alone a request takes 3 s, behind another one 5 s, behind a batch of two 6 s and more."""

    def reasons(slo_s: float, models: list[int]) -> list[str]:
        problem, placement = by_hand(batching, slo_s)
        workload = Workload.from_seconds([0.0] * len(models), models)
        (outcome,) = simulate(problem, placement, workload, outputs="requests")
        found = miss_reasons(problem, placement, outcome).reason
        return ["" if reason < 0 else MissReason(reason).name for reason in found]

    assert reasons(2.5, [0]) == ["SLO_TOO_SHORT"]
    assert reasons(4.5, [0, 0]) == ["", "BEHIND_OWN"]
    assert reasons(4.5, [1, 0]) == ["", "BEHIND_OTHER"]
    assert reasons(5.5, [0, 0, 0]) == ["", "", "BEHIND_OWN"]
    assert reasons(6.0, [0, 0, 0]) == ["", "", ""]
    assert reasons(6.0, [0, 0, 0, 0]) == ["", "", "", "BEHIND_OWN"]


def test_a_miss_behind_the_overhead_of_the_request_in_front():
    """By the published rules that enters the pipeline late, so that the second takes 6 s."""
    problem, placement = by_hand("published", 5.75, overhead_s=0.5)
    workload = Workload.from_seconds([0, 0], [0, 0])
    (outcome,) = simulate(problem, placement, workload, outputs="requests")
    reason = miss_reasons(problem, placement, outcome).reason
    assert reason.tolist() == [-1, MissReason.BEHIND_OWN]


@pytest.mark.parametrize("batching", BATCHING)
def test_a_timeline_shows_a_batch_once(batching: str, tmp_path: Path):
    problem, placement = by_hand(batching)
    workload = Workload.from_seconds([0, 0.5, 0.75], [0, 0, 0])
    (outcome,) = simulate(problem, placement, workload, outputs="requests")
    path = tmp_path / "timeline.json"
    assert write_timeline(path, problem, placement, outcome) == 3
    slices = [e for e in json.loads(path.read_text())["traceEvents"] if e["ph"] == "X"]
    assert [e["args"]["request"] for e in slices] == [0, 1, 0, 1]
    assert ["together_with" in e["args"] for e in slices] == [False, True] * 2
    assert slices[1]["args"]["together_with"] == [2]
    assert (slices[3]["ts"], slices[3]["dur"]) == (3e6, 3e6)
    # A batch is shown with any of its requests.
    assert write_timeline(path, problem, placement, outcome, (0.6, 1.0)) == 1
    slices = [e for e in json.loads(path.read_text())["traceEvents"] if e["ph"] == "X"]
    assert [e["args"]["request"] for e in slices] == [1, 1]


@pytest.mark.parametrize("batching", BATCHING)
def test_another_outcome_is_refused(batching: str):
    problem, placement = by_hand(batching)
    workload = Workload.from_seconds([0, 0.5, 0.5], [0, 0, 0])
    (outcome,) = simulate(problem, placement, workload, outputs="requests")
    alone, _ = by_hand(batching, max_batch=1)
    mixed = Outcome(
        Workload(workload.arrival, np.array([0, 0, 1])),
        outcome.finish,
        outcome.good,
        outcome.group,
        outcome.counted,
    )
    for own, found in ((alone, outcome), (problem, mixed)):
        with pytest.raises(ValueError, match="outcome is not of this problem and placement"):
            utilisation(own, placement, found)
