"""The oracle against the published simulator, arithmetic done by hand and queueing theory."""

from __future__ import annotations

import json
import math
import pathlib
import random
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beta_jax.types import NO_DEADLINE, Workload, arrivals_to_ticks, durations_to_ticks

import make_golden
import reference
import reference_batching

SECOND = reference.TICKS_PER_SECOND
INF = math.inf

MOVED_BY_FLOAT_TIES = {
    "b01_3090_8d_16m_1.3b_sr-search.json": [-2, 0, 0, 0, 2, 0, 0, 0],
    "b11_v100_16d_48m_1.3b_mp-greedy-4.json": [-11, 11, 0, 0],
}
"""Requests more or less dispatched to each group than published: there, clocks that differ by less
than the spacing of float64 tie and the lower group wins. Decisions and finishes are equal."""


class Published:
    """One result of the published simulator with what the oracle makes of its inputs."""

    def __init__(self, golden: pathlib.Path, path: pathlib.Path) -> None:
        case = json.loads(path.read_text())
        profile_path = golden / "profiles" / f"{case['description']['profile']}.json"
        profile = json.loads(profile_path.read_text())["models"]
        requests = np.load(golden / case["workload"]["file"])
        self.types = [model["type"] for model in case["models"]]
        self.configs = {
            (name, (config["op"], config["pp"])): config
            for name, entry in profile.items()
            for config in entry["configs"]
        }
        self.case, self.result = case, case["result"]
        self.memory = case["description"].get("mem_budget")
        self.arrival_s = requests["arrivals"]
        self.arrival = reference.arrival_ticks(self.arrival_s.tolist())
        self.model = requests["model_ids"].tolist()
        self.slo = [reference.duration_ticks(float(model["slo"])) for model in case["models"]]
        self.placements = case["placement"].get("placements", [case["placement"]])
        starts_s = case["placement"].get("start_times", [0.0])
        starts = [reference.boundary_tick(s, self.arrival_s, self.arrival) for s in starts_s]
        self.segments = list(zip(starts, map(self.groups, self.placements), strict=True))
        self.expected = np.load(golden / case["requests_file"])

    def stages(self, config: tuple[int, int], model: int) -> list[int]:
        return self.batches(config, model)[1]

    def exact_stages(self, config: tuple[int, int], model: int) -> list[Fraction]:
        """The float32 values that `reference.stage_ticks` rounds to ticks."""
        latency_s = self.configs[self.types[model], config]["latency"]["1"]
        factor = 1 + reference.STAGE_OVERHEAD * len(latency_s)
        return [Fraction(float(np.float32(latency * factor))) for latency in latency_s]

    def batches(self, config: tuple[int, int], model: int) -> dict[int, list[int]]:
        latency_s = self.configs[self.types[model], config]["latency"]
        return {int(b): reference.stage_ticks(stages) for b, stages in latency_s.items()}

    def groups(self, placement: dict[str, Any], stages: Any = None) -> list[dict[int, Any]]:
        stages = stages or self.stages
        return [
            {m: stages((op, pp), m) for m in models}
            for (_, op, pp), models in zip(
                placement["group_configs"], placement["group_models"], strict=True
            )
        ]

    def outcome(self) -> reference.Outcome:
        """What the oracle makes of it."""
        requests = self.arrival, self.model, self.slo
        if self.case["path"] == "mixed":
            return reference.simulate(*requests, self.segments)
        batches = [self.groups(placement, self.batches) for placement in self.placements]
        starts = [start for start, _ in self.segments]
        return reference_batching.simulate(*requests, list(zip(starts, batches, strict=True)))


@pytest.mark.parametrize("folder, number", [("cases", 15), ("policies", 33)])
def test_equals_the_published_simulator(shared: pathlib.Path, folder: str, number: int) -> None:
    paths = sorted((shared / "golden" / folder).glob("*.json"))
    assert len(paths) == number
    for path in paths:
        case = Published(shared / "golden", path)
        outcome = case.outcome()
        wrong = np.flatnonzero(outcome.good != case.expected["good"])
        assert not len(wrong), f"{path.name}: decisions of requests {wrong[:10]} differ"
        late = np.abs(outcome.finish / SECOND - case.expected["finish"])
        assert late.max() < 1e-6, f"{path.name}: request {late.argmax()} is {late.max()} s off"
        check_counts(path.name, case, outcome)
        check_means(path.name, case, outcome)


