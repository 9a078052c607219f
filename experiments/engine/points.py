"""The points that every figure and sweep is a list of, and what each of them comes to."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, NamedTuple

from experiments.engine.scenarios import BaseScenario
from experiments.engine.store import Record


class Case(NamedTuple):
    """What the result of a point depends on."""

    policy: str
    scenario: BaseScenario


class Place(NamedTuple):
    """Where in a figure: its panel, the field that is along x, and x."""

    panel: str
    x_name: str
    x: float


@dataclasses.dataclass(frozen=True)
class Point:
    """A mark of a figure: `policy` in `scenario`, drawn in `panel` at `x` (the field `x_name`)."""

    panel: str
    x_name: str
    x: float
    policy: str
    scenario: BaseScenario

    @property
    def place(self) -> Place:
        return Place(self.panel, self.x_name, self.x)


class PointResult(NamedTuple):
    """A replication of a point: its scenario with the seeds used, and what was stored of it."""

    point: Point
    replication: int
    scenario: BaseScenario
    record: Record


MOST_SEEDS = 10_000
"""Independent replications of a point."""


def require_seeds(seeds: int) -> None:
    if seeds < 1:
        raise ValueError(f"seeds must be >= 1, got {seeds}")
    if seeds > MOST_SEEDS:
        raise ValueError(f"seeds must be <= {MOST_SEEDS}, got {seeds}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Replications:
    """How often every point is simulated, with other traffic each time; a part of all configs."""

    seeds: Annotated[int, "independent replications; 2 or more give 95 % intervals"] = 1
    until_decided: Annotated[
        float | None,
        "stop before `seeds` where every two policies are told apart, or are within this of each "
        "other in SLO attainment; none: run all seeds",
    ] = None

    def __post_init__(self) -> None:
        require_seeds(self.seeds)
        if self.until_decided is not None and not self.until_decided >= 0:
            raise ValueError(f"until_decided must be >= 0, got {self.until_decided}")


def sweep(
    panel: str, base: BaseScenario, x_name: str, values: Iterable[Any], policies: Sequence[str]
) -> list[Point]:
    """The points of a panel: every policy at every value of one field of the base scenario.

    Raises ValueError for a field that the scenario does not have.
    """
    fields = [field.name for field in dataclasses.fields(base)]
    if x_name not in fields:
        there_are = f"there are {', '.join(fields)}"
        raise ValueError(f"panel {panel}: no field {x_name!r} to sweep; {there_are}")
    return [
        Point(panel, x_name, x, policy, dataclasses.replace(base, **{x_name: x}))
        for x in values
        for policy in policies
    ]
