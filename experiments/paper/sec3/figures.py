"""The figures of section 3, by their published names, from the tables alone: never imports JAX."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from experiments.report import figures, tables
from experiments.report.figures import PARALLEL, Panel, Quantity
from experiments.report.tables import Columns, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIMPLE, REPLICATION = "Simple Placement", "Replication"
COLOUR = {SIMPLE: figures.COLOURS[0], PARALLEL: figures.BETA_COLOUR}
EXACT: Any = {"color": "black", "linestyle": ":", "linewidth": 1.3, "zorder": 5}
EXACT_POINT: Any = {"color": "black", "linestyle": "", "marker": "x", "zorder": 5}
MEAN = Quantity("latency_mean_s", "Mean latency (s)")
P99 = Quantity("latency_p99_s", "P99 latency (s)")
ATTAINMENT = Quantity("slo_attainment", "SLO attainment (%)", 100.0, 101.0)
BUDGET_GIB = 13.0
STRATEGIES = {
    "inter-operator": "Inter-operator",
    "intra-operator": "Intra-operator",
    "replication": REPLICATION,
}


MODEL_TYPES = ("bert-1.3b", "bert-2.6b")


def curve(policy: str, pipeline_overhead: float | None = None) -> str:
    """The label of a policy in this section."""
    if policy in ("sr-uniform", "sr-greedy"):
        return REPLICATION if policy == "sr-uniform" else SIMPLE
    return PARALLEL if pipeline_overhead is None else f"alpha = {pipeline_overhead:g}"


def latencies(rows: Sequence[Row], means: Sequence[Row]) -> dict[str, Figure]:
    """Figure 2, a to c: the share of requests answered within a latency."""
    by_case: dict[str, list[Row]] = {}
    for row in rows:
        by_case.setdefault(row["case"], []).append(row)
    mean_s = {
        (row["case"], curve(row["policy"])): row["latency_mean_s"]
        for row in means
        if row["overheads"] == "on"
    }
    return {
        f"illustrative_example_{number}": _latency_figure(case, own, mean_s)
        for number, (case, own) in enumerate(by_case.items(), 1)
    }


def _latency_figure(
    case: str, rows: Sequence[Row], mean_s: Mapping[tuple[str, str], float]
) -> Figure:
    figure, axes = _one(4.6, 3.6)
    known_exactly = False
    for label in (SIMPLE, PARALLEL):
        for model, dashes in {"all": "-", "0": "--", "1": "-."}.items():
            own = [row for row in rows if curve(row["policy"]) == label and row["model"] == model]
            if model != "all" and not ("20 %" in case and label == SIMPLE):
                continue  # equally fast: with equal rates, and always where they are pooled
            axes.plot(
                [row["latency_s"] for row in own],
                [100 * row["quantile"] for row in own],
                color=COLOUR[label],
                linestyle=dashes,
                linewidth=2.0 if model == "all" else 1.0,
                label={
                    "all": f"{label} (mean {mean_s[case, label]:.2f} s)",
                    "0": "its model with 20 % of the rate",
                    "1": "its model with 80 %",
                }[model],
            )
            exact = [row for row in own if not math.isnan(row["quantile_exact"])]
            if model == "all" and exact:
                axes.plot(
                    [row["latency_s"] for row in exact],
                    [100 * row["quantile_exact"] for row in exact],
                    label=None if known_exactly else "exact (M/D/1)",
                    **EXACT,
                )
                known_exactly = True
    axes.set(xlabel="Latency (s)", ylabel="Requests answered within it (%)", ylim=(0, 101))
    axes.set_xscale("log")
    figures.plain_numbers(axes.xaxis)
    axes.set_title(case[0].upper() + case[1:], fontsize="medium")
    handles, labels = axes.get_legend_handles_labels()
    order = sorted(range(len(labels)), key=lambda i: labels[i].startswith("exact"))
    figure.legend(
        [handles[i] for i in order],
        [labels[i] for i in order],
        loc="outside upper center",
        ncols=1 if len(order) < 4 else 2,
        frameon=False,
        fontsize="small",
    )
    figures.add_note(figure, ["with the overheads of the simulated system"])
    return figure


def utilisation(rows: Sequence[Row]) -> dict[str, Figure]:
    """Figure 2, d: how much of the cluster is busy over time."""
    with figures.style():
        figure = figures.new_figure(5.2, 3.0)
        for axes, label in zip(figure.subplots(2, 1, sharex=True), (SIMPLE, PARALLEL), strict=True):
            own = [row for row in rows if curve(row["policy"]) == label]
            axes.fill_between(
                [row["time_s"] for row in own],
                [100 * row["utilisation"] for row in own],
                step="post",
                color=COLOUR[label],
                linewidth=0,
            )
            axes.set(ylim=(0, 101), yticks=(0, 50, 100))
            axes.set_title(label, fontsize="medium", loc="left")
        axes.set(xlabel="Time (s)", xlim=(0, max(row["time_s"] for row in rows)))
        figure.supylabel("Cluster utilisation (%)", fontsize="medium")
        return {"illustrative_example_utilization_4": figure}


def memory(rows: Sequence[Row]) -> dict[str, Figure]:
    """Figure 4: latency against the memory of a device, for each model type."""
    drawn = {}
    for number, kind in enumerate(MODEL_TYPES, 1):
        own = _labelled(row for row in rows if row["panel"] == kind)
        most = max((row["x"] for row in own), default=0)
        # Where every device holds every model, that is what pooling comes to as well.
        own += [row | {"policy": PARALLEL} for row in own if row["x"] == most]
        panel = Panel(kind, "memory_gib", title=kind)
        for name, quantity in (("mean", MEAN), ("p99", P99)):
            figure = _curves(own, panel, quantity)
            figure.axes[0].axvline(BUDGET_GIB, color="0.5", linestyle="--", linewidth=1, zorder=1)
            figures.add_note(
                figure, [f"dashed: {BUDGET_GIB:g} GiB, usable on a V100", figure.get_supxlabel()]
            )
            drawn[f"memory_budget_vs_latency_{name}_latency_{number}"] = figure
    return drawn


def rate(rows: Sequence[Row]) -> dict[str, Figure]:
    """Figure 5: latency against the total rate."""
    panel = Panel("rate", "rate_rps")
    return {
        "changing_rate_cv_slo_1": _curves(_labelled(rows), panel, MEAN),
        "changing_rate_cv_slo_1.5": _curves(_labelled(rows), panel, P99),
    }


def cv(rows: Sequence[Row]) -> dict[str, Figure]:
    """Figure 6: latency against the burstiness of the traffic."""
    panel = Panel("cv", "cv")
    return {
        "changing_rate_cv_slo_2": _curves(_labelled(rows), panel, MEAN),
        "changing_rate_cv_slo_2.5": _curves(_labelled(rows), panel, P99),
    }


def slo(rows: Sequence[Row]) -> dict[str, Figure]:
    """Figure 7, a: SLO attainment against the SLO."""
    panel = Panel("slo", "slo_scale")
    return {"changing_rate_cv_slo_3": _curves(_labelled(rows), panel, ATTAINMENT)}


def overhead(rows: Sequence[Row]) -> dict[str, Figure]:
    """Figure 7, b: the same for pipelines of different overheads, the darker the less."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    panel = Panel("overhead", "slo_scale")
    own = _labelled(rows)
    alphas = [name for name in dict.fromkeys(row["policy"] for row in own) if name != REPLICATION]
    shades = [0.9 - 0.55 * rank / max(len(alphas) - 1, 1) for rank in range(len(alphas))]
    colours = {
        label: to_hex(colormaps["Oranges"](s)) for label, s in zip(alphas, shades, strict=True)
    }
    colours[REPLICATION] = figures.COLOURS[0]
    figure = _curves(own, panel, ATTAINMENT, colours)
    figure.set_size_inches(4.8, 3.5)  # the legend is long
    meaning = "alpha: a pipeline takes alpha x single-device latency, in 8 even stages"
    figures.add_note(figure, [f"{meaning}\n{figure.get_supxlabel()}"])
    return {"changing_pipeline_overhead_1": figure}


