"""Every published policy: against published results, valid placements, options and messages."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest

from beta_jax import (
    POLICIES,
    Cluster,
    Group,
    Model,
    ParallelConfig,
    Placement,
    Policy,
    Problem,
    Schedule,
    UnknownPolicyError,
    Workload,
    load_profile,
    make_models,
    place,
    place_batch,
    simulate,
    synthesize,
)
from beta_jax.search import find_policy
from beta_jax.search.published.integer_programs import plan_pipelines, plan_replicas
from beta_jax.search.published.replication import cut_windows, sr_greedy
from beta_jax.search.published.separation import balanced_divisions, divide, make_buckets

import golden
import published_curves
import published_points
from instances import make_profile, mixed_problem

ONE, TWO, FOUR = ParallelConfig(1, 1), ParallelConfig(1, 2), ParallelConfig(1, 4)
STATIC = (
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
)


@pytest.fixture(scope="module")
def problem() -> Problem:
    return mixed_problem()


@pytest.fixture(scope="module")
def workload(problem: Problem) -> Workload:
    return synthesize(problem.models, duration_s=60, seed=3)


def published_cases(folder: Path) -> dict[str, list[golden.Case]]:
    """The published runs by policy."""
    by_policy: dict[str, list[golden.Case]] = {}
    for path in sorted(folder.glob("*.json")):
        name = re.search(r"(sr|mp)-[a-z].*", path.stem)
        assert name is not None
        by_policy.setdefault(name[0], []).append(golden.load_case(path))
    return by_policy


def test_published_runs(shared: Path):
    """The same partition as published; attainment within .01 of each, and not worse on average."""
    differences = []
    for policy, cases in published_cases(shared / "golden" / "policies").items():
        problems = [case.problem for case in cases]
        results = place_batch(policy, problems, [case.training for case in cases])
        placements = [result.placement for result in results]
        tally = simulate(problems, placements, [case.workload for case in cases], warmup_s=10.0)
        for case, placement, attainment in zip(cases, placements, tally.attainment, strict=True):
            placement.check(case.problem)
            assert str(placement) == str(case.placement), case.name
            assert attainment == pytest.approx(case.result["goodput"], abs=0.01), case.name
            differences.append(attainment - case.result["goodput"])
    assert len(differences) == 33
    assert np.mean(differences) >= -0.002


@pytest.mark.parametrize("name, plan", [("sr-ilp", plan_replicas), ("mp-ilp", plan_pipelines)])
def test_integer_programs_reach_the_published_objective(shared: Path, name: str, plan):
    (path,) = (shared / "golden" / "policies").glob(f"*_{name}.json")
    case = golden.load_case(path)
    found = plan(case.problem)
    found.placement.check(case.problem)
    published = json.loads(path.read_text())["ilp_objective"]
    assert found.objective >= published - 1e-6 or (found.gap > 0 and found.warnings)


@pytest.mark.slow
def test_published_points(shared: Path):
    """Mean absolute difference to what the paper's authors published at most .005 per policy."""
    by_policy: dict[str, list[published_points.Point]] = {}
    for point in published_points.read_points(shared):
        if point.problem.cluster.num_devices <= 40:  # more take minutes, and are at 100 % anyway
            by_policy.setdefault(point.policy, []).append(point)
    assert len(by_policy) == 5
    for policy, points in by_policy.items():
        difference = published_points.compare(policy, points).difference
        assert np.abs(difference).mean() <= 0.005, policy


def test_published_curves(shared: Path):
    """All points of figure 12: the published simulator's attainment, and its groups."""
    rows = published_curves.compare(shared)
    assert len(rows) == 75
    for row in rows:
        assert row["found"] == pytest.approx(row["published"], abs=1e-12)
        assert row["placement"] == row["published_placement"]


