"""Scores any number of placements of one instance, given as arrays rather than as objects."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike, NDArray

from beta_jax.placement import Group, Placement
from beta_jax.problem import Problem
from beta_jax.search.result import score_counts
from beta_jax.simulator.blocks import MAX_LANES, num_lanes_padded, pack_block, run_parallel
from beta_jax.simulator.kernel import Block, BlockShape, Counts, run_block
from beta_jax.simulator.lanes import Lane
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
        tasks = list(itertools.product(self._blocks, range(0, num_lanes, MAX_LANES)))

        def run(task: tuple[tuple[BlockShape, Block], int]) -> list[NDArray[np.int64]]:
            block, start = task
            part = slice(start, start + MAX_LANES)
            counts = _count(*block, hosted[part], config[part])
            return [np.asarray(array) for array in (counts.good, counts.latency)]

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
def _count(shape: BlockShape, block: Block, hosted: jax.Array, config: jax.Array) -> Counts:
    """The counts of placements, hosted [lane, group, model]; those of models are [lane, model]."""
    num_lanes, num_groups, num_models = hosted.shape
    lanes, rows = num_lanes_padded(num_lanes), block.hosted.shape[1]
    widened: dict[str, Any] = {
        "hosted": jnp.zeros((num_models + 1, rows, lanes), jnp.bool_)
        .at[:-1, :num_groups, :num_lanes]
        .set(hosted.transpose(2, 1, 0)),
        "config": jnp.zeros((rows, lanes), jnp.int32).at[:num_groups, :num_lanes].set(config.T),
        "deadline": jnp.repeat(block.deadline[:, :1], lanes, axis=1),
    }
    counts, _ = run_block(shape, block._replace(**widened))
    return counts._replace(
        good=counts.good[:-1, :num_lanes].T, latency=counts.latency[:-1, :num_lanes].T
    )
