"""An experiment is a value, points and plots; how it is run, reported and drawn is here, once."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from experiments.engine.executor import Embedded, Executor, ExecutorError
from experiments.engine.points import Point, Replications
from experiments.engine.store import FILE, Store
from experiments.engine.timing import Stopwatch
from experiments.report import figures, headline, results, tables
from experiments.report.figures import ATTAINMENT, Panel, Quantity
from experiments.report.results import Results
from experiments.report.tables import Row

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Runnable(Protocol):
    """What a config runs: it computes into a folder, and draws what it finds there."""

    @property
    def files(self) -> Sequence[str]:
        """Names of all files that it may write into its folder, or patterns of them."""

    def execute(
        self, config: Any, directory: Path, stopwatch: Stopwatch, executor: Executor
    ) -> None:
        """Compute, print what came out, and write the tables. Raises ValueError, OSError."""

    def draw(self, directory: Path) -> list[Path]:
        """Write the figures, from the tables alone and without JAX; returns their paths.

        Raises ResultsError, OSError.
        """


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """A `Runnable` that is not made of points, from its functions; it runs in this process."""

    files: Sequence[str]
    run: Callable[[Any, Path, Stopwatch], None]
    draw: Callable[[Path], list[Path]]

    def execute(
        self, config: Any, directory: Path, stopwatch: Stopwatch, executor: Executor
    ) -> None:
        if not isinstance(executor, Embedded):
            raise ExecutorError(
                "this config is not made of points: it runs with --executor=embedded only"
            )
        self.run(config, directory, stopwatch)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plot:
    """A figure of a table: a quantity against what is swept, a curve per policy.

    stem: name of its files. panels: none for one per panel of the table. names: what it calls a
    policy, where it differs from `figures.display_name`. colours: see `figures.curves_figure`.
    """

    stem: str
    panels: Sequence[Panel] = ()
    quantity: Quantity = ATTAINMENT
    names: Mapping[str, str] = dataclasses.field(default_factory=dict)
    colours: Mapping[str, str] = dataclasses.field(default_factory=dict)
    columns_per_row: int = figures.COLUMNS_PER_ROW

    def draw(self, rows: Sequence[Row], notes: Sequence[str]) -> Figure | None:
        """None if no row lies in its panels."""
        swept = dict.fromkeys((row["panel"], row["x_name"]) for row in rows)
        panels = self.panels or [Panel(*of, title=of[0]) for of in swept]
        if not {panel.name for panel in panels} & {panel for panel, _ in swept}:
            return None
        return figures.curves_figure(
            rows,
            panels,
            self.quantity,
            self.names,
            self.colours,
            columns_per_row=self.columns_per_row,
            notes=notes,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment:
    """Simulated points and how they are drawn: a `Runnable` of a few lines.

    points: the points of a config, which is a dataclass that extends `Replications`. headline: also
    tell by what factor Beta sustains more than the baselines. notes: what readers must know of a
    table, besides what every report and figure says.

    A figure of your own is one file in `configs/`: docs/extending.md has one.
    """

    points: Callable[[Any], Sequence[Point]]
    plots: Sequence[Plot]
    headline: bool = False
    notes: Callable[[Sequence[Row]], Sequence[str]] = lambda _: ()

    @property
    def files(self) -> Sequence[str]:
        drawn = figures.files_of(*(plot.stem for plot in self.plots))
        return [*results.FILES, FILE, *([headline.FILE] if self.headline else []), *drawn]

    def run(
        self, config: Replications, store: Store, stopwatch: Stopwatch, executor: Executor
    ) -> Results:
        """Compute what the store lacks of the points. Raises what `runner.run_points` raises."""
        with stopwatch.imports():
            from experiments.engine import runner
        found = runner.run_points(self.points(config), config, store, stopwatch, executor)
        return Results(found, config, self.figure)

    def execute(
        self, config: Replications, directory: Path, stopwatch: Stopwatch, executor: Executor
    ) -> None:
        """Also keeps every result as soon as it is computed, for a run that is interrupted."""
        found = self.run(config, open_store(directory), stopwatch, executor)
        found.save(directory)
        found.report()
        named = {policy: name for plot in self.plots for policy, name in plot.names.items()}
        if line := figures.legend((result.point.policy for result in found.results), named):
            print(f"\n{line}")
        if self.headline:
            headline.report(found, directory)
        for note in self.notes(found.rows):
            print(f"\n{note}")

    def figure(self, rows: Sequence[Row]) -> Figure:
        """The first of the figures that the rows have; raises ResultsError if they have none."""
        for plot in self.plots:
            if (figure := plot.draw(rows, self.notes(rows))) is not None:
                return figure
        raise tables.ResultsError("no plot of this experiment has a panel for these points")

    def draw(self, directory: Path) -> list[Path]:
        rows = tables.read_csv(directory / "table.csv", figures.COLUMNS)
        paths = []
        for plot in self.plots:
            stem = directory / plot.stem
            if (figure := plot.draw(rows, self.notes(rows))) is not None:
                paths += figures.save(figure, stem)
            else:
                figures.remove(stem)
        return paths


def open_store(directory: Path) -> Store:
    """The results stored in a directory, with a warning if some of them were damaged."""
    store = Store(directory / FILE)
    if store.damaged:
        lines = "1 line" if store.damaged == 1 else f"{store.damaged} lines"
        print(
            f"warning: {lines} of {directory / FILE} were damaged and are gone; "
            f"{len(store.records)} sound results are kept",
            file=sys.stderr,
        )
    return store
