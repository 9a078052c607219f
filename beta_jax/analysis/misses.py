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
    idle_ticks,
    request_overhead_ticks,
    segments,
    slo_ticks,
)

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
            workload.arrival[lo:hi],
            workload.model[lo:hi],
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
    arrival: NDArray[np.int64],
    model: NDArray[np.int32],
    good: NDArray[np.bool_],
    group: NDArray[np.int32],
    finish: NDArray[np.int64],
) -> NDArray[np.int8]:
    """The reasons of the requests that one placement serves; all arrays are [request]."""
    deadline, overhead = slo_ticks(problem), request_overhead_ticks(problem.rules)
    overhead_before = overhead if problem.rules.batching == "published" else 0
    fits = np.zeros((len(problem.models), len(placement.groups)), np.bool_)
    idle = idle_ticks(problem, [group.config for group in placement.groups])
    for index, hosting in enumerate(placement.groups):
        hosted_here = list(hosting.models)
        fits[hosted_here, index] = idle[hosted_here, index] <= deadline[hosted_here]

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
        if not fits[hosted].any():
            reason[missed] = MissReason.SLO_TOO_SHORT
        elif not fits[hosted, index]:
            reason[missed] = MissReason.UNFIT_GROUP
        elif len(missed):
            batches = find_batches(finish[accepted], problem.rules.max_batch)
            last = accepted[batches.last]
            ticks = batch_ticks(problem, hosted, placement.groups[index].config)
            _, end = run_stages(arrival[last] + overhead_before, ticks[batches.doublings])
            time = _finish_behind(end, np.searchsorted(last, missed), arrival[missed], ticks[0])
            behind_own = time + overhead - arrival[missed] > deadline[hosted]
            reason[missed] = np.where(behind_own, MissReason.BEHIND_OWN, MissReason.BEHIND_OTHER)
    return reason


def _finish_behind(
    end: NDArray[np.int64],
    earlier: NDArray[np.int64],
    time: NDArray[np.int64],
    cost: NDArray[np.int64],
) -> NDArray[np.int64]:
    """When the last stage would be done with each of some requests, int64 ticks [request].

    end: [batch, stage]. earlier: [request], how many batches come first. time: [request], from when
    on it could be served. cost: [stage].
    """
    clock = np.concatenate([np.full((1, len(cost)), np.iinfo(np.int64).min), end])[earlier]
    for free, latency in zip(clock.T, cost, strict=True):
        time = np.maximum(time, free) + latency
    return time
