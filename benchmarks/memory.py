"""Peak memory of a large batch: tallies of many lanes under one long workload.

    python benchmarks/memory.py [--lanes 4096] [--requests 1000000]

Lanes run in blocks that are packed only when they start, and their requests are reduced to counts
inside the loop, so memory grows with neither lanes x requests nor the number of blocks.
"""

import argparse
import resource
import time

import numpy as np

import beta_jax


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lanes", type=int, default=4096)
    parser.add_argument("--requests", type=int, default=1_000_000)
    arguments = parser.parse_args()
    profile = beta_jax.load_profile("data/profiles/v100.json")
    models = beta_jax.make_models(["bert-1.3b"] * 16, profile, slo_scale=5)
    problem = beta_jax.Problem(models, beta_jax.Cluster(num_devices=16), profile)
    rng = np.random.default_rng(0)
    arrival_s = np.cumsum(rng.exponential(1 / 60, arguments.requests))
    workload = beta_jax.Workload.from_seconds(arrival_s, rng.integers(0, 16, arguments.requests))
    pipeline = beta_jax.ParallelConfig(1, 4)
    lanes = [
        beta_jax.Placement(
            tuple(beta_jax.Group(pipeline, tuple(rng.choice(16, 12, False))) for _ in range(4))
        )
        for _ in range(arguments.lanes)
    ]
    start = time.perf_counter()
    attainment = beta_jax.simulate(problem, lanes, workload).attainment
    seconds = time.perf_counter() - start
    peak_gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    events = arguments.lanes * arguments.requests
    print(f"{arguments.lanes} lanes x {arguments.requests} requests: peak {peak_gib:.2f} GiB")
    print(f"{seconds:.1f} s, {events / seconds / 1e6:.0f} million events/s, all cores")
    print(f"mean attainment {attainment.mean():.4f}")


if __name__ == "__main__":
    main()
