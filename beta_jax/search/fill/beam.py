"""Beam search over replicas: the paper's Algorithm 1 in full, every addition simulated."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from beta_jax.placement.codec import Codec
from beta_jax.placement.placement import Group, Placement
from beta_jax.search.fill.greedy import GreedyTask
from beta_jax.search.instances import memory_table, weight_table
from beta_jax.search.result import Result
from beta_jax.search.scoring import Scorer


class _Scored(NamedTuple):
    score: float
    placement: Placement


def beam_search(task: GreedyTask, beam: int) -> Result:
    """Fill the groups of a task; keep the `beam` best of all additions; return the best ever seen.

    One batch of simulations per replica. Additions that differ only in which of several equal
    groups they choose are one; of equal scores the first wins.
    """
    configs = sorted(set(task.configs))
    weight = weight_table(task.problem, configs).tolist()
    memory = memory_table(task.problem, configs).tolist()
    scorer = Scorer(task.problem, [task.workload], configs, len(task.configs))
    codec = Codec(configs, len(weight), len(task.configs))

    def additions(placement: Placement) -> list[Placement]:
        """In sorted order of groups, so that equal groups are one choice."""
        found, groups = [], placement.groups
        for g, (config, models) in enumerate((group.config, group.models) for group in groups):
            if g and groups[g - 1] == groups[g]:
                continue
            column = configs.index(config)
            left = memory[column] - sum(weight[m][column] for m in models)
            found += [
                Placement(_sorted((*groups[:g], *groups[g + 1 :], Group(config, (*models, m)))))
                for m in range(len(weight))
                if m not in models and weight[m][column] <= left
            ]
        return found

    candidates = [Placement(_sorted(Group(config) for config in task.configs))]
    best, num_simulations = _Scored(-np.inf, Placement()), 0
    while candidates:
        scores = scorer(*codec.encode(candidates)).score[0]
        scored = [_Scored(*pair) for pair in zip(scores, candidates, strict=True)]
        scored = sorted(scored, key=lambda one: -one.score)[:beam]
        num_simulations += len(candidates)
        best = max(best, scored[0], key=lambda one: one.score)
        candidates = list(dict.fromkeys(c for one in scored for c in additions(one.placement)))
    return Result(best.placement, float(best.score), num_simulations)


def _sorted(groups: Iterable[Group]) -> tuple[Group, ...]:
    return tuple(sorted(groups, key=lambda group: (group.models, group.config)))
