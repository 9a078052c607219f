"""Fits the cost model to measured rows, and predicts every configuration and batch size."""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np

from beta_jax.profiles.architectures import ARCHITECTURES, Architecture, find_architecture
from beta_jax.profiles.cost_model import (
    BATCHES,
    CHIP,
    OPS,
    PPS,
    Case,
    CostModel,
    load_cost_model,
    number_prior,
)
from beta_jax.profiles.profile import Profile, ProfileError, load_profile, save_profile
from beta_jax.types import GB, ParallelConfig
from experiments.engine import files
from experiments.engine.timing import Stopwatch
from experiments.experiment import Task
from experiments.paper.sec3 import costs
from experiments.paper.sec3 import figures as sec3_figures
from experiments.report import figures, tables
from experiments.report.tables import Columns, Row
from experiments.tools.measuring import OWN

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from beta_jax.profiles.calibration import Calibration, Fitted, Prediction

MODEL, PROFILE = "cost_model.json", "profile.json"
ROWS: Columns = {
    **{"type": str, "op": int, "pp": int, "batch": int},
    **{"latency_s": float, "longest_stage_s": float, "fullest_device_gib": float},
    **{"model_latency_s": float, "model_longest_stage_s": float},
    **{"model_fullest_device_gib": float, "contradicts": tables.truth},
}
FIGURES = {
    "decomposition": ("overhead_decomposition_pp", "overhead_decomposition_op"),
    "partition": ("overhead_decomposition_pp_compare",),
    "scaling": tuple(f"model_parallel_{name}" for name in ("latency", "throughput", "memory")),
}
"""Tables of one model type, and what is drawn of them."""
WIDE = (FIGURES["decomposition"][1], *FIGURES["scaling"])
"""Figures that show operator parallelism."""
STEMS = ("measured_against_model", *(stem for stems in FIGURES.values() for stem in stems))
FILES = (
    *(MODEL, PROFILE, "errors.csv", "rows.csv", "numbers.csv", "predictions.csv"),
    *(f"{name}.csv" for name in FIGURES),
    *figures.files_of(*STEMS),
)


