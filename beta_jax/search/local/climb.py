"""`local-search`: from the best published placement upwards, by changes that hold on all traffic.

It starts where the published searches end, or from a placement of the user's own; then groups may
become unequal. Each round the placement has children (see `moves`). Some of the training workloads,
others in every round, propose: all children are simulated on them. The best ones are simulated on
the other workloads, too, and these decide: a child takes its parent's place only if it is no worse
on what it was not chosen by, nor on all together.

A round depends on those before it and on the seed, never on the budget. So a longer search begins
with the shorter one. What was tried and what it brought is in docs/search.md.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from beta_jax.backend import on_cpu
from beta_jax.checks import require_numbers, require_whole
from beta_jax.placement.codec import Codec
from beta_jax.placement.partition import MAX_PIPELINE_STAGES
from beta_jax.placement.placement import Placement
from beta_jax.placement.problem import Problem
from beta_jax.profiles.profile import ProfileError
from beta_jax.search.bounds.served import most_served, training_bound
from beta_jax.search.exhaustive import TooManyPlacementsError, try_all
from beta_jax.search.instances import (
    Training,
    as_list,
    as_one,
    fitting_configs,
    requests_by_model,
)
from beta_jax.search.local.moves import Placements, bytes_loaded, children, make_space
from beta_jax.search.objective import Objective, judge
from beta_jax.search.published.pipelines import mp_search
from beta_jax.search.published.separation import mp_search_sep
from beta_jax.search.result import Result, mean_attainment
from beta_jax.search.scoring import Scorer, Scores
from beta_jax.simulator.engine import padded_size
from beta_jax.types import ParallelConfig, Workload
from beta_jax.workloads.synthesis import remix

Indices = Sequence[int] | NDArray[np.integer]
FEW_PLACEMENTS, REQUESTS_PER_S = 20_000, 10_000_000
"""So few placements are all tried, if the budget allows, by requests simulated in a second."""
CHILDREN = 256
"""Placements per round; of one workload, where nothing sorts them out beforehand, half as many."""
PROPOSING = 0.125
"""Share of the workloads that propose."""
DECIDED = 64
"""Children that the others decide on: a full block of the simulator."""
LEAN = 0.5
"""See `Space.lean`, where the bytes moved are bounded."""
MORE_GROUPS = 2
"""Room for at least so many groups more than the starts have."""


class Incumbent(NamedTuple):
    """The best placement after so many simulations. is_best: none can serve more.

    attainment: the mean over the training workloads.
    """

    num_simulations: int
    score: float
    placement: Placement
    is_best: bool
    attainment: float


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
    require_whole("budget_simulations", budget_simulations)
    require_whole("seed", seed)
    given = {"budget_s": budget_s, "max_bytes_moved": max_bytes_moved}
    require_numbers(**{name: value for name, value in given.items() if value is not None})
    if budget_s is not None and not budget_s >= 0:
        raise ValueError(f"budget_s must be >= 0, got {budget_s}")
    if max_bytes_moved is not None and (start_from is None or not max_bytes_moved >= 0):
        raise ValueError(f"max_bytes_moved is {max_bytes_moved}: needs start_from, and be >= 0")
    objective = Objective(worst_share, fairness)
    results = []
    for problem, training in instances:
        begin = time.perf_counter()
        workloads = as_list(training)
        if max_bytes_moved is None:
            requests = max(sum(map(len, workloads)), 1)
            most = budget_simulations // len(workloads)
            if budget_s is not None:
                most = int(REQUESTS_PER_S * budget_s) // requests
            try:
                results.append(try_all(problem, workloads, objective, min(most, FEW_PLACEMENTS)))
                continue
            except TooManyPlacementsError:
                pass
        search = improve(problem, workloads, objective, start_from, max_bytes_moved, seed)
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
        bound = latest.attainment
        if not latest.is_best:
            bound = training_bound(problem, workloads, latest.attainment)
        results.append(
            Result(
                latest.placement,
                latest.score,
                latest.num_simulations,
                history=tuple((one.num_simulations, one.score) for one in history),
                expected_loss=expected_loss(
                    problem, workloads, objective, first.placement, latest.placement
                ),
                attainment=latest.attainment,
                upper_bound=bound,
            )
        )
    return results


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


def expected_loss(
    problem: Problem,
    workloads: Sequence[Workload],
    objective: Objective,
    start: Placement,
    found: Placement,
) -> float | None:
    """How much less is gained over `start` where every model meets others than it met in training.

    On the training workloads remixed: as if models' requests were independent. None with one.
    """
    if len(workloads) < 2:
        return None
    other = remix(workloads, len(problem.models))
    values = [judge(problem, own, [start, found], objective)[0] for own in (workloads, other)]
    trained, gained = (float(after - before) for before, after in values)
    return trained - gained


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
        self._requests = np.array([requests_by_model(problem, workload) for workload in workloads])
        self._workloads = workloads
        # With an infinite SLO everything is served, and latency is what counts.
        slo_counts = all(np.isfinite(model.slo_s) for model in problem.models)
        self._enough = math.inf
        if slo_counts:
            # Whom it serves may still be fairer, unless it serves all.
            served = [most_served(problem, workload) for workload in workloads]
            self._enough = sum(map(len, workloads)) if objective.fairness else sum(served)
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

    def incumbent(self) -> Incumbent:
        placement = self._codec.decode(*(array[0] for array in self._parent)).without_empty()
        everything = np.arange(len(self._requests))
        return Incumbent(
            self._num_simulations,
            float(self._value(self._scores, everything)[0]),
            placement,
            int(self._scores.good.sum()) >= self._enough,
            float(mean_attainment(self._scores.good, self._workloads)[0]),
        )

    def round(self, key: jax.Array) -> None:
        """Simulate children of the placement, and go on with the best one unless it is worse."""
        own, shuffle = jax.random.split(key)
        unserved = jnp.asarray((self._requests[:, None] - self._scores.good).sum(0), jnp.float64)
        number = CHILDREN if len(self._requests) > 1 else CHILDREN // 2
        parent_of = jnp.zeros(number, jnp.int32)
        brood = children(own, self._space, self._parent, unserved, parent_of)
        alive = np.arange(number)
        if self._max_bytes is not None:
            loaded = bytes_loaded(self._space, self._origin, brood)
            alive = np.flatnonzero(np.asarray(loaded) <= self._max_bytes)
        order = np.asarray(jax.random.permutation(shuffle, len(self._requests)))
        proposing, deciding = np.split(order, [max(round(PROPOSING * len(order)), 1)])
        scores = self._evaluate(_take(brood, alive), proposing)
        gain = fair = self._gain(scores, proposing)
        if len(deciding):
            best = np.argsort(-gain, kind="stable")[:DECIDED]
            alive = alive[best]
            others = self._evaluate(_take(brood, alive), deciding)
            scores = Scores(
                np.concatenate([scores.score[:, best], others.score]),
                np.concatenate([scores.good[:, best], others.good]),
            )
            gain, fair = self._gain(scores, order), self._gain(others, deciding)
        able = np.flatnonzero((gain >= 0) & (fair >= 0))
        if len(able):
            best = able[[gain[able].argmax()]]
            self._parent = _take(brood, alive[best])
            self._scores = _workloads(_lanes(scores, best), np.argsort(order))

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
