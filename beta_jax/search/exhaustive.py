"""Every placement of a tiny instance: what the other policies are measured against."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

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
    requests_by_model,
    weight_table,
)
from beta_jax.search.objective import Objective
from beta_jax.search.result import Result, mean_attainment
from beta_jax.search.scoring import Scorer
from beta_jax.traits import Trait
from beta_jax.types import Workload

MAX_PLACEMENTS = 1_000_000
LANES_AT_ONCE = 8192
PAIRS = 64
"""With more pairs of groups for each placement that may be tried, placements are too many."""


class TooManyPlacementsError(ValueError):
    """More placements than are to be tried."""


def exhaustive(instances: Instances) -> list[Result]:
    """The best static placement there is, by the published score; the first of equal ones.

    Every list of groups, of every profiled configuration, with every set of models that fits. Their
    order matters, as it breaks ties of dispatch, but under rules with `Trait.LOCAL` only between
    groups that share a model: of two neighbours that share none, one order is enough. Groups
    without a model are left out. Raises TooManyPlacementsError beyond `MAX_PLACEMENTS`.
    """
    return [try_all(problem, [workload], Objective()) for problem, workload in instances]


def try_all(
    problem: Problem,
    workloads: Sequence[Workload],
    objective: Objective,
    most: int = MAX_PLACEMENTS,
) -> Result:
    """The best placement by any objective, on several workloads; nothing exceeds its bound.

    Raises TooManyPlacementsError if there are more than `most`.
    """
    options = _group_options(problem, most)
    if not options:
        return Result(Placement(()), 0.0, 1, attainment=0.0, upper_bound=0.0)
    lists = _group_lists(options, problem, most)
    configs = sorted({group.config for group in options})
    # A lane for every option; the last one has no group.
    codec = Codec(configs, len(problem.models), 1)
    lanes = codec.encode([*(Placement((group,)) for group in options), Placement()])
    hosted, config = lanes.hosted[:, 0], lanes.config[:, 0]
    scorer = Scorer(problem, workloads, configs, lists.shape[1])
    requests = np.array([requests_by_model(problem, workload) for workload in workloads])
    attained, value = [], []
    for chunk in np.split(lists, range(LANES_AT_ONCE, len(lists), LANES_AT_ONCE)):
        scores = scorer(hosted[chunk], config[chunk])
        value.append(objective(scores, requests))
        attained.append(mean_attainment(scores.good, workloads))
    best = int(np.concatenate(value).argmax())
    attainment = np.concatenate(attained)
    groups = tuple(options[i] for i in lists[best] if i < len(options))
    return Result(
        Placement(groups),
        float(np.concatenate(value)[best]),
        len(lists) * len(workloads),
        attainment=float(attainment[best]),
        upper_bound=float(attainment.max()),
    )


def _group_options(problem: Problem, most: int) -> list[Group]:
    """Every group that the cluster could have: a configuration, and one model or more on it."""
    kinds = {model.type for model in problem.models}
    configs = fitting_configs(problem, {c for kind in kinds for c in problem.profile.configs(kind)})
    weight = weight_table(problem, configs).tolist()
    memory = memory_table(problem, configs).tolist()
    found: list[Group] = []
    for c, config in enumerate(configs):
        own = list(itertools.islice(_fitting_sets([w[c] for w in weight], memory[c]), most + 1))
        found += [Group(config, hosted) for hosted in sorted(own, key=lambda s: (len(s), s))]
        _require(len(found) <= most, problem, most)
    return found


def _fitting_sets(
    weight: list[int], left: int, hosted: tuple[int, ...] = ()
) -> Iterator[tuple[int, ...]]:
    """Every set of models that fits and begins with those that are hosted already."""
    for model in range(hosted[-1] + 1 if hosted else 0, len(weight)):
        if weight[model] <= left:
            yield (more := (*hosted, model))
            yield from _fitting_sets(weight, left - weight[model], more)


def _require(few: bool, problem: Problem, most: int) -> None:
    if not few:
        raise TooManyPlacementsError(
            f"more than {most:,} placements of {len(problem.models)} models on "
            f"{problem.cluster.num_devices} devices: too many to try them all"
        )


def _group_lists(options: list[Group], problem: Problem, most: int) -> NDArray[np.int64]:
    """All lists of groups that the devices suffice for, [list, place]; `len(options)` is none."""
    devices = devices_table(problem)
    size = np.zeros((len(options), len(devices)), np.int64)  # [option, pool]
    for row, group in zip(size, options, strict=True):
        row[group.config.pool] = group.config.num_devices
    _require(len(options) ** 2 <= PAIRS * most, problem, most)
    hosted = np.zeros((len(options), len(problem.models)))
    for o, group in enumerate(options):
        hosted[o, list(group.models)] = 1
    share = hosted @ hosted.T > 0
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
        _require(sum(map(len, lists)) <= most, problem, most)
    places = len(lists) - 1
    padded = [
        np.pad(part, ((0, 0), (0, places - part.shape[1])), constant_values=len(options))
        for part in lists[:-1]
    ]
    return np.concatenate(padded)