ASSUMED_GIB = 16.0
"""Memory of a device where nothing says it."""
MS_BELOW_S = 0.1
"""Times that figures show in milliseconds."""
NOISY = 0.2
"""Standard deviation of rows, relative, from which a fit is not to be trusted."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """The rows, what is known besides, and what is to be predicted."""

    rows: Annotated[str, "measured profile; `--config profile` makes one"]
    device_gib: Annotated[
        float | None,
        f"memory of a device: what does not fit is not predicted, GiB; none: {ASSUMED_GIB:g}",
    ] = None
    sequence: Annotated[
        int | None, "tokens of a request in the rows; none: as they say, else each type's shape"
    ] = None
    own_type: Annotated[str | None, "type of your own, whose shape is `architecture`"] = None
    architecture: Architecture = OWN
    others: Annotated[tuple[str, ...], "types to predict besides the measured ones"] = ()
    known: Annotated[
        tuple[str, ...], "latencies that are known of pipelines besides: TYPE:STAGES:SECONDS"
    ] = ()
    launches_from: Annotated[
        str | None,
        "rows of batch size 1 do not tell how batches grow; a cost model that does: rtx3090",
    ] = None
    ops: Annotated[tuple[int, ...], "operator-parallel degrees to predict"] = OPS
    pps: Annotated[tuple[int, ...], "numbers of stages to predict"] = PPS
    batches: Annotated[tuple[int, ...], "batch sizes to predict, 1 among them"] = BATCHES
    model_type: Annotated[str | None, "type in the figures; none: the first measured one"] = None

    def __post_init__(self) -> None:
        if self.device_gib is not None and not self.device_gib > 0:
            raise ValueError(f"device_gib must be > 0, got {self.device_gib:g}")
        if 1 not in self.batches or min(self.batches) < 1:
            raise ValueError(f"batches must be >= 1 and have 1, got {self.batches}")
        if min((*self.ops, *self.pps), default=0) < 1:
            raise ValueError(f"ops and pps must be >= 1, got {self.ops} and {self.pps}")


def execute(config: Config, directory: Path, stopwatch: Stopwatch) -> None:
    """Fit, print the errors and the numbers, and write all tables, the model and a profile."""
    path = files.input_path(config.rows)
    if not path.exists():
        raise ValueError(
            f"--config.rows={config.rows}: there is no such file; `run.py --config profile` "
            "measures a profile"
        )
    measured = load_profile(path)
    known_s = dict(map(_known, config.known))
    _require_shapes(config, measured.types, [case.type for case in known_s])
    for line in assumptions(config, measured):
        print(f"warning: {line}", file=sys.stderr)
    with stopwatch.imports():
        from beta_jax.profiles import calibration
    with stopwatch.part("fit"):
        try:
            fitted = calibration.calibrate(
                measured,
                device_gib=config.device_gib or ASSUMED_GIB,
                others=config.others,
                known_s=known_s,
                shapes={} if config.own_type is None else {config.own_type: config.architecture},
                sequence=config.sequence,
                note=f"A cost model fitted to {path.name} made this; not measured.",
                launches_from=None
                if config.launches_from is None
                else load_cost_model(config.launches_from),
            )
        except ProfileError as error:
            raise ValueError(f"--config.rows={config.rows}: {error}") from None
    model = fitted.model
    kind = config.model_type or measured.types[0]
    if kind not in model.types:
        raise ValueError(f"model_type: {kind!r} is not among {', '.join(model.types)}")
    compared = fitted.compare()
    with stopwatch.part("predict"):
        profile = model.profile(model.types, config.ops, config.pps, config.batches)
        predicted = [*map(_prediction, fitted.predict(profile))]
    files.write(directory / MODEL, model.to_json())
    if measured.measured is not None:
        lengths = {type: model.architecture(type).sequence for type in profile.types}
        source = dataclasses.replace(measured.measured, sequence=lengths)
        profile = dataclasses.replace(profile, measured=source)
    save_profile(directory / PROFILE, profile)
    alone = (kind, ParallelConfig(1, 1)) in profile
    made = {
        "rows": [_compared(each, model) for each in compared],
        "errors": errors(compared),
        "numbers": numbers(model),
        "predictions": predicted,
        "decomposition": costs.decomposition(profile, kind) if alone else [],
        "partition": costs.partition(model, [kind]),
        "scaling": costs.scaling(profile, kind) if alone else [],
    }
    for name, rows in made.items():
        files.write(directory / f"{name}.csv", tables.to_csv(rows))
    report(made, fitted, compared)
    for line in doubts(made["numbers"], fitted.noise):
        print(f"warning: {line}", file=sys.stderr)
    print(f"{directory / PROFILE} is for --config.profile=")


def assumptions(config: Config, measured: Profile) -> list[str]:
    """A line for each thing that neither the rows nor the command line tell."""
    found = []
    said = measured.measured.sequence if measured.measured is not None else {}
    if config.sequence is None:
        lengths: dict[int, list[str]] = {}
        for type in measured.types:
            if type not in said:
                own = config.architecture if type == config.own_type else find_architecture(type)
                lengths.setdefault(own.sequence, []).append(type)
        taken = ", ".join(f"{tokens} ({', '.join(types)})" for tokens, types in lengths.items())
        if taken:
            found.append(
                f"rows do not tell their sequence length: taken as {taken}; "
                "--config.sequence=TOKENS says another"
            )
    if config.device_gib is None:
        found.append(
            f"rows do not tell the memory of a device: taken as {ASSUMED_GIB:g} GiB; "
            "--config.device_gib=GIB says another"
        )
    return found


def doubts(numbers: Sequence[Row], noise: Sequence[float]) -> list[str]:
    """A line for each reason not to trust what was fitted."""
    found = []
    assumed = [row["number"] for row in numbers if row["from"] == "assumed"]
    if "flop_s" in assumed or 2 * len(assumed) > len(numbers):
        first = "flop_s among them: " if "flop_s" in assumed else ""
        found.append(
            f"{len(assumed)} of {len(numbers)} numbers are assumed, {first}the rows do not tell "
            "them; measure more types, batch sizes and operator degrees"
        )
    loud = [
        f"{100 * each:.0f} % at op {which}"
        for which, each in zip(("1", "> 1"), noise, strict=True)
        if each > NOISY
    ]
    if loud:
        found.append(
            f"rows scatter about the model by {' and '.join(loud)}: predictions are no better; "
            "after `run.py --config profile --clean`, measure anew on a quiet machine"
        )
    return found


def _require_shapes(config: Config, measured: Sequence[str], known: Sequence[str]) -> None:
    """Raises ValueError naming all types of a field whose shapes are not known."""
    for field, types in (
        (f"rows={config.rows}", measured),
        ("others", config.others),
        ("known", known),
    ):
        odd = [type for type in types if type not in ARCHITECTURES and type != config.own_type]
        if not odd:
            continue
        try:
            find_architecture(odd[0])
        except ValueError as error:
            more = f" (nor {', '.join(map(repr, odd[1:]))})" if odd[1:] else ""
            raise ValueError(
                f"--config.{field}: {error}{more}; a shape of your own: "
                f"--config.own_type={odd[0]} --config.architecture.hidden=... and so on"
            ) from None


def report(made: Mapping[str, list[Row]], fitted: Calibration, compared: Sequence[Fitted]) -> None:
    """Print the errors, the numbers, what contradicts, and what is extrapolated."""
    noise = " and ".join(f"{100 * each:.1f} %" for each in fitted.noise)
    print(f"Model over measured, less 1 (%)\n{tables.to_text(made['errors'])}\n")
    print(f"Standard deviation of a row at op 1 and above: {noise}\n")
    for each in compared:
        if each.contradicts:
            case = each.row.case
            print(
                f"contradicts the rest: {case.type} {case.config}, batch {case.batch}: the model "
                f"has {100 * each.latency_error:+.0f} % of its latency, "
                f"{100 * each.longest_error:+.0f} % of its longest stage"
            )
    print(f"\n{tables.to_text(made['numbers'])}\n")
    beyond = [row for row in made["predictions"] if row["extrapolates"]]
    inside = [row for row in made["predictions"] if not row["extrapolates"]]
    for name, rows in (("within what was measured", inside), ("extrapolated", beyond)):
        if rows:
            spread = np.median([row["standard_error_percent"] for row in rows])
            print(
                f"{len(rows)} predictions {name}, with a standard error of {spread:.1f} % (median)"
            )


def errors(compared: Sequence[Fitted]) -> list[Row]:
    """Median and 90th percentile of the size of the errors, a line per type and one for all."""
    groups: dict[str, list[Fitted]] = {}
    for each in compared:
        groups.setdefault(each.row.case.type, []).append(each)
    groups["all"] = [*compared]
    groups["all, op 1"] = [each for each in compared if each.row.case.config.op == 1]
    return [
        {"type": name, "rows": len(own)}
        | {
            f"{label}_{statistic}": 100 * float(np.quantile([abs(getattr(e, of)) for e in own], at))
            for label, of in (
                ("latency", "latency_error"),
                ("longest_stage", "longest_error"),
                ("fullest_device", "weight_error"),
            )
            for statistic, at in (("median", 0.5), ("p90", 0.9))
        }
        for name, own in groups.items()
        if own
    ]


def numbers(model: CostModel) -> list[Row]:
    """What was fitted, with its standard error."""
    rows = []
    for name, estimate in model.numbers.items():
        kind, _, of = name.partition(".")
        architecture = None if kind in CHIP or kind == "reduce_byte_s" else model.architecture(of)
        rows.append(
            {
                "number": name,
                "value": estimate.value,
                "error_percent": 100 * estimate.error,
                "from": "rows" if estimate.measured else "assumed",
                "meaning": number_prior(name, architecture).meaning,
            }
        )
    return rows


def _case(case: Case) -> Row:
    return {"type": case.type, "op": case.config.op, "pp": case.config.pp, "batch": case.batch}


def _compared(each: Fitted, model: CostModel) -> Row:
    stages_s = model.stage_latency_s(*each.row.case)
    weights = model.stage_weight_bytes(each.row.case.type, each.row.case.config)
    return _case(each.row.case) | {
        "latency_s": float(each.row.stages_s.sum()),
        "longest_stage_s": float(each.row.stages_s.max()),
        "fullest_device_gib": float(each.row.weight_bytes.max()) / GB,
        "model_latency_s": float(stages_s.sum()),
        "model_longest_stage_s": float(stages_s.max()),
        "model_fullest_device_gib": float(weights.max()) / GB,
        "contradicts": each.contradicts,
    }


def _prediction(of: Prediction) -> Row:
    return _case(of.case) | {
        "latency_s": of.latency_s,
        "longest_stage_s": of.longest_stage_s,
        "fullest_device_gib": of.fullest_device_bytes / GB,
        "standard_error_percent": 100 * of.error,
        "measured": of.measured,
        "extrapolates": ", ".join(of.beyond),
    }


def _known(text: str) -> tuple[Case, float]:
    """A latency that is known of a pipeline."""
    try:
        type, stages, seconds = text.rsplit(":", 2)
        case, value = Case(type, ParallelConfig(1, int(stages)), 1), float(seconds)
        if not 0 < value < math.inf:
            raise ValueError
    except ValueError:
        raise ValueError(
            f"known: expected TYPE:STAGES:SECONDS such as bert-103.5b:16:4.6, got {text!r}"
        ) from None
    return case, value


def draw(directory: Path) -> list[Path]:
    rows = tables.read_csv(directory / "rows.csv", ROWS)
    source = load_profile(directory / PROFILE)
    chip = "" if source.measured is None else f"rows of {source.measured.chip}; "
    drawn = {STEMS[0]: comparison(rows)}
    for drawing in sec3_figures.DRAWINGS:
        for name, stems in FIGURES.items():
            if [*drawing.tables] == [name] and _has_rows(path := directory / f"{name}.csv"):
                found = drawing.draw(tables.read_csv(path, drawing.tables[name]))
                drawn |= dict(zip(stems, found.values(), strict=True))
    measured_wide = any(row["op"] > 1 for row in rows)
    for stem, figure in drawn.items():
        in_ms(figure)
        notes = [note] if (note := figure.get_supxlabel()) else []
        if stem in WIDE and not measured_wide:
            notes.append("operator parallelism was not measured: extrapolated (hollow or hatched)")
            hollow(figure)
        figures.add_note(figure, [*notes, chip + source.note.partition(" made this")[0]])
    return [
        path for stem, figure in drawn.items() for path in figures.save(figure, directory / stem)
    ]


def in_ms(figure: Figure) -> None:
    """Axes of short times in milliseconds, whose tick labels are short as well."""
    from matplotlib.ticker import FuncFormatter

    shown = FuncFormatter(lambda seconds, _: f"{1000 * seconds:g}")
    for axes in figure.axes:
        for label in (axes.title, axes.yaxis.label):
            text = label.get_text()
            if text.endswith("(s)") and axes.get_ylim()[1] < MS_BELOW_S:
                label.set_text(f"{text[:-3]}(ms)")
                axes.yaxis.set_major_formatter(shown)
                if label is axes.title:
                    axes.xaxis.set_major_formatter(shown)


def hollow(figure: Figure) -> None:
    """Shows operator parallelism as extrapolated."""
    from matplotlib.patches import Rectangle

    shown = sec3_figures.STRATEGIES["intra-operator"]
    for axes in figure.axes:
        for line in axes.lines:
            if line.get_label() == shown:
                line.set_markerfacecolor("white")
                line.set_label(f"{shown} (extrapolated)")
        for bar in axes.patches:
            if isinstance(bar, Rectangle) and bar.get_x() > 0:  # one device was measured
                bar.set(alpha=0.45, hatch="///")
    figures.legend_above(figure)


def _has_rows(path: Path) -> bool:
    """Whether a table has rows: a type that fits no single device has no decomposition."""
    return len(path.read_text().splitlines()) > 1


def comparison(rows: Sequence[Row]) -> Figure:
    """Model against measured: latency, longest stage, weights of the fullest device."""
    with figures.style():
        figure = figures.new_figure(9.6, 3.5)
        colours = figures.colours_of(list(dict.fromkeys(row["type"] for row in rows)))
        panels = {
            "Latency (s)": "latency_s",
            "Longest stage (s)": "longest_stage_s",
            "Weights of fullest device (GiB)": "fullest_device_gib",
        }
        for axes, (label, column) in zip(figure.subplots(1, 3), panels.items(), strict=True):
            _panel(axes, rows, column, colours)
            axes.set_title(label, fontsize="medium")
            axes.set_xlabel("Measured")
        figure.axes[0].set_ylabel("Cost model")
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(
            handles, labels, loc="outside upper center", ncols=min(len(labels), 7), frameon=False
        )
        notes = ["line: as measured; grey: within 15 %", "filled: one device per stage"]
        if any(row["contradicts"] for row in rows):
            notes.append("circled: rows that contradict the rest")
        figures.add_note(figure, notes)
        return figure


def _panel(axes: Axes, rows: Sequence[Row], column: str, colours: Mapping[str, str]) -> None:
    values = [row[name] for row in rows for name in (column, f"model_{column}")]
    ends = np.array([0.85 * min(values), 1.15 * max(values)])
    axes.fill_between(ends, 0.85 * ends, 1.15 * ends, color="0.9", linewidth=0, zorder=0)
    axes.plot(ends, ends, color="0.5", linewidth=0.8, zorder=1)
    for index, (kind, colour) in enumerate(colours.items()):
        for wide in (False, True):
            own = [row for row in rows if row["type"] == kind and (row["op"] > 1) == wide]
            axes.plot(
                [row[column] for row in own],
                [row[f"model_{column}"] for row in own],
                linestyle="",
                marker=figures.MARKERS[index % len(figures.MARKERS)],
                markersize=4,
                color=colour,
                markerfacecolor="white" if wide else colour,
                label=None if wide else kind,
            )
    odd = [row for row in rows if row["contradicts"]]
    axes.plot(
        [row[column] for row in odd],
        [row[f"model_{column}"] for row in odd],
        linestyle="",
        marker="o",
        markersize=10,
        markerfacecolor="none",
        markeredgecolor="black",
    )
    axes.set(xscale="log", yscale="log", xlim=ends, ylim=ends)
    figures.plain_numbers(axes.xaxis)
    figures.plain_numbers(axes.yaxis)
    if ends[1] > 100 * ends[0]:  # labels at 1, 2 and 5 would overlap
        from matplotlib.ticker import LogLocator

        axes.xaxis.set_major_locator(LogLocator())
        axes.yaxis.set_major_locator(LogLocator())


TASK = Task(files=FILES, run=execute, draw=draw)
