"""Robustness to changing traffic (Beta, OSDI 2023, section 6.4; figure `robustness`)."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from experiments import experiment as entry
from experiments.engine.points import Point
from experiments.engine.timing import Stopwatch
from experiments.paper.sec6_2 import COLUMNS, FIRST, ROWS, Swept, base_point, sources, sweep_row
from experiments.report import figures, headline, tables
from experiments.report.figures import Panel

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FILES = (*entry.FILES, headline.FILE, "robustness.pdf", "robustness.png")
PANELS = tuple(Panel(row, label, 0, first) for row, (label, first) in ROWS.items())
COLUMN = COLUMNS["S1@MAF1"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(Swept):
    """Pairs of hours, one to train on and one to test on, over which results are averaged."""

    trace: Annotated[str, "file, folder, or generated: maf1_like"]
    trains: Annotated[tuple[str, ...], "slices that placements are made for"]
    tests: Annotated[tuple[str, ...], "slices that they are tested on, one for each"]
    window_s: Annotated[float, "an arrival process is fitted to windows of this length, s"]
    policies: Annotated[
        tuple[str, ...], "placement policies, a curve each; sr-replace-... trains on the test slice"
    ]


def points(config: Config) -> list[Point]:
    """Raises ValueError unless every training slice has its test slice."""
    if not config.trains:
        raise ValueError("trains is empty: name slices such as 5.8.0-5.9.0, and tests as many")
    if len(config.trains) != len(config.tests):
        raise ValueError(
            f"trains and tests are pairs: {len(config.trains)} and {len(config.tests)} slices given"
        )
    pairs = [
        base_point(
            config,
            COLUMN,
            trace=config.trace,
            complete=True,
            train=train,
            test=test,
            window_s=config.window_s,
        )
        for train, test in zip(config.trains, config.tests, strict=True)
    ]
    return [
        point
        for row in ROWS
        for pair in pairs
        for point in sweep_row(row, config, COLUMN, pair, row, config.policies)
    ]


def execute(config: Config, directory: Path, stopwatch: Stopwatch) -> None:
    """Run all points, store them, print mean attainment and the headline, write the tables."""
    found = entry.execute(points(config), config, directory, stopwatch)
    headline.report(found, FIRST, directory)
    print(f"\nMeans over {len(config.tests)} pairs of slices of {_days(found.rows)}")


def figure(rows: Sequence[Mapping[str, Any]]) -> Figure:
    means = _means(rows)
    notes = [f"means over {len(rows) // len(means)} pairs of slices of {_days(rows)}"]
    return figures.curves_figure(means, PANELS, notes=notes)


def _days(rows: Sequence[Mapping[str, Any]]) -> str:
    """The trace in words, and that `traces.complete` has made it one of fourteen days."""
    trace = sources(rows)
    return trace if trace.endswith("(generated)") else f"{trace}; days that it lacks are generated"


def _means(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The mean row over the pairs, of each replication."""
    alike: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        key = tuple(row[name] for name in ("panel", "x", "policy", "replication"))
        alike.setdefault(key, []).append(row)
    return [
        {**own[0], "slo_attainment": statistics.fmean(float(row["slo_attainment"]) for row in own)}
        for own in alike.values()
    ]


def draw(directory: Path) -> list[Path]:
    rows = tables.read_csv(
        directory / "table.csv", ("trace", "train", "test", "replication", *figures.COLUMNS)
    )
    return figures.save(figure(rows), directory / "robustness")
