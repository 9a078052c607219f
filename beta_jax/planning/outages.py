"""N - 1: how a placement serves with one node down for the whole workload.

At most one node is down at a time. Worth more than the worst case is the mean over what may be
down, weighted by how often that is: a device is down for mttr / (mtbf + mttr) of the time.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import ArrayLike, NDArray

from beta_jax.checks import require_numbers
from beta_jax.placement.devices import node_devices, number_devices
from beta_jax.placement.placement import Placement
from beta_jax.types import Cluster


def one_node_down(cluster: Cluster, placement: Placement) -> list[Placement]:
    """The placement without each node in turn: groups with a device there host nothing."""
    devices = number_devices(cluster, placement)
    found = []
    for node in node_devices(cluster):
        groups = (
            group if {*node}.isdisjoint(own) else dataclasses.replace(group, models=())
            for group, own in zip(placement.groups, devices, strict=True)
        )
        found.append(Placement(tuple(groups)))
    return found


HOURS = (1e-6, 1e9)
"""Between which devices fail, and are repaired: beyond, shares of time are none of a float64."""


def node_weights(cluster: Cluster, mtbf_h: float, mttr_h: float) -> NDArray[np.float64]:
    """How often each node is the one that is down, and at last none, float64 [node + 1]; sums to 1.

    mtbf_h, mttr_h: of a device, mean hours between failures and to repair. A node is down if one of
    its devices is. Raises ValueError unless both are within `HOURS`.
    """
    require_numbers(mtbf_h=mtbf_h, mttr_h=mttr_h)
    low, high = HOURS
    if not (low <= mtbf_h <= high and low <= mttr_h <= high):
        raise ValueError(
            f"mtbf_h and mttr_h must be > 0 and finite, from {low:g} to {high:g}, got {mtbf_h} and "
            f"{mttr_h}"
        )
    available = mtbf_h / (mtbf_h + mttr_h)
    up = np.array([available ** len(node) for node in node_devices(cluster)])
    weights = np.append((1 - up) / up, 1.0)
    return weights / weights.sum()


def weighted(
    cluster: Cluster, down: ArrayLike, whole: float, mtbf_h: float, mttr_h: float
) -> float:
    """Attainment over all times, from that with each node down and with none."""
    values = np.append(np.asarray(down, np.float64), whole)
    return float(node_weights(cluster, mtbf_h, mttr_h) @ values)
