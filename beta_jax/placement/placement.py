"""Placements: which groups a cluster is cut into and which models each hosts; schedules of them."""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np

from beta_jax.checks import floats, require_whole
from beta_jax.placement.problem import Problem
from beta_jax.types import MAX_DEVICES, MOST_SECONDS, Model, ParallelConfig


class PlacementError(ValueError):
    """A placement that breaks a rule of the cluster, or a file that does not describe one."""


@dataclasses.dataclass(frozen=True)
class Group:
    """Devices running one configuration; `models` are the indices of the models that share it.

    devices: their numbers in the cluster, in the order of the stages, where it matters which they
    are; else the group takes the next ones, see `placement.devices`.
    """

    config: ParallelConfig
    models: tuple[int, ...] = ()
    devices: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "config", ParallelConfig(*self.config))
        try:
            object.__setattr__(self, "models", tuple(sorted(self.models)))
            object.__setattr__(self, "devices", tuple(self.devices))
        except (TypeError, ValueError):
            raise PlacementError(
                f"models and devices of a group must be whole numbers, got {self.models!r} and "
                f"{self.devices!r}"
            ) from None


@dataclasses.dataclass(frozen=True)
class Placement:
    """An ordered list of groups; the order decides dispatch ties. `str()` gives `4x(1,1,8)`."""

    groups: tuple[Group, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "groups", tuple(self.groups))

    @property
    def num_devices(self) -> int:
        return sum(group.config.num_devices for group in self.groups)

    @property
    def num_replicas(self) -> int:
        return sum(len(group.models) for group in self.groups)

    def canonical(self) -> Placement:
        """The same groups sorted by their models, empty groups first (stable)."""
        return Placement(tuple(sorted(self.groups, key=lambda group: group.models)))

    def without_empty(self) -> Placement:
        """The groups that host something; the others do nothing."""
        return Placement(tuple(group for group in self.groups if group.models))

    def check(self, problem: Problem) -> None:
        """Raise PlacementError unless the placement is valid for the problem.

        Valid: at most the devices of each pool, no model twice in a group, every hosted model
        profiled at its group's configuration, and each group's weights within the memory of a
        device; devices that are listed are as many as it takes, of the pool, and in no other group.
        """
        pools, profile = problem.cluster.pools, problem.profile
        used_devices = [0] * len(pools)
        for index, group in enumerate(self.groups):
            _require_whole(index, group)
            if not 0 <= group.config.pool < len(pools):
                raise PlacementError(
                    f"{self} has groups in pool {group.config.pool} of {len(pools)}"
                )
            used_devices[group.config.pool] += group.config.num_devices
        for pool, used in zip(pools, used_devices, strict=True):
            if used > pool.num_devices:
                where = f" in pool {pool.name}" if len(pools) > 1 else ""
                raise PlacementError(f"{self} uses {used} devices of {pool.num_devices}{where}")
        for index, group in enumerate(self.groups):
            where = f"group {index} {group.config}"
            if len(set(group.models)) < len(group.models):
                raise PlacementError(f"{where} hosts a model twice: {list(group.models)}")
            if group.models and not 0 <= group.models[0] <= group.models[-1] < len(problem.models):
                raise PlacementError(
                    f"{where} hosts models {list(group.models)} of {len(problem.models)}"
                )
            hosted = [problem.models[m] for m in group.models]
            for model in hosted:
                if (model.type, group.config) not in profile:
                    raise PlacementError(
                        f"{where} hosts {model.name}: {model.type} has no profile there"
                    )
            used = sum(weight_on_device(problem, model, group.config) for model in hosted)
            room = pools[group.config.pool].memory_bytes
            if used > room:
                raise PlacementError(
                    f"{where} needs {used / 2**30:.2f} GiB of weights on a device, "
                    f"which has {room / 2**30:.2f} GiB"
                )

        self._check_devices(problem)

    def _check_devices(self, problem: Problem) -> None:
        sizes = [0, *(pool.num_devices for pool in problem.cluster.pools)]
        bounds, taken = list(itertools.accumulate(sizes)), set[int]()
        for index, group in enumerate(self.groups):
            if not group.devices:
                continue
            first, end = bounds[group.config.pool : group.config.pool + 2]
            own = {*group.devices}
            if len(group.devices) != group.config.num_devices or len(own) < len(group.devices):
                raise PlacementError(
                    f"group {index} {group.config} is on {group.config.num_devices} devices, "
                    f"listed are {list(group.devices)}"
                )
            if not first <= min(own) <= max(own) < end or own & taken:
                raise PlacementError(
                    f"group {index} {group.config} is on devices {list(group.devices)}, which are "
                    f"not in {first} to {end - 1} or in another group"
                )
            taken |= own

    def __str__(self) -> str:
        runs = itertools.groupby(self.groups, key=lambda group: group.config)
        return "+".join(f"{len(list(run))}x{config}" for config, run in runs) or "empty"


@dataclasses.dataclass(frozen=True)
class Schedule:
    """Placements that replace one another: `placements[i]` serves what arrives after `start_s[i]`.

    The first one also serves everything up to the second start. Switching is free and instant
    (Beta, OSDI 2023, section 6.2: the Clockwork++ baseline).
    """

    start_s: tuple[float, ...]
    placements: tuple[Placement, ...]

    def __post_init__(self) -> None:
        starts = floats("start_s", self.start_s)
        if starts.ndim != 1 or not (np.abs(starts) < MOST_SECONDS).all():
            raise PlacementError(
                f"start_s must be seconds within {MOST_SECONDS:.3g}, got {self.start_s}"
            )
        object.__setattr__(self, "start_s", tuple(starts.tolist()))
        if not self.placements or len(self.start_s) != len(self.placements):
            raise PlacementError("a schedule needs one start time for each of its placements")
        if not all(a < b for a, b in itertools.pairwise(self.start_s)):
            raise PlacementError("the start times of a schedule must increase")

    def check(self, problem: Problem) -> None:
        """Raise PlacementError unless every placement is valid for the problem."""
        for placement in self.placements:
            placement.check(problem)

    def __str__(self) -> str:
        distinct = sorted({str(placement) for placement in self.placements})
        return f"{len(self.placements)} segments of {', '.join(distinct)}"


def _require_whole(index: int, group: Group) -> None:
    try:
        for name, number in zip(("op", "pp"), group.config, strict=False):
            require_whole(name, number, 1, MAX_DEVICES)
        require_whole("pool", group.config.pool, -(2**63))
        for name in ("models", "devices"):
            for number in getattr(group, name):
                require_whole(name, number, -(2**63))
    except ValueError as error:
        raise PlacementError(f"group {index}: {error}") from None


def weight_on_device(problem: Problem, model: Model, config: ParallelConfig) -> int:
    """Bytes that a model's weights take on each device of a group: its largest stage, rounded down.

    Whole bytes make sums exact; rounded down, so that models that fill a device to the last byte
    fit, whatever the parts of a byte that each takes.
    """
    return math.floor(problem.profile.weight_bytes(model.type, config).max())
