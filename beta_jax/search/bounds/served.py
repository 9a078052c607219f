"""How much attainment is there to gain: a bound that no placement of the cluster can exceed."""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from beta_jax.placement.placement import weight_on_device
from beta_jax.placement.problem import Problem
from beta_jax.search.bounds.linear import Classes, served_by_hosts, serving_configs
from beta_jax.search.instances import NEVER_FITS, devices_table, weight_table
from beta_jax.simulator.engine import idle_ticks, request_overhead_ticks, slo_ticks
from beta_jax.traits import Trait
from beta_jax.types import NO_DEADLINE, Workload

RELIES_ON = Trait.ONE_BY_ONE | Trait.WORK_BY_MODEL
"""Under other rules a request may take less work than alone: then nothing is known but 100 %."""


LONG = 2**18
"""With more requests than this, what can be worked off in time takes too long to find out."""


def attainment_bound(problem: Problem, workload: Workload) -> float:
    """An upper bound on the SLO attainment of any static placement, under any dispatch rule.

    Only the configurations count at which a model fits the memory and an idle group serves it
    within its SLO: requests of models without any are lost. Besides, the devices hold the weights
    of only so many models, a group serves only so many of one model's requests, and all devices
    together do only so much work between a request's arrival and its deadline (the latter two are
    left out with more than `LONG` requests). 1 under rules that it does not hold for. NaN for an
    empty workload.
    """
    if not len(workload):
        return float("nan")
    return _whole(training_bound(problem, [workload]) * len(workload)) / len(workload)


def training_bound(
    problem: Problem, workloads: Sequence[Workload], attained: float = -math.inf
) -> float:
    """An upper bound on the mean SLO attainment over the workloads; empty ones count as 0.

    attained: by some placement; where a simple bound shows that nothing attains more, the others
    are not asked.
    """
    asking = [workload for workload in workloads if len(workload)]
    share = len(asking) / len(workloads)
    if not asking or any(RELIES_ON not in problem.rules.traits(workload) for workload in asking):
        return share
    requests = np.array([len(workload) for workload in asking])
    most = np.array([most_served(problem, workload) for workload in asking])
    found = share * float((most / requests).mean())
    if found <= attained or requests.max() > LONG:
        return found
    work, _ = _cheapest(problem)
    worked = [_worked(problem, workload, work) for workload in asking]
    most = np.minimum(most, [_whole(_by_class(classes)) for classes in worked])
    found = share * float((most / requests).mean())
    if found <= attained:
        return found
    return min(found, share * served_by_hosts(problem, asking, work, worked))


def most_served(problem: Problem, workload: Workload) -> int:
    """At most how many requests any placement serves, by memory and total work: soon found."""
    everything = range(len(problem.models))
    bound = ServedBound(problem, workload)
    return min(_whole(bound(everything, devices_table(problem).tolist())), len(workload))


def _whole(served: float) -> int:
    """Whole requests, if rounding took no more than a millionth."""
    return math.floor(served + 1e-6)


class ServedBound:
    """At most how many requests any placement serves, of some of the models, on some devices.

    Which pool a device is of decides its memory; work counts as in the pool where it is least.
    """

    def __init__(self, problem: Problem, workload: Workload) -> None:
        self._holds = RELIES_ON in problem.rules.traits(workload)
        self._memory = [int(pool.memory_bytes) for pool in problem.cluster.pools]
        self._work, self._weight = _cheapest(problem)
        self._lightest = _lightest(problem)
        self._slo = slo_ticks(problem)
        served = workload.model[workload.model >= 0]
        self._requests = np.bincount(served, minlength=len(problem.models))
        self._span = float(np.ptp(workload.arrival)) if len(workload) else 0.0

    def __call__(self, models: Sequence[int], num_devices: Sequence[int]) -> float:
        """By memory and by total work: how many of the models' requests there is room for.

        num_devices: of each pool.
        """
        if not self._holds:
            return float(self._requests[list(models)].sum())
        some = np.array([m for m in models if self._work[m] < NO_DEADLINE], np.int64)
        requests, work = self._requests[some], self._work[some].astype(np.float64)
        time = self._span + float(self._slo[some].max(initial=0))
        return min(
            _most_value(requests, self._weight[some], float(self._room(num_devices))),
            _most_value(requests, work * requests, time * sum(num_devices)),
        )

    def replicas(self, models: Sequence[int], num_devices: Sequence[int]) -> int:
        """At most how many replicas of the models the devices hold, whatever the configuration."""
        lightest = self._lightest[list(models)].min(initial=NEVER_FITS)
        room = int(self._room(num_devices) / max(lightest, 1))
        return min(room, len(models) * sum(num_devices))

    def _room(self, num_devices: Sequence[int]) -> int:
        """Bytes of all devices together."""
        return sum(memory * n for memory, n in zip(self._memory, num_devices, strict=True))


