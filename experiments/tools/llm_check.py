"""How far the simulated engine is from a real one that served the same requests."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from experiments.engine import files
from experiments.engine.timing import Stopwatch
from experiments.experiment import Task
from experiments.report import figures, tables
from experiments.report.tables import Columns, Row

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from beta_jax.llm import Engine, Measured, Outcome, TokenRequests

QUANTITIES = {"ttft": "TTFT", "tpot": "TPOT", "latency": "End to end"}
QUANTILES = (0.5, 0.9, 0.99)
TABLES, LINEAR, WITHOUT = "tables", "linear model", "without prefix reuse"
ROWS: Columns = {"id": int, "model": str} | {
    f"{source}{name}_s": float for source in ("measured_", "") for name in QUANTITIES
}
LINES = (("-", 2), ("--", 1.2), (":", 1.2))
"""Of models, in their order, so that one shows under another."""
SIGNED = ("mean", "p50", "p90", "p99")
FILES = ("table.csv", "compared.csv", *figures.files_of("llm_check"))
LIMITS = """
What it predicts: who waits for whom, what each step works on, when blocks run out, who is taken
back and computed anew, and how long steps take on the device whose kernel times were given.
What it does not: time outside of steps (network, tokens to text, an engine's own overhead), clocks
that fall with heat, and any engine, model or device but those of the tables. On one recorded run of
vLLM 0.19.0 (RTX 4090, KV blocks as measured) these rules were within 0.5 % end to end, on two
others -1.8 and +1.0 %; an independent study of an older version of the simulator they come from
found a median error of 19 % on other hardware. Check yours before you trust it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Requests, what a real engine did with them, and the engine to simulate."""

    run: Annotated[str, "folder with requests.csv and measured.csv, and an engine's tables"]
    engine: Annotated[str | None, "engine (JSON); none: the one of the folder"] = None
    measured: Annotated[str | None, "another table of what was measured"] = None


def execute(config: Config, directory: Path, stopwatch: Stopwatch) -> None:
    """Simulate by the engine's tables and by the linear model, compare, and write the tables."""
    with stopwatch.imports():
        from beta_jax import llm
    folder = files.input_path(config.run)
    if not folder.is_dir():
        raise ValueError(f"--config.run={config.run}: there is no such folder: docs/llm.md")
    try:
        with stopwatch.part("read"):
            requests = llm.load_token_requests(folder / "requests.csv")
            given = folder if config.engine is None else files.input_path(config.engine)
            engine = llm.load_engine(given)
            engine.require_room(requests)
            table = config.measured and files.input_path(config.measured)
            measured = llm.read_measured(table or folder / "measured.csv")
        if measured.request[-1] >= len(requests):
            raise llm.LLMError(
                f"measured: id is {measured.request[-1]}, but there are {len(requests)} requests"
            )
        outcomes = {}
        with stopwatch.part("simulate"):
            models = _models(engine, requests)
            for name, (own, served) in tqdm(models.items(), leave=False, disable=None):
                outcomes[name] = llm.simulate(served, own)
    except llm.LLMError as error:
        raise ValueError(str(error)) from None
    for line in doubts(requests, measured):
        print(f"warning: {line}", file=sys.stderr)
    compared = errors(outcomes, measured)
    files.write(directory / "table.csv", tables.to_csv(compared))
    files.write(directory / "compared.csv", tables.to_csv(_rows(outcomes, measured)))
    report(compared, outcomes, measured)


def _models(engine: Engine, requests: TokenRequests) -> dict[str, tuple[Engine, TokenRequests]]:
    """The engine as it is given first; then what is simpler."""
    from beta_jax import llm

    given = isinstance(engine.step_time, llm.StepTables)
    found = {TABLES if given else LINEAR: (engine, requests)}
    if given:
        shape = llm.random_steps(engine)
        fit = llm.fit_linear(shape, engine.step_time.step_ps(shape))
        found[LINEAR] = dataclasses.replace(engine, step_time=fit.step_time), requests
    if engine.prefix_caching and requests.prefixes is not None:
        found[WITHOUT] = dataclasses.replace(engine, prefix_caching=False), requests
    return found


def doubts(requests: TokenRequests, measured: Measured) -> list[str]:
    """A line for each reason why the comparison may not be of the same requests."""
    found = []
    other = int((requests.output_tokens[measured.request] != measured.output_tokens).sum())
    if other:
        found.append(f"{other} requests were answered with another number of tokens than simulated")
    if missing := len(requests) - len(measured.request):
        found.append(f"{missing} of {len(requests)} requests were not measured: not compared")
    arrival = requests.arrival_ns[measured.request] / 1e9
    late = np.abs((measured.queued_s - measured.queued_s[0]) - (arrival - arrival[0])).max()
    if late > max(0.01 * float(np.mean(measured.latency_s)), 1e-3):
        found.append(f"requests came to the real engine up to {late:.3g} s from when they should")
    return found


def errors(outcomes: dict[str, Outcome], measured: Measured) -> list[Row]:
    """Simulated over measured, less 1, by model and quantity: of the mean and of quantiles."""
    rows = []
    for model, outcome in outcomes.items():
        for name, title in QUANTITIES.items():
            theirs, ours = _values(measured, name), _values(outcome, name)[measured.request]
            row: Row = {"model": model, "quantity": title, "measured_mean_s": float(theirs.mean())}
            row["simulated_mean_s"] = float(ours.mean())
            row["mean_error_percent"] = _percent(ours.mean(), theirs.mean())
            for at in QUANTILES:
                row[f"p{100 * at:g}_error_percent"] = _percent(
                    np.quantile(ours, at), np.quantile(theirs, at)
                )
            own = theirs > 0
            each = np.abs(ours[own] / theirs[own] - 1)
            row["median_request_error_percent"] = (
                100 * float(np.median(each)) if own.any() else float("nan")
            )
            rows.append(row)
    return rows


def _values(source: Any, name: str) -> NDArray[np.float64]:
    return getattr(source, f"{name}_s")


def _percent(ours: float, theirs: float) -> float:
    return 100 * float(ours / theirs - 1) if theirs else float("nan")


def _rows(outcomes: dict[str, Outcome], measured: Measured) -> list[Row]:
    columns = {
        (model, name): _values(outcome, name)[measured.request].tolist()
        for model, outcome in outcomes.items()
        for name in QUANTITIES
    }
    theirs = {name: _values(measured, name).tolist() for name in QUANTITIES}
    return [
        {"id": number, "model": model}
        | {f"measured_{name}_s": theirs[name][at] for name in QUANTITIES}
        | {f"{name}_s": columns[model, name][at] for name in QUANTITIES}
        for model in outcomes
        for at, number in enumerate(measured.request.tolist())
    ]


def report(compared: list[Row], outcomes: dict[str, Outcome], measured: Measured) -> None:
    print(f"{len(measured.request)} requests; simulated over measured, less 1 (%)")
    print(tables.to_text([_shown(row) for row in compared]))
    first, outcome = next(iter(outcomes.items()))
    print(
        f"\n{first}: {outcome.steps} steps in {outcome.calls} scheduler calls, "
        f"{outcome.preemptions} preemptions, {outcome.recomputed_tokens} tokens computed anew"
    )
    print(LIMITS)


def _shown(row: Row) -> Row:
    return {
        name.removesuffix("_percent"): f"{value:+.2f}" if name.startswith(SIGNED) else value
        for name, value in row.items()
    }


def draw(directory: Path) -> list[Path]:
    rows = tables.read_csv(directory / "compared.csv", ROWS)
    return figures.save(distributions(rows), directory / "llm_check")


def distributions(rows: list[Row]) -> Figure:
    """Shares of requests within a time, measured and simulated."""
    with figures.style():
        figure = figures.new_figure(9.6, 3.2)
        models = list(dict.fromkeys(row["model"] for row in rows))
        colours = figures.colours_of(models)
        for axes, (name, title) in zip(
            figure.subplots(1, 3, sharey=True), QUANTITIES.items(), strict=True
        ):
            first = [row for row in rows if row["model"] == models[0]]
            measured = np.sort([row[f"measured_{name}_s"] for row in first])
            in_ms = measured[-1] < 1
            factor = 1000 if in_ms else 1
            share = np.arange(1, len(measured) + 1) / len(measured)
            axes.step(factor * measured, share, color="0.75", linewidth=4, label="measured")
            for model, (line, width) in zip(models, LINES, strict=False):
                own = np.sort([row[f"{name}_s"] for row in rows if row["model"] == model])
                look: Any = {"color": colours[model], "linestyle": line, "linewidth": width}
                axes.step(factor * own, share, label=model, **look)
            axes.set_xlabel(f"{title} ({'ms' if in_ms else 's'})")
            axes.set_ylim(0, 1.02)
        figure.axes[0].set_ylabel("Share of requests")
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=4, frameon=False)
        return figure


TASK = Task(files=FILES, run=execute, draw=draw)
