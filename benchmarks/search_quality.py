"""Is `local-search` worth its time on workloads that nobody tuned it to?

    python benchmarks/search_quality.py PROFILE [--generator 1] [--workloads 0,5,7]
    python benchmarks/search_quality.py PROFILE --budgets 2000,10000,50000 --unit simulations

Draws 24 workloads by the generator's seed, trains on 8 traffic seeds, tests on 32 others, and
compares `local-search` with the better (in training) of `mp-search` and `mp-search-sep` on the same
training traffic. A longer search begins with the shorter one, so one search tells about all
budgets. What is measured is stored in results/search_quality as soon as it is there, and not
measured again, so a run can be stopped at any time.

Seconds are processor seconds divided by `BUSY`, the cores that a search keeps busy on two quiet
ones, so that other programs on the machine count less. They begin before the published searches,
which are always finished, and leave out compilation: a short search goes before.

PROFILE is, say, one measured on V100 GPUs (not part of this project).
"""

import argparse
import functools
import itertools
import json
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

import beta_jax
from beta_jax.analysis.statistics import paired_difference
from beta_jax.search.local.climb import expected_loss, improve
from beta_jax.search.objective import Objective

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
BUSY = 1.7
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


def local(budgets: list[float], unit: str, problem, train, test) -> dict:
    """Where one search stands as each budget runs out."""
    objective = Objective()
    begin = time.process_time()
    for _ in itertools.islice(improve(problem, train, objective, seed=1), 6):
        pass
    warmup_s = time.process_time() - begin
    begin, stands = time.process_time(), []
    first = None
    for latest in improve(problem, train, objective):
        first = first or latest
        used = (time.process_time() - begin) / BUSY
        if unit == "simulations":
            used = latest.num_simulations - first.num_simulations
        while len(stands) < len(budgets) and (used >= budgets[len(stands)] or latest.is_best):
            stands.append(latest)
        if len(stands) == len(budgets):
            break
    rows = {
        str(budget): {
            "num_simulations": one.num_simulations,
            "score": one.score,
            "expected_loss": expected_loss(
                problem, train, objective, first.placement, one.placement
            ),
            **outcome(problem, one.placement, train, test),
        }
        for budget, one in zip(budgets, stands, strict=True)
    }
    return {"warmup_s": warmup_s, "budgets": rows}


def report(rows: list[tuple[Draw, dict, dict]], budgets: list[float], unit: str) -> None:
    """A row per workload, then per budget how often the interval lies above 0 or below."""
    print(f"\nSLO attainment in test: published, then the difference by {unit} (95 %)\n")
    for number, (drawn, base, own) in enumerate(rows):
        cells = []
        for budget in budgets:
            interval = paired_difference(own["budgets"][str(budget)]["test"], base["test"])
            cells.append(f"{interval.mean:+.4f} ({interval.low:+.4f}, {interval.high:+.4f})")
        print(f"{number:2} {drawn} {np.mean(base['test']):.4f} {'  '.join(cells)}")
    print(
        f"\n{'budget':>8} above below below-.003 mean difference, test, training, training - test"
    )
    for budget in budgets:
        own = [row["budgets"][str(budget)] for *_, row in rows]
        found = [
            paired_difference(mine["test"], base["test"])
            for mine, (_, base, _) in zip(own, rows, strict=True)
        ]
        above, below, clearly = (
            sum(map(bool, which))
            for which in (
                [one.low > 0 for one in found],
                [one.high < 0 for one in found],
                [one.high < -0.003 for one in found],
            )
        )
        test = float(np.mean([np.mean(mine["test"]) for mine in own]))
        train = float(np.mean([np.mean(mine["train"]) for mine in own]))
        loss = float(np.mean([mine["expected_loss"] for mine in own]))
        mean = float(np.mean([one.mean for one in found]))
        print(
            f"{budget:8g} {above:5} {below:5} {clearly:10} {mean:+15.4f} {test:7.4f} {train:7.4f} "
            f"{train - test:+.4f} (expected {loss:+.4f})"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("profile", type=Path)
    parser.add_argument("--generator", type=int, default=0, help="seed of the workloads")
    parser.add_argument("--workloads", help="only these, by number")
    parser.add_argument("--budgets", default="3,10,30,100")
    parser.add_argument("--unit", choices=("seconds", "simulations"), default="seconds")
    arguments = parser.parse_args()
    budgets = [float(budget) for budget in arguments.budgets.split(",")]
    profile = beta_jax.load_profile(arguments.profile)
    drawn = draw(arguments.generator)
    chosen = range(len(drawn))
    if arguments.workloads:
        chosen = [int(number) for number in arguments.workloads.split(",")]
    store = Store(ROOT / "results" / "search_quality" / f"{arguments.generator}.jsonl")
    rows = []
    for number in chosen:
        made = functools.cache(functools.partial(make, drawn[number], profile))
        base = [
            store.get(
                f"{number} {policy}", lambda policy=policy, made=made: published(policy, *made())
            )
            for policy in PUBLISHED
        ]
        best = max(base, key=lambda row: row["score"])
        own = store.get(
            f"{number} local-search {arguments.unit} {arguments.budgets}",
            lambda made=made: local(budgets, arguments.unit, *made()),
        )
        rows.append((drawn[number], best, own))
        tests = [np.mean(row["test"]) for row in (best, *own["budgets"].values())]
        print(number, drawn[number], *(f"{value:.4f}" for value in tests), flush=True)
    report(rows, budgets, arguments.unit)


if __name__ == "__main__":
    main()
