"""Groups that run models in parallel: equal pipelines, manual choices, and the group search."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

from beta_jax.placement.partition import regular_partition
from beta_jax.placement.placement import Group, Placement
from beta_jax.placement.problem import Problem
from beta_jax.search.fill.greedy import GreedyTask, fill_greedily
from beta_jax.search.instances import Instances, fits_alone, memory_table, weight_table
from beta_jax.search.published.branch import Candidates, Share, ShareSearch, explore
from beta_jax.search.result import Result, score_placements
from beta_jax.types import ParallelConfig


def mp_greedy(instances: Instances, *, stages: int) -> list[Result]:
    """Pipelines of `stages` devices, as many as there are devices for; greedy replica placement."""

    def pipelines(problem: Problem) -> tuple[ParallelConfig, ...]:
        return tuple(
            ParallelConfig(1, stages, index)
            for index, pool in enumerate(problem.cluster.pools)
            for _ in range(pool.num_devices // stages)
        )

    return fill_greedily(
        [GreedyTask(problem, workload, pipelines(problem)) for problem, workload in instances]
    )


def mp_round_robin(instances: Instances) -> list[Result]:
    """Four-stage pipelines, models dealt out in turn (Beta, OSDI 2023, section 6.6).

    Devices that are left over become pipelines too, of a power of two of stages. Raises ValueError
    for a cluster of several pools.
    """
    _require_one_pool("mp-round-robin", instances)
    return score_placements(instances, [_deal(problem) for problem, _ in instances])


def mp_equal(instances: Instances, *, pp: int, op: int) -> list[Result]:
    """The manual choice (pp, op): groups of pp * op devices, group i hosts model i alone.

    Raises ValueError for a cluster of several pools.
    """
    _require_one_pool("mp-equal", instances)
    config = ParallelConfig(op, pp)
    placements = []
    for problem, _ in instances:
        num_groups = problem.cluster.num_devices // config.num_devices
        fits = fits_alone(problem, [config])[:num_groups, 0]
        groups = [Group(config, (model,) if fit else ()) for model, fit in enumerate(fits)]
        placements.append(Placement(tuple(groups)))
    results = score_placements(instances, placements)
    told = [_too_few_devices(problem, config) for problem, _ in instances]
    return [
        dataclasses.replace(result, warnings=(*result.warnings, *text))
        for result, text in zip(results, told, strict=True)
    ]


def _too_few_devices(problem: Problem, config: ParallelConfig) -> list[str]:
    num, each = len(problem.models), config.num_devices
    there_are = problem.cluster.num_devices
    if num * each <= there_are:
        return []
    return [
        f"mp-equal-{config.pp}-{config.op}: {num} models of {each} devices each need {num * each}, "
        f"there are {there_are}"
    ]


def mp_search(instances: Instances, *, tolerance: float | None = None) -> list[Result]:
    """Beta for models of one type: greedy placement on every group partition; the best score wins.

    The first of equal scores wins (Algorithms 1 and 2). Partitions that can not win are left out.
    tolerance: stop where no partition attains more by more than this: then the SLO attainment in
    training may be so much lower than the published winner's. None: find that one.
    """
    shares = [Share(problem, workload) for problem, workload in instances]
    return search_partitions(shares, tolerance)


def mp_search_within(instances: Instances, *, millionths: int) -> list[Result]:
    """`mp_search` with a tolerance in millionths."""
    return mp_search(instances, tolerance=millionths / 1e6)


def search_partitions(shares: Sequence[Share], tolerance: float | None = None) -> list[Result]:
    """`mp_search` for each share of the models and the devices, all as lanes of shared programs."""
    searches = [ShareSearch(share, attainment=tolerance is not None) for share in shares]
    plans = [Candidates([[search]], [0.0], tolerance) for search in searches]
    explore(plans)
    return [
        dataclasses.replace(search.best(), num_simulations=plan.num_simulations())
        for search, plan in zip(searches, plans, strict=True)
    ]


def _require_one_pool(policy: str, instances: Instances) -> None:
    for problem, _ in instances:
        if len(names := problem.cluster.names) > 1:
            raise ValueError(f"{policy} is for a cluster of one pool, not of {', '.join(names)}")


def _deal(problem: Problem) -> Placement:
    configs = regular_partition(problem.cluster.num_devices, ParallelConfig(1, 4))
    weight = weight_table(problem, configs).tolist()
    left = memory_table(problem, configs).tolist()
    hosted: list[list[int]] = [[] for _ in configs]
    group = since_placed = 0
    for model in itertools.cycle(range(len(problem.models))):
        if model not in hosted[group] and weight[model][group] <= left[group]:
            hosted[group].append(model)
            left[group] -= weight[model][group]
            group, since_placed = (group + 1) % len(configs), 0
        else:
            since_placed += 1
        if since_placed == len(problem.models):
            break
    return Placement(
        tuple(Group(config, tuple(models)) for config, models in zip(configs, hosted, strict=True))
    )
