"""Why requests missed their SLO.

Every miss but the last kind is a rejection, and has exactly one reason, the first that holds:

* NO_REPLICA: no group of the placement in force hosts the model.
* SLO_TOO_SHORT: not even when idle does any of the groups that host it serve it within its SLO.
* UNFIT_GROUP: the group it was sent to does not either, but another one that hosts it does.
* BEHIND_OWN: the earlier requests of its own model that the group had accepted would have made it
  late without those of any other model.
* BEHIND_OTHER: without other models' requests in that group it would have been in time.
* FAILED: it had been accepted, and was lost as its group failed.

The last two ask what would have been: the group's earlier accepted requests of the same model run
alone, each accepted as it was, and the missed one after them. Taking requests away never delays
another one in a pipeline that serves first come, first served, so this is well defined: either
the model's own requests suffice for the miss, or others are necessary for it. (Asking which request
stood directly in front would blame whichever of a long queue happened to come last.)

Where groups load weights or fail, a group begins anew when it has been away, or its devices change
hands; NO_REPLICA is also that no host was there. A group that loads is taken to be idle, so that
waiting for that is among BEHIND_OTHER.

With batching a request that misses waits in its model's queue until a group that could serve it
finds it at the head, and too late: this group it counts as sent to. What would have been is the
same: the group's batches of the same model from in front of it in the queue run alone, each of the
requests that it had, from when the last of these has come; then the missed one, by itself. What is
left for BEHIND_OTHER is waiting for other models' requests, for a group that had still other ones
in front, and, by the published rules, for an idle group to look.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from beta_jax.analysis.stage_times import (
    batch_ticks,
    find_batches,
    require_retraceable,
    run_stages,
)
from beta_jax.placement.hosting import statics
from beta_jax.placement.placement import Placement, Schedule
from beta_jax.placement.problem import Problem
from beta_jax.simulator.engine import (
    Outcome,
    Part,
    request_overhead_ticks,
    segments,
    slo_ticks,
    worked_ticks,
)
from beta_jax.types import ParallelConfig, Workload

IN_TIME = -1
"""In place of a reason, for requests that did not miss."""


class MissReason(enum.IntEnum):
    """See the module."""

    NO_REPLICA = 0
    SLO_TOO_SHORT = 1
    UNFIT_GROUP = 2
    BEHIND_OWN = 3
    BEHIND_OTHER = 4
    FAILED = 5


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
    workload, changes = outcome.workload, outcome.changes
    failed = np.zeros(len(workload), np.bool_) if changes is None else changes.failed
    life, configs = _lives(placement, outcome)
    reason = _behind(problem, outcome, life, configs, outcome.good | failed)
    for part in _parts(placement, outcome):
        requests = np.arange(part.begin, part.end)
        missed = requests[~outcome.good[requests] & ~failed[requests]]
        _alone(problem, part.placement, workload, outcome.group, missed, reason)
    reason[failed] = MissReason.FAILED
    num_groups = max(len(static.groups) for static in statics(placement))
    counts = np.zeros((len(problem.models) + 1, num_groups + 1, len(MissReason)), np.int64)
    missed = np.zeros(len(workload), np.bool_)
    missed[slice(*outcome.counted)] = ~outcome.good[slice(*outcome.counted)]
    np.add.at(counts, (workload.model[missed], outcome.group[missed], reason[missed]), 1)
    return Misses(reason, counts)


def _parts(placement: Placement | Schedule, outcome: Outcome) -> Sequence[Part]:
    """What the groups in force hosted for each of the requests."""
    if outcome.changes is not None:
        return outcome.changes.parts
    return [Part(lo, hi, static) for static, lo, hi in segments(placement, outcome.workload)]


def _lives(
    placement: Placement | Schedule, outcome: Outcome
) -> tuple[NDArray[np.int32], Sequence[ParallelConfig]]:
    """See `Changes`; where nothing carries over, a group lives as long as its placement."""
    if outcome.changes is not None:
        return outcome.changes.life, outcome.changes.configs
    life: NDArray[np.int32] = outcome.group.copy()
    configs: list[ParallelConfig] = []
    for static, lo, hi in segments(placement, outcome.workload):
        own = life[lo:hi]
        own[own >= 0] += len(configs)
        configs += [group.config for group in static.groups]
    return life, configs


def _alone_ticks(
    problem: Problem,
    workload: Workload,
    requests: NDArray[np.int64],
    model: int,
    config: ParallelConfig,
) -> NDArray[np.int64]:
    """Stage latencies of requests of a model, one by one, int64 ticks [request, stage]."""
    ticks = batch_ticks(problem, model, config)[0]
    work = None if workload.work is None else workload.work[requests, None]
    return np.broadcast_to(worked_ticks(ticks, work), (len(requests), len(ticks)))


def _alone(
    problem: Problem,
    placement: Placement,
    workload: Workload,
    group: NDArray[np.int32],
    missed: NDArray[np.int64],
    reason: NDArray[np.int8],
) -> None:
    """Write the reasons of missed requests that not even idle groups would have served in time."""
    deadline, overhead = slo_ticks(problem), request_overhead_ticks(problem.rules)
    reason[missed[group[missed] < 0]] = MissReason.NO_REPLICA
    for hosted in np.unique(workload.model[missed[group[missed] >= 0]]).tolist():
        own = missed[(workload.model[missed] == hosted) & (group[missed] >= 0)]
        fits = np.zeros((len(placement.groups), len(own)), np.bool_)
        for index, hosting in enumerate(placement.groups):
            if hosted in hosting.models:
                ticks = _alone_ticks(problem, workload, own, hosted, hosting.config)
                fits[index] = ticks.sum(1) + overhead <= deadline[hosted]
        reason[own[~fits[group[own], np.arange(len(own))]]] = MissReason.UNFIT_GROUP
        reason[own[~fits.any(0)]] = MissReason.SLO_TOO_SHORT


def _behind(
    problem: Problem,
    outcome: Outcome,
    life: NDArray[np.int32],
    configs: Sequence[ParallelConfig],
    accepted: NDArray[np.bool_],
) -> NDArray[np.int8]:
    """Whether missed requests would have been late without those of other models."""
    deadline, overhead = slo_ticks(problem), request_overhead_ticks(problem.rules)
    overhead_before = overhead if problem.rules.batching == "published" else 0
    workload, finish = outcome.workload, outcome.finish
    arrival = workload.arrival
    reason = np.full(len(arrival), IN_TIME, np.int8)
    sent = np.flatnonzero(life >= 0)
    place = life[sent].astype(np.int64) * len(problem.models) + workload.model[sent]
    order = np.argsort(place, kind="stable")
    sent = sent[order]
    for which, first, count in zip(
        *np.unique(place[order], return_index=True, return_counts=True), strict=True
    ):
        which_life, hosted = divmod(int(which), len(problem.models))
        config = configs[which_life]
        here = sent[first : first + count]
        before, missed = here[accepted[here]], here[~accepted[here]]
        if not len(missed):
            continue
        batches = find_batches(finish[before], problem.rules)
        last = before[batches.last]
        ticks = batch_ticks(problem, hosted, config)[batches.doublings]
        own = batches.worked(ticks, before, workload)
        _, end = run_stages(arrival[last] + overhead_before, own)
        costs = _alone_ticks(problem, workload, missed, hosted, config)
        time = _finish_behind(end, np.searchsorted(last, missed), arrival[missed], costs)
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
    on it could be served. cost: [request, stage].
    """
    clock = np.concatenate([np.full((1, end.shape[1]), np.iinfo(np.int64).min), end])[earlier]
    for free, latency in zip(clock.T, cost.T, strict=True):
        time = np.maximum(time, free) + latency
    return time
