"""How given placements serve given requests, and what changes from the first to the others."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import numpy as np

from beta_jax.placement.problem import Problem
from beta_jax.profiles.profile import Profile, load_profile
from beta_jax.types import Cluster, Rules, Workload
from beta_jax.workloads.requests import read_requests
from experiments.engine import files
from experiments.engine.files import input_path
from experiments.engine.pool_files import memory_bytes, read_cluster
from experiments.engine.scenarios import POOLS_HELP
from experiments.engine.timing import Stopwatch
from experiments.experiment import Task
from experiments.report import figures, tables
from experiments.tools import asked, service_figures

FILES = (*service_figures.FILES, "changes.csv", "timeline.json", *figures.files_of("evaluate"))
MAX_TIMELINE_REQUESTS = 100_000
"""They make a file of some 60 MB where groups have four stages."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """The files, the cluster, and the rules of the simulated system."""

    placement: Annotated[
        tuple[str, ...], "placement files: groups, and the models with their types and SLOs"
    ]
    profile: Annotated[str, "profile file: stage latencies and weights of the types"]
    requests: Annotated[str, "CSV with the columns arrival_s,model"]
    num_devices: Annotated[int | None, "devices; none: as many as placements use"] = None
    memory_gib: Annotated[float, asked.MEMORY_HELP] = asked.V100_GIB
    pools: Annotated[str | None, POOLS_HELP] = None
    warmup_s: Annotated[float, "left out of the metrics at both ends, s"] = 0.0
    timeline: Annotated[
        tuple[float, ...] | None,
        "from,to in s: write the requests that arrive then as timeline.json, for ui.perfetto.dev; "
        "of the first placement",
    ] = None
    rules: Rules = dataclasses.field(default_factory=Rules)

    def __post_init__(self) -> None:
        if self.timeline is not None and not (
            len(self.timeline) == 2 and self.timeline[0] < self.timeline[1]
        ):
            raise ValueError(f"timeline must be from,to with from < to, got {self.timeline}")


def execute(config: Config, directory: Path, stopwatch: Stopwatch) -> None:
    """Simulate, print and write the tables per model and per group."""
    with stopwatch.imports():
        from beta_jax.analysis.timeline import write_timeline
        from beta_jax.placement.hosting import NothingPlacedError, hosts_any, statics
        from experiments.tools import changes, service
        from experiments.tools.placement_files import read_placements, require_valid
    with stopwatch.part("read"):
        profile: Profile | dict[str, Profile]
        if config.pools is not None:
            cluster, profile = read_cluster(input_path(config.pools))
            placements, models = read_placements(config.placement, cluster.names)
        else:
            placements, models = read_placements(config.placement)
            used = [s.num_devices for p in placements.values() for s in statics(p)]
            num_devices = max(1, *used) if config.num_devices is None else config.num_devices
            cluster = Cluster(num_devices, memory_bytes(config.memory_gib))
            profile = load_profile(input_path(config.profile))
        problem = Problem(models, cluster, profile, config.rules)
        for path, placement in zip(config.placement, placements.values(), strict=True):
            require_valid(path, placement, problem)
            if not hosts_any(placement):
                raise NothingPlacedError(f"{path} hosts no model")
        workload = read_requests(input_path(config.requests), [model.name for model in models])
    if config.timeline is not None:
        _check_timeline(config.timeline, workload)
    asked.warn(problem, None if config.pools else config.memory_gib)
    served = service.serve(problem, placements, workload, config.warmup_s, stopwatch)
    changed = changes.from_first(problem, placements)
    several = len(placements) > 1
    facts = {name: changes.moved(changed, name) for name in placements} if several else {}
    service.report(problem, served, directory, trained_on_test=None, facts=facts)
    (directory / changes.FILE).unlink(missing_ok=True)
    if several and (rows := changes.rows(changed)):
        files.write(directory / changes.FILE, tables.to_csv(rows))
        first, *others = changed
        print(*(f"from {first} to {name}: {changed[name]}\n" for name in others), sep="\n")
    timeline = directory / "timeline.json"
    timeline.unlink(missing_ok=True)
    if config.timeline is not None:
        with stopwatch.part("timeline"):
            begin, end = config.timeline
            write_timeline(timeline, problem, served[0].placement, served[0].outcome, (begin, end))
        print(f"{timeline}: open it at https://ui.perfetto.dev")


def _check_timeline(between_s: tuple[float, ...], workload: Workload) -> None:
    begin, end = np.searchsorted(workload.arrival_s, between_s)
    if not 0 < end - begin <= MAX_TIMELINE_REQUESTS:
        raise ValueError(
            f"{end - begin} requests arrive in the {between_s[0]:g} to {between_s[1]:g} s of the "
            f"timeline: it shows 1 to {MAX_TIMELINE_REQUESTS}, choose another stretch"
        )


def draw(directory: Path) -> list[Path]:
    return service_figures.draw(directory, "evaluate")


TASK = Task(files=FILES, run=execute, draw=draw)
