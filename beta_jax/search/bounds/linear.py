"""Memory, devices, work and bursts at once: a linear program that no placement exceeds.

Of a placement it knows how many groups of each configuration there are, how many replicas of each
model they host, and how many of the model's requests they serve, under each workload and within
busy windows of it. These fit the devices, their memory and the groups' time; and a group serves no
more of a model than if it hosted nothing else. Here all may be fractions, so that more is served.

The solver is not trusted. It proposes prices of what is scarce; what these prove is computed from
the program itself, for any prices (weak duality), and rounded up.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy.optimize
import scipy.sparse
from numpy.typing import NDArray

from beta_jax.placement.problem import Problem
from beta_jax.search.bounds.windows import Stage, Window, busy_windows
from beta_jax.search.instances import (
    devices_table,
    fits_alone,
    fitting_configs,
    memory_table,
    weight_table,
)
from beta_jax.simulator.engine import idle_ticks, request_overhead_ticks, slo_ticks, stage_ticks
from beta_jax.types import NO_DEADLINE, ParallelConfig, Workload

Array = NDArray[np.float64]
Integers = NDArray[np.int64]
Classes = Sequence[tuple[int, int]]
"""By ascending device-ticks that a request takes: how many can be worked in time on those requests
and on all that take fewer."""
MAX_UNKNOWNS = 16_000
"""Of all workloads; with more, the program takes too long to solve."""
ROUNDED = 1e-9
"""Of the bound, which is more than sums in float64 are off."""


def served_by_hosts(
    problem: Problem, workloads: Sequence[Workload], work: Integers, worked: Sequence[Classes]
) -> float:
    """At most how much of their requests any placement serves, the mean over the workloads.

    work: device-ticks that a request takes at least, [model]. worked: see `Classes`, of each
    workload. For rules that serve requests one by one, of the work that their model tells.
    """
    configs, able = serving_configs(problem)
    model, column = np.nonzero(able)
    if not 0 < len(model) * (len(workloads) + 1) <= MAX_UNKNOWNS:
        return float(len(model) > 0)
    size = np.array([config.num_devices for config in configs], np.int64)
    pool = np.array([config.pool for config in configs], np.int64)
    devices = devices_table(problem)
    num_groups = devices[pool] // size  # at most
    weight = (weight_table(problem, configs) / memory_table(problem, configs))[model, column]
    none = np.zeros(len(configs))

    program = _Program()
    groups = program.unknowns(num_groups)
    replicas = program.unknowns(num_groups[column])
    program.rows([_Term(pool, groups, size)], devices)
    program.rows([_Term(column, replicas, weight), _each(groups, -1.0)], none)
    program.rows([_each(replicas, 1.0), _each(groups[column], -1.0)], np.zeros(len(model)))
    for c in range(len(configs)):
        own = weight[column == c]
        for least in np.unique(own[own > 0]):
            heavy = np.flatnonzero((column == c) & (weight >= least))
            whole = _each(groups[[c]], -math.floor(1 / least + ROUNDED))  # so many to a group
            program.rows([_Term(0 * heavy, replicas[heavy], 1.0), whole], [0.0])

    times = _Times(problem, configs, able)

    def within(pairs: Integers, part: Integers, own: list[Integers], ticks: Integers) -> None:
        """What is served of these requests, all worked on within so many ticks, [config]."""
        m, c = model[pairs], column[pairs]
        program.rows([_Term(m, part, 1.0)], np.array(list(map(len, own))))
        alone = times.served_alone(own)[m, c]
        program.rows([_each(part, 1.0), _each(replicas[pairs], -alone)], np.zeros(len(pairs)))
        share = times.stage.on[m, c] / np.maximum(ticks[c], 1)
        program.rows([_Term(c, part, share), _each(groups, -1.0)], none)

    for workload, classes in zip(workloads, worked, strict=True):
        arrivals = [workload.arrival[workload.model == m] for m in range(len(problem.models))]
        requests = np.array([len(own) for own in arrivals])
        served = program.unknowns(requests[model], 1 / max(len(workload), 1) / len(workloads))
        for amount, done in classes:
            some = np.flatnonzero(work[model] <= amount)
            share = work[model[some]] / max(done, 1)
            program.rows([_Term(np.zeros_like(some), served[some], share)], [min(done, 1)])
        everything = np.arange(len(model))
        last = int(times.until[requests > 0].max(initial=0))
        ticks = np.full(len(configs), int(np.ptp(workload.arrival)) + last)
        within(everything, served, arrivals, ticks)
        if last >= NO_DEADLINE // 2:
            continue
        # What is served of a model is served in one of the windows, or among the rest.
        room = MAX_UNKNOWNS // len(workloads) - 3 * len(model)
        parts, rest = [_each(served, 1.0)], requests.copy()
        for window in busy_windows(arrivals, times.until, times.stage, able, num_groups):
            pairs = np.flatnonzero(window.number[model])
            room -= len(pairs)
            if room < 0:
                break
            rest -= window.number
            part = program.unknowns(window.number[model[pairs]])
            parts.append(_Term(pairs, part, -1.0))
            within(pairs, part, window.of(arrivals), times.within(window))
        part = program.unknowns(rest[model])
        parts.append(_each(part, -1.0))
        program.rows(parts, np.zeros(len(model)))
        program.rows([_Term(model, part, 1.0)], rest)
        program.rows([_each(part, 1.0), _each(replicas, -rest[model])], np.zeros(len(model)))
    return min(program.bound(), 1.0)


def serving_configs(problem: Problem) -> tuple[list[ParallelConfig], NDArray[np.bool_]]:
    """Configurations, and whether an idle group serves a model in time, bool [model, config]."""
    kinds = {model.type for model in problem.models}
    profiled = {config for kind in kinds for config in problem.profile.configs(kind)}
    configs = fitting_configs(problem, profiled)
    in_time = idle_ticks(problem, configs) <= slo_ticks(problem)[:, None]
    return configs, fits_alone(problem, configs) & in_time


class _Times:
    """How long requests take and may take, in ticks.

    until: from arrival to when the last stage must be through, [model]. stage: of the one that is
    busy for the longest. A group's stage works on one request at a time, so any one would do.
    """

    def __init__(
        self, problem: Problem, configs: Sequence[ParallelConfig], able: NDArray[np.bool_]
    ) -> None:
        slo = slo_ticks(problem)
        self.until = slo - request_overhead_ticks(problem.rules)
        most = max(config.pp for config in configs)
        kinds = sorted({model.type for model in problem.models})
        of_kind = np.zeros((len(kinds), len(configs), most), np.int64)
        for k, kind in enumerate(kinds):
            for c, config in enumerate(configs):
                ticks = stage_ticks(problem, kind, config)
                of_kind[k, c, : len(ticks)] = ticks
        stages = of_kind[[kinds.index(model.type) for model in problem.models]]
        number = (stages * able[..., None]).sum(0).argmax(1)[None, :, None]
        through = np.take_along_axis(stages.cumsum(2), number, 2)[..., 0]
        on = np.take_along_axis(stages, number, 2)[..., 0]
        self.stage = Stage(through - on, on, stages.sum(2) - through)
        self._able, self._longest = able, stages.max(2)
        self._slack = slo[:, None] - idle_ticks(problem, configs)

    def within(self, window: Window) -> Integers:
        """Ticks in which the stage works on the window's requests, [config]."""
        some = self._able & (window.number > 0)[:, None]
        before, _, after = (np.where(some, t, NO_DEADLINE).min(0) for t in self.stage)
        idle = ~some.any(0)
        return np.where(idle, 0, window.end - window.begin - before - after)

    def served_alone(self, arrivals: Sequence[Integers]) -> Integers:
        """Requests that a group serves which hosts nothing else, int64 [model, config].

        First come, first served, which for requests that all take and may take the same time is
        best.
        """
        requests = np.array([len(own) for own in arrivals])
        order = np.argsort(-requests, kind="stable")  # so that those still at it come first
        slack, longest = self._slack[order], self._longest[order]
        free = np.full(slack.shape, -NO_DEADLINE)
        served = np.zeros(slack.shape, np.int64)
        for i in range(int(requests.max(initial=0))):
            now = int((requests > i).sum())
            arrival = np.array([arrivals[m][i] for m in order[:now]], np.int64)[:, None]
            start = np.maximum(free[:now], arrival)
            good = start - arrival <= slack[:now]
            free[:now] = np.where(good, start + longest[:now], free[:now])
            served[:now] += good
        return served[np.argsort(order)]


