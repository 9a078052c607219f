"""Runs panel groups: prints what each comes to, and gives its tables as soon as it is complete."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from beta_jax.analysis.statistics import mean_interval
from experiments.engine.store import Store
from experiments.engine.timing import Stopwatch
from experiments.paper.sec3 import costs, figures, pooling, sweeps, two_models
from experiments.paper.sec3.config import Config
from experiments.report import tables

Row = dict[str, Any]
COSTS: dict[str, Callable[[Config], list[Row]]] = {
    "decomposition": costs.decomposition,
    "partition": costs.partition,
    "scaling": costs.scaling,
}


def run(config: Config, store: Store, stopwatch: Stopwatch) -> Iterator[tuple[str, list[Row]]]:
    """Name and rows of every table of the groups asked for."""
    for group in dict.fromkeys(config.groups):
        if group == "two_models":
            made = two_models.run(config, stopwatch)
        elif group == "theory":
            made = pooling.run(config, stopwatch)
        elif group in COSTS:
            made = {group: COSTS[group](config)}
        else:
            made = {group: sweeps.run(group, config, store, stopwatch)}
        print(f"{TITLES[group]}\n{tables.to_text(REPORTS[group](made[group]))}\n", flush=True)
        yield from made.items()


def _two_models(rows: Sequence[Row]) -> list[Row]:
    return [
        {"case": row["case"], "overheads": row["overheads"]}
        | {"placement": f"{row['policy']} {row['placement']}"}
        | {"mean latency (s)": _with_half(row, "latency_mean_s")}
        | {"exact (s)": row["latency_mean_s_exact"]}
        | {"times as fast": _with_half(row, "ratio"), "exact": row["ratio_exact"]}
        | {"paper": row["ratio_published"]}
        for row in rows
    ]


def _with_half(row: Row, name: str) -> str:
    half = row[f"{name}_high"] - row[name]
    return f"{row[name]:.4g}" + (f" +-{half:.2g}" if half == half else "")


def _sweep(rows: Sequence[Row]) -> list[Row]:
    """A line per x, means over the replications; latencies unless there are deadlines."""
    deadlines = "inf" not in {row["slo_scale"] for row in rows}
    metrics = (
        {"slo_attainment": "%"} if deadlines else {"latency_mean_s": "mean", "latency_p99_s": "p99"}
    )
    samples: dict[tuple[str, float], dict[str, list[float]]] = {}
    for row in sorted(rows, key=lambda row: (row["panel"], row["x"])):
        line = samples.setdefault((row["panel"], row["x"]), {})
        for metric, short in metrics.items():
            value = 100 * row[metric] if deadlines else row[metric]
            line.setdefault(f"{figures.curve(row)}, {short}", []).append(value)
    columns = dict.fromkeys(name for line in samples.values() for name in line)
    return [
        {"panel": panel, rows[0]["x_name"]: x}
        | {
            name: mean_interval(line[name]).mean if name in line else float("nan")
            for name in columns
        }
        for (panel, x), line in samples.items()
    ]


def _parts(rows: Sequence[Row]) -> list[Row]:
    """A line per model type, way to cut and number of devices, milliseconds of each part."""
    lines: dict[tuple[Any, ...], Row] = {}
    columns = {row["part"]: float("nan") for row in rows}
    for row in rows:
        known = {name: v for name, v in row.items() if name not in ("part", "seconds")}
        line = lines.setdefault(tuple(known.values()), known | columns)
        line[row["part"]] = 1e3 * row["seconds"]
    return list(lines.values())


REPORTS: dict[str, Callable[[Sequence[Row]], list[Row]]] = {
    "two_models": _two_models,
    **dict.fromkeys(sweeps.POINTS, _sweep),
    "decomposition": _parts,
    "partition": _parts,
    "scaling": list,
    "theory": list,
}
TITLES = {
    "two_models": "Two models on two devices, +- half a 95 % interval; exact: M/D/1",
    "memory": "Latency (s) against the memory of a device",
    "rate": "Latency (s) against the total rate",
    "cv": "Latency (s) against the CV of the gaps between arrivals",
    "slo": "SLO attainment (%) against the SLO scale",
    "overhead": "SLO attainment (%) of pipelines with alpha times single-device latency",
    "decomposition": "Parts of a request's device time (ms)",
    "partition": "The same (ms) for two cuts of the layers into stages",
    "scaling": "Latency, throughput and memory of one model",
    "theory": "Two models on two devices: mean latency in service times, against the load",
}
