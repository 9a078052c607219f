"""Policies on clusters of several pools: what is valid, what is best, what stays as it was."""

from __future__ import annotations

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from beta_jax import (
    Cluster,
    Group,
    Model,
    ParallelConfig,
    Placement,
    Pool,
    Problem,
    Profile,
    Workload,
    place,
    place_batch,
    simulate,
    synthesize,
)
from beta_jax.placement.codec import Codec
from beta_jax.search import attainment_bound
from beta_jax.search.local.moves import Placements, children, make_space
from beta_jax.search.published.separation import divisions_of, make_buckets

from instances import make_profile, mixed_problem

CONFIGS = (ParallelConfig(1, 1), ParallelConfig(1, 2), ParallelConfig(2, 1))
MIXED = (
    "sr-greedy",
    "sr-search",
    "sr-uniform",
    "sr-ilp",
    "sr-replace-10",
    "mp-greedy-2",
    "mp-ilp",
    "mp-search",
    "mp-search-sep",
    "mp-search-evo",
)
OPTIONS = {"mp-search-evo": {"population": 32, "generations": 5}}


def profile_of(rng: np.random.Generator, kinds: dict[str, float]) -> Profile:
    return make_profile(
        {
            kind: {
                config: (
                    rng.uniform(0.8, 1.2, config.pp) * latency_s / config.num_devices + 0.01
                ).tolist()
                for config in CONFIGS
            }
            for kind, latency_s in kinds.items()
        }
    )


def tiny_mixed(rng: np.random.Generator) -> tuple[Problem, Workload]:
    """Two and one devices, the second faster or slower and without one type now and then."""
    kinds = {"fast": 0.1, "slow": 0.2}
    profiles = {"a": profile_of(rng, kinds)}
    kept = [("fast", "slow"), ("slow",)][int(rng.random() < 0.3)]
    profiles["b"] = profile_of(rng, {kind: kinds[kind] * rng.uniform(0.5, 2) for kind in kept})
    pools = [Pool(name, n, float(rng.integers(1, 3))) for name, n in (("a", 2), ("b", 1))]
    models = tuple(
        Model(f"m{i}", kind, rng.uniform(0.15, 1), rng.uniform(1, 6), cv=3.0)
        for i, kind in enumerate(("fast", "slow", str(rng.choice([*kinds]))))
    )
    workload = synthesize(models, duration_s=20, seed=int(rng.integers(10**6)))
    return Problem(models, Cluster(pools=pools), profiles), workload


def test_no_policy_exceeds_the_best_placement_which_local_search_finds():
    rng = np.random.default_rng(0)
    problems, workloads = zip(*(tiny_mixed(rng) for _ in range(30)), strict=True)
    best = place_batch("exhaustive", problems, workloads)
    attainment = simulate(problems, [result.placement for result in best], workloads).attainment
    bounds = [attainment_bound(*pair) for pair in zip(problems, workloads, strict=True)]
    assert (attainment <= np.array(bounds)).all()
    assert sum({g.config.pool for g in r.static.groups} == {0, 1} for r in best) > 15
    found = place_batch("local-search", problems, workloads, budget_simulations=1000)
    gap = np.array([b.score - r.score for b, r in zip(best, found, strict=True)])
    print(f"local search: optimal {(gap <= 1e-12).sum()} of 30, mean gap {gap.mean():.5f}")
    assert gap.min() >= -1e-12 and (gap <= 1e-12).sum() >= 27
    for problem, result in zip(problems, found, strict=True):
        result.static.check(problem)
    for policy in MIXED:
        results = place_batch(policy, problems[:3], workloads[:3], **OPTIONS.get(policy, {}))
        for problem, result, most in zip(problems, results, best, strict=False):
            result.placement.check(problem)
            assert result.score <= most.score + 1e-12 or policy == "sr-replace-10"


def twins(problem: Problem, *num_devices: int) -> Problem:
    """The problem on pools of equal devices."""
    (pool,) = problem.cluster.pools
    pools = [
        dataclasses.replace(pool, name=f"p{i}", num_devices=n) for i, n in enumerate(num_devices)
    ]
    profiles = {pool.name: problem.profile for pool in pools}
    return Problem(problem.models, Cluster(pools=pools), profiles, problem.rules)


def in_one_pool(placement: Placement) -> Placement:
    groups = (Group(group.config._replace(pool=0), group.models) for group in placement.groups)
    return Placement(tuple(groups))


