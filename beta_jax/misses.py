"""Why requests missed their SLO.

Every miss is a rejection, at arrival, and has exactly one reason, the first of these that holds:

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
"""

from __future__ import annotations

import enum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from beta_jax.placement import Placement, Schedule
from beta_jax.problem import Problem
from beta_jax.simulator.lanes import segments
from beta_jax.simulator.results import Outcome
from beta_jax.stages import model_ticks, overhead_ticks, run_stages
from beta_jax.types import durations_to_ticks

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
    not valid for the problem.
    """
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
) -> NDArray[np.int8]:
    """The reasons of the requests that one placement serves; all arrays are [request]."""
    deadline = durations_to_ticks([served.slo_s for served in problem.models])
    fits = np.zeros((len(problem.models), len(placement.groups)), np.bool_)
    for index, hosting in enumerate(placement.groups):
        for hosted in hosting.models:
            alone = model_ticks(problem, hosted, hosting).sum() + overhead_ticks(problem)
            fits[hosted, index] = alone <= deadline[hosted]

    reason = np.full(len(arrival), IN_TIME, np.int8)
    missed = np.flatnonzero(~good)
    sent = group[missed] >= 0
    reason[missed[~sent]] = MissReason.NO_REPLICA
    missed = missed[sent]
    to_model, to_group = model[missed], group[missed]
    fit = fits[to_model, to_group]
    reason[missed] = np.where(
        fit,
        MissReason.BEHIND_OTHER,
        np.where(fits[to_model].any(1), MissReason.UNFIT_GROUP, MissReason.SLO_TOO_SHORT),
    )
    queued = missed[fit]
    for hosted, index in np.unique(np.stack([model[queued], group[queued]]), axis=1).T:
        here = (model == hosted) & (group == index)
        late = _behind_own(
            arrival[here & good],
            arrival[queued][here[queued]],
            np.searchsorted(np.flatnonzero(here & good), queued[here[queued]]),
            model_ticks(problem, int(hosted), placement.groups[index]),
            deadline[hosted] - overhead_ticks(problem),
        )
        reason[queued[here[queued]][late]] = MissReason.BEHIND_OWN
    return reason


def _behind_own(
    accepted: NDArray[np.int64],
    arrival: NDArray[np.int64],
    earlier: NDArray[np.int64],
    cost: NDArray[np.int64],
    longest: np.int64,
) -> NDArray[np.bool_]:
    """Which requests of a model are late after those of its own alone, bool [request].

    accepted: arrivals of the requests that the group served, [accepted]. earlier: how many of them
    came before each of the requests. cost: [stage]; longest: the longest time the stages may take.
    """
    _, end = run_stages(accepted, np.tile(cost, (len(accepted), 1)))
    clock = np.concatenate([np.full((1, len(cost)), np.iinfo(np.int64).min), end])[earlier]
    time = arrival
    for free, latency in zip(clock.T, cost, strict=True):
        time = np.maximum(time, free) + latency
    return time - arrival > longest
