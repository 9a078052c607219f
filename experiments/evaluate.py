"""How a given placement serves given requests."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

from beta_jax.placement import load_placement
from beta_jax.problem import Problem
from beta_jax.profiles import load_profile
from beta_jax.types import GB, Cluster, Rules
from beta_jax.workload import read_requests
from experiments.figures import draw_service
from experiments.output import input_path
from experiments.timing import Stopwatch

FILES = ("summary.csv", "models.csv", "groups.csv", "latencies.csv", "evaluate.pdf", "evaluate.png")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """The three files, the cluster, and the rules of the simulated system."""

    placement: Annotated[str, "placement file: groups, and the models with their types and SLOs"]
    profile: Annotated[str, "profile file: stage latencies and weights of the types"]
    requests: Annotated[str, "CSV with the columns arrival_s,model"]
    num_devices: Annotated[int | None, "devices; none: as many as the placement uses"] = None
    memory_gib: Annotated[float, "usable memory of a device, GiB"] = 13.0
    warmup_s: Annotated[float, "left out of the metrics at both ends, s"] = 0.0
    rules: Rules = dataclasses.field(default_factory=Rules)


def execute(config: Config, directory: Path, stopwatch: Stopwatch) -> None:
    """Simulate, print and write the tables per model and per group."""
    with stopwatch.imports():
        from experiments import service
        from experiments.placements import NothingPlacedError, hosts_any, statics
    with stopwatch.part("read"):
        placement, models = load_placement(input_path(config.placement))
        num_devices = config.num_devices
        if num_devices is None:
            num_devices = max(1, *(static.num_devices for static in statics(placement)))
        cluster = Cluster(num_devices, config.memory_gib * GB)
        problem = Problem(models, cluster, load_profile(input_path(config.profile)), config.rules)
        placement.check(problem)
        if not hosts_any(placement):
            raise NothingPlacedError(f"{config.placement} hosts no model")
        workload = read_requests(input_path(config.requests), [model.name for model in models])
    name = Path(config.placement).stem
    served = service.serve(problem, {name: placement}, workload, config.warmup_s, stopwatch)
    service.report(problem, served, directory, trained_on_test=None)


def draw(directory: Path) -> list[Path]:
    return draw_service(
        directory / "models.csv", directory / "latencies.csv", directory / "evaluate"
    )
