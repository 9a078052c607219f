"""What the figures on replayed traces share (Beta, OSDI 2023, sections 6.2 and 6.4)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Annotated, Any, Literal, NamedTuple

from experiments.engine.points import Point, Replications, sweep
from experiments.engine.scenarios import Measurement, Replayed, part_of
from experiments.report.figures import display_name
from experiments.report.tables import Row

SWEPT = ("num_devices", "rate_scale", "cv_scale", "slo_scale")
"""Fields that are swept, a row of panels each."""


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
class Swept(Replications, Measurement):
    """What is swept in place of the paper's values, see `COLUMNS`, and what all points share.

    An empty list leaves its figure or panel out.
    """

    num_devices: Annotated[tuple[int, ...] | None, "swept devices; none: the paper's"] = None
    rate_scale: Annotated[tuple[float, ...] | None, "swept rates; none: the paper's"] = None
    cv_scale: Annotated[tuple[float, ...] | None, "swept CVs; none: the paper's"] = None
    slo_scale: Annotated[tuple[float, ...] | None, "swept SLOs; none: the paper's"] = None
    profile: Annotated[str, "profile file: stage latencies and weights of the types"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class EndToEnd(Swept):
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
    tolerance: Annotated[
        float,
        "how much lower than the published one's the training SLO attainment of mp-search and "
        "mp-search-sep may be, where that saves time; 0: the published placement",
    ] = 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Robustness(Swept):
    """Pairs of hours, one to train on and one to test on, over which results are averaged."""

    trace: Annotated[str, "file, folder, or generated: maf1_like"]
    trains: Annotated[tuple[str, ...], "slices that placements are made for"]
    tests: Annotated[tuple[str, ...], "slices that they are tested on, one for each"]
    window_s: Annotated[float, "an arrival process is fitted to windows of this length, s"]
    policies: Annotated[
        tuple[str, ...],
        "placement policies, a curve each; those that place anew see the test slice",
    ]


def base_point(config: Swept, column: Column, **replay: Any) -> Replayed:
    """The base point of a column on a trace."""
    swept: dict[str, Any] = dict(zip(SWEPT, column.base, strict=True))
    same = part_of(Measurement, config)
    models = column.model_types
    return Replayed(model_types=models, profile=config.profile, **swept, **replay, **same)


def sweep_row(
    panel: str, config: Swept, column: Column, base: Replayed, field: str, policies: Sequence[str]
) -> list[Point]:
    """The points of a panel; policies that place anew see the traffic that all are tested on."""
    from beta_jax.search import find_policy

    given = getattr(config, field)
    values = getattr(column, field) if given is None else given
    seen: dict[str, Any] = {
        "train": base.test,
        "train_seed": base.test_seed,
        "train_window_s": None,
    }
    return [
        dataclasses.replace(point, scenario=dataclasses.replace(point.scenario, **seen))
        if find_policy(point.policy).replaces
        else point
        for point in sweep(panel, base, field, values, policies)
    ]


def sources(rows: Sequence[Row]) -> str:
    """Which traces were replayed, and what of them was generated, in words."""
    from beta_jax.traces import GENERATORS

    used = dict.fromkeys((row["trace"], row["complete"]) for row in rows)
    return ", ".join(
        f"{name} (generated)"
        if name in GENERATORS
        else name + "; days that it lacks are generated" * (complete == "True")
        for name, complete in used
    )


def short_training(rows: Sequence[Row]) -> list[str]:
    """Where training traffic plays less than the whole of each window, in words."""
    who: dict[tuple[str, str, str], dict[str, None]] = {}
    for row in rows:
        if row["train_window_s"] != "none":
            traffic = row["train_window_s"], row["window_s"], row["trace"]
            who.setdefault(traffic, {})[display_name(row["policy"])] = None
    return [
        f"{', '.join(policies)} trained on the first {own} s of every {full} s of {trace}"
        for (own, full, trace), policies in who.items()
    ]
