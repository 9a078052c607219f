"""Makes what scenarios describe: problems and workloads, each distinct one once."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import NamedTuple

from beta_jax.problem import Problem, make_models
from beta_jax.profiles import load_profile
from beta_jax.types import GB, Cluster, Workload
from beta_jax.workload import synthesize
from experiments.output import input_path
from experiments.points import Scenario, Traffic


class Inputs(NamedTuple):
    """What a scenario is made into."""

    problem: Problem
    train: Workload
    test: Workload


def make_inputs(scenarios: Iterable[Scenario]) -> dict[Scenario, Inputs]:
    """Problem and workloads of each scenario; equal traffic is the same object."""
    read_profile = functools.cache(lambda path: load_profile(input_path(path)))
    workloads: dict[Traffic, Workload] = {}
    inputs = {}
    for scenario in dict.fromkeys(scenarios):
        profile = read_profile(scenario.profile)
        models = make_models(
            scenario.model_types,
            profile,
            slo_scale=scenario.slo_scale,
            total_rate_rps=scenario.rate_rps,
            split=scenario.split,
            cv=scenario.cv,
        )
        cluster = Cluster(scenario.num_devices, scenario.memory_gib * GB, scenario.devices_per_node)
        for seed in (scenario.train_seed, scenario.test_seed):
            traffic = scenario.traffic(seed)
            if traffic not in workloads:
                workloads[traffic] = synthesize(
                    models,
                    duration_s=scenario.duration_s,
                    process=scenario.process,
                    rng=scenario.rng,
                    seed=seed,
                )
        inputs[scenario] = Inputs(
            Problem(models, cluster, profile, scenario.rules),
            workloads[scenario.traffic(scenario.train_seed)],
            workloads[scenario.traffic(scenario.test_seed)],
        )
    return inputs