def _curves(
    rows: Sequence[Row], panel: Panel, quantity: Quantity, colours: Mapping[str, str] | None = None
) -> Figure:
    """One panel of curves, and on it what theory says, where it says anything."""
    figure = figures.curves_figure(
        [row for row in rows if row["panel"] == panel.name],
        [panel],
        quantity,
        names={row["policy"]: row["policy"] for row in rows},
        colours=colours or {PARALLEL: figures.BETA_COLOUR, REPLICATION: figures.COLOURS[0]},
    )
    exact: dict[str, dict[float, float]] = {}
    for row in rows:
        value = quantity.factor * row[f"{quantity.column}_exact"]
        if row["panel"] == panel.name and value == value:
            exact.setdefault(row["policy"], {})[row["x"]] = value
    for points in exact.values():
        x = sorted(points)
        figure.axes[0].plot(x, [points[at] for at in x], **EXACT_POINT)
    if exact:
        figures.add_note(figure, ["x: exact, by queueing theory", figure.get_supxlabel()])
    return figure


def _labelled(rows: Iterable[Row]) -> list[Row]:
    """The rows with their curve as the policy, pooling first."""
    named = [row | {"policy": curve(row["policy"], row["pipeline_overhead"])} for row in rows]
    return sorted(named, key=lambda row: row["policy"] == REPLICATION)


