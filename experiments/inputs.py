"""Makes what scenarios describe: problems and workloads, each distinct one once."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from beta_jax.problem import Problem, make_models
from beta_jax.profiles import Profile, load_profile
from beta_jax.types import GB, Cluster, Model, Workload
from beta_jax.workload import synthesize_many
from experiments.model_files import ModelSpec, read_models, shares
from experiments.output import input_path
from experiments.points import Scenario


class Inputs(NamedTuple):
    """What a scenario is made into."""

    problem: Problem
    train: Workload
    test: Workload


class Traffic(NamedTuple):
    """What determines synthetic arrivals, except the seed."""

    rate_rps: tuple[float, ...]
    cv: float
    process: str
    duration_s: float
    rng: str


class InputMaker:
    """Makes problems and workloads; each file is read once."""

    def __init__(self) -> None:
        self._profile = functools.cache(_profile)
        self._specs = functools.cache(lambda path: read_models(input_path(path)))

    def problem(self, scenario: Scenario) -> Problem:
        """Raises what the library raises for bad input."""
        profile = self._profile(scenario.profile, scenario.pipeline_overhead)
        cluster = Cluster(scenario.num_devices, scenario.memory_gib * GB, scenario.devices_per_node)
        return Problem(self._models(scenario, profile), cluster, profile, scenario.rules)

    def _models(self, scenario: Scenario, profile: Profile) -> tuple[Model, ...]:
        specs: tuple[ModelSpec, ...] = ()
        types: Sequence[str] = scenario.model_types
        if scenario.models is not None:
            specs = self._specs(scenario.models)
            types = [spec.type for spec in specs]
        models = make_models(
            types,
            profile,
            slo_scale=scenario.slo_scale,
            total_rate_rps=scenario.rate_rps,
            split=shares(specs) or scenario.split,
            cv=scenario.cv,
        )
        if not specs:
            return models
        return tuple(_described(*pair, profile) for pair in zip(models, specs, strict=True))

    def workloads(self, scenarios: Iterable[Scenario]) -> dict[Scenario, Inputs]:
        """Problem and workloads of each scenario; equal traffic is the same object."""
        problems = {scenario: self.problem(scenario) for scenario in dict.fromkeys(scenarios)}
        seeds: dict[Traffic, dict[int, None]] = {}
        models: dict[Traffic, Sequence[Model]] = {}
        for scenario, problem in problems.items():
            for traffic, seed in train_and_test(scenario, problem):
                models.setdefault(traffic, problem.models)
                seeds.setdefault(traffic, {})[seed] = None
        made = {
            (traffic, seed): workload
            for traffic, own in seeds.items()
            for seed, workload in zip(
                own,
                synthesize_many(
                    models[traffic],
                    seeds=list(own),
                    duration_s=traffic.duration_s,
                    process=traffic.process,
                    rng=traffic.rng,
                ),
                strict=True,
            )
        }
        return {
            scenario: Inputs(problem, *(made[key] for key in train_and_test(scenario, problem)))
            for scenario, problem in problems.items()
        }


def _profile(path: str, pipeline_overhead: float | None) -> Profile:
    profile = load_profile(input_path(path))
    return profile if pipeline_overhead is None else profile.with_even_pipelines(pipeline_overhead)


def train_and_test(scenario: Scenario, problem: Problem) -> list[tuple[Traffic, int]]:
    """The traffic and seed of a scenario's two workloads, by which they are shared."""
    rates = tuple(model.rate_rps for model in problem.models)
    train_s = (
        scenario.duration_s if scenario.train_duration_s is None else scenario.train_duration_s
    )
    return [
        (Traffic(rates, scenario.cv, scenario.process, duration_s, scenario.rng), seed)
        for duration_s, seed in (
            (train_s, scenario.train_seed),
            (scenario.duration_s, scenario.test_seed),
        )
    ]


def seeds_apart(scenario: Scenario, num_models: int) -> int:
    """How far apart seeds must be to be independent: model i of a legacy seed s is seed s + i.

    Raises ValueError if the scenario's own two seeds are closer, but not equal.
    """
    apart = num_models if scenario.rng == "legacy" else 1
    if 0 < abs(scenario.train_seed - scenario.test_seed) < apart:
        raise ValueError(
            f"train_seed {scenario.train_seed} and test_seed {scenario.test_seed} share traffic: "
            f"legacy seeds of {num_models} models must be equal, or {num_models} apart"
        )
    return apart


def _described(model: Model, spec: ModelSpec, profile: Profile) -> Model:
    slo_s = model.slo_s
    if spec.slo_s is not None:
        slo_s = spec.slo_s
    elif spec.slo_scale is not None:
        slo_s = spec.slo_scale * profile.single_device_latency_s(model.type)
    return dataclasses.replace(model, slo_s=slo_s, name=spec.name or model.name)
