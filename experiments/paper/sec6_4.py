"""Robustness to changing traffic (Beta, OSDI 2023, section 6.4; figure `robustness`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from experiments.engine.points import Point
from experiments.experiment import Experiment, Plot
from experiments.paper.replays import COLUMNS, SWEPT, Robustness, base_point, sources, sweep_row
from experiments.report.figures import Panel
from experiments.report.tables import Row

COLUMN = COLUMNS["S1@MAF1"]


def points(config: Robustness) -> list[Point]:
    """Raises ValueError unless every training slice has its test slice."""
    if not config.trains:
        raise ValueError("trains is empty: name slices such as 5.8.0-5.9.0, and tests as many")
    if len(config.trains) != len(config.tests):
        raise ValueError(
            f"trains and tests are pairs: {len(config.trains)} and {len(config.tests)} slices given"
        )
    replay = {"trace": config.trace, "complete": True, "window_s": config.window_s}
    pairs = [
        base_point(config, COLUMN, train=train, test=test, **replay)
        for train, test in zip(config.trains, config.tests, strict=True)
    ]
    return [
        point
        for field in SWEPT
        for pair in pairs
        for point in sweep_row(field, config, COLUMN, pair, field, config.policies)
    ]


def notes(rows: Sequence[Row]) -> list[str]:
    """How many pairs a mark is the mean of, and of which trace."""
    alike = Counter((row["panel"], row["x"], row["policy"], row["replication"]) for row in rows)
    return [f"means over {max(alike.values())} pairs of slices of {sources(rows)}"]


ROBUSTNESS = Plot(stem="robustness", panels=[Panel(field, field) for field in SWEPT])
EXPERIMENT = Experiment(points=points, plots=[ROBUSTNESS], headline=True, notes=notes)
