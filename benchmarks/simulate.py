"""Throughput of the batch simulator against a scalar Numba loop, in one process.

    python benchmarks/simulate.py [--cores N] [--json FILE]

One event is one request of one lane. Every row simulates the same random placements (a quarter of
the groups hosts each model, six model types) under the same traffic with both, checks that every
count is equal, and prints medians of alternating runs after warm-up. Row (4, 8, 48): 4 groups of 8
stages, 48 models.
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

from beta_jax.parallel import run_parallel
from beta_jax.simulator.engine import (
    LANES,
    MAX_LANES,
    Block,
    BlockShape,
    Kernel,
    choose_kernel,
    num_hosts_padded,
    simulate_block,
)
from beta_jax.types import PUBLISHED_RULES

import baseline

SHAPES = [(4, 8, 48), (16, 1, 48), (16, 4, 48), (32, 2, 72), (64, 1, 48)]
NUM_LANES = (1, 64, 1024)
HOSTED, NUM_TYPES, UTILISATION, SLO_SCALE = 0.25, 6, 0.9, 3
OVERHEAD = 11_000_000
REPEATS = 5


def make_case(groups: int, stages: int, models: int, lanes: int, requests: int) -> dict:
    rng = np.random.default_rng([groups, stages, models])
    stage_ticks = (rng.uniform(0.02, 0.08, (NUM_TYPES, stages)) * 1e9).astype(np.int64)
    model_type = rng.integers(0, NUM_TYPES, models)
    gap = stage_ticks[model_type].max(1).mean() / groups / UTILISATION
    return {
        "hosted": rng.random((models, groups, lanes)) < HOSTED,
        "stages": stage_ticks,
        "model_type": model_type,
        "arrival": np.cumsum(rng.exponential(gap, requests)).astype(np.int64),
        "model": rng.integers(0, models, requests).astype(np.int32),
        "deadline": np.tile(stage_ticks[model_type].sum(1) * SLO_SCALE, (lanes, 1)),
    }


def engine(case: dict):
    """A function that simulates the case in the blocks that the engine would make of it."""
    stage_ticks = case["stages"]
    num_stages = stage_ticks.shape[1]
    if num_stages == 1:
        stage_ticks = np.repeat(stage_ticks, 2, axis=1)  # one clock: total and bottleneck
    models, groups, lanes = case["hosted"].shape
    blocks = []
    kernel = choose_kernel(
        PUBLISHED_RULES, min(lanes, MAX_LANES), groups, num_stages, len(case["arrival"])
    )
    width = LANES[kernel]
    for start in range(0, lanes, width):
        hosted = case["hosted"][..., start : start + width]
        real = hosted.shape[2]
        padded = np.zeros((models + 1, groups, width), np.bool_)
        padded[:-1, :, :real] = hosted
        deadline = np.zeros((models + 1, width), np.int64)
        deadline[:-1, :real] = case["deadline"][start : start + real].T
        block = Block(
            arrival=case["arrival"],
            model=case["model"],
            num_requests=np.int32(len(case["arrival"])),
            first=np.int64(0),
            count_from=np.int32(0),
            count_to=np.int32(len(case["arrival"])),
            hosted=padded,
            config=np.zeros((groups, width), np.int32),
            deadline=deadline,
            model_type=np.append(case["model_type"], 0).astype(np.int32),
            latency=stage_ticks[:, None],
            request_overhead=np.int64(OVERHEAD),
        )
        blocks.append((jax.device_put(block), real))
    hosts = 0
    if kernel is Kernel.SINGLE:
        hosts = num_hosts_padded(int(case["hosted"].sum(1).max()), groups)
    shape = BlockShape(kernel, PUBLISHED_RULES.rule, num_stages, 0, hosts)

    def run_one(task: tuple[Block, int]) -> list[np.ndarray]:
        block, real = task
        return [np.asarray(array)[:, :real] for array in simulate_block(shape, block)[0]]

    def run() -> list[np.ndarray]:
        parts = run_parallel(run_one, blocks)
        good, latency, dispatched, group_good = (
            np.concatenate(p, axis=1).T for p in zip(*parts, strict=True)
        )
        return [good[:, :-1], latency[:, :-1], dispatched, group_good]

    return run


def scalar(case: dict):
    """A function that simulates the case with the Numba loop."""
    first, candidates = baseline.candidate_lists(case["hosted"])
    stages = case["stages"][case["model_type"]]
    groups = case["hosted"].shape[1]
    arguments = stages, case["arrival"], case["model"], case["deadline"], OVERHEAD, groups
    loop = baseline.simulate_lanes if ARGUMENTS.cores == 1 else baseline.simulate_lanes_parallel
    return lambda: loop(first, candidates, *arguments)


def measure(shape: tuple[int, int, int], lanes: int) -> dict:
    requests = {1: 200_000, 64: 8_000, 1024: 4_000}[lanes]
    case = make_case(*shape, lanes, requests)
    ours, theirs = engine(case), scalar(case)
    for a, b in zip(ours(), theirs(), strict=True):  # warm-up, and the same work
        np.testing.assert_array_equal(a, b)
    seconds: dict[str, list[float]] = {"engine": [], "numba": []}
    for _ in range(REPEATS):
        for name, run in (("engine", ours), ("numba", theirs)):
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    rate = {name: requests * lanes / statistics.median(s) / 1e6 for name, s in seconds.items()}
    return {
        "shape": shape,
        "lanes": lanes,
        "engine_mevents_s": rate["engine"],
        "numba_mevents_s": rate["numba"],
        "ratio": rate["engine"] / rate["numba"],
    }


def main() -> None:
    numba.set_num_threads(ARGUMENTS.cores)
    device = jax.devices()[0]
    print(
        f"{device.device_kind} ({jax.default_backend()}), {platform.machine()}, "
        f"jax {jax.__version__}, {len(os.sched_getaffinity(0))} cores"
    )
    print("million request-events per second, medians; ratio = engine / Numba")
    rows = []
    for lanes in NUM_LANES:
        print(f"\n{lanes:5d} lanes  (groups, stages, models)   engine    numba    ratio")
        for shape in SHAPES:
            row = measure(shape, lanes)
            rows.append(row)
            print(
                f"{'':13}{shape!s:27}{row['engine_mevents_s']:9.1f}"
                f"{row['numba_mevents_s']:9.1f}{row['ratio']:9.2f}",
                flush=True,
            )
        ratios = [row["ratio"] for row in rows if row["lanes"] == lanes]
        mean = statistics.geometric_mean(ratios)
        print(f"{'':13}geometric mean{'':31}{mean:9.2f}   lowest {min(ratios):.2f}")
    if ARGUMENTS.json:
        with open(ARGUMENTS.json, "w") as file:
            json.dump(rows, file, indent=1)


if __name__ == "__main__":
    main()
