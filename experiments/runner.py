"""Runs a list of points: each workload is made once, all points of a policy run as one batch."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from beta_jax.metrics import latency_summary
from beta_jax.search import Result, find_policy, place_batch
from beta_jax.simulator import Outcome, simulate
from experiments import config, output, tables
from experiments.inputs import Inputs, make_inputs
from experiments.placements import document, require_placed
from experiments.points import Point, Scenario
from experiments.timing import Stopwatch

REQUESTS_AT_ONCE = 2**23
"""Requests whose outcomes are in memory together, some 40 bytes each."""
METRICS = ("num_requests", "slo_attainment", "latency_mean_s", "latency_p50_s", "latency_p99_s")


class PointResult(NamedTuple):
    """A point, what its policy chose, and how that served the test traffic."""

    point: Point
    placed: Result
    metrics: dict[str, float]

    def row(self) -> dict[str, Any]:
        """The point's line in the table: where it is drawn, its numbers, all its parameters."""
        point, parameters = self.point, config.walk(self.point.scenario, "")
        return {
            "panel": point.panel,
            "x_name": point.x_name,
            "x": point.x,
            "policy": point.policy,
            **self.metrics,
            "placement": str(self.placed.placement),
            "train_score": self.placed.score,
            "num_simulations": self.placed.num_simulations,
            **{leaf.name: config.render(leaf.value) for leaf in parameters},
        }


Case = tuple[str, Scenario]
"""A policy and a scenario: what the result of a point depends on."""


def run_points(points: Sequence[Point], stopwatch: Stopwatch) -> list[PointResult]:
    """Place and simulate every point, equal ones once; results in the order of the points.

    Raises what the library raises for bad input; ValueError if there are no points;
    NothingPlacedError if every placement is empty.
    """
    cases: list[Case] = list(dict.fromkeys((point.policy, point.scenario) for point in points))
    policies = list(dict.fromkeys(policy for policy, _ in cases))
    if not cases:
        raise ValueError("no points: there are no policies, or every list of swept values is empty")
    for policy in policies:
        find_policy(policy)
    with stopwatch.part("workloads"):
        inputs = make_inputs(scenario for _, scenario in cases)
    with tqdm(total=2 * len(cases), unit="step", leave=False, disable=None) as bar:
        placed: dict[Case, Result] = {}
        for policy in policies:
            bar.set_description(f"place {policy}")
            own = [case for case in cases if case[0] == policy]
            problems, train, _ = zip(*(inputs[scenario] for _, scenario in own), strict=True)
            with stopwatch.part("place"):
                placed |= zip(own, place_batch(policy, problems, train), strict=True)
            bar.update(len(own))
        require_placed(placed.values())
        metrics: dict[Case, dict[str, float]] = {}
        bar.set_description("simulate")
        for own in _chunks(cases, inputs):
            problems, _, test = zip(*(inputs[scenario] for _, scenario in own), strict=True)
            with stopwatch.part("simulate"):
                outcomes = simulate(
                    problems,
                    [placed[case].placement for case in own],
                    test,
                    warmup_s=own[0][1].warmup_s,
                    outputs="requests",
                )
                metrics |= zip(own, map(_measure, outcomes), strict=True)
            bar.update(len(own))
    keys = [(point.policy, point.scenario) for point in points]
    return [PointResult(p, placed[key], metrics[key]) for p, key in zip(points, keys, strict=True)]


def _chunks(cases: Iterable[Case], inputs: dict[Scenario, Inputs]) -> Iterator[list[Case]]:
    """Cases to simulate together: one warm-up, and no more requests than memory should hold."""
    chunk: list[Case] = []
    held = 0
    for case in cases:
        num_requests = len(inputs[case[1]].test)
        other_warmup = chunk and chunk[0][1].warmup_s != case[1].warmup_s
        if other_warmup or (chunk and held + num_requests > REQUESTS_AT_ONCE):
            yield chunk
            chunk, held = [], 0
        chunk.append(case)
        held += num_requests
    yield chunk


def _measure(outcome: Outcome) -> dict[str, float]:
    """Attainment and latency after the warm-up cut, and attainment over all requests."""
    summary = latency_summary(outcome)
    everything = dataclasses.replace(outcome, counted=(0, len(outcome.workload)))
    attainment_all = latency_summary(everything)["slo_attainment"]
    return {name: summary[name] for name in METRICS} | {"slo_attainment_all": attainment_all}


def save(results: Sequence[PointResult], directory: Path) -> None:
    """Write table.csv and placements.json; print a table per panel and the policies' warnings."""
    rows = [result.row() for result in results]
    output.write(directory / "table.csv", tables.to_csv(rows))
    documents = [
        {"panel": point.panel, "x": config.render(point.x), "policy": point.policy}
        | document(placed.placement)
        for point, placed, _ in results
    ]
    output.write_json(directory / "placements.json", documents)
    print("SLO attainment (%)")
    for panel in dict.fromkeys(row["panel"] for row in rows):
        own = [row for row in rows if row["panel"] == panel]
        print("", tables.to_text(tables.pivot(own)), sep="\n")
    for warning in dict.fromkeys(w for result in results for w in result.placed.warnings):
        print(f"warning: {warning}", file=sys.stderr)
