"""The figures of plans and of searches, from their tables alone: never imports JAX."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.report import figures, tables

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

POOL = "num_devices_"
"""Before the name of a pool, in columns of plans for several."""
QUESTIONS = {
    "devices": ("num_devices", "Devices"),
    "rate": ("rate", "Rate scale"),
    "slo": ("slo", "Factor of the SLO"),
    "cv": ("cv", "Factor of the CV"),
}
"""The column that each varies, and what the figure calls it."""
PLAN_FILES = figures.files_of(*(f"plan_{name}" for name in QUESTIONS))


def draw(directory: Path) -> list[Path]:
    """Draw how searches went on; raises ResultsError, OSError."""
    table = directory / "history.csv"
    return draw_history(table, directory / "history") if table.exists() else []


def draw_history(table: Path, stem: Path) -> list[Path]:
    """The best score that each search had after so many simulations.

    table: CSV with policy, num_simulations, best_score. Writes the figure `stem`; raises
    ResultsError, OSError.
    """
    rows = tables.read_csv(table, {"policy": str, "num_simulations": int, "best_score": float})
    policies = list(dict.fromkeys(row["policy"] for row in rows))
    with figures.style():
        figure = figures.new_figure(4.8, 2.8)
        axes = figure.subplots()
        for policy, colour in figures.colours_of(policies).items():
            own = [row for row in rows if row["policy"] == policy]
            axes.step(
                [row["num_simulations"] for row in own],
                [100 * row["best_score"] for row in own],
                where="post",
                color=colour,
                label=policy,
            )
        best = [100 * row["best_score"] for row in rows]
        low, high = min(*best, max(best) - 1), max(best)  # less than 1 % looks like little
        axes.set(xscale="log", xlabel="Simulations", ylabel="Best training score (%)")
        axes.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))
        axes.ticklabel_format(axis="y", useOffset=False)
        figure.legend(loc="outside upper center", ncols=len(policies), frameon=False)
        return figures.save(figure, stem)


def draw_plan(directory: Path) -> list[Path]:
    """Draw a figure per question of a plan; raises ResultsError, OSError.

    Reads plan.csv: question, what varies, price_per_hour, attainment, low, high, target, answer,
    frontier.
    """
    columns: tables.Columns = {
        **{"question": str, "answer": tables.truth, "frontier": tables.truth},
        **dict.fromkeys(("attainment", "low", "high", "target", "price_per_hour"), float),
    }
    rows = tables.read_csv(directory / "plan.csv", columns)
    paths = []
    for question in QUESTIONS:
        stem = directory / f"plan_{question}"
        own = [row for row in rows if row["question"] == question]
        figures.remove(stem)
        if own:
            pools = [name for name in own[0] if name.startswith(POOL)]
            figure = _draw_mixes(own, pools) if pools else _draw_question(own, question)
            paths += figures.save(figure, stem)
    return paths


def _draw_question(rows: Sequence[tables.Row], question: str) -> Figure:
    """Attainment against what a question varies, with intervals."""
    column, label = QUESTIONS[question]
    rows = sorted(rows, key=lambda row: float(row[column]))
    with figures.style():
        figure = figures.new_figure(4.8, 3.0)
        axes = figure.subplots()
        _marks(axes, rows, [float(row[column]) for row in rows], figures.BETA_COLOUR, "", "-")
        _finish(figure, axes, rows, label)
        best = next((float(row[column]) for row in rows if row["answer"]), None)
        if question != "devices" and best is not None:  # all rates there are would hide it
            axes.set_xlim(0.5 * best, 2 * best)
        return figure


def _draw_mixes(rows: Sequence[tables.Row], pools: Sequence[str]) -> Figure:
    """Attainment against cost, of clusters of one pool and of several; the cheapest to reach it."""
    groups = {name: [r for r in rows if _only(r, name, pools)] for name in pools}
    mixed = [row for row in rows if sum(int(row[name]) > 0 for name in pools) > 1]
    with figures.style():
        figure = figures.new_figure(5.6, 3.4)
        axes = figure.subplots()
        for (name, own), colour in zip(groups.items(), figures.COLOURS, strict=False):
            own = sorted(own, key=lambda row: row["price_per_hour"])
            prices = [row["price_per_hour"] for row in own]
            _marks(axes, own, prices, colour, f"{name.removeprefix(POOL)} alone", "--")
        if mixed:
            prices = [row["price_per_hour"] for row in mixed]
            _marks(axes, mixed, prices, figures.BETA_COLOUR, "mixed", "")
        edge = [row for row in rows if row["frontier"]]
        axes.scatter(
            [row["price_per_hour"] for row in edge],
            [100 * row["attainment"] for row in edge],
            s=60,
            facecolors="none",
            edgecolors="0.4",
            linewidths=0.8,
            label=f"fewest {pools[0].removeprefix(POOL)}",
            zorder=4,
        )
        first, *others = (name.removeprefix(POOL) for name in pools)
        note = f"circles: the fewest {first} that meet it, for each number of {', '.join(others)}"
        _finish(figure, axes, rows, "Price per hour", [note] if edge else [])
        return figure


def _only(row: tables.Row, name: str, pools: Sequence[str]) -> bool:
    return all((int(row[other]) > 0) == (other == name) for other in pools)


def _marks(
    axes: Axes, rows: Sequence[tables.Row], x: Sequence[float], colour: str, label: str, line: str
) -> None:
    """Means with their intervals."""
    mean = [100 * row["attainment"] for row in rows]
    below = [m - 100 * row["low"] for m, row in zip(mean, rows, strict=True)]
    above = [100 * row["high"] - m for m, row in zip(mean, rows, strict=True)]
    axes.errorbar(
        x,
        mean,
        yerr=[below, above],
        color=colour,
        label=label or None,
        linestyle=line or "none",
        linewidth=1.0,
        marker="o",
        markersize=3.5,
        elinewidth=0.8,
        capsize=2,
    )


def _finish(
    figure: Figure,
    axes: Axes,
    rows: Sequence[tables.Row],
    label: str,
    notes: Sequence[str] = (),
) -> None:
    """The target, the answer and the axes."""
    target = 100 * rows[0]["target"]
    axes.axhline(target, color="0.5", linewidth=0.8, linestyle=":")
    for row in rows:
        if row["answer"]:
            column = next((c for c, name in QUESTIONS.values() if name == label), "price_per_hour")
            axes.plot(
                float(row[column]),
                100 * row["attainment"],
                marker="*",
                markersize=10,
                color="black",
                linestyle="none",
                label="answer",
                zorder=5,
            )
    axes.set(xlabel=label, ylabel="SLO attainment (%)")
    # What lies far below the target says little: the boundary is what is asked for.
    low = max(min(100 * row["low"] for row in rows), 100 - 12 * (100 - target), 0)
    axes.set_ylim(low - 0.05 * (100 - low), 100 + 0.05 * (100 - low))
    if axes.get_legend_handles_labels()[0]:
        figure.legend(loc="outside upper center", ncols=3, frameon=False)
    figures.add_note(figure, [f"dotted: the target, {target:g} %; bars: 95 % intervals", *notes])
