"""Every placement of a tiny instance: what the other policies are measured against."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

from beta_jax.placement.codec import Codec
from beta_jax.placement.placement import Group, Placement
from beta_jax.placement.problem import Problem
from beta_jax.search.instances import (
    Instances,
    devices_table,
    fitting_configs,
    memory_table,
    weight_table,
)
from beta_jax.search.result import Result, score_placements
from beta_jax.search.scoring import Scorer
from beta_jax.traits import Trait
from beta_jax.types import Workload

MAX_PLACEMENTS = 1_000_000
LANES_AT_ONCE = 8192


def exhaustive(instances: Instances) -> list[Result]:
    """The best static placement there is, by the published score; the first of equal ones.

    Every list of groups, of every profiled configuration, with every set of models that fits. Their
    order matters, as it breaks ties of dispatch, but under rules with `Trait.LOCAL` only between
    groups that share a model: of two neighbours that share none, one order is enough. Groups
    without a model are left out. Raises ValueError beyond `MAX_PLACEMENTS`.
    """
    return [_best(problem, workload) for problem, workload in instances]


def _best(problem: Problem, workload: Workload) -> Result:
    options = _group_options(problem)
    if not options:
        return score_placements([(problem, workload)], [Placement(())])[0]
    lists = _group_lists(options, problem)
    configs = sorted({group.config for group in options})
    # A lane for every option; the last one has no group.
    codec = Codec(configs, len(problem.models), 1)
    lanes = codec.encode([*(Placement((group,)) for group in options), Placement()])
    hosted, config = lanes.hosted[:, 0], lanes.config[:, 0]
    scorer = Scorer(problem, [workload], configs, lists.shape[1])
    chunks = np.split(lists, range(LANES_AT_ONCE, len(lists), LANES_AT_ONCE))
    score = np.concatenate([scorer(hosted[chunk], config[chunk]).score[0] for chunk in chunks])
    best = int(score.argmax())
    groups = tuple(options[i] for i in lists[best] if i < len(options))
    return Result(Placement(groups), float(score[best]), len(lists))


def _group_options(problem: Problem) -> list[Group]:
    """Every group that the cluster could have: a configuration, and one model or more on it."""
    kinds = {model.type for model in problem.models}
    configs = fitting_configs(problem, {c for kind in kinds for c in problem.profile.configs(kind)})
    weight = weight_table(problem, configs).tolist()
    memory = memory_table(problem, configs).tolist()
    models = range(len(problem.models))
    return [
        Group(config, hosted)
        for c, config in enumerate(configs)
        for size in range(1, len(models) + 1)
        for hosted in itertools.combinations(models, size)
        if sum(weight[m][c] for m in hosted) <= memory[c]
    ]


def _group_lists(options: list[Group], problem: Problem) -> NDArray[np.int64]:
    """All lists of groups that the devices suffice for, [list, place]; `len(options)` is none."""
    devices = devices_table(problem)
    size = np.zeros((len(options), len(devices)), np.int64)  # [option, pool]
    for row, group in zip(size, options, strict=True):
        row[group.config.pool] = group.config.num_devices
    share = np.array([[not {*a.models}.isdisjoint(b.models) for b in options] for a in options])
    local = Trait.LOCAL in problem.rules.traits()
    may_follow = share | (not local) | (np.arange(len(options))[:, None] <= np.arange(len(options)))
    lists = [np.arange(len(options))[:, None]]  # by their number of groups
    while len(lists[-1]):
        longest = lists[-1]
        left = devices - size[longest].sum(1)  # [list, pool]
        suffice = np.ones((len(longest), len(options)), np.bool_)
        for own, free in zip(size.T, left.T, strict=True):
            suffice &= own <= free[:, None]
        row, added = np.nonzero(may_follow[longest[:, -1]] & suffice)
        lists.append(np.column_stack([longest[row], added]))
        if sum(map(len, lists)) > MAX_PLACEMENTS:
            raise ValueError(
                f"more than {MAX_PLACEMENTS:,} placements of {len(problem.models)} models on "
                f"{problem.cluster.num_devices} devices: too many to try them all"
            )
    places = len(lists) - 1
    padded = [
        np.pad(part, ((0, 0), (0, places - part.shape[1])), constant_values=len(options))
        for part in lists[:-1]
    ]
    return np.concatenate(padded)
