"""Greedy replica placement: the paper's Algorithm 1 with its fast heuristic, searches as lanes."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from numpy.typing import NDArray

from beta_jax.parallel import run_parallel
from beta_jax.placement.codec import Codec
from beta_jax.placement.problem import Problem
from beta_jax.search.fill import incremental
from beta_jax.search.fill.incremental import fill_incrementally
from beta_jax.search.fill.step import Groups, Limits, Search, add_replicas, begin
from beta_jax.search.instances import NEVER_FITS, memory_table, weight_table
from beta_jax.search.result import Result, published_score
from beta_jax.simulator.engine import (
    MAX_LANES,
    BatchBlock,
    Block,
    BlockShape,
    Counts,
    Kernel,
    Lane,
    Launch,
    LaunchBlock,
    choose_kernel,
    count_launch,
    group_lanes,
    pack_block,
    plan_launches,
    require_room,
    run_block,
    send_launch,
    without_requests,
)
from beta_jax.traits import Trait
from beta_jax.types import ParallelConfig, Workload

Array = jax.Array
MAX_JOINED_CLOCKS = 32
"""Up to so many clocks per lane it pays to give lanes more groups than they have."""

LONG_SEARCH = 2**13
"""With more requests it pays to simulate only what an addition changes, also as these simulations
are of few shapes: a program of the whole search compiles for many."""

HOST_BYTES = 8
"""What a search on a GPU keeps for each model, group and lane (estimated)."""


class GreedyTask(NamedTuple):
    """Fill groups of these configurations with replicas, guided by a training workload.

    models: what may be placed (None: everything). The score always counts the whole workload.
    """

    problem: Problem
    workload: Workload
    configs: tuple[ParallelConfig, ...]
    models: tuple[int, ...] | None = None


def fill_greedily(tasks: Sequence[GreedyTask]) -> list[Result]:
    """Run all tasks, those that share a workload and static shape as lanes of one program.

    Where a GPU is the faster one, all of one static shape are blocks of one launch.

    Repeats: simulate; among the groups where some model fits, take the one with the fewest requests
    dispatched; add the model with the most unserved requests among those that fit it (ties: lower
    index); restore the canonical order of groups; until nothing fits.
    """
    lanes = []
    of_some: dict[tuple[Workload, tuple[int, ...]], Workload] = {}
    for problem, workload, configs, models in tasks:
        everything = tuple(range(len(problem.models)))
        models = everything if models is None else models
        if models != everything and Trait.LOCAL in problem.rules.traits(workload):
            # Requests that will find no host change nothing but the time a simulation takes.
            key = workload, models
            if key not in of_some:
                of_some[key] = workload.of_models(models)
            workload = of_some[key]
        lanes.append(Lane(problem, configs, (models,) * len(configs), workload, (0, len(workload))))

    def run(block: tuple[Kernel, list[int]]) -> list[Result]:
        kernel, members = block
        if by_changes(members):
            return [fill_incrementally(own[members[0]], len(tasks[members[0]].workload))]
        return _fill_block(kernel, [lanes[i] for i in members], [tasks[i] for i in members])

    def by_changes(members: list[int]) -> bool:
        first = own[members[0]]
        long = len(first.workload) > LONG_SEARCH
        traits = first.problem.rules.traits(first.workload)
        return len(members) == 1 and long and incremental.RELIES_ON in traits

    own = lanes
    lanes, blocks = _share_blocks(own)
    # The longest first, so that no core is left with one at the end.
    blocks.sort(key=lambda block: -_effort(lanes[block[1][0]]))
    on_gpu = [kernel is Kernel.GPU and not by_changes(members) for kernel, members in blocks]
    for_gpu = [members for (_, members), yes in zip(blocks, on_gpu, strict=True) if yes]
    blocks = [block for block, yes in zip(blocks, on_gpu, strict=True) if not yes]
    launched = _launch(
        [
            _prepare(Kernel.GPU, [lanes[i] for i in some], [tasks[i] for i in some])
            for some in for_gpu
        ]
    )
    results: dict[int, Result] = {}
    for (_, members), found in zip(blocks, run_parallel(run, blocks), strict=True):
        results.update(zip(members, found, strict=True))
    for members, found in zip(for_gpu, launched(), strict=True):
        results.update(zip(members, found, strict=True))
    return [results[i] for i in range(len(tasks))]


def _effort(lane: Lane) -> int:
    """Grows with how long a simulation takes: what is done for every request, then for groups."""
    return len(lane.workload) * (64 * lane.num_clocks + lane.num_groups)


def _share_blocks(lanes: list[Lane]) -> tuple[list[Lane], list[tuple[Kernel, list[int]]]]:
    """Arrange lanes in few blocks that are well filled; also returns these.

    Where lanes differ only in their number of groups and one block has room for them all, some get
    more groups, which stay empty.
    """
    lanes = list(lanes)
    classes: dict[Hashable, dict[int, list[int]]] = {}
    for index, lane in enumerate(lanes):
        by_size = classes.setdefault(lane.width_key(), {})
        by_size.setdefault(lane.num_groups, []).append(index)
    for by_size in classes.values():
        joined: list[list[int]] = []
        num_clocks = lanes[next(iter(by_size.values()))[0]].num_clocks
        for num_groups, members in sorted(by_size.items(), reverse=True):
            largest = lanes[joined[-1][0]].num_groups if joined else num_groups
            fits = joined and len(joined[-1]) + len(members) <= MAX_LANES
            if fits and largest * num_clocks <= MAX_JOINED_CLOCKS:
                joined[-1] += members
            else:
                joined.append(list(members))
        for members in joined:
            largest, rules = lanes[members[0]].num_groups, lanes[members[0]].problem.rules
            if choose_kernel(rules, len(members), largest, num_clocks) is Kernel.LOCKSTEP:
                for index in members:
                    lanes[index] = _with_groups(lanes[index], largest)
    return lanes, group_lanes(lanes)


def _with_groups(lane: Lane, num_groups: int) -> Lane:
    """More groups, which do not exist for the search."""
    more = num_groups - len(lane.configs)
    return dataclasses.replace(
        lane,
        configs=lane.configs + lane.configs[:1] * more,
        may_host=lane.may_host + lane.may_host[:1] * more,
    )


class _Prepared(NamedTuple):
    """A block of searches that have not begun."""

    tasks: Sequence[GreedyTask]
    workload: Workload
    configs: list[ParallelConfig]
    shape: BlockShape
    block: Block | BatchBlock
    weight: NDArray[np.int64]
    exists: NDArray[np.bool_]
    left: NDArray[np.int64]
    num_requests: NDArray[np.int64]


def _prepare(kernel: Kernel, lanes: Sequence[Lane], tasks: Sequence[GreedyTask]) -> _Prepared:
    shape, block, configs = pack_block(kernel, lanes)
    shape = shape._replace(num_hosts=0)  # lists would have to be made for every simulation
    problem = tasks[0].problem
    table = weight_table(problem, configs)
    weight = np.full((len(table), block.latency.shape[1]), NEVER_FITS)  # few shapes to compile
    weight[:, : len(configs)] = table
    left = np.zeros(block.config.shape, np.int64)
    exists = np.zeros(block.config.shape, np.bool_)
    for column, lane in enumerate(lanes):
        left[: len(lane.configs), column] = memory_table(lane.problem, lane.configs)
        exists[: len(tasks[column].configs), column] = True
    asked = lanes[0].workload.model
    num_requests = np.bincount(asked[asked >= 0], minlength=len(problem.models))
    if kernel is Kernel.GPU:
        assert isinstance(block, Block)
        block = without_requests(block)
    return _Prepared(
        tasks, lanes[0].workload, configs, shape, block, weight, exists, left, num_requests
    )


def _fill_block(kernel: Kernel, lanes: Sequence[Lane], tasks: Sequence[GreedyTask]) -> list[Result]:
    own = _prepare(kernel, lanes, tasks)
    search = _fill(own.shape, own.block, own.weight, own.exists, own.left, own.num_requests)
    return _results(own, *jax.device_get(search[:3]))


def _results(
    own: _Prepared, groups: Groups, counts: Counts, num_simulations: NDArray[np.int32]
) -> list[Result]:
    require_room(own.shape, counts)
    num_models = len(own.weight)
    codec = Codec(own.configs, num_models, len(groups.config))
    results = []
    for column, task in enumerate(own.tasks):
        config = np.where(groups.exists, groups.config, codec.no_group)[:, column]
        placement = codec.decode(groups.hosted[:num_models, :, column].T, config)
        good, latency = counts.good[:, column].sum(), counts.latency[:, column].sum()
        score = published_score(int(good), int(latency), len(task.workload), placement)
        attainment = int(good) / max(len(task.workload), 1)
        number = int(num_simulations[column])
        results.append(Result(placement, score, number, attainment=attainment))
    return results


def _launch(blocks: Sequence[_Prepared]) -> Callable[[], list[list[Result]]]:
    """Fill blocks on GPUs; does not wait for the end, which what it returns does."""
    for_launches = []
    for number, own in enumerate(blocks):
        assert isinstance(own.block, Block)
        for_launches.append(LaunchBlock(own.workload, own.shape, own.block, [number]))
    running = []
    for some, packed, device in plan_launches(for_launches, host_bytes=HOST_BYTES):
        numbers = [number for launch_block in some for number in launch_block.members]
        num_blocks, num_models, *_ = packed.launch.hosted.shape
        prepared = [blocks[number] for number in numbers]
        search = _fill_launch(
            packed.shape,
            send_launch(packed, device),
            _stack([own.weight for own in prepared], num_blocks, num_models - 1),
            _stack([own.exists for own in prepared], num_blocks),
            _stack([own.left for own in prepared], num_blocks),
            _stack([own.num_requests for own in prepared], num_blocks, num_models - 1),
            longest=packed.longest,
            interpret=device.platform == "cpu",
        )
        running.append((numbers, search[:3]))

    def collect() -> list[list[Result]]:
        results: dict[int, list[Result]] = {}
        for numbers, search in running:
            found = jax.device_get(search)
            for row, number in enumerate(numbers):
                own = jax.tree.map(lambda array, row=row: array[row], found)
                results[number] = _results(blocks[number], *own)
        return [results[number] for number in range(len(blocks))]

    return collect


def _stack(arrays: Sequence[NDArray], *size: int) -> NDArray:
    """With zeros behind, to this size: groups that do not exist, models that are not allowed."""
    stacked = np.zeros((*size, *arrays[0].shape[len(size) - 1 :]), arrays[0].dtype)
    for row, array in zip(stacked, arrays, strict=False):
        row[: len(array)] = array
    return stacked


@functools.partial(jax.jit, static_argnums=0)
def _fill(
    shape: BlockShape,
    block: Block | BatchBlock,
    weight: Array,
    exists: Array,
    left: Array,
    num_requests: Array,
) -> Search:
    """The whole search of a block, which says what its groups may host.

    weight: int64 [model, config] bytes on each device. num_requests: int64 [model].
    """
    allowed = block.hosted[:-1].any(axis=1, keepdims=True)  # of all groups of a lane the same
    limits = Limits(weight, allowed, num_requests)

    def body(search: Search) -> Search:
        groups = search.groups
        counts, _ = run_block(shape, block._replace(hosted=groups.hosted, config=groups.config))
        return add_replicas(limits, search, counts)

    hosted = jnp.zeros_like(block.hosted)
    search = begin(shape, Groups(hosted, jnp.asarray(block.config), exists, left))
    return lax.while_loop(lambda search: search.growing.any(), body, search)


@functools.partial(jax.jit, static_argnums=0, static_argnames=("longest", "interpret"))
def _fill_launch(
    shape: BlockShape,
    launch: Launch,
    weight: Array,
    exists: Array,
    left: Array,
    num_requests: Array,
    *,
    longest: int,
    interpret: bool,
) -> Search:
    """The same for all blocks of a launch at once, with an axis of blocks in front of everything.

    In each turn of the loop the kernel runs once. What grows no more is simulated again until all
    is done, to the same end. longest, interpret: see `kernels.gpu`.
    """
    allowed = (launch.hosted[:, :-1] != 0).any(axis=2, keepdims=True)
    limits = Limits(weight, allowed, num_requests)

    def body(search: Search) -> Search:
        hosted, config = search.groups.hosted, search.groups.config
        counts = count_launch(shape, launch, hosted, config, longest=longest, interpret=interpret)
        return jax.vmap(add_replicas)(limits, search, counts)

    num_blocks, num_models = launch.hosted.shape[:2]
    hosted = jnp.zeros((num_blocks, num_models, *launch.config.shape[1:]), jnp.bool_)
    groups = Groups(hosted, launch.config, exists, left)
    search = jax.vmap(functools.partial(begin, shape))(groups)
    return lax.while_loop(lambda search: search.growing.any(), body, search)
