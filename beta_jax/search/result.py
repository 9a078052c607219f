"""What a policy returns, and the score that the published search maximises."""

from __future__ import annotations

import dataclasses

from beta_jax.placement import Placement, Schedule
from beta_jax.types import TICKS_PER_SECOND


@dataclasses.dataclass(frozen=True)
class Result:
    """The placement a policy chose.

    score: `published_score` on the training workload. num_simulations: simulations it took.
    warnings: what the user should know, such as models left out.
    """

    placement: Placement | Schedule
    score: float
    num_simulations: int
    warnings: tuple[str, ...] = ()


def published_score(
    good: int, latency_ticks: int, num_requests: int, placement: Placement
) -> float:
    """Attainment - mean latency / 10,000 s + replicas / 1,000,000, over all requests.

    good, latency_ticks: summed over the good requests. The small terms break ties; with an infinite
    SLO the latency is the objective.
    """
    attainment = good / max(num_requests, 1)
    latency_mean_s = latency_ticks / TICKS_PER_SECOND / max(num_requests, 1)
    return attainment - latency_mean_s / 10_000 + placement.num_replicas / 1_000_000
