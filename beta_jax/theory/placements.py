"""What queueing theory says of a placement, where it says anything: Poisson traffic, simple queues.

A part of a placement that shares no model with the rest is one queue where its groups are equal,
host the same models of one type, and take requests in order of arrival as a server gets free.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
from numpy.typing import NDArray

from beta_jax.placement.placement import Group, Placement
from beta_jax.placement.problem import Problem
from beta_jax.theory import queueing

# Under `jit` they answer NaN, instead of raising, where there is no answer (no steady state).
_mdc_wait_s = jax.jit(queueing.mdc_wait_s, static_argnums=0)
# Mapped over the wait alone, so that what depends on the queue is computed once.
_md1_wait_cdf = jax.jit(jax.vmap(queueing.md1_wait_cdf, in_axes=(0, None, None)))
_md1_wait_quantile_s = jax.jit(queueing.md1_wait_quantile_s)
_deadline_attainment = jax.jit(queueing.deadline_attainment)
TOLERANCE_S = 1e-6
"""Of latencies: simulated ones are of stages rounded to float32."""


class Queue(NamedTuple):
    """`num_servers` equal servers, each busy for `bottleneck_s` with a request.

    A request's answer comes `latency_s` after its start. models: whose requests these are.
    """

    models: tuple[int, ...]
    rate_rps: float
    latency_s: float
    bottleneck_s: float
    num_servers: int


class Theory:
    """Exact answers for a placement without deadlines, or (`attainment`) with one deadline.

    What has no exact answer is NaN.
    """

    def __init__(self, problem: Problem, placement: Placement) -> None:
        self._overhead_s = problem.rules.request_overhead_s
        self._slo_s = {model.slo_s for model in problem.models}
        self.queues = _queues(problem, placement)
        self._shares = np.array([queue.rate_rps for queue in self.queues])
        self._shares /= self._shares.sum() or 1.0

    @property
    def _no_deadline(self) -> bool:
        return bool(self.queues) and self._slo_s == {math.inf}

    def latency_mean_s(self) -> float:
        """Mean latency of all requests: M/D/1, M/D/c, or several of them."""
        if not self._no_deadline:
            return math.nan
        mean = 0.0
        for share, queue in zip(self._shares, self.queues, strict=True):
            _, rate, latency, bottleneck, servers = queue
            mean += share * (latency + float(_mdc_wait_s(servers, rate, bottleneck)))
        return mean + self._overhead_s

    def latency_cdf(self, latency_s: Sequence[float], model: int | None = None) -> NDArray:
        """Share of requests answered within each latency, of one model or of all."""
        found = np.full(len(latency_s), math.nan)
        if not self._no_deadline or any(queue.num_servers > 1 for queue in self.queues):
            return found
        found[:] = total = 0.0
        for share, queue in zip(self._shares, self.queues, strict=True):
            if model is None or model in queue.models:
                wait_s = np.asarray(latency_s) - queue.latency_s - self._overhead_s
                within = _md1_wait_cdf(np.maximum(wait_s, 0), queue.rate_rps, queue.bottleneck_s)
                found += share * np.where(wait_s < -TOLERANCE_S, 0.0, within)
                total += share
        return found / total

    def latency_p99_s(self) -> float:
        """99th percentile of the latency, for a single M/D/1."""
        if not self._no_deadline or len(self.queues) > 1 or self.queues[0].num_servers > 1:
            return math.nan
        _, rate, latency, bottleneck, _ = self.queues[0]
        wait_s = float(_md1_wait_quantile_s(0.99, rate, bottleneck))
        return latency + wait_s + self._overhead_s

    def slo_attainment(self) -> float:
        """Share of requests answered within the models' common SLO, for single servers."""
        single = all(queue.num_servers == 1 for queue in self.queues)
        if not self.queues or not single or len(self._slo_s) > 1 or self._slo_s == {math.inf}:
            return math.nan
        (slo_s,) = self._slo_s
        slo_s -= self._overhead_s
        if slo_s <= 0:
            return 0.0
        good = 0.0
        for share, queue in zip(self._shares, self.queues, strict=True):
            _, rate, latency, bottleneck, _ = queue
            good += share * float(_deadline_attainment(rate, slo_s, latency, bottleneck))
        return good


def _queues(problem: Problem, placement: Placement) -> tuple[Queue, ...]:
    """The placement's independent queues; none unless every model is served by such a queue."""
    models, queues = problem.models, []
    by_models: dict[tuple[int, ...], list[Group]] = {}
    for group in placement.groups:
        if group.models:
            by_models.setdefault(group.models, []).append(group)
    served = sorted(model for hosted in by_models for model in hosted)
    if served != list(range(len(models))) or any(model.cv != 1 for model in models):
        return ()
    for hosted, groups in by_models.items():
        types = {models[m].type for m in hosted}
        configs = {group.config for group in groups}
        in_order = len(groups) == 1 or problem.rules.dispatch == "earliest_free"
        if len(types) > 1 or len(configs) > 1 or not in_order:
            return ()
        (kind,), (config,) = types, configs
        stages = problem.profile.stage_latency_s(kind, config)
        stages = stages * (1 + problem.rules.stage_overhead * config.pp)
        rate_rps = sum(models[m].rate_rps for m in hosted)
        queues.append(
            Queue(hosted, rate_rps, float(stages.sum()), float(stages.max()), len(groups))
        )
    return tuple(queues)
