"""Fits the linear model of an LLM engine's step to kernel time tables or to measured steps."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np

from experiments.engine import files
from experiments.engine.timing import Stopwatch
from experiments.experiment import Task
from experiments.report import figures, tables
from experiments.report.tables import Columns, Row

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ENGINES = "*-linear.json"
FILES = (ENGINES, "coefficients.csv", "errors.csv", "steps.csv", *figures.files_of("llm_fit"))
MEANING = {
    "base_ps": "each step",
    "prefill_token_ps": "each token of a request that is given more than one",
    "cached_token_ps": "each cached token of a request that is given one",
    "decode_ps": "each request that is given one token",
}
STEPS: Columns = {
    **{"kind": str, "prefill_tokens": int, "cached_tokens": int, "decodes": int},
    **{"time_s": float, "fitted_s": float},
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """What steps take, by tables or as measured."""

    source: Annotated[str, "a run's folder, an engine with tables (JSON), or measured steps (CSV)"]
    number: Annotated[int, "random steps that tables price"] = 4000
    seed: Annotated[int, "of the random steps"] = 0

    def __post_init__(self) -> None:
        if self.number < 4:
            raise ValueError(f"number must be >= 4 to fit 4 coefficients, got {self.number}")


def execute(config: Config, directory: Path, stopwatch: Stopwatch) -> None:
    """Fit, print coefficients and errors, and write them, the steps and the engine."""
    with stopwatch.imports():
        from beta_jax import llm
    source = files.input_path(config.source)
    if not source.exists():
        raise ValueError(f"--config.source={config.source}: there is no such file or folder")
    engine = None
    try:
        if source.suffix == ".csv":
            shape, time_ps = llm.read_steps(source)
        else:
            engine = llm.load_engine(source)
            if isinstance(engine.step_time, llm.LinearStepTime):
                raise llm.LLMError(f"{source}: its step time is linear already")
            shape = llm.random_steps(engine, config.number, config.seed)
            time_ps = engine.step_time.step_ps(shape)
        with stopwatch.part("fit"):
            fit = llm.fit_linear(shape, time_ps)
        for stale in directory.glob(ENGINES):
            stale.unlink()
        path = directory / f"{source.resolve().stem}-linear.json"
        if engine is not None:
            # The batch simulator, whose engine this is, reuses no prefixes.
            linear = dataclasses.replace(engine, step_time=fit.step_time, prefix_caching=False)
            llm.save_engine(linear, path)
    except llm.LLMError as error:
        raise ValueError(str(error)) from None
    coefficients = [
        {"coefficient": name, "picoseconds": value, "for": MEANING[name]}
        for name, value in dataclasses.asdict(fit.step_time).items()
    ]
    kind = np.where(shape.decodes == 0, "prefill", "decode and prefill")
    kind = np.where(shape.prefill_tokens == 0, "decode", kind)
    columns = {
        "kind": kind.tolist(),
        "prefill_tokens": np.asarray(shape.prefill_tokens).tolist(),
        "cached_tokens": np.asarray(shape.cached).tolist(),
        "decodes": np.asarray(shape.decodes).tolist(),
        "time_s": (time_ps / 1e12).tolist(),
        "fitted_s": (fit.step_time.step_ps(shape) / 1e12).tolist(),
    }
    steps = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    found = errors(steps)
    for name, rows in (("coefficients", coefficients), ("errors", found), ("steps", steps)):
        files.write(directory / f"{name}.csv", tables.to_csv(rows))
    print(tables.to_text(coefficients))
    print("\nFitted over given, less 1: size (%)")
    print(tables.to_text(found))
    if engine is not None:
        print(
            f"\n{path} is the engine with these coefficients, without prefix reuse; errors are of "
            f"{config.number} random steps.\nA fit to the steps of one run would weigh others, and "
            "its coefficients differ."
        )


def errors(steps: list[Row]) -> list[Row]:
    """Sizes of relative errors, by what a step does."""
    kinds = [*dict.fromkeys(row["kind"] for row in steps), "all"]
    rows = []
    for kind in kinds:
        own = [row for row in steps if kind in (row["kind"], "all")]
        size = [100 * abs(row["fitted_s"] / row["time_s"] - 1) for row in own]
        row: Row = {"steps": kind, "number": len(own)}
        for name, at in (("median", 0.5), ("p90", 0.9), ("p99", 0.99)):
            row[f"{name}_error_percent"] = float(np.quantile(size, at))
        rows.append(row)
    return rows


def draw(directory: Path) -> list[Path]:
    rows = tables.read_csv(directory / "steps.csv", STEPS)
    return figures.save(comparison(rows), directory / "llm_fit")


def comparison(rows: list[Row]) -> Figure:
    """Fitted over given, by what was given."""
    with figures.style():
        figure = figures.new_figure(6.4, 3.4)
        axes = figure.subplots()
        colours = figures.colours_of(list(dict.fromkeys(row["kind"] for row in rows)))
        for index, (kind, colour) in enumerate(colours.items()):
            own = [row for row in rows if row["kind"] == kind]
            axes.plot(
                [1000 * row["time_s"] for row in own],
                [row["fitted_s"] / row["time_s"] for row in own],
                linestyle="",
                marker=figures.MARKERS[index % len(figures.MARKERS)],
                markersize=2,
                alpha=0.5,
                color=colour,
                label=kind,
            )
        axes.axhline(1, color="0.5", linewidth=0.8, zorder=1)
        axes.set(xscale="log", xlabel="Step (ms)", ylabel="Linear model over given")
        figures.plain_numbers(axes.xaxis)
        figure.legend(loc="outside upper center", ncols=3, frameon=False, markerscale=3)
        return figure


TASK = Task(files=FILES, run=execute, draw=draw)
