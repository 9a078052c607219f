"""Makes what scenarios describe: problems and workloads, each distinct one once."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from beta_jax import traces
from beta_jax.placement.problem import Problem, make_models, profile_of
from beta_jax.profiles.profile import Profile, load_profile
from beta_jax.traces.trace import parse_time
from beta_jax.types import GB, Cluster, Model, Workload
from beta_jax.workloads.synthesis import synthesize_many
from experiments.engine.files import input_path
from experiments.engine.model_files import ModelSpec, read_models, shares
from experiments.engine.pool_files import memory_bytes, read_cluster
from experiments.engine.scenarios import BaseScenario, Replayed, Scenario


class Inputs(NamedTuple):
    """What a scenario is made into."""

    problem: Problem
    train: Workload
    test: Workload


class Synthetic(NamedTuple):
    """What determines synthetic arrivals, except the seed."""

    rate_rps: tuple[float, ...]
    cv: float
    process: str
    duration_s: float
    rng: str


class Slice(NamedTuple):
    """What determines the arrival processes that are fitted to a trace."""

    trace: str
    complete: bool
    start: str
    end: str
    window_s: float
    mapping: str
    process: str
    num_models: int


class Replay(NamedTuple):
    """What determines replayed arrivals, except the seed."""

    slice: Slice
    window_s: float
    rate_scale: float
    cv_scale: float
    rng: str


Arrivals = Synthetic | Replay


class InputMaker:
    """Makes problems and workloads; each file is read once."""

    def __init__(self) -> None:
        self._profile = functools.cache(_profile)
        self._cluster = functools.cache(_cluster)
        self._specs = functools.cache(lambda path: read_models(input_path(path)))
        self._trace = functools.cache(_open_trace)
        self._fit = functools.cache(self._fitted)

    def problem(self, scenario: BaseScenario) -> Problem:
        """Raises what the library raises for bad input."""
        if scenario.pools is None:
            profile = self._profile(scenario.profile, scenario.pipeline_overhead)
            room = memory_bytes(scenario.memory_gib)
            load = None if scenario.load_gib_s is None else scenario.load_gib_s * GB
            cluster = Cluster(
                scenario.num_devices,
                room,
                scenario.devices_per_node,
                load_bandwidth_bytes_per_s=load,
            )
        else:
            cluster, profile = self._cluster(scenario.pools, scenario.pipeline_overhead)
        return Problem(self._models(scenario, profile), cluster, profile, scenario.rules)

    def check(self, scenarios: Iterable[BaseScenario]) -> None:
        """Raise what bad input raises, before anything is computed: seeds make no difference."""
        apart = (dataclasses.replace(s, train_seed=0, test_seed=0) for s in scenarios)
        for scenario in dict.fromkeys(apart):
            self.problem(scenario)
            if isinstance(scenario, Scenario) and 2 * scenario.warmup_s >= scenario.duration_s:
                raise ValueError(
                    f"a warm-up cut of {scenario.warmup_s:g} s at both ends leaves nothing of "
                    f"{scenario.duration_s:g} s: warmup_s must be less than half of duration_s"
                )

    def num_models(self, scenario: BaseScenario) -> int:
        return len(self._types(scenario))

    def num_requests(self, scenario: BaseScenario) -> tuple[float, float]:
        """Expected lengths of a scenario's training and test traffic."""
        match scenario:
            case Scenario():
                train_s = scenario.train_duration_s or scenario.duration_s
                rate_rps = max(scenario.rate_rps, 0.0)
                return rate_rps * train_s, rate_rps * scenario.duration_s
            case Replayed():
                train, test = (
                    float(self._fit(of.slice).rate_rps.sum()) * of.rate_scale * of.window_s
                    for of in _replays(scenario, self.num_models(scenario))
                )
                return train, test
        raise TypeError(scenario)

    def _types(self, scenario: BaseScenario) -> Sequence[str]:
        if scenario.models is None:
            return scenario.model_types
        return [spec.type for spec in self._specs(scenario.models)]

    def _models(self, scenario: BaseScenario, profile: Profile) -> tuple[Model, ...]:
        specs = () if scenario.models is None else self._specs(scenario.models)
        total_rps, split, cv = self._nominal(scenario, shares(specs))
        models = make_models(
            self._types(scenario),
            profile,
            slo_scale=scenario.slo_scale,
            total_rate_rps=total_rps,
            split=split,
            cv=cv,
        )
        if not specs:
            return models
        return tuple(_described(*pair, profile) for pair in zip(models, specs, strict=True))

    def _nominal(
        self, scenario: BaseScenario, given: Sequence[float] | None
    ) -> tuple[float, str | Sequence[float], float]:
        """Total rate, how it is shared, and CV, as placement policies may know them.

        Of a replay these are the mean rates of the test traffic.
        """
        match scenario:
            case Scenario():
                return scenario.rate_rps, given or scenario.split, scenario.cv
            case Replayed():
                if given:
                    raise ValueError(
                        f"{scenario.models}: in a replay the trace says who sends "
                        "what; leave rate_share out"
                    )
                _, test = _replays(scenario, self.num_models(scenario))
                rates = self._fit(test.slice).rate_rps.mean(axis=1) * scenario.rate_scale
                return float(rates.sum()), rates.tolist(), scenario.cv_scale
        raise TypeError(scenario)

    def workloads(self, scenarios: Iterable[BaseScenario]) -> dict[BaseScenario, Inputs]:
        """Problem and workloads of each scenario; equal traffic is the same object."""
        problems = {scenario: self.problem(scenario) for scenario in dict.fromkeys(scenarios)}
        seeds: dict[Arrivals, dict[int, None]] = {}
        models: dict[Arrivals, Sequence[Model]] = {}
        for scenario, problem in problems.items():
            for traffic, seed in train_and_test(scenario, problem):
                models.setdefault(traffic, problem.models)
                seeds.setdefault(traffic, {})[seed] = None
        made = {
            (traffic, seed): workload
            for traffic, own in seeds.items()
            for seed, workload in zip(own, self._sample(traffic, models[traffic], own), strict=True)
        }
        return {
            scenario: Inputs(problem, *(made[key] for key in train_and_test(scenario, problem)))
            for scenario, problem in problems.items()
        }

    def _sample(
        self, traffic: Arrivals, models: Sequence[Model], seeds: Iterable[int]
    ) -> list[Workload]:
        match traffic:
            case Synthetic():
                return synthesize_many(
                    models,
                    seeds=list(seeds),
                    duration_s=traffic.duration_s,
                    process=traffic.process,
                    rng=traffic.rng,
                )
            case Replay():
                fitted = self._fit(traffic.slice)
                scaled = fitted.scaled(rate=traffic.rate_scale, cv=traffic.cv_scale)
                played = dataclasses.replace(scaled, window_s=traffic.window_s)
                return [played.sample(seed=seed, rng=traffic.rng) for seed in seeds]

    def _fitted(self, of: Slice) -> traces.Traffic:
        """The processes of a slice, at the rates of the full trace."""
        trace, scale = self._trace(of.trace, of.complete)
        fitted = traces.fit_traffic(
            trace,
            of.num_models,
            start=of.start,
            end=of.end,
            window_s=of.window_s,
            mapping=of.mapping,
            process=of.process,
        )
        return fitted.scaled(rate=scale)


