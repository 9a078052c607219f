"""Searches under batching: scored by the simulator with batches, and without bounds."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from beta_jax import (
    Cluster,
    Group,
    Model,
    ParallelConfig,
    Placement,
    Problem,
    Rules,
    Workload,
    attainment_bound,
    enumerate_partitions,
    place,
    simulate,
)
from beta_jax.search import published_score
from beta_jax.search.fill import greedy
from beta_jax.search.fill.greedy import GreedyTask, fill_greedily
from beta_jax.search.published.branch import Share
from beta_jax.types import BATCH_SIZES, BATCHING

from instances import fill_partitions, make_profile

ONE = ParallelConfig(1, 1)
POLICIES = ("sr-greedy", "sr-search", "mp-search", "mp-search-sep", "local-search-300")


def tiny(seed: int, batching: str) -> tuple[Problem, Workload]:
    """Three models of two types on three devices, and bursts that batches help with.

    A batch of n takes (4 + n) / 5 times as long as one request. Shapes are all the same.
    """
    rng = np.random.default_rng(seed)
    profile = make_profile(
        {
            kind: {
                ParallelConfig(1, pp): {b: [latency_s * (4 + b) / 5 / pp] * pp for b in BATCH_SIZES}
                for pp in (1, 2)
            }
            for kind, latency_s in (("fast", 0.05), ("slow", 0.2))
        }
    )
    kinds = rng.permutation(["fast", "slow", rng.choice(["fast", "slow"])]).tolist()
    slo_s = rng.choice([0.25, 0.6, 1.5])
    models = [Model(f"m{i}", kind, slo_s, rate_rps=4.0) for i, kind in enumerate(kinds)]
    rules = Rules(batching=batching, max_batch=int(rng.choice([1, 2, 4])))
    cluster = Cluster(3, memory_bytes=float(rng.integers(1, 3)))
    burst = np.repeat(np.sort(rng.uniform(0, 8, 20)), rng.integers(1, 7, 20))
    workload = Workload.from_seconds(burst, rng.integers(0, len(kinds), len(burst)))
    return Problem(tuple(models), cluster, profile, rules), workload


def score(problem: Problem, placement: Placement, workload: Workload) -> float:
    tally = simulate(problem, placement, workload)
    good, latency = int(tally.good.sum()), int(tally.latency_ticks.sum())
    return published_score(good, latency, len(workload), placement)


@pytest.mark.parametrize("batching", BATCHING)
@pytest.mark.parametrize("seed", range(15))
def test_no_search_is_misled(seed: int, batching: str):
    """Tiny instances: every score is the simulator's, none beats the best of all placements, and
    the partition search finds the best of its partitions, as it does without bounds."""
    problem, workload = tiny(seed, batching)
    best = place("exhaustive", problem, workload)
    for policy in POLICIES:
        found = place(policy, problem, workload)
        assert found.score == pytest.approx(score(problem, found.static, workload), abs=1e-12)
        assert found.score <= best.score + 1e-12
        if policy == "mp-search":
            filled = fill_partitions(Share(problem, workload))
            assert found.score == max(result.score for result in filled)
    assert attainment_bound(problem, workload) == 1.0


def test_batches_help_bursts_and_searches_see_it():
    gains = []
    for seed in range(8):
        problem, workload = tiny(seed, "strict")
        one, four = (
            dataclasses.replace(problem, rules=Rules(batching="strict", max_batch=size))
            for size in (1, 4)
        )
        gains.append(
            place("mp-search", four, workload).score - place("mp-search", one, workload).score
        )
    assert min(gains) > -1e-3 and max(gains) > 0.02


@pytest.mark.parametrize("batching", BATCHING)
def test_filling_alone_or_together_and_for_some_models(
    batching: str, monkeypatch: pytest.MonkeyPatch
):
    """Searches that share a block, and those that could simulate only what changes."""
    problem, workload = tiny(5, batching)
    problem = dataclasses.replace(problem, cluster=Cluster(4, memory_bytes=2.0))
    tasks = [
        GreedyTask(problem, workload, partition, models)
        for partition in enumerate_partitions(problem.cluster)
        for models in (None, (0,), (0, 1))
    ]
    together = fill_greedily(tasks)
    monkeypatch.setattr(greedy, "LONG_SEARCH", -1)
    assert together == [fill_greedily([task])[0] for task in tasks]
    for task, found in zip(tasks, together, strict=True):
        assert found.score == score(problem, found.static, workload)
        hosted = {m for group in found.static.groups for m in group.models}
        assert task.models is None or hosted <= {*task.models}


def test_a_placement_by_hand():
    """One group that batches two requests of .1 s into .15 s; alone the second would be late."""
    profile = make_profile({"t": {ONE: {1: [0.1], 2: [0.15]}}})
    rules = Rules(stage_overhead=0, request_overhead_s=0, batching="strict", max_batch=2)
    problem = Problem((Model("m", "t", 0.26),), Cluster(1), profile, rules)
    workload = Workload.from_seconds([0.0, 0.0, 0.0], [0, 0, 0])
    assert place("sr-greedy", problem, workload).score > 0.99
    assert simulate(problem, Placement((Group(ONE, (0,)),)), workload).good.tolist() == [[3]]
    alone = dataclasses.replace(problem, rules=dataclasses.replace(rules, max_batch=1))
    assert simulate(alone, Placement((Group(ONE, (0,)),)), workload).good.tolist() == [[2]]
