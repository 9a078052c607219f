"""What section 3 simulates, by panel group; configs/sec3.py has the published parameters."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Literal

from beta_jax.types import Rules
from experiments.engine.points import require_seeds

GROUPS = {
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
"""Panel groups in the order of the figures, with the titles of their tables."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Runs:
    """The simulations of a panel group."""

    seeds: Annotated[int, "independent replications; 2 or more give 95 % intervals"]
    duration_s: Annotated[float, "length of the traffic, s"]

    def __post_init__(self) -> None:
        require_seeds(self.seeds)
        if not self.duration_s > 0:
            found = f"{self.seeds} and {self.duration_s:g} s"
            raise ValueError(f"seeds must be >= 1 and duration_s > 0, got {found}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunsAtRate(Runs):
    """Simulations at one rate."""

    rate_rps: Annotated[float, "total request rate, requests/s"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sweep(Runs):
    """Simulations at several values of one parameter."""

    values: Annotated[tuple[float, ...], "values of what is swept"]

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.values:
            raise ValueError("the list of swept values is empty")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SweepAtRate(Sweep, RunsAtRate):
    """A sweep of something other than the rate."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """The panel groups to run, what they share, and what is their own."""

    groups: Annotated[tuple[str, ...], f"panel groups: {', '.join(GROUPS)}"] = tuple(GROUPS)
    profile: Annotated[str, "profile file: stage latencies and weights of the types"]
    model_type: Annotated[str, "type of the models in rate, cv, slo, overhead and scaling"]
    base_cv: Annotated[float, "coefficient of variation of the gaps, where it is not swept"]
    two_models: RunsAtRate
    memory: Runs
    rate: Sweep
    cv: SweepAtRate
    slo: SweepAtRate
    pipeline_overheads: Annotated[
        tuple[float, ...], "overhead: pipelines take so many times single-device latency; as slo"
    ]
    theory: Sweep
    warmup_s: Annotated[float, "left out of the metrics at both ends, s; theory has its own"] = 10.0
    rng: Annotated[
        Literal["jax", "legacy"], "generator; legacy: NumPy's RandomState; theory: jax"
    ] = "jax"
    seed: Annotated[int, "of the first traffic; the others follow"] = 0
    rules: Rules = dataclasses.field(default_factory=Rules)

    def __post_init__(self) -> None:
        if not self.groups:
            raise ValueError(f"no panel groups; known: {', '.join(GROUPS)}")
        if unknown := [name for name in self.groups if name not in GROUPS]:
            raise ValueError(f"no panel group is called {unknown[0]!r}; known: {', '.join(GROUPS)}")