def test_operator_parallelism_is_not_chosen_where_it_is_slow(shared: Path):
    """On RTX 3090 over PCIe a pipeline of the same size is always faster."""
    profile = load_profile(shared / "data" / "profiles" / "rtx3090_measured.json")
    models = make_models(
        ["bert-1.3b"] * 6, profile, slo_scale=5, total_rate_rps=20, split="power_law", cv=4
    )
    traffic = synthesize(models, duration_s=60, seed=0)
    for devices in (2, 4):
        problem = Problem(models, Cluster(devices), profile)
        for policy in ("mp-search", "mp-search-sep", "mp-search-evo", "mp-ilp"):
            options = {"population": 32, "generations": 5} if policy.endswith("-evo") else {}
            placement = place(policy, problem, traffic, **options).placement
            assert isinstance(placement, Placement)
            for config in {group.config for group in placement.groups}:
                pipeline = ParallelConfig(1, config.num_devices)
                assert config.op == 1 or ("bert-1.3b", pipeline) not in profile


def test_placements_are_valid_and_scores_are_theirs(problem: Problem, workload: Workload):
    for policy in (*STATIC, "sr-replace-7"):
        for memory in (1.0, 2.0, 4.0):
            cluster = Cluster(5, memory_bytes=memory)
            variant = dataclasses.replace(problem, cluster=cluster)
            result = place(policy, variant, workload)
            result.placement.check(variant)
            assert isinstance(result.placement, Schedule) == find_policy(policy).replaces
            tally = simulate(variant, result.placement, workload)
            attainment = tally.attainment[0]
            latency = tally.latency_mean_all_s[0]
            assert result.score == pytest.approx(attainment - latency / 1e4, abs=40e-6), policy


def test_batches_do_not_change_results(problem: Problem, workload: Workload):
    variants = [dataclasses.replace(problem, cluster=Cluster(n, memory_bytes=2.0)) for n in (4, 7)]
    for policy in (*STATIC, "sr-replace-7"):
        together = place_batch(policy, variants, [workload] * 2)
        assert together == [place(policy, variant, workload) for variant in variants]


def test_what_fits_nowhere_is_left_out_and_named(problem: Problem, workload: Workload):
    """`slow` runs on eight devices only, of which there are six."""
    fast = {config: [0.1 / config.pp] * config.pp for config in (ONE, TWO, FOUR)}
    profile = make_profile({"fast": fast, "slow": {ParallelConfig(8, 1): [0.4]}})
    partly = dataclasses.replace(problem, profile=profile)
    nothing = dataclasses.replace(problem, cluster=Cluster(6, memory_bytes=0.5))
    for policy in STATIC:
        if policy != "mp-search-sep":  # needs the single-device latency of `slow`
            result = place(policy, partly, workload)
            missing = result.warnings[-1]
            assert missing.startswith(f"{policy}: no replica of"), policy
            assert not {0, 2, 4} & {m for group in result.static.groups for m in group.models}
        result = place(policy, nothing, workload)
        assert result.placement.num_replicas == 0 and result.score == 0, policy
        start = f"{policy}: nothing could be placed on 6 devices"
        assert result.warnings[-1].startswith(f"{start}: no model fits a device's memory")
    one = dataclasses.replace(problem, cluster=Cluster(1, memory_bytes=1.0))
    (warning,) = place("sr-greedy", one, workload).warnings
    named = r"sr-greedy: no replica of 5 of 6 models: (\w+-\d, ){2}\w+-\d and 2 more"
    assert re.fullmatch(named, warning)


def test_uniform_replication_deals_models_in_turn(problem: Problem, workload: Workload):
    placement = place("sr-uniform", problem, workload).placement
    assert [g.models for g in placement.groups] == [
        tuple(sorted((i, (i + 1) % 6, (i + 2) % 6))) for i in range(6)
    ]


def test_round_robin_moves_on_only_after_placing(problem: Problem, workload: Workload):
    placement = place("mp-round-robin", problem, workload).placement
    assert str(placement) == "1x(1,1,4)+1x(1,1,2)"
    assert [group.models for group in placement.groups] == [(0, 2, 4), (1, 3, 5)]


def test_windows_open_at_an_arrival_and_include_their_end(problem: Problem):
    workload = Workload.from_seconds([5.0, 6.0, 15.0, 15.1, 40.0], [0, 1, 0, 1, 2])
    windows = cut_windows(workload, 10)
    assert [w.arrival_s.tolist() for w in windows] == [[5.0, 6.0, 15.0], [15.1], [40.0]]
    schedule = place("sr-replace-10", problem, workload).placement
    assert isinstance(schedule, Schedule)
    assert schedule.start_s == (5.0, 15.1, 40.0)
    alone = [place("sr-greedy", problem, window).placement for window in windows]
    assert list(schedule.placements) == alone
    empty = Workload(np.zeros(0), np.zeros(0))
    assert len(place("sr-replace-10", problem, empty).placement.placements) == 1


