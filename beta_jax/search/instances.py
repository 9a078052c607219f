"""What every policy starts from: the instances to place, what fits where, and nominal rates."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from beta_jax.placement.placement import weight_on_device
from beta_jax.placement.problem import Problem
from beta_jax.types import ParallelConfig, Workload
from beta_jax.workloads.synthesis import join

Instances = Sequence[tuple[Problem, Workload]]
"""Problems, each with the workload to train on."""
Training = Workload | Sequence[Workload]
"""One training workload, or several that are equally likely."""
DRAINED_S = 60.0
"""Between training workloads that are joined, besides the longest finite SLO."""
NEVER_FITS = 2**62
"""Weight of a model at a configuration that its profile lacks: more than any memory."""


def weight_table(problem: Problem, configs: Sequence[ParallelConfig]) -> NDArray[np.int64]:
    """Bytes on each device of a group, int64 [model, config]; `NEVER_FITS` without a profile."""
    return np.array(
        [
            [
                weight_on_device(problem, model, config)
                if (model.type, config) in problem.profile
                else NEVER_FITS
                for config in configs
            ]
            for model in problem.models
        ],
        np.int64,
    ).reshape(len(problem.models), len(configs))


def memory_table(problem: Problem, configs: Sequence[ParallelConfig]) -> NDArray[np.int64]:
    """Whole bytes of weights that a device of a group holds, int64 [config]."""
    memory = [int(pool.memory_bytes) for pool in problem.cluster.pools]
    return np.array([memory[config.pool] for config in configs], np.int64)


def devices_table(problem: Problem) -> NDArray[np.int64]:
    """Devices of each pool, int64 [pool]."""
    return np.array([pool.num_devices for pool in problem.cluster.pools], np.int64)


def fitting_configs(problem: Problem, configs: Iterable[ParallelConfig]) -> list[ParallelConfig]:
    """Those for which their pool has devices enough, sorted."""
    pools = problem.cluster.pools
    return sorted(c for c in configs if c.num_devices <= pools[c.pool].num_devices)


def fits_alone(problem: Problem, configs: Sequence[ParallelConfig]) -> NDArray[np.bool_]:
    """Whether a group of a configuration can host a model, bool [model, config]."""
    return weight_table(problem, configs) <= memory_table(problem, configs)


def nominal_rates(policy: str, problem: Problem) -> NDArray[np.float64]:
    """The models' nominal rates, float64 requests/s [model].

    Raises ValueError for a model without one, and if nobody sends anything.
    """
    rates = np.array([model.rate_rps for model in problem.models])
    if np.isnan(rates).any():
        name = problem.models[int(np.isnan(rates).argmax())].name
        raise ValueError(f"{policy} plans from nominal rates; model {name} has no rate_rps")
    if not rates.any():
        raise ValueError(f"{policy} plans from nominal rates; every model's rate_rps is 0")
    return rates


def requests_by_model(problem: Problem, workload: Workload) -> NDArray[np.int64]:
    """How many requests there are, int64 [model]."""
    return np.bincount(workload.model[workload.model >= 0], minlength=len(problem.models))


def as_list(training: Training) -> list[Workload]:
    """The training workloads, one or several. Raises ValueError for none."""
    workloads = [training] if isinstance(training, Workload) else list(training)
    if not workloads:
        raise ValueError("there is no training workload")
    return workloads


def as_one(problem: Problem, training: Training) -> Workload:
    """The training workload; several are joined, with a pause in which every queue drains."""
    workloads = as_list(training)
    if len(workloads) == 1:
        return workloads[0]
    slo_s = [model.slo_s for model in problem.models if math.isfinite(model.slo_s)]
    return join(workloads, DRAINED_S + max(slo_s, default=0.0))
