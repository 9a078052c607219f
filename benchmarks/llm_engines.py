"""Throughput of engines as lanes against a scalar Numba loop of the same rules, in one process.

    python benchmarks/llm_engines.py [--cores N] [--lanes 1024] [--json FILE]

A lane serves 300 generated requests of 10 or of 2 a second: overload, in which blocks run out time
and again, and a load that an engine can carry. One engine with the step times, caps and blocks of
an RTX 4090 with Llama 3.1 8B, no prefix reuse. Both sides serve the same lanes, every good request,
latency, step and preemption is compared, and medians of alternating runs after warm-up are printed.
"""

import argparse
import json
import os
import resource
import statistics
import time

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--cores", type=int, default=1, help="cores that both sides use (default 1)")
parser.add_argument("--lanes", type=int, default=1024, help="(default 1024)")
parser.add_argument("--json", help="also write the table to this file")
ARGUMENTS = parser.parse_args()
# Before either side starts its threads.
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: ARGUMENTS.cores])

import dataclasses

import numba
import numpy as np

from beta_jax import llm

import baseline_llm

NUM_REQUESTS, RATES_RPS, REPEATS = 300, (10.0, 2.0), 5
TTFT_S, TPOT_S = 2.0, 0.05
ENGINE = llm.Engine(
    max_num_seqs=256,
    max_num_batched_tokens=2048,
    num_blocks=2588,
    step_time=llm.LinearStepTime(16_320_000_000, 83_427_000, 188_700, 44_107_000),
)


def make_lane(rate_rps: float, seed: int) -> llm.TokenRequests:
    traffic = llm.GeneratedTraffic(rate_rps, duration_s=2 * NUM_REQUESTS / rate_rps)
    requests = traffic.sample(seed)
    return llm.TokenRequests(
        requests.arrival_ns[:NUM_REQUESTS],
        requests.input_tokens[:NUM_REQUESTS],
        requests.output_tokens[:NUM_REQUESTS],
    )


def scalar(lanes: list[llm.TokenRequests]):
    """A function that serves the lanes with the Numba loop."""
    arrival = np.stack([lane.arrival_ns * 1000 for lane in lanes])
    prompt = np.stack([lane.input_tokens for lane in lanes]).astype(np.int64)
    end = prompt + np.stack([lane.output_tokens for lane in lanes])
    engine = (
        ENGINE.max_num_seqs,
        ENGINE.max_num_batched_tokens,
        ENGINE.num_blocks,
        ENGINE.block_size,
    )
    limits = int(TTFT_S * 1e12), int(TPOT_S * 1e12)
    loop = baseline_llm.serve_lanes if ARGUMENTS.cores == 1 else baseline_llm.serve_lanes_parallel
    return lambda: loop(arrival, prompt, end, engine, dataclasses.astuple(ENGINE.step_time), limits)


def measure(rate_rps: float) -> dict:
    lanes = [make_lane(rate_rps, seed) for seed in range(ARGUMENTS.lanes)]
    pairs = [(lane, ENGINE) for lane in lanes]

    def ours() -> llm.BatchOutcome:
        return llm.simulate_batch(pairs, ttft_limit_s=TTFT_S, tpot_limit_s=TPOT_S)

    theirs = scalar(lanes)
    found, wanted = ours(), theirs()  # warm-up, and the same work
    np.testing.assert_array_equal(found.num_good, wanted[:, 0])
    np.testing.assert_allclose(found.latency_mean_s * NUM_REQUESTS * 1e12, wanted[:, 1], rtol=1e-12)
    np.testing.assert_array_equal(found.steps, wanted[:, 2])
    np.testing.assert_array_equal(found.preemptions, wanted[:, 3])
    seconds: dict[str, list[float]] = {"lanes": [], "numba": []}
    for _ in range(REPEATS):
        for name, run in (("lanes", ours), ("numba", theirs)):
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    rate = {name: ARGUMENTS.lanes / statistics.median(s) for name, s in seconds.items()}
    return {
        "rate_rps": rate_rps,
        "steps": float(found.steps.mean()),
        "calls": float(found.calls.mean()),
        "preemptions": float(found.preemptions.mean()),
        "lanes_per_s": rate["lanes"],
        "numba_lanes_per_s": rate["numba"],
        "ratio": rate["lanes"] / rate["numba"],
    }


def main() -> None:
    numba.set_num_threads(ARGUMENTS.cores)
    print(f"{ARGUMENTS.lanes} lanes of {NUM_REQUESTS} requests, {ARGUMENTS.cores} cores; medians")
    print("requests/s   steps   calls  preemptions    lanes/s  numba lanes/s   ratio")
    rows = []
    for rate_rps in RATES_RPS:
        row = measure(rate_rps)
        rows.append(row)
        print(
            f"{rate_rps:10g}{row['steps']:8.0f}{row['calls']:8.0f}{row['preemptions']:13.1f}"
            f"{row['lanes_per_s']:11.0f}{row['numba_lanes_per_s']:15.0f}{row['ratio']:8.2f}",
            flush=True,
        )
    peak_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"peak memory {peak_gb:.2f} GB")
    if ARGUMENTS.json:
        with open(ARGUMENTS.json, "w") as file:
            json.dump(rows, file, indent=1)


if __name__ == "__main__":
    main()
