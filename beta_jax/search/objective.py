"""What a search maximises over several training workloads."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from numpy.typing import NDArray

from beta_jax.search.scoring import Scores


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
