"""Why model parallelism helps (Beta, OSDI 2023, section 3): figures 2, 4 to 9, and the theory."""

from __future__ import annotations

from pathlib import Path

from experiments.engine.executor import Executor
from experiments.engine.files import write
from experiments.engine.store import FILE
from experiments.engine.timing import Stopwatch
from experiments.experiment import open_store
from experiments.paper.sec3 import figures
from experiments.paper.sec3.config import Config
from experiments.report import tables

__all__ = ["SECTION", "Config"]


class Section:
    """Panel groups, most of them made of points: a `Runnable`."""

    files = (FILE, *figures.FILES)

    def execute(
        self, config: Config, directory: Path, stopwatch: Stopwatch, executor: Executor
    ) -> None:
        """Run the panel groups asked for; print their tables and write them."""
        with stopwatch.imports():
            from experiments.paper.sec3 import groups
        for name, rows in groups.run(config, open_store(directory), stopwatch, executor):
            write(directory / f"{name}.csv", tables.to_csv(rows))

    def draw(self, directory: Path) -> list[Path]:
        return figures.draw(directory)


SECTION = Section()
