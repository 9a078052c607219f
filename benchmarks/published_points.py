"""Our placements against those that the paper's authors published, point by point.

    python benchmarks/published_points.py SHARED [--policy NAME ...] [--rows] [--csv FILE]

SHARED holds `golden/published_sample.json` and `data/profiles/v100_measured.json` (measured on V100
GPUs; neither is part of this project). The published placement of each point is simulated, and each
is placed afresh, trained on the traffic that it is tested on; both SLO attainments are compared
with the published one, which has three decimals.
"""

import argparse
import csv
import json
import time
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import numpy as np

from beta_jax import (
    Cluster,
    Group,
    ParallelConfig,
    Placement,
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
    placement: Placement  # the published one
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
        placement = _published_placement(row)
        points.append(Point(row["policy"], label, problem, traffic[key], placement, row["goodput"]))
    return points


def _published_placement(row: dict) -> Placement:
    configs = [
        ParallelConfig(op, pp) for count, (_, op, pp) in row["groups_rle"] for _ in range(count)
    ]
    groups = zip(configs, row["group_models"], strict=True)
    return Placement(tuple(Group(config, tuple(models)) for config, models in groups))


def compare(policy: str, points: list[Point]) -> Comparison:
    """Place all points with a policy and simulate the placements."""
    problems, workloads = [p.problem for p in points], [p.workload for p in points]
    start = time.perf_counter()
    results = place_batch(policy, problems, workloads)
    seconds = time.perf_counter() - start
    placements = [result.placement for result in results]
    tally = simulate(problems, placements, workloads, warmup_s=WARMUP_S)
    return Comparison(tally.attainment, np.array([p.published for p in points]), seconds)


def simulate_published(points: list[Point]) -> np.ndarray:
    """SLO attainment of the published placements. [point]"""
    problems, placements, workloads = zip(
        *((p.problem, p.placement, p.workload) for p in points), strict=True
    )
    return simulate(problems, placements, workloads, warmup_s=WARMUP_S).attainment


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shared", type=Path, help="folder that holds golden/ and data/")
    parser.add_argument("--policy", action="append", help="only this policy; may be repeated")
    parser.add_argument("--rows", action="store_true", help="also print every point")
    parser.add_argument("--csv", type=Path, help="also write every point to this file")
    arguments = parser.parse_args()
    by_policy: dict[str, list[Point]] = defaultdict(list)
    for point in read_points(arguments.shared):
        if arguments.policy is None or point.policy in arguments.policy:
            by_policy[point.policy].append(point)
    table = []
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
        simulated = simulate_published(points)
        for point, ours, same in zip(points, found.attainment, simulated, strict=True):
            table.append([policy, " ".join(point.label.split()), point.published, same, ours])
            if arguments.rows:
                row = f"{ours:.4f} {point.published:.3f} {ours - point.published:+.4f}"
                print(f"    {point.label}  {row}")
    equal = sum(round(same, 3) == published for _, _, published, same, _ in table)
    print(f"\npublished placements, simulated: {equal} of {len(table)} equal to three decimals")
    if arguments.csv is not None:
        with open(arguments.csv, "w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["policy", "point", "published", "simulated", "placed_afresh"])
            writer.writerows(table)


if __name__ == "__main__":
    main()
