"""Shortcuts ask for what they rely on; without it the slow, exact way is taken."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest

from beta_jax import (
    Cluster,
    DispatchRule,
    Group,
    Placement,
    Problem,
    Rules,
    Trait,
    Workload,
    attainment_bound,
    miss_reasons,
    place,
    simulate,
    synthesize,
    utilisation,
)
from beta_jax.search import published_score
from beta_jax.search.bounds.partition import PartitionBound
from beta_jax.search.bounds.served import ServedBound
from beta_jax.search.exhaustive import _group_options
from beta_jax.search.fill import greedy
from beta_jax.search.fill.greedy import GreedyTask, fill_greedily
from beta_jax.search.local.moves import make_space
from beta_jax.search.published.branch import Share
from beta_jax.search.published.separation import balanced_divisions, make_buckets
from beta_jax.simulator.engine import Lane
from beta_jax.types import ParallelConfig

from instances import fill_partitions, mixed_problem

ONE = ParallelConfig(1, 1)
# Even groups first: what becomes of a request depends on how many groups there are before its own.
EVEN_FIRST = DispatchRule(
    "even_first", order=lambda groups: groups.clock + groups.index % 2 * 2**44
)


def ruled(problem: Problem, *, local: bool) -> Problem:
    """Under `EVEN_FIRST`, which declares what is true of it, or lies."""
    rule = dataclasses.replace(EVEN_FIRST, traits=Trait.LOCAL if local else Trait.NONE)
    return dataclasses.replace(problem, rules=Rules(dispatch=rule))


def score(problem: Problem, placement: Placement, workload: Workload) -> float:
    tally = simulate(problem, placement, workload)
    good, latency = int(tally.good.sum()), int(tally.latency_ticks.sum())
    return published_score(good, latency, len(workload), placement)


@pytest.fixture(scope="module")
def workload() -> Workload:
    return synthesize(mixed_problem().models, duration_s=40, seed=5)


def test_incremental_filling_needs_local(monkeypatch: pytest.MonkeyPatch):
    problem = mixed_problem(devices=8, memory=1.0, slo_s=0.5)
    workload, some = synthesize(problem.models, duration_s=40, seed=6), (1, 3, 4)

    def fill(local: bool, models=None) -> tuple[Placement, float]:
        task = GreedyTask(ruled(problem, local=local), workload, (ONE,) * 8, models)
        [result] = fill_greedily([task])
        return result.static, result.score

    whole, part = fill(False), fill(False, some)
    assert whole[1] == score(ruled(problem, local=False), whole[0], workload)
    monkeypatch.setattr(greedy, "LONG_SEARCH", -1)
    assert (fill(False), fill(False, some)) == (whole, part)
    assert fill(True) != whole  # so it does matter


def test_shares_add_up_only_if_local(workload: Workload):
    """Every division is scored as a whole, by brute force the best one."""
    problem = mixed_problem(devices=5, memory=2.0, slo_s=0.5)
    exact = ruled(problem, local=False)
    divisions, _ = balanced_divisions(exact, make_buckets(exact))
    candidates = [max(fill_partitions(Share(exact, workload)), key=lambda r: r.score).static]
    for division in divisions:
        groups: list[Group] = []
        for bucket, num_devices in division:
            cluster = exact.cluster.with_devices(num_devices)
            share = Share(dataclasses.replace(exact, cluster=cluster), workload, bucket)
            found = max(fill_partitions(share), key=lambda result: result.score)
            groups += found.static.groups
        candidates.append(Placement(tuple(groups)))
    assert len(candidates) > 2
    best = max(score(exact, candidate, workload) for candidate in candidates)
    assert place("mp-search-sep", exact, workload).score == best


def test_all_orders_of_groups_are_tried_unless_local(workload: Workload):
    problem = mixed_problem(devices=2, memory=1.0, slo_s=0.5)
    problem = dataclasses.replace(problem, models=problem.models[:2])
    traffic = workload.of_models((0, 1))
    exact = ruled(problem, local=False)
    options = _group_options(exact, most=1000)
    lists = [
        groups
        for count in (1, 2)
        for groups in itertools.product(options, repeat=count)
        if sum(group.config.num_devices for group in groups) <= 2
    ]
    result = place("exhaustive", exact, traffic)
    assert result.num_simulations == len(lists)
    assert result.score == max(score(exact, Placement(groups), traffic) for groups in lists)
    assert place("exhaustive", ruled(problem, local=True), traffic).num_simulations < len(lists)


def test_without_their_traits_bounds_say_nothing(
    workload: Workload, monkeypatch: pytest.MonkeyPatch
):
    problem = mixed_problem(devices=1, slo_s=0.15)
    bound = attainment_bound(problem, workload)
    assert bound < 1
    wanted = [((ONE,), (0, 1))]
    allowed = np.asarray(make_space(problem, [workload], [ONE]).weight[0]) < 2**62
    assert PartitionBound(problem, workload, wanted)(*wanted[0]) < 1 and not allowed.all()
    outcome = simulate(problem, Placement((Group(ONE, (0,)),)), workload, outputs="requests")[0]

    monkeypatch.setattr(Rules, "traits", lambda rules, *_: rules.rule.traits)
    assert attainment_bound(problem, workload) == 1.0
    assert ServedBound(problem, workload)(range(6), [1]) == len(workload)
    with pytest.raises(ValueError, match="no bound is known under Rules"):
        PartitionBound(problem, workload, wanted)
    assert (np.asarray(make_space(problem, [workload], [ONE]).weight[0]) < 2**62).all()
    for retrace in (miss_reasons, utilisation):
        with pytest.raises(ValueError, match="cannot be retraced under Rules"):
            retrace(problem, Placement((Group(ONE, (0,)),)), outcome)


def test_one_clock_per_group_needs_equal_work(workload: Workload, monkeypatch: pytest.MonkeyPatch):
    problem = dataclasses.replace(mixed_problem(), cluster=Cluster(8))
    lane = Lane(problem, (ParallelConfig(1, 4),), ((0, 2),), workload, (0, 0))
    assert lane.num_clocks == 1
    monkeypatch.setattr(Rules, "traits", lambda rules, *_: rules.rule.traits)
    assert dataclasses.replace(lane).num_clocks == 4
