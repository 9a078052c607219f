"""What a simulation returns: counts per lane, or what happened to every request."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from beta_jax.simulator.lanes import Case
from beta_jax.types import TICKS_PER_SECOND, UNREGISTERED, Workload


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


@dataclasses.dataclass(frozen=True, eq=False)
class Outcome:
    """What happened to each request of one lane.

    finish: int64 ticks [request], on the workload's clock; the arrival where rejected. (Only by the
        published rules of batching can a request finish before it arrives: late events serve it.)
    good: bool [request], served within the SLO.
    group: int32 [request], the group it was sent to; -1 if no group hosts its model.
    counted: half-open range of requests left by the warm-up cut.
    """

    workload: Workload
    finish: NDArray[np.int64]
    good: NDArray[np.bool_]
    group: NDArray[np.int32]
    counted: tuple[int, int]

    @property
    def latency_s(self) -> NDArray[np.float64]:
        """Finish minus arrival in seconds, float64 [request]; 0 where rejected."""
        return (self.finish - self.workload.arrival) / TICKS_PER_SECOND


def join_counts(cases: Sequence[Case], per_case: Sequence[Sequence[list[np.ndarray]]]) -> Tally:
    """Sum the counts of each case's lanes (its segments) into a row of a `Tally`."""
    num_models = max((len(case.problem.models) for case in cases), default=0)
    num_groups = max(
        (len(lane.placement.groups) for case in cases for lane in case.lanes), default=0
    )
    width = (num_models, num_models, num_groups, num_groups)
    totals = [np.zeros((len(cases), n), np.int64) for n in width]
    num_requests = np.zeros((len(cases), num_models), np.int64)
    for row, (case, lanes) in enumerate(zip(cases, per_case, strict=True)):
        models = case.workload.model[slice(*case.counted)]
        counts = np.bincount(models[models != UNREGISTERED], minlength=num_models)
        num_requests[row, : len(counts)] = counts
        for arrays in lanes:
            for total, array in zip(totals, arrays, strict=True):
                kept = min(
                    total.shape[1], len(array)
                )  # drops the row of unserved models, padded groups
                total[row, :kept] += array[:kept]
    num_counted = np.array([hi - lo for lo, hi in (case.counted for case in cases)], np.int64)
    return Tally(num_counted, num_requests, *totals)


def join_requests(
    cases: Sequence[Case], per_case: Sequence[Sequence[list[np.ndarray]]]
) -> list[Outcome]:
    """Concatenate the requests of each case's lanes and put them back on the workload's clock."""
    outcomes = []
    for case, lanes in zip(cases, per_case, strict=True):
        arrival = case.workload.arrival
        finish = arrival.copy()
        good = np.zeros(len(arrival), np.bool_)
        group = np.full(len(arrival), -1, np.int32)
        lo = 0
        for lane, (lane_finish, lane_group) in zip(case.lanes, lanes, strict=True):
            n = len(lane.workload)
            part, origin = slice(lo, lo + n), arrival[lo : lo + 1]
            lane_finish = lane_finish[:n]
            good[part] = lane_finish > 0
            finish[part] = np.where(good[part], lane_finish + origin, arrival[part])
            group[part] = lane_group[:n]
            lo += n
        outcomes.append(Outcome(case.workload, finish, good, group, case.counted))
    return outcomes
