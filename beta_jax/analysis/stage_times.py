"""What every pipeline stage did: when it began and ended with each request, from the finishes.

The simulator returns when requests finish. Which of them a group served, in which order, determines
the times of all its stages (Beta, OSDI 2023, section 5: first come, first served in each stage):

    begin[i, k] = max(end[i, k - 1], end[i - 1, k]),    end[i, k] = begin[i, k] + stage latency

A stage's recurrence is a running maximum, `end[i] = S[i] + max over j <= i of (ready[j] - S[j-1])`
with S the summed latencies (Lindley 1952), so that it needs no loop over requests, and in integers
nothing is rounded.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from beta_jax.placement.placement import Group, Placement, Schedule
from beta_jax.placement.problem import Problem
from beta_jax.simulator.engine import Outcome, request_overhead_ticks, segments, stage_ticks
from beta_jax.traits import Trait

RELIES_ON = Trait.AT_ARRIVAL | Trait.ONE_BY_ONE | Trait.WORK_BY_MODEL
Ticks = NDArray[np.int64]


class Service(NamedTuple):
    """What a group did while its placement was in force.

    segment, position: of the placement in a schedule (else 0), and of the group in the placement.
    requests: int64 [served], the requests that it accepted, in order, as indices of the workload.
    begin, end: int64 ticks [served, stage], on the workload's clock.
    """

    segment: int
    position: int
    group: Group
    requests: NDArray[np.int64]
    begin: Ticks
    end: Ticks


def services(
    problem: Problem, placement: Placement | Schedule, outcome: Outcome
) -> Iterator[Service]:
    """What each group of each placement did; see `Service`.

    Raises PlacementError for a placement that is not valid for the problem, and ValueError for an
    outcome that does not come from simulating this problem and placement.
    """
    require_retraceable(problem)
    placement.check(problem)
    arrival, model = outcome.workload.arrival, outcome.workload.model
    for segment, (static, lo, hi) in enumerate(segments(placement, outcome.workload)):
        served = lo + np.flatnonzero(outcome.good[lo:hi])
        for position, group in enumerate(static.groups):
            requests = served[outcome.group[served] == position]
            if not np.isin(model[requests], group.models).all():
                raise ValueError(f"group {position} served models that it does not host")
            cost = np.zeros((len(problem.models), group.config.pp), np.int64)
            for hosted in group.models:
                cost[hosted] = stage_ticks(problem, problem.models[hosted].type, group.config)
            begin, end = run_stages(arrival[requests], cost[model[requests]])
            finish = end[:, -1] + request_overhead_ticks(problem.rules)
            if not np.array_equal(finish, outcome.finish[requests]):
                raise ValueError("the outcome is not of this problem and placement")
            yield Service(segment, position, group, requests, begin, end)


def run_stages(arrival: Ticks, cost: Ticks) -> tuple[Ticks, Ticks]:
    """Begin and end of every stage of a group, int64 ticks [request, stage].

    arrival: [request], in order. cost: [request, stage] effective stage latencies.
    """
    end = np.empty(cost.shape, np.int64)
    ready = arrival
    for stage, own in enumerate(cost.T):
        total = np.cumsum(own)
        end[:, stage] = ready = total + np.maximum.accumulate(ready - (total - own))
    return end - cost, end


def require_retraceable(problem: Problem) -> None:
    """Raise ValueError unless stages serve one request after the other, in order of arrival."""
    if RELIES_ON not in problem.rules.traits:
        raise ValueError(f"what stages did cannot be retraced under {problem.rules}")
