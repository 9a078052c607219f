"""How much a group partition can score, before it is filled: a bound that no placement exceeds.

It is the lower one of two: by work, see `work_bound`, and by memory. On its groups a model's
requests fare no better than if they had these groups to themselves. How many are served then the
simulator tells: for requests of one model, which all take and may take the same time, first come,
first served on the earliest free of equal groups is best. What remains is a knapsack, of replicas
in the memories of the groups of each configuration. With prices for memory instead of limits every
model chooses for itself, which bounds the knapsack at any prices (Lagrangian relaxation; Fisher,
"The Lagrangian relaxation method for solving integer programming problems", Management Science,
1981); the lowest of these bounds is taken, of equal prices and of some that differ.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections import Counter
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from beta_jax.placement.partition import Partition
from beta_jax.placement.placement import Group, Placement
from beta_jax.placement.problem import Problem
from beta_jax.search.bounds.work import Wanted, served_together
from beta_jax.search.instances import NEVER_FITS, memory_table, weight_table
from beta_jax.search.result import score_counts
from beta_jax.simulator import Dispatch, simulate
from beta_jax.simulator.engine import MAX_GROUPS, idle_ticks
from beta_jax.traits import Trait
from beta_jax.types import Workload

RELIES_ON = Trait.AT_ARRIVAL | Trait.ONE_BY_ONE | Trait.WORK_BY_MODEL
REPLICAS = 4
"""On more groups of one configuration than this a model is taken to be served completely."""
PRICES = np.append(0.0, np.geomspace(1e-6, 1e3, 37))
"""Of the whole memory, in units of the score."""
STEPS = np.linspace(0.0, 1.0, 17)
"""Between the prices beside the best one, finer."""
FACTORS = np.array([0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 4.0, 8.0, 16.0, 64.0])
ROUNDS = 2
"""By which the price of the memory of one configuration's groups is changed, and how often."""

Array = NDArray[np.float64]


