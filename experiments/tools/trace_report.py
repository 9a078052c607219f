"""What a trace is like: rate, popularity, burstiness and autocorrelation, of one or several."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any

import numpy as np

from beta_jax import traces
from experiments.engine import files
from experiments.engine.timing import Stopwatch
from experiments.experiment import Task
from experiments.report import figures

FILES = ("trace_report.csv", "statistics.npz", *figures.files_of("trace_report"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """The traces and the slice of them."""

    trace: Annotated[tuple[str, ...], "files, folders, or generated: maf1_like, maf2_like"]
    start: Annotated[str | None, "start of the slice, day.hour.minute; none: of the trace"] = None
    end: Annotated[str | None, "end of the slice, day.hour.minute; none: of the trace"] = None
    seed: Annotated[int, "of generated traces"] = 0

    def __post_init__(self) -> None:
        if not self.trace:
            raise ValueError("trace is empty: of which traces?")


def execute(config: Config, directory: Path, stopwatch: Stopwatch) -> None:
    """Print and write the statistics side by side; keep what the figure needs."""
    statistics = []
    for source in config.trace:
        with stopwatch.part("read"):
            trace = traces.open_trace(source, seed=config.seed)
        with stopwatch.part("measure"):
            statistics.append(traces.Statistics(trace, config.start, config.end))
    table = traces.table(statistics)
    print(table.to_string(float_format=lambda value: f"{value:,.4g}", na_rep="-"))
    files.write(directory / "trace_report.csv", table.to_csv())
    arrays: dict[str, Any] = {
        f"{index}.{name}": value
        for index, each in enumerate(statistics)
        for name, value in vars(each).items()
    }
    whole = io.BytesIO()
    np.savez_compressed(whole, **arrays)
    files.write(directory / "statistics.npz", whole.getvalue())


def draw(directory: Path) -> list[Path]:
    with np.load(directory / "statistics.npz") as arrays:
        count = 1 + max(int(key.split(".")[0]) for key in arrays)
        statistics: list[Any] = [SimpleNamespace() for _ in range(count)]
        for key, value in arrays.items():
            index, name = key.split(".")
            setattr(statistics[int(index)], name, value if value.ndim else value.item())
    return figures.save(traces.figure(statistics), directory / "trace_report")


TASK = Task(files=FILES, run=execute, draw=draw)
