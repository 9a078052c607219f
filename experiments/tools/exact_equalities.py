"""What a simulation must give without any tolerance: equalities of integers.

They take every program that the simulator consists of: one clock per group, a clock per stage, one
lane alone and many in lockstep, and the dispatch rules.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np

from beta_jax.analysis.stage_times import run_stages
from beta_jax.placement.placement import Placement
from beta_jax.placement.problem import Problem
from beta_jax.simulator import Dispatch, Outcome, simulate
from beta_jax.simulator.engine import Kernel, join_requests, make_simulations, simulate_lanes
from beta_jax.theory import queueing
from beta_jax.theory.systems import (
    ALL,
    EXPONENTIAL,
    FOREVER,
    Comparison,
    Groups,
    KnownAverage,
    Systems,
)
from beta_jax.types import ONE_WORK, Workload, durations_to_ticks
from beta_jax.workloads.synthesis import WorkDistribution, synthesize

DURATION_S = 2000.0
LATER_TICKS = 1_200_000 * 10**9
"""Two weeks: as far from the origin as replayed traces begin."""
DEEP = (0.25, 0.6875, 0.5, 0.125)
MANY_GROUPS = 256


def compare(averages: Sequence[KnownAverage], seed: int) -> list[Comparison]:
    """An equality each; most count requests that differ, exactly none.

    averages: systems of one stage or several, simulated together and one by one.
    """
    return [
        *_bursts(),
        *_programs(seed),
        *_lanes([known for known in averages if known.max_batch is known.work is None], seed),
        *_dispatch(seed),
        *_batches(seed),
        *_works(seed),
        *_clocks(seed),
    ]


def _run(problem: Problem, placement: Placement, workload: Workload) -> Outcome:
    (outcome,) = simulate(problem, placement, workload, outputs="requests")
    return outcome


def _differ(case: str, a: Outcome, b: Outcome) -> Comparison:
    """How many requests of two outcomes have different decisions, groups or latencies."""
    latencies = [outcome.finish - outcome.workload.arrival for outcome in (a, b)]
    differ = (latencies[0] != latencies[1]) | (a.good != b.good) | (a.group != b.group)
    return Comparison(case, "requests that differ", int(differ.sum()), 0)


def _bursts() -> Iterable[Comparison]:
    """Four requests at once (figure 1 of the paper)."""
    for name, stages in (("on one device", (1.0,)), ("through two stages", (0.5, 0.5))):
        systems = Systems([stages])
        placement = systems.placement(((stages, ALL),))
        burst = Workload(np.zeros(4, np.int64), np.array([0, 1, 2, 0]))
        tally = simulate(systems.problem(FOREVER), placement, burst)
        exact = float(queueing.burst_latency_s(4, sum(stages), max(stages)))
        yield Comparison(
            f"burst of 4 {name}", "mean latency (s)", float(tally.latency_mean_s[0]), exact
        )


def _programs(seed: int) -> Iterable[Comparison]:
    """Finishes of a pipeline against its recurrence, in the programs that may compute them."""
    for name, types, groups in (
        ("one clock per group", ("t", "t", "t"), 1),
        ("a clock per stage", ("t", "slow", "t"), 1),
        (f"{MANY_GROUPS} groups", ("t", "slow", "t"), MANY_GROUPS),
    ):
        systems = Systems([DEEP], types)
        problem = systems.problem(FOREVER)
        workload = _traffic(problem, seed)
        idle: Groups = ((DEEP, ()),) * (groups - 1)
        outcome = _run(problem, systems.placement((*idle, (DEEP, ALL))), workload)
        factor = np.array([1 + (kind == "slow") for kind in types])[workload.model]
        _, end = run_stages(workload.arrival, factor[:, None] * durations_to_ticks(DEEP))
        yield Comparison(name, "requests that differ", int((outcome.finish != end[:, -1]).sum()), 0)


def _lanes(averages: Sequence[KnownAverage], seed: int) -> Iterable[Comparison]:
    """The same lanes in lockstep, and one by one; and their counts."""
    systems = Systems(stages for known in averages for stages, _ in known.groups)
    problems = [systems.problem(known.slo_s) for known in averages]
    placements = [systems.placement(known.groups) for known in averages]
    workload = _traffic(problems[0], seed)
    yield from _together(f"{len(averages)} lanes", problems, placements, workload)
    systems = Systems([DEEP], ("t", "slow", "t"))
    for dispatch in Dispatch:
        problems = [systems.problem(slo_s, dispatch) for slo_s in np.arange(1.5, 6.5, 0.25)]
        placements = [systems.placement(((DEEP, (0, 1)), (DEEP, (1, 2))))] * len(problems)
        yield from _together(f"{len(problems)} lanes, {dispatch}", problems, placements, workload)


def _together(
    name: str, problems: Sequence[Problem], placements: Sequence[Placement], workload: Workload
) -> Iterable[Comparison]:
    together = _in_lockstep(problems, placements, workload)
    apart = [_run(*system, workload) for system in zip(problems, placements, strict=True)]
    differ = sum(
        int(((a.finish != b.finish) | (a.group != b.group)).sum())
        for a, b in zip(together, apart, strict=True)
    )
    yield Comparison(f"{name}: in lockstep, or alone", "requests that differ", differ, 0)
    tally = simulate(problems, placements, workload)
    counted = [[o.good[workload.model == m].sum() for m in ALL] for o in together]
    differ = int(np.abs(tally.good[:, : len(ALL)] - counted).sum())
    yield Comparison(f"{name}: counted, or listed", "requests that differ", differ, 0)


def _in_lockstep(
    problems: Sequence[Problem], placements: Sequence[Placement], workload: Workload
) -> list[Outcome]:
    """As `simulate`, in blocks of many lanes even where it would choose one lane at a time."""
    simulations = make_simulations(problems, placements, workload, 0.0)
    lanes = [lane for simulation in simulations for lane in simulation.lanes]
    return join_requests(
        simulations, simulate_lanes(lanes, keep_requests=True, kernel=Kernel.LOCKSTEP)
    )


def _dispatch(seed: int) -> Iterable[Comparison]:
    """Of replicas that take equally long, the one that is free first is the next in turn."""
    systems = Systems([(2.25,)])
    placement = systems.placement((((2.25,), ALL),) * 3)
    problem = systems.problem(FOREVER)
    first = _run(problem, placement, _one_model(_traffic(problem, seed)))
    for dispatch in ("earliest_finish", "round_robin"):
        other = _run(systems.problem(FOREVER, dispatch), placement, first.workload)
        yield Comparison(
            f"M/D/3 by {dispatch}, or by earliest_free",
            "requests that differ",
            int((first.finish != other.finish).sum()),
            0,
        )


def _batches(seed: int) -> Iterable[Comparison]:
    """What is served in batches of one is served alone; of a burst the rest is, once one is."""
    systems = Systems([DEEP, (1.0,)], ("t", "slow", "t"))
    alone, ones, pairs = (systems.problem(FOREVER, max_batch=size) for size in (None, 1, 2))
    workload = _traffic(alone, seed)
    placement = systems.placement(((DEEP, ALL),))
    outcomes = [_run(problem, placement, workload) for problem in (alone, ones)]
    yield _differ("batches of one, or none", *outcomes)
    burst = Workload(np.zeros(8, np.int64), np.zeros(8, np.int64))
    tally = simulate(pairs, systems.placement((((1.0,), ALL),)), burst)
    exact = (1 + 2 * (2 + 3 + 4) + 5) / 8
    yield Comparison(
        "burst of 8 in pairs", "mean latency (s)", float(tally.latency_mean_s[0]), exact
    )


def _works(seed: int) -> Iterable[Comparison]:
    """Work of one is what the profile says, in every program; and other work is the same in all."""
    systems = Systems([DEEP], ("t", "slow", "t"))
    placement = systems.placement(((DEEP, (0, 1)), (DEEP, (1, 2))))
    problem = systems.problem(4.0)
    workload = _traffic(problem, seed)
    ones = dataclasses.replace(workload, work=np.full(len(workload), ONE_WORK))
    for name, known, run in (
        ("alone", problem, _run),
        ("in lockstep", problem, lambda p, q, w: _in_lockstep([p], [q], w)[0]),
        ("in batches", systems.problem(4.0, max_batch=2), _run),
    ):
        outcomes = [run(known, placement, requests) for requests in (workload, ones)]
        yield _differ(f"work of one or none, {name}", *outcomes)
    problems = [systems.problem(slo_s) for slo_s in np.arange(1.5, 6.5, 0.25)]
    placements, varied = [placement] * len(problems), _traffic(problem, seed, EXPONENTIAL)
    yield from _together(f"{len(problems)} lanes, random work", problems, placements, varied)


def _one_model(workload: Workload) -> Workload:
    return Workload(workload.arrival, np.zeros_like(workload.model))


def _clocks(seed: int) -> Iterable[Comparison]:
    """Moved in time, or with all times doubled, a simulation decides the same."""
    systems = Systems([DEEP, tuple(2 * stage for stage in DEEP)], ("t", "slow", "t"))
    problem, twice = systems.problem(4.0), systems.problem(8.0)
    workload = _traffic(problem, seed)
    groups: Groups = ((DEEP, (0, 1)), (DEEP, (1, 2)))
    outcome = _run(problem, systems.placement(groups), workload)
    later = Workload(workload.arrival + LATER_TICKS, workload.model)
    yield _differ("two weeks later", outcome, _run(problem, systems.placement(groups), later))
    slower: Groups = tuple((tuple(2 * stage for stage in stages), m) for stages, m in groups)
    doubled = _run(
        twice,
        systems.placement(slower),
        Workload(2 * workload.arrival, workload.model),
    )
    differ = (outcome.good != doubled.good) | (outcome.group != doubled.group)
    yield Comparison("all times doubled", "requests that differ", int(differ.sum()), 0)


def _traffic(problem: Problem, seed: int, work: WorkDistribution | None = None) -> Workload:
    models = problem.models
    return synthesize(models, duration_s=DURATION_S, process="poisson", seed=seed, work=work)
