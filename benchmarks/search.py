"""A placement search against the same number of simulations in a scalar Numba loop, one process.

    python benchmarks/search.py [--json FILE]

`mp-search` for 48 models of one type on 16 devices. The baseline simulates the placement that each
partition ended with as often as the search simulated that partition: the simulations of a scalar
search and none of its bookkeeping.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import numpy as np

import beta_jax
from beta_jax.search.fill.greedy import GreedyTask, fill_greedily
from beta_jax.simulator.engine import stage_ticks
from beta_jax.types import durations_to_ticks

import baseline

REPEATS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", help="also write the table to this file")
    arguments = parser.parse_args()
    profile = beta_jax.load_profile("data/profiles/v100.json")
    models = beta_jax.make_models(
        ["bert-1.3b"] * 48, profile, slo_scale=5, total_rate_rps=40, split="power_law", cv=4
    )
    problem = beta_jax.Problem(models, beta_jax.Cluster(num_devices=16), profile)
    workload = beta_jax.synthesize(models, duration_s=300)

    tasks = [
        GreedyTask(problem, workload, partition)
        for partition in beta_jax.enumerate_partitions(problem.cluster)
    ]
    scalar = []
    for task, found in zip(tasks, fill_greedily(tasks), strict=True):
        stages = stage_ticks(problem, "bert-1.3b", task.configs[0])
        hosted = np.zeros((len(models), len(task.configs), 1), np.bool_)
        for g, group in enumerate(found.placement.groups):
            hosted[list(group.models), g] = True
        first, candidates = baseline.candidate_lists(hosted)
        lane = first, candidates, np.tile(stages, (len(models), 1)), workload.arrival
        deadline = durations_to_ticks([[m.slo_s for m in models]])
        arguments_of_lane = *lane, workload.model, deadline, 11_000_000, len(task.configs)
        scalar.append((found.num_simulations, arguments_of_lane))

    def search() -> None:
        beta_jax.place("mp-search", problem, workload)

    def simulations() -> None:
        for count, lane in scalar:
            for _ in range(count):
                baseline.simulate_lanes(*lane)

    seconds: dict[str, list[float]] = {"mp-search": [], "Numba simulations": []}
    for repeat in range(REPEATS + 1):
        for name, run in zip(seconds, (search, simulations), strict=True):
            start = time.perf_counter()
            run()
            if repeat > 0:  # the first run compiles
                seconds[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    total = sum(count for count, _ in scalar)
    print(f"{total} simulations of {len(workload)} requests, 16 devices, 48 models, all cores")
    for name, median in medians.items():
        print(f"{name:20}{median:8.3f} s")
    print(f"ratio {medians['Numba simulations'] / medians['mp-search']:.1f}")
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(medians, indent=1))


if __name__ == "__main__":
    main()
