"""Ablation of the placement algorithm (Beta, OSDI 2023, section 6.6, the artifact's 6.5)."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Literal

from experiments.engine.points import Point, Replications, sweep
from experiments.engine.scenarios import Scenario, scenario_of
from experiments.experiment import Experiment, Plot
from experiments.report.figures import GROUPED, Panel

PANELS = (Panel("rate", "rate_rps", y_min=60), Panel("cv", "cv", y_min=60))


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
    rates = sweep("rate", base, "rate_rps", config.rates, policies)
    found = [*rates, *sweep("cv", base, "cv", config.cvs, policies)]
    return found if config.train == "test" else [*map(_trained_afresh, found)]


def _trained_afresh(point: Point) -> Point:
    assert isinstance(point.scenario, Scenario)
    train_duration_s = max(100.0, 30_000.0 / point.scenario.rate_rps)
    scenario = dataclasses.replace(point.scenario, train_duration_s=train_duration_s)
    return dataclasses.replace(point, scenario=scenario)


ABLATION = Plot(stem="ablation", panels=PANELS, names={"mp-search-sep": GROUPED})
EXPERIMENT = Experiment(points=points, plots=[ABLATION])
