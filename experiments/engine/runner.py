"""Runs a list of points: each as often as planned, or until every two policies are told apart."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence

from beta_jax.analysis.statistics import decided, looks
from beta_jax.placement.hosting import require_placed
from beta_jax.search import find_policy
from experiments.engine.cases import Cases
from experiments.engine.inputs import InputMaker, seeds_apart
from experiments.engine.points import Place, Point, PointResult, Replications
from experiments.engine.scenarios import Service
from experiments.engine.store import Store
from experiments.engine.timing import Stopwatch


def run_points(
    points: Iterable[Point], plan: Replications, store: Store, stopwatch: Stopwatch
) -> list[PointResult]:
    """Place and simulate every point, equal ones once, except what the store has already.

    Replication i of every policy meets the same traffic. Raises what the library raises for bad
    input; ValueError if there are no points; ForecastError if they cannot fit; StoreError;
    NothingPlacedError if every placement is empty.
    """
    points = list(dict.fromkeys(points))
    if not points:
        raise ValueError("no points: there are no policies, or every list of swept values is empty")
    for policy in dict.fromkeys(point.policy for point in points):
        find_policy(policy)
    inputs = InputMaker()
    scenarios = {
        base: _replications(base, plan.seeds, inputs)
        for base in dict.fromkeys(point.scenario for point in points)
    }
    cases = Cases(store, inputs, stopwatch)

    def compute(scope: Sequence[Point], seeds: int) -> None:
        cases.compute((p.policy, scenarios[p.scenario][i]) for i in range(seeds) for p in scope)

    if plan.until_decided is None:
        compute(points, plan.seeds)
        seeds_of = dict.fromkeys(points, plan.seeds)
    else:
        seeds_of = {}
        undecided = _by_place(points)
        for seeds, confidence in looks(plan.seeds):
            compute([point for place in undecided for point in place], seeds)
            still = []
            for place in undecided:
                seeds_of |= dict.fromkeys(place, seeds)
                sample = [
                    [
                        statistics.fmean(
                            cases[p.policy, scenarios[p.scenario][i]]["metrics"]["slo_attainment"]
                            for p in place
                            if p.policy == policy
                        )
                        for i in range(seeds)
                    ]
                    for policy in dict.fromkeys(p.policy for p in place)
                ]
                if not decided(sample, confidence, plan.until_decided):
                    still.append(place)
            undecided = still
    results = [
        PointResult(point, i, scenario, cases[point.policy, scenario])
        for point in points
        for i, scenario in enumerate(scenarios[point.scenario][: seeds_of[point]])
    ]
    records = [result.record for result in results]
    require_placed(
        any(record["hosts_any"] for record in records),
        [warning for record in records for warning in record["warnings"]],
    )
    return results


def _replications(base: Service, seeds: int, inputs: InputMaker) -> list[Service]:
    apart = seeds_apart(base, inputs.num_models(base))
    return [base.replication(index, apart) for index in range(seeds)]


def _by_place(points: Iterable[Point]) -> list[list[Point]]:
    """The points that are compared: those drawn at the same x of a panel."""
    places: dict[Place, list[Point]] = {}
    for point in points:
        places.setdefault(point.place, []).append(point)
    return list(places.values())