def check_counts(name: str, case: Published, outcome: reference.Outcome) -> None:
    serving = np.array(
        reference.serving_segment(case.arrival, [start for start, _ in case.segments])
    )
    model, good, group = np.array(case.model), outcome.good, outcome.group
    for i, expected in enumerate(case.result["segments"]):
        here, size = serving == i, len(case.placements[i]["group_models"])
        dispatched = np.array(reference.count(group[here], size))
        counted = {
            "num_requests": int(here.sum()),
            "model_num_requests": reference.count(model[here], len(case.slo)),
            "model_num_good_requests": reference.count(model[here], len(case.slo), good[here]),
            "group_num_requests": (dispatched - MOVED_BY_FLOAT_TIES.get(name, 0)).tolist(),
            "group_num_good_requests": reference.count(group[here], size, good[here]),
        }
        assert counted == expected, f"{name}, segment {i}"


def check_means(name: str, case: Published, outcome: reference.Outcome) -> None:
    result = case.result
    first, last = reference.warmup_cut(case.arrival)
    assert (first, last - first) == (result["skip_each_end"], result["num_requests_counted"]), name
    assert reference.goodput(case.arrival, outcome.good) == pytest.approx(result["goodput"], 1e-12)
    assert int(outcome.good.sum()) == result["num_good_all_requests"], name

    per_model = {row["name"]: row for row in result["per_model"]}
    model, good = np.array(case.model)[first:last], outcome.good[first:last]
    for m, entry in enumerate(case.case["models"]):
        if (model == m).any():
            row = per_model[entry["name"]]
            assert row["num_requests"] == (model == m).sum(), f"{name}, {entry['name']}"
            assert row["goodput"] == pytest.approx(good[model == m].mean(), 1e-12), name

    latency_s = (outcome.finish - case.arrival)[first:last] / SECOND
    assert result["latency_mean"] == pytest.approx(latency_s.mean(), abs=1e-7), name
    if result["search_score_on_this_workload"] is not None:
        score = reference.search_score(case.arrival, outcome, case.segments[0][1])
        assert result["search_score_on_this_workload"] == pytest.approx(score, abs=1e-11), name


@pytest.mark.parametrize("name", MOVED_BY_FLOAT_TIES)
def test_groups_are_those_of_exact_arithmetic(shared: pathlib.Path, name: str) -> None:
    """Where the published float64 clocks tie, ticks dispatch as rational numbers do."""
    case = Published(shared / "golden", shared / "golden" / "policies" / name)
    outcome = reference.simulate(case.arrival, case.model, case.slo, case.segments)
    slo = [Fraction(float(np.float32(model["slo"]))) for model in case.case["models"]]
    groups = case.groups(case.placements[0], case.exact_stages)
    clock = [[Fraction(0)] * len(next(iter(group.values()))) for group in groups]
    for i, (t, m) in enumerate(zip(map(Fraction, case.arrival_s), case.model, strict=True)):
        _, g = min((clock[g][-1], g) for g, group in enumerate(groups) if m in group)
        ends = reference.run_stages(t, groups[g][m], clock[g])
        good = ends[-1] + Fraction(0.011) - t <= slo[m]
        if good:
            clock[g] = ends
        assert (outcome.group[i], outcome.good[i]) == (g, good), f"request {i}"


@pytest.mark.parametrize(
    "name", ["b01_3090_8d_16m_1.3b_mp-greedy-4", "b02_3090_4d_6m_2.6b_sr-greedy"]
)
def test_greedy_does_as_well_as_the_published_one(shared: pathlib.Path, name: str) -> None:
    """Not the same replicas: the published order of equally served models is rounding noise."""
    case = Published(shared / "golden", shared / "golden" / "policies" / f"{name}.json")
    assert case.case["train_workload"]["source"] == "case"
    placement = case.placements[0]
    configs = [(op, pp) for _, op, pp in placement["group_configs"]]
    pairs = [(c, m) for c in set(configs) for m in range(len(case.slo))]
    placed = reference.greedy(
        case.arrival,
        case.model,
        case.slo,
        configs,
        {(c, m): case.stages(c, m) for c, m in pairs},
        {(c, m): max(case.configs[case.types[m], c]["weight_mem"]) for c, m in pairs},
        case.memory,
    )
    hosted = [models for _, models in placed]
    assert sorted(map(len, hosted)) == sorted(map(len, placement["group_models"]))
    groups = [{m: case.stages(c, m) for m in models} for c, models in placed]
    good = reference.simulate(case.arrival, case.model, case.slo, [(0, groups)]).good
    assert abs(reference.goodput(case.arrival, good) - case.result["goodput"]) <= 0.002


