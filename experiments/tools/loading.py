"""What it is worth to place anew, when weights take time to load (figure `loading`)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Annotated

from experiments.engine.points import Point, Replications, sweep
from experiments.engine.scenarios import Replayed, part_of
from experiments.experiment import Experiment, Plot
from experiments.report.figures import Panel


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(Replications, Replayed):
    """The scenario, and what is swept in it."""

    policies: Annotated[tuple[str, ...], "placement policies, a curve each"]
    loads_gib_s: Annotated[tuple[float, ...], "swept load bandwidths of a device, GiB/s"]


def points(config: Config) -> Sequence[Point]:
    base = Replayed(**part_of(Replayed, config))
    return sweep("loading", base, "load_gib_s", config.loads_gib_s, config.policies)


EXPERIMENT = Experiment(
    points=points, plots=[Plot(stem="loading", panels=[Panel("loading", "load_gib_s", 0)])]
)
