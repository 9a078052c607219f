"""Between placements as values, as arrays for the simulator and searches, and as documents."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from beta_jax.placement.placement import Group, Placement
from beta_jax.types import ParallelConfig


class Arrays(NamedTuple):
    """Placements as arrays, groups in their order, then places without a group.

    hosted: bool [lane, group, model]. config: int32 [lane, group], an index into the codec's
    configurations, or their number where there is no group.
    """

    hosted: NDArray[np.bool_]
    config: NDArray[np.int32]


class Codec:
    """Encodes placements of at most `num_groups` groups, of `num_models` models, at `configs`."""

    def __init__(self, configs: Sequence[ParallelConfig], num_models: int, num_groups: int) -> None:
        self.configs, self.num_groups = list(configs), num_groups
        self.no_group = len(self.configs)
        self._num_models = num_models
        self._index = {config: index for index, config in enumerate(self.configs)}

    def encode(self, placements: Iterable[Placement]) -> Arrays:
        """Raises KeyError for a configuration that the codec does not have."""
        return self.encode_groups([(g.config, g.models) for g in p.groups] for p in placements)

    def encode_groups(
        self, lanes: Iterable[Iterable[tuple[ParallelConfig, Sequence[int]]]]
    ) -> Arrays:
        """The same of groups that need not be placements: with what they may come to host."""
        lanes = list(lanes)
        hosted = np.zeros((len(lanes), self.num_groups, self._num_models), np.bool_)
        config = np.full((len(lanes), self.num_groups), self.no_group, np.int32)
        for lane, groups in enumerate(lanes):
            for place, (own, models) in enumerate(groups):
                hosted[lane, place, list(models)] = True
                config[lane, place] = self._index[own]
        return Arrays(hosted, config)

    def decode(self, hosted: ArrayLike, config: ArrayLike) -> Placement:
        """One placement, from bool [group, model] and int [group]; only groups that exist."""
        return Placement(
            tuple(
                Group(self.configs[c], tuple(np.flatnonzero(models).tolist()))
                for models, c in zip(np.asarray(hosted), np.asarray(config).tolist(), strict=True)
                if c != self.no_group
            )
        )


def groups_to_document(
    placement: Placement,
    name: Callable[[int], str | int] = int,
    pools: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """The groups as JSON; models by what `name` makes of their index, pools by their names.

    With less than two pools none is named. Raises IndexError for a group in a pool beyond them.
    """
    several = len(pools) > 1
    return [
        {"op": g.config.op, "pp": g.config.pp}
        | ({"pool": pools[g.config.pool]} if several or g.config.pool else {})
        | {"models": [name(m) for m in g.models]}
        | ({"devices": [*g.devices]} if g.devices else {})
        for g in placement.groups
    ]


def group_from_document(
    row: Mapping[str, Any], index: Callable[[Any], int] = int, pools: Sequence[str] = ()
) -> Group:
    """A group of `groups_to_document`, in the first pool if it names none.

    Raises KeyError, TypeError and ValueError.
    """
    pool = 0
    if "pool" in row:
        if row["pool"] not in pools:
            known = f"pools are {', '.join(pools)}" if pools else "no pools are known"
            raise ValueError(f"unknown pool {row['pool']!r}; {known}")
        pool = pools.index(row["pool"])
    config = ParallelConfig(int(row["op"]), int(row["pp"]), pool)
    if min(config.op, config.pp) < 1:
        raise ValueError("op and pp must be >= 1")
    devices = tuple(int(device) for device in row.get("devices", ()))
    return Group(config, tuple(index(model) for model in row["models"]), devices)
