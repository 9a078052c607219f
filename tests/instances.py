"""Random instances for property tests, given both to the package and to the oracle."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from hypothesis import strategies as st

from beta_jax import (
    Cluster,
    Group,
    Model,
    ParallelConfig,
    Placement,
    Problem,
    Profile,
    Rules,
    Schedule,
    Workload,
)
from beta_jax.search.fill.greedy import fill_greedily
from beta_jax.search.published.branch import Share
from beta_jax.search.result import Result

import reference
import reference_batching

CONFIGS = (ParallelConfig(1, 1), ParallelConfig(1, 2), ParallelConfig(2, 2), ParallelConfig(1, 4))
MILLISECOND = 10**6


def fill_partitions(share: Share) -> list[Result]:
    """Every usable group partition of a share, in the published order, filled greedily."""
    return fill_greedily([share.task(partition) for partition in share.partitions()])


def make_profile(
    stages: dict[str, dict[ParallelConfig, Any]], weight_bytes: float = 1.0
) -> Profile:
    """A profile with the given stage latencies (seconds), by batch size if not a list, and equal
    weights."""

    def by_batch(latency: Any) -> dict[str, list[float]]:
        latency = latency if isinstance(latency, dict) else {1: latency}
        return {str(batch): list(seconds) for batch, seconds in latency.items()}

    types = {
        kind: {
            "configs": [
                {
                    "op": config.op,
                    "pp": config.pp,
                    "stage_latency_s": by_batch(latency),
                    "weight_bytes": [weight_bytes] * config.pp,
                    "act_bytes": {batch: [0.0] * config.pp for batch in by_batch(latency)},
                }
                for config, latency in configs.items()
            ]
        }
        for kind, configs in stages.items()
    }
    return Profile.from_dict({"format": "beta_jax.profile", "version": 1, "types": types})


def mixed_problem(devices: int = 6, memory: float = 3.0, slo_s: float = 1.0) -> Problem:
    """Six models of a fast and a slow type; three fit a device; stages cost 5 % more than parts."""
    types = {
        kind: {
            ParallelConfig(op, pp): [latency_s / op / pp * (1.05 if pp > 1 else 1.0)] * pp
            for op in (1, 2)
            for pp in (1, 2, 4)
        }
        for kind, latency_s in (("fast", 0.1), ("slow", 0.4))
    }
    models = tuple(
        Model(f"{kind}-{i}", kind, slo_s, rate_rps=4.0 / (i + 1), cv=3.0)
        for i, kind in enumerate(("slow", "fast") * 3)
    )
    return Problem(models, Cluster(devices, memory_bytes=memory), make_profile(types))


class Instance(NamedTuple):
    problem: Problem
    placement: Placement | Schedule
    workload: Workload

    def oracle(self) -> reference.Outcome:
        models, rules = self.problem.models, self.problem.rules
        slo = [reference.duration_ticks(model.slo_s) for model in models]
        overhead = round(rules.request_overhead_s * reference.TICKS_PER_SECOND)
        requests = self.workload.arrival, self.workload.model, slo
        if rules.batching == "off":
            segments = self.schedule(self.groups)
            return reference.simulate(
                *requests, segments, overhead, rules.dispatch, work=self.workload.work
            )
        return reference_batching.simulate(
            *requests,
            self.schedule(self.batch_groups),
            overhead,
            batching=rules.batching,
            max_batch=rules.max_batch,
            work=self.workload.work,
        )

    def schedule(self, groups: Callable[[Placement], Any]) -> list[tuple[int, Any]]:
        if isinstance(self.placement, Placement):
            return [(0, groups(self.placement))]
        return [
            (round(start * reference.TICKS_PER_SECOND), groups(placement))
            for start, placement in zip(
                self.placement.start_s, self.placement.placements, strict=True
            )
        ]

    def groups(self, placement: Placement) -> list[reference.Group]:
        return [
            {m: self.stages(m, group.config, 1) for m in group.models} for group in placement.groups
        ]

    def batch_groups(self, placement: Placement) -> list[reference_batching.Group]:
        sizes = [size for size in (1, 2, 4, 8, 16) if size <= self.problem.rules.max_batch]
        return [
            {m: {b: self.stages(m, group.config, b) for b in sizes} for m in group.models}
            for group in placement.groups
        ]

    def stages(self, model: int, config: ParallelConfig, batch: int) -> list[int]:
        kind, rules = self.problem.models[model].type, self.problem.rules
        latency_s = self.problem.profile.stage_latency_s(kind, config, batch)
        return reference.stage_ticks(latency_s, rules.stage_overhead)


@st.composite
def workloads(draw, num_models: int, max_requests: int = 60) -> Workload:
    """Bursts, ties and gaps; model -1 is one that is not served."""
    gaps = st.sampled_from((0, 0, 1, 7 * MILLISECOND, 40 * MILLISECOND, 3000 * MILLISECOND))
    size = draw(st.integers(0, max_requests))
    gap = draw(st.lists(gaps, min_size=size, max_size=size))
    model = draw(st.lists(st.integers(-1, num_models - 1), min_size=size, max_size=size))
    origin = draw(st.sampled_from((0, 5 * MILLISECOND, 10**15)))
    return Workload(origin + np.cumsum(np.array(gap, np.int64)), np.array(model, np.int32))


def idle_groups(problem: Problem) -> tuple[ParallelConfig, ...]:
    """Of instances by other rules than the published one: a group of every configuration, so that
    shapes are all the same, as each compiles anew."""
    return () if problem.rules.dispatch == "earliest_free" else CONFIGS


@st.composite
def placements(draw, num_models: int, max_groups: int = 5, configs=CONFIGS, idle=()) -> Placement:
    """idle: configurations of further groups, which host nothing, anywhere among the others."""
    hosted = st.tuples(st.sampled_from(configs), st.sets(st.integers(0, num_models - 1)))
    groups = draw(st.lists(hosted, max_size=min(max_groups, 8 - len(idle))))
    if idle:
        groups = draw(st.permutations([*groups, *((config, ()) for config in idle)]))
    return Placement(tuple(Group(config, tuple(models)) for config, models in groups))


@st.composite
def problems(draw, dispatches=("earliest_free",)) -> Problem:
    num_types, num_models = 2, 3  # fixed, and both types served, as each shape compiles anew
    latency = st.sampled_from((0.01, 0.013, 0.02, 0.05))
    profile = make_profile(
        {
            f"type{i}": {
                config: draw(st.lists(latency, min_size=config.pp, max_size=config.pp))
                for config in CONFIGS
            }
            for i in range(num_types)
        }
    )
    slo = st.sampled_from((0.005, 0.03, 0.1, 0.4, math.inf))
    models = tuple(
        Model(f"m{i}", f"type{i if i < num_types else draw(st.integers(0, 1))}", draw(slo))
        for i in range(num_models)
    )
    rules = draw(
        st.builds(
            Rules,
            dispatch=st.sampled_from(dispatches),
            stage_overhead=st.sampled_from((0.0, 0.009)),
            request_overhead_s=st.sampled_from((0.0, 0.011)),
        )
    )
    return Problem(models, Cluster(num_devices=64), profile, rules)


@st.composite
def worked(draw, instances: st.SearchStrategy[Instance]) -> Instance:
    """The instances, with work of its own for each request: equal, none to speak of, a lot."""
    instance = draw(instances)
    size = len(instance.workload)
    works = st.sampled_from((1, 2**15, 2**16 - 1, 2**16, 2**16 + 1, 3 * 2**16, 40 * 2**16))
    work = np.array(draw(st.lists(works, min_size=size, max_size=size)), np.int32)
    return instance._replace(workload=dataclasses.replace(instance.workload, work=work))


@st.composite
def instances(draw, dispatches=("earliest_free",), max_groups=5, configs=CONFIGS) -> Instance:
    problem = draw(problems(dispatches))
    num_models = len(problem.models)
    workload = draw(workloads(num_models))
    idle = idle_groups(problem) if configs is CONFIGS else ()
    static = placements(num_models, max_groups, configs, idle)
    if draw(st.booleans()):
        return Instance(problem, draw(static), workload)
    starts = sorted(draw(st.sets(st.integers(-2, len(workload)), min_size=1, max_size=4)))
    start_s = np.unique([workload.arrival_s[i] if 0 <= i < len(workload) else i for i in starts])
    segments = tuple(draw(static) for _ in start_s)
    return Instance(problem, Schedule(tuple(map(float, start_s)), segments), workload)
