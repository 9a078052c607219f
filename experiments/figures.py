"""Figures, drawn from tables alone: this module never imports JAX, and needs no display."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from experiments import output, tables

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette, told apart by the colour-blind; Beta has its own colour in every figure.
BETA_COLOUR = "#d55e00"
COLOURS = ("#0072b2", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")
MARKERS = ("s", "^", "D", "v", "P", "X")
GOAL_PERCENT = 99.0
STYLE: Any = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "pdf.fonttype": 42,  # letters, not outlines: text in the PDF can be searched and edited
}

Curve = Sequence[tuple[float, float]]
"""(x, attainment in %) in ascending x."""


class Panel(NamedTuple):
    """How a sweep is drawn. `name` selects its rows, `first` the x that reaches the goal first."""

    name: str
    x_label: str
    y_min: float
    first: Callable[[Sequence[float]], float]


def display_name(policy: str) -> str:
    """A policy as the paper's figures call it."""
    names = {"sr-greedy": "SR", "mp-search": "Beta"}
    if manual := re.fullmatch(r"mp-equal-(\d+)-(\d+)", policy):
        return f"({manual[1]},{manual[2]})"
    return names.get(policy, policy)


def draw_attainment(table: Path, panels: Sequence[Panel], stem: Path) -> list[Path]:
    """SLO attainment against one swept parameter per panel, a curve per policy.

    table: CSV with the columns panel, x, policy, slo_attainment. A dotted line marks where a policy
    first reaches 99 %. Writes `stem`.pdf and .png; raises ResultsError, OSError.
    """
    rows = tables.read_csv(table, ("panel", "x", "policy", "slo_attainment"))
    policies = list(dict.fromkeys(row["policy"] for row in rows))
    panels = [panel for panel in panels if any(row["panel"] == panel.name for row in rows)]
    with _style():
        figure = _figure(3.2 * max(len(panels), 1.5), 2.8)
        for axes, panel in zip(
            figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True
        ):
            own = [row for row in rows if row["panel"] == panel.name]
            curves = {
                policy: sorted(
                    (float(row["x"]), 100 * float(row["slo_attainment"]))
                    for row in own
                    if row["policy"] == policy
                )
                for policy in policies
            }
            _draw_panel(axes, panel, curves)
        figure.axes[0].set_ylabel("SLO attainment (%)")
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), frameon=False)
        return save(figure, stem)


def _draw_panel(axes: Axes, panel: Panel, curves: Mapping[str, Curve]) -> None:
    reached: dict[float, list[str]] = {}
    for index, (policy, curve) in enumerate(curves.items()):
        beta = display_name(policy) == "Beta"
        colour = BETA_COLOUR if beta else COLOURS[index % len(COLOURS)]
        axes.plot(
            [x for x, _ in curve],
            [y for _, y in curve],
            color=colour,
            marker="o" if beta else MARKERS[index % len(MARKERS)],
            markersize=4.5,
            linewidth=2.0 if beta else 1.2,
            zorder=3 if beta else 2,
            clip_on=False,
            label=display_name(policy),
        )
        if good := [x for x, y in curve if y >= GOAL_PERCENT]:
            reached.setdefault(panel.first(good), []).append(colour)
    for x, colours in reached.items():
        for turn, colour in enumerate(colours):  # the dots of lines at the same x take turns
            dots = (3 * turn, (1.5, 3 * len(colours) - 1.5))
            axes.axvline(x, color=colour, linestyle=dots, zorder=1)
    lowest = min((y for curve in curves.values() for _, y in curve), default=0)
    axes.set_ylim(panel.y_min if lowest >= panel.y_min else 0, 101)
    axes.set_xlabel(panel.x_label)


def draw_service(models: Path, latencies: Path, stem: Path) -> list[Path]:
    """SLO attainment of each model, and how many of all requests are answered within a latency.

    models: CSV with placement, model, slo_attainment.
    latencies: CSV with placement, latency_s, answered.
    Writes `stem`.pdf and .png; raises ResultsError, OSError.
    """
    rows = tables.read_csv(models, ("placement", "model", "slo_attainment"))
    quantiles = tables.read_csv(latencies, ("placement", "latency_s", "answered"))
    names = list(dict.fromkeys(row["model"] for row in rows))
    placements = list(dict.fromkeys(row["placement"] for row in rows))
    with _style():
        figure = _figure(8.0, min(max(2.6, 0.24 * len(names) * len(placements) + 1.2), 40))
        left, right = figure.subplots(1, 2)
        for index, placement in enumerate(placements):
            colour = COLOURS[(index - 1) % len(COLOURS)] if index else BETA_COLOUR
            height = 0.8 / len(placements)
            shown = {
                r["model"]: float(r["slo_attainment"]) for r in rows if r["placement"] == placement
            }
            left.barh(
                [i + (index - (len(placements) - 1) / 2) * height for i in range(len(names))],
                [100 * shown[name] for name in names],
                height,
                color=colour,
                label=placement,
            )
            own = [r for r in quantiles if r["placement"] == placement]
            right.plot(
                [float(r["latency_s"]) for r in own],
                [100 * float(r["answered"]) for r in own],
                color=colour,
                linestyle="--" if index else "-",
            )
        left.set_yticks(range(len(names)), names)
        left.invert_yaxis()
        left.set(xlabel="SLO attainment (%)", xlim=(0, 100))
        right.set(xlabel="Latency (s)", ylabel="Requests answered within it (%)", ylim=(0, 101))
        right.set_xlim(left=0)
        figure.legend(loc="outside upper center", ncols=len(placements), frameon=False)
        return save(figure, stem)


def _style() -> AbstractContextManager[None]:
    import matplotlib

    return matplotlib.rc_context(STYLE)


def _figure(width_in: float, height_in: float) -> Figure:
    # Not pyplot: it would look for a display and keep every figure alive.
    from matplotlib.figure import Figure

    return Figure(figsize=(width_in, height_in), layout="constrained")


def save(figure: Figure, stem: Path) -> list[Path]:
    """Write PDF and PNG, without the dates that would make equal pictures differ."""
    paths = []
    for kind, stamp in (("pdf", "CreationDate"), ("png", "Software")):
        buffer = io.BytesIO()
        figure.savefig(buffer, format=kind, dpi=200, metadata={stamp: None})
        paths.append(stem.with_suffix(f".{kind}"))
        output.write(paths[-1], buffer.getvalue())
    return paths
