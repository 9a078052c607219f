"""From lanes to blocks: what can share a program, padded to few shapes."""

from __future__ import annotations

import collections
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from beta_jax.placement.codec import Codec
from beta_jax.placement.problem import Problem
from beta_jax.simulator.batch_packing import pack_batches
from beta_jax.simulator.kernels.batching import BatchBlock
from beta_jax.simulator.kernels.choose import LANES, MAX_LANES, RUN, choose_kernel
from beta_jax.simulator.kernels.gpu import MAX_CONFIGS
from beta_jax.simulator.lanes import (
    Lane,
    SimulationError,
    padded_size,
    relative_work,
    require_representable,
)
from beta_jax.simulator.layout import (
    UNHOSTED,
    Block,
    BlockShape,
    Counts,
    Kernel,
)
from beta_jax.simulator.state import State, pack_states
from beta_jax.simulator.ticks import request_overhead_ticks, slo_ticks, stage_ticks, worked_ticks
from beta_jax.types import MOST_WORK, NO_DEADLINE, TICKS_PER_SECOND, ParallelConfig, Workload

CONFIG_BITS = (0, 2, 2, 4, 4, 6, 6, 8, 8)
"""Bits that hold the index of a configuration, by the bits needed; one configuration needs none."""


SINGLE_GROUPS, SINGLE_CLOCKS, SINGLE_CONFIG_BITS = (16, 4), 4, 4
"""Least sizes of a block of one lane, whose kernel hardly notices what is padding: groups, with
the factor from size to size, clocks if there are several, and bits of a configuration."""


def num_hosts_padded(most: int, num_groups: int) -> int:
    """`BlockShape.num_hosts` where at most so many groups host a model."""
    return min(padded_size(most, 4, factor=4), num_groups)


def group_lanes(
    lanes: Sequence[Lane], max_lanes: int = MAX_LANES, kernel: Kernel | None = None
) -> list[tuple[Kernel, list[int]]]:
    """Indices of `lanes` cut into blocks that can share a program, each with its kernel.

    max_lanes: a bound on the lanes of a block on the CPU, padding included, where there is a
    choice. kernel: the one for all; None: the faster one for each block.
    """
    by_key: dict[Hashable, list[int]] = {}
    for index, lane in enumerate(lanes):
        by_key.setdefault(lane.block_key(), []).append(index)
    in_launch = collections.Counter(lane.launch_key() for lane in lanes)
    most = max(LANES[kernel] for kernel in RUN if LANES[kernel] <= max(max_lanes, 1))
    blocks: list[tuple[Kernel, list[int]]] = []
    for members in by_key.values():
        first = lanes[members[0]]
        rules, groups, clocks = first.problem.rules, first.num_groups, first.num_clocks
        can_launch = in_launch[first.launch_key()] if first.state is None else 0
        size = groups, clocks, len(first.workload), can_launch
        if (kernel or choose_kernel(rules, len(members), *size)) is Kernel.GPU:
            members.sort(key=lambda i: sorted({*lanes[i].configs}))  # few of them in a block
            cut = _cut(members, LANES[Kernel.GPU])
            fit = [len({c for i in some for c in lanes[i].configs}) <= MAX_CONFIGS for some in cut]
            blocks += [(Kernel.GPU, some) for some, few in zip(cut, fit, strict=True) if few]
            members = [i for some, few in zip(cut, fit, strict=True) if not few for i in some]
        for block in _cut(members, most):
            chosen = kernel or choose_kernel(rules, len(block), *size[:-1])
            blocks += [(chosen, some) for some in _cut(block, LANES[chosen])]
    return blocks


def _cut(members: list[int], size: int) -> list[list[int]]:
    return [members[i : i + size] for i in range(0, len(members), size)]


