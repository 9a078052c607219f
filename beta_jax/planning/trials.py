"""Trials: what a cluster serves under some traffic, by a placement that was not trained on it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from beta_jax.analysis.statistics import Interval, mean_interval, proportion_interval
from beta_jax.placement.placement import Placement, PlacementError, Schedule
from beta_jax.placement.problem import Problem
from beta_jax.planning.traffic import TrafficSource
from beta_jax.search import place_batch, score_placements
from beta_jax.simulator import Tally, simulate
from beta_jax.types import Workload

FIRST_TEST = 1000
"""Seed of the first test workload; training has those before it."""
Of = Literal["all", "worst_model"]
"""Whose attainment is to reach the target: that of all requests, or of the worst-served model."""


class Setting(NamedTuple):
    """What a question varies: devices of each pool; factors of rates, CVs and SLOs."""

    num_devices: tuple[int, ...]
    rate: float = 1.0
    cv: float = 1.0
    slo: float = 1.0


@dataclasses.dataclass(frozen=True, eq=False)
class Trial:
    """How a placement served the test workloads.

    attainment: float64 [seed]. interval: of its mean; where all are equal that of a proportion over
    all blocks of the traffic.
    """

    setting: Setting
    problem: Problem
    placement: Placement | Schedule
    attainment: NDArray[np.float64]
    interval: Interval
    warnings: tuple[str, ...] = ()

    def meets(self, target: float) -> bool:
        """Whether the mean reaches the target."""
        return self.interval.mean >= target

    def decided(self, target: float) -> bool:
        """Whether the interval lies on one side of the target."""
        return not self.interval.low < target <= self.interval.high

    def seeds_to_decide(self, target: float) -> float:
        """About how many seeds would decide it, if the mean is what it seems; may be infinite."""
        gap = abs(self.interval.mean - target)
        half = max(target - self.interval.low, self.interval.high - target, 0.0)
        reach = max(self.interval.high - self.interval.mean, self.interval.mean - self.interval.low)
        if not half:
            return self.interval.num
        return math.inf if not gap else math.ceil(self.interval.num * (reach / gap) ** 2)


class Trials:
    """Makes trials of settings, each once, those asked for together as lanes of one program.

    policy: places; trained on seeds that are never tested. A placement that was found for another
    setting, with no more devices, is a candidate, too: the one that trains best is tested.
    """

    def __init__(
        self,
        problem: Problem,
        traffic: TrafficSource,
        *,
        of: Of,
        seeds: int,
        policy: str,
        warmup_s: float,
    ) -> None:
        self._problem, self._traffic, self._of = problem, traffic, of
        self._policy, self._seeds, self._warmup_s = policy, seeds, warmup_s
        self._workloads: dict[tuple[float, float], tuple[Workload, list[Workload]]] = {}
        self._placements: dict[Setting, Placement | Schedule] = {}
        self.made: dict[Setting, Trial] = {}

    def problem(self, setting: Setting) -> Problem:
        """The problem of a setting."""
        models = tuple(
            dataclasses.replace(
                m,
                rate_rps=m.rate_rps * setting.rate,
                cv=m.cv * setting.cv,
                slo_s=m.slo_s * setting.slo,
            )
            for m in self._problem.models
        )
        cluster = self._problem.cluster.with_devices(setting.num_devices)
        return dataclasses.replace(self._problem, models=models, cluster=cluster)

    def workloads(self, setting: Setting) -> tuple[Workload, list[Workload]]:
        """The training workload, and those to test on."""
        key = setting.rate, setting.cv
        if key not in self._workloads:
            seeds = [0, *range(FIRST_TEST, FIRST_TEST + self._seeds)]
            train, *tests = self._traffic.sample(
                self._problem.models, seeds, rate=setting.rate, cv=setting.cv
            )
            self._workloads[key] = train, tests
        return self._workloads[key]

    def __call__(self, settings: Sequence[Setting]) -> list[Trial]:
        """A trial of each setting."""
        new = [s for s in dict.fromkeys(settings) if s not in self.made]
        if new:
            problems = [self.problem(s) for s in new]
            results = place_batch(self._policy, problems, [self.workloads(s)[0] for s in new])
            self._placements |= {s: r.placement for s, r in zip(new, results, strict=True)}
            best = [self._best(s, problem) for s, problem in zip(new, problems, strict=True)]
            tried = self.test(list(zip(new, best, strict=True)))
            for setting, trial, result in zip(new, tried, results, strict=True):
                self.made[setting] = dataclasses.replace(trial, warnings=result.warnings)
        return [self.made[s] for s in settings]

    def test(self, tried: Sequence[tuple[Setting, Placement | Schedule]]) -> list[Trial]:
        """How given placements serve the test workloads of given settings."""
        problems = [self.problem(setting) for setting, _ in tried]
        lanes = [
            (problem, placement, workload)
            for problem, (setting, placement) in zip(problems, tried, strict=True)
            for workload in self.workloads(setting)[1]
        ]
        tally = simulate(*map(list, zip(*lanes, strict=True)), warmup_s=self._warmup_s)  # type: ignore[call-overload]
        trials = []
        for i, (problem, (setting, placement)) in enumerate(zip(problems, tried, strict=True)):
            own = slice(i * self._seeds, (i + 1) * self._seeds)
            value = _measure(tally, own, self._of)
            trials.append(Trial(setting, problem, placement, value, self._interval(value)))
        return trials

    def _best(self, setting: Setting, problem: Problem) -> Placement | Schedule:
        """Of the placements that fit, the one that trains best; of equals its own."""
        train = self.workloads(setting)[0]
        candidates = [self._placements[setting]]
        for other, placement in self._placements.items():
            fewer = all(a <= b for a, b in zip(other.num_devices, setting.num_devices, strict=True))
            if fewer and placement not in candidates and _valid(placement, problem):
                candidates.append(placement)
        if len(candidates) == 1:
            return candidates[0]
        scored = score_placements([(problem, train)] * len(candidates), candidates)
        return candidates[int(np.argmax([result.score for result in scored]))]

    def _interval(self, value: NDArray[np.float64]) -> Interval:
        if np.ptp(value) > 0:
            return mean_interval(value).within(0.0, 1.0)
        blocks = max(round(self._traffic.duration_s / self._traffic.block_s), 1)
        low, high = proportion_interval(float(value[0]), blocks * len(value))
        return Interval(float(value[0]), low, high, len(value))


def _valid(placement: Placement | Schedule, problem: Problem) -> bool:
    try:
        placement.check(problem)
    except PlacementError:
        return False
    return True


def _measure(tally: Tally, lanes: slice, of: Of) -> NDArray[np.float64]:
    """Attainment of each seed, float64 [seed]: of all requests, or of the worst-served model."""
    if of == "all":
        return tally.attainment[lanes]
    by_model = tally.model_attainment[lanes]
    asked = tally.num_requests[lanes].sum(0) > 0
    mean = np.full(by_model.shape[1], np.inf)
    mean[asked] = np.nanmean(by_model[:, asked], axis=0)
    worst = by_model[:, int(mean.argmin())]
    return worst[~np.isnan(worst)]
