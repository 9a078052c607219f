"""Figures, drawn from tables alone: this module never imports JAX, and needs no display."""

from __future__ import annotations

import io
import itertools
import math
import re
import textwrap
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from statistics import fmean
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from beta_jax.analysis.statistics import Interval, mean_interval
from experiments.engine.files import write
from experiments.report.axes import axis
from experiments.report.tables import Columns, Row, truth

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

# Okabe and Ito's palette, told apart by the colour-blind; Beta has its own colour in every figure.
BETA_COLOUR = "#d55e00"
COLOURS = ("#0072b2", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")
MARKERS = ("s", "^", "D", "v", "P", "X")
GOAL_PERCENT = 99.0
LOCAL_SEARCH = "local-search"
"""The policy that goes beyond the paper."""
GROUPED = "Greedy placement + Group partitioning"
PARALLEL = "Model Parallelism"
BETA = ("Beta", GROUPED, PARALLEL)
"""Labels of the paper's own policy: in the ablation the second, in its section 3 the third."""
NAMES = {
    "sr-greedy": "SR",
    "sr-replace-<seconds>": "Clockwork++",
    "mp-search": "Beta",
    "mp-search-within-<millionths>": "Beta",
    "mp-search-sep": "Beta",
    "mp-search-sep-within-<millionths>": "Beta",
    "mp-equal-<pp>-<op>": "(<pp>,<op>)",
    "mp-round-robin": "Round robin",
    "mp-greedy-4": "Greedy placement",
    LOCAL_SEARCH: "Local search",
    f"{LOCAL_SEARCH}-<budget_simulations>": "Local search (<budget_simulations> simulations)",
}
"""What the paper's figures call policies, where tables have the names of `beta_jax.POLICIES`."""
PART = re.compile(r"<(\w+)>")
TRAINED_ON_TEST = "trained on the test traffic"
STYLE: Any = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "pdf.fonttype": 42,  # letters, not outlines: text in the PDF can be searched and edited
}
SVG: Any = {"svg.fonttype": "none", "svg.hashsalt": "beta_jax"}  # letters; no random names

COLUMNS: Columns = {
    **{"panel": str, "x_name": str, "x": float, "policy": str, "replication": int},
    **{"slo_attainment": float, "latency_mean_s": float, "trained_on_test": truth},
}
"""What a table must have to be drawn; rows of one point and replication count as their mean."""
STAMPS = {"pdf": "CreationDate", "png": "Software", "svg": "Date"}
"""Of files that a figure is written to: their kind, and what would make equal pictures differ."""
COLUMNS_PER_ROW = 4
CHARACTERS_PER_INCH = 19
"""Of the small print below a figure."""
LEGEND_CHARACTERS_PER_INCH, LEGEND_KEY = 15, 7
"""Of a legend; and how wide the mark beside a label is."""


class Panel(NamedTuple):
    """How a sweep is drawn. `name` selects its rows, `x_name` is the field that is swept."""

    name: str
    x_name: str
    y_min: float = 0.0
    title: str = ""


class Quantity(NamedTuple):
    """What is drawn: a column of the table, shown `factor` times as large, and at most `most`.

    highest: where the axis ends.
    """

    column: str
    label: str
    factor: float = 1.0
    highest: float | None = None
    goal: float | None = None
    most: float = math.inf


ATTAINMENT = Quantity("slo_attainment", "SLO attainment (%)", 100.0, 101.0, GOAL_PERCENT, 100.0)
LATENCY = Quantity("latency_mean_s", "Mean latency (s)")


class Mark(NamedTuple):
    """A point of a curve: x, the mean over its replications, and the 95 % interval of that."""

    x: float
    y: Interval


Curve = Sequence[Mark]
"""In ascending x."""


def display_name(policy: str) -> str:
    """A policy as the paper's figures call it."""
    _, name, parts = _entry(policy)
    return PART.sub(lambda part: parts[part[1]], name)


def legend(policies: Iterable[str], names: Mapping[str, str] = MappingProxyType({})) -> str:
    """The line that says what figures call policies, where tables do not; empty if nowhere.

    names: what these figures call a policy, where it differs from `display_name`.
    """
    called = {}
    for policy in policies:
        pattern, name, _ = _entry(policy)
        name = names.get(policy, name)
        called[pattern if PART.search(name) else policy] = name
    told = [f"{name} is {policy}" for policy, name in called.items() if policy != name]
    return f"In figures {', '.join(told)}." if told else ""


def _entry(policy: str) -> tuple[str, str, dict[str, str]]:
    """Of `NAMES`, or the policy twice; and what stands in the policy for the parts in brackets."""
    for pattern, name in NAMES.items():
        if match := re.fullmatch(PART.sub(r"(?P<\1>\\d+)", pattern), policy):
            return pattern, name, match.groupdict()
    return policy, policy, {}


