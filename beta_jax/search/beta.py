"""`beta`: local search over whole placements, thousands of them simulated per second.

It starts from what the published search finds on every partition into equal groups, from placements
that keep model types apart, and from one of the user's own; then groups may become unequal. The
best starts climb side by side: each round every climb has children (see `moves`), all of them are
simulated on the training workloads, and the best child takes its parent's place unless it is worse.
As the budget is used up, climbs that lag behind are given up, until one is left (successive
halving; Karnin et al., "Almost optimal exploration in multi-armed bandits", ICML 2013).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from beta_jax.partition import MAX_PIPELINE_STAGES
from beta_jax.placement import Placement
from beta_jax.problem import Problem
from beta_jax.search.instances import Training, workloads_of
from beta_jax.search.moves import Codec, Placements, children, make_space
from beta_jax.search.objective import Objective
from beta_jax.search.pipeline import fill_partitions
from beta_jax.search.result import Result
from beta_jax.search.scoring import Scorer
from beta_jax.search.separation import divisions_of, make_buckets, separate
from beta_jax.simulator.lanes import padded_size
from beta_jax.types import ParallelConfig, Workload

CLIMBS = 4
"""Starts that are climbed from."""
DIVISIONS = 4
"""Divisions of the devices among model types that are tried as starts, the most balanced ones."""
CHILDREN = 128
"""Simulated per round and training workload: two full blocks."""
SCREENED = 4
"""With this many training workloads, this many times as many children meet one of them, the
workloads in turn, and only those that do best there meet them all."""
Budget = Callable[[int], float]
"""From the simulations done to the share of the budget that is used up."""


def beta(
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
    """Placements of unequal groups, for one training workload or several; never below `mp-search`.

    budget_simulations: how many simulations to climb for, a placement under one workload each;
    budget_s: or how many seconds, which is not reproducible (the starts are always finished).
    worst_share, fairness: see `Objective`. start_from: improve this placement, too; with
    max_bytes_moved only this one, by changes that load at most so many bytes of weights in all.
    Raises ValueError for values out of range.
    """
    if budget_simulations < 0 or (budget_s is not None and not budget_s >= 0):
        raise ValueError(f"budgets must be >= 0, got {budget_simulations} and {budget_s}")
    if max_bytes_moved is not None and start_from is None:
        raise ValueError("max_bytes_moved bounds changes of a placement: give start_from, too")
    objective = Objective(worst_share, fairness)
    results = []
    for problem, training in instances:
        begin = time.perf_counter()
        workloads = workloads_of(training)
        starts, num_simulations = [], 0
        if start_from is not None:
            start_from.check(problem)
            starts.append(start_from)
        if max_bytes_moved is None:
            found, num_simulations = _starts(problem, workloads)
            starts += found
        climb = _Climb(problem, workloads, objective, starts, num_simulations, max_bytes_moved)
        if budget_s is None:
            climb.run(lambda done: done / max(budget_simulations, 1), seed)
        else:
            climb.run(lambda _: (time.perf_counter() - begin) / max(budget_s, 1e-9), seed)
        results.append(climb.result())
    return results


def _starts(problem: Problem, workloads: Sequence[Workload]) -> tuple[list[Placement], int]:
    """Placements to start from, and the simulations it took to find them."""
    [filled] = fill_partitions([(problem, workloads_of_one(problem, workloads), None)])
    starts = [result.placement for result in filled]
    num = sum(r.num_simulations for r in filled) * len(workloads)
    buckets = make_buckets(problem)
    first = workloads[0]
    if len(buckets) > 1 and len(buckets) <= problem.cluster.num_devices:
        requests = np.bincount(first.model[first.model >= 0], minlength=len(problem.models))
        divisions, imbalance = divisions_of(problem, buckets, requests)
        order = np.argsort(imbalance, kind="stable")[:DIVISIONS]
        starts += separate(problem, first, [divisions[i] for i in order])
    return starts, num


def workloads_of_one(problem, workloads):
    from beta_jax.workload import join

    return workloads[0] if len(workloads) == 1 else join(workloads, 60.0)


class _Climb:
    """The climbs of one problem: `parents` are where they stand, best or not."""

    def __init__(
        self,
        problem: Problem,
        workloads: Sequence[Workload],
        objective: Objective,
        starts: Sequence[Placement],
        num_simulations: int,
        max_bytes_moved: float | None,
    ) -> None:
        self._objective = objective
        configs = sorted(
            {*_configs(problem), *(group.config for start in starts for group in start.groups)}
        )
        most = max(len(start.groups) for start in starts)
        self._requests = np.array(
            [np.bincount(w.model[w.model >= 0], minlength=len(problem.models)) for w in workloads]
        )
        self._num_simulations = num_simulations
        G = padded_size(most, 4)
        self._scorer = Scorer(problem, workloads, configs, G)
        self._none = len(configs)
        codec = Codec(problem, configs, G)
        encoded = codec.encode(starts)
        score, good = self._evaluate(encoded)
        order = np.argsort(-score, kind="stable")[:CLIMBS]
        most = max(len(starts[i].groups) for i in order)
        G = padded_size(max(most, min(most + 2, problem.cluster.num_devices)), 4)
        self._scorer = Scorer(problem, workloads, configs, G)
        self._codec = Codec(problem, configs, G)
        self._space = make_space(problem, configs)
        self._parents = self._codec.encode([starts[i] for i in order])
        self._score, self._good = score[order], good[order]
        self.history = [(self._num_simulations, float(self._score.max()))]

    def _evaluate(
        self, placements: Placements, of: Sequence[int] | None = None
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """The objective [lane] and the good requests [lane, model]."""
        config = jnp.minimum(placements.config, self._none - 1)
        scores = self._scorer(placements.hosted, config, of)
        requests = self._requests if of is None else self._requests[list(of)]
        self._num_simulations += len(requests) * len(config)
        return self._objective(scores, requests), scores.good.sum(0)

    def run(self, used: Budget, seed: int) -> None:
        key, begin, turn = jax.random.key(seed), self._num_simulations, 0
        while (share := used(self._num_simulations - begin)) < 1:
            alive = max(1, len(self._score) >> int(4 * share))
            top = np.argsort(-self._score, kind="stable")[:alive]
            key, own = jax.random.split(key)
            self._round(own, top, turn)
            turn += 1

    def _round(self, key, top, turn):
        num = CHILDREN
        screen = len(self._requests) >= SCREENED
        if screen:
            num *= SCREENED
        parent_of = np.resize(top, num)
        need = jnp.asarray(self._requests.sum(0) - self._good, jnp.float64)
        kids = children(key, self._space, self._parents, need, jnp.asarray(parent_of))
        if screen:
            of = [turn % len(self._requests)]
            score, _ = self._evaluate(kids, of)
            keep = np.concatenate(
                [
                    own[np.argsort(-score[own], kind="stable")[: CHILDREN // len(top)]]
                    for own in (np.flatnonzero(parent_of == q) for q in top)
                ]
            )
            kids = jax.tree.map(lambda a: a[jnp.asarray(keep)], kids)
            parent_of = parent_of[keep]
        score, good = self._evaluate(kids)
        source = np.arange(len(self._score))
        for parent in top:
            own = np.flatnonzero(parent_of == parent)
            best = own[score[own].argmax()]
            if score[best] >= self._score[parent]:
                source[parent] = len(source) + best
                self._score[parent], self._good[parent] = score[best], good[best]
        self._parents = _take(self._parents, kids, jnp.asarray(source))
        if self._score.max() > self.history[-1][1]:
            self.history.append((self._num_simulations, float(self._score.max())))

    def result(self):
        j = int(self._score.argmax())
        return Result(
            self._codec.decode(self._parents, j), float(self._score[j]), self._num_simulations
        )


@jax.jit
def _take(parents: Placements, kids: Placements, source: jax.Array) -> Placements:
    return jax.tree.map(lambda a, b: jnp.concatenate([a, b])[source], parents, kids)


def _configs(problem: Problem) -> set[ParallelConfig]:
    """Configurations to search: within a node, or of whole nodes."""
    cluster = problem.cluster
    return {
        config
        for kind in {model.type for model in problem.models}
        for config in problem.profile.configs(kind)
        if config.num_devices <= cluster.num_devices
        and config.pp <= MAX_PIPELINE_STAGES
        and (
            config.num_devices <= cluster.devices_per_node
            or config.num_devices % cluster.devices_per_node == 0
        )
    }
