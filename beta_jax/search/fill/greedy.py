"""Greedy replica placement: the paper's Algorithm 1 with its fast heuristic, searches as lanes."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from beta_jax.parallel import run_parallel
from beta_jax.placement.codec import Codec
from beta_jax.placement.problem import Problem
from beta_jax.search.fill import incremental
from beta_jax.search.fill.incremental import fill_incrementally
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
    choose_kernel,
    group_lanes,
    pack_block,
    require_room,
    run_block,
)
from beta_jax.traits import Trait
from beta_jax.types import ParallelConfig, Workload

Array = jax.Array
MAX_JOINED_CLOCKS = 32
"""Up to so many clocks per lane it pays to give lanes more groups than they have."""

LONG_SEARCH = 2**19
"""With more requests, times groups, it pays to simulate only what an addition changes."""


class GreedyTask(NamedTuple):
    """Fill groups of these configurations with replicas, guided by a training workload.

    models: what may be placed (None: everything). The score always counts the whole workload.
    """

    problem: Problem
    workload: Workload
    configs: tuple[ParallelConfig, ...]
    models: tuple[int, ...] | None = None


class _Groups(NamedTuple):
    """The groups of every lane, in canonical order."""

    hosted: Array  # bool [models + 1, group, lane]
    config: Array  # int32 [group, lane]
    exists: Array  # bool [group, lane], False for padding
    left: Array  # int64 [group, lane], bytes free on each device


class _Search(NamedTuple):
    groups: _Groups
    counts: Counts  # of the last simulation; `overflow` of all
    num_simulations: Array  # int32 [lane]
    growing: Array  # bool [lane], a replica was added after the last simulation


def fill_greedily(tasks: Sequence[GreedyTask]) -> list[Result]:
    """Run all tasks, those that share a workload and static shape as lanes of one program.

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
        first = own[members[0]]
        long = len(first.workload) * first.num_groups > LONG_SEARCH
        traits = first.problem.rules.traits(first.workload)
        if len(members) == 1 and long and incremental.RELIES_ON in traits:
            return [fill_incrementally(first, len(tasks[members[0]].workload))]
        return _fill_block(kernel, [lanes[i] for i in members], [tasks[i] for i in members])

    own = lanes
    lanes, blocks = _share_blocks(own)
    # The longest first, so that no core is left with one at the end.
    blocks.sort(key=lambda block: -_effort(lanes[block[1][0]]))
    results: dict[int, Result] = {}
    for (_, members), found in zip(blocks, run_parallel(run, blocks), strict=True):
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


def _fill_block(kernel: Kernel, lanes: Sequence[Lane], tasks: Sequence[GreedyTask]) -> list[Result]:
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
    search = _fill(shape, block, weight, exists, left, num_requests)
    groups, counts, num_simulations = jax.device_get(search[:3])
    require_room(shape, counts)
    codec = Codec(configs, len(problem.models), len(groups.config))
    results = []
    for column, task in enumerate(tasks):
        config = np.where(groups.exists, groups.config, codec.no_group)[:, column]
        placement = codec.decode(groups.hosted[:-1, :, column].T, config)
        good, latency = counts.good[:, column].sum(), counts.latency[:, column].sum()
        score = published_score(int(good), int(latency), len(task.workload), placement)
        attainment = int(good) / max(len(task.workload), 1)
        number = int(num_simulations[column])
        results.append(Result(placement, score, number, attainment=attainment))
    return results


