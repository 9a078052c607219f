"""What a simulation returns: counts per lane, or what happened to every request."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from beta_jax.placement.placement import Placement
from beta_jax.simulator.lanes import Simulation
from beta_jax.types import TICKS_PER_SECOND, UNREGISTERED, ParallelConfig, Workload


@dataclasses.dataclass(frozen=True, eq=False)
class Tally:
    """Exact counts, one row per lane; int64. Groups beyond a lane's own are 0.

    num_counted: [lane] requests, those of models that are not served included.
    num_requests, good: [lane, model] requests and those served within their SLO.
    latency_ticks: [lane, model] summed latency of the good requests, in ticks.
    dispatched, group_good: [lane, group] requests sent to a group, and the good ones of them.
    """

    num_counted: NDArray[np.int64]
    num_requests: NDArray[np.int64]
    good: NDArray[np.int64]
    latency_ticks: NDArray[np.int64]
    dispatched: NDArray[np.int64]
    group_good: NDArray[np.int64]

    @property
    def attainment(self) -> NDArray[np.float64]:
        """SLO attainment ("goodput" in the paper): good share of all requests, float64 [lane]."""
        return _ratio(self.good.sum(1), self.num_counted)

    @property
    def model_attainment(self) -> NDArray[np.float64]:
        """SLO attainment per model, float64 [lane, model]; NaN where a model has no requests."""
        return _ratio(self.good, self.num_requests)

    @property
    def latency_mean_s(self) -> NDArray[np.float64]:
        """Mean latency of the good requests in seconds, float64 [lane]; NaN where there is none."""
        return _ratio(self.latency_ticks.sum(1), self.good.sum(1)) / TICKS_PER_SECOND

    @property
    def latency_mean_all_s(self) -> NDArray[np.float64]:
        """Mean latency in seconds, a rejected request counting as 0, float64 [lane]."""
        return _ratio(self.latency_ticks.sum(1), self.num_counted) / TICKS_PER_SECOND


def _ratio(numerator: NDArray[np.int64], denominator: NDArray[np.int64]) -> NDArray[np.float64]:
    empty = np.full(np.shape(numerator), np.nan)
    return np.divide(numerator, denominator, out=empty, where=denominator > 0)


class Part(NamedTuple):
    """Requests [begin, end), and what each group in force hosted and could serve then."""

    begin: int
    end: int
    placement: Placement


class Changes(NamedTuple):
    """What changed on the way: switches that load weights, and failures.

    failed: bool [request], accepted and lost. life: int32 [request], of the group that each was
        sent to, an index of `configs`; a group lives from its start to a failure, or to a switch
        that does not keep it. -1: no group hosted its model. parts: in order.
    """

    failed: NDArray[np.bool_]
    life: NDArray[np.int32]
    configs: tuple[ParallelConfig, ...]
    parts: tuple[Part, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Outcome:
    """What happened to each request of one lane.

    finish: int64 ticks [request], on the workload's clock; the arrival where rejected, the failure
        where lost by one. (Only by the published rules of batching can a request finish before it
        arrives: late events serve it.)
    good: bool [request], served within the SLO.
    group: int32 [request], the group it was sent to; -1 if no group hosts its model.
    counted: half-open range of requests left by the warm-up cut.
    changes: where weights were loaded or groups failed.
    """

    workload: Workload
    finish: NDArray[np.int64]
    good: NDArray[np.bool_]
    group: NDArray[np.int32]
    counted: tuple[int, int]
    changes: Changes | None = None

    @property
    def latency_s(self) -> NDArray[np.float64]:
        """Finish minus arrival in seconds, float64 [request]; 0 where rejected."""
        return (self.finish - self.workload.arrival) / TICKS_PER_SECOND


def part_outcome(workload: Workload, finish: NDArray, group: NDArray) -> Outcome:
    """From `Requests` of a lane with a state: its block has the workload's own clock."""
    good = finish > 0
    finish = np.where(good, finish, workload.arrival)
    return Outcome(workload, finish, good, group.astype(np.int32), (0, len(workload)))


def count_outcome(simulation: Simulation, outcome: Outcome) -> list[np.ndarray]:
    """The arrays of `Counts` of a whole simulation, without the axis of lanes."""
    num_models = len(simulation.problem.models)
    num_groups = max(len(placement.groups) for placement in simulation.placements)
    counted = slice(*outcome.counted)
    good, model, group = outcome.good[counted], outcome.workload.model[counted], outcome.group
    latency = (outcome.finish - outcome.workload.arrival)[counted]
    summed = np.zeros(num_models, np.int64)
    np.add.at(summed, model[good], latency[good])
    sent, group = group[counted] >= 0, group[counted]
    return [
        np.bincount(model[good], minlength=num_models),
        summed,
        np.bincount(group[sent], minlength=num_groups),
        np.bincount(group[good], minlength=num_groups),
    ]


def join_counts(
    simulations: Sequence[Simulation], counts: Iterable[Iterable[list[np.ndarray]]]
) -> Tally:
    """Sum the counts of each simulation's lanes (its segments) into a row of a `Tally`.

    counts: the arrays of `Counts`, without the lane axis, of each simulation's lanes.
    """
    num_models = max((len(one.problem.models) for one in simulations), default=0)
    num_groups = max((len(p.groups) for one in simulations for p in one.placements), default=0)
    width = (num_models, num_models, num_groups, num_groups)
    totals = [np.zeros((len(simulations), n), np.int64) for n in width]
    num_requests = np.zeros((len(simulations), num_models), np.int64)
    asked: dict[tuple[int, tuple[int, int]], NDArray[np.int64]] = {}  # of each workload, once
    for row, (one, of_lanes) in enumerate(zip(simulations, counts, strict=True)):
        traffic = id(one.workload), one.counted
        if traffic not in asked:
            models = one.workload.model[slice(*one.counted)]
            asked[traffic] = np.bincount(models[models != UNREGISTERED], minlength=num_models)
        num_requests[row, : len(asked[traffic])] = asked[traffic]
        for arrays in of_lanes:
            for total, array in zip(totals, arrays, strict=True):
                # Without the row of unserved models, and without padded groups.
                kept = min(total.shape[1], len(array))
                total[row, :kept] += array[:kept]
    num_counted = np.array([hi - lo for lo, hi in (one.counted for one in simulations)], np.int64)
    return Tally(num_counted, num_requests, *totals)


def join_requests(
    simulations: Sequence[Simulation], lanes: Iterable[list[np.ndarray]]
) -> list[Outcome]:
    """Join the requests of each simulation's lanes, on the workload's clock.

    lanes: the arrays of `Requests`, without the lane axis, of all lanes in order.
    """
    outcomes = []
    results = iter(lanes)
    for one in simulations:
        arrival = one.workload.arrival
        finish, good = arrival.copy(), np.zeros(len(arrival), np.bool_)
        group = np.full(len(arrival), -1, np.int32)
        lo = 0
        for lane in one.lanes:
            n = len(lane.workload)
            lane_finish, lane_group = (array[:n] for array in next(results))
            part, origin = slice(lo, lo + n), arrival[lo : lo + 1]
            good[part] = lane_finish > 0
            finish[part] = np.where(good[part], lane_finish + origin, arrival[part])
            group[part] = lane_group
            lo += n
        outcomes.append(Outcome(one.workload, finish, good, group, one.counted))
    return outcomes
