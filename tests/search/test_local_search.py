"""The policy `beta`: valid, never below its starts, better where groups must differ, in bounds."""

from __future__ import annotations

import dataclasses
import itertools
import math
import types

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
    PlacementError,
    Problem,
    Workload,
    attainment_bound,
    compare_placements,
    place,
    simulate,
    synthesize_many,
)
from beta_jax.placement.codec import Codec
from beta_jax.search.local.climb import improve
from beta_jax.search.local.moves import Placements, bytes_loaded, children, make_space
from beta_jax.search.objective import Objective
from beta_jax.search.scoring import Scores
from beta_jax.workloads.requests import WorkloadError
from beta_jax.workloads.synthesis import join

from instances import make_profile

CONFIGS = [ParallelConfig(*c) for c in ((1, 1), (1, 2), (1, 4), (2, 1), (2, 2))]


def make_problem(memory: float = 2.0, slo_s: float = 0.5, num_devices: int = 8) -> Problem:
    """Six models of two types, of which two fit a device."""
    profile = make_profile(
        {
            kind: {
                c: [latency_s / c.num_devices * 1.1 ** (c.num_devices > 1)] * c.pp for c in CONFIGS
            }
            for kind, latency_s in (("fast", 0.05), ("slow", 0.2))
        }
    )
    models = tuple(
        Model(f"m{i}", "fast" if i % 2 else "slow", slo_s, rate_rps=4.0, cv=4.0) for i in range(6)
    )
    return Problem(models, Cluster(num_devices, memory_bytes=memory), profile)


PROBLEM = make_problem()
TRAFFIC = synthesize_many(PROBLEM.models, seeds=range(4), duration_s=60)


def mean_score(placement: Placement, workloads: list[Workload]) -> float:
    tally = simulate(PROBLEM, placement, workloads)
    score = tally.attainment - tally.latency_mean_all_s / 1e4
    return float(score.mean()) + placement.num_replicas / 1e6


def test_better_than_the_published_search_and_reproducible():
    start = place("mp-search", PROBLEM, TRAFFIC)
    found = place("local-search", PROBLEM, TRAFFIC, budget_simulations=6000)
    found.static.check(PROBLEM)
    assert found.score == pytest.approx(mean_score(found.static, TRAFFIC), abs=1e-12)
    assert found.score > mean_score(start.static, TRAFFIC)
    simulations, scores = zip(*found.history, strict=True)
    assert scores[-1] == found.score and list(scores) == sorted(scores)
    assert list(simulations) == sorted(simulations) and simulations[-1] <= found.num_simulations
    assert found == place("local-search", PROBLEM, TRAFFIC, budget_simulations=6000)
    other = place("local-search", PROBLEM, TRAFFIC, budget_simulations=6000, seed=1)
    assert other.history[1:] != found.history[1:]


def test_without_a_budget_it_is_the_best_start():
    for options in ({"budget_simulations": 0}, {"budget_s": 0.0}):
        found = place("local-search", PROBLEM, TRAFFIC, **options)
        assert found.score >= mean_score(place("mp-search", PROBLEM, TRAFFIC).static, TRAFFIC)
        assert len(found.history) == 1


def test_seconds(monkeypatch: pytest.MonkeyPatch):
    clock = itertools.count(step=0.25)
    own = types.SimpleNamespace(perf_counter=lambda: next(clock))  # nobody else's calls count
    monkeypatch.setattr("beta_jax.search.local.climb.time", own)
    found = place("local-search", PROBLEM, TRAFFIC, budget_s=1.0)
    rounds = improve(PROBLEM, TRAFFIC, Objective())
    *_, expected = itertools.islice(rounds, 1 + 3)  # looks at 1/4, ..., 4/4 s
    assert (found.placement, found.num_simulations) == (expected.placement, expected[0])


def test_a_longer_search_begins_with_the_shorter_one():
    shorter, longer = (
        place("local-search", PROBLEM, TRAFFIC, budget_simulations=budget)
        for budget in (1500, 6000)
    )
    assert longer.history[: len(shorter.history)] == shorter.history
    assert longer.score > shorter.score and longer.num_simulations > shorter.num_simulations


def test_the_number_of_cores_changes_nothing(monkeypatch: pytest.MonkeyPatch):
    found = []
    for cores in ({0}, {0, 1}, {*range(5)}):
        monkeypatch.setattr("os.sched_getaffinity", lambda _, cores=cores: cores)
        found.append(place("local-search", PROBLEM, TRAFFIC, budget_simulations=1500))
    assert found[0] == found[1] == found[2]


