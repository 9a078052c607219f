"""`local-search`: local search over whole placements, thousands of them simulated per second.

It starts from what the published search finds on every partition into equal groups, from placements
that keep model types apart, and from one of the user's own; then groups may become unequal. The
best starts climb side by side: each round every climb has children (see `moves`), all of them are
simulated on all training workloads, and the best child takes its parent's place unless it is worse.
As the budget is used up, climbs that lag behind are given up, until one is left (successive
halving; Karnin et al., "Almost optimal exploration in multi-armed bandits", ICML 2013).

What was tried and what it brought is in docs/search.md.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from beta_jax.backend import on_cpu
from beta_jax.placement.codec import Codec
from beta_jax.placement.partition import MAX_PIPELINE_STAGES
from beta_jax.placement.placement import Placement
from beta_jax.placement.problem import Problem
from beta_jax.profiles.profile import ProfileError
from beta_jax.search.instances import Training, as_list, as_one, fitting_configs
from beta_jax.search.local.moves import Placements, bytes_loaded, children, make_space
from beta_jax.search.objective import Objective
from beta_jax.search.published.branch import Share
from beta_jax.search.published.pipelines import fill_partitions
from beta_jax.search.published.separation import divisions_of, make_buckets, separate
from beta_jax.search.result import Result
from beta_jax.search.scoring import Scorer
from beta_jax.simulator.engine import padded_size
from beta_jax.types import ParallelConfig, Workload

CLIMBS = 4
"""Starts that are climbed from; halved after each quarter of the budget."""
DIVISIONS = 4
"""Divisions of the devices among model types that are tried as starts, the most balanced ones."""
CHILDREN = 128
"""Placements per round, all climbs together: two full blocks of the simulator."""
LEAN = 0.5
"""See `Space.lean`, where the bytes moved are bounded."""
MORE_GROUPS = 2
"""Room for at least so many groups more than the starts have."""


@on_cpu()
def local_search(
    instances: Sequence[tuple[Problem, Training]],
    *,
    budget_simulations: int = 20_000,
    budget_s: float | None = None,
    worst_share: float = 1.0,
    fairness: float = 0.0,
    start_from: Placement | None = None,
    max_bytes_moved: float | None = None,
    seed: int = 0,
) -> list[Result]:
    """Unequal groups, found on one training workload or on several; never below `mp-search` there.

    budget_simulations: how many simulations (a placement under one workload each) to climb for;
    budget_s: how many seconds instead, starts included, which are always finished; then results
    depend on the machine. worst_share, fairness: see `Objective`. start_from: improve this
    placement, too; with max_bytes_moved only this one, by changes that load at most so many bytes
    of weights (see `bytes_loaded`). Raises ValueError for values out of range, PlacementError for
    a start that does not fit the problem.
    """
    if budget_simulations < 0 or (budget_s is not None and not budget_s >= 0):
        raise ValueError(
            f"budgets must be >= 0: budget_simulations={budget_simulations}, budget_s={budget_s}"
        )
    if max_bytes_moved is not None and (start_from is None or not max_bytes_moved >= 0):
        raise ValueError(f"max_bytes_moved is {max_bytes_moved}: needs start_from, and be >= 0")
    objective = Objective(worst_share, fairness)
    results = []
    for problem, training in instances:
        begin = time.perf_counter()
        workloads = as_list(training)
        starts, num_simulations = [], 0
        if start_from is not None:
            start_from.check(problem)
            starts.append(start_from)
        if max_bytes_moved is None:
            found, num_simulations = _starts(problem, workloads)
            starts += found
        climbs = _Climbs(problem, workloads, objective, starts, num_simulations, max_bytes_moved)

        def used(simulations: int, begin: float = begin) -> float:
            if budget_s is None:
                return simulations / budget_simulations if budget_simulations else 1.0
            return (time.perf_counter() - begin) / budget_s if budget_s else 1.0

        results.append(climbs.run(used, seed))
    return results


def _starts(problem: Problem, workloads: Sequence[Workload]) -> tuple[list[Placement], int]:
    """Placements to start from, and the simulations that it took to find them."""
    filled = fill_partitions(Share(problem, as_one(problem, workloads)))
    starts = [result.static for result in filled]
    num_simulations = len(workloads) * sum(result.num_simulations for result in filled)
    try:
        buckets = make_buckets(problem)
    except ProfileError:  # the latency of some type on one device is not known
        return starts, num_simulations
    # One is enough to fill groups; all of them decide what is climbed from.
    first = next((workload for workload in workloads if (workload.model >= 0).any()), None)
    if 1 < len(buckets) <= problem.cluster.num_devices and first is not None:
        divisions, imbalance = divisions_of(problem, buckets, _requests(problem, first))
        balanced = np.argsort(imbalance, kind="stable")[:DIVISIONS]
        found, taken = separate(problem, first, [divisions[i] for i in balanced])
        starts += found
        num_simulations += taken
    return starts, num_simulations


class _Climbs:
    """Where the climbs stand: `_parents`, with the score and the good requests of each."""

    def __init__(
        self,
        problem: Problem,
        workloads: Sequence[Workload],
        objective: Objective,
        starts: Sequence[Placement],
        num_simulations: int,
        max_bytes_moved: float | None,
    ) -> None:
        self._num_simulations = num_simulations
        self._objective = objective
        self._requests = np.array([_requests(problem, workload) for workload in workloads])
        configs = sorted(_configs(problem) | {g.config for start in starts for g in start.groups})
        # Whatever is filled is loaded: under a bound some children must do without.
        lean = 0.0 if max_bytes_moved is None else LEAN
        self._space = make_space(problem, workloads, configs, lean)

        def make_room(chosen: Sequence[Placement], more: int) -> Placements:
            most = max(len(start.groups) for start in chosen)
            room = padded_size(max(min(most + more, problem.cluster.num_devices), most), 4)
            self._scorer = Scorer(problem, workloads, configs, room)
            self._codec = Codec(configs, len(problem.models), room)
            return Placements(*map(jnp.asarray, self._codec.encode(chosen)))

        # The best starts have few groups, often, and few groups are simulated faster.
        score, good = self._evaluate(make_room(starts, 0))
        best = np.argsort(-score, kind="stable")[:CLIMBS]
        self._parents = make_room([starts[i] for i in best], MORE_GROUPS)
        self._score, self._good = score[best], good[best]
        self._origin, self._max_bytes = self._parents, max_bytes_moved

    def run(self, used: Callable[[int], float], seed: int) -> Result:
        """Climb until the budget is used up; `used`: its share, from the simulations so far."""
        before = self._num_simulations
        history = [(before, float(self._score[0]))]
        key = jax.random.key(seed)
        while (share := used(self._num_simulations - before)) < 1:
            left = max(len(self._score) >> int(4 * share), 1)
            key, own = jax.random.split(key)
            self._round(own, np.argsort(-self._score, kind="stable")[:left])
            if self._score.max() > history[-1][1]:
                history.append((self._num_simulations, float(self._score.max())))
        best = int(self._score.argmax())
        placement = self._codec.decode(*(array[best] for array in self._parents)).without_empty()
        score = float(self._score[best])
        return Result(placement, score, self._num_simulations, history=tuple(history))

    def _round(self, key: jax.Array, climbing: NDArray[np.int64]) -> None:
        parent_of = np.resize(climbing, CHILDREN)
        unserved = jnp.asarray(self._requests.sum(0) - self._good, jnp.float64)
        brood = children(key, self._space, self._parents, unserved, jnp.asarray(parent_of))
        score, good = self._evaluate(brood)
        if self._max_bytes is not None:
            loaded = bytes_loaded(self._space, self._origin, brood)
            score = np.where(np.asarray(loaded) <= self._max_bytes, score, -np.inf)
        source = np.arange(len(self._score))
        for parent in climbing:
            own = np.flatnonzero(parent_of == parent)
            best = own[score[own].argmax()]
            if score[best] >= self._score[parent]:
                source[parent] = len(source) + best
                self._score[parent], self._good[parent] = score[best], good[best]
        self._parents = _take(self._parents, brood, jnp.asarray(source))

    def _evaluate(self, placements: Placements) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """The objective, float64 [lane], and the good requests, int64 [lane, model]."""
        scores = self._scorer(placements.hosted, placements.config)
        self._num_simulations += scores.score.size
        return self._objective(scores, self._requests), scores.good.sum(0)


@jax.jit
def _take(parents: Placements, brood: Placements, source: jax.Array) -> Placements:
    """The placements at these indices, those of the children after those of the parents."""
    return jax.tree.map(lambda old, new: jnp.concatenate([old, new])[source], parents, brood)


def _requests(problem: Problem, workload: Workload) -> NDArray[np.int64]:
    """Requests per model, int64 [model]."""
    return np.bincount(workload.model[workload.model >= 0], minlength=len(problem.models))


def _configs(problem: Problem) -> set[ParallelConfig]:
    """Configurations worth a try: within a node or of whole nodes, pipelines as published."""
    node = [pool.devices_per_node for pool in problem.cluster.pools]
    kinds = {model.type for model in problem.models}
    profiled = {config for kind in kinds for config in problem.profile.configs(kind)}
    return {
        config
        for config in fitting_configs(problem, profiled)
        if config.pp <= MAX_PIPELINE_STAGES
        and (config.num_devices <= node[config.pool] or config.num_devices % node[config.pool] == 0)
    }
