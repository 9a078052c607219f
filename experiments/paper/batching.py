"""Dynamic batching (Beta, OSDI 2023, section 6.5; figure `batching`)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from experiments.engine.points import Point, Replications, sweep
from experiments.engine.scenarios import Scenario, scenario_of
from experiments.experiment import Experiment, Plot
from experiments.report import figures
from experiments.report.figures import Panel
from experiments.report.tables import Row

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BETA = "mp-search"
SMALL = 2
"""All policies are shown with batches up to this, Beta with all that are asked for."""
SIZE = "batches of up to "
PANELS = (Panel("beta", "slo_scale", title="Beta"), Panel("all", "slo_scale", title="All policies"))
COLOURS = {
    "SR": "#0072b2",
    "SR (2)": "#56b4e9",
    "Clockwork++": "#009e73",
    "Clockwork++ (2)": "#8fd3bd",
    "Beta (2)": "#e69f00",
    "Beta (4)": "#cc79a7",
    "Beta (8)": "#7f7f7f",
    "Beta (16)": "#000000",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(Replications, Scenario):
    """The scenario, and what is swept in it."""

    policies: Annotated[tuple[str, ...], "placement policies, compared with batches of up to 2"]
    max_batches: Annotated[tuple[int, ...], "largest batches, a curve of mp-search each"]
    slo_scales: Annotated[tuple[float, ...], "swept SLO scales"]


def points(config: Config) -> list[Point]:
    """A panel, and so a printed table, per largest batch; the figure puts them together."""
    found = []
    for size in config.max_batches:
        rules = dataclasses.replace(config.rules, max_batch=size)
        base = dataclasses.replace(scenario_of(config), rules=rules)
        policies = config.policies if size <= SMALL else (BETA,)
        found += sweep(f"{SIZE}{size}", base, "slo_scale", config.slo_scales, policies)
    return found


@dataclasses.dataclass(frozen=True, kw_only=True)
class ByBatch(Plot):
    """A curve per policy and largest batch, Beta's with all of them in a panel of their own."""

    def draw(self, rows: Sequence[Row], notes: Sequence[str]) -> Figure | None:
        drawn: list[Row] = []
        for row in rows:
            size = int(row["panel"].removeprefix(SIZE))
            curve = figures.display_name(row["policy"]) + f" ({size})" * (size > 1)
            if row["policy"] == BETA:
                drawn.append(row | {"panel": "beta", "policy": curve})
            if size <= SMALL:
                drawn.append(row | {"panel": "all", "policy": curve})
        return super().draw(drawn, notes)


def _notes(_: Sequence[Row]) -> list[str]:
    return ["(n): up to n requests are served together; where there is none, one at a time"]


BATCHING = ByBatch(stem="batching", panels=PANELS, colours=COLOURS)
EXPERIMENT = Experiment(points=points, plots=[BATCHING], notes=_notes)
