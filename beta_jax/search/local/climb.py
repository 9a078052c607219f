"""`local-search`: from the best published placement upwards, by changes that hold on all traffic.

It starts where the published searches end, or from a placement of the user's own; then groups may
become unequal. Each round the placement has children (see `moves`). They race: all are simulated on
one or a few of the training workloads, the better ones on more, the best few on all. Which
workloads come first is drawn afresh in every round. These propose, the others decide: the child
that takes its parent's place is better on what it was not chosen by, too.

A round depends on those before it and on the seed, never on the budget. So a longer search begins
with the shorter one. What was tried and what it brought is in docs/search.md.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

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
from beta_jax.search.published.pipelines import mp_search
from beta_jax.search.published.separation import mp_search_sep
from beta_jax.search.result import Result
from beta_jax.search.scoring import Scorer, Scores
from beta_jax.simulator.engine import padded_size
from beta_jax.types import ParallelConfig, Workload

Indices = Sequence[int] | NDArray[np.integer]
CHILDREN = 128
"""Placements per round."""
RACE = ((0.125, 16), (0.375, 4))
"""After this share of the workloads only so many children go on."""
LEAN = 0.5
"""See `Space.lean`, where the bytes moved are bounded."""
MORE_GROUPS = 2
"""Room for at least so many groups more than the starts have."""


class Incumbent(NamedTuple):
    """The best placement after so many simulations.

    is_best: nothing can serve more. expected_loss: see `Result`.
    """

    num_simulations: int
    score: float
    placement: Placement
    is_best: bool
    expected_loss: float | None


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
    """Unequal groups, found on one training workload or on several; never below published ones.

    budget_simulations: how many simulations (a placement under one workload each) to climb for;
    budget_s: how many seconds instead, starts included, which are always finished; then results
    depend on the machine. With more of either the result is never lower, for equal seeds.
    worst_share, fairness: see `Objective`. start_from: improve this placement, too; with
    max_bytes_moved only this one, by changes that load at most so many bytes of weights (see
    `bytes_loaded`). Raises ValueError for values out of range, PlacementError for a start that
    does not fit the problem.
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
        search = improve(problem, as_list(training), objective, start_from, max_bytes_moved, seed)
        first = latest = next(search)
        history = [first]

        def has_time(simulations: int, begin: float = begin) -> bool:
            if budget_s is None:
                return simulations < budget_simulations
            return time.perf_counter() - begin < budget_s

        while not latest.is_best and has_time(latest.num_simulations - first.num_simulations):
            latest = next(search)
            if latest.score > history[-1].score:
                history.append(latest)
        results.append(
            Result(
                latest.placement,
                latest.score,
                latest.num_simulations,
                history=tuple((one.num_simulations, one.score) for one in history),
                expected_loss=latest.expected_loss,
            )
        )
    return results


@on_cpu()
def improve(
    problem: Problem,
    workloads: Sequence[Workload],
    objective: Objective,
    start_from: Placement | None = None,
    max_bytes_moved: float | None = None,
    seed: int = 0,
) -> Iterator[Incumbent]:
    """The best placement of the starts, then after every round, for ever."""
    starts, num_simulations = [], 0
    if start_from is not None:
        start_from.check(problem)
        starts.append(start_from)
    if max_bytes_moved is None:
        found = _published(problem, as_one(problem, workloads))
        starts.append(found.static)
        num_simulations = len(workloads) * found.num_simulations
    climb = _Climb(problem, workloads, objective, starts, num_simulations, max_bytes_moved)
    key = jax.random.key(seed)
    while True:
        yield climb.incumbent()
        key, own = jax.random.split(key)
        climb.round(own)


def _published(problem: Problem, workload: Workload) -> Result:
    """The best of the published searches that can be asked."""
    rates = [model.rate_rps for model in problem.models]
    if np.isfinite(rates).all() and np.any(rates):
        try:
            return mp_search_sep([(problem, workload)])[0]
        except ProfileError:  # the latency of some type on one device is not known
            pass
    return mp_search([(problem, workload)])[0]


