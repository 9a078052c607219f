"""End-to-end results on replayed traces (Beta, OSDI 2023, section 6.2; figures `goodput_vs_*`)."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

from experiments import experiment as entry
from experiments.engine.points import Point, Replayed, Replications, sweep
from experiments.engine.timing import Stopwatch
from experiments.report import figures, headline, tables
from experiments.report.figures import Panel

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROWS = {
    "num_devices": ("Devices", min),
    "rate_scale": ("Rate scale", max),
    "cv_scale": ("CV scale", max),
    "slo_scale": ("SLO scale (x single-device latency)", min),
}
"""What is swept, a figure each: its label, and which x reaches a goal first."""
FIRST = {name: first for name, (_, first) in ROWS.items()}
FILES = (
    *entry.FILES,
    headline.FILE,
    *(f"goodput_vs_{name}.{kind}" for name in ROWS for kind in ("pdf", "png")),
)


class Column(NamedTuple):
    """Models on a trace: what is swept, and the base point around which it is."""

    model_types: tuple[str, ...]
    trace: Literal["maf1", "maf2"]
    base: tuple[int, float, float, float]  # of what the next four lists vary, one at a time
    num_devices: tuple[int, ...]
    rate_scale: tuple[float, ...]
    cv_scale: tuple[float, ...]
    slo_scale: tuple[float, ...]
    beta: str = "mp-search"


S1, S2 = ("bert-1.3b",) * 48, ("bert-6.7b",) * 48
S3 = ("bert-6.7b", "moe-5.3b", "bert-2.6b", "moe-2.4b", "bert-1.3b", "moe-1.3b") * 12
_RATES_1 = (5e-4, 1e-3, 2e-3, 4e-3, 5e-3, 6e-3, 7e-3, 8e-3)
_RATES_2 = (8.0, 32.0, 48.0, 72.0, 96.0)
_CVS_1 = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0)
_CVS_2 = (1.0, 2.0, 3.0, 4.0, 5.0, 7.5, 10.0)
_SLOS_1 = (0.75, 1.0, 2.0, 3.0, 4.0, 5.0, 7.5, 10.0)
_SLOS_2 = (0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0)
COLUMNS = {
    "S1@MAF1": Column(
        S1, "maf1", (16, 2e-3, 4.0, 5.0), (8, 16, 24, 32, 40, 48), _RATES_1, _CVS_1, _SLOS_1
    ),
    "S2@MAF1": Column(
        S2,
        "maf1",
        (64, 2e-3, 4.0, 5.0),
        (48, 56, 64, 72, 80, 96, 128),
        _RATES_1,
        _CVS_1,
        (0.75, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 7.5, 10.0),
    ),
    "S3@MAF1": Column(
        S3,
        "maf1",
        (48, 2e-3, 4.0, 5.0),
        (32, 40, 48, 54, 64, 72, 96),
        _RATES_1,
        _CVS_1,
        _SLOS_1,
        "mp-search-sep",
    ),
    "S1@MAF2": Column(
        S1, "maf2", (16, 16.0, 1.0, 5.0), (2, 4, 6, 8, 10, 12, 14, 16), _RATES_2, _CVS_2, _SLOS_2
    ),
    "S2@MAF2": Column(
        S2, "maf2", (64, 16.0, 1.0, 5.0), (16, 32, 40, 48, 56, 64), _RATES_2, _CVS_2, _SLOS_2
    ),
    "S3@MAF2": Column(
        S3,
        "maf2",
        (48, 32.0, 1.0, 5.0),
        (16, 24, 32, 40, 48, 54, 64),
        (1.0, 4.0, 8.0, 16.0, 32.0, 64.0),
        (1.0, 2.0, 3.0, 4.0, 6.0, 8.0),
        (0.75, 1.0, 1.25, 1.5, 2.0, 2.5, 5.0),
        "mp-search-sep",
    ),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Swept(Replications):
    """What is swept in place of the paper's values, see `COLUMNS`, and what all points share.

    An empty list leaves its figure or panel out.
    """

    num_devices: Annotated[tuple[int, ...] | None, "swept devices; none: the paper's"] = None
    rate_scale: Annotated[tuple[float, ...] | None, "swept rates; none: the paper's"] = None
    cv_scale: Annotated[tuple[float, ...] | None, "swept CVs; none: the paper's"] = None
    slo_scale: Annotated[tuple[float, ...] | None, "swept SLOs; none: the paper's"] = None
    profile: Annotated[str, "profile file: stage latencies and weights of the types"]
    rng: Annotated[Literal["jax", "legacy"], "generator; legacy gives the published arrivals"]
    train_seed: Annotated[int, "seed of the traffic that placements are made for"]
    test_seed: Annotated[int, "seed of the traffic that they are tested on"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(Swept):
    """Which columns of the figure, on which traces, by which policies."""

    columns: Annotated[tuple[str, ...], f"of {', '.join(COLUMNS)}"]
    maf1: Annotated[str, "trace MAF1: file, folder, or generated: maf1_like"]
    maf2: Annotated[str, "trace MAF2: file, folder, or generated: maf2_like"]
    maf1_train: Annotated[str, "slice of MAF1 that placements are made for"]
    maf1_test: Annotated[str, "slice of MAF1 that they are tested on"]
    maf1_window_s: Annotated[float, "an arrival process is fitted to windows of this length, s"]
    maf2_train: Annotated[str, "slice of MAF2 that placements are made for"]
    maf2_test: Annotated[str, "slice of MAF2 that they are tested on"]
    maf2_window_s: Annotated[float, "an arrival process is fitted to windows of this length, s"]
    maf1_train_window_s: Annotated[
        float | None, "how long training traffic plays each window, s; none: its full length"
    ] = None
    maf2_train_window_s: Annotated[
        float | None, "how long training traffic plays each window, s; none: its full length"
    ] = None
    policies: Annotated[
        tuple[str, ...],
        "placement policies, a curve each; empty: sr-greedy, sr-replace-60 (on MAF2 -21600), "
        "and mp-search (for S3 mp-search-sep)",
    ] = ()


REPLACE_S = {"maf1": 60, "maf2": 21600}
"""How often Clockwork++ places anew."""


def points(config: Config) -> list[Point]:
    """Raises ValueError for a column that is not there."""
    if not config.columns:
        raise ValueError(f"columns is empty; there are {', '.join(COLUMNS)}")
    if unknown := [name for name in config.columns if name not in COLUMNS]:
        raise ValueError(f"unknown column {unknown[0]!r}; there are {', '.join(COLUMNS)}")
    found = []
    for name in config.columns:
        column = COLUMNS[name]
        trace = {
            field: getattr(config, f"{column.trace}_{field}")
            for field in ("train", "test", "window_s", "train_window_s")
        }
        base = base_point(config, column, trace=getattr(config, column.trace), **trace)
        published = ("sr-greedy", f"sr-replace-{REPLACE_S[column.trace]}", column.beta)
        policies = config.policies or published
        for row in ROWS:
            found += sweep_row(f"{name} {row}", config, column, base, row, policies)
    return found


def base_point(config: Swept, column: Column, **replay: Any) -> Replayed:
    """The base point of a column on a trace."""
    same = {name: getattr(config, name) for name in ("profile", "rng", "train_seed", "test_seed")}
    swept: dict[str, Any] = dict(zip(ROWS, column.base, strict=True))
    return Replayed(model_types=column.model_types, **swept, **replay, **same)


def sweep_row(
    panel: str, config: Swept, column: Column, base: Replayed, row: str, policies: Sequence[str]
) -> list[Point]:
    """The points of a panel; Clockwork++ sees the very traffic that all are tested on."""
    given = getattr(config, row)
    values = getattr(column, row) if given is None else given
    seen: dict[str, Any] = {
        "train": base.test,
        "train_seed": base.test_seed,
        "train_window_s": None,
    }
    return [
        dataclasses.replace(point, scenario=dataclasses.replace(point.scenario, **seen))
        if point.policy.startswith("sr-replace-")
        else point
        for point in sweep(panel, base, row, values, policies)
    ]


def panels(rows: Iterable[Mapping[str, Any]], x_name: str) -> list[Panel]:
    """The panels of one figure."""
    label, first = ROWS[x_name]
    names = dict.fromkeys(row["panel"] for row in rows if row["x_name"] == x_name)
    return [Panel(name, label, 0, first, title=name.split()[0]) for name in names]


def execute(config: Config, directory: Path, stopwatch: Stopwatch) -> None:
    """Run all points, store them, print their attainment and the headline, write the tables."""
    found = entry.execute(points(config), config, directory, stopwatch)
    headline.report(found, FIRST, directory)
    print(f"\nTraces: {sources(found.rows)}")
    for note in _training(found.rows):
        print(f"Trained: {note}")


def figure(rows: Sequence[Mapping[str, Any]], x_name: str | None = None) -> Figure:
    """One of the four figures; without a name that of the first field that was swept."""
    x_name = x_name or rows[0]["x_name"]
    return figures.curves_figure(
        [row for row in rows if row["x_name"] == x_name],
        panels(rows, x_name),
        columns_per_row=3,
        notes=[*_training(rows), f"traces: {sources(rows)}"],
    )


def _training(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Where training traffic plays less than the whole of each window."""
    shorter: dict[tuple[str, str, str], dict[str, None]] = {}
    for row in rows:
        if row["train_window_s"] != "none":
            trace = row["panel"].rpartition("@")[2].split()[0]
            policies = shorter.setdefault((trace, row["train_window_s"], row["window_s"]), {})
            policies[figures.display_name(row["policy"])] = None
    return [
        f"{', '.join(policies)} on the first {own} s of every {full} s of {trace}"
        for (trace, own, full), policies in shorter.items()
    ]


def sources(rows: Iterable[Mapping[str, Any]]) -> str:
    """Which traces were replayed, in words."""
    from beta_jax.traces import GENERATORS

    used = dict.fromkeys(str(row["trace"]) for row in rows)
    return ", ".join(f"{name} (generated)" if name in GENERATORS else name for name in used)


def draw(directory: Path) -> list[Path]:
    columns = ("x_name", "trace", "window_s", "train_window_s", *figures.COLUMNS)
    rows = tables.read_csv(directory / "table.csv", columns)
    paths = []
    for name in ROWS:
        stem = directory / f"goodput_vs_{name}"
        if any(row["x_name"] == name for row in rows):
            paths += figures.save(figure(rows, name), stem)
        else:  # one of an earlier run would not belong to this table
            for kind in ("pdf", "png"):
                stem.with_suffix(f".{kind}").unlink(missing_ok=True)
    return paths
