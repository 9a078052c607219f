"""Measures profiles of model types on this machine's devices."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

from beta_jax.profiles.architectures import ARCHITECTURES, Architecture, find_architecture
from beta_jax.profiles.profile import save_profile
from beta_jax.types import GB
from experiments.engine import files
from experiments.engine.store import FILE
from experiments.engine.timing import Stopwatch
from experiments.experiment import Task, open_store
from experiments.report import figures, tables
from experiments.report.tables import Columns, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from beta_jax.profiles.measure import Cut, Measured
    from beta_jax.profiles.measure import Row as Measurement

PROFILES: Mapping[Cut, str] = {"balanced": "profile.json", "even": "profile_even.json"}
FILES = (FILE, *PROFILES.values(), "stages.csv", *figures.files_of("profile"))
COLUMNS: Columns = {
    **dict.fromkeys(("type", "cut", "misfit", "chip", "dtype"), str),
    **dict.fromkeys(("op", "pp", "batch", "stage"), int),
    **dict.fromkeys(("low_s", "median_s", "high_s"), float),
}
"""What the figure is drawn from."""
NOISY, FASTER = 25.0, 0.95
"""Quartiles so many percent apart are noise, and so is a larger batch in this share of the time."""
NAMED = 5
"""Rows in a warning."""
OWN = ARCHITECTURES["tiny"]
"""What a model type of one's own is like where the command line does not say otherwise."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """The model types, how they are split, and how long they are measured."""

    models: Annotated[
        tuple[str, ...],
        f"model types: {', '.join(ARCHITECTURES)}; another name is that of `architecture`",
    ]
    architecture: Architecture = OWN
    sequence: Annotated[int | None, "tokens of a request; none: as each type's shape says"] = None
    ops: Annotated[tuple[int, ...], "operator-parallel degrees: devices of a stage"] = (1,)
    pps: Annotated[tuple[int, ...], "numbers of pipeline stages, run one after another"]
    batches: Annotated[tuple[int, ...], "batch sizes, 1 among them"]
    dtype: Annotated[
        Literal["bfloat16", "float16", "float32"] | None,
        "of weights and activations; none: bfloat16, on a CPU float32",
    ] = None
    attention: Annotated[
        Literal["xla", "cudnn"], "plain operations, or the fused kernel that NVIDIA GPUs have"
    ] = "xla"
    memory_gib: Annotated[
        float | None, "memory of a device, GiB; none: what it says, of a CPU what is free"
    ] = None
    warmup: Annotated[int, "calls of a stage before those that count"] = 3
    repeats: Annotated[int, "calls of a stage, of which the median counts"] = 20


def execute(config: Config, directory: Path, stopwatch: Stopwatch) -> None:
    """Measure what the store lacks, and write the profiles and the table of stages."""
    shapes = architectures(config)
    with stopwatch.imports():
        from beta_jax.profiles import measure
        from experiments.engine.fingerprint import code
    settings = measure.MeasureSettings(
        dtype=config.dtype,
        attention=config.attention,
        memory_bytes=None if config.memory_gib is None else config.memory_gib * GB,
        warmup=config.warmup,
        repeats=config.repeats,
    )
    store = open_store(directory)
    prefix = f"{code(['beta_jax.profiles.measure'])} "
    known: dict[str, Any] = {
        key.removeprefix(prefix): row
        for key, row in store.records.items()
        if key.startswith(prefix)
    }
    try:
        with stopwatch.part("measure"):
            measured = measure.measure_profile(
                shapes,
                ops=config.ops,
                pps=config.pps,
                batches=config.batches,
                settings=settings,
                known=known,
                keep=lambda key, row: store.add({prefix + key: cast(Any, row)}),
                progress=True,
            )
    except KeyboardInterrupt:
        stored = f"{len(store.records)} rows are stored"
        raise KeyboardInterrupt(
            f"interrupted: {stored}; the same command goes on from there"
        ) from None
    for line in measured.misfits:
        print(f"warning: {line}", file=sys.stderr)
    for cut, file in PROFILES.items():
        save_profile(directory / file, measured.profile(cut))
    files.write(directory / "stages.csv", tables.to_csv(rows(measured)))
    summed = summary(measured)
    print(f"{measured.chip}, {measured.dtype}\n\n{tables.to_text(summed)}\n")
    for line in doubts(summed):
        print(f"warning: {line}", file=sys.stderr)
    print(f"{directory / PROFILES['balanced']} has the balanced pipelines, for --config.profile=")


def rows(measured: Measured) -> list[Row]:
    """The table `stages.csv`: a line per stage and batch size."""
    return [
        dict(zip(stage._fields, stage[:-1], strict=False))
        | stage.row
        | {"chip": measured.chip, "dtype": measured.dtype}
        for stage in measured.stages
    ]


