"""Runs a list of points: each as often as planned, or until every two policies are told apart.

In blocks: whatever a block finishes is stored before the next one begins.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from statistics import fmean

from tqdm import tqdm

from beta_jax.analysis.statistics import decided, looks
from beta_jax.placement.hosting import require_placed
from beta_jax.search import find_policy
from experiments.engine import forecast, schedule
from experiments.engine.executor import Done, Embedded, Executor
from experiments.engine.inputs import InputMaker, seeds_apart
from experiments.engine.keys import Keys
from experiments.engine.points import Case, Place, Point, PointResult, Replications
from experiments.engine.scenarios import BaseScenario
from experiments.engine.schedule import Pace
from experiments.engine.store import Record, Store
from experiments.engine.timing import Stopwatch


def run_points(
    points: Iterable[Point],
    replications: Replications,
    store: Store,
    stopwatch: Stopwatch,
    executor: Executor,
) -> list[PointResult]:
    """Place and simulate every point, equal ones once, except what the store has already.

    Replication i of every policy meets the same traffic. Raises what the library raises for bad
    input; ValueError if there are no points; ForecastError if they cannot fit; StoreError;
    ExecutorError; NothingPlacedError if every placement is empty.
    """
    points = list(dict.fromkeys(points))
    if not points:
        raise ValueError("no points: there are no policies, or every list of swept values is empty")
    for policy in dict.fromkeys(point.policy for point in points):
        find_policy(policy)
    inputs = InputMaker()
    scenarios = {
        base: _replications(base, replications.seeds, inputs)
        for base in dict.fromkeys(point.scenario for point in points)
    }
    records = Records(store, inputs, stopwatch, executor)

    def case(point: Point, replication: int) -> Case:
        return Case(point.policy, scenarios[point.scenario][replication])

    if replications.until_decided is None:
        records.compute(case(point, i) for i in range(replications.seeds) for point in points)
        seeds_of = dict.fromkeys(points, replications.seeds)
    else:
        seeds_of = _until_decided(
            points, replications.seeds, replications.until_decided, records, case
        )
    results = [
        PointResult(point, i, case(point, i).scenario, records[case(point, i)])
        for point in points
        for i in range(seeds_of[point])
    ]
    require_placed(
        any(result.record["hosts_any"] for result in results),
        [warning for result in results for warning in result.record["warnings"]],
    )
    return results


def _until_decided(
    points: Iterable[Point],
    seeds: int,
    margin: float,
    records: Records,
    case: Callable[[Point, int], Case],
) -> dict[Point, int]:
    """Compute replications until all pairs of policies are decided; how many each point has."""
    seeds_of: dict[Point, int] = {}
    undecided = _by_place(points)
    for num, confidence in looks(seeds):
        records.compute(case(p, i) for i in range(num) for place in undecided for p in place)
        still = []
        for place in undecided:
            seeds_of |= dict.fromkeys(place, num)
            by_policy: dict[str, list[Point]] = {}
            for point in place:
                by_policy.setdefault(point.policy, []).append(point)
            attainment = [
                [
                    fmean(records[case(p, i)]["metrics"]["slo_attainment"] for p in own)
                    for i in range(num)
                ]
                for own in by_policy.values()
            ]
            if not decided(attainment, confidence, margin):
                still.append(place)
        undecided = still
    return seeds_of


def _replications(base: BaseScenario, seeds: int, inputs: InputMaker) -> list[BaseScenario]:
    apart = seeds_apart(base, inputs.num_models(base))
    return [base.replication(index, apart) for index in range(seeds)]


def _by_place(points: Iterable[Point]) -> list[list[Point]]:
    """The points that are compared: those drawn at the same x of a panel."""
    places: dict[Place, list[Point]] = {}
    for point in points:
        places.setdefault(point.place, []).append(point)
    return list(places.values())


class Records:
    """What is stored of each case: what the store has, and what is computed and put there."""

    def __init__(
        self, store: Store, inputs: InputMaker, stopwatch: Stopwatch, executor: Executor
    ) -> None:
        self._store, self._inputs, self._stopwatch = store, inputs, stopwatch
        self._key, self._pace, self._executor = Keys(), Pace(inputs), executor
        self._due_s = 0.0  # when so much is spent, the next forecast is

    def __getitem__(self, case: Case) -> Record:
        return self._store.records[self._key(case)]

    def compute(self, cases: Iterable[Case]) -> None:
        """Have the store hold every case. Raises ForecastError, StoreError, ValueError.

        An interruption says how much is stored.
        """
        cases = list(dict.fromkeys(cases))
        pending = [case for case in cases if self._key(case) not in self._store.records]
        self._inputs.check(scenario for _, scenario in pending)
        sizes = {scenario: self._inputs.num_requests(scenario)[1] for _, scenario in pending}
        forecast.check(sizes)
        if (work := self._pace.work(pending)) > schedule.FIRST_BLOCK:
            at_once = min(work, schedule.REQUESTS_AT_ONCE)
            stored = len(cases) - len(pending)
            print(forecast.announce(len(pending), stored, sizes, at_once), flush=True)
        if not pending:
            if cases and not isinstance(self._executor, Embedded):
                print(f"nothing to compute: all {len(cases)} results are stored", flush=True)
            return
        blocks, num_done = self._pace.blocks(pending), 0
        with tqdm(total=len(pending), unit="result", leave=False, disable=None) as bar:
            given = blocks, self._inputs, self._key, self._stopwatch, bar.set_postfix_str
            try:
                with closing(self._executor.compute(*given)) as finished:
                    for done in finished:
                        num_done += len(done.block)
                        self._keep(done, pending[num_done:])
                        bar.update(len(done.block))
            except KeyboardInterrupt:
                raise KeyboardInterrupt(self._what_is_kept(cases)) from None

    def _keep(self, done: Done, rest: Sequence[Case]) -> None:
        """Store a block, and say how long the rest takes, if that is long and was not said yet."""
        with self._stopwatch.part("store"):
            self._store.add({self._key(case): record for case, record in done.records.items()})
        self._pace.learn(done, self._executor.workers)
        if self._pace.spent_s >= self._due_s:
            left = self._pace.predict(rest)
            if left.seconds >= forecast.LONG_S and (not self._due_s or left.share >= forecast.SURE):
                print(left, flush=True)
            total_s = self._pace.spent_s + left.seconds
            self._due_s = math.inf if left.share >= forecast.SURE else forecast.SURE * total_s

    def _what_is_kept(self, cases: Sequence[Case]) -> str:
        if self._store.path is None:
            return "interrupted"
        kept = Store(self._store.path).records  # it may have come between writing and counting
        stored = sum(self._key(case) in kept for case in cases)
        return (
            f"interrupted: {stored} of {len(cases)} results are stored; the same command goes on "
            "from there"
        )