def serve(
    arrival: list[int], model: list[int], slo: list[float], *groups: Any, **rules: Any
) -> Any:
    """One placement, no overhead unless asked for, lists out."""
    rules = {"request_overhead": 0, **rules}
    outcome = reference.simulate(arrival, model, slo, [(0, groups)], **rules)
    return [array.tolist() for array in outcome]


def test_burst_of_four() -> None:
    burst, one = [5] * 4, [0] * 4
    assert serve(burst, one, [INF], {0: [40]})[0] == [45, 85, 125, 165]
    assert serve(burst, one, [INF], {0: [20, 20]})[0] == [45, 65, 85, 105]
    assert serve(burst, one, [INF], {0: [10, 30]})[0] == [45, 75, 105, 135]
    assert serve(burst, one, [INF], {0: [30, 10]})[0] == [45, 75, 105, 135]
    assert serve(burst, one, [INF], {0: [20, 20]}, request_overhead=11)[0] == [56, 76, 96, 116]

    finish, good, group, start = serve(burst, one, [80], {0: [40]}, {0: [40]})
    assert (finish, group, start) == ([45, 45, 85, 85], [0, 1, 0, 1], [5, 5, 45, 45])
    assert all(good)
    finish, good, group, start = serve(burst, one, [79], {0: [40]}, {0: [40]})
    assert (finish, good) == ([45, 45, 5, 5], [True, True, False, False])
    assert (group, start) == ([0, 1, 0, 0], [5, 5, 5, 5])  # a rejected request moves no clock


def test_two_types_wait_in_the_middle_of_a_pipeline() -> None:
    """(20, 20) behind (30, 60): done with stage 0 at 50, waits for stage 1 until 90."""
    assert serve([0, 0, 0], [0, 1, 0], [INF] * 2, {0: [30, 60], 1: [20, 20]})[0] == [90, 110, 170]


def test_deadline_is_met_at_equality_and_includes_the_overhead() -> None:
    assert serve([7], [0], [51], {0: [40]}, request_overhead=11)[:2] == [[58], [True]]
    assert serve([7], [0], [50], {0: [40]}, request_overhead=11)[:2] == [[7], [False]]


def test_idle_groups_compare_by_their_past_clocks() -> None:
    """All idle by then: the never used one first, then the one that has been idle longest."""
    arrival = [0, 100, 200, 300]
    assert serve(arrival, [0] * 4, [INF], {0: [9]}, {0: [9]}, {0: [9]})[2] == [0, 1, 2, 0]


def test_a_group_too_slow_for_the_deadline_swallows_requests() -> None:
    finish, good, group, _ = serve([0, 10], [0, 0], [10], {0: [11]}, {0: [10]})
    assert (finish, good, group) == ([0, 10], [False, False], [0, 0])
    rescued = serve([0, 10], [0, 0], [10], {0: [11]}, {0: [10]}, dispatch="earliest_finish")
    assert rescued[1:3] == [[True, True], [1, 1]]


def test_no_host_and_no_model_are_rejected_nowhere() -> None:
    finish, good, group, start = serve([1, 2, 3], [1, -1, 0], [INF, INF], {}, {0: [9]}, {})
    assert (finish, good, group, start) == (
        [1, 2, 12],
        [False, False, True],
        [-1, -1, 1],
        [1, 2, 3],
    )
    assert reference.count([1, -1, 0], 2) == [1, 1]
    assert serve([4], [0], [INF])[:2] == [[4], [False]]
    assert serve([], [], [INF], {0: [9]}) == [[], [], [], []]


