"""Computes results in blocks: whatever a block finishes is stored before the next one begins."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import math
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from beta_jax import backend, search, traces
from beta_jax.analysis.metrics import latency_summary
from beta_jax.parallel import run_parallel
from beta_jax.placement.hosting import hosts_any, statics
from beta_jax.placement.placement import Placement, Schedule
from beta_jax.search import Result, place_batch
from beta_jax.simulator import SIMULATOR_VERSION, Outcome, simulate
from experiments.engine import forecast
from experiments.engine.files import input_path
from experiments.engine.inputs import InputMaker, Inputs
from experiments.engine.scenarios import FILES, Replayed, Service
from experiments.engine.store import Record, Store, digest
from experiments.engine.timing import Stopwatch

RECORD_VERSION = 1
"""Changes with what is stored of a result, or how it is measured."""
REQUESTS_AT_ONCE = 2**23
"""Requests whose outcomes are in memory together."""
FIRST_BLOCK = 2**17
"""Requests times policies of the first block, which tells how large the others may be."""
BLOCK_S, SHARED_BLOCK_S = 1.0, 30.0
"""How long a block should take, what is lost when a run is ended: and where all of its scenarios
share their traffic, as a search then places eight in the time of three."""
MOST_PROGRAMS = 128
"""Compiled programs that are kept, which take some 5 MiB of memory each."""
METRICS = ("num_requests", "slo_attainment", "latency_mean_s", "latency_p50_s", "latency_p99_s")

Case = tuple[str, Service]
"""A policy and a scenario: what the result of a point depends on."""


class Cases:
    """Results by case: those that the store has, and those that are computed and put there."""

    def __init__(self, store: Store, inputs: InputMaker, stopwatch: Stopwatch) -> None:
        self._store, self._inputs, self._stopwatch = store, inputs, stopwatch
        sha256, fingerprint = functools.cache(_sha256), functools.cache(traces.fingerprint)
        self.key = functools.cache(lambda case: _key(case, sha256, fingerprint))
        self._requests_per_s: dict[Hashable, float] = {}  # by kind of case
        self._forgotten = 0  # compiled programs

    def __getitem__(self, case: Case) -> Record:
        return self._store.records[self.key(case)]

    def compute(self, cases: Iterable[Case]) -> None:
        """Have the store hold every case. Raises ForecastError, StoreError, ValueError.

        An interruption says how much is stored.
        """
        cases = list(dict.fromkeys(cases))
        pending = [case for case in cases if self.key(case) not in self._store.records]
        sizes = {scenario: self._inputs.num_requests(scenario)[1] for _, scenario in pending}
        forecast.check(sizes)
        if self._work(pending) > FIRST_BLOCK:
            at_once = min(self._work(pending), REQUESTS_AT_ONCE)
            stored = len(cases) - len(pending)
            print(forecast.announce(len(pending), stored, sizes, at_once), flush=True)
        done = 0
        with tqdm(total=len(pending), unit="result", leave=False, disable=None) as bar:
            try:
                for block in self._blocks(pending):
                    calibrated = bool(self._requests_per_s)
                    seconds, placing_s = self._run(block, bar.set_postfix_str)
                    done += len(block)
                    bar.update(len(block))
                    if not calibrated:
                        self._predict(block, seconds, placing_s, pending[done:])
            except KeyboardInterrupt:
                raise KeyboardInterrupt(self._what_is_kept(cases)) from None

    def _what_is_kept(self, cases: Sequence[Case]) -> str:
        if self._store.path is None:
            return "interrupted"
        kept = Store(self._store.path).records  # it may have come between writing and counting
        stored = sum(self.key(case) in kept for case in cases)
        return (
            f"interrupted: {stored} of {len(cases)} results are stored; the same command goes on "
            "from there"
        )

    def _blocks(self, pending: Iterable[Case]) -> Iterator[list[Case]]:
        """Cases to run together: all policies of a scenario, of as many as time allows.

        How many that is, those of the same kind tell, once some of them have run.
        """
        by_traffic: dict[Service, dict[Service, list[Case]]] = {}
        for case in pending:
            by_scenario = by_traffic.setdefault(_tested_alike(case[1]), {})
            by_scenario.setdefault(case[1], []).append(case)
        block: list[Case] = []
        work, shared = 0.0, True
        last: Hashable = None
        for by_scenario in by_traffic.values():
            for index, own in enumerate(by_scenario.values()):
                share = shared and (index > 0 or not block)
                seconds, most = (SHARED_BLOCK_S, math.inf) if share else (BLOCK_S, REQUESTS_AT_ONCE)
                kind = _kind(own[0][1])
                limit = min(self._requests_per_s.get(kind, 0.0) * seconds or FIRST_BLOCK, most)
                if block and (kind != last or work + self._work(own) > limit):
                    yield block
                    block, work, share = [], 0.0, True
                block += own
                work, shared, last = work + self._work(own), share, kind
        if block:
            yield block

    def _run(
        self, block: Sequence[Case], say: Callable[[str], None]
    ) -> tuple[float, dict[str, float]]:
        """Compute and store a block; returns the seconds it took, without compiling, and those of
        each policy. say: is told what is being done.
        """
        begin, compiled = time.perf_counter(), self._stopwatch.parts.get("compile", 0.0)
        with self._stopwatch.part("workloads"):
            inputs = self._inputs.workloads(scenario for _, scenario in block)
        for scenario, made in inputs.items():
            if not len(made.test):
                raise ValueError(
                    f"no request arrives in the traffic, {scenario.traffic}: make it longer, or "
                    "its rate higher"
                )
        placed, placing_s = self._place(block, inputs, say)
        say("simulating")
        records: dict[str, Record] = {}
        for own in _chunks(block, inputs):
            problems, _, test = zip(*(inputs[scenario] for _, scenario in own), strict=True)
            with self._stopwatch.part("simulate"):
                outcomes = simulate(
                    problems,
                    [placed[case].placement for case in own],
                    test,
                    warmup_s=own[0][1].warmup_s,
                    outputs="requests",
                )
            with self._stopwatch.part("measure"):
                measured = run_parallel(
                    lambda pair: _record(*pair),
                    list(zip([placed[case] for case in own], outcomes, strict=True)),
                )
                records |= zip(map(self.key, own), measured, strict=True)
        with self._stopwatch.part("store"):
            self._store.add(records)
        compiled = self._stopwatch.parts.get("compile", 0.0) - compiled
        seconds = max(time.perf_counter() - begin - compiled, 1e-3)
        self._requests_per_s[_kind(block[0][1])] = max(self._work(block) / seconds, 1.0)
        if self._stopwatch.num_programs - self._forgotten > MOST_PROGRAMS:
            backend.forget_programs()
            self._forgotten = self._stopwatch.num_programs
        return seconds, placing_s

    def _place(
        self, block: Sequence[Case], inputs: Mapping[Service, Inputs], say: Callable[[str], None]
    ) -> tuple[dict[Case, Result], dict[str, float]]:
        """The results of a block's searches, and the seconds of each policy.

        Policies run side by side, as none uses all cores at all times; the seconds are shared out.
        """

        def place(policy: str) -> tuple[list[Result], float]:
            begin = time.perf_counter()
            problems, train, _ = zip(*(inputs[s] for p, s in block if p == policy), strict=True)
            return place_batch(policy, problems, train), time.perf_counter() - begin

        policies = list(dict.fromkeys(policy for policy, _ in block))
        say(f"placing: {', '.join(policies)}")
        before = self._stopwatch.parts.get("place", 0.0)
        with self._stopwatch.part("place"):  # the baselines come first, and take less time
            found = dict(zip(policies[::-1], run_parallel(place, policies[::-1]), strict=True))
        total_s = self._stopwatch.parts["place"] - before
        placed: dict[Case, Result] = {}
        for policy, (results, _) in found.items():
            placed |= zip([case for case in block if case[0] == policy], results, strict=True)
        all_s = sum(seconds for _, seconds in found.values())
        return placed, {policy: total_s * own / all_s for policy, (_, own) in found.items()}

    def _predict(
        self,
        block: Sequence[Case],
        seconds: float,
        placing_s: Mapping[str, float],
        rest: Sequence[Case],
    ) -> None:
        """Say how long the rest takes, if that is long, from the block that was measured.

        A policy takes time for training requests, the remainder of the work for those of the test.
        """
        _, tested = self._traffic(block, None)
        _, events = self._traffic(rest, None)
        total = max(seconds - sum(placing_s.values()), 0.0) * events / max(tested, 1.0)
        simulations = float(len(rest))
        for policy in dict.fromkeys(policy for policy, _ in rest):
            alike = [case for case in block if case[0] == policy] or block
            searched = [self[case]["num_simulations"] for case in alike]
            trained, _ = self._traffic(alike, None)
            to_train, _ = self._traffic(rest, policy)
            of_policy_s = placing_s.get(policy, sum(placing_s.values()))
            total += of_policy_s * to_train / max(trained, 1.0)
            mean = sum(searched) / len(searched)
            simulations += mean * sum(case[0] == policy for case in rest)
            events += mean * to_train
        if total >= forecast.LONG_S:
            print(forecast.predict(len(rest), simulations, events, total), flush=True)

    def _traffic(self, cases: Iterable[Case], policy: str | None) -> tuple[float, float]:
        """Requests of training and of test traffic, of one policy or of all."""
        sizes = [self._inputs.num_requests(s) for p, s in cases if policy in (None, p)]
        return sum(train for train, _ in sizes), sum(test for _, test in sizes)

    def _work(self, cases: Iterable[Case]) -> float:
        return sum(self._inputs.num_requests(scenario)[1] for _, scenario in cases)


def _key(case: Case, sha256: Callable[[Path], str], fingerprint: Callable[..., str]) -> str:
    """A hash of all that determines a result; the bytes of files, not their names."""
    policy, scenario = case
    fields = dataclasses.asdict(scenario)
    for name in FILES:
        fields[name] = None if fields[name] is None else sha256(input_path(fields[name]))
    if isinstance(scenario, Replayed):
        fields["trace"] = fingerprint(input_path(scenario.trace), completed=scenario.complete)
    versions = {"record": RECORD_VERSION, "simulator": SIMULATOR_VERSION, "search": _search()}
    return digest({"policy": policy, "scenario": fields, **versions})


def _kind(scenario: Service) -> Hashable:
    """Equal where searches take about as long for each request."""
    return scenario.model_types, scenario.trace if isinstance(scenario, Replayed) else None


def _tested_alike(scenario: Service) -> Service:
    """Equal for scenarios with equal test traffic, which differ in nothing else any more."""
    alike: dict[str, Any] = dict.fromkeys(("num_devices", "memory_gib", "slo_scale", "warmup_s"), 1)
    if isinstance(scenario, Replayed):
        alike |= {"train": scenario.test, "train_window_s": None}
    return dataclasses.replace(scenario, train_seed=scenario.test_seed, **alike)


@functools.cache
def _search() -> str:
    """The source of the policies: they improve without a version, unlike the exact simulator."""
    return digest([_sha256(path) for path in sorted(Path(search.__file__).parent.rglob("*.py"))])


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _chunks(cases: Iterable[Case], inputs: dict[Service, Inputs]) -> Iterator[list[Case]]:
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


def _record(placed: Result, outcome: Outcome) -> Record:
    """What is stored: the placement, and how it served the test traffic.

    Attainment and latency after the warm-up cut, and attainment over all requests.
    """
    summary = latency_summary(outcome)
    attainment_all = int(outcome.good.sum()) / len(outcome.good)
    return {
        "metrics": {name: summary[name] for name in METRICS}
        | {"slo_attainment_all": attainment_all},
        "placement": _document(placed.placement),
        "layout": str(placed.placement),
        "hosts_any": hosts_any(placed.placement),
        "train_score": placed.score,
        "num_simulations": placed.num_simulations,
        "warnings": list(placed.warnings),
    }


def _document(placement: Placement | Schedule) -> dict[str, Any]:
    """The placement as JSON, models by their index."""
    segments = [
        [
            {"op": g.config.op, "pp": g.config.pp, "models": list(map(int, g.models))}
            for g in static.groups
        ]
        for static in statics(placement)
    ]
    if isinstance(placement, Placement):
        return {"groups": segments[0]}
    return {"start_s": list(placement.start_s), "segments": segments}
