"""Placements from an integer program: plan from rates alone, simulate nothing.

Both baselines choose replicas so that the model that could least grow its traffic can grow it most:
maximise `min_m tolerance_m + 1e-4 * sum_m tolerance_m`, where a model's tolerance is the capability
of its replicas, in requests/s or in requests held at once, over its nominal rate.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from beta_jax.placement.placement import Group, Placement
from beta_jax.placement.problem import Problem
from beta_jax.search.instances import (
    Instances,
    devices_table,
    fitting_configs,
    memory_table,
    nominal_rates,
    weight_table,
)
from beta_jax.search.result import Result, score_placements
from beta_jax.types import ParallelConfig

SUM_WEIGHT = 1e-4
"""How much the sum of the tolerances counts beside the least of them."""
ILP_STAGES = (1, 2, 4, 8)
STAGE_EFFICIENCY = 0.99
"""The share of a pipeline's capability that remains per stage."""
TIME_LIMIT_S, GAP = 60.0, 1e-4


class Solution(NamedTuple):
    """What an integer program found; `objective` within `gap` (relative) of the best possible."""

    placement: Placement
    objective: float
    gap: float
    warnings: tuple[str, ...]


def sr_ilp(
    instances: Instances, *, time_limit_s: float = TIME_LIMIT_S, gap: float = GAP
) -> list[Result]:
    """Selective replication by integer program; a replica is worth 1 / single-device latency.

    time_limit_s, gap: stop then, or at this relative gap; a larger gap is a warning in the result.
    Needs nominal rates.
    """
    return _results(instances, [plan_replicas(p, time_limit_s, gap) for p, _ in instances])


def mp_ilp(
    instances: Instances, *, time_limit_s: float = TIME_LIMIT_S, gap: float = GAP
) -> list[Result]:
    """Pipelines of 1, 2, 4 or 8 stages by integer program; options as in `sr_ilp`.

    A replica is worth the requests that its pipeline can hold within the SLO. Needs nominal rates
    and finite SLOs.
    """
    return _results(instances, [plan_pipelines(p, time_limit_s, gap) for p, _ in instances])


def plan_replicas(
    problem: Problem, time_limit_s: float = TIME_LIMIT_S, gap: float = GAP
) -> Solution:
    """The integer program of `sr_ilp`."""
    configs = [ParallelConfig(1, 1, pool) for pool in range(len(problem.cluster.pools))]
    capability = np.array(
        [
            [
                1 / problem.profile.stage_latency_s(model.type, one).sum()
                if (model.type, one) in problem.profile
                else 0.0
                for one in configs
            ]
            for model in problem.models
        ]
    )
    return _solve("sr-ilp", problem, configs, capability, time_limit_s, gap)


def plan_pipelines(
    problem: Problem, time_limit_s: float = TIME_LIMIT_S, gap: float = GAP
) -> Solution:
    """The integer program of `mp_ilp`."""
    endless = [model.name for model in problem.models if math.isinf(model.slo_s)]
    if endless:
        raise ValueError(f"mp-ilp plans from SLOs; model {endless[0]} has none (infinite)")
    pools = range(len(problem.cluster.pools))
    configs = [ParallelConfig(1, s, pool) for pool in pools for s in ILP_STAGES]
    configs = [c for c in configs if c in fitting_configs(problem, configs)]
    capability = np.zeros((len(problem.models), len(configs)))
    for m, model in enumerate(problem.models):
        for c, config in enumerate(configs):
            if (model.type, config) in problem.profile:
                stages = problem.profile.stage_latency_s(model.type, config)
                held = math.floor((model.slo_s - stages.sum()) / stages.max() + 1)
                capability[m, c] = max(held, 0) * STAGE_EFFICIENCY**config.pp
    return _solve("mp-ilp", problem, configs, capability, time_limit_s, gap)


