"""Why model parallelism helps (Beta, OSDI 2023, section 3): figures 2, 4 to 9, and the theory."""

from __future__ import annotations

from pathlib import Path

from experiments import experiment as entry
from experiments.engine import files
from experiments.engine.store import FILE
from experiments.engine.timing import Stopwatch
from experiments.paper.sec3 import figures
from experiments.paper.sec3.config import Config
from experiments.report import tables

__all__ = ["FILES", "Config", "draw", "execute"]

FILES = (FILE, *figures.FILES)


def execute(config: Config, directory: Path, stopwatch: Stopwatch) -> None:
    """Run the panel groups asked for; print their tables and write them."""
    with stopwatch.imports():
        from experiments.paper.sec3 import groups
    for name, rows in groups.run(config, entry.open_store(directory), stopwatch):
        files.write(directory / f"{name}.csv", tables.to_csv(rows))


def draw(directory: Path) -> list[Path]:
    return figures.draw(directory)
