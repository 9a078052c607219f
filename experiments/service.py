"""Reports on a service: how its models and groups fare with given requests, as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from beta_jax.metrics import latency_summary
from beta_jax.placement import Placement, Schedule
from beta_jax.problem import Problem
from beta_jax.simulator import Outcome, simulate
from beta_jax.types import Workload
from experiments import output, tables
from experiments.placements import statics
from experiments.results import TRAINED_ON_TEST
from experiments.timing import Stopwatch

QUANTILES = np.linspace(0, 1, 201)
Row = dict[str, Any]


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
    problem: Problem, served: Sequence[Served], directory: Path, *, trained_on_test: bool | None
) -> None:
    """Write and print models.csv and groups.csv and a summary; write latencies.csv.

    trained_on_test: whether the placements were made for these very requests; None: not known.
    """
    contents = {
        "summary": [row for case in served for row in _summary_rows(case)],
        "models": [row for case in served for row in _model_rows(problem, case)],
        "groups": [row for case in served for row in _group_rows(problem, case)],
        "latencies": [row for case in served for row in _latency_rows(case)],
    }
    for row in (*contents["summary"], *contents["models"]):
        row["trained_on_test"] = trained_on_test
    for name, rows in contents.items():
        output.write(directory / f"{name}.csv", tables.to_csv(rows))
    hidden = {"num_good", "latency_std_s", "latency_p90_s", "trained_on_test"} | (
        {"placement"} if len(served) == 1 else set()
    )
    for name in ("models", "groups", "summary"):
        shown = [{k: v for k, v in row.items() if k not in hidden} for row in contents[name]]
        print(f"{name}\n{tables.to_text(shown)}\n")
    if trained_on_test:
        print(f"{TRAINED_ON_TEST}\n")


def _summary_rows(case: Served) -> list[Row]:
    return [{"placement": case.name, "layout": str(case.placement)} | latency_summary(case.outcome)]


def _model_rows(problem: Problem, case: Served) -> list[Row]:
    rows = []
    for index, model in enumerate(problem.models):
        replicas = max(
            sum(index in group.models for group in static.groups)
            for static in statics(case.placement)
        )
        numbers = latency_summary(case.outcome, case.outcome.workload.model == index)
        known = {
            "model": model.name,
            "type": model.type,
            "slo_s": model.slo_s,
            "replicas": replicas,
        }
        rows.append({"placement": case.name} | known | numbers)
    return rows


def _group_rows(problem: Problem, case: Served) -> list[Row]:
    """A group is known by its position; in a schedule a position is summed over the segments."""
    positions = [static.groups for static in statics(case.placement)]
    rows = []
    for index in range(max(map(len, positions))):
        groups = [groups[index] for groups in positions if index < len(groups)]
        configs = dict.fromkeys(str(group.config) for group in groups)
        hosted = sorted({model for group in groups for model in group.models})
        known = {
            "group": index,
            "config": "|".join(configs),
            "models": " ".join(problem.models[model].name for model in hosted),
        }
        numbers = latency_summary(case.outcome, case.outcome.group == index)
        rows.append({"placement": case.name} | known | numbers)
    return rows


def _latency_rows(case: Served) -> list[Row]:
    """Within `latency_s`, `answered` of all requests are; what is rejected is never answered."""
    counted = slice(*case.outcome.counted)
    good = case.outcome.good[counted]
    if not good.any():
        return [{"placement": case.name, "latency_s": 0.0, "answered": 0.0}]
    latency_s = np.quantile(case.outcome.latency_s[counted][good], QUANTILES)
    return [
        {"placement": case.name, "latency_s": latency, "answered": answered}
        for latency, answered in zip(
            latency_s.tolist(), (QUANTILES * good.mean()).tolist(), strict=True
        )
    ]
