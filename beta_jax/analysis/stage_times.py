"""What every pipeline stage did: when it began and ended with each batch, from the finishes.

The simulator returns when requests finish. Which of them a group served, in which order, determines
the times of all its stages (Beta, OSDI 2023, section 5: first come, first served in each stage):

    begin[i, k] = max(end[i, k - 1], end[i - 1, k]),    end[i, k] = begin[i, k] + stage latency

A stage's recurrence is a running maximum, `end[i] = S[i] + max over j <= i of (ready[j] - S[j-1])`
with S the summed latencies (Lindley 1952), so that it needs no loop over batches, and in integers
nothing is rounded.

A stage takes as long as the profile says times the request's own work, of a batch its largest.

Without batching every request is a batch. With it (section 6.5), requests that a group finishes at
once are one, as stages take time. By the strict rules it begins as soon as its last request is
there and the first stage is free. By the published ones nobody knows when a batch began: it may
have waited for an event of its group, and where a later stage holds it up several times lead to the
same finish. What is returned then is the latest that the finishes allow, the same recurrence
backwards:

    end[i, k] = min(begin[i, k + 1], begin[i + 1, k]),    begin[i, k] = end[i, k] - stage latency
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from beta_jax.placement.placement import Group, Placement, Schedule
from beta_jax.placement.problem import Problem
from beta_jax.simulator.engine import (
    Outcome,
    request_overhead_ticks,
    segments,
    stage_ticks,
    worked_ticks,
)
from beta_jax.traits import Trait
from beta_jax.types import BATCH_SIZES, ParallelConfig, Rules, Workload

RELIES_ON = Trait.AT_ARRIVAL | Trait.ONE_BY_ONE
FOREIGN = "the outcome is not of this problem and placement"
Ticks = NDArray[np.int64]


class Service(NamedTuple):
    """What a group did while its placement was in force.

    segment, position: of the placement in a schedule (else 0), and of the group in the placement.
    requests: int64 [served], the requests that it accepted, in order, as indices of the workload.
    batch: int64 [served], which batch each was in; without batching the n-th request in the n-th.
    begin, end: int64 ticks [batch, stage], on the workload's clock.
    """

    segment: int
    position: int
    group: Group
    requests: NDArray[np.int64]
    batch: NDArray[np.int64]
    begin: Ticks
    end: Ticks


class Batches(NamedTuple):
    """Requests that were served together, in order of service.

    of: int64 [request], which batch each is in. last: int64 [batch], its last request, as a
    position among them. doublings: int64 [batch], log2 of its size.
    """

    of: NDArray[np.int64]
    last: NDArray[np.int64]
    doublings: NDArray[np.int64]

    def worked(self, cost: Ticks, requests: NDArray[np.int64], workload: Workload) -> Ticks:
        """Stage latencies, int64 ticks [batch, stage], with the largest work of each batch.

        requests: those that were served, as indices of the workload.
        """
        if workload.work is None:
            return cost
        most = np.zeros(len(self.last), np.int64)
        np.maximum.at(most, self.of, workload.work[requests])
        return worked_ticks(cost, most[:, None])


def services(
    problem: Problem, placement: Placement | Schedule, outcome: Outcome
) -> Iterator[Service]:
    """What each group of each placement did; see `Service`.

    Raises PlacementError for a placement that is not valid for the problem, and ValueError for an
    outcome that does not come from simulating this problem and placement, or in which groups load
    weights or fail.
    """
    require_retraceable(problem)
    if outcome.changes is not None:
        raise ValueError("what stages did is not retraced where groups load weights or fail")
    placement.check(problem)
    rules = problem.rules
    backwards = rules.batching == "published"
    overhead_behind = 0 if backwards else request_overhead_ticks(rules)
    arrival, model = outcome.workload.arrival, outcome.workload.model
    for segment, (static, lo, hi) in enumerate(segments(placement, outcome.workload)):
        served = lo + np.flatnonzero(outcome.good[lo:hi])
        for position, group in enumerate(static.groups):
            requests = served[outcome.group[served] == position]
            if not np.isin(model[requests], group.models).all():
                raise ValueError(f"group {position} served models that it does not host")
            batches = find_batches(outcome.finish[requests], rules)
            last = requests[batches.last]
            cost = np.zeros((len(problem.models), len(BATCH_SIZES), group.config.pp), np.int64)
            for hosted in group.models:
                ticks = batch_ticks(problem, hosted, group.config)
                cost[hosted, : len(ticks)] = ticks
            own = batches.worked(cost[model[last], batches.doublings], requests, outcome.workload)
            finish = outcome.finish[last]
            if backwards:
                begin, end = run_stages_backwards(finish, own)
            else:
                begin, end = run_stages(arrival[last], own)
            together = np.array_equal(model[requests], model[last][batches.of])
            if not (together and np.array_equal(end[:, -1] + overhead_behind, finish)):
                raise ValueError(FOREIGN)
            yield Service(segment, position, group, requests, batches.of, begin, end)


def find_batches(finish: Ticks, rules: Rules) -> Batches:
    """The batches of requests that a group served, by their finishes, int64 ticks [request].

    Raises ValueError where that many cannot have been served together.
    """
    if not rules.batches:
        each = np.arange(len(finish))
        return Batches(each, each, np.zeros_like(each))
    _, of, size = np.unique(finish, return_inverse=True, return_counts=True)
    doublings = np.searchsorted(BATCH_SIZES, size)
    if (size > rules.max_batch).any() or (size != 1 << doublings).any():
        raise ValueError(FOREIGN)
    return Batches(of, np.argsort(of, kind="stable")[np.cumsum(size) - 1], doublings)


def batch_ticks(problem: Problem, model: int, config: ParallelConfig) -> Ticks:
    """Effective stage latencies of every batch there may be, int64 ticks [size, stage]."""
    sizes = [size for size in BATCH_SIZES if size <= problem.rules.max_batch]
    return np.array([stage_ticks(problem, problem.models[model].type, config, b) for b in sizes])


def run_stages(ready: Ticks, cost: Ticks) -> tuple[Ticks, Ticks]:
    """Begin and end of every stage of a group, int64 ticks [batch, stage].

    ready: [batch], when each could begin. cost: [batch, stage] effective stage latencies.
    """
    end = np.empty(cost.shape, np.int64)
    for stage, own in enumerate(cost.T):
        total = np.cumsum(own)
        end[:, stage] = ready = total + np.maximum.accumulate(ready - (total - own))
    return end - cost, end


def run_stages_backwards(finish: Ticks, cost: Ticks) -> tuple[Ticks, Ticks]:
    """The same, as late as what the last stage ends with at `finish` allows."""
    begin, end = run_stages(-finish[::-1], cost[::-1, ::-1])
    return -end[::-1, ::-1], -begin[::-1, ::-1]


def require_retraceable(problem: Problem) -> None:
    """Raise ValueError unless stages serve one batch after the other, in order of service."""
    if not problem.rules.batches and RELIES_ON not in problem.rules.traits():
        raise ValueError(f"what stages did cannot be retraced under {problem.rules}")