@pytest.fixture(scope="module")
def workload() -> Workload:
    return synthesize(mixed_problem().models, duration_s=60, seed=3)


@pytest.mark.parametrize("policy", ["mp-search", "mp-search-sep"])
def test_more_pools_are_never_worse_in_training(policy: str, workload: Workload):
    problem = mixed_problem(devices=6)
    pair = twins(problem, 4, 2)
    alone = [dataclasses.replace(problem, cluster=Cluster(n, 3.0)) for n in (4, 2)]
    together, *parts = place_batch(policy, [pair, *alone], [workload] * 3)
    assert together.score >= max(part.score for part in parts)
    # Groups of equal devices serve alike, whichever pool these are in.
    as_one = simulate(problem, in_one_pool(together.static), workload)
    of_two = simulate(pair, together.placement, workload)
    for field in dataclasses.fields(of_two):
        np.testing.assert_array_equal(getattr(as_one, field.name), getattr(of_two, field.name))


@pytest.mark.parametrize("policy", ["mp-search", "mp-search-sep"])
def test_a_pool_that_can_only_harm_is_left_alone(policy: str, workload: Workload):
    """Requests that are sent to its devices are late, and filling groups hosts models there."""
    problem = mixed_problem(devices=4)
    kinds = {model.type for model in problem.models}
    late = make_profile({kind: {c: [5.0] * c.pp for c in CONFIGS} for kind in kinds})
    pools = [*problem.cluster.pools, Pool("late", 2, 3.0)]
    profiles = {"devices": problem.profile, "late": late}
    both = Problem(problem.models, Cluster(pools=pools), profiles)
    assert place(policy, both, workload).score == place(policy, problem, workload).score


def test_one_named_pool_is_the_published_case(workload: Workload):
    problem = mixed_problem()
    named = twins(problem, 6)
    for policy in ("mp-search-sep", "sr-uniform", "mp-round-robin", "mp-equal-2-1"):
        assert place(policy, named, workload) == place(policy, problem, workload)


def test_a_pool_without_devices_is_as_none(workload: Workload):
    problem = mixed_problem()
    for policy in ("sr-greedy", "mp-search", "mp-search-sep"):
        result = place(policy, twins(problem, 6, 0), workload)
        assert result == place(policy, problem, workload)


def test_devices_of_every_pool_are_divided_among_buckets():
    """Every bucket gets some, of any pool."""
    pair = twins(mixed_problem(), 2, 2)
    buckets = make_buckets(pair)
    divisions, imbalance = divisions_of(pair, buckets, np.ones(6))
    expected = {
        ((a, b), (2 - a, 2 - b)) for a, b in itertools.product(range(3), repeat=2) if 0 < a + b < 4
    }
    assert {tuple(devices for _, devices in division) for division in divisions} == expected
    assert len(divisions) == len(expected) == len(imbalance)


def test_uniform_replication_is_per_pool(workload: Workload):
    pair = twins(mixed_problem(memory=1.0), 2, 3)
    groups = place("sr-uniform", pair, workload).static.groups
    assert [(g.config.pool, g.models) for g in groups] == [
        (0, (0,)),
        (0, (1,)),
        (1, (0,)),
        (1, (1,)),
        (1, (2,)),
    ]


@pytest.mark.parametrize("policy", ["mp-equal-2-1", "mp-round-robin"])
def test_manual_choices_are_for_one_pool(policy: str, workload: Workload):
    with pytest.raises(ValueError, match="one pool, not of p0, p1"):
        place(policy, twins(mixed_problem(), 4, 2), workload)


def test_moves_stay_in_their_pools_and_reach_empty_ones():
    """Every child is valid, and some found a group in the pool that their parent leaves empty."""
    pair = twins(mixed_problem(), 2, 4)
    configs = [c._replace(pool=pool) for pool in range(2) for c in CONFIGS]
    codec = Codec(sorted(configs), 6, 8)
    parent = Placement((Group(CONFIGS[0], (0,)), Group(CONFIGS[0], (1, 2))))
    space = make_space(pair, [], codec.configs)
    start = Placements(*map(jnp.asarray, codec.encode([parent])))
    key, unserved = jax.random.key(0), jnp.ones((1, 6))
    brood = children(key, space, start, unserved, jnp.zeros(256, jnp.int32))
    found = [codec.decode(*lane) for lane in zip(*map(np.asarray, brood), strict=True)]
    for child in found:
        child.check(pair)
    pools = [{group.config.pool for group in child.groups} for child in found]
    assert {0, 1} in pools and {0} in pools
