"""Exhaustive search and the upper bound: between them lies what every policy can reach."""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pytest

from beta_jax import (
    Cluster,
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

from instances import make_profile

CONFIGS = [ParallelConfig(*c) for c in ((1, 1), (1, 2), (2, 1), (1, 4), (2, 2))]
POLICIES = (
    "sr-greedy",
    "sr-search",
    "sr-uniform",
    "sr-ilp",
    "mp-greedy-2",
    "mp-round-robin",
    "mp-equal-2-1",
    "mp-ilp",
    "mp-search",
    "mp-search-sep",
    "mp-search-evo",
    "local-search",
)
OPTIONS = {
    "mp-search-evo": {"population": 32, "generations": 5},
    "local-search": {"budget_simulations": 3000},
}


def tiny_instance(rng: np.random.Generator) -> tuple[Problem, Workload]:
    """2-4 devices, 2-4 models of two types, 1-3 of which fit a device; bursts near capacity."""
    profile = make_profile(
        {
            kind: {
                config: (
                    rng.uniform(0.8, 1.2, config.pp) * latency_s / config.num_devices
                    + 0.01 * (config.num_devices > 1)
                ).tolist()
                for config in CONFIGS
            }
            for kind, latency_s in (("fast", 0.1), ("slow", 0.2))
        }
    )
    models = tuple(
        Model(f"m{i}", str(kind), rng.uniform(0.15, 1), rng.uniform(1, 6), cv=3.0)
        for i, kind in enumerate(rng.choice(["fast", "slow"], rng.integers(2, 5)))
    )
    cluster = Cluster(int(rng.integers(2, 5)), memory_bytes=float(rng.integers(1, 4)))
    workload = synthesize(models, duration_s=20, seed=int(rng.integers(10**6)))
    return Problem(models, cluster, profile), workload


def test_no_policy_exceeds_the_best_placement(record_property):
    rng = np.random.default_rng(0)
    problems, workloads = zip(*(tiny_instance(rng) for _ in range(50)), strict=True)
    best = place_batch("exhaustive", problems, workloads)
    attainment = simulate(problems, [result.placement for result in best], workloads).attainment
    bounds = [attainment_bound(*pair) for pair in zip(problems, workloads, strict=True)]
    assert (attainment <= np.array(bounds)).all()
    assert min(bounds) < 1
    for policy in POLICIES:
        results = place_batch(policy, problems, workloads, **OPTIONS.get(policy, {}))
        gap = np.array([b.score - r.score for b, r in zip(best, results, strict=True)])
        print(f"{policy:15} mean gap {gap.mean():.4f}, optimal {(gap <= 1e-12).sum()} of 50")
        record_property(f"gap of {policy}", float(gap.mean()))
        assert gap.min() >= -1e-12, policy
        if policy == "local-search":
            assert (gap <= 1e-12).sum() >= 45
            upper = np.array([result.upper_bound for result in results])
            assert (upper >= attainment - 1e-12).all()
            own = simulate(problems, [result.placement for result in results], workloads).attainment
            np.testing.assert_allclose([result.gap for result in results], upper - own, atol=1e-12)
            assert (upper - own <= 1e-12).sum() >= 40


def test_every_order_of_every_group_is_covered():
    """Two devices, two models: the best of all lists of groups, in any order, none pruned."""
    rng = np.random.default_rng(1)
    for _ in range(4):
        problem, workload = tiny_instance(rng)
        problem = dataclasses.replace(
            problem, models=problem.models[:2], cluster=Cluster(2, memory_bytes=2.0)
        )
        workload = Workload(workload.arrival, workload.model % 2)
        options = [
            Group(config, models) for config in CONFIGS[:3] for models in ((0,), (1,), (0, 1))
        ]
        placements = [
            Placement(groups)
            for count in (1, 2)
            for groups in itertools.product(options, repeat=count)
            if Placement(groups).num_devices <= 2
        ]
        tally = simulate(problem, placements, workload)
        replicas = [placement.num_replicas for placement in placements]
        scores = tally.attainment - tally.latency_mean_all_s / 1e4 + np.array(replicas) / 1e6
        result = place("exhaustive", problem, workload)
        assert result.score == pytest.approx(scores.max(), abs=1e-12)
        assert result.num_simulations < len(placements)
        result.placement.check(problem)


def test_too_many_placements_are_refused():
    problem, workload = tiny_instance(np.random.default_rng(0))
    models = tuple(Model(f"m{i}", "fast", 1.0) for i in range(6))
    large = dataclasses.replace(problem, models=models, cluster=Cluster(8, memory_bytes=6.0))
    with pytest.raises(ValueError, match="more than 1,000,000 placements of 6 models on 8 devices"):
        place("exhaustive", large, workload)


def test_nothing_fits():
    problem, workload = tiny_instance(np.random.default_rng(0))
    problem = dataclasses.replace(problem, cluster=Cluster(4, memory_bytes=0.5))
    result = place("exhaustive", problem, workload)
    assert result.placement == Placement(())
    (warning,) = result.warnings
    assert warning.startswith("exhaustive: nothing could be placed on 4 devices: no model fits")
    assert attainment_bound(problem, workload) == 0


def bound_of(slo_s: float, arrivals: list[float], devices: int = 1, memory: float = 2.0) -> float:
    """Two models, 0.1 s on a device or 0.06 s on two; model 0 has a third of the requests."""
    profile = make_profile({"t": {CONFIGS[0]: [0.1], CONFIGS[1]: [0.06, 0.06]}})
    models = (Model("a", "t", slo_s), Model("b", "t", slo_s))
    problem = Problem(models, Cluster(devices, memory_bytes=memory), profile)
    model = np.where(np.arange(len(arrivals)) % 3 == 0, 0, 1)
    return attainment_bound(problem, Workload.from_seconds(arrivals, model))


def test_upper_bound():
    apart = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    assert bound_of(math.inf, apart) == 1
    assert bound_of(0.15, apart) == 1
    assert bound_of(0.1, apart) == 0  # a request takes 0.1009 s, and 11 ms of overhead
    assert bound_of(0.15, apart, memory=1.0) == pytest.approx(4 / 6)  # one model fits
    # 0.289 s of one device or of two, 0.1009 s each: 2.9 requests, and 5.7
    assert bound_of(0.3, [0.0] * 6) == pytest.approx(2 / 6)
    assert bound_of(0.3, [0.0] * 6, devices=2) == pytest.approx(5 / 6)
    assert math.isnan(bound_of(1.0, []))