def decomposition(rows: Sequence[Row]) -> dict[str, Figure]:
    """Figure 8: parts of the device time of a request, a bar per number of devices."""
    names = {
        "inter-operator": "overhead_decomposition_pp",
        "intra-operator": "overhead_decomposition_op",
    }
    drawn = {}
    for split, stem in names.items():
        figure, axes = _one(3.6, 3.0)
        _stacked(axes, [row for row in rows if row["split"] == split])
        axes.set_title(
            f"{STRATEGIES[split]} parallelism, {rows[0]['model_type']}", fontsize="medium"
        )
        pipeline = split == "inter-operator"
        axes.set(xlabel="Devices", ylabel=STAGE_TIME if pipeline else "Latency (s)")
        figures.legend_above(figure)
        drawn[stem] = figure
    return drawn


def partition(rows: Sequence[Row]) -> dict[str, Figure]:
    """The parts for an even and a balanced cut, side by side."""
    drawn = {}
    for kind in dict.fromkeys(row["model_type"] for row in rows):
        figure, axes = _one(4.2, 3.2)
        own = [row for row in rows if row["model_type"] == kind]
        for offset, cut in ((-0.2, "even"), (0.2, "balanced")):
            _stacked(axes, [row for row in own if row["cut"] == cut], offset)
        axes.set_title(f"{kind}: layers cut evenly (left), balanced (right)", fontsize="medium")
        axes.set(xlabel="Pipeline stages", ylabel=STAGE_TIME)
        figures.legend_above(figure)
        drawn[f"overhead_decomposition_pp_compare_{kind}"] = figure
    return drawn


STAGE_TIME = "Stages x longest stage (s)"
PART_COLOURS = dict(
    zip(("computation", "communication", "uneven partition"), figures.COLOURS[:3], strict=True)
)


