"""Rules, profiles and SLOs in ticks: the one place where seconds become what kernels count.

See `types.durations_to_ticks` for how durations are rounded, as published.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beta_jax.placement.problem import Problem
from beta_jax.types import (
    NO_DEADLINE,
    ONE_WORK,
    TICKS_PER_SECOND,
    ParallelConfig,
    Rules,
    durations_to_ticks,
)

Ticks = NDArray[np.int64]
WORK_BITS = ONE_WORK.bit_length() - 1


def request_overhead_ticks(rules: Rules) -> int:
    """The fixed time added to every request."""
    return round(rules.request_overhead_s * TICKS_PER_SECOND)


def slo_ticks(problem: Problem) -> Ticks:
    """The SLO of every model, int64 ticks [model]; `NO_DEADLINE` where it is infinite."""
    return durations_to_ticks([model.slo_s for model in problem.models])


def stage_ticks(problem: Problem, kind: str, config: ParallelConfig, batch: int = 1) -> Ticks:
    """Effective stage latencies of a batch of a model type at a configuration, int64 ticks [stage].

    Empty where the profile lacks the configuration (nothing of the type is hosted there). Raises
    ProfileError where it lacks the batch size.
    """
    if (kind, config) not in problem.profile:
        return np.zeros(0, np.int64)
    factor = 1 + problem.rules.stage_overhead * config.pp
    return durations_to_ticks(problem.profile.stage_latency_s(kind, config, batch) * factor)


def worked_ticks(ticks: Any, work: Any) -> Any:
    """Stage latencies of requests of such `Workload.work`, int64: to the nearest tick, half up.

    Of any arrays that broadcast. None stands for the work that the latencies are of.
    """
    return ticks if work is None else (ticks * work + ONE_WORK // 2) >> WORK_BITS


def idle_ticks(problem: Problem, configs: Sequence[ParallelConfig]) -> Ticks:
    """How long an idle group takes for a request, overhead included, int64 ticks [model, config].

    `NO_DEADLINE` where the profile lacks the configuration. Where it is more than the SLO, no
    request of the model is served in time by such a group, whatever the rules.
    """
    overhead = request_overhead_ticks(problem.rules)
    by_type = {
        kind: [
            int(ticks.sum()) + overhead if len(ticks) else NO_DEADLINE
            for ticks in (stage_ticks(problem, kind, config) for config in configs)
        ]
        for kind in {model.type for model in problem.models}
    }
    table = np.array([by_type[model.type] for model in problem.models], np.int64)
    return table.reshape(len(problem.models), len(configs))
