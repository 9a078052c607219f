"""Throughput of dynamic batching against a scalar Numba loop, in one process on one core.

    python benchmarks/batching.py

One event is one request of one lane. Every row simulates the same 64 random placements (a quarter
of the groups hosts each model, six model types) under the same bursty traffic (CV 4) with both, by
the published rules with batches of up to 16, checks that every count is equal, and prints medians
of alternating runs after warm-up. Row (8, 4, 16): 8 groups of 4 stages, 16 models.
"""

import os
import platform
import statistics
import time

# Before either side starts its threads.
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])

import jax
import numpy as np

from beta_jax import (
    Cluster,
    Group,
    Model,
    ParallelConfig,
    Placement,
    Problem,
    Profile,
    Rules,
    Workload,
    simulate,
)
from beta_jax.simulator.engine import slo_ticks, stage_ticks
from beta_jax.types import BATCH_SIZES

import baseline
import baseline_batching

SHAPES = [(2, 1, 4), (8, 4, 16), (16, 4, 48), (64, 1, 48)]
LOADS = (0.5, 0.9, 1.5)
LANES, REQUESTS, HOSTED, NUM_TYPES, SLO_SCALE, CV = 64, 8_000, 0.25, 6, 5, 4
REPEATS = 5


def make_case(
    num_groups: int, num_stages: int, num_models: int, load: float
) -> tuple[Problem, list[Placement], Workload]:
    """Load 1: what all groups can serve without batching."""
    rng = np.random.default_rng([num_groups, num_stages, num_models])
    config = ParallelConfig(1, num_stages)
    stages_s = rng.uniform(0.02, 0.08, (NUM_TYPES, num_stages))
    types = {
        str(kind): {
            "configs": [
                {
                    "op": config.op,
                    "pp": config.pp,
                    "stage_latency_s": {
                        str(b): ((0.1 + 0.9 * b) * stages).tolist() for b in BATCH_SIZES
                    },
                    "weight_bytes": [1.0] * num_stages,
                    "act_bytes": {str(b): [0.0] * num_stages for b in BATCH_SIZES},
                }
            ]
        }
        for kind, stages in enumerate(stages_s)
    }
    profile = Profile.from_dict({"format": "beta_jax.profile", "version": 1, "types": types})
    kinds = rng.integers(0, NUM_TYPES, num_models)
    models = tuple(
        Model(f"m{i}", str(kind), SLO_SCALE * stages_s[kind].sum()) for i, kind in enumerate(kinds)
    )
    rules = Rules(batching="published", max_batch=max(BATCH_SIZES))
    problem = Problem(models, Cluster(num_groups * num_stages), profile, rules)
    hosted = rng.random((LANES, num_groups, num_models)) < HOSTED
    placements = [
        Placement(tuple(Group(config, tuple(np.flatnonzero(row).tolist())) for row in lane))
        for lane in hosted
    ]
    gap_s = stages_s[kinds].max(1).mean() / num_groups / load
    arrival_s = np.cumsum(rng.gamma(CV**-2, gap_s * CV**2, REQUESTS))
    return (
        problem,
        placements,
        Workload.from_seconds(arrival_s, rng.integers(0, num_models, REQUESTS)),
    )


def scalar(problem: Problem, placements: list[Placement], workload: Workload):
    """A function that simulates the case with the Numba loop."""
    num_models, num_groups = len(problem.models), len(placements[0].groups)
    hosted = np.zeros((num_models, num_groups, LANES), np.bool_)
    for lane, placement in enumerate(placements):
        for g, group in enumerate(placement.groups):
            hosted[list(group.models), g, lane] = True
    config = placements[0].groups[0].config
    stages = [
        [stage_ticks(problem, model.type, config, b) for b in BATCH_SIZES]
        for model in problem.models
    ]
    deadline = np.tile(slo_ticks(problem), (LANES, 1))
    arguments = (
        *baseline.candidate_lists(hosted),
        *baseline.candidate_lists(hosted.transpose(1, 0, 2)),
        np.array(stages),
        workload.arrival,
        workload.model,
        deadline,
        round(problem.rules.request_overhead_s * 1e9),
        problem.rules.max_batch,
    )
    return lambda: baseline_batching.simulate_lanes(*arguments)


def measure(shape: tuple[int, int, int], load: float) -> tuple[float, float]:
    """Million requests per second of the engine and of the Numba loop."""
    case = make_case(*shape, load)
    theirs = scalar(*case)

    def ours() -> list[np.ndarray]:
        tally = simulate(*case)
        return [tally.good, tally.latency_ticks, tally.dispatched, tally.group_good]

    for a, b in zip(ours(), theirs(), strict=True):  # warm-up, and the same work
        np.testing.assert_array_equal(a, b)
    seconds: list[list[float]] = [[], []]
    for _ in range(REPEATS):
        for times, run in zip(seconds, (ours, theirs), strict=True):
            start = time.perf_counter()
            run()
            times.append(time.perf_counter() - start)
    engine, numba = (REQUESTS * LANES / statistics.median(times) / 1e6 for times in seconds)
    return engine, numba


def main() -> None:
    print(f"{jax.devices()[0].device_kind}, {platform.machine()}, jax {jax.__version__}, one core")
    print("million request-events per second, medians; ratio = engine / Numba\n")
    print("(groups, stages, models)   load   engine    numba    ratio")
    for shape in SHAPES:
        for load in LOADS:
            engine, numba = measure(shape, load)
            print(f"{shape!s:27}{load:4}{engine:9.1f}{numba:9.1f}{engine / numba:9.2f}", flush=True)


if __name__ == "__main__":
    main()
