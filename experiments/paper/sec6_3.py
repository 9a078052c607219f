"""Serving very large models (Beta, OSDI 2023, section 6.3; figure `large_model_exp`)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from experiments.engine.points import Point, Replications, sweep
from experiments.engine.scenarios import Scenario, scenario_of
from experiments.experiment import Experiment, Plot
from experiments.report.figures import Panel
from experiments.report.tables import Row

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


SPLITS = "(p,o): p pipeline stages, o operator-parallel devices; in tables (data,o,p)"
SHIPPED, LARGE = "v100.json", "bert-103.5b"


def notes(rows: Sequence[Row]) -> list[str]:
    """What pairs of numbers mean, and what SLO scales multiply for a model too large for a device.

    The latter of the shipped profile only: what others take for it, they say themselves.
    """
    split = any(row["policy"].startswith("mp-equal-") for row in rows)
    found = [SPLITS] if split else []
    types = {kind for row in rows for kind in row.get("model_types", "").split(",")}
    if types == {LARGE} and all(Path(row["profile"]).name == SHIPPED for row in rows):
        found.append("SLO scale 1: 4.6 s (Table 1)")
    return found


PLOT = Plot(stem="large_model_exp", panels=PANELS)
EXPERIMENT = Experiment(points=points, plots=[PLOT], notes=notes)
