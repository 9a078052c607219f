"""The figures of a plan, from its tables alone: never imports JAX."""

from __future__ import annotations

from pathlib import Path

from experiments.report import figures, tables

NAMES = ("history", "devices")
"""Figures that a plan can have, each with the table that it is drawn from."""


def draw(directory: Path) -> list[Path]:
    """Draw, as .pdf and .png, what there are tables for; raises ResultsError, OSError."""
    paths = []
    for name, draw_table in zip(NAMES, (draw_history, draw_devices), strict=True):
        if (table := directory / f"{name}.csv").exists():
            paths += draw_table(table, directory / name)
    return paths


def draw_history(table: Path, stem: Path) -> list[Path]:
    """The best score that each search had after so many simulations.

    table: CSV with policy, num_simulations, best_score. Writes `stem`.pdf and .png; raises
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


def draw_devices(table: Path, stem: Path) -> list[Path]:
    """SLO attainment against the size of the cluster, in training beside that on test traffic.

    table: CSV with num_devices, placement, train_attainment, test_attainment. Writes `stem`.pdf
    and .png; raises ResultsError, OSError.
    """
    columns = {"train_attainment": "Training traffic", "test_attainment": "Test traffic"}
    read = {"num_devices": int, "placement": str} | dict.fromkeys(columns, float)
    given = tables.read_csv(table, read)
    if all(row["train_attainment"] == row["test_attainment"] for row in given):
        columns = {"train_attainment": "Training and test traffic are the same"}
    rows = [
        {"panel": column, "x": row["num_devices"], "policy": row["placement"]}
        | {figures.ATTAINMENT.column: row[column], "replication": 0, "trained_on_test": False}
        for row in given
        for column in columns
    ]
    panels = [figures.Panel(column, "num_devices", 60, title) for column, title in columns.items()]
    names = {row["placement"]: row["placement"] for row in given}
    colours = figures.colours_of(list(names))
    return figures.save(figures.curves_figure(rows, panels, names=names, colours=colours), stem)
