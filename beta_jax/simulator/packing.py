"""From placements and workloads to blocks: what can share a program, padded to few shapes."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import Any

import jax
import numpy as np

from beta_jax import backend
from beta_jax.placement.problem import Problem
from beta_jax.simulator.lanes import Lane, SimulationError, padded_size
from beta_jax.simulator.layout import UNHOSTED, Block, BlockShape, Dispatch
from beta_jax.types import (
    TICKS_PER_SECOND,
    ParallelConfig,
    durations_to_ticks,
)

MAX_LANES = 64
"""Lanes of a block: enough to fill the vector units, few enough for clocks to stay in L1 cache."""
LANE_BUCKETS = (1, MAX_LANES)
MAX_BATCHING_LANES = 16
"""Lanes of a block whose requests are served in batches: they run one after the other, so they only
share what is made of the workload, and few lanes in a block make blocks for every core."""
START_NS = 200_000
"""What it takes to call the program of one lane and to make its lists of candidates."""
CONFIG_BITS = (0, 2, 2, 4, 4, 6, 6)
"""Bits that hold the index of a configuration, by the bits needed; one configuration needs none."""
MAX_GROUPS, MAX_STAGES = 256, 32


def num_lanes_padded(lanes: int) -> int:
    """The number of lanes that a block of `lanes` is padded to."""
    return next(bucket for bucket in LANE_BUCKETS if lanes <= bucket)


def worth_a_block(num_groups: int, num_clocks: int, num_requests: float = math.inf) -> int:
    """From how many lanes on a block is faster than one lane after the other; by measurement.

    Many lanes in lockstep take time for every clock of every group, but several lanes per
    instruction; one lane takes time for what it needs, and some to start. More than MAX_LANES:
    never. num_requests: of a lane, infinite where starting costs nothing.
    """
    if jax.default_backend() != "cpu":
        return 2
    lockstep_ns = 8 + num_groups * (0.2 + 0.7 * num_clocks)
    one_lane_ns = START_NS / max(num_requests, 1)
    one_lane_ns += 28 if num_clocks == 1 else 42 + 2 * num_clocks
    return math.ceil(MAX_LANES * lockstep_ns / one_lane_ns / (3 if backend.WIDE_VECTORS else 1))


def num_hosts_padded(most: int, num_groups: int) -> int:
    """`BlockShape.num_hosts` where at most so many groups host a model."""
    return min(padded_size(most, 4), num_groups)


def lanes_within(limit: int) -> int:
    """The largest block, padding included, of at most `limit` lanes (but at least one)."""
    return max(bucket for bucket in LANE_BUCKETS if bucket <= max(limit, 1))


def group_lanes(lanes: Sequence[Lane], max_lanes: int = MAX_LANES) -> list[list[int]]:
    """Indices of `lanes` cut into blocks that can share a program, of many lanes or of one each."""
    by_key: dict[Hashable, list[int]] = {}
    for index, lane in enumerate(lanes):
        by_key.setdefault(lane.block_key(), []).append(index)
    blocks = []
    for members in by_key.values():
        first = lanes[members[0]]
        at_once, enough = max_lanes, 1
        if first.batches:
            at_once = min(max_lanes, MAX_BATCHING_LANES)
        else:
            enough = worth_a_block(first.num_groups, first.num_clocks, len(first.workload))
        for i in range(0, len(members), at_once):
            block = members[i : i + at_once]
            blocks += [block] if len(block) >= enough else [[index] for index in block]
    return blocks


def pack_block(lanes: Sequence[Lane]) -> tuple[BlockShape, Block, list[ParallelConfig]]:
    """Build one block from lanes of equal `block_key`. Also returns the configurations, by index.

    Raises SimulationError if times could overflow, for more groups or stages than supported, or
    for rules that batch, which `batch_packing` is for.
    """
    first = lanes[0]
    if first.batches:
        raise SimulationError("no search knows batching: place without it, then simulate with it")
    problem, workload = first.problem, first.workload
    rules, num_models = problem.rules, len(problem.models)
    num_groups, num_clocks = first.num_groups, first.num_clocks
    configs = sorted({group.config for lane in lanes for group in lane.placement.groups})
    configs = configs or [ParallelConfig(1, 1)]
    if num_groups > MAX_GROUPS or max(config.pp for config in configs) > MAX_STAGES:
        raise SimulationError(
            f"at most {MAX_GROUPS} groups of {MAX_STAGES} stages, got {first.placement}"
        )
    config_bits = CONFIG_BITS[(len(configs) - 1).bit_length()]
    shape = BlockShape(num_clocks, config_bits, dispatch_rule(rules.dispatch))

    types = sorted({model.type for model in problem.models})
    stages = [stage_ticks(problem, kind, configs) for kind in types]
    latency = np.zeros((len(types), 1 << shape.config_bits, max(num_clocks, 2)), np.int64)
    for row, per_config in zip(latency, stages, strict=True):
        for cost, ticks in zip(row, per_config, strict=False):
            if num_clocks == 1:
                cost[:2] = ticks.sum(), ticks.max(initial=0)
            else:
                cost[: len(ticks)] = ticks  # zeros behind the last stage leave its clock as it is
    model_type = np.array([types.index(m.type) for m in problem.models] + [0], np.int32)

    num_lanes = num_lanes_padded(len(lanes))
    hosted = np.zeros((num_models + 1, num_groups, num_lanes), np.bool_)
    config_index = np.zeros((num_groups, num_lanes), np.int32)
    deadline = np.zeros((num_models + 1, num_lanes), np.int64)
    for column, lane in enumerate(lanes):
        deadline[:-1, column] = durations_to_ticks([m.slo_s for m in lane.problem.models])
        for index, group in enumerate(lane.placement.groups):
            config_index[index, column] = configs.index(group.config)
            hosted[list(group.models), index, column] = True
    if num_lanes == 1:
        most = int(hosted[..., 0].sum(1).max())
        shape = shape._replace(num_hosts=num_hosts_padded(most, num_groups))

    if len(workload) and workload.model.max() >= num_models:
        raise SimulationError(
            f"the workload has requests of model {workload.model.max()}, "
            f"the problem {num_models} models"
        )
    arrival = np.zeros(padded_size(len(workload), 1024, factor=4), np.int64)
    arrival[: len(workload)] = workload.arrival - workload.arrival[:1]
    model = np.zeros(len(arrival), np.int32)
    model[: len(workload)] = np.where(workload.model < 0, num_models, workload.model)
    _check_range(
        shape,
        num_groups,
        arrival,
        model[: len(workload)],
        deadline,
        [[t.sum() for t in s] for s in stages],
        model_type,
    )
    arrays: dict[str, Any] = {
        "arrival": arrival,
        "model": model,
        "num_requests": np.int32(len(workload)),
        "count_from": np.int32(first.counted[0]),
        "count_to": np.int32(first.counted[1]),
        "hosted": hosted,
        "config": config_index,
        "deadline": deadline,
        "model_type": model_type,
        "latency": latency,
        "request_overhead": np.int64(round(rules.request_overhead_s * TICKS_PER_SECOND)),
    }
    return shape, Block(**arrays), configs


def dispatch_rule(name: str) -> Dispatch:
    """The dispatch rule of a name. Raises SimulationError for an unknown one."""
    try:
        return Dispatch(name)
    except ValueError:
        raise SimulationError(f"unknown dispatch {name!r}; known: {', '.join(Dispatch)}") from None


def stage_ticks(
    problem: Problem, kind: str, configs: Sequence[ParallelConfig], batch: int = 1
) -> list[np.ndarray]:
    """Effective stage latencies of a batch of a model type, int64 ticks [stage], by configuration.

    Empty where the profile lacks the configuration (nothing of the type is hosted there).
    """
    profile, overhead = problem.profile, problem.rules.stage_overhead
    return [
        durations_to_ticks(
            profile.stage_latency_s(kind, config, batch) * (1 + overhead * config.pp)
        )
        if (kind, config) in profile
        else np.zeros(0, np.int64)
        for config in configs
    ]


def _check_range(shape, num_groups, arrival, model, deadline, totals, model_type) -> None:
    """No clock passes the last arrival plus the longest deadline, or plus all the work there is."""
    work = np.array([max(per_type, default=0) for per_type in totals], np.float64)
    backlog = min(float(deadline[:-1].max(initial=0)), float(work[model_type[model]].sum()))
    bits = shape.config_bits + (num_groups - 1).bit_length()
    latest = float(arrival.max(initial=0)) + backlog + float(work.max(initial=0))
    if latest * 2**bits >= UNHOSTED:
        raise SimulationError(
            f"times up to {latest / TICKS_PER_SECOND:.3g} s with {num_groups} groups do not fit "
            "64-bit clocks; use a shorter workload or finite SLOs"
        )