def test_it_stops_where_nothing_more_can_be_served():
    light = [workload.part(0, 3) for workload in TRAFFIC]
    found = place("local-search", PROBLEM, light, budget_simulations=10**9)
    assert (found.upper_bound, found.gap, found.expected_loss) == (1.0, 0.0, 0.0)
    some = place("local-search", PROBLEM, TRAFFIC, budget_simulations=100)
    assert some.upper_bound <= np.mean([attainment_bound(PROBLEM, w) for w in TRAFFIC])
    assert some.gap == pytest.approx(
        some.upper_bound - simulate(PROBLEM, some.placement, TRAFFIC).attainment.mean()
    )


def test_every_placement_of_a_tiny_problem_is_tried_on_all_workloads():
    problem = dataclasses.replace(PROBLEM, models=PROBLEM.models[:2], cluster=Cluster(2, 2.0))
    workloads = [workload.of_models([0, 1]) for workload in TRAFFIC]
    found = place("local-search", problem, workloads, budget_simulations=20_000)
    climbed = place("local-search", problem, workloads, budget_simulations=1)
    assert found.score >= climbed.score and found.history == () != climbed.history
    assert found.gap == 0 and found.upper_bound <= climbed.upper_bound
    alone = place("exhaustive", problem, workloads[0])
    assert alone == place("local-search", problem, workloads[0], budget_simulations=20_000)


def test_groups_of_different_sizes():
    """One model needs two devices, the other must not share: no equal partition serves both."""
    one, two = ParallelConfig(1, 1), ParallelConfig(2, 1)
    profile = make_profile({"large": {two: [0.1]}, "small": {one: [0.1]}}, weight_bytes=1.0)
    models = (Model("large", "large", 0.15, 1.0), Model("small", "small", 0.15, 1.0))
    problem = Problem(models, Cluster(3, memory_bytes=1.0), profile)
    workload = Workload.from_seconds([0.0, 0.0, 1.0, 1.0], [0, 1, 0, 1])
    found = place("local-search", problem, workload, budget_simulations=1000)
    assert sorted(group.config for group in found.static.groups) == [one, two]
    assert found.score > 0.99


def test_children_are_valid_and_reach_everything():
    problem = make_problem(num_devices=8)
    codec, space = Codec(CONFIGS, 6, 8), make_space(problem, [], CONFIGS)
    start = Placement((Group(CONFIGS[2], (0, 1)), Group(CONFIGS[0], (3, 4))))
    parents = Placements(*map(jnp.asarray, codec.encode([start] * 64)))
    assert codec.decode(*(array[0] for array in parents)) == start
    seen = set()
    for turn in range(20):
        key = jax.random.key(turn)
        unserved = jnp.arange(64.0 * 6).reshape(64, 6)
        parents = children(key, space, parents, unserved, jnp.arange(64))
        for lane in range(64):
            child = codec.decode(*(array[lane] for array in parents)).without_empty()
            child.check(problem)
            seen |= {group.config for group in child.groups}
            seen |= {len(child.groups)}
    assert seen >= {*CONFIGS, 2, 3, 4, 5, 6}


def test_a_group_that_would_be_late_even_when_idle_is_not_used():
    problem = make_problem(slo_s=0.13)  # slow models take 0.11 s where op is 2, 0.2 s elsewhere
    weight = np.asarray(make_space(problem, [], CONFIGS).weight)
    assert (weight[:, 0] < 2**62).tolist() == [False, False, False, True, True, False]
    assert (weight[:, 1] < 2**62).tolist() == [True] * 5 + [False]


def test_bytes_loaded_and_their_bound():
    start = place("sr-greedy", PROBLEM, TRAFFIC[0]).static
    codec, space = Codec(CONFIGS, 6, 8), make_space(PROBLEM, [], CONFIGS)
    origin = Placements(*codec.encode([start]))
    groups = list(start.groups)
    added = next(m for m in range(6) if m not in groups[1].models)
    groups[0] = Group(ParallelConfig(1, 1), ())
    groups[1] = Group(groups[1].config, (*groups[1].models, added))
    groups[2:4] = [Group(ParallelConfig(1, 2), (0, 1))]
    after = Placements(*codec.encode([Placement(tuple(groups))]))
    shifted = sum(
        len(set(group.models) - set(old.models))
        for group, old in zip(groups[3:], start.groups[3:], strict=False)
    )
    assert float(bytes_loaded(space, origin, after)[0]) == 1 + 4 + shifted
    for limit in (0, 2):
        options = {"start_from": start, "max_bytes_moved": limit, "budget_simulations": 4000}
        found = place("local-search", PROBLEM, TRAFFIC, **options)
        assert compare_placements(PROBLEM, start, found.static).bytes_moved <= limit
        assert found.score >= mean_score(start, TRAFFIC)
    free = place("local-search", PROBLEM, TRAFFIC, start_from=start, budget_simulations=4000)
    assert min(free.score, found.score) > mean_score(start, TRAFFIC)


