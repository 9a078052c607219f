"""Read golden cases of the published simulator, which lie outside the repository."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from beta_jax import (
    Cluster,
    Group,
    Model,
    ParallelConfig,
    Placement,
    Problem,
    Rules,
    Schedule,
    Workload,
    load_profile,
)


class Case(NamedTuple):
    name: str
    problem: Problem
    workload: Workload
    training: Workload | None  # what a policy was trained on
    placement: Placement | Schedule
    result: dict[str, Any]
    finish_s: np.ndarray
    good: np.ndarray


def static_placement(row: dict[str, Any]) -> Placement:
    return Placement(
        tuple(
            Group(ParallelConfig(op, pp), tuple(models))
            for (_, op, pp), models in zip(row["group_configs"], row["group_models"], strict=True)
        )
    )


def load_case(path: Path) -> Case:
    folder, case = path.parent.parent, json.loads(path.read_text())
    description = case["description"]
    profile = load_profile(folder / "profiles" / f"{description['profile']}.json")
    models = tuple(
        Model(row["name"], row["type"], float(row["slo"]), row["rate"], row["cv"])
        for row in case["models"]
    )
    arrays = np.load(folder / case["workload"]["file"])
    workload = Workload.from_seconds(arrays["arrivals"], arrays["model_ids"])
    training = None
    if "train_workload" in case:
        trained_on = np.load(folder / case["train_workload"]["file"])
        training = Workload.from_seconds(trained_on["arrivals"], trained_on["model_ids"])
    placement: Placement | Schedule
    if case["placement"]["type"] == "static":
        placement = static_placement(case["placement"])
        devices = placement.num_devices
    else:
        segments = tuple(static_placement(row) for row in case["placement"]["placements"])
        # A start that equals an arrival must stay equal to it in ticks.
        nearest = np.minimum(
            np.searchsorted(arrays["arrivals"], case["placement"]["start_times"]), len(workload) - 1
        )
        starts = [
            float(workload.arrival_s[i]) if arrays["arrivals"][i] == start else start
            for i, start in zip(nearest, case["placement"]["start_times"], strict=True)
        ]
        placement = Schedule(tuple(starts), segments)
        devices = max(segment.num_devices for segment in segments)
    memory = {"memory_bytes": description["mem_budget"]} if "mem_budget" in description else {}
    cluster = Cluster(description.get("num_devices", devices), **memory)
    batching = case["path"] == "batching"
    rules = Rules(batching="published", max_batch=16) if batching else Rules()
    requests = np.load(folder / case["requests_file"])
    return Case(
        path.stem,
        Problem(models, cluster, profile, rules),
        workload,
        training,
        placement,
        case["result"],
        requests["finish"],
        requests["good"],
    )
