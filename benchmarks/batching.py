"""Throughput of dynamic batching against a scalar Numba loop of the same rules, in one process.

    python benchmarks/batching.py [--cores N] [--json FILE]

One event is one request of one lane. Every row simulates the same random placements (a quarter of
the groups hosts each model, six model types, batches of up to 16, each doubling 1.6 times as long)
under the same overload with both, checks that every count is equal, and prints medians of
alternating runs after warm-up. Row (8, 4, 16): 8 groups of 4 stages, 16 models. The baseline knows
the published rules; the strict ones run beside it.
"""

import argparse
import json
import os
import platform
import statistics
import time

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--cores", type=int, default=1, help="cores that both sides use (default 1)")
parser.add_argument("--json", help="also write the table to this file")
ARGUMENTS = parser.parse_args()
# Before either side starts its threads.
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: ARGUMENTS.cores])

import jax
import numba
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
)
from beta_jax.parallel import run_parallel
from beta_jax.profiles.profile import FORMAT, VERSION
from beta_jax.simulator.engine import (
    MAX_LANES,
    Kernel,
    group_lanes,
    make_simulations,
    pack_block,
    request_overhead_ticks,
    simulate_block,
    slo_ticks,
    stage_ticks,
)
from beta_jax.types import BATCH_SIZES

import baseline
import baseline_batching

SHAPES = [(8, 4, 16), (8, 1, 16), (16, 4, 48), (4, 8, 48)]
NUM_LANES = (1, 64)
HOSTED, NUM_TYPES, LOAD, SLO_SCALE, DOUBLING = 0.25, 6, 1.2, 4, 1.6
REPEATS = 5


class Case:
    """The same placements and traffic for both sides."""

    def __init__(self, groups: int, stages: int, models: int, lanes: int, requests: int) -> None:
        rng = np.random.default_rng([groups, stages, models])
        self.config = ParallelConfig(1, stages)
        stage_s = rng.uniform(0.02, 0.08, (NUM_TYPES, stages))
        kinds = rng.integers(0, NUM_TYPES, models)
        rules = Rules(stage_overhead=0, batching="published", max_batch=BATCH_SIZES[-1])
        self.problem = Problem(
            tuple(
                Model(f"m{m}", f"t{kind}", stage_s[kind].sum() * SLO_SCALE)
                for m, kind in enumerate(kinds)
            ),
            Cluster(num_devices=groups * stages),
            self._profile(stage_s),
            rules,
        )
        self.hosted = rng.random((models, groups, lanes)) < HOSTED
        gap_s = stage_s[kinds].max(1).mean() / groups / LOAD
        arrival_s = np.cumsum(rng.exponential(gap_s, requests))
        self.workload = Workload.from_seconds(arrival_s, rng.integers(0, models, requests))

    def _profile(self, stage_s: np.ndarray) -> Profile:
        nothing = [0.0] * self.config.pp
        types = {
            f"t{kind}": {
                "configs": [
                    {
                        "op": self.config.op,
                        "pp": self.config.pp,
                        "stage_latency_s": {
                            str(size): (latency_s * DOUBLING**doublings).tolist()
                            for doublings, size in enumerate(BATCH_SIZES)
                        },
                        "weight_bytes": nothing,
                        "act_bytes": {str(size): nothing for size in BATCH_SIZES},
                    }
                ]
            }
            for kind, latency_s in enumerate(stage_s)
        }
        return Profile.from_dict({"format": FORMAT, "version": VERSION, "types": types})

    def engine(self, batching: str):
        """A function that simulates the case in the blocks that the engine would make of it."""
        rules = Rules(stage_overhead=0, batching=batching, max_batch=BATCH_SIZES[-1])
        problem = Problem(self.problem.models, self.problem.cluster, self.problem.profile, rules)
        placements = [
            Placement(tuple(Group(self.config, tuple(np.flatnonzero(group))) for group in lane.T))
            for lane in np.moveaxis(self.hosted, -1, 0)
        ]
        simulations = make_simulations(problem, placements, self.workload, 0.0)
        lanes = [one.lanes[0] for one in simulations]
        blocks = []
        for _, members in group_lanes(lanes, MAX_LANES, Kernel.BATCHING):
            shape, block, _ = pack_block(Kernel.BATCHING, [lanes[i] for i in members])
            blocks.append((shape, jax.device_put(block), len(members)))

        def run_one(task) -> list[np.ndarray]:
            shape, block, real = task
            return [np.asarray(array)[:, :real] for array in simulate_block(shape, block)[0]]

        def run() -> list[np.ndarray]:
            parts = run_parallel(run_one, blocks)
            models, groups, _ = self.hosted.shape
            rows = models, models, groups, groups
            joined = (np.concatenate(p, axis=1).T for p in zip(*parts, strict=True))
            return [array[:, :count] for array, count in zip(joined, rows, strict=True)]

        return run

    def scalar(self):
        """A function that simulates the case with the Numba loop."""
        problem, lanes = self.problem, self.hosted.shape[2]
        ticks = {
            model.type: [stage_ticks(problem, model.type, self.config, b) for b in BATCH_SIZES]
            for model in problem.models
        }
        arguments = (
            *baseline.candidate_lists(self.hosted),
            *baseline.candidate_lists(self.hosted.transpose(1, 0, 2)),
            np.array([ticks[model.type] for model in problem.models]),
            self.workload.arrival - self.workload.arrival[0],
            self.workload.model,
            np.tile(slo_ticks(problem), (lanes, 1)),
            request_overhead_ticks(problem.rules),
            problem.rules.max_batch,
        )
        loop = baseline_batching.simulate_lanes
        if ARGUMENTS.cores > 1:
            loop = baseline_batching.simulate_lanes_parallel
        return lambda: loop(*arguments)