def test_earliest_finish_weighs_the_queue_against_the_speed() -> None:
    """Fast group 0 finishes at 20, 40, 60 (tie: the lower group), 80; idle group 1 at 60."""
    groups = {0: [20]}, {0: [60]}
    assert serve([0] * 4, [0] * 4, [INF], *groups, dispatch="earliest_finish")[2] == [0, 0, 0, 1]
    assert serve([0] * 4, [0] * 4, [INF], *groups)[2] == [0, 1, 0, 0]


def test_round_robin_turns_per_model_and_segment() -> None:
    groups = [{0: [9]}, {1: [9]}, {0: [99], 1: [9]}]
    model = [0, 1, 0, 2, 0, 1, 0]
    late = reference.simulate(
        [0, 0, 0, 0, 0, 20, 20],
        model,
        [50, INF, INF],
        [(0, groups), (10, groups)],
        0,
        "round_robin",
    )
    assert late.group.tolist() == [0, 1, 2, -1, 0, 1, 0]
    assert late.good.tolist() == [True, True, False, False, True, True, True]
    single = serve([0] * 7, model, [50, INF, INF], *groups, dispatch="round_robin")
    assert single[2] == [0, 1, 2, -1, 0, 2, 2]
    with pytest.raises(ValueError, match="shortest"):
        serve([0], [0], [INF], {0: [9]}, dispatch="shortest")


def test_schedule_boundaries() -> None:
    """Equality stays, clocks restart, and one request crosses one boundary at most."""
    assert reference.serving_segment([0, 10, 10, 11, 12], [5, 10, 11]) == [0, 0, 0, 1, 2]
    assert reference.serving_segment([0, 99, 99, 99], [0, 10, 20, 100]) == [0, 1, 2, 2]
    placements = [(0, [{0: [40]}]), (10, [{0: [40]}])]
    outcome = reference.simulate([0, 10, 11], [0, 0, 0], [INF], placements, 0)
    assert outcome.finish.tolist() == [40, 80, 51]


def test_boundary_agrees_with_the_seconds() -> None:
    """Arrivals 0.1 ns apart are moved on by ticks; the boundary moves with them."""
    arrival_s = [1.0, 1.0 + 1e-10, 1.0 + 2e-10, 1.0 + 2e-10, 1.0 + 3e-10, 2.0 + 8e-10]
    ticks = reference.arrival_ticks(arrival_s)
    assert [t - SECOND for t in ticks] == [0, 1, 2, 2, 3, SECOND + 1]
    for start_s in [0.5, *arrival_s, 1.5, 2.0 + 7e-10, 2.5]:
        start = reference.boundary_tick(start_s, arrival_s, ticks)
        assert [start < t for t in ticks] == [start_s < t for t in arrival_s]


def test_durations_pass_through_float32() -> None:
    assert reference.duration_ticks(0.755) == 754_999_995
    assert reference.duration_ticks(1.19) == 1_190_000_057
    assert reference.duration_ticks(INF) == INF
    assert reference.stage_ticks([0.1, 0.2], stage_overhead=0.0) == [100_000_001, 200_000_003]
    assert reference.stage_ticks([0.1, 0.2], stage_overhead=0.5) == [200_000_003, 400_000_006]


def test_warmup_cut() -> None:
    arrival = [0, *[50 * SECOND] * 8, 100 * SECOND]
    assert reference.warmup_cut(arrival) == (1, 9)
    assert reference.goodput(arrival, [False, True, True, False, *[True] * 6]) == 7 / 8
    assert reference.warmup_cut([0, 101 * SECOND]) == (0, 2)
    for nothing_left in [[0, 20 * SECOND], [0, SECOND], [3, 3]]:
        with pytest.raises(ValueError, match="leaves nothing"):
            reference.warmup_cut(nothing_left)


