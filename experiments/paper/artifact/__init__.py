"""The published artifact as a whole: every section of its page, and what is claimed of each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from experiments.engine.files import write
from experiments.engine.timing import Stopwatch
from experiments.experiment import Task
from experiments.paper.artifact import claims, sections
from experiments.paper.artifact.sections import Config, Section
from experiments.report import tables

__all__ = ["Config", "Section", "task"]

SECTIONS, CLAIMS, PAGE = "sections.csv", "claims.csv", "table.md"


def task(known: Sequence[Section]) -> Task:
    """A `Runnable` of these sections."""

    def execute(config: Config, directory: Path, stopwatch: Stopwatch) -> None:
        """Run the sections asked for, each in a folder of its own; print and write the table."""
        chosen = choose(known, config)
        with stopwatch.part("sections"):
            progress = sections.run(chosen, config, directory)
        usage = {section.name: progress.usage(section.name) for section in known}
        ran = sections.rows(chosen, config, directory, usage)
        with stopwatch.part("compare"):
            found = claims.compare(directory, [section.name for section in chosen])
        write(directory / SECTIONS, tables.to_csv(ran))
        write(directory / CLAIMS, tables.to_csv(found))
        write(directory / PAGE, claims.markdown(ran, found))
        print(f"\n{claims.text(ran, found)}")

    def draw(directory: Path) -> list[Path]:
        """No figure of its own: those of the sections are in their folders."""
        tables.read_csv(directory / CLAIMS, {"claim": str})
        return []

    own = (SECTIONS, CLAIMS, PAGE, sections.PROGRESS)
    inner = (f"{section.name}/{file}" for section in known for file in section.files)
    return Task(files=(*own, *inner), run=execute, draw=draw)


def choose(known: Sequence[Section], config: Config) -> list[Section]:
    """In the page's order; raises ValueError for a section that is not there, or lacks its data."""
    names = [section.name for section in known]
    if unknown := [name for name in config.sections if name not in names]:
        raise ValueError(f"no section is called {unknown[0]!r}; there are {', '.join(names)}")
    chosen = [section for section in known if section.name in config.sections]
    lacking = [s for s in chosen if s.needs and getattr(config, s.needs) is None]
    for section in lacking:
        print(f"left out: {section.name}, which needs --config.{section.needs}")
    return [section for section in chosen if section not in lacking]