def _stacked(axes: Axes, rows: Sequence[Row], offset: float = 0.0) -> None:
    """Bars at 0, 1, ... for the numbers of devices, seconds of the parts one on another."""
    devices = list(dict.fromkeys(row["devices"] for row in rows))
    bottom = [0.0] * len(devices)
    for part, colour in PART_COLOURS.items():
        height = [row["seconds"] for row in rows if row["part"] == part]
        if height:
            known = part.capitalize() in axes.get_legend_handles_labels()[1]
            axes.bar(
                [i + offset for i in range(len(devices))],
                height,
                0.36 if offset else 0.6,
                bottom=bottom,
                color=colour,
                label=None if known else part.capitalize(),
            )
            bottom = [a + b for a, b in zip(bottom, height, strict=True)]
    axes.set_xticks(range(len(devices)), devices)


def scaling(rows: Sequence[Row]) -> dict[str, Figure]:
    """Figure 9: latency, throughput and memory against the number of devices."""
    drawn = {}
    for name, column, label in (
        ("latency", "latency_s", "Latency (s)"),
        ("throughput", "throughput_rps", "Throughput (requests/s)"),
        ("memory", "weights_gib", "Weights on all devices (GiB)"),
    ):
        figure, axes = _one(3.6, 3.0)
        for index, (strategy, shown) in enumerate(STRATEGIES.items()):
            own = [row for row in rows if row["strategy"] == strategy]
            axes.plot(
                [row["devices"] for row in own],
                [row[column] for row in own],
                color=figures.BETA_COLOUR if not index else figures.COLOURS[2 - index],
                marker="os^"[index],
                markersize=5,
                linestyle=("-", "--", ":")[index],
                label=shown,
            )
        axes.set(xlabel="Devices", ylabel=label, ylim=(0, 1.05 * axes.get_ylim()[1]))
        axes.set_xticks([row["devices"] for row in own])
        axes.set_title(rows[0]["model_type"], fontsize="medium")
        figures.legend_above(figure)
        drawn[f"model_parallel_{name}"] = figure
    return drawn


BREAK_EVEN = {
    "break-even alpha": "alpha (communication): both stages take alpha / 2",
    "break-even beta": "beta (imbalance): the longer stage takes beta / 2",
}
THEORY_COLOURS = {
    "simple placement": COLOUR[SIMPLE],
    "pipeline": COLOUR[PARALLEL],
    **dict.fromkeys(("break-even alpha", "pipeline, alpha 1.1"), figures.COLOURS[1]),
    **dict.fromkeys(("break-even beta", "pipeline, beta 1.2"), figures.COLOURS[2]),
}


def theory(curves: Sequence[Row], simulated: Sequence[Row]) -> dict[str, Figure]:
    """Figure 10: overheads at which pooling breaks even; and mean latencies against the load."""
    with figures.style():
        figure = figures.new_figure(8.0, 3.3)
        left, right = figure.subplots(1, 2)
        for name in dict.fromkeys(row["curve"] for row in curves):
            own = [row for row in curves if row["curve"] == name]
            x, y = ([row[key] for row in own] for key in ("load", "value"))
            colour = THEORY_COLOURS[name]
            if name in BREAK_EVEN:
                left.plot(x, y, color=colour, label=BREAK_EVEN[name])
                continue
            right.plot(x, y, color=colour, label=name.capitalize())
            points = [row for row in simulated if row["curve"] == name]
            right.errorbar(
                [row["load"] for row in points],
                [row["latency"] for row in points],
                [2 * row["standard_error"] for row in points],
                color=colour,
                marker="o",
                markersize=4,
                linestyle="",
            )
        left.set(
            xlabel="Load: total rate x latency (devices)",
            ylim=(1, 1.5),
            ylabel="Overhead up to which pooling pays",
        )
        right.set(xlabel="Load: total rate x latency (devices)", ylim=(0.9, 5))
        right.set_ylabel("Mean latency (x single-device latency)")
        for axes in (left, right):
            axes.set_xlim(0, 2)
            axes.legend(frameon=False, fontsize="small")
        figures.add_note(
            figure,
            [
                "two models on two devices, Poisson traffic, no overheads but those named",
                "dots: simulated, +- 2 standard errors",
            ],
        )
        return {"queueing_theory": figure}


