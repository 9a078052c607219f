"""Scenarios: everything that determines a result, except the policy."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, Literal, Self

from beta_jax.types import Rules

POOLS_HELP = (
    "CSV or JSON file of a cluster of several pools, in place of profile, num_devices, memory_gib "
    "and devices_per_node: name, num_devices, profile, and where known memory_gib, "
    "devices_per_node, price_per_hour"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServedModels:
    """The models that are served."""

    model_types: Annotated[tuple[str, ...], "profiled type of each served model"]
    models: Annotated[
        str | None,
        "CSV or JSON file of models, in place of model_types: type, and where known name, "
        "rate_share (in place of split), slo_s or slo_scale (in place of slo_scale)",
    ] = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class SharedCluster(ServedModels):
    """The models with their SLO, and the cluster that they share."""

    profile: Annotated[str, "profile file: stage latencies and weights of the types"]
    num_devices: Annotated[int, "devices in the cluster"]
    memory_gib: Annotated[float, "usable memory of a device, GiB"] = 13.0
    devices_per_node: Annotated[int, "devices in a node"] = 8
    load_gib_s: Annotated[
        float | None,
        "GiB/s at which a device loads weights when placements change; none: free, as published",
    ] = None
    pools: Annotated[str | None, POOLS_HELP] = None
    slo_scale: Annotated[float, "SLO as a multiple of the single-device latency"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measurement:
    """How a scenario is simulated and measured."""

    warmup_s: Annotated[float, "left out of the metrics at both ends, s"] = 10.0
    rng: Annotated[Literal["jax", "legacy"], "generator; legacy gives the published arrivals"]
    train_seed: Annotated[int, "seed of the traffic that placements are made for"]
    test_seed: Annotated[int, "seed of the traffic that they are tested on"]
    pipeline_overhead: Annotated[
        float | None,
        "every stage of an operator-serial pipeline takes this times single-device latency / "
        "stages; none: as profiled",
    ] = None
    rules: Rules = dataclasses.field(default_factory=Rules)
    train_batched: Annotated[
        bool, "whether placements are made for rules that batch, if they do, or for those without"
    ] = True


@dataclasses.dataclass(frozen=True, kw_only=True)
class BaseScenario(Measurement, SharedCluster):
    """What all scenarios have; the columns of tables are in the order of its fields."""

    @property
    def trained_on_test(self) -> bool:
        """Whether placements are tested on traffic that they were made for."""
        raise NotImplementedError

    @property
    def traffic(self) -> str:
        """The test traffic in words, for messages."""
        raise NotImplementedError

    def replication(self, index: int, seeds_apart: int) -> Self:
        """The scenario with other traffic, independent of that of every other index.

        seeds_apart: seeds closer than this may share random numbers.
        """
        step = index * (abs(self.train_seed - self.test_seed) + seeds_apart)
        return dataclasses.replace(
            self, train_seed=self.train_seed + step, test_seed=self.test_seed + step
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scenario(BaseScenario):
    """Everything that determines a result, except the policy; with synthetic traffic."""

    rate_rps: Annotated[float, "total request rate, requests/s"]
    split: Annotated[str, "how the rate is shared: uniform, power_law, triangle_decay"]
    process: Annotated[
        str, "arrival process of each model: gamma, poisson, deterministic, pareto, mmpp"
    ] = "gamma"
    cv: Annotated[float, "coefficient of variation of the gaps between arrivals"]
    duration_s: Annotated[float, "length of the traffic, s"]
    train_duration_s: Annotated[
        float | None, "length of the training traffic, s; none: duration_s"
    ] = None

    @property
    def trained_on_test(self) -> bool:
        # With equal seeds the shorter of training and test traffic begins the longer.
        return self.train_seed == self.test_seed or self.process == "deterministic"

    @property
    def traffic(self) -> str:
        return f"{self.rate_rps:.6g} requests/s for {self.duration_s:.6g} s"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Replayed(BaseScenario):
    """Everything that determines a result, except the policy; with traffic replayed from a trace.

    The trace is as busy as the full one before its rates are scaled: see `traces.reference_scale`.
    Slices are written "start-end", both ends "day.hour.minute".
    """

    trace: Annotated[str, "file, folder, or generated: maf1_like, maf2_like"]
    complete: Annotated[bool, "whether generated days stand in for those the trace lacks"] = False
    train: Annotated[str, "slice that placements are made for"]
    test: Annotated[str, "slice that they are tested on"]
    window_s: Annotated[float, "an arrival process is fitted to windows of this length, s"]
    train_window_s: Annotated[
        float | None, "how long training traffic plays each window, s; none: window_s"
    ] = None
    mapping: Annotated[
        Literal["stripe", "round_robin"], "how functions are shared out among the models"
    ] = "stripe"
    process: Annotated[Literal["gamma", "poisson"], "arrival process of each window"] = "gamma"
    rate_scale: Annotated[float, "factor of all rates; 1 is the full trace"]
    cv_scale: Annotated[float, "factor of the CVs of all gaps between arrivals"]

    def __post_init__(self) -> None:
        for name in ("window_s", "train_window_s"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be > 0, got {value}")

    @property
    def trained_on_test(self) -> bool:
        # With equal seeds what is played of a window is the beginning of it.
        return self.train == self.test and self.train_seed == self.test_seed

    @property
    def traffic(self) -> str:
        return f"{self.test} of {self.trace} at rate scale {self.rate_scale:.6g}"


FILE_FIELDS = ("models", "profile")
"""Fields of a scenario that name files: their contents determine a result, not their names."""


def scenario_of(config: Scenario) -> Scenario:
    """The scenario inside a config that extends `Scenario` with sweeps."""
    return Scenario(**part_of(Scenario, config))


def part_of(kind: type, config: Any) -> dict[str, Any]:
    """What a config that extends the dataclass `kind` has in the fields of that."""
    return {field.name: getattr(config, field.name) for field in dataclasses.fields(kind)}
