"""What a policy returns, and the score that the published search maximises."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beta_jax.placement.hosting import statics
from beta_jax.placement.placement import Placement, Schedule
from beta_jax.search.instances import Instances
from beta_jax.simulator import simulate
from beta_jax.types import TICKS_PER_SECOND, Workload


@dataclasses.dataclass(frozen=True)
class Result:
    """The placement a policy chose.

    score: `published_score` on the training workload (`local-search`: its objective).
    num_simulations: simulations it took. warnings: what the user should know, such as models left
    out. history: of a search that goes on, the best score after so many simulations. expected_loss:
    how much of what a search gained is likely to be lost on other traffic; None if unknown.
    attainment: the mean SLO attainment on the training workloads, upper_bound: on that of any
    static placement; None if the policy does not tell.
    """

    placement: Placement | Schedule
    score: float
    num_simulations: int
    warnings: tuple[str, ...] = ()
    history: tuple[tuple[int, float], ...] = ()
    expected_loss: float | None = None
    attainment: float | None = None
    upper_bound: float | None = None

    @property
    def gap(self) -> float | None:
        """At most how much more any static placement attains; None if that is not known."""
        if self.upper_bound is None or self.attainment is None:
            return None
        return self.upper_bound - self.attainment

    @property
    def static(self) -> Placement:
        """The placement of a policy that makes no schedules. Raises TypeError for a schedule."""
        if not isinstance(self.placement, Placement):
            raise TypeError(f"expected a single placement, got a schedule: {self.placement}")
        return self.placement


def published_score(
    good: int, latency_ticks: int, num_requests: int, placement: Placement | Schedule
) -> float:
    """Attainment - mean latency / 10,000 s + replicas / 1,000,000, over all requests.

    good, latency_ticks: summed over the good requests. The small terms break ties; with an infinite
    SLO the latency is the objective. A schedule has the mean number of replicas of its segments.
    """
    static = statics(placement)
    replicas = sum(segment.num_replicas for segment in static) / len(static)
    return float(score_counts(good, latency_ticks, num_requests, replicas))


def score_counts(good: Any, latency_ticks: Any, num_requests: Any, num_replicas: Any) -> Any:
    """`published_score` from counts, numbers or arrays that broadcast."""
    num_requests = np.maximum(num_requests, 1)
    attainment = good / num_requests
    latency_mean_s = latency_ticks / TICKS_PER_SECOND / num_requests
    return attainment - latency_mean_s / 10_000 + num_replicas / 1_000_000


def mean_attainment(good: NDArray[np.int64], workloads: Sequence[Workload]) -> NDArray[np.float64]:
    """Float64 [lane], from int64 [workload, lane, model]; nothing is served of no requests."""
    requests = np.array([max(len(workload), 1) for workload in workloads])
    return (good.sum(2) / requests[:, None]).mean(0)


def score_placements(
    instances: Instances, placements: Sequence[Placement | Schedule]
) -> list[Result]:
    """One simulation each, of every instance's placement under its training workload."""
    tally = simulate([p for p, _ in instances], placements, [w for _, w in instances])
    good, latency = tally.good.sum(1), tally.latency_ticks.sum(1)
    return [
        Result(
            placement,
            published_score(int(good[i]), int(latency[i]), len(workload), placement),
            1,
            attainment=int(good[i]) / max(len(workload), 1),
        )
        for i, (placement, (_, workload)) in enumerate(zip(placements, instances, strict=True))
    ]
