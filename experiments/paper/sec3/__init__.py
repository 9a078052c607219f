"""Why model parallelism helps (Beta, OSDI 2023, section 3): figures 2, 4 to 9, and the theory."""

from __future__ import annotations

from pathlib import Path

from experiments.engine.files import write
from experiments.engine.store import FILE
from experiments.engine.timing import Stopwatch
from experiments.experiment import Task, open_store
from experiments.paper.sec3 import figures
from experiments.paper.sec3.config import Config
from experiments.report import tables

__all__ = ["TASK", "Config"]


def execute(config: Config, directory: Path, stopwatch: Stopwatch) -> None:
    """Run the panel groups asked for; print their tables and write them."""
    with stopwatch.imports():
        from experiments.paper.sec3 import groups
    for name, rows in groups.run(config, open_store(directory), stopwatch):
        write(directory / f"{name}.csv", tables.to_csv(rows))


TASK = Task(files=(FILE, *figures.FILES), execute=execute, draw=figures.draw)
