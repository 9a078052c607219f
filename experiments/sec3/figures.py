"""The figures of section 3, by their published names, from the tables alone: never imports JAX."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from experiments import tables
from experiments.figures import BETA_COLOUR, COLOURS, add_note, new_figure, save, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Row = Mapping[str, str]
SIMPLE, PARALLEL, REPLICATION = "Simple Placement", "Model Parallelism", "Replication"
LABELS = {"sr-greedy": SIMPLE, "mp-search": PARALLEL}
COLOUR = {SIMPLE: COLOURS[0], PARALLEL: BETA_COLOUR, REPLICATION: COLOURS[0]}
EXACT = {"color": "black", "linestyle": ":", "linewidth": 1.2}


def latencies(rows: Sequence[Row]) -> dict[str, Figure]:
    """Figure 2, a to c: the share of requests answered within a latency, and mean latencies."""
    cases = list(dict.fromkeys(row["case"] for row in rows))
    return {
        f"illustrative_example_{number}": _latency_figure(
            case, [row for row in rows if row["case"] == case]
        )
        for number, case in enumerate(cases, 1)
    }


def _latency_figure(case: str, rows: Sequence[Row]) -> Figure:
    per_model = "20 %" in case
    with style():
        figure = new_figure(4.6, 3.3)
        axes = figure.subplots()
        for policy, label in LABELS.items():
            for model, dashes in (("all", "-"), ("0", "--"), ("1", "-.")):
                own = [r for r in rows if (r["policy"], r["model"]) == (policy, model)]
                x = [float(r["latency_s"]) for r in own]
                exact = [100 * float(r["quantile_exact"]) for r in own]
                if model != "all" and not per_model:
                    continue
                share = {"all": "", "0": ", the 20 %", "1": ", the 80 %"}[model]
                axes.plot(
                    x,
                    [100 * float(r["quantile"]) for r in own],
                    color=COLOUR[label],
                    linestyle=dashes,
                    linewidth=1.8 if model == "all" else 1.0,
                    label=label + share,
                )
                if model == "all" and exact[-1] == exact[-1]:
                    axes.plot(x, exact, **EXACT, zorder=4)
        axes.set(xlabel="Latency (s)", ylabel="Requests answered within it (%)", ylim=(0, 101))
        axes.set_xscale("log")
        axes.legend(loc="lower right", frameon=False)
        return figure


DRAWINGS: dict[str, Callable[[Sequence[Row]], dict[str, Figure]]] = {
    "two_models_latencies": latencies,
}
FILES = ()


def draw(directory: Path) -> list[Path]:
    """Draw whatever has its table in the directory; raises ResultsError if nothing has."""
    paths = []
    for name, drawing in DRAWINGS.items():
        path = directory / f"{name}.csv"
        if path.exists():
            for stem, figure in drawing(tables.read_csv(path, ())).items():
                paths += save(figure, directory / stem)
    if not paths:
        raise tables.ResultsError(f"{directory} has no tables of section 3; run without --plot_only")
    return paths