def colours_of(names: Sequence[str]) -> dict[str, str]:
    """A colour of each name: Beta's own of `local-search`, or of the first if that is not there."""
    own = LOCAL_SEARCH if LOCAL_SEARCH in names else names[0]
    others = itertools.cycle(COLOURS)
    return {name: BETA_COLOUR if name == own else next(others) for name in names}


def curves_figure(
    rows: Sequence[Row],
    panels: Sequence[Panel],
    quantity: Quantity = ATTAINMENT,
    names: Mapping[str, str] = MappingProxyType({}),
    colours: Mapping[str, str] = MappingProxyType({}),
    columns_per_row: int = COLUMNS_PER_ROW,
    notes: Sequence[str] = (),
) -> Figure:
    """A quantity against one swept parameter per panel, a curve per policy.

    rows: see `COLUMNS`; rows of no panel, and panels without rows, are left out. names: what this
    figure calls a policy, where it differs from `display_name`. colours: of curves by their name,
    where they have one of their own. notes: what else its reader must know. Bands are 95 %
    intervals of the mean over replications. A dotted line marks where a policy first reaches 99 %.
    """
    drawn = {row["panel"] for row in rows}
    panels = [panel for panel in panels if panel.name in drawn]
    rows = [row for row in rows if row["panel"] in {panel.name for panel in panels}]
    labels = _labels(rows, names)
    styles = {label: index for index, label in enumerate(dict.fromkeys(labels.values()))}
    num_rows = math.ceil(len(panels) / columns_per_row)
    num_columns = min(len(panels), columns_per_row)
    with style():
        figure = new_figure(3.2 * max(num_columns, 1.5), 2.5 * num_rows + 0.3)
        grid = figure.subplots(num_rows, num_columns, squeeze=False)
        for axes in grid.flat[len(panels) :]:
            axes.remove()
        reached = False
        for axes, panel in zip(grid.flat, panels, strict=False):
            own = [row for row in rows if row["panel"] == panel.name]
            policies = dict.fromkeys(row["policy"] for row in own)
            curves = {labels[policy]: _curve(own, policy, quantity) for policy in policies}
            reached |= _draw_panel(axes, panel, curves, quantity, styles, colours)
        for axes in grid[:, 0]:
            axes.set_ylabel(quantity.label)
        handles = {
            label: handle
            for axes in figure.axes
            for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
        }
        figure.legend(
            [handles[label] for label in styles],
            list(styles),
            loc="outside upper center",
            ncols=min(len(styles), 2 * num_columns + 1, 6),
            frameon=False,
        )
        goal = [f"dotted: where a policy reaches {quantity.goal:g} %"] if reached else []
        add_note(figure, [*goal, *_notes(rows, labels), *notes])
        return figure


def _labels(rows: Sequence[Row], names: Mapping[str, str]) -> dict[str, str]:
    """What policies are called: with their own name, too, where two of a panel are called alike."""
    together: dict[str, dict[str, None]] = {}
    for row in rows:
        together.setdefault(row["panel"], {})[row["policy"]] = None
    labels = {
        policy: names.get(policy, display_name(policy))
        for policies in together.values()
        for policy in policies
    }
    for policies in together.values():
        number = Counter(labels[policy] for policy in policies)
        labels |= {p: f"{labels[p]}: {p}" for p in policies if number[labels[p]] > 1}
    return labels


def _curve(rows: Iterable[Row], policy: str, quantity: Quantity) -> Curve:
    values: dict[float, dict[int, list[float]]] = {}
    for row in rows:
        if row["policy"] == policy:
            replications = values.setdefault(float(row["x"]), {})
            value = quantity.factor * row[quantity.column]
            replications.setdefault(row["replication"], []).append(value)
    means = {x: [*map(fmean, replications.values())] for x, replications in values.items()}
    return [Mark(x, mean_interval(means[x]).within(0.0, quantity.most)) for x in sorted(means)]