def pack_block(
    kernel: Kernel, lanes: Sequence[Lane]
) -> tuple[BlockShape, Block | BatchBlock, list[ParallelConfig]]:
    """Build one block from lanes of equal `block_key`. Also returns the configurations, by index.

    Raises SimulationError for rules that the kernel does not know, if times could overflow, for
    more groups or stages than supported, and for requests of models that the problem does not
    have; ProfileError where the profile lacks a batch size.
    """
    first = lanes[0]
    if (kernel is Kernel.BATCHING) != first.problem.rules.batches:
        raise SimulationError(f"the {kernel.value} kernel does not know {first.problem.rules}")
    if kernel is Kernel.BATCHING:
        return pack_batches(lanes)
    configs = sorted({config for lane in lanes for config in lane.configs})
    configs = configs or [ParallelConfig(1, 1)]
    num_groups, num_clocks = first.num_groups, first.num_clocks
    if kernel is Kernel.SINGLE and first.state is None:
        num_groups = padded_size(num_groups, *SINGLE_GROUPS)
        num_clocks = max(num_clocks, SINGLE_CLOCKS) if num_clocks > 1 else 1
    shape, block = pack_frame(
        kernel,
        first.problem,
        first.workload,
        configs,
        num_groups,
        num_clocks,
        first.counted,
    )
    groups = Codec(configs, len(first.problem.models), num_groups).encode_groups(
        zip(lane.configs, lane.may_host, strict=True) for lane in lanes
    )
    hosted, config, deadline = (
        np.zeros_like(array) for array in (block.hosted, block.config, block.deadline)
    )
    hosted[:-1, :, : len(lanes)] = groups.hosted.transpose(2, 1, 0)
    config[:, : len(lanes)] = np.where(groups.config < len(configs), groups.config, 0).T
    for column, lane in enumerate(lanes):
        deadline[:-1, column] = slo_ticks(lane.problem)
    if kernel is Kernel.SINGLE:
        most = int(hosted[..., 0].sum(1).max())
        shape = shape._replace(num_hosts=num_hosts_padded(most, num_groups))
    problems = [lane.problem for lane in lanes]
    states = [lane.state for lane in lanes if lane.state is not None]
    shape = shape._replace(queue=_queue(shape, problems, configs, first.workload, states))
    arrays: dict[str, Any] = {
        "hosted": hosted,
        "config": config,
        "deadline": deadline,
        "first": np.int64(first.first),
    }
    if states:
        if len(first.workload) and first.workload.arrival[0] < 0:
            raise SimulationError("clocks begin at 0 seconds, the workload does before")
        size = num_groups, num_clocks, len(hosted), shape.queue, LANES[kernel]
        arrays["arrival"] = block.arrival + first.workload.arrival[:1].sum()
        arrays["carried"] = pack_states(states, *size)
    block = block._replace(**arrays)
    _check_range(shape, block)
    return shape, block, configs


def pack_frame(
    kernel: Kernel,
    problem: Problem,
    workload: Workload,
    configs: Sequence[ParallelConfig],
    num_groups: int,
    num_clocks: int,
    counted: tuple[int, int],
) -> tuple[BlockShape, Block]:
    """A block of a problem and a workload, in which no group hosts anything yet.

    configs: by index. num_groups: padded. counted: half-open range of the requests to tally.
    """
    num_models = len(problem.models)
    require_representable(problem, workload, num_groups, max(config.pp for config in configs))
    config_bits = CONFIG_BITS[(len(configs) - 1).bit_length()]
    if kernel is Kernel.SINGLE:
        config_bits = max(config_bits, SINGLE_CONFIG_BITS)
    types = sorted({model.type for model in problem.models})
    latency = np.zeros((len(types), 1 << config_bits, max(num_clocks, 2)), np.int64)
    for row, kind in zip(latency, types, strict=True):
        for cost, config in zip(row, configs, strict=False):
            ticks = stage_ticks(problem, kind, config)
            if num_clocks == 1:
                cost[:2] = ticks.sum(), ticks.max(initial=0)
            else:
                cost[: len(ticks)] = ticks  # zeros behind the last stage leave its clock as it is
    arrival = np.zeros(padded_size(len(workload), 1024, factor=4), np.int64)
    arrival[: len(workload)] = workload.arrival - workload.arrival[:1]
    model = np.zeros(len(arrival), np.int32)
    model[: len(workload)] = np.where(workload.model < 0, num_models, workload.model)
    work = None
    if workload.work is not None:
        work = np.ones(len(arrival), np.int32)
        work[: len(workload)] = workload.work
    deadline = np.append(slo_ticks(problem), 0)
    arrays: dict[str, Any] = {
        "arrival": arrival,
        "model": model,
        "num_requests": np.int32(len(workload)),
        "first": np.int64(0),
        "count_from": np.int32(counted[0]),
        "count_to": np.int32(counted[1]),
        "hosted": np.zeros((num_models + 1, num_groups, LANES[kernel]), np.bool_),
        "config": np.zeros((num_groups, LANES[kernel]), np.int32),
        "deadline": np.repeat(deadline[:, None], LANES[kernel], axis=1),
        "model_type": np.array([types.index(m.type) for m in problem.models] + [0], np.int32),
        "latency": latency,
        "request_overhead": np.int64(request_overhead_ticks(problem.rules)),
        "work": work,
    }
    shape, block = BlockShape(kernel, problem.rules.rule, num_clocks, config_bits), Block(**arrays)
    shape = shape._replace(queue=_queue(shape, [problem], configs, workload))
    _check_range(shape, block)
    return shape, block


