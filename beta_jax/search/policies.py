"""The published placement policies, each over many instances at once, and their names."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Sequence

from beta_jax.partition import enumerate_partitions
from beta_jax.placement import Group, Placement, weight_on_device
from beta_jax.problem import Problem
from beta_jax.search.greedy import GreedyTask, fill_greedily
from beta_jax.search.result import Result, published_score
from beta_jax.simulator import simulate
from beta_jax.types import ParallelConfig, Workload

Instances = Sequence[tuple[Problem, Workload]]
"""Problems, each with the workload to train on."""


def sr_greedy(instances: Instances) -> list[Result]:
    """Selective replication: every device is a group of its own; greedy replica placement."""
    tasks = [
        GreedyTask(problem, workload, (ParallelConfig(1, 1),) * problem.cluster.num_devices)
        for problem, workload in instances
    ]
    return fill_greedily(tasks)


def mp_search(instances: Instances) -> list[Result]:
    """Beta for models of one type: greedy placement on every group partition; the best score wins.

    The first of equal scores wins (Algorithms 1 and 2).
    """
    tasks: list[GreedyTask] = []
    ranges = []
    for problem, workload in instances:
        partitions = enumerate_partitions(problem.cluster)
        usable = [p for p in partitions if any(_fits_some(problem, config) for config in p)]
        ranges.append(range(len(tasks), len(tasks) + max(len(usable), 1)))
        tasks += [
            GreedyTask(problem, workload, partition) for partition in usable or partitions[:1]
        ]
    candidates = fill_greedily(tasks)
    results = []
    for members in ranges:
        best = max((candidates[i] for i in members), key=lambda result: result.score)
        total = sum(candidates[i].num_simulations for i in members)
        results.append(Result(best.placement, best.score, total))
    return results


def mp_equal(instances: Instances, *, pp: int, op: int) -> list[Result]:
    """The manual choice (pp, op): groups of pp * op devices, group i hosts model i alone."""
    config = ParallelConfig(op, pp)
    placements = []
    for problem, _ in instances:
        num_groups = problem.cluster.num_devices // config.num_devices
        groups = [
            Group(config, (index,) if _fits(problem, index, config) else ())
            for index in range(min(num_groups, len(problem.models)))
        ]
        placements.append(Placement(tuple(groups)))
    tally = simulate([p for p, _ in instances], placements, [w for _, w in instances])
    good, latency = tally.good.sum(1), tally.latency_ticks.sum(1)
    return [
        Result(
            placement, published_score(int(good[i]), int(latency[i]), len(workload), placement), 1
        )
        for i, (placement, (_, workload)) in enumerate(zip(placements, instances, strict=True))
    ]


def _fits(problem: Problem, model: int, config: ParallelConfig) -> bool:
    instance = problem.models[model]
    if (instance.type, config) not in problem.profile:
        return False
    return weight_on_device(problem, instance, config) <= problem.cluster.memory_bytes


def _fits_some(problem: Problem, config: ParallelConfig) -> bool:
    return any(_fits(problem, model, config) for model in range(len(problem.models)))


POLICIES: dict[str, Callable[..., list[Result]]] = {
    "sr-greedy": sr_greedy,
    "mp-search": mp_search,
    "mp-equal-<pp>-<op>": mp_equal,
}
"""Policies by name; a part in angle brackets stands for a whole number, passed by that keyword."""


class UnknownPolicyError(ValueError):
    """No policy has this name."""


def find_policy(name: str) -> Callable[[Instances], list[Result]]:
    """The policy of a name such as `mp-equal-8-2`. Raises UnknownPolicyError with nearest names."""
    for pattern, function in POLICIES.items():
        regex = re.sub(r"<(\w+)>", r"(?P<\1>[1-9]\\d*)", pattern)
        if match := re.fullmatch(regex, name):
            numbers = {key: int(value) for key, value in match.groupdict().items()}
            return lambda instances: function(instances, **numbers)
    nearest = difflib.get_close_matches(name, POLICIES, n=3, cutoff=0.4)
    hint = f"nearest: {', '.join(nearest)}; " if nearest else ""
    raise UnknownPolicyError(f"unknown policy {name!r}; {hint}known: {', '.join(POLICIES)}")


def place_batch(
    policy: str, problems: Sequence[Problem], workloads: Sequence[Workload]
) -> list[Result]:
    """Place many instances with one policy, their simulations as lanes of shared programs.

    workloads: the training workload of each problem; pass the same object where it is the same.
    Every placement is valid; warnings name the models left without a replica.
    """
    function = find_policy(policy)
    instances = list(zip(problems, workloads, strict=True))
    results = function(instances) if instances else []
    return [
        Result(
            r.placement, r.score, r.num_simulations, (*r.warnings, *_left_out(policy, problem, r))
        )
        for r, problem in zip(results, problems, strict=True)
    ]


def place(policy: str, problem: Problem, workload: Workload) -> Result:
    """Place the problem's models by a named policy, trained on the workload.

    Raises UnknownPolicyError. What fits nowhere is left out, with a warning in the result.
    """
    return place_batch(policy, [problem], [workload])[0]


def _left_out(policy: str, problem: Problem, result: Result) -> list[str]:
    placement = result.placement
    static = (placement,) if isinstance(placement, Placement) else placement.placements
    hosted = {model for p in static for group in p.groups for model in group.models}
    missing = [model.name for index, model in enumerate(problem.models) if index not in hosted]
    if not missing:
        return []
    if not hosted:
        return [f"{policy}: nothing could be placed on {problem.cluster.num_devices} devices"]
    return [
        f"{policy}: no replica of {len(missing)} of {len(problem.models)} models: {', '.join(missing)}"
    ]
