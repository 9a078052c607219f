"""Why requests missed their SLO.

Every miss is a rejection, and has exactly one reason, the first of these that holds:

* NO_REPLICA: no group of the placement in force hosts the model.
* SLO_TOO_SHORT: not even when idle does any of the groups that host it serve it within its SLO.
* UNFIT_GROUP: the group it was sent to does not either, but another one that hosts it does.
* BEHIND_OWN: the earlier requests of its own model that the group had accepted would have made it
  late without those of any other model.
* BEHIND_OTHER: without other models' requests in that group it would have been in time.

The last two ask what would have been: the group's earlier accepted requests of the same model run
alone, each accepted as it was, and the missed one after them. Taking requests away never delays
another one in a pipeline that serves first come, first served, so this is well defined: either
the model's own requests suffice for the miss, or others are necessary for it. (Asking which request
stood directly in front would blame whichever of a long queue happened to come last.)

With batching a request that misses waits in its model's queue until a group that could serve it
finds it at the head, and too late: this group it counts as sent to. What would have been is the
same: the group's batches of the same model from in front of it in the queue run alone, each of the
requests that it had, from when the last of these has come; then the missed one, by itself. What is
left for BEHIND_OTHER is waiting for other models' requests, for a group that had still other ones
in front, and, by the published rules, for an idle group to look.
"""

from __future__ import annotations

import enum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from beta_jax.analysis.stage_times import (
    batch_ticks,
    find_batches,
    require_retraceable,
    run_stages,
)
from beta_jax.placement.placement import Placement, Schedule
from beta_jax.placement.problem import Problem
from beta_jax.simulator.engine import (
    Outcome,
    request_overhead_ticks,
    segments,
    slo_ticks,
    worked_ticks,
)
from beta_jax.types import Workload

IN_TIME = -1
"""In place of a reason, for requests that did not miss."""


class MissReason(enum.IntEnum):
    """See the module."""

    NO_REPLICA = 0
    SLO_TOO_SHORT = 1
    UNFIT_GROUP = 2
    BEHIND_OWN = 3
    BEHIND_OTHER = 4


class Misses(NamedTuple):
    """The misses of an outcome.

    reason: int8 [request], a `MissReason`, or `IN_TIME`; of all requests.
    counts: int64 [model + 1, group + 1, reason], of the requests that the warm-up cut leaves. Last,
        at index -1, are requests of models that are not served, and those sent to no group. In a
        schedule a group is known by its position.
    """

    reason: NDArray[np.int8]
    counts: NDArray[np.int64]


def miss_reasons(problem: Problem, placement: Placement | Schedule, outcome: Outcome) -> Misses:
    """Say of every request that missed its SLO why it did; see the module.

    outcome: of simulating this problem and placement. Raises PlacementError for a placement that is
    not valid for the problem, and ValueError for rules that cannot be retraced.
    """
    require_retraceable(problem)
    placement.check(problem)
    workload = outcome.workload
    reason = np.full(len(workload), IN_TIME, np.int8)
    num_groups = 0
    for static, lo, hi in segments(placement, workload):
        num_groups = max(num_groups, len(static.groups))
        reason[lo:hi] = _of_segment(
            problem,
            static,
            workload.part(lo, hi),
            outcome.good[lo:hi],
            outcome.group[lo:hi],
            outcome.finish[lo:hi],
        )
    counts = np.zeros((len(problem.models) + 1, num_groups + 1, len(MissReason)), np.int64)
    missed = np.zeros(len(workload), np.bool_)
    missed[slice(*outcome.counted)] = ~outcome.good[slice(*outcome.counted)]
    np.add.at(counts, (workload.model[missed], outcome.group[missed], reason[missed]), 1)
    return Misses(reason, counts)


def _of_segment(
    problem: Problem,
    placement: Placement,
    workload: Workload,
    good: NDArray[np.bool_],
    group: NDArray[np.int32],
    finish: NDArray[np.int64],
) -> NDArray[np.int8]:
    """The reasons of the requests that one placement serves; all arrays are [request]."""
    deadline, overhead = slo_ticks(problem), request_overhead_ticks(problem.rules)
    overhead_before = overhead if problem.rules.batching == "published" else 0
    arrival, model = workload.arrival, workload.model

    def alone(requests: NDArray[np.int64], hosted: int, index: int) -> NDArray[np.int64]:
        """Stage latencies of requests of a model, one by one in a group, [request, stage]."""
        ticks = batch_ticks(problem, hosted, placement.groups[index].config)[0]
        work = None if workload.work is None else workload.work[requests, None]
        return np.broadcast_to(worked_ticks(ticks, work), (len(requests), len(ticks)))

    def fit(requests: NDArray[np.int64], hosted: int, index: int) -> NDArray[np.bool_]:
        """Which of them the group would serve in time, if it were idle."""
        return alone(requests, hosted, index).sum(1) + overhead <= deadline[hosted]

    reason = np.full(len(arrival), IN_TIME, np.int8)
    reason[~good & (group < 0)] = MissReason.NO_REPLICA
    sent = np.flatnonzero(group >= 0)
    place = group[sent].astype(np.int64) * len(problem.models) + model[sent]
    order = np.argsort(place, kind="stable")
    sent = sent[order]
    for which, first, count in zip(
        *np.unique(place[order], return_index=True, return_counts=True), strict=True
    ):
        index, hosted = divmod(int(which), len(problem.models))
        here = sent[first : first + count]
        accepted, missed = here[good[here]], here[~good[here]]
        if not len(missed):
            continue
        batches = find_batches(finish[accepted], problem.rules)
        last = accepted[batches.last]
        ticks = batch_ticks(problem, hosted, placement.groups[index].config)[batches.doublings]
        own = batches.worked(ticks, accepted, workload)
        _, end = run_stages(arrival[last] + overhead_before, own)
        in_front, costs = np.searchsorted(last, missed), alone(missed, hosted, index)
        time = _finish_behind(end, in_front, arrival[missed], costs)
        behind_own = time + overhead - arrival[missed] > deadline[hosted]
        reason[missed] = np.where(behind_own, MissReason.BEHIND_OWN, MissReason.BEHIND_OTHER)
        reason[missed[~fit(missed, hosted, index)]] = MissReason.UNFIT_GROUP
        hosts = [g for g, other in enumerate(placement.groups) if hosted in other.models]
        fits_some = np.any([fit(missed, hosted, g) for g in hosts], axis=0)
        reason[missed[~fits_some]] = MissReason.SLO_TOO_SHORT
    return reason


def _finish_behind(
    end: NDArray[np.int64],
    earlier: NDArray[np.int64],
    time: NDArray[np.int64],
    cost: NDArray[np.int64],
) -> NDArray[np.int64]:
    """When the last stage would be done with each of some requests, int64 ticks [request].

    end: [batch, stage]. earlier: [request], how many batches come first. time: [request], from when
    on it could be served. cost: [request, stage].
    """
    clock = np.concatenate([np.full((1, end.shape[1]), np.iinfo(np.int64).min), end])[earlier]
    for free, latency in zip(clock.T, cost.T, strict=True):
        time = np.maximum(time, free) + latency
    return time
