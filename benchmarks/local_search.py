"""What `local-search` is worth: against published placements, and against the best there is.

    python benchmarks/local_search.py published SHARED    # published points
    python benchmarks/local_search.py tiny                # against every placement there is

Seconds are those of a machine that has compiled the programs before: each case is warmed up.
SHARED holds `golden/published_sample.json` and `data/profiles/v100_measured.json` (not part of this
project). `search_quality.py` tells about other traffic and longer budgets.
"""

import argparse
import sys
import time
from collections import defaultdict
from pathlib import Path

import numpy as np

import beta_jax

import published_points

ROOT = Path(__file__).resolve().parents[1]
WARMUP_S = published_points.WARMUP_S


def published(arguments: argparse.Namespace) -> None:
    """Each point within the budget, trained on the traffic that it is tested on, as published."""
    by_label = defaultdict(list)
    for point in published_points.read_points(arguments.path):
        by_label[point.label].append(point)
    worst, gains, below, gaps, bound_s = np.inf, [], 0, [], 0.0
    print("SLO attainment    published by      difference    left to gain in training\n")
    for label, points in by_label.items():
        problem, workload = points[0].problem, points[0].workload
        result = within(problem, workload, arguments.seconds)
        ours = attainment(problem, result, [workload])[0]
        best = max(points, key=lambda point: point.published)
        margin = ours - best.published
        worst, below = min(worst, margin), below + (margin < -0.0005)
        if 0.3 < best.published < 0.97:
            gains.append(margin)
            gaps.append(result.gap)
            start = time.perf_counter()
            beta_jax.attainment_bound(problem, workload)
            bound_s = max(bound_s, time.perf_counter() - start)
        row = f"{ours:.4f}  {best.published:.3f} {best.policy:14} {margin:+.4f}  {result.gap:.4f}"
        print(f"{row}  {label}  {result.num_simulations} simulations", flush=True)
    rows = sum(map(len, by_label.values()))
    print(f"\n{len(by_label)} points of {rows} rows: lowest difference {worst:+.4f}, {below} below")
    print(f"-0.0005; mean {np.mean(gains):+.4f} over {len(gains)} points published in (0.3, 0.97)")
    closed = (np.array(gaps)[:, None] <= (0.02, 0.06, 0.12)).sum(0).tolist()
    print(f"on which at most .02, .06, .12 are left to gain on {closed}, {max(gaps):.4f} at most;")
    print(f"a bound takes {bound_s:.1f} s at most")


def tiny(_: argparse.Namespace) -> None:
    """Fifty instances small enough to try every placement."""
    sys.path += [str(ROOT / "tests"), str(ROOT / "tests" / "search")]
    from test_exhaustive import tiny_instance

    rng = np.random.default_rng(0)
    problems, workloads = zip(*(tiny_instance(rng) for _ in range(50)), strict=True)
    exhaustive = beta_jax.place_batch("exhaustive", problems, workloads)
    best = np.array([result.score for result in exhaustive])
    attained = np.array([result.upper_bound for result in exhaustive])
    bound = np.array([beta_jax.attainment_bound(*p) for p in zip(problems, workloads, strict=True)])
    held, gap = (bound >= attained).sum(), bound - attained
    print(
        f"without a search: {held} of 50 bounds hold, {(gap <= 1e-12).sum()} are attained,", end=" "
    )
    print(f"mean gap {gap.mean():.4f}")
    for simulations in (0, 300, 1000, 3000):
        found = beta_jax.place_batch(
            "local-search", problems, workloads, budget_simulations=simulations
        )
        gap = best - [result.score for result in found]
        optimal = (gap <= 1e-12).sum()
        held = sum(r.upper_bound >= a - 1e-12 for r, a in zip(found, attained, strict=True))
        closed = sum(result.gap <= 1e-12 for result in found)
        print(
            f"{simulations:5} simulations: {optimal} of 50 optimal, at most {gap.max():.4f} below;",
            end=" ",
        )
        print(f"{held} bounds hold, {closed} gaps are closed")


def within(problem, training, seconds: float) -> beta_jax.Result:
    beta_jax.place("local-search", problem, training, budget_simulations=1)  # compiles
    return beta_jax.place("local-search", problem, training, budget_s=seconds)


def attainment(problem, result: beta_jax.Result, workloads) -> np.ndarray:
    return beta_jax.simulate(problem, result.placement, workloads, warmup_s=WARMUP_S).attainment


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("what", choices=("published", "tiny"))
    parser.add_argument("path", type=Path, nargs="?", help="SHARED")
    parser.add_argument("--seconds", type=float, default=10.0, help="budget of a published point")
    arguments = parser.parse_args()
    globals()[arguments.what](arguments)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