class PartitionBound:
    """Bounds on `published_score`, for the wanted partitions, each with the models to place.

    The problem's number of devices does not matter: a partition says what it consists of. Raises
    ValueError for rules that it does not hold for.
    """

    def __init__(self, problem: Problem, workload: Workload, wanted: Wanted) -> None:
        if RELIES_ON not in problem.rules.traits(workload):
            raise ValueError(f"no bound is known under {problem.rules}")
        self._configs = sorted({config for partition, _ in wanted for config in partition})
        self._memory, self._num_requests = memory_table(problem, self._configs), len(workload)
        self._weight = weight_table(problem, self._configs)
        self._weight[self._weight > self._memory] = NEVER_FITS
        self._idle = idle_ticks(problem, self._configs).astype(np.float64)
        asked = workload.model[workload.model >= 0]
        self._requests = np.bincount(asked, minlength=len(problem.models))
        self._served = self._served_alone(problem, workload)
        together = served_together(problem, workload, wanted)
        self._together = dict(zip(wanted, together, strict=True))

    def __call__(
        self, partition: Partition, models: tuple[int, ...], *, attainment: bool = False
    ) -> float:
        """At most what a placement of these models on the partition's groups scores, or attains.

        Raises KeyError for what was not wanted.
        """
        groups = Counter(partition)
        number = np.array(list(groups.values()))
        column = np.array([self._configs.index(config) for config in groups], np.int64)
        of_groups = np.ix_(np.array(models, np.int64), column)  # [model, config]
        weight = self._weight[of_groups]
        together = self._together[partition, models]
        lightest = np.maximum(weight.min(0, initial=NEVER_FITS), 1)
        replicas = number @ np.minimum(self._memory[column] // lightest, len(models))
        by_work = score_counts(together, 0, self._num_requests, 0 if attainment else replicas)

        # How many groups of each configuration host a model, [option, config]. Beyond those that
        # are simulated, value and price are linear, so that none or all of the rest is best.
        counts = (sorted({*range(min(n, REPLICAS + 1) + 1), n}) for n in groups.values())
        hosts = np.array(list(itertools.product(*counts)))
        alone = self._served[of_groups][:, np.arange(len(column)), np.minimum(hosts, REPLICAS + 1)]
        served = np.minimum(alone.sum(2), self._requests[of_groups[0]])  # [model, option]
        latency = served * self._idle[of_groups].min(1, keepdims=True)
        value = score_counts(served, latency, self._num_requests, hosts.sum(1))
        if attainment:
            value = score_counts(served, 0, self._num_requests, 0)
        devices = np.array([config.num_devices for config in groups])
        room = self._memory[column] * (number * devices)
        memory = max(float(room.sum()), 1.0)
        room = room / memory
        share = weight * (devices / memory)  # of the whole memory, [model, config]

        def by_memory(price: Array) -> Array:
            """At prices [option, config], a bound for each."""
            cost = np.einsum("pc,mc,oc->pmo", price, share, hosts, optimize=True)
            return (value - cost).max(2).sum(1) + price @ room

        def lower(found: float, price: Array, tried: Array) -> tuple[float, Array]:
            bounds = by_memory(tried)
            best = int(bounds.argmin())
            return (float(bounds[best]), tried[best]) if bounds[best] < found else (found, price)

        alike = np.ones(len(column))
        found, price = lower(math.inf, alike, PRICES[:, None] * alike)
        place = int(np.searchsorted(PRICES, price[0]))
        low, high = PRICES[max(place - 1, 0)], PRICES[min(place + 1, len(PRICES) - 1)]
        found, price = lower(found, price, (low + (high - low) * STEPS)[:, None] * alike)
        for c in list(range(len(column))) * (ROUNDS if len(column) > 1 else 0):
            tried = np.repeat(price[None], len(FACTORS), axis=0)
            tried[:, c] *= FACTORS
            found, price = lower(found, price, tried)
        most = min(by_work, found)
        if not attainment:
            return most
        requests = max(self._num_requests, 1)  # of which whole ones are served
        return math.floor(most * requests + 1e-6) / requests

    def _served_alone(self, problem: Problem, workload: Workload) -> NDArray[np.int64]:
        """Requests served on groups that host nothing else, int64 [model, config, group].

        On 0 to REPLICAS groups, and at last on any number of them.
        """
        served = np.zeros((*self._weight.shape, REPLICAS + 2), np.int64)
        lanes = list(self._lanes(problem, workload))
        rules = dataclasses.replace(problem.rules, dispatch=Dispatch.EARLIEST_FREE)
        most = max(placement.num_devices for *_, placement, _ in lanes)
        cluster = problem.cluster.with_devices([most] * len(problem.cluster.pools))
        problem = dataclasses.replace(problem, cluster=cluster, rules=rules)
        tally = simulate(problem, [lane[2] for lane in lanes], [lane[3] for lane in lanes])
        for (c, count, _, _), good in zip(lanes, tally.good, strict=True):
            served[:, c, count] += good
        served[..., -1] = np.where(served[..., 1] > 0, self._requests[:, None], 0)
        return served

    def _lanes(
        self, problem: Problem, workload: Workload
    ) -> Iterator[tuple[int, int, Placement, Workload]]:
        """Index of a configuration, number of groups for each model, a placement, its requests."""
        num_models = len(problem.models)
        at_once = math.ceil(num_models / math.ceil(num_models * REPLICAS / MAX_GROUPS))
        for start in range(0, num_models, at_once):
            models = range(start, min(start + at_once, num_models))
            own = workload.of_models(models)
            for c, config in enumerate(self._configs):
                for count in range(1, REPLICAS + 1):
                    groups = []  # equally many for any count, so that all have the same shape
                    for m in models:
                        hosted = (m,) if self._weight[m, c] < NEVER_FITS else ()
                        groups += [Group(config, hosted)] * count
                        groups += [Group(config, ())] * (REPLICAS - count)
                    yield c, count, Placement(tuple(groups)), own
