"""Which devices groups are on, what these hold, and how long it takes to load what they lack.

Devices are numbered through the pools of the cluster, one pool after the other. Inside its pool a
group takes the next `op * pp` devices, in the order of the placement's groups, unless it lists its
devices; the device at place p of a group runs stage `p // op`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from beta_jax.placement.placement import Placement
from beta_jax.placement.problem import Problem
from beta_jax.types import TICKS_PER_SECOND, Cluster, Model, ParallelConfig

Devices = tuple[int, ...]
"""Of a group, in the order of its places."""

LONGEST = 2**60
"""Ticks, 36 years: what takes longer to load is never there."""


def stage_bytes(problem: Problem, model: Model, config: ParallelConfig) -> list[int]:
    """Bytes of a model's weights on each device of each stage, rounded down; [stage]."""
    return [math.floor(own) for own in problem.profile.weight_bytes(model.type, config)]


def replica_bytes(problem: Problem, model: Model, config: ParallelConfig) -> int:
    """Bytes of a model's weights on all devices of a group: what a new replica loads."""
    return sum(stage_bytes(problem, model, config)) * config.op


def pool_devices(cluster: Cluster) -> list[range]:
    """The devices of each pool."""
    bounds = np.cumsum([0, *(pool.num_devices for pool in cluster.pools)]).tolist()
    return [range(*bound) for bound in itertools.pairwise(bounds)]


def node_devices(cluster: Cluster) -> list[range]:
    """The devices of each node: those of the first pool, then of the next; the last may have less.

    Nodes are numbered through the pools, too.
    """
    return [
        devices[start : start + pool.devices_per_node]
        for pool, devices in zip(cluster.pools, pool_devices(cluster), strict=True)
        for start in range(0, len(devices), pool.devices_per_node)
    ]


def number_devices(cluster: Cluster, placement: Placement) -> list[Devices]:
    """The devices of each group of a placement that nothing was before."""
    return _take_next(cluster, placement, {})


def match_devices(
    problem: Problem, old: Placement, devices: Sequence[Devices], new: Placement
) -> list[Devices]:
    """The devices of each new group, where the old ones had these: the fewest bytes are loaded.

    See `match_groups`: those that are matched take over the devices; others those that they list,
    or the next ones that are left in their pool.
    """
    matched = match_groups(problem, old, new, devices)
    return _take_next(problem.cluster, new, {b: devices[a] for b, a in matched.items()})


def _take_next(cluster: Cluster, placement: Placement, stay: dict[int, Devices]) -> list[Devices]:
    stay = stay | {i: group.devices for i, group in enumerate(placement.groups) if group.devices}
    taken = {device for own in stay.values() for device in own}
    left = [[d for d in pool if d not in taken] for pool in pool_devices(cluster)]
    found = []
    for index, group in enumerate(placement.groups):
        own, size = left[group.config.pool], group.config.num_devices
        if index in stay:
            found.append(stay[index])
        else:
            found.append(tuple(own[:size]))
            del own[:size]
    return found


def match_groups(
    problem: Problem, old: Placement, new: Placement, devices: Sequence[Devices] | None = None
) -> dict[int, int]:
    """Of groups that stay where they are, the old positions by the new ones.

    A new group that lists its devices stays if an old one of its configuration has them. Of the
    others, groups are matched within each configuration, as many as there are on both sides, such
    that most bytes of weights stay (an assignment problem; Kuhn, "The Hungarian method for the
    assignment problem", Naval Research Logistics Quarterly, 1955). devices: of the old groups.
    """
    from scipy.optimize import linear_sum_assignment  # which takes long to import

    devices = number_devices(problem.cluster, old) if devices is None else devices
    found = {
        b: a
        for b, group in enumerate(new.groups)
        for a, before in enumerate(old.groups)
        if before.config == group.config and devices[a] == group.devices
    }
    taken = {device for group in new.groups for device in group.devices}
    for config in sorted({group.config for group in old.groups}):
        olds = [
            a
            for a, group in enumerate(old.groups)
            if group.config == config and taken.isdisjoint(devices[a])
        ]
        news = [b for b, g in enumerate(new.groups) if g.config == config and not g.devices]
        size = {
            m: replica_bytes(problem, problem.models[m], config)
            for m in {m for a in olds for m in old.groups[a].models}
        }
        stays = np.zeros((len(olds), len(news)))
        for i, j in np.ndindex(stays.shape):
            both = {*old.groups[olds[i]].models} & {*new.groups[news[j]].models}
            stays[i, j] = sum(size[m] for m in both)
        for i, j in zip(*linear_sum_assignment(stays, maximize=True), strict=True):
            found[news[j]] = olds[i]
    return found


def load_ticks(num_bytes: int, bandwidth: float | None) -> int | None:
    """How long a device takes to load so many bytes, rounded up; None: for ever.

    bandwidth: bytes/s, None for infinite.
    """
    if num_bytes == 0 or bandwidth is None or math.isinf(bandwidth):
        return 0
    if bandwidth == 0:
        return None
    ticks = math.ceil(num_bytes * TICKS_PER_SECOND / Fraction(bandwidth))
    return ticks if ticks < LONGEST else None
