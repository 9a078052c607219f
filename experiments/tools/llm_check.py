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
LINES = (("-", 1.6), ("--", 1.2), (":", 1.6))
"""Of models, in their order, so that one shows under another."""
SIGNED = ("mean", "p50", "p90", "p99")
HELD = "requests.csv, measured.csv and, without --config.engine, run.json and kernel time tables"
FILES = ("table.csv", "compared.csv", *figures.files_of("llm_check"))
ALL = "all"
FEW = 30
"""Requests of a class whose errors tell little."""
LIMITS = """
Simulated: who waits for whom, what each step works on, when blocks run out, who is taken back and
computed anew. Not simulated: time outside of steps (network, tokens to text, an engine's own
overhead), clocks that fall with heat. Nothing is said of any other engine, model, device or rate
than those of this run."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Requests, what a real engine did with them, and the engine to simulate."""

    run: Annotated[str, "folder with requests.csv and measured.csv, and an engine's tables"]
    engine: Annotated[str | None, "engine (JSON); none: the one of the folder"] = None
    measured: Annotated[str | None, "another table of what was measured"] = None
    ttft_limit_s: Annotated[
        float, "errors are told apart of requests whose measured TTFT is below, and of the others"
    ] = 2.0

    def __post_init__(self) -> None:
        if not 0 < self.ttft_limit_s < float("inf"):
            raise ValueError(f"ttft_limit_s must be > 0 seconds, got {self.ttft_limit_s}")


def execute(config: Config, directory: Path, stopwatch: Stopwatch) -> None:
    """Simulate by the engine's tables and by the linear model, compare, and write the tables."""
    with stopwatch.imports():
        from beta_jax import llm
    folder = files.input_path(config.run)
    if not folder.is_dir():
        raise ValueError(
            f"--config.run={config.run}: no such folder; give one that holds {HELD} (docs/files.md)"
        )
    if missing := [name for name in _needed(config) if not (folder / name).is_file()]:
        raise ValueError(
            f"--config.run={config.run}: lacks {missing[0]}; such a folder holds {HELD} "
            "(docs/files.md)"
        )
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
    compared = errors(outcomes, measured, config.ttft_limit_s)
    files.write(directory / "table.csv", tables.to_csv(compared))
    files.write(directory / "compared.csv", tables.to_csv(_rows(outcomes, measured)))
    report(compared, outcomes, measured, config.ttft_limit_s)


def _needed(config: Config) -> list[str]:
    own = ["requests.csv"]
    own += ["measured.csv"] if config.measured is None else []
    return own + (["run.json"] if config.engine is None else [])


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


def errors(
    outcomes: dict[str, Outcome], measured: Measured, ttft_limit_s: float = 2.0
) -> list[Row]:
    """Simulated over measured, less 1, of the mean and of quantiles.

    By class of requests (all; those whose measured TTFT is below the limit; the others, classes
    that are empty left out), model and quantity.
    """
    below = measured.ttft_s < ttft_limit_s
    classes = {ALL: np.ones_like(below), f"TTFT < {ttft_limit_s:g} s": below}
    classes[f"TTFT >= {ttft_limit_s:g} s"] = ~below
    return [
        {"requests": title, "number": int(chosen.sum()), "model": model}
        | _errors(QUANTITIES[name], _values(outcome, name)[measured.request][chosen], theirs)
        for title, chosen in classes.items()
        if chosen.any()
        for model, outcome in outcomes.items()
        for name in QUANTITIES
        for theirs in [_values(measured, name)[chosen]]
    ]


def _errors(quantity: str, ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> Row:
    row: Row = {"quantity": quantity, "measured_mean_s": float(theirs.mean())}
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
    return row


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


def report(
    compared: list[Row], outcomes: dict[str, Outcome], measured: Measured, ttft_limit_s: float
) -> None:
    print(f"{len(measured.request)} requests; simulated over measured, less 1 (%)")
    for title in dict.fromkeys(row["requests"] for row in compared):
        own = [row for row in compared if row["requests"] == title]
        print(f"\n{own[0]['number']} requests" + (f", {title}" if title != ALL else ""))
        print(tables.to_text([_shown(row) for row in own]))
    first, outcome = next(iter(outcomes.items()))
    print(
        f"\n{first}: {outcome.steps} steps in {outcome.calls} scheduler calls, "
        f"{outcome.preemptions} preemptions, {outcome.recomputed_tokens} tokens computed anew"
    )
    print("", *conclusions(compared, len(measured.request), ttft_limit_s), sep="\n")
    print(LIMITS)


def conclusions(compared: list[Row], number: int, ttft_limit_s: float) -> list[str]:
    """What the comparison is worth, in sentences about this run."""
    limit = f"{ttft_limit_s:g} s"
    below = [row for row in compared if row["requests"] == f"TTFT < {limit}"]
    served = below[0]["number"] if below else 0
    found = [f"In this run {served} of {number} requests had their first token within {limit}."]
    if served < number / 2:
        found.append(
            "Most had not: it is an overload, and errors over all requests are those of a long "
            "queue.\nThey say little of rates that the engine stands: record a run at one of these."
        )
    if 0 < served < FEW:
        found.append(f"With {served} requests errors below {limit} are hardly known.")
    for row in below:
        if row["quantity"] == QUANTITIES["ttft"]:
            mean, each = row["mean_error_percent"], row["median_request_error_percent"]
            found.append(
                f"{row['model']}: of these the mean TTFT is {mean:+.1f} % off, and that of half of "
                f"the requests more than {each:.1f} %."
            )
    return found


def _shown(row: Row) -> Row:
    return {
        name.removesuffix("_percent"): f"{value:+.2f}" if name.startswith(SIGNED) else value
        for name, value in row.items()
        if name not in ("requests", "number")
    }


def draw(directory: Path) -> list[Path]:
    rows = tables.read_csv(directory / "compared.csv", ROWS)
    return figures.save(deviations(rows), directory / "llm_check")


def deviations(rows: list[Row]) -> Figure:
    """How far off each quantile is, over the measured one: curves of the shares would coincide."""
    with figures.style():
        figure = figures.new_figure(9.6, 3.2)
        models = list(dict.fromkeys(row["model"] for row in rows))
        colours = figures.colours_of(models)
        for axes, (name, title) in zip(figure.subplots(1, 3), QUANTITIES.items(), strict=True):
            first = [row for row in rows if row["model"] == models[0]]
            measured = np.sort([row[f"measured_{name}_s"] for row in first])
            own = measured > 0
            in_ms = measured[-1] < 1
            axes.axhline(0, color="0.6", linewidth=0.8, zorder=1)
            for model, (line, width) in zip(models, LINES, strict=False):
                simulated = np.sort([row[f"{name}_s"] for row in rows if row["model"] == model])
                look: Any = {"color": colours[model], "linestyle": line, "linewidth": width}
                error = 100 * (simulated[own] / measured[own] - 1)
                axes.plot((1000 if in_ms else 1) * measured[own], error, label=model, **look)
            axes.set_xscale("log")
            figures.plain_numbers(axes.xaxis)
            axes.set_xlabel(f"Measured {title if title.isupper() else title.lower()}")
            axes.set_xlabel(f"{axes.get_xlabel()} ({'ms' if in_ms else 's'})")
        figure.axes[0].set_ylabel("Simulated over measured, less 1 (%)")
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=3, frameon=False)
        figures.add_note(
            figure, ["quantile by quantile: the shortest with the shortest, and so on"]
        )
        return figure


TASK = Task(files=FILES, run=execute, draw=draw)
