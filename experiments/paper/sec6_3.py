"""Serving very large models (Beta, OSDI 2023, section 6.3; figure `large_model_exp`)."""

from __future__ import annotations

import dataclasses
from typing import Annotated

from experiments.engine.points import Point, Replications, sweep
from experiments.engine.scenarios import Scenario, scenario_of
from experiments.experiment import Experiment, Plot
from experiments.report.figures import Panel

PANELS = (
    Panel("rate", "rate_rps", y_min=60),
    Panel("cv", "cv", y_min=60),
    Panel("slo", "slo_scale"),
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


EXPERIMENT = Experiment(points=points, plots=[Plot(stem="large_model_exp", panels=PANELS)])
