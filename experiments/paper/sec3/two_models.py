"""Two models on two devices (Beta, OSDI 2023, section 3.1, figure 2): a device each, or pooled."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from beta_jax.analysis.metrics import latency_summary
from beta_jax.analysis.statistics import Interval, mean_interval, paired_ratio
from beta_jax.placement.hosting import hosts_any, require_placed
from beta_jax.placement.placement import Placement
from beta_jax.placement.problem import Problem, make_models
from beta_jax.profiles.profile import Profile, load_profile
from beta_jax.search import place
from beta_jax.simulator import Outcome, simulate
from beta_jax.theory.placements import Theory
from beta_jax.types import GB, TICKS_PER_SECOND, Cluster, Rules, Workload
from beta_jax.workloads.synthesis import synthesize_many
from experiments.engine.files import input_path
from experiments.engine.timing import Stopwatch
from experiments.paper.sec3.config import Config
from experiments.report.tables import Row

MODEL_TYPE = "bert-6.7b"
MEMORY_GIB = 14.0
POLICIES = ("sr-greedy", "mp-search")
QUANTILES = np.concatenate([np.linspace(0, 0.99, 100), np.linspace(0.991, 0.999, 9)])
UTILISATION_S, SHOWN_S = 500.0, 40.0
"""Length of the run of which the utilisation is shown, and the part of it that is."""


class TrafficMix(NamedTuple):
    """Traffic of the two models; `published`: how many times as fast pooling is in the paper."""

    name: str
    shares: tuple[float, float]
    cv: float
    published: float


MIXES = (
    TrafficMix("equal rates, Poisson", (1, 1), 1.0, 1.3),
    TrafficMix("20 % and 80 % of the rate, Poisson", (2, 8), 1.0, 6.6),
    TrafficMix("equal rates, CV 3", (1, 1), 3.0, 1.9),
)


def run(config: Config, stopwatch: Stopwatch) -> dict[str, list[Row]]:
    """The tables of figure 2, by name: means and ratios, latency quantiles, utilisation."""
    profile = load_profile(input_path(config.profile))
    none = dataclasses.replace(config.rules, stage_overhead=0.0, request_overhead_s=0.0)
    tables: dict[str, list[Row]] = {"two_models": [], "two_models_latencies": []}
    for mix in MIXES:
        traffic: list[Workload] = []
        for overheads, rules in (("off", none), ("on", config.rules)):
            problem = _problem(mix, config, profile, rules)
            if not traffic:
                with stopwatch.part("workloads"):
                    traffic = _traffic(config, problem, config.two_models.duration_s)
            placements = _place(problem, traffic[0], stopwatch)
            served = _serve(problem, placements, traffic[1:], config.warmup_s, stopwatch)
            theory = {p: Theory(problem, placement) for p, placement in placements.items()}
            tables["two_models"] += _means(mix, overheads, placements, served, theory)
            if overheads == "on":
                with stopwatch.part("quantiles"):
                    tables["two_models_latencies"] += _quantiles(mix, served, theory)
    tables["two_models_utilisation"] = _utilisation(config, profile, stopwatch)
    return tables


def _problem(mix: TrafficMix, config: Config, profile: Profile, rules: Rules) -> Problem:
    models = make_models(
        (MODEL_TYPE,) * 2,
        profile,
        slo_scale=math.inf,
        total_rate_rps=config.two_models.rate_rps,
        split=mix.shares,
        cv=mix.cv,
    )
    return Problem(models, Cluster(2, MEMORY_GIB * GB), profile, rules)


def _traffic(config: Config, problem: Problem, duration_s: float) -> list[Workload]:
    """One workload to place for, then one for each replication."""
    seeds = config.seed + np.arange(config.two_models.seeds + 1)
    apart = len(problem.models) if config.rng == "legacy" else 1
    made = synthesize_many(
        problem.models, seeds=(apart * seeds).tolist(), duration_s=duration_s, rng=config.rng
    )
    if not all(map(len, made)):
        raise ValueError(
            f"no request arrives in {duration_s:g} s at {config.two_models.rate_rps:g} requests/s; "
            "use a longer duration or a higher rate"
        )
    return made


def _place(problem: Problem, train: Workload, stopwatch: Stopwatch) -> dict[str, Placement]:
    placements = {}
    for policy in POLICIES:
        with stopwatch.part("place"):
            result = place(policy, problem, train)
        require_placed(hosts_any(result.placement), result.warnings)
        assert isinstance(result.placement, Placement)
        placements[policy] = result.placement
    return placements


def _serve(
    problem: Problem,
    placements: dict[str, Placement],
    tests: Sequence[Workload],
    warmup_s: float,
    stopwatch: Stopwatch,
) -> dict[str, list[Outcome]]:
    with stopwatch.part("simulate"):
        return {
            policy: simulate(problem, placement, tests, warmup_s=warmup_s, outputs="requests")
            for policy, placement in placements.items()
        }


def _means(
    mix: TrafficMix,
    overheads: str,
    placements: dict[str, Placement],
    served: dict[str, list[Outcome]],
    theory: dict[str, Theory],
) -> list[Row]:
    """A row per policy; the ratios are those of `POLICIES[0]` to it, paired by traffic."""
    means = {
        policy: [latency_summary(outcome)["latency_mean_s"] for outcome in outcomes]
        for policy, outcomes in served.items()
    }
    exact = {policy: of.latency_mean_s() for policy, of in theory.items()}
    rows = []
    for policy in POLICIES:
        simple = policy == POLICIES[0]
        one = Interval(1.0, math.nan, math.nan, len(means[policy]))
        rows.append(
            {"case": mix.name, "overheads": overheads, "policy": policy}
            | {"placement": str(placements[policy]), "seeds": len(means[policy])}
            | _bounds("latency_mean_s", mean_interval(means[policy]))
            | {"latency_mean_s_exact": exact[policy]}
            | _bounds("ratio", one if simple else paired_ratio(means[POLICIES[0]], means[policy]))
            | {"ratio_exact": exact[POLICIES[0]] / exact[policy]}
            | {"ratio_published": 1.0 if simple else mix.published}
        )
    return rows


def _bounds(name: str, interval: Interval) -> Row:
    return {name: interval.mean, f"{name}_low": interval.low, f"{name}_high": interval.high}


def _quantiles(
    mix: TrafficMix, served: dict[str, list[Outcome]], theory: dict[str, Theory]
) -> list[Row]:
    """Latency quantiles of all replications together, of all requests and of each model."""
    rows = []
    for policy, outcomes in served.items():
        for model in (None, 0, 1):
            latency_s = np.concatenate([_latencies(outcome, model) for outcome in outcomes])
            quantiles_s = np.quantile(latency_s, QUANTILES)
            columns = (
                QUANTILES.tolist(),
                quantiles_s.tolist(),
                theory[policy].latency_cdf(quantiles_s, model).tolist(),
            )
            known = {
                "case": mix.name,
                "policy": policy,
                "model": "all" if model is None else model,
            }
            rows += [
                known | {"quantile": q, "latency_s": latency, "quantile_exact": exact}
                for q, latency, exact in zip(*columns, strict=True)
            ]
    return rows


def _latencies(outcome: Outcome, model: int | None) -> NDArray[np.float64]:
    counted = slice(*outcome.counted)
    latency_s = outcome.latency_s[counted]
    return latency_s if model is None else latency_s[outcome.workload.model[counted] == model]


def _utilisation(config: Config, profile: Profile, stopwatch: Stopwatch) -> list[Row]:
    """Share of the cluster that is busy, at every change in the first `SHOWN_S` seconds.

    A request keeps one device of the two busy for its latency on a single device, before its end.
    """
    problem = _problem(MIXES[2], config, profile, config.rules)
    traffic = _traffic(config, problem, UTILISATION_S)
    placements = _place(problem, traffic[0], stopwatch)
    served = _serve(problem, placements, traffic[1:2], 0.0, stopwatch)
    overhead = round(config.rules.request_overhead_s * TICKS_PER_SECOND)
    busy = round(profile.single_device_latency_s(MODEL_TYPE) * TICKS_PER_SECOND)
    rows = []
    for policy, (outcome,) in served.items():
        end = outcome.finish - overhead
        for time_s, devices in _busy_devices(end - busy, end):
            known = {"policy": policy, "time_s": time_s}
            rows.append(known | {"utilisation": devices / problem.cluster.num_devices})
    return rows


def _busy_devices(begin: NDArray[np.int64], end: NDArray[np.int64]) -> Iterable[tuple[float, int]]:
    """(seconds, devices busy from then on), from 0 to `SHOWN_S`."""
    times = np.concatenate([[0], begin, end])
    change = np.concatenate([[0], np.ones(len(begin)), -np.ones(len(end))])
    ticks, place = np.unique(np.maximum(times, 0), return_inverse=True)
    devices = np.cumsum(np.bincount(place, change)).astype(int)
    shown = ticks < SHOWN_S * TICKS_PER_SECOND
    times_s, counts = (ticks[shown] / TICKS_PER_SECOND).tolist(), devices[shown].tolist()
    return zip([*times_s, SHOWN_S], [*counts, counts[-1]], strict=True)


def shown(rows: Sequence[Row]) -> list[Row]:
    """What is printed of the first table."""
    return [
        {"case": row["case"], "overheads": row["overheads"]}
        | {"placement": f"{row['policy']} {row['placement']}"}
        | {"mean latency (s)": _with_half(row, "latency_mean_s")}
        | {"exact (s)": row["latency_mean_s_exact"]}
        | {"times as fast": _with_half(row, "ratio"), "exact": row["ratio_exact"]}
        | {"paper": row["ratio_published"]}
        for row in rows
    ]


def _with_half(row: Row, name: str) -> str:
    half = row[f"{name}_high"] - row[name]
    return f"{row[name]:.4g}" + (f" +-{half:.2g}" if half == half else "")
