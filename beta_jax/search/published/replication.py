"""Replication without model parallelism: every device is a group of its own."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np

from beta_jax.placement.placement import Group, Placement, Schedule
from beta_jax.placement.problem import Problem
from beta_jax.search.fill.beam import beam_search
from beta_jax.search.fill.greedy import GreedyTask, fill_greedily
from beta_jax.search.instances import Instances, memory_table, weight_table
from beta_jax.search.result import Result, score_placements
from beta_jax.types import TICKS_PER_SECOND, ParallelConfig, Workload

ONE_DEVICE = ParallelConfig(1, 1)


def sr_greedy(instances: Instances) -> list[Result]:
    """Selective replication ("SR"): greedy replica placement (Beta, OSDI 2023, section 6.1)."""
    return fill_greedily([_devices(problem, workload) for problem, workload in instances])


def sr_search(instances: Instances, *, beam: int = 3) -> list[Result]:
    """The same groups filled by Algorithm 1 in full: a beam search over every addition."""
    return [beam_search(_devices(problem, workload), beam) for problem, workload in instances]


def sr_uniform(instances: Instances) -> list[Result]:
    """Replication in turn (section 3): device i of a pool hosts models i, i + 1, ....

    As many as fit: as would fit if all weighed what model 0 does (or the first that fits a device);
    of them, those that do fit.
    """
    return score_placements(instances, [_in_turn(problem) for problem, _ in instances])


def sr_replace(instances: Instances, *, seconds: int) -> list[Result]:
    """Clockwork++ (section 6.2): selective replication afresh for every window of the workload.

    A window opens at an arrival and takes all arrivals up to `seconds` later; the schedule switches
    at its first arrival. It sees the traffic that it is tested on, and switches at no cost.
    """
    windows = [cut_windows(workload, seconds) for _, workload in instances]
    filled = iter(
        fill_greedily(
            [
                _devices(problem, window)
                for (problem, _), cut in zip(instances, windows, strict=True)
                for window in cut
            ]
        )
    )
    per_instance = [[next(filled) for _ in cut] for cut in windows]
    schedules = [
        Schedule(
            tuple(float(window.arrival_s[0]) if len(window) else 0.0 for window in cut),
            tuple(result.static for result in results),
        )
        for cut, results in zip(windows, per_instance, strict=True)
    ]
    return [
        dataclasses.replace(r, num_simulations=sum(found.num_simulations for found in results))
        for r, results in zip(score_placements(instances, schedules), per_instance, strict=True)
    ]


def cut_windows(workload: Workload, seconds: float) -> list[Workload]:
    """Consecutive windows, at least one, each with all arrivals up to `seconds` after its first."""
    length = round(seconds * TICKS_PER_SECOND)
    bounds = [0]
    while bounds[-1] < len(workload):
        last = workload.arrival[bounds[-1]] + length
        bounds.append(int(np.searchsorted(workload.arrival, last, side="right")))
    return [workload.part(lo, hi) for lo, hi in itertools.pairwise(bounds)] or [workload]


def _devices(problem: Problem, workload: Workload) -> GreedyTask:
    pools = enumerate(problem.cluster.pools)
    configs = (
        ONE_DEVICE._replace(pool=index) for index, pool in pools for _ in range(pool.num_devices)
    )
    return GreedyTask(problem, workload, tuple(configs))


def _in_turn(problem: Problem) -> Placement:
    pools = enumerate(problem.cluster.pools)
    groups = (_pool_in_turn(problem, index, pool.num_devices) for index, pool in pools)
    return Placement(tuple(itertools.chain.from_iterable(groups)))


def _pool_in_turn(problem: Problem, pool: int, num_devices: int) -> list[Group]:
    config = ONE_DEVICE._replace(pool=pool)
    weight = weight_table(problem, [config])[:, 0].tolist()
    num_models, memory = len(weight), int(memory_table(problem, [config])[0])
    first = next((w for w in weight if w <= memory), weight[0])
    count = min(num_models, memory // max(first, 1))
    groups = []
    for device in range(num_devices):
        hosted: list[int] = []
        for model in ((device + i) % num_models for i in range(count)):
            if sum(weight[m] for m in hosted) + weight[model] <= memory:
                hosted.append(model)
        groups.append(Group(config, tuple(hosted)))
    return groups
