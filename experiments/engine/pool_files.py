"""Files that list the pools of a cluster: a CSV with a header, or a JSON list of objects."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from beta_jax.profiles.profile import Profile, load_profile
from beta_jax.types import GB, Cluster, Pool
from experiments.engine.files import input_path, read_rows


class PoolFileError(ValueError):
    """A file of pools that makes no sense; the message names the file and the pool."""


class PoolSpec(NamedTuple):
    """A pool as a file describes it; all but the first three may be left out.

    profile: a file, or the name of a shipped one. price_per_hour: of a device.
    """

    name: str
    num_devices: int
    profile: str
    memory_gib: float = 13.0
    devices_per_node: int = 8
    price_per_hour: float = math.nan


NUMBERS = {
    "num_devices": int,
    "devices_per_node": int,
    "memory_gib": float,
    "price_per_hour": float,
}


def read_pools(path: Path) -> tuple[PoolSpec, ...]:
    """Read a file of pools. Raises PoolFileError."""
    try:
        rows = read_rows(path)
    except ValueError as error:
        raise PoolFileError(str(error)) from None
    if not rows:
        raise PoolFileError(f"{path}: no pools; a CSV with a header or a JSON list is expected")
    return tuple(_spec(f"{path}, pool {i}", row) for i, row in enumerate(rows, 1))


def read_cluster(path: Path) -> tuple[Cluster, dict[str, Profile]]:
    """The cluster of a file of pools, and the profile of each by name.

    Raises PoolFileError.
    """
    specs = read_pools(path)
    try:
        cluster = Cluster(
            pools=[
                Pool(
                    s.name,
                    s.num_devices,
                    memory_bytes(s.memory_gib),
                    s.devices_per_node,
                    s.price_per_hour,
                )
                for s in specs
            ]
        )
    except ValueError as error:
        raise PoolFileError(f"{path}: {error}") from None
    return cluster, {spec.name: _profile(path, spec) for spec in specs}


def memory_bytes(memory_gib: float) -> float:
    """Raises ValueError, with the name that users know, for what is no memory."""
    if not 0 < memory_gib * GB < math.inf:
        raise ValueError(f"memory_gib must be > 0 and finite, got {memory_gib:g}")
    return memory_gib * GB


def _profile(path: Path, spec: PoolSpec) -> Profile:
    where = f"{path}, pool {spec.name}: profile"
    try:
        return load_profile(input_path(spec.profile))
    except OSError as error:
        raise PoolFileError(f"{where} {spec.profile}: {error.strerror}") from None
    except ValueError as error:
        raise PoolFileError(f"{where}: {error}") from None


def _spec(where: str, row: Any) -> PoolSpec:
    if not isinstance(row, Mapping) or not {*row} <= {*PoolSpec._fields}:
        raise PoolFileError(f"{where}: its columns must be among {', '.join(PoolSpec._fields)}")
    given: dict[str, Any] = {n: value for n, value in row.items() if value not in (None, "")}
    for name in ("name", "num_devices", "profile"):
        if name not in given:
            raise PoolFileError(f"{where} has no {name}")
    for name, kind in NUMBERS.items():
        if name in given:
            try:
                given[name] = kind(given[name])
            except (TypeError, ValueError, OverflowError):
                expected = "a whole number" if kind is int else "a number"
                raise PoolFileError(f"{where}: {name} is {given[name]!r}, not {expected}") from None
    if given["num_devices"] < 1:
        raise PoolFileError(
            f"{where} ({given['name']}) has {given['num_devices']} devices: give it one at least, "
            "or leave it out"
        )
    return PoolSpec(**given | {name: str(given[name]) for name in ("name", "profile")})
