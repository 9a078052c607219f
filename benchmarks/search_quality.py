"""Is a search worth its time on workloads that nobody tuned it to?

    python benchmarks/search_quality.py PROFILE [--generator 0] [--workloads 0,5,7] [--report]

Draws 24 workloads by the generator's seed, trains on 8 traffic seeds, tests on 32 others, and compares
`local-search` within 3, 10, 30 and 100 s (or within simulations) with the better of `mp-search` and
`mp-search-sep` on the same training traffic. A longer search begins with the shorter one, so one
search tells about all budgets. Every row is stored in results/search_quality as soon as it is there,
and what is stored is not measured again; `--report` only prints what there is. Seconds leave out
compilation: a search of one simulation goes before, and how long that takes is reported.

PROFILE is, say, one measured on V100 GPUs (not part of this project).
"""

import argparse
import json
import math
import os
import sys
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np

import beta_jax
from beta_jax.analysis.statistics import Interval, mean_interval, paired_difference

ROOT = Path(__file__).resolve().parents[1]
WORKLOADS = 24
TRAIN_SEEDS, TEST_SEEDS = range(8), range(8, 40)
REQUESTS, DURATION_S, WARMUP_S = 20_000, (100.0, 200.0), 10.0
MODEL_SETS = {
    "dense": ("bert-6.7b", "bert-2.6b", "bert-1.3b"),
    "six": ("bert-6.7b", "moe-5.3b", "bert-2.6b", "moe-2.4b", "bert-1.3b", "moe-1.3b"),
    "bert-1.3b": ("bert-1.3b",),
    "bert-2.6b": ("bert-2.6b",),
    "bert-6.7b": ("bert-6.7b",),
    "moe-2.4b": ("moe-2.4b",),
}
SPLITS = ("uniform", "power_law", "triangle_decay")
SECONDS = (3.0, 10.0, 30.0, 100.0)
PUBLISHED = ("mp-search", "mp-search-sep")


class Draw(NamedTuple):
    """What a workload is. load: work per second on single devices, as a share of the cluster's."""

    model_set: str
    num_models: int
    num_devices: int
    cv: float
    slo_scale: float
    split: str
    load: float

    def __str__(self) -> str:
        return (
            f"{self.model_set:9} {self.num_models:2} models {self.num_devices:2} devices "
            f"CV {self.cv:3.1f} SLO {self.slo_scale:4.1f} {self.split:14} load {self.load:4.2f}"
        )


def draw(generator: int) -> list[Draw]:
    """The generator's workloads: kinds of model sets and splits in turn, the rest by chance."""
    rng = np.random.default_rng(generator)
    mixed, one = list(MODEL_SETS)[:2], list(MODEL_SETS)[2:]
    return [
        Draw(
            [*mixed, str(rng.choice(one))][i % 3],
            int(rng.integers(20, 61)),
            int(rng.integers(12, 65)),
            round(float(rng.uniform(1, 8)), 1),
            round(float(rng.uniform(2, 10)), 1),
            SPLITS[i // 3 % 3],
            round(float(rng.uniform(0.4, 1.2)), 2),
        )
        for i in range(WORKLOADS)
    ]


def make(drawn: Draw, profile: beta_jax.Profile):
    """The problem, with traffic to train on and traffic to test on."""
    types = MODEL_SETS[drawn.model_set]
    kinds = [types[i % len(types)] for i in range(drawn.num_models)]

    def models(rate: float):
        return beta_jax.make_models(
            kinds,
            profile,
            slo_scale=drawn.slo_scale,
            total_rate_rps=rate,
            split=drawn.split,
            cv=drawn.cv,
        )

    work = sum(m.rate_rps * profile.single_device_latency_s(m.type) for m in models(1.0))
    rate = drawn.load * drawn.num_devices / work
    served = models(rate)
    problem = beta_jax.Problem(served, beta_jax.Cluster(drawn.num_devices), profile)
    seeds = [*TRAIN_SEEDS, *TEST_SEEDS]
    duration_s = float(np.clip(REQUESTS / rate, *DURATION_S))
    traffic = beta_jax.synthesize_many(served, seeds=seeds, duration_s=duration_s)
    return problem, traffic[: len(TRAIN_SEEDS)], traffic[len(TRAIN_SEEDS) :]


class Store:
    """Rows by key, appended to a file as they come."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.rows: dict[str, dict] = {}
        if path.exists():
            for line in path.read_text().splitlines():
                row = json.loads(line)
                self.rows[row["key"]] = row

    def get(self, key: str, measure) -> dict:
        if key not in self.rows:
            row = {"key": key, **measure()}
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a") as file:
                print(json.dumps(row), file=file)
            self.rows[key] = row
        return self.rows[key]


def outcome(problem, placement, train, test) -> dict:
    tally = beta_jax.simulate(problem, placement, train + test, warmup_s=WARMUP_S)
    attainment = [round(float(a), 9) for a in tally.attainment]
    return {
        "placement": str(placement),
        "train": attainment[: len(train)],
        "test": attainment[len(train) :],
    }


def published(policy: str, problem, train, test) -> dict:
    begin = time.perf_counter()
    found = beta_jax.place(policy, problem, train)
    first_s = time.perf_counter() - begin
    begin = time.perf_counter()
    found = beta_jax.place(policy, problem, train)
    seconds = time.perf_counter() - begin
    row = {"policy": policy, "seconds": seconds, "compile_s": first_s - seconds}
    return row | {"score": found.score} | outcome(problem, found.placement, train, test)
