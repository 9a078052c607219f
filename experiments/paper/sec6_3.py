"""Serving very large models (Beta, OSDI 2023, section 6.3; figure `large_model_exp`)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from experiments import experiment as entry
from experiments.engine.points import Point, Replications, Scenario, scenario_of, sweep
from experiments.engine.timing import Stopwatch
from experiments.report import figures, tables
from experiments.report.figures import Panel

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FILES = (*entry.FILES, "large_model_exp.pdf", "large_model_exp.png")
PANELS = (
    Panel("rate", "Total rate (requests/s)", y_min=60, first=max),
    Panel("cv", "CV of the gaps between arrivals", y_min=60, first=max),
    Panel("slo", "SLO scale (x single-device latency)", y_min=0, first=min),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(Replications, Scenario):
    """The base scenario and what is swept around it; an empty list leaves its panel out."""

    policies: Annotated[tuple[str, ...], "placement policies, a curve each"]
    rates: Annotated[tuple[float, ...], "swept total rates, requests/s"]
    cvs: Annotated[tuple[float, ...], "swept CVs"]
    slo_scales: Annotated[tuple[float, ...], "swept SLO scales"]


def points(config: Config) -> list[Point]:
    base, policies = scenario_of(config), config.policies
    return [
        *sweep("rate", base, "rate_rps", config.rates, policies),
        *sweep("cv", base, "cv", config.cvs, policies),
        *sweep("slo", base, "slo_scale", config.slo_scales, policies),
    ]


def execute(config: Config, directory: Path, stopwatch: Stopwatch) -> None:
    """Run all points, store them, print their attainment and write the tables."""
    entry.execute(points(config), config, directory, stopwatch)


def figure(rows: Sequence[Mapping[str, Any]]) -> Figure:
    return figures.curves_figure(rows, PANELS)


def draw(directory: Path) -> list[Path]:
    rows = tables.read_csv(directory / "table.csv", figures.COLUMNS)
    return figures.save(figure(rows), directory / "large_model_exp")
