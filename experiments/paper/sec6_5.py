"""Ablation of the placement algorithm (Beta, OSDI 2023, section 6.6; figure `ablation`)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from experiments import experiment as entry
from experiments.engine.points import Point, Replications, Scenario, scenario_of, sweep
from experiments.engine.timing import Stopwatch
from experiments.report import figures, tables
from experiments.report.figures import Panel

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FILES = (*entry.FILES, "ablation.pdf", "ablation.png")
PANELS = (
    Panel("rate", "Total rate (requests/s)", y_min=60, first=max),
    Panel("cv", "CV of the gaps between arrivals", y_min=60, first=max),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(Replications, Scenario):
    """The base scenario and what is swept around it; an empty list leaves its panel out."""

    policies: Annotated[tuple[str, ...], "placement policies, a curve each"]
    rates: Annotated[tuple[float, ...], "swept total rates, requests/s"]
    cvs: Annotated[tuple[float, ...], "swept CVs"]
    train: Annotated[
        Literal["fresh", "test"],
        "training traffic: fresh, max(100, 30000 / rate) s long, as in the released code; or the "
        "test traffic itself, as in the published points",
    ] = "fresh"


def points(config: Config) -> list[Point]:
    base, policies = scenario_of(config), config.policies
    swept = [
        *sweep("rate", base, "rate_rps", config.rates, policies),
        *sweep("cv", base, "cv", config.cvs, policies),
    ]
    if config.train == "test":
        return swept
    return [_trained_afresh(point) for point in swept]


def _trained_afresh(point: Point) -> Point:
    assert isinstance(point.scenario, Scenario)
    train_duration_s = max(100.0, 30_000.0 / point.scenario.rate_rps)
    scenario = dataclasses.replace(point.scenario, train_duration_s=train_duration_s)
    return dataclasses.replace(point, scenario=scenario)


def execute(config: Config, directory: Path, stopwatch: Stopwatch) -> None:
    """Run all points, store them, print their attainment and write the tables."""
    entry.execute(points(config), config, directory, stopwatch)


def figure(rows: Sequence[Mapping[str, Any]]) -> Figure:
    return figures.curves_figure(rows, PANELS, names={"mp-search-sep": figures.GROUPED})


def draw(directory: Path) -> list[Path]:
    rows = tables.read_csv(directory / "table.csv", figures.COLUMNS)
    return figures.save(figure(rows), directory / "ablation")
