"""Scores any number of placements of one instance, given as arrays rather than as objects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jax.typing import ArrayLike
from numpy.typing import NDArray

from beta_jax.backend import on_cpu
from beta_jax.placement.problem import Problem
from beta_jax.search.result import score_counts
from beta_jax.simulator.engine import ArraySimulator
from beta_jax.types import ParallelConfig, Workload


class Scores(NamedTuple):
    """What the placements achieve on each training workload, all per lane.

    score: float64 [workload, lane], the published score.
    good: int64 [workload, lane, model], good requests.
    """

    score: NDArray[np.float64]
    good: NDArray[np.int64]


class Scorer:
    """Scores placements of at most `num_groups` groups of `configs`, which are sorted."""

    def __init__(
        self,
        problem: Problem,
        workloads: Sequence[Workload],
        configs: Sequence[ParallelConfig],
        num_groups: int,
    ) -> None:
        self._num_requests = np.array([len(workload) for workload in workloads])
        self._simulate = ArraySimulator(problem, workloads, configs, num_groups)
        self._num_configs = len(configs)

    @on_cpu()
    def __call__(
        self,
        hosted: ArrayLike,
        config: ArrayLike,
        workloads: Sequence[int] | NDArray[np.integer] | None = None,
    ) -> Scores:
        """Score placements: hosted, bool [lane, group, model]; config, an index [lane, group].

        Groups without a model do nothing, whatever their index. workloads: indices of those to
        score on (None: all).
        """
        hosted, config = np.asarray(hosted), np.asarray(config)
        known = np.minimum(config, self._num_configs - 1)
        good, latency = self._simulate(hosted, known, workloads)
        replicas = hosted.sum((1, 2))
        requests = (
            self._num_requests if workloads is None else self._num_requests[list(workloads)]
        )[:, None]
        return Scores(score_counts(good.sum(2), latency.sum(2), requests, replicas), good)