def test_beta_replaces_by_the_window_before():
    """What it loads has its price: the lower the bandwidth, the less is served."""
    rng = np.random.default_rng(5)
    hot = np.repeat([1, 5], 300)  # from the third window on another model is asked for
    model = np.where(rng.random(600) < 0.9, hot, 3)
    workload = Workload.from_seconds(np.arange(600) * 0.1 + 1, model)
    problem = mixed_problem(devices=2, memory=1.0)
    windows = cut_windows(workload, 15)
    found, static = place("mp-replace-15", problem, workload), place("mp-search", problem, workload)
    assert isinstance(found.placement, Schedule) and len(windows) == 4
    assert find_policy("mp-replace-15").replaces
    alone = [place("mp-search", problem, window) for window in windows[:-1]]
    searched = [result.placement for result in (alone[0], *alone)]
    assert list(found.placement.placements) == searched
    assert found.num_simulations == sum(result.num_simulations for result in alone)
    scores = []
    for bandwidth in (math.inf, 0.5, 0.1, 0.0):
        cluster = Cluster(2, memory_bytes=1.0, load_bandwidth_bytes_per_s=bandwidth)
        loads = dataclasses.replace(problem, cluster=cluster)
        result = place("mp-replace-15", loads, workload)
        assert result.placement == found.placement  # searched in windows, each without a switch
        attainment = simulate(loads, result.placement, workload).attainment[0]
        assert result.score == pytest.approx(attainment, abs=0.001)
        assert place("mp-search", loads, workload).score == static.score
        scores.append(attainment)
    assert scores == sorted(scores, reverse=True) and scores[0] > scores[-1] + 0.1
    empty = Workload(np.zeros(0), np.zeros(0))
    assert len(place("mp-replace-15", problem, empty).placement.placements) == 1


def test_a_beam_that_keeps_everything_finds_the_best(workload: Workload):
    """Three devices, each with one or two of three models; groups in canonical order."""
    problem = mixed_problem(devices=3, memory=2.0)
    problem = dataclasses.replace(problem, models=problem.models[:3])
    workload = Workload(workload.arrival, workload.model % 3)
    hosted = [(), (0,), (0, 1), (0, 2), (1,), (1, 2), (2,)]
    placements = [
        Placement(tuple(Group(ONE, models) for models in groups))
        for groups in itertools.combinations_with_replacement(hosted, 3)
    ]
    tally = simulate(problem, placements, workload)
    replicas = np.array([placement.num_replicas for placement in placements])
    scores = tally.attainment - tally.latency_mean_all_s / 1e4 + replicas / 1e6
    everything = place("sr-search", problem, workload, beam=1000)
    assert everything.num_simulations == len(placements)
    assert everything.score == pytest.approx(scores.max(), abs=1e-12)
    narrow = place("sr-search", problem, workload, beam=1)
    assert narrow.score <= everything.score
    assert narrow.num_simulations < everything.num_simulations


def test_buckets_hold_similar_latencies(problem: Problem):
    assert make_buckets(problem) == [(0, 2, 4), (1, 3, 5)]
    profile = make_profile({k: {ONE: [s]} for k, s in (("a", 1.0), ("b", 0.62), ("c", 0.63))})
    models = tuple(Model(f"m{i}", kind, 1.0) for i, kind in enumerate("abcab"))
    assert make_buckets(Problem(models, Cluster(1), profile)) == [(0, 2, 3), (1, 4)]


def test_divisions_complete_nodes():
    assert list(divide(4, 2, 8)) == [(3, 1), (2, 2), (1, 3)]
    assert list(divide(10, 2, 8)) == [(9, 1), (8, 2)]
    assert list(divide(2, 3, 8)) == []
    assert len(list(divide(32, 2, 8))) == 31
    for division in divide(24, 3, 8):
        assert sum(division) == 24 and min(division) >= 1


