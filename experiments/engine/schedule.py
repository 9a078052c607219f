"""Which cases run together, how many at a time, and how long the rest will take."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from experiments.engine import forecast
from experiments.engine.inputs import InputMaker
from experiments.engine.points import Case
from experiments.engine.scenarios import BaseScenario, Replayed
from experiments.engine.store import Record

REQUESTS_AT_ONCE = 2**23
"""Requests whose outcomes are in memory together."""
FIRST_BLOCK = 2**17
"""Requests times policies of the first block, which tells how large the others may be."""
BLOCK_S, SHARED_BLOCK_S = 1.0, 30.0
"""How long a block should take, what is lost when a run is ended: and where all of its scenarios
share their traffic, as a search then places eight in the time of three."""


class Pace:
    """How fast results come, as the blocks that have run tell, by kind of case."""

    def __init__(self, inputs: InputMaker) -> None:
        self._inputs = inputs
        self._requests_per_s: dict[Hashable, float] = {}

    @property
    def known(self) -> bool:
        return bool(self._requests_per_s)

    def learn(self, block: Sequence[Case], seconds: float) -> None:
        """Take note of how long a block took."""
        self._requests_per_s[_kind(block[0].scenario)] = max(self.work(block) / seconds, 1.0)

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

    def predict(
        self,
        done: Mapping[Case, Record],
        seconds: float,
        placing_s: Mapping[str, float],
        rest: Sequence[Case],
    ) -> str | None:
        """How long the rest takes, in words if that is long, from a block that was measured.

        A policy takes time for training requests, the remainder of the work for those of the test.
        """
        _, tested = self._traffic(done, None)
        _, events = self._traffic(rest, None)
        total = max(seconds - sum(placing_s.values()), 0.0) * events / max(tested, 1.0)
        simulations = float(len(rest))
        for policy in dict.fromkeys(case.policy for case in rest):
            alike = [case for case in done if case.policy == policy] or [*done]
            trained, _ = self._traffic(alike, None)
            to_train, _ = self._traffic(rest, policy)
            of_policy_s = placing_s.get(policy, sum(placing_s.values()))
            total += of_policy_s * to_train / max(trained, 1.0)
            mean = sum(done[case]["num_simulations"] for case in alike) / len(alike)
            simulations += mean * sum(case.policy == policy for case in rest)
            events += mean * to_train
        if total < forecast.LONG_S:
            return None
        return forecast.predict(len(rest), simulations, events, total)

    def _traffic(self, cases: Iterable[Case], policy: str | None) -> tuple[float, float]:
        """Requests of training and of test traffic, of one policy or of all."""
        sizes = [self._inputs.num_requests(s) for p, s in cases if policy in (None, p)]
        return sum(train for train, _ in sizes), sum(test for _, test in sizes)


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
