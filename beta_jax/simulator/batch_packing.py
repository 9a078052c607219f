"""From placements and workloads to blocks of the kernel that batches requests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from beta_jax.simulator.kernels.batching import NEVER, BatchBlock
from beta_jax.simulator.lanes import Lane, SimulationError, padded_size
from beta_jax.simulator.layout import Dispatch
from beta_jax.simulator.packing import MAX_BATCHING_LANES, MAX_GROUPS, MAX_STAGES, stage_ticks
from beta_jax.types import (
    BATCH_SIZES,
    TICKS_PER_SECOND,
    ParallelConfig,
    Workload,
    durations_to_ticks,
)


def pack_batches(lanes: Sequence[Lane]) -> BatchBlock:
    """Build one block from lanes of equal `block_key`, at most MAX_BATCHING_LANES, that batch.

    Raises SimulationError if times could overflow, for more groups or stages than supported, or for
    another dispatch than `earliest_free`; ProfileError where a profile lacks a batch size.
    """
    first = lanes[0]
    problem, workload = first.problem, first.workload
    num_models, num_groups = len(problem.models), first.num_groups
    if problem.rules.dispatch != Dispatch.EARLIEST_FREE:
        raise SimulationError(f"batching goes with dispatch earliest_free, not {problem.rules}")
    if len(workload) and workload.model.max() >= num_models:
        raise SimulationError(
            f"the workload has requests of model {workload.model.max()}, "
            f"the problem {num_models} models"
        )
    groups = [group for lane in lanes for group in lane.placement.groups]
    configs = sorted({group.config for group in groups}) or [ParallelConfig(1, 1)]
    if num_groups > MAX_GROUPS or first.num_clocks > MAX_STAGES:
        raise SimulationError(
            f"at most {MAX_GROUPS} groups of {MAX_STAGES} stages, got {first.placement}"
        )
    types = sorted({model.type for model in problem.models})
    type_of = [types.index(model.type) for model in problem.models]
    max_batch = max(lane.problem.rules.max_batch for lane in lanes)
    latency = np.zeros(
        (len(types), padded_size(len(configs), 1), len(BATCH_SIZES), first.num_clocks), np.int64
    )
    for kind, config in {(type_of[m], group.config) for group in groups for m in group.models}:
        for row, batch in zip(latency[kind, configs.index(config)], BATCH_SIZES, strict=True):
            if batch <= max_batch:
                # Zeros behind the last stage leave its clock as it is.
                row[: config.pp] = stage_ticks(problem, types[kind], [config], batch)[0]

    width = 1 if len(lanes) == 1 else MAX_BATCHING_LANES
    arrays: dict[str, Any] = {
        **_queues(workload, num_models, first.counted),
        "num_requests": np.zeros(width, np.int32),
        "hosted": np.zeros((num_models + 1, num_groups, width), np.bool_),
        "config": np.zeros((num_groups, width), np.int32),
        "deadline": np.zeros((num_models + 1, width), np.int64),
        "max_batch": np.ones(width, np.int32),
        "model_type": np.array([*type_of, 0], np.int32),
        "latency": latency,
        "request_overhead": np.int64(round(problem.rules.request_overhead_s * TICKS_PER_SECOND)),
    }
    for column, lane in enumerate(lanes):
        arrays["num_requests"][column] = len(workload)
        arrays["max_batch"][column] = lane.problem.rules.max_batch
        deadline = durations_to_ticks([model.slo_s for model in lane.problem.models])
        arrays["deadline"][:-1, column] = deadline
        for index, group in enumerate(lane.placement.groups):
            arrays["config"][index, column] = configs.index(group.config)
            arrays["hosted"][list(group.models), index, column] = True
    block = BatchBlock(**arrays)
    _check_range(block, len(workload))
    return block


def _queues(workload: Workload, num_models: int, counted: tuple[int, int]) -> dict[str, np.ndarray]:
    """The requests in order of arrival, and in order of (model, arrival): in *places*."""
    n, rows = len(workload), num_models + 1
    size = padded_size(n + 1, 1024, factor=4)
    model = np.where(workload.model < 0, num_models, workload.model).astype(np.int32)
    arrival = workload.arrival - workload.arrival[:1]
    order = np.argsort(model, kind="stable")
    first = np.searchsorted(model[order], np.arange(rows)).astype(np.int32)

    def padded(values: np.ndarray, padding: int) -> np.ndarray:
        return np.concatenate([values, np.full(size - len(values), padding, values.dtype)])

    place = np.empty(n, np.int32)
    place[order] = np.arange(n, dtype=np.int32)
    count_from, count_to = (
        first + np.bincount(model[:limit], minlength=rows).astype(np.int32) for limit in counted
    )
    return {
        "arrival": padded(arrival, NEVER),
        "model": padded(model, 0),
        "place": padded(place, size - 1),
        "queued": padded(arrival[order], NEVER),
        "queued_sum": padded(np.append(np.int64(0), np.cumsum(arrival[order])), 0),
        "first": first,
        "count_from": count_from,
        "count_to": count_to,
    }


def _check_range(block: BatchBlock, num_requests: int) -> None:
    """No clock passes the last arrival plus the longest deadline and the overhead, by which the
    published rules check for less than they do, or plus all the work there is, batch by batch."""
    arrays = [np.asarray(array) for array in (block.arrival, block.deadline, block.latency)]
    arrival, deadline, latency = arrays
    overhead = float(block.request_overhead)
    work = float(latency.sum(-1).max()) + overhead
    backlog = min(float(deadline.max()) + overhead, num_requests * work)
    rows, groups, _ = block.hosted.shape
    bits = max(rows - 1, groups).bit_length()
    latest = float(arrival[:num_requests].max(initial=0)) + backlog + work
    if latest * 2**bits >= NEVER:
        raise SimulationError(
            f"times up to {latest / TICKS_PER_SECOND:.3g} s with {groups} groups and {rows - 1} "
            "models do not fit 64-bit clocks; use a shorter workload or finite SLOs"
        )
