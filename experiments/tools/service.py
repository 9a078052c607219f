"""Reports on a service: how its models and groups fare with given requests, as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from beta_jax.analysis.metrics import latency_summary, utilisation
from beta_jax.analysis.misses import MissReason, miss_reasons
from beta_jax.placement.hosting import statics
from beta_jax.placement.placement import Placement, Schedule
from beta_jax.placement.problem import Problem
from beta_jax.simulator import Outcome, simulate
from beta_jax.types import Workload
from experiments.engine import files
from experiments.engine.timing import Stopwatch
from experiments.report import tables
from experiments.report.results import TRAINED_ON_TEST
from experiments.report.tables import Row

QUANTILES = np.linspace(0, 1, 201)
TIME_BINS = 100
REASONS = tuple(reason.name.lower() for reason in MissReason)


class Served(NamedTuple):
    """A placement by the name that tables call it, and what it did with the requests."""

    name: str
    placement: Placement | Schedule
    outcome: Outcome


def serve(
    problem: Problem,
    placements: Mapping[str, Placement | Schedule],
    workload: Workload,
    warmup_s: float,
    stopwatch: Stopwatch,
) -> list[Served]:
    """Simulate named placements on the same requests; raises ValueError if there are none."""
    if not len(workload):
        raise ValueError("there are no requests to serve")
    with stopwatch.part("simulate"):
        outcomes = simulate(
            problem, list(placements.values()), workload, warmup_s=warmup_s, outputs="requests"
        )
    return [
        Served(*item, outcome) for item, outcome in zip(placements.items(), outcomes, strict=True)
    ]


def report(
    problem: Problem,
    served: Sequence[Served],
    directory: Path,
    *,
    trained_on_test: bool | None,
    facts: Mapping[str, Row],
) -> None:
    """Write the tables; print those of models, groups, and misses, and the summary.

    trained_on_test: whether the placements were made for these very requests; None: not known.
    facts: what else the summary tells of each placement, by its name.
    """
    misses = [miss_reasons(problem, one.placement, one.outcome).counts for one in served]
    contents = {
        "summary": [_summary_row(one, facts.get(one.name, {})) for one in served],
        "models": [row for one in served for row in _model_rows(problem, one)],
        "groups": [row for one in served for row in _group_rows(problem, one)],
        "latencies": [row for one in served for row in _latency_rows(one)],
        "utilisation": [row for one in served for row in _utilisation_rows(problem, one)],
    }
    by_place = [
        row
        for one, counts in zip(served, misses, strict=True)
        for row in _miss_rows(problem, one, counts)
    ]
    columns = ("placement", "model", "group", *REASONS)
    files.write(directory / "misses.csv", tables.to_csv(by_place, columns))
    for row in (*contents["summary"], *contents["models"]):
        row["trained_on_test"] = trained_on_test
    for name, rows in contents.items():
        files.write(directory / f"{name}.csv", tables.to_csv(rows))
    hidden = {"num_good", "latency_std_s", "latency_p90_s", "trained_on_test"} | (
        {"placement"} if len(served) == 1 else set()
    )
    contents["misses"] = [
        {"placement": one.name} | dict(zip(REASONS, counts.sum((0, 1)).tolist(), strict=True))
        for one, counts in zip(served, misses, strict=True)
    ]
    for name in ("models", "groups", "misses", "summary"):
        shown = [{k: v for k, v in row.items() if k not in hidden} for row in contents[name]]
        print(f"{name}\n{tables.to_text(shown)}\n")
    if trained_on_test:
        print(f"{TRAINED_ON_TEST}\n")


def _summary_row(one: Served, facts: Row) -> Row:
    known = {"placement": one.name, "layout": str(one.placement)}
    return known | facts | latency_summary(one.outcome)


def _model_rows(problem: Problem, one: Served) -> list[Row]:
    rows = []
    for index, model in enumerate(problem.models):
        replicas = max(
            sum(index in group.models for group in static.groups)
            for static in statics(one.placement)
        )
        numbers = latency_summary(one.outcome, one.outcome.workload.model == index)
        known = {
            "model": model.name,
            "type": model.type,
            "slo_s": model.slo_s,
            "replicas": replicas,
        }
        rows.append({"placement": one.name} | known | numbers)
    return rows


def _group_rows(problem: Problem, one: Served) -> list[Row]:
    """A group is known by its position; in a schedule a position is summed over the segments."""
    positions = [static.groups for static in statics(one.placement)]
    pools = problem.cluster.names
    shares = utilisation(problem, one.placement, one.outcome, 1).of_group[:, 0]
    rows = []
    for index in range(max(map(len, positions))):
        groups = [groups[index] for groups in positions if index < len(groups)]
        configs = dict.fromkeys(str(group.config) for group in groups)
        in_pools = dict.fromkeys(pools[group.config.pool] for group in groups)
        hosted = sorted({model for group in groups for model in group.models})
        known = {
            "group": index,
            "config": "|".join(configs),
            **({"pool": "|".join(in_pools)} if len(pools) > 1 else {}),
            "models": " ".join(problem.models[model].name for model in hosted),
        }
        numbers = latency_summary(one.outcome, one.outcome.group == index)
        busy = {"utilisation": float(shares[index])}
        rows.append({"placement": one.name} | known | numbers | busy)
    return rows


def _miss_rows(problem: Problem, one: Served, counts: np.ndarray) -> list[Row]:
    """A row per model and group with misses; no group where none hosts the model."""
    names = [*(model.name for model in problem.models), "not served"]
    groups = [*range(counts.shape[1] - 1), ""]
    return [
        {"placement": one.name, "model": names[m], "group": groups[g]}
        | dict(zip(REASONS, counts[m, g].tolist(), strict=True))
        for m, g in np.argwhere(counts.any(-1)).tolist()
    ]


def _utilisation_rows(problem: Problem, one: Served) -> list[Row]:
    """Of every group in equal bins of time."""
    edge_s, of_group = utilisation(problem, one.placement, one.outcome, TIME_BINS)
    return [
        {"placement": one.name, "group": group, "from_s": begin, "to_s": end, "utilisation": busy}
        for group, shares in enumerate(of_group.tolist())
        for begin, end, busy in zip(edge_s.tolist(), edge_s[1:].tolist(), shares, strict=False)
    ]


def _latency_rows(one: Served) -> list[Row]:
    """Within `latency_s`, `answered` of all requests are; what is rejected is never answered."""
    counted = slice(*one.outcome.counted)
    good = one.outcome.good[counted]
    if not good.any():
        return [{"placement": one.name, "latency_s": 0.0, "answered": 0.0}]
    latency_s = np.quantile(one.outcome.latency_s[counted][good], QUANTILES)
    return [
        {"placement": one.name, "latency_s": latency, "answered": answered}
        for latency, answered in zip(
            latency_s.tolist(), (QUANTILES * good.mean()).tolist(), strict=True
        )
    ]
