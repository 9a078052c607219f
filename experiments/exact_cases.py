"""Systems whose averages queueing theory gives exactly, as the simulator expresses them.

All of them are lanes of one block and share their traffic: Poisson arrivals of three models, one
request/s together, so that a load is a service time in seconds. Every stage and SLO is a multiple
of 1/512 s, which neither float32 nor ticks round. Overheads are 0.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from beta_jax import queueing as theory
from beta_jax.placement import Group, Placement
from beta_jax.problem import Problem
from beta_jax.profiles import FORMAT, VERSION, Profile
from beta_jax.simulator import Outcome, simulate
from beta_jax.types import Cluster, Model, ParallelConfig, Rules
from beta_jax.workload import synthesize_many

RATES_RPS = (0.2, 0.3, 0.5)
ALL = (0, 1, 2)
FOREVER = float("inf")
WARMUP_S = 400.0
"""Many relaxation times of the most loaded of `cases`, at 0.8."""
STANDARD_ERRORS = 4.0
"""By chance a check differs by more once in 4000 times, with 48 replications."""
WORKLOADS_AT_ONCE = 8
PASS, FAIL = "pass", "FAIL"
RULES = Rules(stage_overhead=0.0, request_overhead_s=0.0)
Row = dict[str, Any]
Stages = tuple[float, ...]
Groups = tuple[tuple[Stages, tuple[int, ...]], ...]
"""Stage latencies in seconds of each group, and the models that it hosts."""


class Case(NamedTuple):
    """A system, what is measured of each simulation, and what that is on average, exactly."""

    name: str
    quantity: str
    groups: Groups
    slo_s: float
    measure: Callable[[Outcome], float]
    exact: float


def attainment(outcome: Outcome) -> float:
    return float(outcome.good[slice(*outcome.counted)].mean())


def latency_mean_s(outcome: Outcome) -> float:
    return float(outcome.latency_s[slice(*outcome.counted)].mean())


def share_within(latency_s: float, outcome: Outcome) -> float:
    return float((outcome.latency_s[slice(*outcome.counted)] <= latency_s).mean())


def found_present(outcome: Outcome) -> float:
    """How many others an arrival finds in a system that serves in order of arrival, on average."""
    left = outcome.finish.searchsorted(outcome.workload.arrival, side="right")
    return float((np.arange(len(left)) - left)[slice(*outcome.counted)].mean())


def compare(
    found: Sequence[Case],
    replications: int,
    duration_s: float,
    seed: int,
    warmup_s: float = WARMUP_S,
) -> list[Row]:
    """Simulate every case on as many independent workloads; one row each, with the verdict.

    warmup_s: left out at both ends; many relaxation times of the most loaded system.
    """
    systems = Systems(stages for case in found for stages, _ in case.groups)
    problems = [systems.problem(case.slo_s) for case in found]
    placements = [systems.placement(case.groups) for case in found]
    measured: list[list[float]] = [[] for _ in found]
    for first in range(seed, seed + replications, WORKLOADS_AT_ONCE):
        workloads = synthesize_many(
            problems[0].models,
            seeds=range(first, min(first + WORKLOADS_AT_ONCE, seed + replications)),
            duration_s=duration_s,
            process="poisson",
        )
        outcomes = simulate(
            problems * len(workloads),
            placements * len(workloads),
            [workload for workload in workloads for _ in found],
            warmup_s=warmup_s,
            outputs="requests",
        )
        for i, outcome in enumerate(outcomes):
            measured[i % len(found)].append(found[i % len(found)].measure(outcome))
    return [_row(case, values) for case, values in zip(found, measured, strict=True)]


def _row(case: Case, values: list[float]) -> Row:
    mean = float(np.mean(values))
    error = float(np.std(values, ddof=1)) / len(values) ** 0.5
    scores = (mean - case.exact) / error if error else float("inf")
    return {
        "case": case.name,
        "quantity": case.quantity,
        "simulated": mean,
        "exact": case.exact,
        "standard_error": error,
        "difference_in_se": scores,
        "verdict": PASS if abs(scores) <= STANDARD_ERRORS else FAIL,
    }


def cases() -> list[Case]:
    """The systems; loads and SLOs below, at and above what they can serve."""
    return [*_waits(), *_many_servers(), *_two_models(), *_deadlines()]


def _waits() -> Iterable[Case]:
    for load in (0.25, 0.5, 0.75):
        name, groups = f"M/D/1, load {load:g}", (((load,), ALL),)
        latency_s = float(theory.pipeline_latency_s(1, load))
        yield Case(name, "mean latency (s)", groups, FOREVER, latency_mean_s, latency_s)
    # Little's law: at one request/s the mean number present is the mean latency in seconds.
    yield Case(name, "found by an arrival", groups, FOREVER, found_present, latency_s)
    at_once = functools.partial(share_within, load)
    yield Case(name, "share that does not wait", groups, FOREVER, at_once, 1 - load)
    for share in (0.5, 0.9, 0.99):
        within = load + float(theory.md1_wait_quantile_s(share, 1, load))
        measure = functools.partial(share_within, within)
        yield Case(name, f"share within {within:.3f} s", groups, FOREVER, measure, share)
    for stages in ((0.25, 0.6875, 0.5), (0.375,) * 4):
        latency_s = float(theory.pipeline_latency_s(1, sum(stages), max(stages)))
        yield Case(
            _pipeline(stages),
            "mean latency (s)",
            ((stages, ALL),),
            FOREVER,
            latency_mean_s,
            latency_s,
        )


def _many_servers() -> Iterable[Case]:
    """Replicas: requests go to the group that is free first, as from one queue."""
    for number, service_s in ((2, 1.5), (3, 2.25), (4, 2.0)):
        name = f"M/D/{number}, load {service_s / number:g} of each"
        exact = service_s + float(theory.mdc_wait_s(number, 1, service_s))
        groups = (((service_s,), ALL),) * number
        yield Case(name, "mean latency (s)", groups, FOREVER, latency_mean_s, exact)


def _two_models() -> Iterable[Case]:
    """The paper's two models on two devices, apart and pooled (section 3.1)."""
    for name, service_s, first in (("50:50", 1.25, (2,)), ("20:80", 1.0, (0,))):
        share = sum(RATES_RPS[model] for model in first)
        second = tuple(model for model in ALL if model not in first)
        apart = ((service_s,), first), ((service_s,), second)
        exact = float(theory.simple_latency_s(1, service_s, share))
        yield Case(
            f"two models {name} apart", "mean latency (s)", apart, FOREVER, latency_mean_s, exact
        )
        pooled = (((service_s / 2, service_s / 2), ALL),)
        exact = float(theory.pipeline_latency_s(1, service_s, service_s / 2))
        yield Case(
            f"two models {name} pooled", "mean latency (s)", pooled, FOREVER, latency_mean_s, exact
        )


