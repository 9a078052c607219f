"""The figures of engines that serve language models, from their tables alone: never imports JAX."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from experiments.report import figures, tables
from experiments.report.tables import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STEMS = ("llm", "llm_engines")
FILES = figures.files_of(*STEMS)
LEAST_LATE = 0.1
"""Percent: less is drawn as this."""


class _Panel(NamedTuple):
    """Columns, each with what the legend says of it, and how they are shown."""

    label: str
    columns: Sequence[tuple[str, str, str]]  # column, line style, name
    limit: str
    factor: float = 1.0
    log: bool = False


PANELS = (
    _Panel("Within both limits (%)", [("attainment", "-", "")], "target", 100.0),
    _Panel(
        "Time to first token (s)",
        [("ttft_mean_s", "-", "mean"), ("ttft_p99_s", "--", "99th percentile")],
        "ttft_limit_s",
        log=True,
    ),
    _Panel(
        "Time per token (ms)",
        [("tpot_mean_s", "-", "mean"), ("tpot_p99_s", "--", "99th percentile")],
        "tpot_limit_s",
        1000.0,
    ),
)
NUMBERS = ("rate_rps", "seeds", "ttft_limit_s", "tpot_limit_s", "target")


def draw(directory: Path) -> list[Path]:
    """Curves over the rate, and over the number of engines if it was asked for.

    Reads curves.csv; raises ResultsError, OSError.
    """
    drawn = [name for panel in PANELS for name, *_ in panel.columns]
    ends = [f"{name}_{end}" for name in drawn for end in ("low", "high")]
    columns: tables.Columns = {
        "engine": str,
        "num_engines": int,
        **dict.fromkeys((*NUMBERS, *drawn, *ends), float),
    }
    rows = tables.read_csv(directory / "curves.csv", columns)
    swept = {(row["engine"], row["rate_rps"]): row for row in rows if row["num_engines"] == 1}
    paths = _draw_rates([*swept.values()], directory)
    figures.remove(directory / "llm_engines")
    # The service's rate is the one that several engines were tried at.
    service = {row["rate_rps"] for row in rows if row["num_engines"] > 1}
    if service:
        asked = [row for row in rows if row["rate_rps"] in service]
        paths += _draw_engines(asked, directory / "llm_engines")
    return paths


def _draw_rates(rows: Sequence[Row], directory: Path) -> list[Path]:
    engines = list(dict.fromkeys(row["engine"] for row in rows))
    with figures.style():
        figure = figures.new_figure(10.0, 3.2)
        for axes, panel in zip(figure.subplots(1, len(PANELS)), PANELS, strict=True):
            for engine, colour in figures.colours_of(engines).items():
                own = [row for row in rows if row["engine"] == engine]
                label = engine if panel is PANELS[0] else ""
                _curves(axes, panel, sorted(own, key=lambda r: r["rate_rps"]), colour, label)
            limit = panel.factor * rows[0][panel.limit]
            drawn = [panel.factor * row[name] for row in rows for name, *_ in panel.columns]
            if limit < 1.5 * max(drawn):  # or it binds nowhere, and would only flatten the curves
                axes.axhline(limit, color="0.5", linewidth=0.8, linestyle=":")
            axes.set(xlabel="Requests/s", ylabel=panel.label)
            axes.set_xlim(0, None)
            if panel.log:
                axes.set_yscale("log")
                figures.plain_numbers(axes.yaxis)
            else:
                axes.set_ylim(0, None)
            if len(panel.columns) > 1:
                for _, line, name in panel.columns:
                    axes.plot([], [], color="0.3", linestyle=line, label=name)
                axes.legend(frameon=False, fontsize="x-small")
        _late_scale(figure.axes[0], rows)
        _answers(figure.axes[0], directory, figures.colours_of(engines), rows[0]["target"])
        _legend(figure, figure.axes[0], 4)
        seeds = int(max(row["seeds"] for row in rows))
        bands = [f"bands: 95 % intervals of the mean over {seeds} seeds"] if seeds > 1 else []
        lines = "diamond: the highest rate; dotted: the target, and limits that bind"
        figures.add_note(figure, [lines, *bands])
        return figures.save(figure, directory / "llm")


def _late_scale(axes: Axes, rows: Sequence[Row]) -> None:
    """Attainment by the share that is late, on a logarithmic scale: near 100 % is what matters."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    late = 100 - 100 * min(rows[0]["target"], *(row["attainment"] for row in rows))
    least = min(LEAST_LATE, (100 - 100 * rows[0]["target"]) / 10)
    axes.set_yscale(
        "function",
        functions=(
            lambda share: -np.log10(np.maximum(100 - share, least)),
            lambda value: 100 - 10.0**-value,
        ),
    )
    axes.set_ylim(100 - min(100, 1.2 * late), 100 - least)
    axes.yaxis.set_major_locator(FixedLocator([0, 50, 90, 95, 99, *{99.5, 99.9, 100 - least}]))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(
        FuncFormatter(lambda y, _: f"{y:g}" if y < 100 - least else f"{y:g}+")
    )


