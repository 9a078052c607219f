"""The list of points that every figure, sweep and plan is: what one simulated result depends on."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal, NamedTuple

from beta_jax.types import Rules


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scenario:
    """Everything that determines a result, except the policy."""

    model_types: Annotated[tuple[str, ...], "profiled type of each served model"]
    profile: Annotated[str, "profile file: stage latencies and weights of the types"]
    num_devices: Annotated[int, "devices in the cluster"]
    memory_gib: Annotated[float, "usable memory of a device, GiB"] = 13.0
    devices_per_node: Annotated[int, "devices in a node"] = 8
    rate_rps: Annotated[float, "total request rate, requests/s"]
    split: Annotated[str, "how the rate is shared: uniform, power_law, triangle_decay"]
    process: Annotated[str, "arrival process of each model"] = "gamma"
    cv: Annotated[float, "coefficient of variation of the gaps between arrivals"]
    slo_scale: Annotated[float, "SLO as a multiple of the single-device latency"]
    duration_s: Annotated[float, "length of the traffic, s"]
    warmup_s: Annotated[float, "left out of the metrics at both ends, s"] = 10.0
    rng: Annotated[Literal["jax", "legacy"], "generator; legacy gives the published arrivals"]
    train_seed: Annotated[int, "seed of the traffic that placements are made for"]
    test_seed: Annotated[int, "seed of the traffic that they are tested on"]
    rules: Rules = dataclasses.field(default_factory=Rules)

    def traffic(self, seed: int) -> Traffic:
        """What determines the arrivals; scenarios that agree in it share one workload."""
        return Traffic(
            len(self.model_types),
            self.rate_rps,
            self.split,
            self.process,
            self.cv,
            self.duration_s,
            self.rng,
            seed,
        )


class Traffic(NamedTuple):
    """The key of a synthetic workload; see `Scenario` for the fields."""

    num_models: int
    rate_rps: float
    split: str
    process: str
    cv: float
    duration_s: float
    rng: str
    seed: int


@dataclasses.dataclass(frozen=True)
class Point:
    """A mark of a figure: `policy` in `scenario`, drawn in `panel` at `x` (the field `x_name`)."""

    panel: str
    x_name: str
    x: float
    policy: str
    scenario: Scenario


def sweep(
    panel: str, base: Scenario, x_name: str, values: Iterable[Any], policies: Sequence[str]
) -> list[Point]:
    """The points of a panel: every policy at every value of one field of the base scenario."""
    return [
        Point(panel, x_name, x, policy, dataclasses.replace(base, **{x_name: x}))
        for x in values
        for policy in policies
    ]


def scenario_of(config: Scenario) -> Scenario:
    """The scenario inside a config that extends `Scenario` with sweeps."""
    fields = dataclasses.fields(Scenario)
    return Scenario(**{field.name: getattr(config, field.name) for field in fields})
