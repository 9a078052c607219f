"""A sweep of the user's own: any axes as lists, combined as a grid or zipped."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from experiments.engine.fields import render
from experiments.engine.files import input_path
from experiments.engine.model_files import read_models, shares
from experiments.engine.points import Point, Replications
from experiments.engine.pool_files import read_pools
from experiments.engine.scenarios import POOLS_HELP, Measurement, Scenario, ServedModels, part_of
from experiments.experiment import Experiment, Plot
from experiments.report.figures import LATENCY

FIELDS = {
    "num_devices": "num_devices",
    "rates": "rate_rps",
    "cvs": "cv",
    "slo_scales": "slo_scale",
    "num_models": "num_models",
    "memory_gib": "memory_gib",
    "durations_s": "duration_s",
    "profile": "profile",
    "splits": "split",
    "processes": "process",
    "pools": "pools",
}
"""Axes of `Config`, and the field of a scenario that each sets (`num_models`: the types)."""
TEXT_AXES = ("profile", "splits", "processes", "pools")
OF_ONE_POOL = ("num_devices", "memory_gib", "profile")
"""Axes that a file of pools stands for."""


class SweepError(ValueError):
    """Axes that make no sweep."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(Replications, Measurement, ServedModels):
    """Of what determines a result, whatever can be swept is a list: an axis."""

    policies: Annotated[tuple[str, ...], "placement policies, a curve each"]
    num_devices: Annotated[tuple[int, ...], "devices in the cluster"]
    rates: Annotated[tuple[float, ...], "total request rates, requests/s"]
    cvs: Annotated[tuple[float, ...], "coefficients of variation of the gaps between arrivals"]
    slo_scales: Annotated[tuple[float, ...], "SLOs as multiples of the single-device latency"]
    num_models: Annotated[
        tuple[int, ...], "numbers of models, the types taking turns; empty: one of each type"
    ] = ()
    memory_gib: Annotated[tuple[float, ...], "usable memories of a device, GiB"] = (13.0,)
    durations_s: Annotated[tuple[float, ...], "lengths of the traffic, s"]
    profile: Annotated[tuple[str, ...], "profile files"]
    splits: Annotated[
        tuple[str, ...], "how the rate is shared: uniform, power_law, triangle_decay"
    ] = ("uniform",)
    processes: Annotated[
        tuple[str, ...], "arrival processes: gamma, poisson, deterministic, pareto, mmpp"
    ] = ("gamma",)
    combine: Annotated[
        Literal["grid", "zip"], "all combinations, or the first values, the second ones, ..."
    ] = "grid"
    x: Annotated[
        str | None, "axis drawn along x; none: the first with most values, of the numeric ones"
    ] = None
    devices_per_node: Annotated[int, "devices in a node"] = 8
    pools: Annotated[tuple[str, ...], f"files, each a cluster: {POOLS_HELP}"] = ()
    train_duration_s: Annotated[
        float | None, "length of the training traffic, s; none: as the test traffic"
    ] = None


def points(config: Config) -> list[Point]:
    """Raises SweepError for an empty axis, zipped axes of unequal lengths, no axis to draw along,
    and an axis that a file of models makes meaningless."""
    axes = {name: tuple(dict.fromkeys(values)) for name, values in _axes(config).items()}
    if config.combine == "zip":
        axes = _axes(config)
    varied = [name for name, values in axes.items() if len(values) > 1]
    _check(config, axes, varied)
    x = _x_axis(config, axes)
    varied.sort(key=lambda name: name == x)  # panel after panel
    found = []
    for values in _combinations(config, axes, varied):
        apart = [] if config.combine == "zip" else [name for name in varied if name != x]
        panel = ", ".join(f"{name}={render(values[name])}" for name in apart)
        if config.combine == "zip":
            panel = " and ".join(varied)
        scenario = _scenario(config, values)
        found += [
            Point(panel, FIELDS[x], values[x], policy, scenario) for policy in config.policies
        ]
    return found


def _axes(config: Config) -> dict[str, tuple[Any, ...]]:
    axes = {name: getattr(config, name) for name in FIELDS}
    if not config.pools:
        del axes["pools"]
    else:
        axes |= {name: axes[name][:1] for name in OF_ONE_POOL}
    if not config.num_models:
        axes["num_models"] = (len(config.model_types),)
    return axes


def _check(config: Config, axes: Mapping[str, Sequence[Any]], varied: Sequence[str]) -> None:
    if empty := [name for name, values in axes.items() if not values]:
        raise SweepError(f"{empty[0]} is empty; an axis needs a value")
    if not config.model_types and config.models is None:
        raise SweepError("which models? give model_types, or a file of models")
    if config.combine == "zip" and len({len(axes[name]) for name in varied}) > 1:
        lengths = ", ".join(f"{name} {len(axes[name])}" for name in varied)
        raise SweepError(f"zipped axes must have equally many values, or one: {lengths}")
    if config.models is not None:
        specs = read_models(input_path(config.models))
        fixed = {"num_models": True, "splits": shares(specs) is not None}
        fixed["slo_scales"] = all(spec.slo_s or spec.slo_scale for spec in specs)
        for name in varied:
            if fixed.get(name):
                raise SweepError(f"{name} cannot be swept: {config.models} says what they are")


def _x_axis(config: Config, axes: Mapping[str, Sequence[Any]]) -> str:
    numeric = [name for name in axes if name not in TEXT_AXES]
    if config.combine == "zip":  # values that come twice cannot be told apart along x
        numeric = [name for name in numeric if len({*axes[name]}) == max(map(len, axes.values()))]
    if config.x is not None and config.x not in numeric:
        raise SweepError(f"x cannot be {config.x!r}; it can be {', '.join(numeric) or 'nothing'}")
    if not numeric:
        raise SweepError("no numeric axis of the zipped ones has only distinct values, to be x")
    return config.x or max(numeric, key=lambda name: len(axes[name]))


def _combinations(
    config: Config, axes: Mapping[str, Sequence[Any]], varied: Sequence[str]
) -> list[dict[str, Any]]:
    fixed = {name: values[0] for name, values in axes.items()}
    together = [axes[name] for name in varied]
    rows = (
        zip(*together, strict=True)
        if config.combine == "zip" and varied
        else itertools.product(*together)
    )
    return [fixed | dict(zip(varied, row, strict=True)) for row in rows]


def _scenario(config: Config, values: Mapping[str, Any]) -> Scenario:
    types = itertools.islice(itertools.cycle(config.model_types), values["num_models"])
    swept = {FIELDS[name]: value for name, value in values.items() if name != "num_models"}
    same = part_of(Measurement, config) | part_of(ServedModels, config)
    if "pools" in swept:  # what tables say
        pools = read_pools(input_path(swept["pools"]))
        swept["num_devices"] = sum(pool.num_devices for pool in pools)
    same["model_types"] = () if config.models is not None else tuple(types)
    return Scenario(
        devices_per_node=config.devices_per_node,
        train_duration_s=config.train_duration_s,
        **same,
        **swept,
    )


PLOTS = (Plot(stem="attainment"), Plot(stem="latency", quantity=LATENCY))
EXPERIMENT = Experiment(points=points, plots=PLOTS)
