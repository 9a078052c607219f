"""Branch and bound over partitions and divisions: bounds hold, and what wins does not change."""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beta_jax import (
    Cluster,
    Dispatch,
    Group,
    Model,
    ParallelConfig,
    Placement,
    Problem,
    Workload,
    place,
    place_batch,
    simulate,
    synthesize,
)
from beta_jax.search import attainment_bound
from beta_jax.search.bounds.partition import REPLICAS, PartitionBound
from beta_jax.search.bounds.work import served_together
from beta_jax.search.published import branch, separation
from beta_jax.search.published.branch import Share, ShareSearch
from beta_jax.search.published.pipelines import search_partitions
from beta_jax.search.published.separation import balanced_divisions, make_buckets
from beta_jax.search.result import Result, score_counts

from instances import CONFIGS, fill_partitions, make_profile, mixed_problem, problems, workloads

relaxed = settings(max_examples=60)


@pytest.fixture(scope="module")
def workload() -> Workload:
    return synthesize(mixed_problem().models, duration_s=60, seed=3)


@pytest.fixture(params=[branch.LONG, 0], ids=["short", "long"])
def length(request: pytest.FixtureRequest):
    """Partitions are bounded for long workloads only; here for none, or for all."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(branch, "LONG", request.param)
        yield


@given(st.data())
@relaxed
def test_no_placement_scores_more_than_its_partitions_bound(data: st.DataObject):
    """Whatever its groups host and however it dispatches."""
    problem = data.draw(problems(tuple(Dispatch)))
    memory = data.draw(st.sampled_from((0.5, 1.0, 2.0)))
    problem = dataclasses.replace(problem, cluster=Cluster(64, memory_bytes=memory))
    workload = data.draw(workloads(3))
    groups = st.tuples(
        st.sampled_from(CONFIGS), st.sets(st.integers(0, 2), max_size=int(memory)).map(sorted)
    )
    hosting = data.draw(st.lists(groups, min_size=1, max_size=6))
    placement = Placement(tuple(Group(config, tuple(models)) for config, models in hosting))
    tally = simulate(problem, placement, workload)
    good, latency = tally.good.sum(), tally.latency_ticks.sum()
    score = score_counts(good, latency, len(workload), placement.num_replicas)
    partition = tuple(config for config, _ in hosting)
    used = sorted({m for _, models in hosting for m in models})
    wanted = [(partition, (0, 1, 2)), (partition, tuple(used))]
    bound = PartitionBound(problem, workload, wanted)
    assert all(score <= bound(*own) + 1e-12 for own in wanted)
    attained = good / max(len(workload), 1)
    assert all(attained <= bound(*own, attainment=True) + 1e-12 for own in wanted)
    assert (served_together(problem, workload, wanted) >= good - 1e-6).all()


@given(
    st.lists(st.sampled_from((0, 10, 20, 50, 120)), min_size=1, max_size=6),
    st.sampled_from((0.06, 0.1, 0.16, 0.25)),
    st.integers(1, 2),
)
@relaxed
def test_first_come_first_served_is_best_for_one_model_alone(gaps_ms, slo_s, groups):
    """Brute force: each request is sent to either group, or to none."""
    config, stages_ms = ParallelConfig(1, 2), (30, 20)
    profile = make_profile({"t": {config: [ms / 1000 for ms in stages_ms]}})
    models = (Model("m", "t", slo_s),)
    rules = dataclasses.replace(mixed_problem().rules, stage_overhead=0.0, request_overhead_s=0.0)
    problem = Problem(models, Cluster(64, memory_bytes=1.0), profile, rules)
    arrival_ms = np.cumsum(gaps_ms)
    workload = Workload.from_seconds(arrival_ms / 1000, np.zeros(len(gaps_ms), np.int32))

    def served(sent: tuple[int, ...]) -> int:
        clocks = [[0, 0] for _ in range(groups)]
        for t, group in zip(arrival_ms, sent, strict=True):
            if group < groups:
                finish = t
                for k, ms in enumerate(stages_ms):
                    finish = clocks[group][k] = max(finish, clocks[group][k]) + ms
                if finish - t > slo_s * 1000:
                    return 0
        return sum(group < groups for group in sent)

    most = max(map(served, itertools.product(range(groups + 1), repeat=len(gaps_ms))))
    one = (config,) * groups, (0,)
    found = PartitionBound(problem, workload, [one])(*one)
    idle_s = sum(stages_ms) / 1000
    assert found == pytest.approx(score_counts(most, most * idle_s * 1e9, len(gaps_ms), groups))


def test_memory_decides_who_is_bounded_to_be_served():
    """Of three models that are asked for 3, 2 and 1 times two fit; a fourth replica is in part."""
    profile = make_profile({"t": {ParallelConfig(1, 1): [0.1]}})
    models = tuple(Model(f"m{i}", "t", 1.0) for i in range(3))
    problem = Problem(models, Cluster(1, memory_bytes=2.0), profile)
    workload = Workload.from_seconds(range(0, 12, 2), [0, 0, 0, 1, 1, 2])
    one, crowded = (((ParallelConfig(1, 1),) * n) for n in (1, REPLICAS + 3))
    wanted = [(one, (0, 1, 2)), (one, (2,)), (crowded, (0, 1, 2))]
    bound = PartitionBound(problem, workload, wanted)
    found = place("mp-search", problem, workload)
    assert found.score == pytest.approx(bound(*wanted[0]), abs=1e-3)
    assert bound(*wanted[1]) == pytest.approx(1 / 6, abs=1e-4)
    assert bound(*wanted[2]) == pytest.approx(1 + 14e-6 - 0.1119e-4, abs=1e-8)


def test_each_kind_of_group_has_memory_of_its_own():
    """A single device and a pipeline hold one model each, not three of what one device holds."""
    single, pipeline = ParallelConfig(1, 1), ParallelConfig(1, 2)
    profile = make_profile({"t": {single: [0.1], pipeline: [0.05, 0.05]}})
    models = tuple(Model(f"m{i}", "t", 1.0) for i in range(3))
    problem = Problem(models, Cluster(3, memory_bytes=1.0), profile)
    workload = Workload.from_seconds([0, 2, 4], [0, 1, 2])
    both = (single, pipeline), (0, 1, 2)
    assert PartitionBound(problem, workload, [both])(*both, attainment=True) == 2 / 3


def test_work_decides_how_many_are_bounded_to_be_served():
    """Ten requests of 0.1 s and 20 of 0.4 s at once: 1.5 s hold all short ones, 1.25 long ones."""
    problem = mixed_problem(slo_s=1.5)
    rules = dataclasses.replace(problem.rules, stage_overhead=0.0, request_overhead_s=0.0)
    problem = dataclasses.replace(problem, rules=rules)
    workload = Workload.from_seconds(np.zeros(30), [0, 1, 0] * 10)
    single, pipeline = ParallelConfig(1, 1), ParallelConfig(1, 2)
    both = (0, 1)
    served = served_together(
        problem,
        workload,
        [
            ((single,), both),
            ((single,) * 2, both),
            ((single,), (0,)),
            ((pipeline,), both),  # 0.21 or 0.0525 s per stage, which all leave 0.0525 s before
            ((single, pipeline), (0,)),
        ],
    )
    late = 1.5 - 0.0525
    assert served == pytest.approx(
        [
            10 + 0.5 / 0.4,
            10 + 2.0 / 0.4,
            1.5 / 0.4,
            10 + (late - 0.525) / 0.21,
            1.5 / 0.4 + (1.5 - 0.21) / 0.21,  # each group what it can in its own window
        ]
    )


def test_no_share_scores_more_than_its_bound(workload: Workload):
    """Nor does a model that nobody asks for take room in the bound from one that is."""
    rare = Workload.from_seconds([1.0, 1.0, 2.0], [5, -1, 5])
    nobody = Workload(np.zeros(0), np.zeros(0))
    for traffic, slo_s in itertools.product((workload, rare, nobody), (0.5, 2.0, math.inf)):
        for devices, memory in ((3, 1.0), (5, 2.0)):
            plan = separation._candidates(mixed_problem(devices, memory, slo_s), traffic)
            found = search_partitions([own.share for own in plan.shares])
            for own, result in zip(plan.shares, found, strict=True):
                assert result.score <= own.score + 1e-12
    one = dataclasses.replace(mixed_problem(1, 1.0), models=mixed_problem().models[:2])
    assert attainment_bound(one, Workload.from_seconds([1.0], [1])) == 1


@pytest.mark.usefixtures("length")
@pytest.mark.parametrize("slo_s", (0.15, 0.7, math.inf))
def test_the_search_finds_the_first_best_partition(workload: Workload, slo_s: float):
    shares = [
        Share(mixed_problem(devices, slo_s=slo_s), traffic, models)
        for devices in (3, 8)
        for models in (None, (0, 2), (1, 3, 4, 5))
        for traffic in (workload, Workload(workload.arrival[:0], workload.model[:0]))
    ]
    for share, found in zip(shares, search_partitions(shares), strict=True):
        filled = fill_partitions(share)
        best = max(filled, key=lambda result: result.score)
        assert (found.placement, found.score) == (best.placement, best.score)


@pytest.mark.usefixtures("length")
@pytest.mark.parametrize("policy", ["mp-search", "mp-search-sep"])
@pytest.mark.parametrize("slo_s", (0.7, 2.0))
def test_a_tolerance_costs_no_more_attainment(workload: Workload, policy: str, slo_s: float):
    problem = mixed_problem(8, slo_s=slo_s)
    best = place(policy, problem, workload)
    for millionths in (1, 50_000):
        found = place(f"{policy}-within-{millionths}", problem, workload)
        assert found.attainment >= best.attainment - millionths / 1e6 - 1e-12
        [attained] = simulate(problem, found.placement, workload).attainment
        assert found.attainment == pytest.approx(attained)


def test_partitions_are_filled_only_where_they_can_win(monkeypatch, workload: Workload):
    """With a tight SLO single devices serve the slow models never."""
    problem = mixed_problem(8, slo_s=0.25)
    everything = place("mp-search", problem, workload)
    monkeypatch.setattr(branch, "LONG", 0)
    monkeypatch.setattr(branch, "AT_ONCE", 1)
    found = place("mp-search", problem, workload)
    assert found.placement == everything.placement
    assert found.num_simulations < everything.num_simulations
    served = place("mp-search", mixed_problem(8, slo_s=2.0), workload)
    generous = place("mp-search", mixed_problem(8, slo_s=2.0), workload, tolerance=1.0)
    assert generous.num_simulations < served.num_simulations


def test_divisions_are_searched_only_where_they_can_win(monkeypatch, workload: Workload):
    """With few devices much is lost in a bucket that has too few of them: nothing else matters."""
    problem = mixed_problem(7, slo_s=0.7)
    for long in (branch.LONG, 0):
        monkeypatch.setattr(branch, "LONG", long)
        plan = separation._candidates(problem, workload)
        branch.explore([plan])
        assert 0 < sum(bool(own.filled) for own in plan.shares) < len(plan.shares)


@pytest.mark.usefixtures("length")
def test_separation_is_the_best_division(workload: Workload):
    """Leaving out divisions by their bound changes nothing; the joined one wins if better."""
    for devices, slo_s in ((4, 1.0), (6, 0.7), (7, 2.0)):
        problem = mixed_problem(devices, slo_s=slo_s)
        joined = place("mp-search", problem, workload)
        best, winner = joined.score, joined.placement
        for division in balanced_divisions(problem, make_buckets(problem))[0]:
            parts = [
                max(fill_partitions(separation._share(problem, workload, *share)), key=_score)
                for share in division
            ]
            placement = Placement(tuple(g for part in parts for g in part.static.groups))
            tally = simulate(problem, placement, workload)
            score = tally.attainment[0] - tally.latency_mean_all_s[0] / 1e4
            score += placement.num_replicas / 1e6
            if score > best + 1e-12 or (winner == joined.placement and score >= best - 1e-12):
                best, winner = score, placement
        result = place("mp-search-sep", problem, workload)
        assert result.score == pytest.approx(best, abs=1e-12)
        assert result.placement == winner


def _score(result) -> float:
    return result.score


@pytest.mark.usefixtures("length")
@pytest.mark.parametrize("policy", ("mp-search", "mp-search-sep"))
def test_what_instances_have_in_common_changes_nothing(policy: str, workload: Workload):
    instances = [
        (mixed_problem(devices, slo_s=slo_s), workload)
        for devices, slo_s in ((4, 0.7), (6, 0.7), (6, 2.0), (4, 0.7))
    ]
    together = place_batch(policy, *zip(*instances, strict=True))
    assert together == [place(policy, *instance) for instance in instances]


def test_of_equal_scores_the_first_partition_wins(workload: Workload):
    search = ShareSearch(Share(mixed_problem(), workload), most=0.5)
    later, first = (Result(Placement(()), 0.5, n) for n in (1, 2))
    search.add(2, later)
    assert {0, 1} <= set(search.unknown)  # these may score as much, and come first
    search.add(0, first)
    assert search.best() is first


def test_effort_is_the_share_of_the_requests(workload: Workload):
    problem = mixed_problem()
    parts = [
        ShareSearch(Share(problem, workload, models)).effort for models in ((0, 2, 4), (1, 3, 5))
    ]
    assert sum(parts) == pytest.approx(1) and min(parts) > 0
    assert ShareSearch(Share(problem, workload)).effort == 1
