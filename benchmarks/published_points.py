"""Our placements against those that the paper's authors published, point by point.

    python benchmarks/published_points.py SHARED [--policy NAME ...] [--rows]

SHARED holds `golden/published_sample.json` and `data/profiles/v100_measured.json` (measured on V100
GPUs; neither is part of this project). Each point is placed afresh, trained on the traffic that it
is tested on, and its SLO attainment compared with the published one.
"""

import argparse
import json
import time
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import numpy as np

from beta_jax import (
    Cluster,
    Problem,
    Workload,
    load_profile,
    make_models,
    place_batch,
    simulate,
    synthesize,
)

WARMUP_S = 10.0


class Point(NamedTuple):
    policy: str
    label: str
    problem: Problem
    workload: Workload
    published: float


class Comparison(NamedTuple):
    attainment: np.ndarray  # [point], ours
    published: np.ndarray
    seconds: float

    @property
    def difference(self) -> np.ndarray:
        return self.attainment - self.published


def read_points(shared: Path) -> list[Point]:
    """The published points; those with the same traffic share a workload object."""
    sample = json.loads((shared / "golden" / "published_sample.json").read_text())
    profile = load_profile(shared / "data" / "profiles" / "v100_measured.json")
    traffic: dict[tuple, Workload] = {}
    points = []
    for row in sample["rows"]:
        types = sample["model_sets"][row["set"]]
        models = make_models(
            [types[i % len(types)] for i in range(row["num_models"])],
            profile,
            slo_scale=row["slo_scale"],
            total_rate_rps=row["total_rate"],
            split=row["rate_distribution"],
            cv=row["cv"],
        )
        key = tuple((model.rate_rps, model.cv) for model in models), row["duration"]
        if key not in traffic:
            traffic[key] = synthesize(models, duration_s=row["duration"], rng="legacy")
        problem = Problem(models, Cluster(row["num_devices"]), profile)
        label = (
            f"{row['set']:9} {row['num_devices']:3} devices {row['num_models']:2} models "
            f"rate {row['total_rate']:6.2f} CV {row['cv']:3} SLO {row['slo_scale']:4}"
        )
        points.append(Point(row["policy"], label, problem, traffic[key], row["goodput"]))
    return points


def compare(policy: str, points: list[Point]) -> Comparison:
    """Place all points with a policy and simulate the placements."""
    problems, workloads = [p.problem for p in points], [p.workload for p in points]
    start = time.perf_counter()
    results = place_batch(policy, problems, workloads)
    seconds = time.perf_counter() - start
    placements = [result.placement for result in results]
    tally = simulate(problems, placements, workloads, warmup_s=WARMUP_S)
    return Comparison(tally.attainment, np.array([p.published for p in points]), seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shared", type=Path, help="folder that holds golden/ and data/")
    parser.add_argument("--policy", action="append", help="only this policy; may be repeated")
    parser.add_argument("--rows", action="store_true", help="also print every point")
    arguments = parser.parse_args()
    by_policy: dict[str, list[Point]] = defaultdict(list)
    for point in read_points(arguments.shared):
        if arguments.policy is None or point.policy in arguments.policy:
            by_policy[point.policy].append(point)
    print("SLO attainment, ours - published\n")
    print(f"{'policy':16} points   mean |d|    mean d     min d     max d   seconds")
    for policy, points in sorted(by_policy.items()):
        found = compare(policy, points)
        d = found.difference
        print(
            f"{policy:16}{len(d):7}{np.abs(d).mean():11.4f}{d.mean():+10.4f}{d.min():+10.4f}"
            f"{d.max():+10.4f}{found.seconds:10.1f}",
            flush=True,
        )
        if arguments.rows:
            for point, ours in zip(points, found.attainment, strict=True):
                row = f"{ours:.4f} {point.published:.3f} {ours - point.published:+.4f}"
                print(f"    {point.label}  {row}")


if __name__ == "__main__":
    main()
