"""Placement policies: the greedy loop against the oracle, the search against its own candidates."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beta_jax import (
    POLICIES,
    Cluster,
    Dispatch,
    Group,
    Model,
    ParallelConfig,
    Placement,
    Problem,
    Rules,
    UnknownPolicyError,
    Workload,
    enumerate_partitions,
    place,
    place_batch,
    simulate,
    synthesize,
)
from beta_jax.placement.placement import weight_on_device
from beta_jax.search import find_policy, published_score
from beta_jax.search.fill import greedy
from beta_jax.search.fill.greedy import GreedyTask, fill_greedily
from beta_jax.search.scoring import Scorer
from beta_jax.simulator import packing
from beta_jax.simulator.engine import Kernel

import reference
from instances import CONFIGS, make_profile, mixed_problem, problems, workloads

relaxed = settings(max_examples=40)
ONE = ParallelConfig(1, 1)


def oracle_greedy(
    problem: Problem, workload: Workload, configs, models
) -> list[tuple[object, tuple[int, ...]]]:
    pairs = [
        (config, m)
        for config in set(configs)
        for m, model in enumerate(problem.models)
        if (model.type, config) in problem.profile and m in models
    ]
    latency = problem.profile.stage_latency_s
    return reference.greedy(
        workload.arrival,
        workload.model,
        [reference.duration_ticks(model.slo_s) for model in problem.models],
        configs,
        {
            (c, m): reference.stage_ticks(
                latency(problem.models[m].type, c), problem.rules.stage_overhead
            )
            for c, m in pairs
        },
        {(c, m): weight_on_device(problem, problem.models[m], c) for c, m in pairs},
        problem.cluster.pools[0].memory_bytes,
        round(problem.rules.request_overhead_s * reference.TICKS_PER_SECOND),
    )


@pytest.fixture(params=[greedy.LONG_SEARCH, -1], ids=["in one program", "what changes"])
def route(request: pytest.FixtureRequest):
    """Both ways to search alone: short workloads stay on the device."""
    before, greedy.LONG_SEARCH = greedy.LONG_SEARCH, request.param
    yield
    greedy.LONG_SEARCH = before


@pytest.mark.usefixtures("route", "kernel")
@given(st.data())
@relaxed
def test_greedy_makes_the_choices_of_the_oracle(data: st.DataObject):
    problem = data.draw(problems())
    memory = data.draw(st.sampled_from((1.0, 2.0, 3.5)))
    problem = dataclasses.replace(problem, cluster=Cluster(64, memory_bytes=memory))
    tasks = [
        GreedyTask(
            problem,
            data.draw(workloads(len(problem.models))),
            tuple(data.draw(st.lists(st.sampled_from(CONFIGS), min_size=1, max_size=5))),
            tuple(sorted(data.draw(st.sets(st.integers(0, len(problem.models) - 1), min_size=1)))),
        )
        for _ in range(data.draw(st.integers(1, 3)))
    ]
    for task, result in zip(tasks, fill_greedily(tasks), strict=True):
        expected = oracle_greedy(*task)
        assert [(group.config, group.models) for group in result.placement.groups] == expected
        assert result.num_simulations == result.placement.num_replicas + 1
        tally = simulate(problem, result.placement, task.workload)
        good, latency = int(tally.good.sum()), int(tally.latency_ticks.sum())
        assert result.score == published_score(good, latency, len(task.workload), result.placement)


def planning_problem(slo_s: float = 0.5, devices: int = 4) -> tuple[Problem, Workload]:
    """Bursts of ten requests to one of four models; two models fit a device, and pipelines help."""
    profile = make_profile(
        {
            "t": {
                ParallelConfig(op, pp): [0.1 / op / pp] * pp
                for op in (1, 2, 4)
                for pp in (1, 2, 4, 8)
            }
        }
    )
    models = tuple(Model(f"m{i}", "t", slo_s) for i in range(4))
    burst = np.repeat(np.arange(40.0), 10)
    model = np.repeat(np.random.default_rng(0).integers(0, 4, 40), 10)
    problem = Problem(models, Cluster(devices, memory_bytes=1.0), profile)
    return problem, Workload.from_seconds(burst, model)


@pytest.mark.usefixtures("route")
@given(problems(tuple(Dispatch)), workloads(3), st.lists(st.sampled_from(CONFIGS), max_size=6))
@settings(relaxed, max_examples=15)
def test_every_dispatch_rule_is_searched_alike(
    problem: Problem, workload: Workload, configs: list[ParallelConfig]
):
    """By lists of candidates in several parts, or by all groups at once."""
    problem = dataclasses.replace(problem, cluster=Cluster(64, memory_bytes=2.0))
    [result] = fill_greedily([GreedyTask(problem, workload, tuple(configs))])
    tally = simulate(problem, result.placement, workload)
    good, latency = int(tally.good.sum()), int(tally.latency_ticks.sum())
    assert result.score == published_score(good, latency, len(workload), result.placement)
    assert sorted(group.config for group in result.placement.groups) == sorted(configs)
    if configs:
        assert result.placement.num_replicas == sum(min(len(problem.models), 2) for _ in configs)


@pytest.mark.parametrize("dispatch", [Dispatch.POWER_OF_TWO, Dispatch.SHORTEST_QUEUE])
@pytest.mark.parametrize("policy", ["sr-greedy", "mp-search", "mp-search-sep", "exhaustive"])
def test_policies_report_what_the_simulator_says(policy: str, dispatch: str):
    """Shares and shortcuts included, also where the rule is not local."""
    problem = dataclasses.replace(mixed_problem(devices=3, memory=1.0), rules=Rules(dispatch))
    workload = synthesize(problem.models, duration_s=30, seed=8)
    if policy == "exhaustive":
        problem = dataclasses.replace(problem, models=problem.models[:2], cluster=Cluster(2, 1.0))
        workload = workload.of_models((0, 1))
    result = place(policy, problem, workload)
    tally = simulate(problem, result.placement, workload)
    good, latency = int(tally.good.sum()), int(tally.latency_ticks.sum())
    assert 0 < good < len(workload)
    assert result.score == published_score(good, latency, len(workload), result.static)


@pytest.mark.usefixtures("route", "kernel")
def test_how_searches_share_blocks_changes_nothing():
    """Enough of them for a block of several sizes, of up to 7 groups."""
    problem, workload = planning_problem(devices=7)
    tasks = [
        GreedyTask(problem, workload, (ParallelConfig(1, 1 + n % 2),) * (1 + n % 7))
        for n in range(20)
    ]
    together = fill_greedily(tasks)
    assert together == [fill_greedily([task])[0] for task in tasks]
    for task, result in zip(tasks, together, strict=True):
        assert [group.config for group in result.placement.groups] == list(task.configs)


@pytest.mark.usefixtures("route")
def test_searches_that_share_only_their_traffic(monkeypatch: pytest.MonkeyPatch):
    """Lanes that were given more groups to share a block, and then run alone: none is made up."""
    monkeypatch.setattr(
        greedy, "choose_kernel", lambda _, n, *__: Kernel.LOCKSTEP if n > 3 else Kernel.SINGLE
    )
    monkeypatch.setattr(packing, "choose_kernel", lambda *_: Kernel.SINGLE)
    tasks = []
    for _ in range(6):
        problem, workload = planning_problem(devices=8)
        tasks += [GreedyTask(problem, workload, (ONE,) * n) for n in (8, 8, 4, 4, 2, 1)]
    tasks = [task._replace(workload=tasks[0].workload) for task in tasks]
    for task, result in zip(tasks, fill_greedily(tasks), strict=True):
        assert len(result.placement.groups) == len(task.configs)


@pytest.mark.usefixtures("kernel")
@given(st.data())
@settings(relaxed, max_examples=10)
def test_scores_are_those_of_the_simulator(data: st.DataObject):
    """Any number of lanes, groups without models, models on many groups, two workloads."""
    problem = data.draw(problems(tuple(Dispatch)))
    training = [data.draw(workloads(3)) for _ in range(2)]
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    configs = sorted(CONFIGS)
    scorer = Scorer(problem, training, configs, 6)
    for lanes in (data.draw(st.sampled_from((1, 3, 70))), 2):
        hosted, config = rng.random((lanes, 6, 3)) < 0.6, rng.integers(0, len(configs), (lanes, 6))
        placements = [
            Placement(
                tuple(Group(configs[c], np.flatnonzero(h)) for h, c in zip(*lane, strict=True))
            )
            for lane in zip(hosted, config, strict=True)
        ]
        scores = scorer(hosted, config)
        for own, good, workload in zip(scores.score, scores.good, training, strict=True):
            tally = simulate(problem, placements, workload)
            np.testing.assert_array_equal(good, tally.good)
            results = zip(placements, tally.good.sum(1), tally.latency_ticks.sum(1), strict=True)
            expected = [published_score(g, t, len(workload), p) for p, g, t in results]
            np.testing.assert_array_equal(own, expected)


def test_search_returns_the_best_partition():
    problem, workload = planning_problem()
    result = place("mp-search", problem, workload)
    candidates = fill_greedily(
        [GreedyTask(problem, workload, p) for p in enumerate_partitions(problem.cluster)]
    )
    assert result.score == max(c.score for c in candidates)
    assert result.placement == next(c.placement for c in candidates if c.score == result.score)
    assert result.num_simulations == sum(c.num_simulations for c in candidates)
    assert result.score >= place("sr-greedy", problem, workload).score
    result.placement.check(problem)


def test_manual_placement():
    problem, workload = planning_problem()
    result = place("mp-equal-2-1", problem, workload)
    assert str(result.placement) == "2x(1,1,2)"
    assert [group.models for group in result.placement.groups] == [(0,), (1,)]
    assert result.warnings == (
        "mp-equal-2-1: 4 models of 2 devices each need 8, there are 4",
        "mp-equal-2-1: no replica of 2 of 4 models: m2, m3",
    )


def test_batches_do_not_change_results():
    problem, workload = planning_problem()
    variants = [
        dataclasses.replace(problem, cluster=Cluster(n, memory_bytes=1.0)) for n in (4, 2, 5, 4)
    ]
    for name in ("sr-greedy", "mp-search", "mp-equal-1-2"):
        together = place_batch(name, variants, [workload] * 4)
        assert together == [place(name, variant, workload) for variant in variants]


def test_models_that_do_not_fit_are_left_out_and_named():
    problem, workload = planning_problem()
    light, heavy = (make_profile({"t": {ONE: [0.1]}}, weight_bytes=weight) for weight in (1.0, 9.0))
    roomy, too_big = (
        dataclasses.replace(problem, profile=profile, cluster=Cluster(4, memory_bytes=4.0))
        for profile in (light, heavy)
    )
    assert place("sr-greedy", roomy, workload).warnings == ()
    for policy in ("sr-greedy", "mp-search", "mp-equal-1-1"):
        result = place(policy, too_big, workload)
        assert result.placement.num_replicas == 0 and result.score == 0
        assert result.warnings == (
            f"{policy}: nothing could be placed on 4 devices: no model fits a device's memory; "
            "m0 at its widest needs 8.38e-09 GiB of each device, which has 3.73e-09",
        )
    tight = dataclasses.replace(roomy, cluster=Cluster(1, memory_bytes=3.0))
    (warning,) = place("sr-greedy", tight, workload).warnings
    assert warning.startswith("sr-greedy: no replica of 1 of 4 models: m")


def test_an_empty_workload_still_fills_memory():
    problem, _ = planning_problem()
    result = place("sr-greedy", problem, Workload(np.zeros(0), np.zeros(0)))
    assert result.placement.num_replicas == 4


@pytest.mark.parametrize("name", ["mp-serch", "mp-equal-2", "mp-equal-0-1", ""])
def test_unknown_policy(name: str):
    with pytest.raises(
        UnknownPolicyError, match=f"unknown policy '{name}'.*known: sr-greedy, sr-search"
    ):
        find_policy(name)
    with pytest.raises(UnknownPolicyError, match="nearest: mp-search"):
        find_policy("mp-serch")
    assert "mp-search" in POLICIES