def require_room(shape: BlockShape, counts: Counts) -> None:
    """Raise SimulationError if a group had more unfinished requests than the block has room for."""
    if counts.overflow is not None and np.any(counts.overflow):
        raise SimulationError(
            f"{shape.rule}: more than {shape.queue} unfinished requests on a group; use finite "
            "SLOs or a rule with a larger max_unfinished"
        )


def _queue(
    shape: BlockShape,
    problems: Sequence[Problem],
    configs: Sequence[ParallelConfig],
    workload: Workload,
    states: Sequence[State] = (),
) -> int:
    """`BlockShape.queue`: no request that may be unfinished is forgotten.

    Those of a group end within the longest SLO from now, one last stage apart at least, and one
    bottleneck where one clock is enough (those of different types may overlap).
    """
    if not shape.rule.max_unfinished:
        return 0
    kinds = {model.type for model in problems[0].models}
    ticks = [stage_ticks(problems[0], kind, config) for kind in kinds for config in configs]
    apart = min(
        (int(own.max() if shape.num_clocks == 1 else own[-1]) for own in ticks if len(own)),
        default=0,
    )
    if workload.work is not None:
        apart = worked_ticks(apart, int(workload.work.min(initial=MOST_WORK)))
    longest = max(int(slo_ticks(problem).max(initial=0)) for problem in problems)
    bounded = longest < NO_DEADLINE and apart > 0
    waiting = max((len(ends) for state in states for ends in state.ends), default=0)
    bound = -(-longest // apart) if bounded else max(shape.rule.max_unfinished, waiting)
    return padded_size(min(len(workload) + waiting, bound), 4, factor=4)


def _check_range(shape: BlockShape, block: Block) -> None:
    """No clock passes the last arrival plus the longest deadline, or plus all the work there is."""
    latency, num_groups = np.asarray(block.latency), block.config.shape[0]
    totals = latency[..., 0] if shape.num_clocks == 1 else latency.sum(2)
    longest = totals.max(1).astype(np.float64)  # [type], at the slowest configuration
    own = relative_work(latency, block.work, int(block.num_requests))
    model = block.model[: block.num_requests]
    asked = np.bincount(model, own, minlength=len(block.model_type))
    all_work = float(asked @ longest[block.model_type])
    backlog = min(float(np.asarray(block.deadline[:-1]).max(initial=0)), all_work)
    bits = shape.config_bits + (num_groups - 1).bit_length()
    one = longest.max(initial=0.0) * (1.0 if own is None else own.max(initial=0.0))
    before = 0 if block.carried is None else np.asarray(block.carried.clock).max(initial=0)
    latest = float(max(np.asarray(block.arrival).max(initial=0), before)) + backlog + one
    if latest * 2**bits >= UNHOSTED:
        raise SimulationError(
            f"times up to {latest / TICKS_PER_SECOND:.3g} s with {num_groups} groups do not fit "
            "64-bit clocks; use a shorter workload or finite SLOs"
        )