def measure(shape: tuple[int, int, int], lanes: int) -> dict:
    requests = {1: 200_000, 64: 8_000}[lanes]
    case = Case(*shape, lanes, requests)
    runs = {
        "published": case.engine("published"),
        "numba": case.scalar(),
        "strict": case.engine("strict"),
    }
    counts = {name: run() for name, run in runs.items()}  # warm-up
    for ours, theirs in zip(counts["published"], counts["numba"], strict=True):
        np.testing.assert_array_equal(ours, theirs)  # the same work
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(REPEATS):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    rate = {name: requests * lanes / statistics.median(s) / 1e6 for name, s in seconds.items()}
    return {
        "shape": shape,
        "lanes": lanes,
        **{f"{name}_mevents_s": value for name, value in rate.items()},
        "ratio": rate["published"] / rate["numba"],
        "attainment": counts["published"][0].sum() / (requests * lanes),
    }


def main() -> None:
    numba.set_num_threads(ARGUMENTS.cores)
    device = jax.devices()[0]
    print(
        f"{device.device_kind} ({jax.default_backend()}), {platform.machine()}, "
        f"jax {jax.__version__}, {len(os.sched_getaffinity(0))} cores"
    )
    print("million request-events per second, medians; ratio = published / Numba")
    rows = []
    for lanes in NUM_LANES:
        print(f"\n{lanes:5d} lanes  (groups, stages, models)  published   numba    ratio   strict")
        for shape in SHAPES:
            row = measure(shape, lanes)
            rows.append(row)
            print(
                f"{'':13}{shape!s:27}{row['published_mevents_s']:9.2f}{row['numba_mevents_s']:9.2f}"
                f"{row['ratio']:9.2f}{row['strict_mevents_s']:9.2f}",
                flush=True,
            )
    if ARGUMENTS.json:
        with open(ARGUMENTS.json, "w") as file:
            json.dump(rows, file, indent=1)


if __name__ == "__main__":
    main()
