"""A hundred placements at ten SLOs under a hundred workloads: 10^5 simulations in one call.

    python examples/gpu_sweep.py [--placements 100] [--seeds 100]

How long should pipelines be, if the models of each group are drawn at random? It prints the same on
any device.
"""

import argparse
import itertools

import numpy as np

import beta_jax

parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
parser.add_argument("--placements", type=int, default=100, help="a multiple of 4")
parser.add_argument("--seeds", type=int, default=100, help="workloads, at least 1")
arguments = parser.parse_args()
if arguments.placements < 4 or arguments.placements % 4 or arguments.seeds < 1:
    parser.error("--placements must be a multiple of 4, at least 4, and --seeds at least 1")

profile, cluster = beta_jax.load_profile("v100"), beta_jax.Cluster(num_devices=8)
types, slo_scales, stages = ["bert-1.3b"] * 16, np.linspace(1.5, 6, 10), (1, 2, 4, 8)
load = {"total_rate_rps": 30, "split": "power_law", "cv": 3}
cases = [beta_jax.make_models(types, profile, slo_scale=scale, **load) for scale in slo_scales]
problems = [beta_jax.Problem(models, cluster, profile) for models in cases]
workloads = beta_jax.synthesize_many(cases[0], seeds=range(arguments.seeds), duration_s=30)

rng = np.random.default_rng(0)
placements = []
for pp in np.repeat(stages, arguments.placements // len(stages)):
    hosted = [rng.choice(16, min(16, 4 * pp), replace=False) for _ in range(8 // pp)]
    config = beta_jax.ParallelConfig(1, int(pp))
    placements.append(beta_jax.Placement([beta_jax.Group(config, models) for models in hosted]))

lanes = zip(*itertools.product(problems, placements, workloads), strict=True)
tally = beta_jax.simulate(*lanes)
attainment = tally.attainment.reshape(len(problems), len(stages), -1, len(workloads))

print(f"{tally.num_counted.sum():,} requests in {tally.num_counted.size:,} simulations")
print("SLO scale " + "".join(f"{f'{pp} stages':>12}" for pp in stages))
for scale, row in zip(slo_scales, attainment.mean(axis=(2, 3)), strict=True):
    print(f"{scale:9.1f} " + "".join(f"{mean:12.2%}" for mean in row))