def summary(measured: Measured) -> list[Row]:
    """A line per pipeline and batch size that fits."""
    pipelines: dict[tuple[Any, ...], list[Measurement]] = {}
    for stage in measured.stages:
        pipelines.setdefault(stage[:5], []).append(stage.row)
    return [
        {
            **dict(zip(("type", "op", "pp", "cut", "batch"), key, strict=True)),
            "latency_s": sum(row["median_s"] for row in own),
            "slowest_stage_s": max(row["median_s"] for row in own),
            "quartiles_apart_%": 100
            * max((row["high_s"] - row["low_s"]) / row["median_s"] for row in own),
            "weight_gib": max(row["weight_bytes"] for row in own) / GB,
            "act_gib": max(row["act_bytes"] for row in own) / GB,
        }
        for key, own in pipelines.items()
        if not any(row["misfit"] for row in own)
    ]


def doubts(summed: Sequence[Row]) -> list[str]:
    """A line for each kind of noise in the rows of `summary`, naming the rows."""
    fastest: dict[tuple[Any, ...], Row] = {}
    quicker = []
    for row in sorted(summed, key=lambda row: row["batch"]):
        pipeline = tuple(row[name] for name in ("type", "op", "pp", "cut"))
        before = fastest.setdefault(pipeline, row)
        if row["latency_s"] < FASTER * before["latency_s"]:
            quicker.append(row)
        if row["latency_s"] > before["latency_s"]:
            fastest[pipeline] = row
    apart = [row for row in summed if row["quartiles_apart_%"] > NOISY]
    cure = (
        "measure on a quiet machine, with more --config.repeats; `--clean` first measures anew "
        "what is stored"
    )
    return [
        f"{what}: {_named(rows)}; {cure}"
        for what, rows in (
            (f"quartiles lie more than {NOISY:g} % apart", apart),
            ("a larger batch took less time than a smaller one", quicker),
        )
        if rows
    ]


def _named(rows: Sequence[Row]) -> str:
    names = [
        f"{row['type']} (1,{row['op']},{row['pp']}) {row['cut']} batch {row['batch']}"
        for row in rows
    ]
    more = f" and {len(names) - NAMED} more rows" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def architectures(config: Config) -> dict[str, Architecture]:
    """The shapes of the models by name; raises ValueError for a name that is not known."""
    own = [name for name in config.models if name not in ARCHITECTURES]
    if own and config.architecture == OWN:
        find_architecture(own[0])
    if len(own) > 1:
        raise ValueError(
            f"models: --config.architecture tells of one type, not of {', '.join(own)}"
        )
    if not own and config.architecture != OWN:
        raise ValueError("models: has no name for the type that --config.architecture tells of")
    shapes = {name: ARCHITECTURES.get(name, config.architecture) for name in config.models}
    if config.sequence is None:
        return shapes
    return {
        name: dataclasses.replace(shape, sequence=config.sequence) for name, shape in shapes.items()
    }


def draw(directory: Path) -> list[Path]:
    """What each stage of every pipeline takes at batch size 1, as a stack of boxes."""
    table = tables.read_csv(directory / "stages.csv", COLUMNS)
    table = [row for row in table if row["batch"] == 1 and not row["misfit"]]
    types = list(dict.fromkeys(row["type"] for row in table))
    with figures.style():
        figure = figures.new_figure(max(4.0, 3.4 * len(types)), 2.9)
        for axes, type in zip(figure.subplots(1, len(types), squeeze=False)[0], types, strict=True):
            _stacks(axes, [row for row in table if row["type"] == type])
            axes.set_title(type, fontsize="medium")
        figure.axes[0].set_ylabel("Latency (ms)")
        figure.legend(
            *figure.axes[0].get_legend_handles_labels(),
            loc="outside upper center",
            ncols=len(PROFILES),
            frameon=False,
        )
        chip = f"{table[0]['chip']}, {table[0]['dtype']}, batch size 1"
        figures.add_note(figure, [chip, "a box is a stage, its whisker the quartiles"])
        return figures.save(figure, directory / "profile")


def _stacks(axes: Axes, table: Sequence[Row]) -> None:
    configs = list(dict.fromkeys((row["op"], row["pp"]) for row in table))
    for number, (cut, colour) in enumerate(zip(PROFILES, figures.COLOURS, strict=False)):
        tops: dict[tuple[int, int], float] = {}
        for row in (row for row in table if row["cut"] == cut):
            config = row["op"], row["pp"]
            base = tops.get(config, 0.0)
            low, middle, high = (1000 * row[name] for name in ("low_s", "median_s", "high_s"))
            tops[config] = base + middle
            axes.bar(
                configs.index(config) + 0.4 * (number - 0.5),
                middle,
                bottom=base,
                width=0.36,
                yerr=[[middle - low], [high - middle]],
                error_kw={"elinewidth": 0.6, "ecolor": "0.3"},
                color=colour,
                alpha=0.75 if row["stage"] % 2 else 0.5,
                edgecolor="white",
                linewidth=0.5,
                label=None if row["stage"] or config != configs[0] else f"{cut} stages",
            )
    axes.set_xticks(range(len(configs)), [f"(1,{op},{pp})" for op, pp in configs])
    axes.set_xlabel("Configuration")


TASK = Task(files=FILES, run=execute, draw=draw)
