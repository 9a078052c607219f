"""The curves of figure 12 against those of the simulator that the paper's authors published.

    python benchmarks/published_curves.py SHARED [--csv FILE]

SHARED holds `golden/sec6_3/summary.csv`, what that simulator and its policies came to, unmodified,
and `golden/profiles/v100_like.json`, the profile by formula that they ran on (neither is part of
this project; measured profiles are a matter of `published_points.py`). Every point is placed and
simulated afresh here, on the same profile and traffic.
"""

import argparse
import csv
from pathlib import Path

from beta_jax import (
    Cluster,
    Placement,
    Problem,
    load_profile,
    make_models,
    place_batch,
    simulate,
    synthesize,
)

MODELS, DEVICES, DURATION_S, WARMUP_S = ("bert-103.5b",) * 4, 64, 1200.0, 10.0


def compare(shared: Path) -> list[dict]:
    """A row per point and policy: what is published, and what is found."""
    golden = shared / "golden"
    profile = load_profile(golden / "profiles" / "v100_like.json")
    with open(golden / "sec6_3" / "summary.csv", newline="") as file:
        published = [*csv.DictReader(file)]
    problems, workloads = [], []
    for row in published:
        models = make_models(
            MODELS,
            profile,
            slo_scale=float(row["slo_scale"]),
            total_rate_rps=float(row["total_rate"]),
            split="power_law",
            cv=float(row["cv"]),
        )
        problems.append(Problem(models, Cluster(DEVICES), profile))
        workloads.append(synthesize(models, duration_s=DURATION_S, rng="legacy"))
    placed: dict[int, Placement] = {}
    for policy in dict.fromkeys(row["policy"] for row in published):
        own = [i for i, row in enumerate(published) if row["policy"] == policy]
        found = place_batch(policy, [problems[i] for i in own], [workloads[i] for i in own])
        placed |= {i: result.placement for i, result in zip(own, found, strict=True)}
    placements = [placed[i] for i in range(len(published))]
    tally = simulate(problems, placements, workloads, warmup_s=WARMUP_S)
    return [
        {
            "panel": row["exp"].removeprefix("goodput_vs_"),
            "x": float(row["x"]),
            "policy": row["policy"],
            "published": float(row["goodput"]),
            "found": float(found),
            "published_placement": row["placement"],
            "placement": str(placement),
        }
        for row, found, placement in zip(published, tally.attainment, placements, strict=True)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shared", type=Path, help="folder that holds golden/")
    parser.add_argument("--csv", type=Path, help="also write every point to this file")
    arguments = parser.parse_args()
    rows = compare(arguments.shared)
    most = max(abs(row["found"] - row["published"]) for row in rows)
    alike = sum(row["placement"] == row["published_placement"] for row in rows)
    print(f"{len(rows)} points: SLO attainment differs by {most:.3g} at most")
    print(f"placements: {alike} of {len(rows)} have the published groups")
    if arguments.csv is not None:
        with open(arguments.csv, "w", newline="") as file:
            writer = csv.DictWriter(file, [*rows[0]], lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
