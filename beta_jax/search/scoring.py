"""Scores any number of placements of one instance, given as arrays rather than as objects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from beta_jax.placement import Group, Placement
from beta_jax.problem import Problem
from beta_jax.search.result import score_counts
from beta_jax.simulator.blocks import MAX_LANES, num_lanes_padded, pack_block, run_parallel
from beta_jax.simulator.kernel import simulate_block
from beta_jax.simulator.lanes import Lane
from beta_jax.types import ParallelConfig, Workload


class Scores(NamedTuple):
    """What the placements achieve on the training workload.

    score: float64 [lane], the published score. good: int64 [lane, model], good requests.
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
        workload: Workload,
        configs: Sequence[ParallelConfig],
        num_groups: int,
    ) -> None:
        # A block is packed once, for every configuration, with all models on every group. The
        # deepest come first, as the first lane says how many clocks a group has.
        everything = tuple(range(len(problem.models)))
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
        self._shape, self._block, packed = pack_block(lanes)
        assert packed == list(configs)
        self._num_requests = len(workload)

    def __call__(self, hosted: NDArray[np.bool_], config: NDArray[np.integer]) -> Scores:
        """Score placements: hosted, bool [lane, group, model]; config, an index [lane, group].

        Groups without a model do nothing, so any index will do there.
        """
        num_lanes, num_groups, num_models = hosted.shape

        def run(start: int) -> list[np.ndarray]:
            part = slice(start, min(start + MAX_LANES, num_lanes))
            width = part.stop - start
            rows, padded = self._block.hosted.shape[1], num_lanes_padded(width)
            lanes_hosted = np.zeros((num_models + 1, rows, padded), np.bool_)
            lanes_hosted[:-1, :num_groups, :width] = hosted[part].transpose(2, 1, 0)
            lanes_config = np.zeros((rows, padded), np.int32)
            lanes_config[:num_groups, :width] = config[part].T
            arrays: dict[str, Any] = {
                "hosted": lanes_hosted,
                "config": lanes_config,
                "deadline": np.repeat(self._block.deadline[:, :1], padded, axis=1),
            }
            counts, _ = simulate_block(self._shape, self._block._replace(**arrays))
            return [np.asarray(array)[:-1, :width].T for array in (counts.good, counts.latency)]

        parts = run_parallel(run, range(0, num_lanes, MAX_LANES))
        good, latency = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        replicas = hosted.sum((1, 2))
        return Scores(score_counts(good.sum(1), latency.sum(1), self._num_requests, replicas), good)
