"""Which cases run together, how many at a time, and how long the rest will take."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from experiments.engine import forecast
from experiments.engine.inputs import InputMaker
from experiments.engine.points import Case
from experiments.engine.scenarios import BaseScenario, Replayed
from experiments.engine.store import Record

if TYPE_CHECKING:
    from experiments.engine.executor import Done

REQUESTS_AT_ONCE = 2**23
"""Requests whose outcomes are in memory together."""
FIRST_BLOCK = 2**17
"""Requests times policies of the first block, which tells how large the others may be."""
BLOCK_S, SHARED_BLOCK_S = 1.0, 30.0
"""How long a block should take, what is lost when a run is ended: and where all of its scenarios
share their traffic, as a search then places eight in the time of three."""


class Pace:
    """How fast results come, as the blocks that have run tell, by kind of case and by policy."""

    def __init__(self, inputs: InputMaker) -> None:
        self._inputs = inputs
        self._requests_per_s: dict[Hashable, float] = {}
        self._done: dict[Case, Record] = {}
        self._placing_s: dict[str, float] = {}
        self._testing_s = 0.0

    def learn(self, done: Done, side_by_side: int) -> None:
        """Take note of how long a block took, of so many that are computed side by side."""
        kind = _kind(done.block[0].scenario)
        self._requests_per_s[kind] = max(self.work(done.block) / done.seconds, 1.0)
        self._done |= done.records
        for policy, seconds in done.placing_s.items():
            self._placing_s[policy] = self._placing_s.get(policy, 0.0) + seconds / side_by_side
        testing_s = max(done.seconds - sum(done.placing_s.values()), 0.0)
        self._testing_s += testing_s / side_by_side

    @property
    def spent_s(self) -> float:
        """Compiling left out."""
        return self._testing_s + sum(self._placing_s.values())

    def work(self, cases: Iterable[Case]) -> float:
        """Requests to simulate."""
        return sum(self._inputs.num_requests(scenario)[1] for _, scenario in cases)

    def blocks(self, pending: Iterable[Case]) -> Iterator[list[Case]]:
        """Cases to run together: all policies of a scenario, of as many as time allows.

        How many that is, those of the same kind tell, once some of them have run.
        """
        by_traffic: dict[BaseScenario, dict[BaseScenario, list[Case]]] = {}
        for case in pending:
            by_scenario = by_traffic.setdefault(_tested_alike(case.scenario), {})
            by_scenario.setdefault(case.scenario, []).append(case)
        block: list[Case] = []
        work, shared = 0.0, True
        last: Hashable = None
        for by_scenario in by_traffic.values():
            for index, own in enumerate(by_scenario.values()):
                share = shared and (index > 0 or not block)
                seconds, most = (SHARED_BLOCK_S, math.inf) if share else (BLOCK_S, REQUESTS_AT_ONCE)
                kind = _kind(own[0].scenario)
                limit = min(self._requests_per_s.get(kind, 0.0) * seconds or FIRST_BLOCK, most)
                if block and (kind != last or work + self.work(own) > limit):
                    yield block
                    block, work, share = [], 0.0, True
                block += own
                work, shared, last = work + self.work(own), share, kind
        if block:
            yield block

    def predict(self, rest: Sequence[Case]) -> forecast.Forecast:
        """What the rest takes, and what share of all that is done, from the blocks that have run.

        A policy takes time for training requests, and the more devices there are to fill the more
        often; the remainder of the work is for the requests of the test.
        """
        of_all = [*self._done]
        events = sum(self._tested(case) for case in rest)
        left_s = self._testing_s * events / max(sum(map(self._tested, of_all)), 1.0)
        simulations = float(len(rest))
        for policy in dict.fromkeys(case.policy for case in rest):
            own = [case for case in rest if case.policy == policy]
            alike = [case for case in of_all if case.policy == policy] or of_all
            work = sum(map(self._trained, own))
            of_policy_s = self._placing_s.get(policy, sum(self._placing_s.values()))
            left_s += of_policy_s * work / max(sum(map(self._trained, alike)), 1.0)
            devices = sum(case.scenario.num_devices for case in alike)
            for_device = sum(self._done[case]["num_simulations"] for case in alike) / devices
            simulations += for_device * sum(case.scenario.num_devices for case in own)
            events += for_device * work
        share = self.spent_s / max(self.spent_s + left_s, 1e-9)
        return forecast.Forecast(len(rest), simulations, events, left_s, share)

    def _tested(self, case: Case) -> float:
        """Requests of the test traffic."""
        return self._inputs.num_requests(case.scenario)[1]

    def _trained(self, case: Case) -> float:
        """Requests of the training traffic, by devices."""
        return self._inputs.num_requests(case.scenario)[0] * case.scenario.num_devices


def chunks(block: Iterable[Case], num_requests: Mapping[BaseScenario, int]) -> Iterator[list[Case]]:
    """Cases to simulate together: one warm-up, and no more requests than memory should hold."""
    chunk: list[Case] = []
    held = 0
    for case in block:
        own = num_requests[case.scenario]
        other_warmup = chunk and chunk[0].scenario.warmup_s != case.scenario.warmup_s
        if other_warmup or (chunk and held + own > REQUESTS_AT_ONCE):
            yield chunk
            chunk, held = [], 0
        chunk.append(case)
        held += own
    yield chunk


def _kind(scenario: BaseScenario) -> Hashable:
    """Equal where searches take about as long for each request."""
    return scenario.model_types, scenario.trace if isinstance(scenario, Replayed) else None


def _tested_alike(scenario: BaseScenario) -> BaseScenario:
    """Equal for scenarios with equal test traffic, which differ in nothing else any more."""
    alike: dict[str, Any] = dict.fromkeys(("num_devices", "memory_gib", "slo_scale", "warmup_s"), 1)
    if isinstance(scenario, Replayed):
        alike |= {"train": scenario.test, "train_window_s": None}
    return dataclasses.replace(scenario, train_seed=scenario.test_seed, **alike)
