"""Computes a block of cases: places, simulates, and measures how the placements serve."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from beta_jax.analysis.metrics import latency_summary
from beta_jax.parallel import run_parallel
from beta_jax.placement.codec import groups_to_document
from beta_jax.placement.hosting import hosts_any, statics
from beta_jax.placement.placement import Placement, Schedule
from beta_jax.placement.problem import Problem
from beta_jax.search import Result, place_batch
from beta_jax.simulator import Outcome, simulate
from beta_jax.types import Workload
from experiments.engine.inputs import InputMaker, Inputs
from experiments.engine.points import Case
from experiments.engine.scenarios import BaseScenario
from experiments.engine.schedule import chunks
from experiments.engine.store import Record
from experiments.engine.timing import Stopwatch

METRICS = ("num_requests", "slo_attainment", "latency_mean_s", "latency_p50_s", "latency_p99_s")


class Computed(NamedTuple):
    """The records of a block, and the seconds that each policy took to place it."""

    records: dict[Case, Record]
    placing_s: dict[str, float]


def compute_block(
    block: Sequence[Case], maker: InputMaker, stopwatch: Stopwatch, say: Callable[[str], None]
) -> Computed:
    """Compute a block of cases; `say` is told what is being done.

    Raises ValueError where no request arrives, and what the library raises for bad input.
    """
    with stopwatch.part("workloads"):
        inputs = maker.workloads(scenario for _, scenario in block)
    for scenario, made in inputs.items():
        if not len(made.test):
            raise ValueError(
                f"no request arrives in the traffic, {scenario.traffic}: make it longer, or its "
                "rate higher"
            )
    placed, placing_s = _place(block, inputs, stopwatch, say)
    say("simulating")
    records: dict[Case, Record] = {}
    num_requests = {scenario: len(made.test) for scenario, made in inputs.items()}
    for own in chunks(block, num_requests):
        problems, _, tests = zip(*(inputs[scenario] for _, scenario in own), strict=True)
        with stopwatch.part("simulate"):
            outcomes = simulate(
                problems,
                [placed[case].placement for case in own],
                tests,
                warmup_s=own[0].scenario.warmup_s,
                outputs="requests",
            )
        with stopwatch.part("measure"):
            measured = list(zip(problems, [placed[case] for case in own], outcomes, strict=True))
            records |= zip(own, run_parallel(lambda one: _record(*one), measured), strict=True)
    return Computed(records, placing_s)


def _place(
    block: Sequence[Case],
    inputs: Mapping[BaseScenario, Inputs],
    stopwatch: Stopwatch,
    say: Callable[[str], None],
) -> tuple[dict[Case, Result], dict[str, float]]:
    """The results of a block's searches, and the seconds of each policy.

    Policies run side by side, as none uses all cores at all times; the seconds are shared out.
    """

    def place(policy: str) -> tuple[list[Result], float]:
        begin = time.perf_counter()
        tasks = [_task(s, inputs[s]) for p, s in block if p == policy]
        distinct = list(dict.fromkeys(tasks))
        found = dict(zip(distinct, place_batch(policy, *zip(*distinct, strict=True)), strict=True))
        return [found[task] for task in tasks], time.perf_counter() - begin

    policies = list(dict.fromkeys(case.policy for case in block))
    say(f"placing: {', '.join(policies)}")
    before = stopwatch.parts.get("place", 0.0)
    with stopwatch.part("place"):  # the baselines come first, and take less time
        found = dict(zip(policies[::-1], run_parallel(place, policies[::-1]), strict=True))
    total_s = stopwatch.parts["place"] - before
    placed: dict[Case, Result] = {}
    for policy, (results, _) in found.items():
        placed |= zip([case for case in block if case.policy == policy], results, strict=True)
    all_s = sum(seconds for _, seconds in found.values())
    return placed, {policy: total_s * own / all_s for policy, (_, own) in found.items()}


def _task(scenario: BaseScenario, inputs: Inputs) -> tuple[Problem, Workload]:
    """What a placement is made for."""
    problem = inputs.problem
    if not scenario.train_batched:
        rules = dataclasses.replace(problem.rules, batching="off", max_batch=1)
        problem = dataclasses.replace(problem, rules=rules)
    return problem, inputs.train


def _record(problem: Problem, placed: Result, outcome: Outcome) -> Record:
    """What is stored: the placement, and how it served the test traffic.

    Attainment and latency after the warm-up cut, and attainment over all requests.
    """
    summary = latency_summary(outcome)
    attainment_all = int(outcome.good.sum()) / len(outcome.good)
    return {
        "metrics": {name: summary[name] for name in METRICS}
        | {"slo_attainment_all": attainment_all},
        "placement": _document(placed.placement, problem.cluster.names),
        "layout": str(placed.placement),
        "hosts_any": hosts_any(placed.placement),
        "train_score": placed.score,
        "num_simulations": placed.num_simulations,
        "warnings": list(placed.warnings),
    }


def _document(placement: Placement | Schedule, pools: Sequence[str]) -> dict[str, Any]:
    """The placement as JSON, models by their index."""
    segments = [groups_to_document(static, pools=pools) for static in statics(placement)]
    if isinstance(placement, Placement):
        return {"groups": segments[0]}
    return {"start_s": list(placement.start_s), "segments": segments}
