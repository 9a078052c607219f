"""Serving very large models (Beta, OSDI 2023, section 6.3; figure `large_model_exp`)."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

from experiments.figures import Panel, draw_attainment
from experiments.points import Point, Scenario, scenario_of, sweep
from experiments.timing import Stopwatch

PANELS = (
    Panel("rate", "Total rate (requests/s)", y_min=60, first=max),
    Panel("cv", "CV of the gaps between arrivals", y_min=60, first=max),
    Panel("slo", "SLO scale (x single-device latency)", y_min=0, first=min),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(Scenario):
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
    """Run all points, print their attainment, write table.csv and placements.json."""
    with stopwatch.imports():
        from experiments import runner
    results = runner.run_points(points(config), stopwatch)
    runner.save(results, directory)


def draw(directory: Path) -> list[Path]:
    return draw_attainment(directory / "table.csv", PANELS, directory / "large_model_exp")