def _deadlines() -> Iterable[Case]:
    """Requests that would be late are turned away."""
    for stages, slo_s in (
        ((0.5,), 1.0),
        ((0.75,), 0.75),
        ((0.75,), 2.0),
        ((1.0,), 3.0),
        ((1.5,), 3.0),
        ((2.0,), 8.0),
        ((0.5, 0.5), 1.25),
        ((0.25, 0.75, 0.5), 2.0),
        ((0.625,) * 4, 3.0),
        ((1.25, 1.25), 4.0),
    ):
        name = _pipeline(stages) if len(stages) > 1 else f"M/D/1, load {stages[0]:g}"
        exact = float(theory.deadline_attainment(1, slo_s, sum(stages), max(stages)))
        groups = ((stages, ALL),)
        yield Case(f"{name}, SLO {slo_s:g} s", "SLO attainment", groups, slo_s, attainment, exact)


def _pipeline(stages: Stages) -> str:
    return f"stages {'/'.join(f'{stage:g}' for stage in stages)} s"


class Systems:
    """Problems and placements from stage latencies, with one profile, so that lanes share blocks.

    A configuration's number of operator-parallel devices is a mere label of its stage latencies.
    """

    def __init__(self, stages: Iterable[Stages], types: tuple[str, ...] = ("t", "t", "t")) -> None:
        """types: of each model; they cost the same, except that `slow` takes twice as long."""
        self._config = {
            latency_s: ParallelConfig(label, len(latency_s))
            for label, latency_s in enumerate(dict.fromkeys(stages), 1)
        }
        self._types = types
        document = {
            kind: {"configs": [_costs(c, s, 1 + (kind == "slow")) for s, c in self._config.items()]}
            for kind in set(types)
        }
        self._profile = Profile.from_dict({"format": FORMAT, "version": VERSION, "types": document})

    def problem(self, slo_s: float, dispatch: str = "earliest_free") -> Problem:
        models = tuple(
            Model(f"m{i}", kind, slo_s, rate)
            for i, (kind, rate) in enumerate(zip(self._types, RATES_RPS, strict=True))
        )
        rules = dataclasses.replace(RULES, dispatch=dispatch)
        return Problem(models, Cluster(num_devices=10**6), self._profile, rules)

    def placement(self, groups: Groups) -> Placement:
        return Placement(tuple(Group(self._config[stages], hosted) for stages, hosted in groups))


def _costs(config: ParallelConfig, stages: Stages, factor: int) -> dict[str, object]:
    nothing = [0.0] * config.pp
    return {
        "op": config.op,
        "pp": config.pp,
        "stage_latency_s": {"1": [factor * latency_s for latency_s in stages]},
        "weight_bytes": nothing,
        "act_bytes": {"1": nothing},
    }