def test_greedy_by_hand() -> None:
    """Two devices with room for two models each; models 1 and 2 have two requests, model 0 one.

    Nothing is placed: the most unserved, lower index, goes to group 0: model 1, group sorted last.
    Empty group 0 then has the lower load: model 2; groups (1), (2) have loads 2, 2, model 0 is the
    unserved one and joins (1), now (0, 1) with load 3; (2) with load 2 gets 0, now (0, 2), and both
    are full.
    """
    arrival, model = [0, 100, 200, 300, 400], [1, 2, 0, 1, 2]
    stages = {("a", m): [10] for m in range(3)}
    weight = dict.fromkeys(stages, 4.0)
    placed = reference.greedy(arrival, model, [INF] * 3, ["a", "a"], stages, weight, 8.0, 0)
    assert placed == [("a", (0, 1)), ("a", (0, 2))]
    assert reference.greedy(arrival, model, [INF] * 3, ["a"], stages, weight, 7.9, 0) == [
        ("a", (1,))
    ]
    assert reference.greedy(arrival, model, [INF] * 3, ["a", "b"], stages, weight, 3.9, 0) == [
        ("a", ()),
        ("b", ()),
    ]


def test_greedy_breaks_ties_by_canonical_order() -> None:
    """Equal loads: the first device gets the busier model 1, and is sorted behind the empty one."""
    stages = {(config, m): [10] for config in "ab" for m in range(2)}
    weight = dict.fromkeys(stages, 1.0)
    placed = reference.greedy([0, 9, 99], [1, 0, 1], [INF] * 2, ["a", "b"], stages, weight, 1.0)
    assert placed == [("b", (0,)), ("a", (1,))]


gaps = st.sampled_from([0.0, 1e-12, 2e-10, 4e-10, 1e-9, 1.4e-9, 1e-6, 0.3])


@given(st.sampled_from([0.0, 0.2, 86_400.0, 1.2e6]), st.lists(gaps, max_size=40))
def test_tick_conversion_keeps_the_order(origin_s: float, gaps_s: list[float]) -> None:
    """The package's vector conversion equals the naive loop, and no two arrivals swap or merge."""
    arrival_s = (origin_s + np.cumsum(gaps_s)).tolist()
    ticks = reference.arrival_ticks(arrival_s)
    assert arrivals_to_ticks(arrival_s).tolist() == ticks
    assert np.array_equal(np.diff(ticks) > 0, np.diff(arrival_s) > 0)
    assert all(
        abs(tick - t * 1e9) <= len(ticks) + 1 for tick, t in zip(ticks, arrival_s, strict=True)
    )


@given(st.floats(1e-6, 1e4) | st.just(INF))
def test_durations_equal_the_package(seconds: float) -> None:
    ticks = reference.duration_ticks(seconds)
    assert durations_to_ticks([seconds]).tolist() == [NO_DEADLINE if ticks == INF else ticks]


@given(st.lists(st.integers(0, 100), min_size=2, max_size=60), st.integers(1, 40))
def test_warmup_cut_equals_the_package(arrival_s: list[int], warmup_s: int) -> None:
    arrival = sorted(t * SECOND for t in arrival_s)
    workload = Workload(np.array(arrival), np.zeros(len(arrival)))
    try:
        expected = reference.warmup_cut(arrival, warmup_s)
    except ValueError:
        with pytest.raises(ValueError, match="leaves nothing"):
            workload.warmup_cut(warmup_s)
    else:
        assert workload.warmup_cut(warmup_s) == expected


@st.composite
def instances(draw: st.DrawFn, same_type: bool = False) -> tuple[Any, ...]:
    """Small crowded instances: arrival, model, slo, groups."""
    num_models = draw(st.integers(1, 3))
    arrival = sorted(draw(st.lists(st.integers(0, 60), max_size=25)))
    model = [draw(st.integers(-1, num_models - 1)) for _ in arrival]
    slo = [draw(st.integers(3, 40) | st.just(INF)) for _ in range(num_models)]
    groups = []
    for _ in range(draw(st.integers(1, 3))):
        depth = draw(st.integers(1, 3))
        stages = st.lists(st.integers(1, 9), min_size=depth, max_size=depth)
        hosted = draw(st.sets(st.integers(0, num_models - 1)))
        shared_stages = draw(stages)
        groups.append({m: shared_stages if same_type else draw(stages) for m in hosted})
    return arrival, model, slo, groups


