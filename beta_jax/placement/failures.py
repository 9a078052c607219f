"""What fails, and when."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import TypeVar

from beta_jax.checks import require_whole, set_numbers
from beta_jax.placement.devices import Devices, node_devices
from beta_jax.placement.placement import PlacementError
from beta_jax.types import MOST_SECONDS, Cluster

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Failure:
    """A group, a device or a node is gone from `start_s` on, and comes back, empty, at `end_s`.

    One of them is given: the position of a group in a placement, or the number of a device or of a
    node in the cluster, its pools one after the other. What fails on the way takes every group
    along that has a device there. Raises ValueError unless it is exactly one, and the end is after
    the start, which is finite and not negative.
    """

    start_s: float
    end_s: float = math.inf
    group: int | None = None
    device: int | None = None
    node: int | None = None

    def __post_init__(self) -> None:
        if sum(which is not None for which in (self.group, self.device, self.node)) != 1:
            raise ValueError("a failure is one of a group, a device or a node")
        set_numbers(self, "start_s", "end_s")
        for name in ("group", "device", "node"):
            if (number := getattr(self, name)) is not None:
                require_whole(name, number, -(2**63))
        end_is_known = self.end_s < MOST_SECONDS or math.isinf(self.end_s)
        if not 0 <= self.start_s < min(self.end_s, MOST_SECONDS) or not end_is_known:
            raise ValueError(
                f"a failure lasts from start_s >= 0 to a later end_s, got {self.start_s} to "
                f"{self.end_s}"
            )

    def devices(self, cluster: Cluster, groups: Sequence[Devices] | None) -> Devices:
        """What is gone; groups: their devices, None where these change.

        Raises PlacementError for what is not there.
        """
        if self.group is not None:
            if groups is None:
                raise PlacementError("where placements change, failures name devices or nodes")
            return _one_of("group", self.group, groups)
        if self.node is not None:
            return tuple(_one_of("node", self.node, node_devices(cluster)))
        assert self.device is not None
        every = range(cluster.num_devices)
        return (_one_of("device", self.device, every),)


def _one_of(kind: str, number: int, there: Sequence[T]) -> T:
    if not 0 <= number < len(there):
        raise PlacementError(f"{kind} {number} cannot fail, there are {len(there)}")
    return there[number]
