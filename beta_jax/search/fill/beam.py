"""Beam search over replicas: the paper's Algorithm 1 in full, every addition simulated."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from beta_jax.placement.placement import Group, Placement
from beta_jax.search.fill.greedy import GreedyTask
from beta_jax.search.instances import memory_of_device, weight_table
from beta_jax.search.result import Result
from beta_jax.search.scoring import Scorer

_Filling = tuple[tuple[tuple[int, ...], int], ...]
"""What each group hosts and its configuration (an index), sorted: equal groups are one choice."""


class _Scored(NamedTuple):
    score: float
    filling: _Filling


def beam_search(task: GreedyTask, beam: int) -> Result:
    """Fill the groups of a task; keep the `beam` best of all additions; return the best ever seen.

    One batch of simulations per replica. Additions that differ only in which of several equal
    groups they choose are one; of equal scores the first wins.
    """
    configs = sorted(set(task.configs))
    weight = weight_table(task.problem, configs).tolist()
    memory = memory_of_device(task.problem)
    scorer = Scorer(task.problem, [task.workload], configs, len(task.configs))

    def additions(filling: _Filling) -> list[_Filling]:
        found = []
        for g, (models, config) in enumerate(filling):
            if g and filling[g - 1] == filling[g]:
                continue
            left = memory - sum(weight[m][config] for m in models)
            rest = filling[:g] + filling[g + 1 :]
            found += [
                tuple(sorted((*rest, (tuple(sorted((*models, m))), config))))
                for m in range(len(weight))
                if m not in models and weight[m][config] <= left
            ]
        return found

    def score(fillings: list[_Filling]) -> list[_Scored]:
        hosted = np.zeros((len(fillings), len(task.configs), len(weight)), np.bool_)
        for lane, filling in enumerate(fillings):
            for g, (models, _) in enumerate(filling):
                hosted[lane, g, list(models)] = True
        config = np.array([[config for _, config in filling] for filling in fillings], np.int32)
        return [
            _Scored(*pair) for pair in zip(scorer(hosted, config).score[0], fillings, strict=True)
        ]

    empty: _Filling = tuple(((), configs.index(config)) for config in sorted(task.configs))
    candidates = [empty]
    best, num_simulations = _Scored(-np.inf, ()), 0
    while candidates:
        scored = sorted(score(candidates), key=lambda one: -one.score)[:beam]
        num_simulations += len(candidates)
        best = max(best, scored[0], key=lambda one: one.score)
        candidates = list(dict.fromkeys(c for one in scored for c in additions(one.filling)))
    groups = tuple(Group(configs[config], models) for models, config in best.filling)
    return Result(Placement(groups), float(best.score), num_simulations)