class _Climb:
    """Where the climb stands: a placement, with its scores and good requests on each workload."""

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
        self._num_served = sum(map(len, workloads))
        self._latency_counts = any(not np.isfinite(model.slo_s) for model in problem.models)
        configs = sorted(_configs(problem) | {g.config for start in starts for g in start.groups})
        # Whatever is filled is loaded: under a bound some children must do without.
        lean = 0.0 if max_bytes_moved is None else LEAN
        self._space = make_space(problem, workloads, configs, lean)
        most = max(len(start.groups) for start in starts)
        room = padded_size(max(min(most + MORE_GROUPS, problem.cluster.num_devices), most), 4)
        self._scorer = Scorer(problem, workloads, configs, room)
        self._codec = Codec(configs, len(problem.models), room)
        placed = Placements(*map(jnp.asarray, self._codec.encode(starts)))
        everything = np.arange(len(workloads))
        scores = self._evaluate(placed, everything)
        best = int(self._value(scores, everything).argmax())
        self._parent, self._scores = _take(placed, [best]), _lanes(scores, [best])
        self._origin, self._max_bytes = self._parent, max_bytes_moved
        self._by_chance = 0.0

    def incumbent(self) -> Incumbent:
        placement = self._codec.decode(*(array[0] for array in self._parent)).without_empty()
        everything = np.arange(len(self._requests))
        return Incumbent(
            self._num_simulations,
            float(self._value(self._scores, everything)[0]),
            placement,
            int(self._scores.good.sum()) == self._num_served and not self._latency_counts,
            self._by_chance if len(everything) > 1 else None,
        )

    def round(self, key: jax.Array) -> None:
        """Simulate children of the placement, and go on with the best one unless it is worse."""
        own, shuffle = jax.random.split(key)
        unserved = jnp.asarray((self._requests[:, None] - self._scores.good).sum(0), jnp.float64)
        parent_of = jnp.zeros(CHILDREN, jnp.int32)
        brood = children(own, self._space, self._parent, unserved, parent_of)
        alive = np.arange(CHILDREN)
        if self._max_bytes is not None:
            loaded = bytes_loaded(self._space, self._origin, brood)
            alive = np.flatnonzero(np.asarray(loaded) <= self._max_bytes)
        order = np.asarray(jax.random.permutation(shuffle, len(self._requests)))
        nothing = np.zeros((0, len(alive), self._requests.shape[1]), np.int64)
        scores = Scores(np.zeros(nothing.shape[:2]), nothing)
        for heat, keep in _heats(order):
            if not len(alive):
                return
            new = self._evaluate(_take(brood, alive), heat)
            scores = Scores(
                np.concatenate([scores.score, new.score]), np.concatenate([scores.good, new.good])
            )
            gain = self._gain(scores, order[: len(scores.score)])
            best = np.argsort(-gain, kind="stable")
            best = best[(np.minimum(gain, self._gain(new, heat)) >= 0)[best]][:keep]
            alive, scores = alive[best], _lanes(scores, best)
        if not len(alive):
            return
        alive, scores = alive[:1], _lanes(scores, [0])
        proposing, _ = next(_heats(order))
        deciding = _workloads(scores, range(len(proposing), len(order)))
        if len(deciding.score):
            fair = self._gain(deciding, order[len(proposing) :])[0]
            self._by_chance += self._gain(scores, order)[0] - fair
        self._parent = _take(brood, alive)
        self._scores = _workloads(scores, np.argsort(order))

    def _gain(self, scores: Scores, workloads: Indices) -> NDArray[np.float64]:
        """By how much placements are better than where the climb stands, on these workloads."""
        own = _workloads(self._scores, workloads)
        return self._value(scores, workloads) - self._value(own, workloads)

    def _value(self, scores: Scores, workloads: Indices) -> NDArray[np.float64]:
        return self._objective(scores, self._requests[list(workloads)])

    def _evaluate(self, placements: Placements, workloads: Indices) -> Scores:
        scores = self._scorer(placements.hosted, placements.config, workloads)
        self._num_simulations += scores.score.size
        return scores


def _take(placements: Placements, lanes: Indices) -> Placements:
    return Placements(*(jnp.asarray(np.asarray(array)[lanes]) for array in placements))


def _lanes(scores: Scores, lanes: Indices) -> Scores:
    return Scores(scores.score[:, lanes], scores.good[:, lanes])


def _workloads(scores: Scores, workloads: Indices) -> Scores:
    return Scores(scores.score[list(workloads)], scores.good[list(workloads)])


def _heats(order: Indices) -> Iterator[tuple[Indices, int]]:
    """The workloads that come next, and how many children are to go on."""
    done = 0
    for share, keep in (*RACE, (1.0, 1)):
        until = max(round(share * len(order)), 1)
        if until > done:
            yield order[done:until], keep
        done = max(until, done)


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