@given(instances(same_type=True), st.integers(0, 5))
def test_one_clock_is_enough_for_one_type(instance: tuple[Any, ...], overhead: int) -> None:
    """A pipeline of one type is one server: occupied for its longest stage, done after the sum."""
    arrival, model, slo, groups = instance
    outcome = reference.simulate(arrival, model, slo, [(0, groups)], overhead)
    free: list[int | None] = [None] * len(groups)
    for i, (t, m) in enumerate(zip(arrival, model, strict=True)):
        total = {
            g: (sum(hosted[m]), max(hosted[m])) for g, hosted in enumerate(groups) if m in hosted
        }
        last_stage = [
            (0 if free[g] is None else free[g] + length - longest, g)
            for g, (length, longest) in total.items()
        ]
        if not last_stage:
            assert (outcome.group[i], outcome.good[i], outcome.finish[i]) == (-1, False, t)
            continue
        _, g = min(last_stage)
        length, longest = total[g]
        start = max(free[g] or 0, t)
        finish = start + length + overhead
        good = finish - t <= slo[m]
        assert (outcome.group[i], outcome.good[i]) == (g, good)
        assert outcome.finish[i] == (finish if good else t)
        if good:
            free[g] = start + longest


@given(
    instances(),
    st.sampled_from(["earliest_free", "earliest_finish", "round_robin"]),
    st.integers(0, 5),
)
def test_invariants(instance: tuple[Any, ...], dispatch: str, overhead: int) -> None:
    arrival, model, slo, groups = instance
    outcome = reference.simulate(arrival, model, slo, [(0, groups)], overhead, dispatch)
    busy_until = [0] * len(groups)
    for t, m, finish, good, g, start in zip(arrival, model, *outcome, strict=True):
        assert (g >= 0) == any(m in hosted for hosted in groups)
        if good:
            assert t <= start <= finish - overhead - sum(groups[g][m])
            assert finish - t <= slo[m]
            assert start >= busy_until[g]  # the first stage serves one request at a time, in order
            busy_until[g] = start + groups[g][m][0]
        else:
            assert finish == start == t

    doubled = [{m: [2 * s for s in stages] for m, stages in group.items()} for group in groups]
    twice = reference.simulate(
        [2 * t for t in arrival],
        model,
        [2 * s for s in slo],
        [(0, doubled)],
        2 * overhead,
        dispatch,
    )
    assert np.array_equal(twice.group, outcome.group)
    assert np.array_equal(twice.finish, 2 * outcome.finish)
    shift = 1_200_000 * SECOND
    later = reference.simulate(
        [t + shift for t in arrival], model, slo, [(0, groups)], overhead, dispatch
    )
    assert np.array_equal(later.group, outcome.group)
    assert np.array_equal(later.finish, outcome.finish + shift)


@pytest.mark.parametrize(
    ("rate_rps", "stages_s", "slo_s", "attainment"),
    [(2.4, [0.4], 0.8, 0.744661), (3.0, [0.2, 0.2], 0.8, 0.953229), (3.0, [0.4], 2.0, 0.800853)],
)
def test_exact_attainment_under_poisson_arrivals(
    rate_rps: float, stages_s: list[float], slo_s: float, attainment: float
) -> None:
    """Queueing theory for this admission rule; 4 standard errors over independent replications."""
    group = {0: [round(s * SECOND) for s in stages_s]}
    shares = []
    for seed in range(16):
        rng, t, arrival = random.Random(seed), 0.0, []
        for _ in range(3000):
            t += rng.expovariate(rate_rps)
            arrival.append(round(t * SECOND))
        slo = [round(slo_s * SECOND)]
        good = reference.simulate(arrival, [0] * len(arrival), slo, [(0, [group])], 0).good
        shares.append(good[300:].mean())
    error = np.std(shares, ddof=1) / math.sqrt(len(shares))
    assert abs(np.mean(shares) - attainment) <= 4 * error


def test_golden_files_are_what_the_reference_makes() -> None:
    made = {f"{case['name']}.json": make_golden.render(case) for case in make_golden.cases()}
    stored = {path.name: path.read_text() for path in make_golden.FOLDER.glob("*.json")}
    assert sorted(stored) == sorted(made)
    for name, text in made.items():
        assert stored[name] == text, f"{name}: run `python tests/make_golden.py`"
