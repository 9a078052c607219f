"""From lanes to blocks of the kernel that serves requests in batches."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from beta_jax.placement.codec import Codec
from beta_jax.placement.problem import Problem
from beta_jax.simulator.kernels.batching import LANES, NEVER, BatchBlock
from beta_jax.simulator.lanes import (
    Lane,
    SimulationError,
    padded_size,
    relative_work,
    require_representable,
)
from beta_jax.simulator.layout import BlockShape, Kernel
from beta_jax.simulator.ticks import request_overhead_ticks, slo_ticks, stage_ticks
from beta_jax.types import BATCH_SIZES, TICKS_PER_SECOND, ParallelConfig, Workload

Used = Iterable[tuple[str, ParallelConfig]]
"""Model types and configurations that may meet."""


def pack_batches(
    lanes: Sequence[Lane],
) -> tuple[BlockShape, BatchBlock, list[ParallelConfig]]:
    """Build one block from lanes of equal `block_key`, at most LANES; also returns configurations.

    Raises SimulationError if times could overflow, for more groups or stages than supported, and
    for requests of models that the problem does not have; ProfileError where a profile lacks a
    batch size.
    """
    first = lanes[0]
    models = first.problem.models
    groups = [pair for lane in lanes for pair in zip(lane.configs, lane.may_host, strict=True)]
    configs = sorted({config for config, _ in groups}) or [ParallelConfig(1, 1)]
    used = {(models[m].type, config) for config, hosted in groups for m in hosted}
    max_batch = max(lane.problem.rules.max_batch for lane in lanes)
    shape, block = pack_batch_frame(
        first.problem,
        first.workload,
        configs,
        first.num_groups,
        first.num_clocks,
        first.counted,
        used,
        max_batch,
    )
    encoded = Codec(configs, len(models), first.num_groups).encode_groups(
        zip(lane.configs, lane.may_host, strict=True) for lane in lanes
    )
    arrays: dict[str, Any] = {
        name: np.zeros_like(getattr(block, name)) for name in ("hosted", "config", "deadline")
    }
    arrays["hosted"][:-1, :, : len(lanes)] = encoded.hosted.transpose(2, 1, 0)
    arrays["config"][:, : len(lanes)] = np.where(encoded.config < len(configs), encoded.config, 0).T
    arrays["num_requests"] = np.zeros(LANES, np.int32)
    arrays["num_requests"][: len(lanes)] = len(first.workload)
    arrays["max_batch"] = np.ones(LANES, np.int32)
    for column, lane in enumerate(lanes):
        arrays["deadline"][:-1, column] = slo_ticks(lane.problem)
        arrays["max_batch"][column] = lane.problem.rules.max_batch
    block = block._replace(**arrays)
    _check_range(block, first.workload)
    return shape, block, configs


def pack_batch_frame(
    problem: Problem,
    workload: Workload,
    configs: Sequence[ParallelConfig],
    num_groups: int,
    num_clocks: int,
    counted: tuple[int, int],
    used: Used,
    max_batch: int,
) -> tuple[BlockShape, BatchBlock]:
    """A block of a problem and a workload, in which no group hosts anything yet.

    See `packing.pack_frame`. max_batch: the largest batch of any lane.
    """
    num_models = len(problem.models)
    require_representable(problem, workload, num_groups, num_clocks)
    types = sorted({model.type for model in problem.models})
    latency = np.zeros(
        (len(types), padded_size(len(configs), 1), len(BATCH_SIZES), num_clocks), np.int64
    )
    for kind, config in used:
        if (kind, config) not in problem.profile:
            continue
        rows = latency[types.index(kind), configs.index(config)]
        for row, batch in zip(rows, BATCH_SIZES, strict=True):
            if batch <= max_batch:
                # Zeros behind the last stage leave its clock as it is.
                row[: config.pp] = stage_ticks(problem, kind, config, batch)
    deadline = np.append(slo_ticks(problem), 0)
    arrays: dict[str, Any] = {
        **_queues(workload, num_models, counted),
        "num_requests": np.full(LANES, len(workload), np.int32),
        "hosted": np.zeros((num_models + 1, num_groups, LANES), np.bool_),
        "config": np.zeros((num_groups, LANES), np.int32),
        "deadline": np.repeat(deadline[:, None], LANES, axis=1),
        "max_batch": np.full(LANES, max_batch, np.int32),
        "model_type": np.array([types.index(m.type) for m in problem.models] + [0], np.int32),
        "latency": latency,
        "request_overhead": np.int64(request_overhead_ticks(problem.rules)),
    }
    block = BatchBlock(**arrays)
    _check_range(block, workload)
    rules = problem.rules
    shape = BlockShape(Kernel.BATCHING, rules.rule, num_clocks, 0, batching=rules.batching)
    return shape, block


def _queues(workload: Workload, num_models: int, counted: tuple[int, int]) -> dict[str, Any]:
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
        "most_work": None if workload.work is None else _most_work(padded(workload.work[order], 1)),
    }


def _most_work(work: np.ndarray) -> np.ndarray:
    """Of the requests from each place on, as many as make a batch, the largest: [place, size]."""
    most = [work]
    for size in BATCH_SIZES[:-1]:  # twice as many: those, and as many behind them
        behind = np.append(most[-1][size:], np.full(size, 1, np.int32))
        most.append(np.maximum(most[-1], behind))
    return np.stack(most, axis=1)


def _check_range(block: BatchBlock, workload: Workload) -> None:
    """No clock passes the last arrival plus the longest deadline and the overhead, by which the
    published rules check for less than they do, or plus all the work there is, batch by batch."""
    arrays = [np.asarray(array) for array in (block.arrival, block.deadline, block.latency)]
    arrival, deadline, latency = arrays
    overhead = float(block.request_overhead)
    own = relative_work(latency, workload.work, len(workload))
    most = 1.0 if own is None else own.max(initial=0.0)
    work = float(latency.sum(-1).max()) * most + overhead
    backlog = min(float(deadline.max()) + overhead, len(workload) * work)
    rows, groups, _ = block.hosted.shape
    bits = max(rows - 1, groups).bit_length()
    latest = float(arrival[: len(workload)].max(initial=0)) + backlog + work
    if latest * 2**bits >= NEVER:
        raise SimulationError(
            f"times up to {latest / TICKS_PER_SECOND:.3g} s with {groups} groups and {rows - 1} "
            "models do not fit 64-bit clocks; use a shorter workload or finite SLOs"
        )
