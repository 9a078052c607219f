"""Find the placement that serves given requests best."""

from __future__ import annotations

import csv
import dataclasses
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np

from beta_jax.placement import save_placement
from beta_jax.problem import Problem, make_models
from beta_jax.profiles import Profile, load_profile
from beta_jax.types import GB, Cluster, Model, Rules, Workload
from beta_jax.workload import read_requests
from experiments import service_figures
from experiments.output import input_path
from experiments.timing import Stopwatch

FILES = (*service_figures.FILES, "placement.json", "quickstart.pdf", "quickstart.png")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """The requests, what is known of the models and the cluster, and the policies to compare."""

    requests: Annotated[str, "CSV with the columns arrival_s,model: what placements are made for"]
    test_requests: Annotated[str | None, "CSV they are tested on; none: the same requests"] = None
    model_types: Annotated[
        tuple[str, ...], "type of every model, or one per model in order of name"
    ]
    slo_scale: Annotated[float, "SLO as a multiple of the type's single-device latency"] = 5.0
    profile: Annotated[str, "profile file: stage latencies and weights of the types"]
    num_devices: Annotated[int, "devices in the cluster"]
    memory_gib: Annotated[float, "usable memory of a device, GiB"] = 13.0
    devices_per_node: Annotated[int, "devices in a node"] = 8
    policies: Annotated[tuple[str, ...], "policies to compare; the best one's placement is written"]
    warmup_s: Annotated[float, "left out of the metrics at both ends, s"] = 0.0
    rules: Rules = dataclasses.field(default_factory=Rules)


def execute(config: Config, directory: Path, stopwatch: Stopwatch) -> None:
    """Place by every policy, compare them, and write the best placement for `evaluate`."""
    with stopwatch.imports():
        from beta_jax.search import find_policy, place
        from experiments import service
        from experiments.placements import hosts_any, require_placed
    for policy in config.policies:
        find_policy(policy)
    with stopwatch.part("read"):
        path = input_path(config.requests)
        names = model_names(path)
        train = test = read_requests(path, names)
        if config.test_requests is not None:
            test = read_requests(input_path(config.test_requests), names)
        profile = load_profile(input_path(config.profile))
        models = describe_models(names, config, profile, train)
        cluster = Cluster(config.num_devices, config.memory_gib * GB, config.devices_per_node)
        problem = Problem(models, cluster, profile, config.rules)
    with stopwatch.part("place"):
        results = {policy: place(policy, problem, train) for policy in config.policies}
    require_placed(
        any(hosts_any(result.placement) for result in results.values()),
        [warning for result in results.values() for warning in result.warnings],
    )
    placements = {policy: result.placement for policy, result in results.items()}
    served = service.serve(problem, placements, test, config.warmup_s, stopwatch)
    service.report(problem, served, directory, trained_on_test=test is train)
    for result in results.values():
        for warning in result.warnings:
            print(f"warning: {warning}", file=sys.stderr)
    best = max(results, key=lambda policy: results[policy].score)
    save_placement(directory / "placement.json", placements[best], models)
    print(f"{directory / 'placement.json'} is what {best} found: {placements[best]}")


def draw(directory: Path) -> list[Path]:
    return service_figures.draw(directory, "quickstart")


def model_names(path: Path) -> list[str]:
    """The models that a file of requests names, `m2` before `m10`; the file is not checked."""
    with open(path, newline="", encoding="utf-8-sig", errors="replace") as file:
        rows = csv.reader(file)
        header = [name.strip() for name in next(rows, [])]
        column = header.index("model") if "model" in header else len(header)
        names = {row[column].strip() for row in rows if len(row) > column}
    parts = {name: re.split(r"(\d+)", name) for name in names}
    return sorted(names, key=lambda name: [int(p) if p.isdecimal() else p for p in parts[name]])


def describe_models(
    names: Sequence[str], config: Config, profile: Profile, requests: Workload
) -> tuple[Model, ...]:
    """The models with their types, SLOs and mean rates; raises ValueError for too few types."""
    types = config.model_types * len(names) if len(config.model_types) == 1 else config.model_types
    if not names or len(types) != len(names):
        raise ValueError(
            f"{config.requests} names {len(names)} models ({', '.join(names[:9])}), "
            f"model_types {len(types)}: give one type for all, or one for each in this order"
        )
    counts = np.bincount(requests.model, minlength=len(names))
    span_s = float(requests.arrival_s[-1] - requests.arrival_s[0])
    models = make_models(
        types,
        profile,
        slo_scale=config.slo_scale,
        total_rate_rps=len(requests) / span_s if span_s else 0.0,
        split=counts.tolist(),
    )
    return tuple(
        dataclasses.replace(model, name=name) for model, name in zip(models, names, strict=True)
    )