def _answers(axes: Axes, directory: Path, colours: dict[str, str], target: float) -> None:
    """The highest rates, where the curves cross the target."""
    columns: tables.Columns = {"engine": str, "question": str, "answer": str}
    for row in tables.read_csv(directory / "answers.csv", columns):
        if row["question"] == "rate" and math.isfinite(rate := float(row["answer"])):
            look: Any = {"color": colours[row["engine"]], "marker": "D", "markersize": 5}
            axes.plot([rate], [100 * target], linestyle="", zorder=5, **look)
            axes.annotate(
                f"{rate:.2f}", (rate, 100 * target), (5, 4), textcoords="offset points", size=7
            )


def _curves(
    axes: Axes, panel: _Panel, rows: Sequence[Row], colour: str, label: str, x: str = "rate_rps"
) -> None:
    whole = x == "num_engines"  # nothing lies between
    at = [row[x] for row in rows]
    for column, line, _ in panel.columns:
        values, low, high = (
            [panel.factor * row[name] for row in rows]
            for name in (column, f"{column}_low", f"{column}_high")
        )
        axes.plot(
            at,
            values,
            color=colour,
            linestyle="" if whole else line,
            linewidth=1.3,
            marker="o",
            markersize=4 if whole else 3,
            clip_on=False,
            label=label or None,
        )
        if panel.log:  # an interval that reaches 0 has no place there
            low = [max(a, b / 10) for a, b in zip(low, values, strict=True)]
        if column == "attainment":
            low, high = ([min(max(x, 0), 100) for x in ends] for ends in (low, high))
        if whole:
            axes.vlines(at, low, high, color=colour, linewidth=1)
        else:
            axes.fill_between(at, low, high, color=colour, alpha=0.2, linewidth=0)


def _draw_engines(rows: Sequence[Row], stem: Path) -> list[Path]:
    engines = list(dict.fromkeys(row["engine"] for row in rows))
    with figures.style():
        figure = figures.new_figure(4.8, 3.0)
        axes = figure.subplots()
        for engine, colour in figures.colours_of(engines).items():
            own = sorted(
                (row for row in rows if row["engine"] == engine), key=lambda r: r["num_engines"]
            )
            _curves(axes, PANELS[0], own, colour, engine, "num_engines")
        axes.axhline(100 * rows[0]["target"], color="0.5", linewidth=0.8, linestyle=":")
        from matplotlib.ticker import MaxNLocator

        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set(xlabel="Engines behind the router", ylabel=PANELS[0].label)
        axes.set_ylim(-2, 102)
        _legend(figure, axes, 2)
        rate = rows[0]["rate_rps"]
        figures.add_note(figure, [f"{rate:g} requests/s in all; dotted: the target"])
        return figures.save(figure, stem)


def _legend(figure: Figure, axes: Axes, columns: int) -> None:
    """Of the engines, if there are several, above the panels."""
    handles, labels = axes.get_legend_handles_labels()
    if len(labels) > 1:
        figure.legend(handles, labels, loc="outside upper center", ncols=columns, frameon=False)