def _draw_panel(
    axes: Axes,
    panel: Panel,
    curves: Mapping[str, Curve],
    quantity: Quantity,
    styles: Mapping[str, int],
    colours: Mapping[str, str],
) -> bool:
    """Returns whether a policy reaches the goal, which a dotted line marks."""
    reached: dict[float, list[str]] = {}
    for label, curve in curves.items():
        beta, index = label in BETA, styles[label]
        colour = colours.get(label, BETA_COLOUR if beta else COLOURS[index % len(COLOURS)])
        x = [mark.x for mark in curve]
        axes.plot(
            x,
            [mark.y.mean for mark in curve],
            color=colour,
            marker="o" if beta else MARKERS[index % len(MARKERS)],
            markersize=4.5,
            linewidth=2.0 if beta else 1.2,
            zorder=3 if beta else 2,
            clip_on=False,
            label=label,
        )
        if any(mark.y.num > 1 for mark in curve):
            low, high = [mark.y.low for mark in curve], [mark.y.high for mark in curve]
            axes.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0, zorder=1)
        if quantity.goal is not None:
            good = [mark.x for mark in curve if mark.y.mean >= quantity.goal]
            if good:
                reached.setdefault(axis(panel.x_name).hardest(good), []).append(colour)
    for goal_x, together in reached.items():
        for turn, colour in enumerate(together):  # the dots of lines at the same x take turns
            dots = (3 * turn, (1.5, 3 * len(together) - 1.5))
            axes.axvline(goal_x, color=colour, linestyle=dots, zorder=1)
    lowest = min((mark.y.mean for curve in curves.values() for mark in curve), default=0)
    axes.set_ylim(panel.y_min if lowest >= panel.y_min else 0, quantity.highest)
    if all(mark.x.is_integer() for curve in curves.values() for mark in curve):
        from matplotlib.ticker import MaxNLocator

        axes.xaxis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 5, 10], integer=True))
    axes.set_xlabel(axis(panel.x_name).label)
    axes.set_title(panel.title, fontsize="medium")
    return bool(reached)


def _notes(rows: Sequence[Row], labels: Mapping[str, str]) -> list[str]:
    """What a reader of the picture alone must know."""
    runs = {(row["panel"], row["x"], row["policy"], row["replication"]) for row in rows}
    replications = Counter(run[:-1] for run in runs).values()
    fewest, most = min(replications), max(replications)
    notes = []
    if most > 1:
        span = str(most) if fewest == most else f"{fewest} to {most}"
        notes.append(f"bands: 95 % intervals of the mean of {span} seeds")
    trained = {row["policy"] for row in rows if row["trained_on_test"]}
    if trained:
        who = dict.fromkeys(label for policy, label in labels.items() if policy in trained)
        only = len(who) < len({*labels.values()})
        notes.append(f"{', '.join(who)} {TRAINED_ON_TEST}" if only else TRAINED_ON_TEST)
    return notes


def legend_above(figure: Figure) -> None:
    """One legend for all axes, above them, in as many columns as there is room for."""
    for legend in list(figure.legends):
        legend.remove()
    handles = {
        label: handle
        for axes in figure.axes
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    room = LEGEND_CHARACTERS_PER_INCH * figure.get_figwidth()
    widest = max(map(len, handles), default=0) + LEGEND_KEY
    figure.legend(
        list(handles.values()),
        list(handles),
        loc="outside upper center",
        ncols=max(int(room // widest), 1),
        frameon=False,
        fontsize="small",
        columnspacing=1.2,
    )


def add_note(figure: Figure, notes: Sequence[str]) -> None:
    """What a reader of the picture alone must know, in small print below it."""
    if notes:
        width = int(CHARACTERS_PER_INCH * figure.get_figwidth())
        text = textwrap.fill(
            "; ".join(notes), width, break_long_words=False, break_on_hyphens=False
        )
        figure.supxlabel(text, fontsize="x-small", color="0.35")


def style() -> AbstractContextManager[None]:
    """What all figures have in common, for the time that one is made."""
    import matplotlib

    return matplotlib.rc_context(STYLE)


def new_figure(width_in: float, height_in: float) -> Figure:
    """An empty figure of that size, inches."""
    # Not pyplot: it would look for a display and keep every figure alive.
    from matplotlib.figure import Figure

    return Figure(figsize=(width_in, height_in), layout="constrained")


def files_of(*stems: str) -> tuple[str, ...]:
    """The names of all files that figures of these names are written to."""
    return tuple(f"{stem}.{kind}" for stem in stems for kind in STAMPS)  # a stem may have dots


def save(figure: Figure, stem: Path) -> list[Path]:
    """Write PDF, PNG and SVG; equal pictures make equal bytes."""
    import matplotlib

    paths = [stem.with_name(name) for name in files_of(stem.name)]
    for path, (kind, stamp) in zip(paths, STAMPS.items(), strict=True):
        buffer = io.BytesIO()
        with matplotlib.rc_context(SVG):
            figure.savefig(buffer, format=kind, dpi=200, metadata={stamp: None})
        write(path, buffer.getvalue())
    return paths


def remove(stem: Path) -> None:
    """Delete a figure of an earlier run, which would not belong to the tables that there are."""
    for name in files_of(stem.name):
        stem.with_name(name).unlink(missing_ok=True)


def plain_numbers(axis: Axis) -> None:
    """Ticks of a logarithmic axis as 0.5, 1, 2, 5, 10."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_formatter(NullFormatter())
