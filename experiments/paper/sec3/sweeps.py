"""Eight models on eight devices, pooled or replicated (section 3.2 and 3.3, figures 4 to 7)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from beta_jax.analysis.statistics import mean_interval
from beta_jax.placement.codec import group_from_document
from beta_jax.placement.placement import Placement
from beta_jax.theory.placements import Theory
from experiments.engine import runner
from experiments.engine.executor import Executor
from experiments.engine.inputs import InputMaker
from experiments.engine.points import Place, Point, PointResult, Replications, sweep
from experiments.engine.scenarios import Scenario
from experiments.engine.store import Store
from experiments.engine.timing import Stopwatch
from experiments.paper.sec3.config import Config, Runs
from experiments.paper.sec3.figures import curve
from experiments.report.results import to_rows
from experiments.report.tables import Row

NUM_DEVICES = 8
PIPELINE, REPLICATION = f"mp-greedy-{NUM_DEVICES}", "sr-uniform"


class Budgets(NamedTuple):
    """Memory of a device, GiB: 1 to 8 replicas of `replica_gib`; and by number of stages."""

    rate_rps: float
    replica_gib: float
    pipeline_gib: Mapping[int, float]


BUDGETS = {
    "bert-1.3b": Budgets(30.0, 2.7, {8: 3.5, 4: 6.0, 2: 11.0}),
    "bert-2.6b": Budgets(20.0, 5.5, {8: 7.0, 4: 12.0, 2: 22.0}),
}
"""Where all models fit, replicated on every device or as pipelines; the last replica is both."""


def _memory(config: Config) -> list[Point]:
    found = []
    for kind, (rate_rps, replica_gib, pipeline_gib) in BUDGETS.items():
        base = _base(config, config.memory, kind, rate_rps)
        replicas = [round(n * replica_gib, 6) for n in range(1, NUM_DEVICES + 1)]
        found += sweep(kind, base, "memory_gib", replicas, [REPLICATION])
        for stages, memory_gib in pipeline_gib.items():
            found += sweep(kind, base, "memory_gib", [memory_gib], [f"mp-greedy-{stages}"])
    return found


def _rate(config: Config) -> list[Point]:
    base = _base(config, config.rate, config.model_type, 0.0)
    return sweep("rate", base, "rate_rps", config.rate.values, (PIPELINE, REPLICATION))


def _cv(config: Config) -> list[Point]:
    base = _base(config, config.cv, config.model_type, config.cv.rate_rps)
    return sweep("cv", base, "cv", config.cv.values, (PIPELINE, REPLICATION))


def _slo(config: Config) -> list[Point]:
    base = _base(config, config.slo, config.model_type, config.slo.rate_rps)
    return sweep("slo", base, "slo_scale", config.slo.values, (PIPELINE, REPLICATION))


def _overhead(config: Config) -> list[Point]:
    """As `_slo`, a panel for every overhead that a pipeline might have, and one for replication."""
    base = _base(config, config.slo, config.model_type, config.slo.rate_rps)
    found = sweep("overhead", base, "slo_scale", config.slo.values, [REPLICATION])
    for overhead in config.pipeline_overheads:
        own = dataclasses.replace(base, pipeline_overhead=overhead)
        found += sweep("overhead", own, "slo_scale", config.slo.values, [PIPELINE])
    return found


def _base(config: Config, runs: Runs, model_type: str, rate_rps: float) -> Scenario:
    # The pipeline hosts all models wherever they fit, and replication asks nobody: how they are
    # placed does not depend on the training traffic, which may be short.
    return Scenario(
        model_types=(model_type,) * NUM_DEVICES,
        profile=config.profile,
        num_devices=NUM_DEVICES,
        rate_rps=rate_rps,
        split="uniform",
        cv=config.base_cv,
        slo_scale=math.inf,
        duration_s=runs.duration_s,
        warmup_s=config.warmup_s,
        rng=config.rng,
        train_seed=config.seed,
        test_seed=config.seed + NUM_DEVICES,
        train_duration_s=min(runs.duration_s, 100.0),
        rules=config.rules,
    )


POINTS: dict[str, Callable[[Config], list[Point]]] = {
    "memory": _memory,
    "rate": _rate,
    "cv": _cv,
    "slo": _slo,
    "overhead": _overhead,
}


def run(
    group: str, config: Config, store: Store, stopwatch: Stopwatch, executor: Executor
) -> tuple[list[Row], list[Row]]:
    """The table of a group, with what theory says beside it; and what is printed of it."""
    runs = config.slo if group == "overhead" else getattr(config, group)
    plan = Replications(seeds=runs.seeds)
    found = runner.run_points(POINTS[group](config), plan, store, stopwatch, executor)
    inputs = InputMaker()
    with stopwatch.part("theory"):
        rows = zip(to_rows(found), found, strict=True)
        return [row | _exact(result, inputs) for row, result in rows], _shown(found)


def _shown(results: Sequence[PointResult]) -> list[Row]:
    """A line per x, means over the replications; latencies unless there are deadlines."""
    deadlines = math.inf not in {result.scenario.slo_scale for result in results}
    metrics = (
        {"slo_attainment": "%"} if deadlines else {"latency_mean_s": "mean", "latency_p99_s": "p99"}
    )
    samples: dict[Place, dict[str, list[float]]] = {}
    for point, _, scenario, record in sorted(results, key=lambda result: result.point.place):
        line = samples.setdefault(point.place, {})
        for metric, short in metrics.items():
            value = record["metrics"][metric] * (100 if deadlines else 1)
            name = f"{curve(point.policy, scenario.pipeline_overhead)}, {short}"
            line.setdefault(name, []).append(value)
    columns = dict.fromkeys(name for line in samples.values() for name in line)
    return [
        {"panel": place.panel, place.x_name: place.x}
        | {name: mean_interval(line[name]).mean if name in line else math.nan for name in columns}
        for place, line in samples.items()
    ]


def _exact(result: PointResult, inputs: InputMaker) -> Row:
    problem = inputs.problem(result.scenario)
    groups = map(group_from_document, result.record["placement"]["groups"])
    theory = Theory(problem, Placement(tuple(groups)))
    return {
        "slo_attainment_exact": theory.slo_attainment(),
        "latency_mean_s_exact": theory.latency_mean_s(),
        "latency_p99_s_exact": theory.latency_p99_s(),
    }
