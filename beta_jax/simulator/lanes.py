"""What is simulated: as the caller gave it, and the lanes that it consists of."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from beta_jax.placement.failures import Failure
from beta_jax.placement.hosting import statics
from beta_jax.placement.placement import Placement, Schedule
from beta_jax.placement.problem import Problem
from beta_jax.simulator.layout import MAX_GROUPS, MAX_STAGES
from beta_jax.simulator.state import State
from beta_jax.traits import Trait
from beta_jax.types import ONE_WORK, TICKS_PER_SECOND, ParallelConfig, Workload


class SimulationError(ValueError):
    """A simulation that the engine cannot represent."""


@dataclasses.dataclass(frozen=True, eq=False)
class Lane:
    """One simulation of groups that stay what they are.

    configs: of the groups, in order. may_host: per group the models that it hosts; in a search,
    that it may come to host. counted: half-open range of the requests to tally. first: the index of
    the first request, of a workload that this one is a part of. state: what was before; without
    one clocks are 0, and so is the time of the first request.
    """

    problem: Problem
    configs: tuple[ParallelConfig, ...]
    may_host: tuple[tuple[int, ...], ...]
    workload: Workload
    counted: tuple[int, int]
    first: int = 0
    state: State | None = None

    @property
    def num_groups(self) -> int:
        """The number of groups, padded."""
        return padded_size(len(self.configs), 4)

    @functools.cached_property
    def num_clocks(self) -> int:
        """Clocks per group: its stages, or 1 where that is exact.

        That is where groups have one stage, or where all that one hosts takes equally long: models
        of one type, and no request with work of its own; and where all stages start free.
        """
        if self.problem.rules.batches:
            return padded_size(max((config.pp for config in self.configs), default=1), 1)
        if all(config.pp == 1 for config in self.configs):
            return 1
        types = [model.type for model in self.problem.models]
        by_model = Trait.WORK_BY_MODEL in self.problem.rules.traits(self.workload)
        mixed = (
            config.pp > 1
            and (not by_model or self.state is not None or len({types[m] for m in models}) > 1)
            for config, models in zip(self.configs, self.may_host, strict=True)
        )
        if any(mixed):
            return padded_size(max(config.pp for config in self.configs), 2)
        return 1

    def block_key(self) -> Hashable:
        """Lanes with equal keys can share a block."""
        return self.width_key(), self.num_groups

    def launch_key(self) -> Hashable:
        """Lanes with equal keys, and blocks of them, can share a launch on a GPU."""
        return (
            self.problem.rules.batching,
            self.problem.rules.rule,
            self.num_groups,
            self.num_clocks,
        )

    def width_key(self) -> Hashable:
        """Lanes with equal keys could share a block if they had equally many groups."""
        problem = self.problem
        types = tuple(model.type for model in problem.models)
        rules = problem.rules
        if rules.batches:
            rules = dataclasses.replace(rules, max_batch=1)  # which is a number per lane
        requests = self.workload, self.first, self.counted, self.state is None
        return requests, problem.profile, rules, types, self.num_clocks


@dataclasses.dataclass(frozen=True, eq=False)
class Simulation:
    """A placement or schedule under a workload: one lane per segment of the schedule.

    placements, switches: those of the schedule, and from when on others than the first are in
    force, in ticks. failures: what fails.
    """

    problem: Problem
    workload: Workload
    counted: tuple[int, int]
    lanes: tuple[Lane, ...]
    placements: tuple[Placement, ...]
    switches: tuple[int, ...]
    failures: tuple[Failure, ...] = ()

    @property
    def changes(self) -> bool:
        """Whether something changes on the way that carries over, so that lanes are not apart."""
        return bool(self.failures) or (bool(self.switches) and self.problem.cluster.loads)


def padded_size(n: int, smallest: int, factor: int = 2) -> int:
    """The least `smallest * factor**k` >= n: few sizes, so that few programs are compiled."""
    while smallest < n:
        smallest *= factor
    return smallest


def require_representable(
    problem: Problem, workload: Workload, num_groups: int, num_stages: int
) -> None:
    """Raise SimulationError for more groups or stages than kernels have room for, and for requests
    of models that the problem does not have.
    """
    if num_groups > MAX_GROUPS or num_stages > MAX_STAGES:
        raise SimulationError(
            f"at most {MAX_GROUPS} groups and {MAX_STAGES} stages, got {num_groups} and "
            f"{num_stages}"
        )
    if len(workload) and workload.model.max() >= len(problem.models):
        raise SimulationError(
            f"the workload has requests of model {workload.model.max()}, "
            f"the problem {len(problem.models)} models"
        )


def relative_work(
    latency: NDArray[np.int64], work: ArrayLike | None, num_requests: int
) -> NDArray[np.float64] | None:
    """The work of the requests that are real as a share of what the profile says, [request].

    None where none has its own. Raises SimulationError if stages of these latencies, in ticks,
    could take longer with it than kernels can compute.
    """
    if work is None:
        return None
    ratio = np.asarray(work)[:num_requests] / ONE_WORK
    longest, most = float(latency.max(initial=0)), ratio.max(initial=0.0)
    if longest * most * ONE_WORK >= 2**62:
        raise SimulationError(
            f"stages of {longest / TICKS_PER_SECOND:.3g} s and work up to {most:.6g} do not fit "
            "64-bit integers; use a profile of larger requests, and less work for each"
        )
    return ratio


def make_simulations(
    problems: Problem | Sequence[Problem],
    placements: Placement | Schedule | Sequence[Placement | Schedule],
    workloads: Workload | Sequence[Workload],
    warmup_s: float,
    failures: Sequence[Failure] = (),
) -> list[Simulation]:
    """Broadcast the arguments of `simulate`, check the placements and cut schedules into lanes."""
    if not isinstance(placements, Placement | Schedule | Sequence):
        raise TypeError(f"expected placements, got {type(placements).__name__}")
    problems = [problems] if isinstance(problems, Problem) else list(problems)
    placements = [placements] if isinstance(placements, Placement | Schedule) else list(placements)
    workloads = [workloads] if isinstance(workloads, Workload) else list(workloads)
    lengths = [len(problems), len(placements), len(workloads)]
    number = max(lengths) if all(lengths) else 0
    if not {*lengths} <= {1, number}:
        raise ValueError(
            "problems, placements and workloads must be single or of one length, got "
            + ", ".join(map(str, lengths))
        )
    simulations = []
    checked: set[tuple[int, int]] = set()  # as sweeps name the same few objects again and again
    for index in range(number):
        problem = problems[index % len(problems)]
        placement = placements[index % len(placements)]
        workload = workloads[index % len(workloads)]
        if not isinstance(placement, Placement | Schedule):
            raise TypeError(f"expected a Placement or Schedule, got {type(placement).__name__}")
        if (pair := (id(problem), id(placement))) not in checked:
            placement.check(problem)
            checked.add(pair)
        count_from, count_to = workload.warmup_cut(warmup_s)
        lanes = []
        for static, lo, hi in segments(placement, workload):
            part = workload.part(lo, hi)
            counted = max(count_from - lo, 0), max(min(count_to, hi) - lo, 0)
            configs = tuple(group.config for group in static.groups)
            hosted = tuple(group.models for group in static.groups)
            lanes.append(Lane(problem, configs, hosted, part, counted, lo))
        simulation = Simulation(
            problem,
            workload,
            (count_from, count_to),
            tuple(lanes),
            tuple(statics(placement)),
            tuple(start_ticks(placement)[1:].tolist()) if isinstance(placement, Schedule) else (),
            tuple(failures),
        )
        _check_changes(simulation)
        simulations.append(simulation)
    return simulations


def _check_changes(simulation: Simulation) -> None:
    if not simulation.changes:
        return
    problem, workload = simulation.problem, simulation.workload
    if problem.rules.batches:
        raise SimulationError("loading and failures do not go with requests served in batches")
    if simulation.switches and not problem.cluster.loads:
        raise SimulationError(
            "failures in a schedule need a load bandwidth of the cluster, which may be infinite"
        )
    if len(workload) and workload.arrival[0] < 0:
        raise SimulationError("with loading and failures a workload begins at 0 seconds or later")


def start_ticks(schedule: Schedule) -> NDArray[np.int64]:
    """From when on each placement is in force, int64 ticks [placement]."""
    return np.rint(np.asarray(schedule.start_s) * TICKS_PER_SECOND).astype(np.int64)


def segments(
    placement: Placement | Schedule, workload: Workload
) -> list[tuple[Placement, int, int]]:
    """The static placements that serve a workload, each with its half-open range of requests.

    A request is served by the last placement that started strictly before it, except that at most
    one boundary is crossed per request. All clocks restart at a change: segments are independent.
    (Not so under a load bandwidth: see `changing`.)
    """
    if isinstance(placement, Placement):
        return [(placement, 0, len(workload))]
    bounds = [0]
    earliest = 0
    for due in np.searchsorted(workload.arrival, start_ticks(placement)[1:], side="right"):
        bounds.append(min(max(int(due), earliest), len(workload)))
        earliest = bounds[-1] + 1
    bounds.append(len(workload))
    return list(zip(placement.placements, bounds[:-1], bounds[1:], strict=True))