@functools.partial(jax.jit, static_argnums=0)
def _fill(
    shape: BlockShape,
    block: Block | BatchBlock,
    weight: Array,
    exists: Array,
    left: Array,
    num_requests: Array,
) -> _Search:
    """The whole search of a block, which says what its groups may host.

    weight: int64 [model, config] bytes on each device. num_requests: int64 [model].
    """
    num_groups, num_lanes = block.config.shape
    allowed = block.hosted[:-1].any(axis=1, keepdims=True)  # of all groups of a lane the same
    model_index = jnp.arange(weight.shape[0])[:, None]
    group_index = jnp.arange(num_groups)[:, None]

    def fitting(groups: _Groups) -> Array:  # bool [model, group, lane]
        fits = weight[:, groups.config] <= groups.left
        return fits & allowed & ~groups.hosted[:-1] & groups.exists

    def body(search: _Search) -> _Search:
        groups = search.groups
        counts, _ = run_block(shape, block._replace(hosted=groups.hosted, config=groups.config))
        overflow = jax.tree.map(jnp.logical_or, counts.overflow, search.counts.overflow)
        counts = counts._replace(overflow=overflow)
        fits = fitting(groups)
        fits_some = fits.any(axis=0)
        growing = fits_some.any(axis=0)
        load = jnp.where(fits_some, counts.dispatched, jnp.iinfo(jnp.int64).max)
        group = jnp.argmin(load, axis=0)
        fits_group = jnp.take_along_axis(fits, group[None, None], axis=1)[:, 0]
        unserved = jnp.where(fits_group, num_requests[:, None] - counts.good[:-1], -1)
        model = jnp.argmax(unserved, axis=0)

        here = (group_index == group) & growing
        added = here & (model_index[:, None] == model)  # [model, group, lane]
        config = jnp.take_along_axis(groups.config, group[None], axis=0)[0]
        groups = groups._replace(
            hosted=groups.hosted.at[:-1].set(groups.hosted[:-1] | added),
            left=groups.left - jnp.where(here, weight[model, config], 0),
        )
        order = _canonical_order(groups.hosted, group, growing)
        groups = _Groups(*(_permute(array, order) for array in groups))
        return _Search(groups, counts, search.num_simulations + search.growing, growing)

    groups = _Groups(jnp.zeros_like(block.hosted), jnp.asarray(block.config), exists, left)
    per_model = jnp.zeros(block.deadline.shape, jnp.int64)
    per_group = jnp.zeros(block.config.shape, jnp.int64)
    overflow = jnp.zeros(num_lanes, jnp.bool_) if shape.queue else None
    no_counts = Counts(per_model, per_model, per_group, per_group, overflow)
    search = _Search(
        groups, no_counts, jnp.zeros(num_lanes, jnp.int32), jnp.ones(num_lanes, jnp.bool_)
    )
    return lax.while_loop(lambda search: search.growing.any(), body, search)


def _permute(array: Array, order: Array) -> Array:
    """Reorder the groups of an array [..., group, lane] by `order` [group, lane]."""
    order = jnp.broadcast_to(order, array.shape)
    return jnp.take_along_axis(array, order, axis=array.ndim - 2)


def _canonical_order(hosted: Array, moved: Array, active: Array) -> Array:
    """The group that each place gets, [group, lane], when only `moved` [lane] may be out of order.

    Groups are sorted by their tuple of models, as Python compares tuples. Two differ first at the
    lowest model d that only one of them hosts; the one with d is smaller if the other has any model
    above d, else it is longer and so larger.
    """
    model_index = jnp.arange(hosted.shape[0])[:, None, None]
    group_index = jnp.arange(hosted.shape[1])[:, None]
    other = jnp.take_along_axis(hosted, moved[None, None], axis=1)  # [model, 1, lane]
    differ = hosted != other
    first = jnp.argmax(differ, axis=0)  # [group, lane]
    has_first = jnp.take_along_axis(hosted, first[None], axis=0)[0]
    highest = jnp.where(hosted, model_index, -1).max(axis=0)
    highest_other = jnp.where(other, model_index, -1).max(axis=0)
    smaller = jnp.where(has_first, highest_other > first, highest < first)
    before = jnp.where(differ.any(axis=0), smaller, group_index < moved)
    # Only `moved` changes place, so the groups between its old place and its new one shift by one.
    place = jnp.where(active, (before & (group_index != moved)).sum(axis=0), moved)
    shift = jnp.where(place < moved, -1, 1)
    first, last = jnp.minimum(place, moved), jnp.maximum(place, moved)
    between = (first <= group_index) & (group_index <= last)
    return jnp.where(group_index == place, moved, group_index + jnp.where(between, shift, 0))