class Drawing(NamedTuple):
    """Figures of a panel group: what draws them by name, from which tables, and their names."""

    draw: Callable[..., dict[str, Figure]]
    tables: Mapping[str, Columns]
    stems: Sequence[str]


def _none_or_float(text: str) -> float | None:
    return None if text == "none" else float(text)


def _swept(name: str) -> dict[str, Columns]:
    exact = dict.fromkeys((f"{q.column}_exact" for q in (MEAN, P99, ATTAINMENT)), float)
    own: Columns = {P99.column: float, "pipeline_overhead": _none_or_float}
    return {name: {**figures.COLUMNS, **own, **exact}}


PART: Columns = {"devices": str, "part": str, "seconds": float}
DRAWINGS = (
    Drawing(
        latencies,
        {
            "two_models_latencies": {
                **{"case": str, "policy": str, "model": str},
                **{"quantile": float, "latency_s": float, "quantile_exact": float},
            },
            "two_models": {"case": str, "overheads": str, "policy": str, "latency_mean_s": float},
        },
        [f"illustrative_example_{i}" for i in (1, 2, 3)],
    ),
    Drawing(
        utilisation,
        {"two_models_utilisation": {"policy": str, "time_s": float, "utilisation": float}},
        ["illustrative_example_utilization_4"],
    ),
    Drawing(
        memory,
        _swept("memory"),
        [f"memory_budget_vs_latency_{s}_latency_{i}" for i in (1, 2) for s in ("mean", "p99")],
    ),
    Drawing(rate, _swept("rate"), ["changing_rate_cv_slo_1", "changing_rate_cv_slo_1.5"]),
    Drawing(cv, _swept("cv"), ["changing_rate_cv_slo_2", "changing_rate_cv_slo_2.5"]),
    Drawing(slo, _swept("slo"), ["changing_rate_cv_slo_3"]),
    Drawing(overhead, _swept("overhead"), ["changing_pipeline_overhead_1"]),
    Drawing(
        decomposition,
        {"decomposition": {"model_type": str, "split": str, **PART}},
        [f"overhead_decomposition_{s}" for s in ("pp", "op")],
    ),
    Drawing(
        partition,
        {"partition": {"model_type": str, "cut": str, **PART}},
        [f"overhead_decomposition_pp_compare_{kind}" for kind in MODEL_TYPES],
    ),
    Drawing(
        scaling,
        {
            "scaling": {
                **{"model_type": str, "strategy": str, "devices": int},
                **{"latency_s": float, "throughput_rps": float, "weights_gib": float},
            }
        },
        [f"model_parallel_{name}" for name in ("latency", "throughput", "memory")],
    ),
    Drawing(
        theory,
        {
            "theory_curves": {"curve": str, "load": float, "value": float},
            "theory": {"curve": str, "load": float, "latency": float, "standard_error": float},
        },
        ["queueing_theory"],
    ),
)
FILES = (
    *(f"{name}.csv" for drawing in DRAWINGS for name in drawing.tables),
    *figures.files_of(*(stem for drawing in DRAWINGS for stem in drawing.stems)),
)


def draw(directory: Path) -> list[Path]:
    """Draw whatever has its tables in the directory; raises ResultsError if nothing has."""
    paths = []
    for drawing in DRAWINGS:
        sources = {directory / f"{name}.csv": columns for name, columns in drawing.tables.items()}
        if all(path.exists() for path in sources):
            read = [tables.read_csv(path, columns) for path, columns in sources.items()]
            for stem, figure in drawing.draw(*read).items():
                paths += figures.save(figure, directory / stem)
    if not paths:
        raise tables.ResultsError(f"{directory} has no tables of section 3: nothing to plot")
    return paths


def _one(width_in: float, height_in: float) -> tuple[Figure, Axes]:
    with figures.style():
        figure = figures.new_figure(width_in, height_in)
        return figure, figure.subplots()