class _Term(NamedTuple):
    """Coefficients of unknowns in rows, each one or many."""

    row: Integers
    unknown: Integers
    coefficient: NDArray | float


def _each(unknown: Integers, coefficient: NDArray | float) -> _Term:
    """An unknown in each row."""
    return _Term(np.arange(len(unknown)), unknown, coefficient)


class _Program:
    """Gain as much as possible from unknowns between 0 and their limits, within rows of sums."""

    def __init__(self) -> None:
        self._limit: list[Array] = []
        self._gain: list[Array] = []
        self._entries: list[tuple[Integers, Integers, Array]] = []
        self._sum: list[Array] = []

    def unknowns(self, limit: NDArray, gain: float = 0.0) -> Integers:
        """Add unknowns up to these limits that gain so much each; return their indices."""
        first = sum(map(len, self._limit))
        self._limit.append(np.asarray(limit, np.float64))
        self._gain.append(np.full(len(limit), gain))
        return np.arange(first, first + len(limit))

    def rows(self, terms: Sequence[_Term], most: NDArray | Sequence[float]) -> None:
        """Add rows of terms whose sums are at most these."""
        first = sum(map(len, self._sum))
        for row, unknown, coefficient in terms:
            coefficient = np.broadcast_to(np.asarray(coefficient, np.float64), len(unknown))
            self._entries.append((row + first, unknown, coefficient))
        self._sum.append(np.asarray(most, np.float64))

    def bound(self) -> float:
        """At most what can be gained."""
        limit, gain = np.concatenate(self._limit), np.concatenate(self._gain)
        most = np.concatenate(self._sum)
        row, unknown, coefficient = map(np.concatenate, zip(*self._entries, strict=True))
        shape = len(most), len(limit)
        matrix = scipy.sparse.csr_array((coefficient, (row, unknown)), shape=shape)
        found = scipy.optimize.linprog(
            -gain,
            matrix,
            most,
            bounds=np.stack([np.zeros(len(limit)), limit], 1),
            method="highs-ipm",
        )
        # Of what is scarce each row has a price; what an unknown gains beyond what it takes at
        # these prices it gains up to its limit. Without prices that is everything.
        solved = found.status == 0
        price = np.maximum(-found.ineqlin.marginals, 0.0) if solved else np.zeros(len(most))
        beyond = np.maximum(gain - matrix.T @ price, 0.0)
        return float(most @ price + limit @ beyond) * (1 + ROUNDED)
