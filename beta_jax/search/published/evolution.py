"""Evolutionary refinement: a population of placements, whole generations as lanes."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from beta_jax.placement.codec import Codec
from beta_jax.placement.placement import Placement
from beta_jax.placement.problem import Problem
from beta_jax.search.instances import NEVER_FITS, Instances, memory_table, weight_table
from beta_jax.search.result import Result
from beta_jax.search.scoring import Scorer, Scores
from beta_jax.types import ParallelConfig, Workload

MERGE, SPLIT, REPLACE = 0.08, 0.08, 0.05
"""Probabilities that a child merges two groups, splits one, and replaces each hosted model."""

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]


class _Population(NamedTuple):
    hosted: Bools  # [lane, group, model]
    config: Ints  # [lane, group], index of a configuration, their number for no group


def evolve(
    instances: Instances,
    *,
    policy: Callable[[Instances], list[Result]],
    population: int = 1024,
    generations: int = 200,
    seed: int = 0,
) -> list[Result]:
    """Refine the placements of another policy; the best score ever seen wins.

    Parents are drawn in proportion to attainment. A child may merge two groups of one configuration
    into one with twice the stages, split a group into two with half, and replace models by others,
    drawn in proportion to unserved requests; changed groups are then fitted to memory. Equal seeds
    give equal results. Raises ValueError for a policy that returns schedules.
    """
    return [
        _refine(problem, workload, result, population, generations, np.random.default_rng(seed))
        for (problem, workload), result in zip(instances, policy(instances), strict=True)
    ]


def _refine(
    problem: Problem,
    workload: Workload,
    start: Result,
    population: int,
    generations: int,
    rng: np.random.Generator,
) -> Result:
    if not isinstance(start.placement, Placement):
        raise ValueError("evolution refines single placements, not schedules")
    groups = start.placement.groups
    if not groups or not len(workload):
        return start
    breeding = _Breeding(problem, [group.config for group in groups])
    members = breeding.copies(start.placement, population)
    first = _Population(members.hosted[0].copy(), members.config[0].copy())
    scorer = Scorer(problem, [workload], breeding.configs, problem.cluster.num_devices)
    requests = np.bincount(workload.model[workload.model >= 0], minlength=len(problem.models))

    best, best_score = first, start.score
    for generation in range(generations + 1):
        scores = Scores(*(of[0] for of in scorer(members.hosted, members.config)))
        leader = int(scores.score.argmax())
        if scores.score[leader] > best_score:
            best_score = float(scores.score[leader])
            best = _Population(members.hosted[leader].copy(), members.config[leader].copy())
        if generation < generations:
            served = scores.good.sum(1)
            fitness = served / served.sum() if served.any() else None
            parents = rng.choice(population, population, p=fitness)
            unserved = (requests - scores.good)[parents]
            parent = _Population(members.hosted[parents], members.config[parents])
            members = breeding.children(parent, unserved, rng)
            members.hosted[0], members.config[0] = best
    simulations = start.num_simulations + population * (generations + 1)
    return Result(breeding.codec.decode(*best), best_score, simulations, start.warnings)


class _Breeding:
    """How the placements of a problem change: arrays over all children at once."""

    def __init__(self, problem: Problem, seeds: list[ParallelConfig]) -> None:
        """seeds: the configurations to start with; others have more or fewer stages."""
        profiled = {c for model in problem.models for c in problem.profile.configs(model.type)}
        related = {
            c for c in profiled if (c.op, c.pool) in {(seed.op, seed.pool) for seed in seeds}
        }
        self.configs = sorted(related.union(seeds))
        self.codec = Codec(self.configs, len(problem.models), problem.cluster.num_devices)
        self.none = self.codec.no_group
        index = {config: i for i, config in enumerate(self.configs)}
        # The last entry of each table stands for no group.
        weight = weight_table(problem, self.configs)
        self.weight = np.vstack([weight.T, np.full(len(problem.models), NEVER_FITS)])
        self.memory = np.append(memory_table(problem, self.configs), 0)
        self.merged, self.halved = (
            np.array([index.get(other, self.none) for other in others] + [self.none])
            for others in (
                [c._replace(pp=c.pp * 2) for c in self.configs],
                [c._replace(pp=c.pp // 2) for c in self.configs],
            )
        )

    def copies(self, placement: Placement, count: int) -> _Population:
        """A placement in all lanes."""
        one = self.codec.encode([placement])
        return _Population(
            np.repeat(one.hosted, count, axis=0),
            np.repeat(one.config.astype(np.int64), count, axis=0),
        )

    def children(
        self, parent: _Population, unserved: Ints, rng: np.random.Generator
    ) -> _Population:
        """Mutated copies; `parent` is overwritten. unserved: int64 [lane, model]."""
        changed = np.zeros(parent.config.shape, np.bool_)
        for mutate in (self._merge, self._split, self._replace):
            mutate(parent, changed, unserved, rng)
        self._fit_to_memory(parent, changed, unserved)
        return parent

    def _merge(
        self, members: _Population, changed: Bools, _: Ints, rng: np.random.Generator
    ) -> None:
        config = members.config
        lanes = np.arange(len(config))
        possible = self.merged[config] != self.none
        partners = (config[:, :, None] == config[:, None, :]).sum(2) > 1
        keep = _choose(possible & partners, MERGE, rng)
        same = (config == config[lanes, keep, None]) & (keep >= 0)[:, None]
        same[lanes, keep] = False
        drop = _choose(same, 1.0, rng)
        lane = np.flatnonzero(drop >= 0)
        keep, drop = keep[lane], drop[lane]
        members.hosted[lane, keep] |= members.hosted[lane, drop]
        members.hosted[lane, drop] = False
        config[lane, keep] = self.merged[config[lane, keep]]
        config[lane, drop] = self.none
        changed[lane, keep] = True

    def _split(
        self, members: _Population, changed: Bools, _: Ints, rng: np.random.Generator
    ) -> None:
        config = members.config
        half = _choose(self.halved[config] != self.none, SPLIT, rng)
        free = (config == self.none).argmax(1)  # there is room: a group to split has two devices
        lane = np.flatnonzero(half >= 0)
        half, free = half[lane], free[lane]
        config[lane, half] = config[lane, free] = self.halved[config[lane, half]]
        members.hosted[lane, free] = members.hosted[lane, half]
        changed[lane, half] = changed[lane, free] = True

    def _replace(
        self, members: _Population, changed: Bools, unserved: Ints, rng: np.random.Generator
    ) -> None:
        some = unserved.max(axis=1)[:, None, None] > 0
        lane, group, model = np.nonzero(
            members.hosted & (rng.random(members.hosted.shape) < REPLACE) & some
        )
        bounds = unserved.cumsum(1)[lane]
        drawn = rng.integers(bounds[:, -1]) if len(lane) else np.zeros(0, np.int64)
        members.hosted[lane, group, model] = False
        members.hosted[lane, group, (bounds <= drawn[:, None]).sum(1)] = True
        changed[lane, group] = True

    def _fit_to_memory(self, members: _Population, changed: Bools, unserved: Ints) -> None:
        """Of the changed groups, keep the most unserved models that fit, then add others."""
        lane, group = np.nonzero(changed)
        config, before = members.config[lane, group], members.hosted[lane, group]
        after, left = np.zeros_like(before), self.memory[config]
        order = np.argsort(-unserved, axis=1, kind="stable")[lane]
        row = np.arange(len(lane))
        for candidates in (before, ~before):
            for model in order.T:
                weight = self.weight[config, model]
                fits = candidates[row, model] & (weight <= left)
                after[row, model] |= fits
                left -= np.where(fits, weight, 0)
        members.hosted[lane, group] = after


def _choose(possible: Bools, probability: float, rng: np.random.Generator) -> Ints:
    """One of the possible groups of each lane, [lane], with this probability; else -1."""
    drawn = np.where(possible, rng.random(possible.shape), -1).argmax(1)
    chosen = possible.any(1) & (rng.random(len(possible)) < probability)
    return np.where(chosen, drawn, -1)
