"""The engine against the oracle on random instances, and the laws any such simulation obeys."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import beta_jax
from beta_jax import (
    Cluster,
    Group,
    Model,
    ParallelConfig,
    Placement,
    PlacementError,
    Problem,
    Rules,
    Schedule,
    SimulationError,
    Workload,
    simulate,
)
from beta_jax.simulator.kernels.choose import simulate_block

from instances import (
    Instance,
    idle_groups,
    instances,
    make_profile,
    placements,
    problems,
    workloads,
)

DISPATCHES = tuple(beta_jax.Dispatch)
ONE, TWO = ParallelConfig(1, 1), ParallelConfig(1, 2)
# Examples share compiled programs only while shapes repeat, so the first few are slow.
relaxed = settings(max_examples=60)


def one_group(
    stages: list[float], slo_s: float, rules: Rules | None = None
) -> tuple[Problem, Placement]:
    config = ParallelConfig(1, len(stages))
    problem = Problem(
        (Model("m", "t", slo_s),),
        Cluster(num_devices=config.num_devices),
        make_profile({"t": {config: stages}}),
        rules or Rules(stage_overhead=0, request_overhead_s=0),
    )
    return problem, Placement((Group(config, (0,)),))


def assert_same(instance: Instance, outcome: beta_jax.Outcome) -> None:
    expected = instance.oracle()
    np.testing.assert_array_equal(outcome.good, expected.good)
    np.testing.assert_array_equal(outcome.finish, expected.finish)
    np.testing.assert_array_equal(outcome.group, expected.group)


@pytest.mark.usefixtures("kernel")
@given(instances(DISPATCHES))
@relaxed
def test_every_request_as_in_the_oracle(instance: Instance):
    (outcome,) = simulate(*instance, outputs="requests")
    assert_same(instance, outcome)


@pytest.mark.usefixtures("kernel")
@given(instances(DISPATCHES))
@relaxed
def test_tally_counts_the_requests(instance: Instance):
    tally = simulate(*instance)
    (outcome,) = simulate(*instance, outputs="requests")
    model, latency = instance.workload.model, outcome.finish - instance.workload.arrival
    for m in range(len(instance.problem.models)):
        assert tally.num_requests[0, m] == (model == m).sum()
        assert tally.good[0, m] == outcome.good[model == m].sum()
        assert tally.latency_ticks[0, m] == latency[model == m].sum()
    for g in range(tally.dispatched.shape[1]):
        assert tally.dispatched[0, g] == (outcome.group == g).sum()
        assert tally.group_good[0, g] == outcome.good[outcome.group == g].sum()


@pytest.mark.usefixtures("kernel")
@given(st.data())
@settings(relaxed, max_examples=15)
def test_lanes_do_not_touch_each_other(data: st.DataObject):
    """Any order, number and mixture of lanes gives each lane the same bits."""
    problem = data.draw(problems(DISPATCHES))
    num_models = len(problem.models)
    streams = data.draw(st.lists(workloads(num_models), min_size=1, max_size=2))
    lanes = [
        (
            data.draw(placements(num_models, idle=idle_groups(problem))),
            data.draw(st.sampled_from(streams)),
        )
        for _ in range(data.draw(st.integers(1, 11)))
    ]
    order = data.draw(st.permutations(range(len(lanes))))
    together = simulate(
        problem, [lanes[i][0] for i in order], [lanes[i][1] for i in order], outputs="requests"
    )
    for i, outcome in zip(order, together, strict=True):
        assert_same(Instance(problem, *lanes[i]), outcome)


@pytest.mark.usefixtures("kernel")
def test_more_lanes_than_a_block_and_many_groups():
    rng = np.random.default_rng(0)
    profile = make_profile({"a": {ONE: [0.02]}, "b": {ONE: [0.05]}})
    models = tuple(Model(f"m{i}", "ab"[i % 2], 0.2) for i in range(6))
    problem = Problem(models, Cluster(num_devices=300), profile)
    workload = Workload.from_seconds(
        np.cumsum(rng.exponential(0.004, 500)), rng.integers(0, 6, 500)
    )
    lanes = [
        Placement(tuple(Group(ONE, tuple(np.flatnonzero(rng.random(6) < 0.3))) for _ in range(n)))
        for n in [*([5] * 70), 256]
    ]
    for placement, outcome in zip(
        lanes, simulate(problem, lanes, workload, outputs="requests"), strict=True
    ):
        assert_same(Instance(problem, placement, workload), outcome)


@pytest.mark.usefixtures("kernel")
def test_largest_shape():
    """256 groups of 32 stages, with mixed types, so that every stage keeps its clock; some wait."""
    rng = np.random.default_rng(1)
    deep = ParallelConfig(1, 32)
    profile = make_profile({kind: {deep: list(rng.uniform(0.001, 0.01, 32))} for kind in "ab"})
    models = (Model("a", "a", 0.5), Model("b", "b", math.inf))
    problem = Problem(models, Cluster(num_devices=256 * 32), profile)
    placement = Placement(tuple(Group(deep, (0, 1)) for _ in range(256)))
    workload = Workload.from_seconds(np.sort(rng.uniform(0, 0.05, 320)), rng.integers(0, 2, 320))
    for dispatch in DISPATCHES:
        ruled = dataclasses.replace(problem, rules=Rules(dispatch=dispatch))
        (outcome,) = simulate(ruled, placement, workload, outputs="requests")
        assert_same(Instance(ruled, placement, workload), outcome)


def test_burst_of_four_by_hand():
    """Two stages of .2 s, four requests at once, SLO .85 s: finishes .4 .6 .8; the last is late."""
    problem, placement = one_group([0.2, 0.2], 0.85)
    workload = Workload.from_seconds([1.0] * 4, [0] * 4)
    (outcome,) = simulate(problem, placement, workload, outputs="requests")
    np.testing.assert_allclose(outcome.latency_s, [0.4, 0.6, 0.8, 0], atol=1e-7)
    assert outcome.good.tolist() == [True, True, True, False]


@given(instances(DISPATCHES))
@relaxed
def test_conservation_and_deadlines(instance: Instance):
    tally = simulate(*instance)
    assert tally.num_counted.tolist() == [len(instance.workload)]
    assert tally.dispatched.sum() <= tally.num_requests.sum() <= len(instance.workload)
    assert (tally.good <= tally.num_requests).all()
    assert tally.good.sum() == tally.group_good.sum()
    (outcome,) = simulate(*instance, outputs="requests")
    for m, model in enumerate(instance.problem.models):
        served = outcome.good & (instance.workload.model == m)
        assert (outcome.latency_s[served] <= model.slo_s + 1e-6).all()


@given(st.data())
@relaxed
def test_stages_serve_first_come_first_served(data: st.DataObject):
    """A stage that serves jobs in order, idling only when it has none, ends them at
    max over j <= i of (ready_j + all work from j to i); each stage feeds the next."""
    problem = data.draw(problems(DISPATCHES))
    workload = data.draw(workloads(len(problem.models)))
    placement = data.draw(placements(len(problem.models), idle=idle_groups(problem)))
    (outcome,) = simulate(problem, placement, workload, outputs="requests")
    for g, stages in enumerate(Instance(problem, placement, workload).groups(placement)):
        served = np.flatnonzero(outcome.good & (outcome.group == g))
        ready = workload.arrival[served]
        for k in range(placement.groups[g].config.pp):
            done = np.cumsum(
                [stages[m][k] for m in workload.model[served].tolist()], dtype=np.int64
            )
            work_before = np.concatenate([[0], done[:-1]])
            ready = np.maximum.accumulate(ready - work_before) + done if len(served) else ready
        overhead = round(problem.rules.request_overhead_s * 1e9)
        np.testing.assert_array_equal(outcome.finish[served], ready + overhead)


@given(instances(DISPATCHES), st.sampled_from((1, 10**6, 10**15)))
@relaxed
def test_shifting_time_changes_nothing(instance: Instance, shift: int):
    problem, placement, workload = instance
    if isinstance(placement, Schedule):
        placement = placement.placements[0]
    later = Workload(workload.arrival + shift, workload.model)
    (before,) = simulate(problem, placement, workload, outputs="requests")
    (after,) = simulate(problem, placement, later, outputs="requests")
    np.testing.assert_array_equal(before.finish + shift, after.finish)
    np.testing.assert_array_equal(before.group, after.group)


@given(st.data())
@relaxed
def test_scaling_time_changes_no_decision(data: st.DataObject):
    """All latencies are powers of two of a tick, so that doubling them in float32 is exact."""
    config = ParallelConfig(1, 2)
    workload = data.draw(workloads(2))
    placement = Placement(
        tuple(
            Group(config, tuple(models))
            for models in data.draw(st.lists(st.sets(st.integers(0, 1)), max_size=3))
        )
    )

    def run(factor: int):
        seconds = factor * 2.0**-6
        profile = make_profile(
            {"t": {config: [seconds, 2 * seconds]}, "u": {config: [3 * seconds, seconds]}}
        )
        models = (Model("a", "t", 8 * seconds), Model("b", "u", 6 * seconds))
        rules = Rules(stage_overhead=0, request_overhead_s=seconds / 2)
        problem = Problem(models, Cluster(num_devices=6), profile, rules)
        scaled = Workload(workload.arrival * factor, workload.model)
        return simulate(problem, placement, scaled, outputs="requests")[0]

    once, twice = run(1), run(2)
    np.testing.assert_array_equal(once.good, twice.good)
    np.testing.assert_array_equal(once.group, twice.group)
    np.testing.assert_array_equal(once.finish * 2, twice.finish)


def test_littles_law_on_the_sample_path():
    """Time-averaged number in the system = arrival rate x mean sojourn, as areas: exactly equal."""
    problem, placement = one_group([0.03, 0.05], math.inf)
    rng = np.random.default_rng(3)
    workload = Workload.from_seconds(np.cumsum(rng.exponential(0.06, 2000)), np.zeros(2000))
    (outcome,) = simulate(problem, placement, workload, outputs="requests")
    times = np.concatenate([workload.arrival, outcome.finish])
    change = np.repeat([1, -1], len(workload))
    order = np.argsort(times, kind="stable")
    number = np.cumsum(change[order])[:-1]
    area = int((number * np.diff(times[order])).sum())
    assert area == int((outcome.finish - workload.arrival).sum())


def admission_attainment(rate: float, stages: list[float], slo_s: float) -> float:
    """Exact attainment of Poisson traffic under deadline admission (one group, one model type)."""
    total, bottleneck = sum(stages), max(stages)
    tau = slo_s - total
    h = sum(
        math.exp(rate * (tau - j * bottleneck))
        * (-rate * (tau - j * bottleneck)) ** j
        / math.factorial(j)
        for j in range(math.floor(tau / bottleneck + 1e-12) + 1)
    )
    return h / (1 + rate * bottleneck * h)


@pytest.mark.parametrize(
    "rate, stages, slo_s, published",
    [
        (1.5, [0.4], 2.0, 0.993326),
        (2.4, [0.4], 0.8, 0.744661),
        (3.0, [0.4], 2.0, 0.800853),
        (3.0, [0.2, 0.2], 0.8, 0.953229),
        (2.0, [0.1, 0.3, 0.05], 1.1, None),
    ],
)
def test_attainment_under_deadline_admission(rate, stages, slo_s, published):
    exact = admission_attainment(rate, stages, slo_s)
    assert published is None or exact == pytest.approx(published, abs=1e-6)
    problem, placement = one_group(
        stages, slo_s * (1 + 1e-7)
    )  # so that float32 does not round it down
    streams = []
    for seed in range(24):
        arrival_s = np.cumsum(np.random.default_rng(seed).exponential(1 / rate, 4000))
        streams.append(Workload.from_seconds(arrival_s, np.zeros(4000)))
    attainment = simulate(problem, placement, streams, warmup_s=50.0).attainment
    error = attainment.std(ddof=1) / math.sqrt(len(streams))
    assert abs(attainment.mean() - exact) < 4 * error


def test_a_sweep_compiles_once():
    """Rates, latencies, SLOs, hosting and request counts are data; only shapes compile."""
    rng = np.random.default_rng(4)

    def run(
        latency: float, slo_s: float, requests: int, hosts: tuple[int, ...], overhead: float
    ) -> None:
        profile = make_profile({"a": {TWO: [latency] * 2}, "b": {TWO: [latency / 2] * 2}})
        models = (Model("a", "a", slo_s), Model("b", "b", 2 * slo_s))
        problem = Problem(models, Cluster(num_devices=4), profile, Rules(stage_overhead=overhead))
        placement = Placement((Group(TWO, (0, 1)), Group(TWO, hosts)))
        workload = Workload.from_seconds(
            np.sort(rng.uniform(0, 9, requests)), rng.integers(0, 2, requests)
        )
        simulate(problem, placement, workload)

    run(0.1, 0.5, 600, (0,), 0.009)
    compiled = simulate_block._cache_size()
    for latency, slo_s, requests, hosts, overhead in (
        (0.2, 0.5, 600, (0,), 0.009),
        (0.1, math.inf, 1000, (1,), 0.0),
        (0.3, 0.9, 513, (), 0.1),
    ):
        run(latency, slo_s, requests, hosts, overhead)
    assert simulate_block._cache_size() == compiled


def test_warmup_cut_limits_the_counts():
    problem, placement = one_group([0.1], 1.0)
    workload = Workload.from_seconds(np.arange(101.0), np.zeros(101))
    tally = simulate(problem, placement, workload, warmup_s=10.0)
    assert tally.num_requests.tolist() == [[81]] and tally.good.tolist() == [[81]]
    schedule = Schedule((0.0, 30.5, 60.5), (placement,) * 3)
    assert simulate(problem, schedule, workload, warmup_s=10.0).good.tolist() == [[81]]


def test_arguments_broadcast():
    problem, placement = one_group([0.1], 1.0)
    short, long = (Workload.from_seconds(np.arange(n) * 1.0, np.zeros(n)) for n in (3, 5))
    tally = simulate(problem, placement, [short, long, short])
    assert tally.num_requests[:, 0].tolist() == [3, 5, 3]
    assert simulate(problem, [], long).attainment.shape == (0,)
    with pytest.raises(ValueError, match="one length, got 1, 2, 3"):
        simulate(problem, [placement] * 2, [short] * 3)


@pytest.mark.parametrize(
    "change, error, message",
    [
        (lambda p, pl, w: (p, Placement(pl.groups * 2), w), PlacementError, "uses 2 devices of 1"),
        (
            lambda p, pl, w: (p, Placement((Group(ONE, (0, 0)),)), w),
            PlacementError,
            "hosts a model twice",
        ),
        (lambda p, pl, w: (p, Placement((Group(ONE, (1,)),)), w), PlacementError, "of 1"),
        (
            lambda p, pl, w: (
                dataclasses.replace(p, cluster=Cluster(2)),
                Placement((Group(TWO, (0,)),)),
                w,
            ),
            PlacementError,
            "no profile",
        ),
        (
            lambda p, pl, w: (dataclasses.replace(p, cluster=Cluster(1, memory_bytes=0.5)), pl, w),
            PlacementError,
            "weights on a device",
        ),
        (
            lambda p, pl, w: (dataclasses.replace(p, rules=Rules(dispatch="random")), pl, w),
            ValueError,
            "unknown dispatch 'random'; known: earliest_free",
        ),
        (
            lambda p, pl, w: (p, pl, Workload(w.arrival, w.model + 1)),
            SimulationError,
            "requests of model 1",
        ),
        (
            lambda p, pl, w: (p, pl, Workload(np.array([0, 2**62 + 1]), np.zeros(2))),
            SimulationError,
            "do not fit",
        ),
    ],
)
def test_bad_input(change, error, message):
    problem, placement = one_group([0.1], 1.0)
    workload = Workload.from_seconds([0.0, 1.0], [0, 0])
    with pytest.raises(error, match=message):
        simulate(*change(problem, placement, workload))


def test_bad_options():
    problem, placement = one_group([0.1], 1.0)
    workload = Workload.from_seconds([0.0, 1.0], [0, 0])
    with pytest.raises(ValueError, match="leaves nothing of 2 requests"):
        simulate(problem, placement, workload, warmup_s=10.0)
    with pytest.raises(ValueError, match="'tally' or 'requests'"):
        simulate(problem, placement, workload, outputs="histogram")


def test_memory_limit_changes_no_bit(monkeypatch: pytest.MonkeyPatch):
    """However small the blocks that a memory limit asks for."""
    problem, placement = one_group([0.1], 0.5)
    workload = Workload.from_seconds(np.cumsum(np.full(50, 0.07)), np.zeros(50))
    empty = Placement((Group(ONE),))
    lanes = [placement, empty] * 10
    at_once = simulate(problem, lanes, workload, outputs="requests")
    monkeypatch.setattr("beta_jax.simulator.engine.REQUEST_OUTPUT_BYTES", 1)
    singly = simulate(problem, lanes, workload, outputs="requests")
    for a, b in zip(at_once, singly, strict=True):
        np.testing.assert_array_equal(a.finish, b.finish)
        np.testing.assert_array_equal(a.group, b.group)
