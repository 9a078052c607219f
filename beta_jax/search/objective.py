"""What a search maximises over several training workloads."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from beta_jax.checks import require_numbers
from beta_jax.placement.placement import Placement, Schedule
from beta_jax.placement.problem import Problem
from beta_jax.search.result import published_score
from beta_jax.search.scoring import Scores
from beta_jax.simulator import simulate
from beta_jax.types import Workload


@dataclasses.dataclass(frozen=True)
class Objective:
    """`(1 - fairness) * the mean score over the worst share of the workloads + fairness * the
    attainment of the worst-served model` (over all workloads together).

    worst_share: 1 is the mean over all workloads, a share of one workload or less the worst case;
    between them lies the conditional value at risk (Rockafellar and Uryasev, "Optimization of
    conditional value-at-risk", Journal of Risk, 2000). fairness: 0 ignores who is served. Raises
    ValueError for values outside (0, 1] and [0, 1].
    """

    worst_share: float = 1.0
    fairness: float = 0.0

    def __post_init__(self) -> None:
        require_numbers(worst_share=self.worst_share, fairness=self.fairness)
        if not 0 < self.worst_share <= 1:
            raise ValueError(f"worst_share must be in (0, 1], got {self.worst_share}")
        if not 0 <= self.fairness <= 1:
            raise ValueError(f"fairness must be in [0, 1], got {self.fairness}")

    def __call__(self, scores: Scores, num_requests: NDArray[np.int64]) -> NDArray[np.float64]:
        """Float64 [lane]. num_requests: int64 [workload, model]."""
        # Rounded first: 0.07 of 100 is a little more than 7 in floating point.
        count = max(math.ceil(round(self.worst_share * len(scores.score), 9)), 1)
        value = np.sort(scores.score, axis=0)[:count].mean(0)
        if not self.fairness:
            return value
        requests = num_requests.sum(0)
        served = scores.good.sum(0)[:, requests > 0] / requests[requests > 0]
        return (1 - self.fairness) * value + self.fairness * served.min(1, initial=1.0)


def judge(
    problem: Problem,
    training: Sequence[Workload],
    placements: Sequence[Placement | Schedule],
    objective: Objective,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The objective, [placement], and SLO attainment, [workload, placement]."""
    lanes = [(placement, workload) for workload in training for placement in placements]
    tally = simulate(problem, [lane[0] for lane in lanes], [lane[1] for lane in lanes])
    shape = len(training), len(placements)
    good = tally.good.reshape(*shape, -1)
    counts = zip(tally.good.sum(1), tally.latency_ticks.sum(1), tally.num_counted, strict=True)
    score = [
        published_score(int(good), int(latency), int(requests), placement)
        for (good, latency, requests), (placement, _) in zip(counts, lanes, strict=True)
    ]
    requests = tally.num_requests.reshape(good.shape)[:, 0]
    value = objective(Scores(np.reshape(score, shape), good), requests)
    return value, tally.attainment.reshape(shape)
