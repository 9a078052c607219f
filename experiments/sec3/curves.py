"""The queueing analysis of two models on two devices (section 3.4, figure 10), and its simulation.

Times are in service times of a single device, loads in devices: 2 is saturation.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from beta_jax import queueing
from beta_jax.placement import Group, Placement
from beta_jax.problem import Problem, make_models
from beta_jax.profiles import FORMAT, VERSION, Profile
from beta_jax.simulator import simulate
from beta_jax.statistics import mean_interval
from beta_jax.types import Cluster, ParallelConfig, Rules
from beta_jax.workload import synthesize_many
from experiments.sec3.config import Config
from experiments.sec3.exact import Theory
from experiments.timing import Stopwatch

SIMPLE = "simple placement"
STAGES = {
    "pipeline": (0.5, 0.5),
    "pipeline, alpha 1.1": (0.55, 0.55),
    "pipeline, beta 1.2": (0.6, 0.4),
}
"""Stages of the pipelines, in service times of a single device."""
FINE = np.linspace(0.01, 1.99, 199)
MOST_BUSY = 0.88
"""Highest utilisation that is simulated: beyond it, runs of some 10,000 services that begin empty
are not long enough to be compared with a steady state."""
ENOUGH_SEEDS = 8
"""To say how many standard errors theory is away; that of fewer is too uncertain."""
NO_OVERHEADS = Rules(stage_overhead=0.0, request_overhead_s=0.0)
Row = dict[str, Any]


def run(config: Config, stopwatch: Stopwatch) -> dict[str, list[Row]]:
    """Two tables: what theory says at every load, and what is simulated at some."""
    with stopwatch.part("theory"):
        curves = _curves()
    return {"theory_curves": curves, "theory": _simulated(config, stopwatch)}


def _curves() -> list[Row]:
    values: dict[str, Any] = {
        "break-even alpha": queueing.break_even_alpha(FINE),
        "break-even beta": queueing.break_even_beta(FINE),
        SIMPLE: queueing.simple_latency_s(FINE, 1.0),
    }
    for name, stages in STAGES.items():
        stable = FINE * max(stages) < 1
        latency = queueing.pipeline_latency_s(np.where(stable, FINE, 0.1), sum(stages), max(stages))
        values[name] = np.where(stable, latency, math.nan)
    return [
        {"curve": name, "load": load, "value": value}
        for name, column in values.items()
        for load, value in zip(FINE.tolist(), np.asarray(column).tolist(), strict=True)
        if value == value
    ]


def _simulated(config: Config, stopwatch: Stopwatch) -> list[Row]:
    runs, rows = config.theory, []
    if wrong := [load for load in runs.values if not 0 < load < 2]:
        raise ValueError(f"loads of two devices are inside (0, 2), got {wrong[0]}")
    apart = 2 if config.rng == "legacy" else 1
    for index, load in enumerate(runs.values):  # other traffic at every load
        seeds = [config.seed + apart * (index * runs.seeds + i) for i in range(runs.seeds)]
        problems, placements, names = [], [], []
        for name, stages in {SIMPLE: (1.0,), **STAGES}.items():
            devices = 2 if name == SIMPLE else 1
            if load * max(stages) > MOST_BUSY * devices:
                continue
            profile = _profile(stages)
            models = make_models(("m",) * 2, profile, slo_scale=math.inf, total_rate_rps=load)
            problems.append(Problem(models, Cluster(2), profile, NO_OVERHEADS))
            together = Placement((Group(ParallelConfig(1, 2), (0, 1)),))
            apart_ = Placement(tuple(Group(ParallelConfig(1, 1), (m,)) for m in (0, 1)))
            placements.append(apart_ if name == SIMPLE else together)
            names.append(name)
        with stopwatch.part("workloads"):
            traffic = synthesize_many(
                models, seeds=seeds, duration_s=runs.duration_s, rng=config.rng
            )
        with stopwatch.part("simulate"):
            tallies = [
                simulate(*case, traffic, warmup_s=config.warmup_s)
                for case in zip(problems, placements, strict=True)
            ]
        for name, problem, placement, tally in zip(
            names, problems, placements, tallies, strict=True
        ):
            exact = Theory(problem, placement).latency_mean_s()
            interval = mean_interval(tally.latency_mean_s)
            error = math.nan
            if runs.seeds >= ENOUGH_SEEDS:
                error = float(np.std(tally.latency_mean_s, ddof=1)) / math.sqrt(runs.seeds)
            rows.append(
                {"curve": name, "load": load, "seeds": runs.seeds, "latency": interval.mean}
                | {"latency_low": interval.low, "latency_high": interval.high}
                | {"latency_exact": exact, "standard_errors": (interval.mean - exact) / error}
            )
    return rows


def _profile(stages: tuple[float, ...]) -> Profile:
    """Of one type `m` that takes 1 s on a device and these stages on a pipeline."""
    configs = [
        {"op": 1, "pp": len(s), "stage_latency_s": {"1": list(s)}}
        | {"weight_bytes": [0.0] * len(s), "act_bytes": {"1": [0.0] * len(s)}}
        for s in dict.fromkeys([(1.0,), stages])
    ]
    return Profile.from_dict(
        {"format": FORMAT, "version": VERSION, "types": {"m": {"configs": configs}}}
    )
