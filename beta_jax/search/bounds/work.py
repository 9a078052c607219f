"""How much group partitions can serve if every group could host every model: a bound by work.

On one stage of its pipeline a group does one request at a time. So a partition is at most as good
as one server, as fast as all of its groups, that may stop and resume work on a request, or do part
of it. If all may wait equally long that is a queue which loses what overflows it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from numpy.typing import NDArray

from beta_jax.parallel import run_parallel
from beta_jax.placement.partition import Partition
from beta_jax.placement.problem import Problem
from beta_jax.search.instances import fits_alone
from beta_jax.simulator.engine import (
    padded_size,
    request_overhead_ticks,
    slo_ticks,
    stage_ticks,
)
from beta_jax.types import ParallelConfig, Workload

Array = NDArray[np.float64]
Wanted = Sequence[tuple[Partition, tuple[int, ...]]]
"""Partitions, each with the models that may be placed on it."""
LANES = (64, 8)
"""Queues that are run together: 64, or 8 times as many, which still fit the L1 cache."""


class _Stage(NamedTuple):
    """What requests do on one stage of a group, float64 ticks [model]; infinite work: cannot be."""

    work: Array
    window: Array  # from arrival to when the stage must be through


class _Queue(NamedTuple):
    work: Array  # float64 ticks [model], that a request brings
    window: float  # ticks, the most that may wait


def served_together(problem: Problem, workload: Workload, wanted: Wanted) -> Array:
    """At most how many requests of some models a partition's groups serve, float64 [wanted].

    The more work requests are, the fewer of them are served in so much time: the work that can be
    done on the cheapest ones, on these and the next, and so on bounds their number.
    """
    configs = sorted({config for partition, _ in wanted for config in partition})
    stages = dict(zip(configs, _stages(problem, workload, configs), strict=True))
    queues: list[_Queue] = []
    places = []
    for partition, models in wanted:
        work, share, windows = _as_one_server(partition, stages)
        work[np.setdiff1d(np.arange(len(work)), models)] = np.inf
        steps = np.unique(work[np.isfinite(work)])
        places.append((len(queues), steps))
        for most in steps:
            some = work <= most
            longest = np.maximum(windows[:, some].max(1), 0.0)
            queues.append(_Queue(np.where(some, work, 0.0), float(share @ longest)))
    done = _done(workload, queues)
    return np.array(
        [
            (np.diff(done[first : first + len(steps)], prepend=0.0) / steps).sum()
            for first, steps in places
        ]
    )


def _stages(
    problem: Problem, workload: Workload, configs: Sequence[ParallelConfig]
) -> list[_Stage]:
    """Of each configuration the stage that the requests would keep busy for the longest."""
    slo = slo_ticks(problem) - request_overhead_ticks(problem.rules)
    requests = np.bincount(workload.model[workload.model >= 0], minlength=len(problem.models))
    found = []
    for config, fits in zip(configs, fits_alone(problem, configs).T, strict=True):
        ticks = [stage_ticks(problem, model.type, config) for model in problem.models]
        able = fits & np.array([len(own) > 0 for own in ticks])
        able &= np.array([own.sum() for own in ticks]) <= slo
        work, window = np.full(len(able), np.inf), np.full(len(able), -np.inf)
        if able.any():
            latency = np.array([own for own, a in zip(ticks, able, strict=True) if a], np.float64)
            stage = int((requests[able] @ latency).argmax())
            earlier = latency[:, :stage].sum(1)
            later = latency[:, stage + 1 :].sum(1)
            work[able] = latency[:, stage]
            # As late as the first could begin all may: then the order is that of arrival.
            window[able] = slo[able] - later - earlier.min()
        found.append(_Stage(work, window))
    return found


def _as_one_server(
    partition: Partition, stages: dict[ParallelConfig, _Stage]
) -> tuple[Array, Array, Array]:
    """Work, [model], as a share of what all groups do in a tick; and of each configuration, which
    share of it its groups do, [config], and its windows, [config, model].

    What waits at a group is at most what it does within its window. So what waits in all is at
    most what they do together within the mean of their windows, weighted by these shares.
    """
    groups = Counter(partition)
    first, *others = (stages[config] for config in groups)
    work, capacity = first.work.copy(), [float(groups[partition[0]])]
    for config, stage in zip(list(groups)[1:], others, strict=True):
        both = np.isfinite(first.work) & np.isfinite(stage.work)
        # In units of the first's: any speed bounds, this one leaves requests as long as there.
        speed = (first.work[both] / stage.work[both]).max(initial=0.0) or 1.0
        capacity.append(groups[config] * speed)
        work = np.minimum(work, stage.work * speed)
    share = np.array(capacity) / sum(capacity)
    return work / sum(capacity), share, np.array([stages[config].window for config in groups])


def _done(workload: Workload, queues: Sequence[_Queue]) -> Array:
    """Ticks of work that the queues take in, float64 [queue]."""
    padded = padded_size(len(workload), 1024, 4)
    gap, model = np.zeros(padded), np.zeros(padded, np.int32)
    gap[: len(workload)] = np.diff(workload.arrival, prepend=workload.arrival[:1])
    model[: len(workload)] = workload.model

    def run(part: Sequence[_Queue]) -> Array:
        lanes = padded_size(len(part), *LANES)
        work, window = np.zeros((len(part[0].work) + 1, lanes)), np.zeros(lanes)
        for lane, queue in enumerate(part):
            work[:-1, lane], window[lane] = queue
        # Few rows stay in the cache: models of a type are alike. The last one is of no model.
        rows, row = np.unique(work, axis=0, return_inverse=True)
        rows = np.pad(rows, ((0, padded_size(len(rows), 4) - len(rows)), (0, 0)))
        kind = row.reshape(-1).astype(np.int32)[model]
        return np.asarray(_take_in(gap, kind, np.int32(len(workload)), rows, window))[: len(part)]

    most = LANES[0] * LANES[1]
    parts = [queues[i : i + most] for i in range(0, len(queues), most)]
    return np.concatenate([np.zeros(0), *run_parallel(run, parts)])


@jax.jit
def _take_in(
    gap: jax.Array, kind: jax.Array, count: jax.Array, work: jax.Array, window: jax.Array
) -> jax.Array:
    """Of the work [kind, lane] that requests bring, what fits queues of `window` ticks [lane]."""

    def step(i: jax.Array, state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        backlog, done = state
        left = jnp.maximum(backlog - gap[i], 0.0)
        backlog = jnp.minimum(left + work[kind[i]], window)
        return backlog, done + (backlog - left)

    zeros = jnp.zeros_like(window)
    return lax.fori_loop(0, count, step, (zeros, zeros))[1]