def test_only_balanced_divisions_are_tried(problem: Problem):
    """Two buckets on many devices: only divisions near the traffic's shares are left."""
    large = dataclasses.replace(problem, cluster=Cluster(256, memory_bytes=3.0))
    buckets = make_buckets(large)
    divisions, _ = balanced_divisions(large, buckets)
    assert 0 < len(divisions) < 255
    rates = np.array([m.rate_rps for m in problem.models])
    share = rates[list(buckets[0])].sum() / rates.sum()
    for (_, (slow,)), (_, (fast,)) in divisions:
        assert abs(slow / 0.4 / (slow / 0.4 + fast / 0.1) - share) < 0.5


def test_integer_programs_prefer_busy_models_and_report_their_gap(workload: Workload):
    problem = mixed_problem(devices=2)
    plan = plan_replicas(problem)
    tolerance = [
        sum(m in group.models for group in plan.placement.groups)
        / problem.profile.stage_latency_s(model.type, ONE).sum()
        / model.rate_rps
        for m, model in enumerate(problem.models)
    ]
    assert plan.objective == pytest.approx(min(tolerance) + 1e-4 * sum(tolerance))
    assert plan.gap <= 1e-4 and plan.warnings == ()
    many = make_models(
        ["fast", "slow"] * 20, problem.profile, slo_scale=4, total_rate_rps=9, split="power_law"
    )
    large = dataclasses.replace(problem, models=many, cluster=Cluster(13, memory_bytes=7.0))
    result = place("mp-ilp", large, Workload(np.zeros(0), np.zeros(0)), time_limit_s=0.5, gap=0.0)
    assert re.match(r"mp-ilp: (stopped after 0.5 s, .*% from|nothing found)", result.warnings[0])


def test_evolution_refines_and_is_deterministic(problem: Problem, workload: Workload):
    options = {"population": 64, "generations": 10}
    start = place("mp-search", problem, workload)
    first, again, other = (
        place("mp-search-evo", problem, workload, seed=seed, **options) for seed in (0, 0, 1)
    )
    assert first == again
    assert first != other
    for result in (first, other):
        result.placement.check(problem)
        assert result.score >= start.score
        assert result.num_simulations == start.num_simulations + 64 * 11
    assert max(first.score, other.score) > start.score
    with pytest.raises(ValueError, match="not schedules"):
        place("sr-replace-9-evo", problem, workload, **options)


@pytest.mark.parametrize("policy", ["sr-ilp", "mp-ilp", "mp-search-sep"])
def test_policies_that_plan_from_rates_ask_for_them(problem, workload, policy: str):
    for rate, message in ((math.nan, "model slow-0 has no rate_rps"), (0.0, "every model's")):
        models = tuple(dataclasses.replace(m, rate_rps=rate) for m in problem.models)
        with pytest.raises(ValueError, match=f"{policy} plans from nominal rates; {message}"):
            place(policy, dataclasses.replace(problem, models=models), workload)


def test_pipelines_by_integer_program_need_finite_slos(workload: Workload):
    with pytest.raises(ValueError, match="mp-ilp plans from SLOs; model slow-0 has none"):
        place("mp-ilp", mixed_problem(slo_s=math.inf), workload)


def test_options_are_checked(problem: Problem, workload: Workload):
    with pytest.raises(
        UnknownPolicyError, match="mp-search: unknown option 'seed'; its options: tol"
    ):
        place("mp-search", problem, workload, seed=1)
    with pytest.raises(UnknownPolicyError, match="options: generations, population, seed"):
        place("mp-search-evo", problem, workload, beam=1)
    with pytest.raises(UnknownPolicyError, match="unknown policy 'mp-serch'"):
        place("mp-serch-evo", problem, workload)
    assert {
        "exhaustive",
        "sr-replace-<seconds>",
        "mp-replace-<seconds>",
        "<policy>-evo",
    } <= POLICIES.keys()


def test_what_is_no_policy_is_said():
    problem, workload = mixed_problem(), synthesize(mixed_problem().models, duration_s=5)
    with pytest.raises(TypeError, match=r"write Policy\(function\)"):
        place(sr_greedy, problem, workload)
    for wrong in ([], [Placement(())], [None, None]):
        with pytest.raises(TypeError, match="must return a Result for each of 1 instances"):
            place(Policy(lambda instances, found=wrong: found), problem, workload)