def _profile(path: str, pipeline_overhead: float | None) -> Profile:
    profile = load_profile(input_path(path))
    return profile if pipeline_overhead is None else profile.with_even_pipelines(pipeline_overhead)


def _cluster(path: str, pipeline_overhead: float | None) -> tuple[Cluster, Profile]:
    cluster, profiles = read_cluster(input_path(path))
    if pipeline_overhead is not None:
        profiles = {n: p.with_even_pipelines(pipeline_overhead) for n, p in profiles.items()}
    return cluster, profile_of(cluster, profiles)


def _open_trace(source: str, complete: bool) -> tuple[traces.Trace, float]:
    """A trace and its `reference_scale`."""
    trace = traces.open_trace(input_path(source))
    scale = traces.reference_scale(trace)
    return (traces.complete(trace) if complete else trace), scale


def train_and_test(scenario: BaseScenario, problem: Problem) -> list[tuple[Arrivals, int]]:
    """The traffic and seed of a scenario's two workloads, by which they are shared."""
    seeds = scenario.train_seed, scenario.test_seed
    match scenario:
        case Scenario():
            rates = tuple(model.rate_rps for model in problem.models)
            test_s, train_s = scenario.duration_s, scenario.train_duration_s
            durations = test_s if train_s is None else train_s, test_s
            return [
                (Synthetic(rates, scenario.cv, scenario.process, duration_s, scenario.rng), seed)
                for duration_s, seed in zip(durations, seeds, strict=True)
            ]
        case Replayed():
            return [*zip(_replays(scenario, len(problem.models)), seeds, strict=True)]
    raise TypeError(scenario)


def _replays(scenario: Replayed, num_models: int) -> tuple[Replay, Replay]:
    """Training and test traffic."""

    def replay(text: str, played_s: float) -> Replay:
        start, _, end = text.partition("-")
        return Replay(
            Slice(
                scenario.trace,
                scenario.complete,
                start,
                end,
                scenario.window_s,
                scenario.mapping,
                scenario.process,
                num_models,
            ),
            played_s,
            scenario.rate_scale,
            scenario.cv_scale,
            scenario.rng,
        )

    window_s = scenario.window_s
    train_window_s = window_s if scenario.train_window_s is None else scenario.train_window_s
    return replay(scenario.train, train_window_s), replay(scenario.test, window_s)


def seeds_apart(scenario: BaseScenario, num_models: int) -> int:
    """How far apart seeds must be to be independent.

    Legacy seeds count streams: model i of seed s, or the i-th window of a replay, is seed s + i.
    Raises ValueError if the scenario's own two seeds are closer, but not equal.
    """
    apart, streams = 1, f"{num_models} models"
    if scenario.rng == "legacy":
        apart = num_models
        if isinstance(scenario, Replayed):
            num_windows = max(
                math.ceil((parse_time(end) - parse_time(start)) / scenario.window_s)
                for start, _, end in (s.partition("-") for s in (scenario.train, scenario.test))
            )
            apart, streams = num_models * num_windows, f"{streams} and {num_windows} windows"
    if 0 < abs(scenario.train_seed - scenario.test_seed) < apart:
        raise ValueError(
            f"train_seed {scenario.train_seed} and test_seed {scenario.test_seed} share traffic: "
            f"legacy seeds of {streams} must be equal, or {apart} apart"
        )
    return apart


def _described(model: Model, spec: ModelSpec, profile: Profile) -> Model:
    slo_s = model.slo_s
    if spec.slo_s is not None:
        slo_s = spec.slo_s
    elif spec.slo_scale is not None:
        slo_s = spec.slo_scale * profile.single_device_latency_s(model.type)
    return dataclasses.replace(model, slo_s=slo_s, name=spec.name or model.name)
