"""From blocks of lanes to launches: one kernel of a GPU for as many as there is room for."""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from beta_jax.simulator.kernels import gpu, unrolled
from beta_jax.simulator.kernels.choose import run_launch
from beta_jax.simulator.lanes import Lane, padded_size
from beta_jax.simulator.layout import Block, BlockShape, Counts, Kernel, Launch, PackedLaunch
from beta_jax.simulator.packing import pack_block
from beta_jax.types import Workload

LAUNCH_BYTES = 2**30
"""Arrays of a launch are kept under this size, by making several of it."""


class LaunchBlock(NamedTuple):
    """A block for a launch. Its own `arrival`, `model` and `work` are not looked at."""

    workload: Workload
    shape: BlockShape
    block: Block
    members: Sequence[Any]
    """What its lanes are called, in order; padding has no name."""

    def num_bytes(self, keep_requests: bool, host_bytes: int) -> int:
        """On the device, about."""
        rows, groups, lanes = self.block.hosted.shape
        requests = keep_requests * 12 * len(self.workload)
        return (rows * (32 + groups * host_bytes) + requests) * lanes


class PlannedLaunch(NamedTuple):
    """A launch, the blocks that it consists of, and the device that it is for."""

    blocks: list[LaunchBlock]
    packed: PackedLaunch
    device: jax.Device


def pack_lanes(lanes: Sequence[Lane], members: Sequence[Any]) -> LaunchBlock:
    """A block of lanes as `group_lanes` puts them together."""
    shape, block, _ = pack_block(Kernel.GPU, lanes)
    assert isinstance(block, Block)
    return LaunchBlock(lanes[0].workload, shape, without_requests(block), members)


def without_requests(block: Block) -> Block:
    """A block for a launch, which keeps one copy of a workload for all its blocks."""
    return block._replace(arrival=block.arrival[:0], model=block.model[:0], work=None)