def _worked(problem: Problem, workload: Workload, work: NDArray[np.int64]) -> Classes:
    """How much of the requests' work can be done in time by devices that all work on one at a time.

    work: device-ticks of a request, [model]. In device-ticks, of the requests that take no more
    than an amount of work, in ascending order.
    """
    known = np.flatnonzero((workload.model >= 0) & (work[workload.model] < NO_DEADLINE))
    model, release = workload.model[known], workload.arrival[known] - workload.arrival[0]
    overhead = request_overhead_ticks(problem.rules)
    deadline = np.minimum(slo_ticks(problem)[model] - overhead, NO_DEADLINE // 2) + release
    classes = []
    for amount in np.unique(work[model]):
        chosen = work[model] <= amount
        jobs = zip(*(a[chosen].tolist() for a in (release, deadline, work[model])), strict=True)
        classes.append((int(amount), _most_work(list(jobs), problem.cluster.num_devices)))
    return classes


def _by_class(classes: Classes) -> float:
    """The most requests that can be worked on in time; those that are in part, count in part.

    The amounts of work that can be done in time on sets of requests are a polymatroid, so it is
    best to go by ascending work: each class adds what can be done with it beyond what could be
    done without.
    """
    done = [0, *(done for _, done in classes)]
    return sum((b - a) / amount for a, b, (amount, _) in zip(done, done[1:], classes, strict=False))


def _cheapest(problem: Problem) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Device-ticks per request and bytes per replica, int64 [model], each at its best config.

    `NO_DEADLINE` for a model that no configuration can serve.
    """
    configs, able = serving_configs(problem)
    busy = idle_ticks(problem, configs) - request_overhead_ticks(problem.rules)
    op = np.array([config.op for config in configs], np.int64)
    size = np.array([config.num_devices for config in configs], np.int64)
    work, weight = (
        np.where(able, table, NO_DEADLINE).min(1, initial=NO_DEADLINE)
        for table in (busy * op, weight_table(problem, configs) * size)
    )
    return work, weight


def _lightest(problem: Problem) -> NDArray[np.int64]:
    """Bytes of a replica, int64 [model], at the configuration where they are fewest."""
    return np.array(
        [
            min(
                weight_on_device(problem, model, config) * config.num_devices
                for config in problem.profile.configs(model.type)
            )
            for model in problem.models
        ],
        np.int64,
    )


def _most_value(value: NDArray, weight: NDArray, room: float) -> float:
    """The fractional knapsack: the most value of items, whole or in part, that weigh `room`."""
    per_value = np.divide(weight, value, out=np.full(len(value), np.inf), where=value > 0)
    order = np.argsort(per_value, kind="stable")
    taken = np.clip(room - (np.cumsum(weight[order]) - weight[order]), 0, weight[order])
    share = np.divide(taken, weight[order], out=np.ones(len(order)), where=weight[order] > 0)
    return float((share * value[order]).sum())


def _most_work(jobs: list[tuple[int, int, int]], num_devices: int) -> int:
    """The most work done in time on (release, deadline, work) jobs, sorted by release.

    Earliest deadline first, with preemption: what is late is dropped, what was done of it counts.
    Work is in device-ticks, of which `num_devices` are done per tick.
    """
    waiting: list[list[int]] = []  # [deadline, work left], a heap
    done = 0
    now = 0  # in device-ticks
    for (release, deadline, work), (until, *_) in zip(
        jobs, [*jobs[1:], (2 * int(NO_DEADLINE), 0, 0)], strict=True
    ):
        now = max(now, release * num_devices)
        heapq.heappush(waiting, [deadline * num_devices, work])
        while waiting and now < until * num_devices:
            due, left = waiting[0]
            span = max(min(left, due - now, until * num_devices - now), 0)
            now += span
            done += span
            if span == left or now >= due:
                heapq.heappop(waiting)
            else:
                waiting[0][1] = left - span
    return done
