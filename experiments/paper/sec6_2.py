"""End-to-end results on replayed traces (Beta, OSDI 2023, section 6.2; figures `goodput_vs_*`)."""

from __future__ import annotations

from collections.abc import Sequence

from experiments.engine.points import Point
from experiments.experiment import Experiment, Plot
from experiments.paper.replays import (
    COLUMNS,
    SWEPT,
    EndToEnd,
    base_point,
    short_training,
    sources,
    sweep_row,
)
from experiments.report.figures import Panel
from experiments.report.tables import Row

REPLACE_S = {"maf1": 60, "maf2": 21600}
"""How often Clockwork++ places anew."""


def points(config: EndToEnd) -> list[Point]:
    """Raises ValueError for a column that is not there."""
    if not config.columns:
        raise ValueError(f"columns is empty; there are {', '.join(COLUMNS)}")
    if unknown := [name for name in config.columns if name not in COLUMNS]:
        raise ValueError(f"unknown column {unknown[0]!r}; there are {', '.join(COLUMNS)}")
    found = []
    for name in config.columns:
        column = COLUMNS[name]
        replay = {
            field: getattr(config, f"{column.trace}_{field}")
            for field in ("train", "test", "window_s", "train_window_s")
        }
        base = base_point(config, column, trace=getattr(config, column.trace), **replay)
        beta = column.beta
        if config.tolerance:
            beta += f"-within-{round(1e6 * config.tolerance)}"
        published = ("sr-greedy", f"sr-replace-{REPLACE_S[column.trace]}", beta)
        for field in SWEPT:
            policies = config.policies or published
            found += sweep_row(f"{name} {field}", config, column, base, field, policies)
    return found


def notes(rows: Sequence[Row]) -> list[str]:
    return [*short_training(rows), f"traces: {sources(rows)}"]


def _plot(field: str) -> Plot:
    panels = [Panel(f"{name} {field}", field, title=name) for name in COLUMNS]
    return Plot(stem=f"goodput_vs_{field}", panels=panels, columns_per_row=3)


EXPERIMENT = Experiment(points=points, plots=[*map(_plot, SWEPT)], headline=True, notes=notes)