def plan_launches(
    blocks: Sequence[LaunchBlock], *, keep_requests: bool = False, host_bytes: int = 0
) -> Iterator[PlannedLaunch]:
    """Launches for all devices that have the kernel; where none has, for the CPU, interpreted.

    host_bytes: for each element of a block's `hosted`, what is on the device besides the launch.
    """
    devices = gpu.devices() or jax.local_devices(backend="cpu")[:1]
    by_shape: dict[Hashable, list[LaunchBlock]] = {}
    for own in blocks:
        alike = own.shape, own.block.config.shape, own.workload.work is None
        by_shape.setdefault(alike, []).append(own)
    for group in by_shape.values():
        group.sort(key=lambda own: -len(own.workload))
        size = sum(own.num_bytes(keep_requests, host_bytes) for own in group)
        parts = min(max(len(devices), -(-size // LAUNCH_BYTES)), len(group))
        for part in range(parts):
            some = group[part::parts]
            packed = pack_launch(some, keep_requests=keep_requests)
            yield PlannedLaunch(some, packed, devices[part % len(devices)])


def simulate_launches(
    blocks: Sequence[LaunchBlock], *, keep_requests: bool
) -> dict[Any, list[np.ndarray]]:
    """What `engine.simulate_lanes` returns, by what the lanes are called."""
    plan = plan_launches(blocks, keep_requests=keep_requests)
    running = [(some, packed, run_launch(packed, device)) for some, packed, device in plan]
    results = {}
    for some, packed, on_device in running:
        written = jax.tree.map(np.asarray, on_device)
        counts = gpu.counts(written)
        for number, own in enumerate(some):
            begin = int(packed.launch.row[number])
            rows = slice(begin, begin + len(own.workload))
            for column, name in enumerate(own.members):
                if keep_requests:
                    found = [array[rows, column] for array in (written.finish, written.group)]
                else:
                    found = [array[number, :, column] for array in counts[:4]]
                results[name] = found
    return results


def count_launch(
    shape: BlockShape,
    launch: Launch,
    hosted: jax.Array,
    config: jax.Array,
    *,
    longest: int,
    interpret: bool,
) -> Counts:
    """The counts, [block, ..], of a launch whose groups are others (under jit, as in `gpu.run`).

    hosted: bool [block, models + 1, group, lane]. config: int32 [block, group, lane].
    """
    launch = launch._replace(hosted=words(hosted), config=config)
    return gpu.counts(gpu.run(shape, launch, longest=longest, num_rows=0, interpret=interpret))


def pack_launch(some: Sequence[LaunchBlock], *, keep_requests: bool) -> PackedLaunch:
    """One launch of blocks of one shape, in this order.

    Numbers of blocks, requests and rows are padded to few sizes, so that few programs are compiled.
    """
    num_blocks = padded_size(len(some), 8, factor=4)
    num_models = max(len(own.block.model_type) for own in some)
    offsets: dict[Workload, int] = {}
    tables: dict[bytes, int] = {}
    table: list[int] = []
    latency: list[np.ndarray] = []
    total = 0
    for own in some:
        if own.workload not in offsets:
            offsets[own.workload] = total
            total += len(own.workload)
        costs = _padded(own.block.latency[own.block.model_type], num_models)
        table.append(tables.setdefault(costs.tobytes(), len(tables)))
        if len(latency) < len(tables):
            latency.append(costs)
    arrival = np.zeros(padded_size(total, 1024, factor=4), np.int64)
    model = np.zeros(len(arrival), np.int32)
    work = None if some[0].workload.work is None else np.ones(len(arrival), np.int32)
    for workload, offset in offsets.items():
        part = slice(offset, offset + len(workload))
        if work is not None and workload.work is not None:
            work[part] = workload.work
        arrival[part] = workload.arrival - workload.arrival[:1]
        model[part] = np.where(workload.model < 0, num_models - 1, workload.model)
    counts = [len(own.workload) for own in some]
    row = [0, *itertools.accumulate(counts)]

    def column(values: Sequence[Any], dtype: type) -> np.ndarray:
        return _padded(np.array(values, dtype), num_blocks)

    def rows(arrays: Sequence[Any], count: int) -> np.ndarray:
        return _padded(np.stack([_padded(array, count) for array in arrays]), num_blocks)

    blocks = [own.block for own in some]
    num_groups = blocks[0].config.shape[0]
    arrays: dict[str, Any] = {
        "arrival": arrival,
        "model": model,
        "offset": column([offsets[own.workload] for own in some], np.int32),
        "num_requests": column(counts, np.int32),
        "first": column([block.first for block in blocks], np.int64),
        "count_from": column([block.count_from for block in blocks], np.int32),
        "count_to": column([block.count_to for block in blocks], np.int32),
        "row": column(row[:-1] if keep_requests else [0] * len(some), np.int32),
        "request_overhead": column([block.request_overhead for block in blocks], np.int64),
        "table": column(table, np.int32),
        "latency": _padded(np.stack(latency), padded_size(len(latency), 1)),
        "hosted": rows([words(block.hosted) for block in blocks], num_models),
        "config": rows([block.config for block in blocks], num_groups),
        "deadline": rows([block.deadline for block in blocks], num_models),
        "work": work,
    }
    return PackedLaunch(
        some[0].shape,
        Launch(**arrays),
        longest=unrolled.PART * max(-(-max(counts) // unrolled.PART), 1),
        num_rows=padded_size(row[-1], 1024, factor=4) if keep_requests else 0,
    )


def words(hosted: Any) -> Any:
    """`Launch.hosted` of bool [.., group, lane], as an array of the same kind."""
    *_, num_groups, _ = hosted.shape
    return hosted.__array_namespace__().stack(
        [
            sum(
                hosted[..., g, :].astype(np.int32) << np.int32(g % 32)
                for g in range(begin, min(begin + 32, num_groups))
            )
            for begin in range(0, num_groups, 32)
        ],
        axis=-2,
    )


def _padded(array: Any, size: int) -> np.ndarray:
    """With zeros behind, to `size` rows."""
    return np.pad(array, [(0, size - len(array))] + [(0, 0)] * (array.ndim - 1))
