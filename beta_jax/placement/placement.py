"""Placements: which groups a cluster is cut into and which models each hosts; schedules of them."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from beta_jax.placement.problem import Problem
from beta_jax.types import Model, ParallelConfig

FORMAT, VERSION = "beta_jax.placement", 1


class PlacementError(ValueError):
    """A placement that breaks a rule of the cluster, or a file that does not describe one."""


@dataclasses.dataclass(frozen=True)
class Group:
    """Devices running one configuration; `models` are the indices of the models that share it."""

    config: ParallelConfig
    models: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "config", ParallelConfig(*self.config))
        object.__setattr__(self, "models", tuple(sorted(self.models)))


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

    def check(self, problem: Problem) -> None:
        """Raise PlacementError unless the placement is valid for the problem.

        Valid: at most the cluster's devices, no model twice in a group, every hosted model profiled
        at its group's configuration, and each group's weights within the memory of a device.
        """
        cluster, profile = problem.cluster, problem.profile
        if self.num_devices > cluster.num_devices:
            raise PlacementError(f"{self} uses {self.num_devices} devices of {cluster.num_devices}")
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
            if used > cluster.memory_bytes:
                raise PlacementError(
                    f"{where} needs {used / 2**30:.2f} GiB of weights on a device, "
                    f"which has {cluster.memory_bytes / 2**30:.2f} GiB"
                )

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


def weight_on_device(problem: Problem, model: Model, config: ParallelConfig) -> int:
    """Bytes that a model's weights take on each device of a group: its largest stage, rounded.

    Whole bytes make sums exact, so that models that fill a device exactly fit.
    """
    return round(float(problem.profile.weight_bytes(model.type, config).max()))


def save_placement(
    path: str | os.PathLike[str], placement: Placement | Schedule, models: tuple[Model, ...]
) -> None:
    """Write a placement or schedule, with its models, as JSON. Written whole or not at all."""

    def groups(static: Placement) -> list[dict[str, Any]]:
        return [
            {"op": g.config.op, "pp": g.config.pp, "models": [models[m].name for m in g.models]}
            for g in static.groups
        ]

    document: dict[str, Any] = {"format": FORMAT, "version": VERSION}
    document["models"] = [
        {"name": m.name, "type": m.type, "slo_s": m.slo_s if math.isfinite(m.slo_s) else "inf"}
        for m in models
    ]
    if isinstance(placement, Schedule):
        document["segments"] = [
            {"start_s": start, "groups": groups(static)}
            for start, static in zip(placement.start_s, placement.placements, strict=True)
        ]
    else:
        document["groups"] = groups(placement)
    path = Path(path)
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps(document, indent=1) + "\n")
    temporary.replace(path)


def load_placement(path: str | os.PathLike[str]) -> tuple[Placement | Schedule, tuple[Model, ...]]:
    """Read what `save_placement` writes. Raises PlacementError naming the file and the place."""
    try:
        document = json.loads(Path(path).read_text())
    except ValueError as error:
        raise PlacementError(f"{path}: not JSON: {error}") from None
    header = {"format": FORMAT, "version": VERSION}
    if not isinstance(document, dict) or not header.items() <= document.items():
        raise PlacementError(f"{path}: not a placement file (needs {json.dumps(header)})")
    with _place(path, "models"):
        models = tuple(Model(m["name"], m["type"], float(m["slo_s"])) for m in document["models"])
        index = {model.name: i for i, model in enumerate(models)}
        if len(index) < len(models):
            raise ValueError("two models have the same name")
    if "segments" not in document:
        return _read_groups(path, document, index, ""), models
    with _place(path, "segments"):
        starts = tuple(float(segment["start_s"]) for segment in document["segments"])
        placements = tuple(
            _read_groups(path, segment, index, f"segment {number}, ")
            for number, segment in enumerate(document["segments"])
        )
        return Schedule(starts, placements), models


def _read_groups(
    path: str | os.PathLike[str], owner: dict[str, Any], index: dict[str, int], where: str
) -> Placement:
    groups = []
    with _place(path, f"{where}groups"):
        for number, row in enumerate(owner["groups"]):
            with _place(path, f"{where}group {number}"):
                config = ParallelConfig(int(row["op"]), int(row["pp"]))
                if min(config) < 1:
                    raise ValueError("op and pp must be >= 1")
                groups.append(Group(config, tuple(index[name] for name in row["models"])))
    return Placement(tuple(groups))


@contextlib.contextmanager
def _place(path: str | os.PathLike[str], place: str) -> Iterator[None]:
    """Name the file and the place in it in whatever goes wrong inside."""
    try:
        yield
    except PlacementError as error:
        named = str(error).startswith(str(path))
        raise PlacementError(str(error) if named else f"{path}: {place}: {error}") from None
    except KeyError as error:
        raise PlacementError(f"{path}: {place}: unknown or missing {error}") from None
    except (TypeError, ValueError) as error:
        raise PlacementError(f"{path}: {place}: {error}") from None