@pytest.mark.parametrize(
    ("worst_share", "fairness", "expected"),
    [
        (1.0, 0.0, [0.5, 0.6]),
        (0.5, 0.0, [0.35, 0.55]),
        (0.25, 0.0, [0.3, 0.5]),
        (0.01, 0.0, [0.3, 0.5]),
        (1.0, 1.0, [0.1, 0.4]),
        (1.0, 0.25, [0.4, 0.55]),
    ],
)
def test_objective(worst_share: float, fairness: float, expected: list[float]):
    score = np.array([[0.3, 0.5], [0.4, 0.6], [0.6, 0.6], [0.7, 0.7]])
    good = np.zeros((4, 2, 3), np.int64)
    good[0] = [[1, 9, 0], [4, 5, 0]]
    requests = np.array([[10, 10, 0]] + [[0, 0, 0]] * 3)
    objective = Objective(worst_share, fairness)
    np.testing.assert_allclose(objective(Scores(score, good), requests), expected)


def test_objectives_differ_in_what_they_find():
    """Two devices, and room for one model on each: the mean forgets the rare model."""
    profile = make_profile({"t": {ParallelConfig(1, 1): [0.1]}})
    models = tuple(Model(name, "t", 0.25) for name in ("often", "rarely"))
    problem = Problem(models, Cluster(2, memory_bytes=1.0), profile)
    workload = Workload.from_seconds(np.repeat(np.arange(20.0), 5), [0, 0, 0, 0, 1] * 20)
    hosts = {
        fairness: sorted(
            group.models
            for group in place(
                "local-search", problem, workload, fairness=fairness, budget_simulations=1000
            ).static.groups
        )
        for fairness in (0.0, 1.0)
    }
    assert hosts == {0.0: [(0,), (0,)], 1.0: [(0,), (1,)]}


def test_joined_workloads_are_served_as_each_alone():
    joined = join(TRAFFIC, 60.0)
    placement = Placement(tuple(Group(CONFIGS[1], (m, m + 1)) for m in (0, 2, 4)))  # no ties
    alone = simulate(PROBLEM, placement, TRAFFIC)
    together = simulate(PROBLEM, placement, joined)
    assert len(joined) == sum(map(len, TRAFFIC))
    assert together.good.sum() == alone.good.sum() < len(joined)
    assert together.latency_ticks.sum() == alone.latency_ticks.sum()
    for bad in (0.0, -1.0, math.nan):
        with pytest.raises(WorkloadError, match="gap"):
            join(TRAFFIC, bad)
    with pytest.raises(WorkloadError, match="no workloads"):
        join([], 1.0)


def test_nothing_fits():
    problem = dataclasses.replace(PROBLEM, cluster=Cluster(8, memory_bytes=0.1))
    found = place("local-search", problem, TRAFFIC[0], budget_simulations=200)
    assert found.placement == Placement(()) and found.score == 0
    (warning,) = found.warnings
    assert warning.startswith("local-search: nothing could be placed on 8 devices: no model fits")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"budget_simulations": -1}, "budget_simulations must be >= 0"),
        ({"budget_s": math.nan}, "budget_s must be >= 0"),
        ({"worst_share": 0.0}, "worst_share must be in"),
        ({"fairness": 1.5}, "fairness must be in"),
        ({"max_bytes_moved": 1.0}, "needs start_from"),
        ({"max_bytes_moved": -1.0, "start_from": Placement(())}, "max_bytes_moved is -1"),
        ({"objective": "mean"}, "unknown option 'objective'; its options: budget_s, budget_sim"),
    ],
)
def test_bad_options(options: dict, message: str):
    with pytest.raises(ValueError, match=message):
        place("local-search", PROBLEM, TRAFFIC[0], **options)


def test_bad_training_and_start():
    with pytest.raises(ValueError, match="no training workload"):
        place("local-search", PROBLEM, [])
    too_large = Placement((Group(ParallelConfig(1, 4), (0,)),) * 3)
    with pytest.raises(PlacementError, match="12 devices of 8"):
        place("local-search", PROBLEM, TRAFFIC[0], start_from=too_large)
