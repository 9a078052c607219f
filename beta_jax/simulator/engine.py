"""All that other rooms may use of the simulator besides `simulate`: for searches and analyses.

Searches hold placements as arrays, on the device: `ArraySimulator` for any number of placements at
once, or blocks whose `hosted` they fill themselves, in programs of their own around `run_block`,
on a GPU around `count_launch`.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from numpy.typing import NDArray

from beta_jax.backend import on_cpu
from beta_jax.parallel import run_parallel
from beta_jax.placement.problem import Problem
from beta_jax.simulator.batch_packing import pack_batch_frame
from beta_jax.simulator.kernels.batching import BatchBlock
from beta_jax.simulator.kernels.choose import (
    LANES,
    MAX_LANES,
    RUN,
    choose_kernel,
    ran,
    run_block,
    send_launch,
    simulate_block,
)
from beta_jax.simulator.kernels.gpu import MAX_CONFIGS
from beta_jax.simulator.lanes import Lane, make_simulations, padded_size, segments
from beta_jax.simulator.launches import (
    LaunchBlock,
    count_launch,
    pack_lanes,
    plan_launches,
    simulate_launches,
    without_requests,
)
from beta_jax.simulator.layout import MAX_GROUPS, Block, BlockShape, Counts, Kernel, Launch
from beta_jax.simulator.packing import (
    SINGLE_GROUPS,
    group_lanes,
    num_hosts_padded,
    pack_block,
    pack_frame,
    require_room,
)
from beta_jax.simulator.results import Outcome, Part, join_requests
from beta_jax.simulator.state import State, unpack_state
from beta_jax.simulator.ticks import (
    idle_ticks,
    request_overhead_ticks,
    slo_ticks,
    stage_ticks,
    worked_ticks,
)
from beta_jax.types import ParallelConfig, Workload

__all__ = [
    "LANES",
    "MAX_GROUPS",
    "MAX_LANES",
    "SINGLE_GROUPS",
    "ArraySimulator",
    "BatchBlock",
    "Block",
    "BlockShape",
    "Counts",
    "Kernel",
    "Lane",
    "Launch",
    "LaunchBlock",
    "Outcome",
    "Part",
    "State",
    "choose_kernel",
    "count_launch",
    "group_lanes",
    "idle_ticks",
    "join_requests",
    "make_simulations",
    "num_hosts_padded",
    "pack_block",
    "padded_size",
    "plan_launches",
    "ran",
    "request_overhead_ticks",
    "require_room",
    "run_block",
    "segments",
    "send_launch",
    "simulate_block",
    "simulate_lanes",
    "simulate_parts",
    "slo_ticks",
    "stage_ticks",
    "without_requests",
    "worked_ticks",
]

REQUEST_OUTPUT_BYTES = 2**28
"""Per-request outputs of a block are kept under this size, by using fewer lanes."""
Packed = tuple[BlockShape, Block | BatchBlock]


def simulate_lanes(
    lanes: Sequence[Lane], *, keep_requests: bool, kernel: Kernel | None = None
) -> list[list[np.ndarray]]:
    """The arrays of `Requests`, or counts of `Counts`, of every lane, in order, without its axis.

    Lanes that can share a block or a launch do, by the kernel that is faster, or by the given one.
    """
    longest = max((len(lane.workload) for lane in lanes), default=0)
    max_lanes = REQUEST_OUTPUT_BYTES // (10 * longest + 1) if keep_requests else MAX_LANES
    blocks = group_lanes(lanes, max_lanes, kernel)

    def run(block: tuple[Kernel, list[int]]) -> list[np.ndarray]:
        kernel, members = block
        shape, packed, _ = pack_block(kernel, [lanes[i] for i in members])
        counts, requests = simulate_block(shape, packed, keep_requests=keep_requests)
        require_room(shape, counts)
        return [np.asarray(array) for array in (requests if keep_requests else counts[:4])]

    launched = [members for kernel, members in blocks if kernel is Kernel.GPU]
    results: dict[Any, list[np.ndarray]] = simulate_launches(
        [pack_lanes([lanes[i] for i in members], members) for members in launched],
        keep_requests=keep_requests,
    )
    blocks = [block for block in blocks if block[0] is not Kernel.GPU]
    for (_, members), arrays in zip(blocks, run_parallel(run, blocks), strict=True):
        for column, index in enumerate(members):
            results[index] = [array[..., column] for array in arrays]
    return [results[index] for index in range(len(lanes))]


def simulate_parts(lanes: Sequence[Lane]) -> list[tuple[NDArray, NDArray, State]]:
    """What became of the requests of lanes that have a state, and the state that they leave.

    Finishes, int64 ticks [request], 0 if rejected; groups, int16 [request], -1 if none hosts the
    model; of every lane, in order.
    """
    longest = max((len(lane.workload) for lane in lanes), default=0)
    blocks = group_lanes(lanes, REQUEST_OUTPUT_BYTES // (10 * longest + 1))

    def run(block: tuple[Kernel, list[int]]) -> list[tuple[NDArray, NDArray, State]]:
        kernel, members = block
        own = [lanes[i] for i in members]
        shape, packed, _ = pack_block(kernel, own)
        counts, requests = simulate_block(shape, packed, keep_requests=True)
        require_room(shape, counts)
        finish, group = map(np.asarray, requests)
        found = []
        for column, lane in enumerate(own):
            assert lane.state is not None
            count = len(lane.workload)
            state = unpack_state(counts.carried, column, lane.state, count)
            found.append((finish[:count, column], group[:count, column], state))
        return found

    results: dict[int, tuple[NDArray, NDArray, State]] = {}
    for (_, members), found in zip(blocks, run_parallel(run, blocks), strict=True):
        results.update(zip(members, found, strict=True))
    return [results[index] for index in range(len(lanes))]


class ArraySimulator:
    """Simulates placements given as arrays, of one problem, under each of several workloads.

    configs: sorted; their order gives the index of a configuration. num_groups: at most so many.
    Raises SimulationError as `simulate` does.
    """

    def __init__(
        self,
        problem: Problem,
        workloads: Sequence[Workload],
        configs: Sequence[ParallelConfig],
        num_groups: int,
    ) -> None:
        self._most_hosts = 0  # of all placements so far: it never shrinks, to compile less often
        self._rules = problem.rules
        kernels = [k for k in RUN if (k is Kernel.BATCHING) == problem.rules.batches]
        self._packed = [
            {kernel: _pack(kernel, problem, workload, configs, num_groups) for kernel in kernels}
            for workload in workloads
        ]

        @functools.cache
        def launched(index: int) -> tuple[Workload, BlockShape, Block]:
            shape, block = _pack(Kernel.GPU, problem, workloads[index], configs, num_groups)
            assert isinstance(block, Block)
            return workloads[index], shape, block

        self._launched = launched if len(configs) <= MAX_CONFIGS else None

    @on_cpu()
    def __call__(
        self,
        hosted: ArrayLike,
        config: ArrayLike,
        workloads: Sequence[int] | NDArray[np.integer] | None = None,
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Good requests and their summed latency in ticks, int64 [workload, lane, model] each.

        hosted: bool [lane, group, model]. config: an index [lane, group]; groups without a model do
        nothing, so any index will do there. workloads: indices of those to simulate (None: all).
        """
        indices = range(len(self._packed)) if workloads is None else [int(i) for i in workloads]
        chosen = [self._packed[i] for i in indices]
        # Cut by NumPy, as JAX would compile a program for every number of lanes.
        hosted, config = np.asarray(hosted), np.asarray(config, np.int32)
        num_lanes = len(hosted)
        if chosen and self._launched is not None:
            frame_shape, frame = next(iter(chosen[0].values()))
            clocks = frame.hosted.shape[1], frame_shape.num_clocks
            launch_lanes = num_lanes * len(chosen)
            kernel = choose_kernel(self._rules, num_lanes, *clocks, math.inf, launch_lanes)
            if kernel is Kernel.GPU:
                return self._launch(indices, hosted, config)
        self._most_hosts = max(self._most_hosts, int(hosted.sum(1).max(initial=0)))

        def run(task: tuple[dict[Kernel, Packed], int]) -> list[NDArray[np.int64]]:
            packed, start = task
            own = hosted[start : start + MAX_LANES], config[start : start + MAX_LANES]
            count = len(own[0])
            shape, block = next(iter(packed.values()))
            groups = block.hosted.shape[1]
            size = count, groups, shape.num_clocks, int(np.max(block.num_requests))
            shape, block = packed[choose_kernel(self._rules, *size)]
            if shape.kernel is Kernel.SINGLE:
                shape = shape._replace(num_hosts=num_hosts_padded(self._most_hosts, groups))
            if count < (few := padded_size(count, 1, factor=4)):
                repeated = np.resize(np.arange(count), few)
                own = own[0][repeated], own[1][repeated]
            counts = _count(shape, block, *own, np.int32(count))
            require_room(shape, counts)
            return [np.asarray(array)[:count] for array in (counts.good, counts.latency)]

        parts = run_parallel(run, list(itertools.product(chosen, range(0, num_lanes, MAX_LANES))))
        # In order of workload, then lane: the parts are the rows of [workload, lane].
        shape = len(chosen), num_lanes, hosted.shape[2]
        good, latency = (
            np.concatenate(arrays).reshape(shape) for arrays in zip(*parts, strict=True)
        )
        return good, latency

    def _launch(
        self, indices: Sequence[int], hosted: NDArray[np.bool_], config: NDArray[np.int32]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The same on the GPU, all workloads at once."""
        assert self._launched is not None
        num_lanes, num_groups, num_models = hosted.shape
        blocks = []
        for row, index in enumerate(indices):
            workload, shape, frame = self._launched(index)
            for start in range(0, num_lanes, LANES[Kernel.GPU]):
                lanes = range(start, min(start + LANES[Kernel.GPU], num_lanes))
                own_hosted, own_config = map(np.zeros_like, (frame.hosted, frame.config))
                own_hosted[:-1, :num_groups, : len(lanes)] = hosted[lanes].transpose(2, 1, 0)
                own_config[:num_groups, : len(lanes)] = config[lanes].T
                own: dict[str, Any] = {"hosted": own_hosted, "config": own_config}
                members = [(row, lane) for lane in lanes]
                blocks.append(LaunchBlock(workload, shape, frame._replace(**own), members))
        found = simulate_launches(blocks, keep_requests=False)
        good, latency = np.zeros((2, len(indices), num_lanes, num_models), np.int64)
        for place, arrays in found.items():
            good[place], latency[place] = (array[:num_models] for array in arrays[:2])
        return good, latency


def _pack(
    kernel: Kernel,
    problem: Problem,
    workload: Workload,
    configs: Sequence[ParallelConfig],
    num_groups: int,
) -> Packed:
    """A block for any placement: for groups of any configuration that may host any model."""
    anything = (tuple(range(len(problem.models))),) * len(configs)
    num_clocks = Lane(problem, tuple(configs), anything, workload, (0, 0)).num_clocks
    groups = padded_size(num_groups, 4)
    counted = 0, len(workload)
    if kernel is Kernel.BATCHING:
        used = itertools.product({model.type for model in problem.models}, configs)
        max_batch = problem.rules.max_batch
        return pack_batch_frame(
            problem, workload, configs, groups, num_clocks, counted, used, max_batch
        )
    return pack_frame(kernel, problem, workload, configs, groups, num_clocks, counted)


@functools.partial(jax.jit, static_argnums=0)
def _count(
    shape: BlockShape,
    block: Block | BatchBlock,
    hosted: jax.Array,
    config: jax.Array,
    count: jax.Array,
) -> Counts:
    """The counts of the first `count` lanes, hosted [lane, group, model], each lane a row."""
    num_lanes, num_groups, num_models = hosted.shape
    in_lockstep = shape.kernel is Kernel.LOCKSTEP
    lanes = LANES[shape.kernel] if in_lockstep else num_lanes
    rows = block.hosted.shape[1]
    hosted = (
        jnp.zeros((num_models + 1, rows, lanes), jnp.bool_)
        .at[:-1, :num_groups, :num_lanes]
        .set(hosted.transpose(2, 1, 0))
    )
    config = jnp.zeros((rows, lanes), jnp.int32).at[:num_groups, :num_lanes].set(config.T)

    def run(**own: Any) -> Counts:
        return run_block(shape, block._replace(**own))[0]

    def run_one(lane: tuple[jax.Array, jax.Array, jax.Array]) -> Counts:
        requests = jnp.where(lane[2] < count, block.num_requests, 0)
        counts = run(hosted=lane[0][..., None], config=lane[1][..., None], num_requests=requests)
        return jax.tree.map(lambda array: array[..., 0], counts)

    if in_lockstep:
        counts = jax.tree.map(jnp.transpose, run(hosted=hosted, config=config))
    elif isinstance(block, BatchBlock):
        numbers = jnp.arange(lanes)
        own = {
            "num_requests": jnp.where(numbers < count, block.num_requests[0], 0),
            "deadline": jnp.repeat(block.deadline[:, :1], lanes, axis=1),
            "max_batch": jnp.repeat(block.max_batch[:1], lanes),
        }
        counts = jax.tree.map(jnp.transpose, run(hosted=hosted, config=config, **own))
    else:
        counts = jax.lax.map(run_one, (jnp.moveaxis(hosted, -1, 0), config.T, jnp.arange(lanes)))
    return counts._replace(
        good=counts.good[:num_lanes, :-1], latency=counts.latency[:num_lanes, :-1]
    )