def _solve(
    policy: str,
    problem: Problem,
    configs: Sequence[ParallelConfig],
    capability: NDArray[np.float64],
    time_limit_s: float,
    gap: float,
) -> Solution:
    """Choose which models each slot hosts. capability: float64 [model, config].

    There are as many slots of a configuration as its pool has room for, and all devices are
    used. Equal slots are interchangeable, so they are ordered by how many models they host.
    """
    from scipy.optimize import Bounds, LinearConstraint, milp  # which take long to import
    from scipy.sparse import coo_array

    rates = nominal_rates(policy, problem)
    memory, num_devices = memory_table(problem, configs), devices_table(problem)
    on_device = weight_table(problem, configs)
    slots = [
        c
        for c, config in enumerate(configs)
        for _ in range(num_devices[config.pool] // config.num_devices)
    ]
    possible = (capability > 0) & (on_device <= memory)
    model, slot = np.nonzero(possible[:, slots])  # [replica], one for each that may be chosen
    config = np.array(slots)[slot]
    num_replicas, num_slots = len(model), len(slots)
    replica, used = np.arange(num_replicas), num_replicas + np.arange(num_slots)
    least = num_replicas + num_slots  # the variables: replicas, slots, the least tolerance
    tolerance = np.divide(
        capability[model, config], rates[model], out=np.zeros(num_replicas), where=rates[model] > 0
    )
    constraints = []

    def at_most(num_rows: int, *terms: tuple[NDArray, NDArray, NDArray], limit: float = 0) -> None:
        """Rows of `sum of (row, variable, coefficient) <= limit`."""
        row, variable, coefficient = (np.concatenate(part) for part in zip(*terms, strict=True))
        matrix = coo_array((coefficient, (row, variable)), (num_rows, least + 1)).tocsr()
        constraints.append(LinearConstraint(matrix, ub=limit))  # type: ignore[arg-type]

    # Memory twice: as published, a model's weights on one device spread evenly over the group; and
    # as devices have it, where the largest stage must fit. In MB, for the solver's tolerances.
    size = np.array([config.num_devices for config in configs])
    for weight, room in ((on_device, memory), (_whole_weight(problem, configs), memory * size)):
        room = room[slots] / 1e6
        at_most(
            num_slots,
            (slot, replica, weight[model, config] / 1e6),
            (np.arange(num_slots), used, -room),
        )
    in_pool = np.array([config.pool for config in configs], int)[slots]
    for pool, own_devices in enumerate(num_devices.tolist()):
        own = np.flatnonzero(in_pool == pool)
        devices = (np.zeros(len(own), int), used[own], size[slots][own])
        at_most(1, devices, limit=own_devices)
        at_most(1, (*devices[:2], -devices[2]), limit=-own_devices)
    served, row = np.unique(model[tolerance > 0], return_inverse=True)  # models, in this order
    at_most(
        len(served),
        (row, replica[tolerance > 0], -tolerance[tolerance > 0]),
        (np.arange(len(served)), np.full(len(served), least), np.ones(len(served))),
    )
    follows = np.flatnonzero(np.diff(slots, prepend=-1) == 0)  # a slot like the one before it
    behind, ahead = np.isin(slot, follows), np.isin(slot, follows - 1)
    at_most(
        num_slots,
        (slot[behind], replica[behind], np.ones(behind.sum())),
        (slot[ahead] + 1, replica[ahead], -np.ones(ahead.sum())),
    )
    at_most(
        num_slots,
        (follows, used[follows], np.ones(len(follows))),
        (follows, used[follows] - 1, -np.ones(len(follows))),
    )

    bounds = np.ones(least + 1)
    bounds[least] = np.inf if len(served) else 0
    gain = np.concatenate([SUM_WEIGHT * tolerance, np.zeros(num_slots), [1.0]])
    solution = milp(
        -gain,
        integrality=np.append(np.ones(least), 0),
        bounds=Bounds(0, bounds),
        constraints=constraints,
        options={"time_limit": time_limit_s, "mip_rel_gap": gap},
    )
    hopeless = [problem.models[m].name for m in np.flatnonzero(~possible.any(axis=1))]
    warnings = [f"{policy}: no group can serve {name} in time, or hold it" for name in hopeless]
    if solution.x is None:
        warnings.append(f"{policy}: nothing found within {time_limit_s:g} s")
        return Solution(Placement(()), 0.0, math.inf, tuple(warnings))
    if solution.mip_gap > gap:
        warnings.append(
            f"{policy}: stopped after {time_limit_s:g} s, {solution.mip_gap:.2%} from the optimum "
            "at most"
        )
    chosen = solution.x > 0.5
    groups = [
        Group(configs[c], tuple(model[chosen[:num_replicas] & (slot == s)].tolist()))
        for s, c in enumerate(slots)
        if chosen[num_replicas + s]
    ]
    reached = np.zeros(len(rates))
    np.add.at(reached, model, tolerance * chosen[:num_replicas])
    objective = (reached[served].min() if len(served) else 0.0) + SUM_WEIGHT * reached.sum()
    return Solution(Placement(tuple(groups)), float(objective), solution.mip_gap, tuple(warnings))


def _whole_weight(problem: Problem, configs: Sequence[ParallelConfig]) -> NDArray[np.float64]:
    """Bytes of a model on one device, or over all devices of the group if it has no profile there.

    float64 [model, config]; 0 where the configuration is not profiled either.
    """
    profile = problem.profile
    table = np.zeros((len(problem.models), len(configs)))
    for m, model in enumerate(problem.models):
        for c, config in enumerate(configs):
            if (model.type, config) in profile:
                one = ParallelConfig(1, 1, config.pool)
                known = one if (model.type, one) in profile else config
                table[m, c] = profile.weight_bytes(model.type, known).sum() * known.op
    return table


def _results(instances: Instances, plans: Sequence[Solution]) -> list[Result]:
    scored = score_placements(instances, [plan.placement for plan in plans])
    return [
        Result(r.placement, r.score, r.num_simulations, plan.warnings)
        for r, plan in zip(scored, plans, strict=True)
    ]
