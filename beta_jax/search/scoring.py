"""Scores any number of placements of one instance, given as arrays rather than as objects."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike, NDArray

from beta_jax.parallel import run_parallel
from beta_jax.placement.placement import Group, Placement
from beta_jax.placement.problem import Problem
from beta_jax.search.result import score_counts
from beta_jax.simulator.kernels.choose import run_block
from beta_jax.simulator.lanes import Lane, padded_size
from beta_jax.simulator.layout import Block, BlockShape, Counts
from beta_jax.simulator.packing import (
    MAX_LANES,
    num_hosts_padded,
    num_lanes_padded,
    pack_block,
    worth_a_block,
)
from beta_jax.types import ParallelConfig, Workload


class Scores(NamedTuple):
    """What the placements achieve on each training workload, all per lane.

    score: float64 [workload, lane], the published score.
    good: int64 [workload, lane, model], good requests.
    """

    score: NDArray[np.float64]
    good: NDArray[np.int64]


class Scorer:
    """Simulates placements of at most `num_groups` groups of `configs`, in blocks of lanes.

    configs: sorted; their order gives the index of a configuration.
    """

    def __init__(
        self,
        problem: Problem,
        workloads: Sequence[Workload],
        configs: Sequence[ParallelConfig],
        num_groups: int,
    ) -> None:
        self._most_hosts = 0  # of all placements so far: it never shrinks, to compile less often
        self._num_requests = np.array([len(workload) for workload in workloads])
        self._blocks = [
            _pack_everything(problem, workload, configs, num_groups) for workload in workloads
        ]

    def __call__(self, hosted: ArrayLike, config: ArrayLike) -> Scores:
        """Score placements: hosted, bool [lane, group, model]; config, an index [lane, group].

        Groups without a model do nothing, so any index will do there. Arrays that are on the device
        stay there.
        """
        hosted, config = jnp.asarray(hosted), jnp.asarray(config, jnp.int32)
        num_lanes = len(hosted)
        self._most_hosts = max(self._most_hosts, int(jnp.max(hosted.sum(1), initial=0)))
        tasks = list(itertools.product(self._blocks, range(0, num_lanes, MAX_LANES)))

        def run(task: tuple[tuple[BlockShape, Block], int]) -> list[NDArray[np.int64]]:
            (shape, block), start = task
            requests = int(block.num_requests)
            part = slice(start, start + MAX_LANES)
            rows = block.hosted.shape[1]
            together = len(hosted[part]) >= worth_a_block(rows, shape.num_clocks, requests)
            num_hosts = 0 if together else num_hosts_padded(self._most_hosts, rows)
            shape = shape._replace(num_hosts=num_hosts)
            own, count = (hosted[part], config[part]), len(hosted[part])
            if count < (few := padded_size(count, 1)):
                own = jax.tree.map(lambda a: jnp.resize(a, (few, *a.shape[1:])), own)
            counts = _count(shape, block, *own, np.int32(count))
            return [np.asarray(array)[:count] for array in (counts.good, counts.latency)]

        parts = run_parallel(run, tasks)
        shape = len(self._blocks), num_lanes, hosted.shape[2]
        # In order of workload, then lane: the parts are the rows of [workload, lane].
        good, latency = (
            np.concatenate(arrays).reshape(shape) for arrays in zip(*parts, strict=True)
        )
        replicas = np.asarray(hosted.sum((1, 2)))
        requests = self._num_requests[:, None]
        return Scores(score_counts(good.sum(2), latency.sum(2), requests, replicas), good)


def _pack_everything(
    problem: Problem, workload: Workload, configs: Sequence[ParallelConfig], num_groups: int
) -> tuple[BlockShape, Block]:
    """A block for any placement: packed once, with all models on every group."""
    everything = tuple(range(len(problem.models)))
    # The deepest come first, as the first lane says how many clocks a group has.
    deepest = sorted(configs, key=lambda config: -config.pp)
    deepest += deepest[:1] * (-len(deepest) % num_groups)
    lanes = [
        Lane(
            problem,
            Placement(tuple(Group(c, everything) for c in deepest[i : i + num_groups])),
            workload,
            (0, len(workload)),
        )
        for i in range(0, len(deepest), num_groups)
    ]
    shape, block, packed = pack_block(lanes)
    assert packed == list(configs)
    return shape, block


@functools.partial(jax.jit, static_argnums=0)
def _count(
    shape: BlockShape, block: Block, hosted: jax.Array, config: jax.Array, count: jax.Array
) -> Counts:
    """The counts of the first `count` lanes, hosted [lane, group, model], each lane a row.

    In lockstep, or one after the other where the shape says how many groups host a model at most.
    """
    num_lanes, num_groups, num_models = hosted.shape
    lanes = num_lanes if shape.num_hosts else num_lanes_padded(num_lanes)
    rows = block.hosted.shape[1]
    hosted = (
        jnp.zeros((num_models + 1, rows, lanes), jnp.bool_)
        .at[:-1, :num_groups, :num_lanes]
        .set(hosted.transpose(2, 1, 0))
    )
    config = jnp.zeros((rows, lanes), jnp.int32).at[:num_groups, :num_lanes].set(config.T)

    def run(hosted: jax.Array, config: jax.Array, num_requests: jax.Array) -> Counts:
        deadline = jnp.repeat(block.deadline[:, :1], hosted.shape[2], axis=1)
        own = block._replace(hosted=hosted, config=config, deadline=deadline)
        return run_block(shape, own._replace(num_requests=num_requests))[0]

    if shape.num_hosts:

        def run_one(lane: tuple[jax.Array, jax.Array, jax.Array]) -> Counts:
            requests = jnp.where(lane[2] < count, block.num_requests, 0)
            counts = run(lane[0][..., None], lane[1][..., None], requests)
            return jax.tree.map(lambda array: array[..., 0], counts)

        counts = jax.lax.map(run_one, (jnp.moveaxis(hosted, -1, 0), config.T, jnp.arange(lanes)))
    else:
        counts = jax.tree.map(jnp.transpose, run(hosted, config, block.num_requests))
    return counts._replace(
        good=counts.good[:num_lanes, :-1], latency=counts.latency[:num_lanes, :-1]
    )
