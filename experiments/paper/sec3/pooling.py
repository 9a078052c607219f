"""When pooling two devices pays (section 3.4, figure 10): by queueing theory, and simulated.

Times are in service times of a single device, loads in devices: 2 is saturation.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from beta_jax.theory import queueing
from beta_jax.theory import systems as known_systems
from experiments.engine.timing import Stopwatch
from experiments.paper.sec3.config import Config
from experiments.report.tables import Row

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


def run(config: Config, stopwatch: Stopwatch) -> dict[str, list[Row]]:
    """Two tables: what theory says at every load, and what is simulated at some."""
    with stopwatch.part("theory"):
        curves = _curves()
    with stopwatch.part("simulate"):
        return {"theory_curves": curves, "theory": _simulated(config)}


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


def _simulated(config: Config) -> list[Row]:
    """At one request/s a load is a service time in seconds; other traffic at every load."""
    runs, rows = config.theory, []
    if wrong := [load for load in runs.values if not 0 < load < 2]:
        raise ValueError(f"loads of two devices are inside (0, 2), got {wrong[0]}")
    for index, load in enumerate(runs.values):
        systems = {SIMPLE: known_systems.apart(load, (2,))} if load / 2 <= MOST_BUSY else {}
        for name, stages in STAGES.items():
            if load * max(stages) <= MOST_BUSY:
                stages_s = tuple(load * stage for stage in stages)
                systems[name] = ((stages_s, known_systems.ALL),)
        known = [known_systems.mean_latency(*system) for system in systems.items()]
        seed = config.seed + index * runs.seeds
        for one in known_systems.compare(known, runs.seeds, runs.duration_s, seed) if known else ():
            assert one.standard_error is not None  # an average has one
            rows.append(
                {"curve": one.case, "load": load, "seeds": runs.seeds}
                | {"latency": one.simulated / load, "latency_exact": one.exact / load}
                | {"standard_error": one.standard_error / load}
                | {"difference_in_se": one.difference_in_se}
            )
    if not rows:
        raise ValueError(f"all loads keep a device busy for more than {MOST_BUSY:.0%} of the time")
    return rows
