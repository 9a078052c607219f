"""Clusters that change while they serve: switches that load weights, and failures.

A change takes effect between two requests. So a simulation is a sequence of parts, each of groups
that stay what they are, which start from the clocks that the part before has left; here it is
decided what happens between them. Many simulations go side by side, a part of each at a time.

A switch at T, with a load bandwidth: what arrives later belongs to the new placement. A *kept*
group, on the devices of an old one of its configuration, keeps its clocks, and what is new to it is
available as soon as it is loaded, each model by itself. Any other is *new*: it starts when its
devices are done with their old groups and have loaded what they lack, and what comes for it queues.

A failure takes a group and what it holds away; what is still in its stages is lost. At the end of
the failure the group loads all its weights and serves again. What takes forever to load is never
there: a group hosts nothing of it.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Generator, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beta_jax.placement.devices import (
    Devices,
    load_ticks,
    match_devices,
    number_devices,
    stage_bytes,
)
from beta_jax.placement.placement import Group, Placement
from beta_jax.simulator.engine import simulate_parts
from beta_jax.simulator.lanes import Lane, Simulation
from beta_jax.simulator.results import Changes, Outcome, Part
from beta_jax.simulator.state import State
from beta_jax.simulator.ticks import request_overhead_ticks
from beta_jax.types import NO_DEADLINE, TICKS_PER_SECOND, ParallelConfig

Served = tuple[NDArray[Any], NDArray[Any], State]
"""What `simulate_parts` returns for a lane."""
RETURN, FAILURE, LOADED, SWITCH = range(4)
"""Kinds of events, in the order in which they take effect at one time: a switch after the requests
that arrive then, all others before."""


def simulate_changing(simulations: Sequence[Simulation]) -> list[Outcome]:
    """What became of each request, of simulations in which something changes."""
    courses = [_Course(one).run() for one in simulations]
    outcomes: dict[int, Outcome] = {}
    answers: dict[int, Any] = dict.fromkeys(range(len(courses)))
    while answers:
        lanes: dict[int, Lane] = {}
        for index, answer in answers.items():
            try:
                lanes[index] = courses[index].send(answer)
            except StopIteration as done:
                outcomes[index] = done.value
        answers = dict(zip(lanes, simulate_parts([*lanes.values()]), strict=True))
    return [outcomes[index] for index in range(len(courses))]


class _Group:
    """A group in force.

    life: from its start to a failure, or a switch that does not keep it; an index. up: whether all
    its devices are there. clock, ends: see `State`. ready: when its models are there, in ticks;
    None: never.
    """

    def __init__(self, group: Group, devices: Devices, life: int) -> None:
        self.config, self.devices, self.life, self.up = group.config, devices, life, True
        self.ready: dict[int, int | None] = dict.fromkeys(group.models, 0)
        self.start(0)

    def start(self, clock: int) -> None:
        """All stages are free at this time, and nothing is in them."""
        self.clock = np.full(self.config.pp, clock, np.int64)
        self.ends = np.zeros(0, np.int64)

    def start_loaded(self, clock: int, load: int | None) -> None:
        """So they are when everything is loaded, which takes so long; None: for ever."""
        self.ready = dict.fromkeys(self.ready, None if load is None else 0)
        self.start(clock + (load or 0))

    def hosted(self, now: int) -> tuple[int, ...]:
        """The models that it can serve."""
        there = (m for m, ready in self.ready.items() if ready is not None and ready <= now)
        return tuple(there) if self.up else ()


class _Course:
    """One simulation, from change to change."""

    def __init__(self, simulation: Simulation) -> None:
        self._problem, self._workload = simulation.problem, simulation.workload
        self._counted = simulation.counted
        placements = simulation.placements
        self._placements = placements
        self._devices = [number_devices(self._problem.cluster, placements[0])]
        for old, new in itertools.pairwise(placements):
            self._devices.append(match_devices(self._problem, old, self._devices[-1], new))
        fixed = self._devices[0] if len(placements) == 1 else None
        self._failing = [f.devices(self._problem.cluster, fixed) for f in simulation.failures]
        self._down = np.zeros(self._problem.cluster.num_devices, np.int64)  # failures of a device

        self._events = [(tick, SWITCH, i) for i, tick in enumerate(simulation.switches, 1)]
        for i, failure in enumerate(simulation.failures):
            self._events.append((_ticks(failure.start_s), FAILURE, i))
            if np.isfinite(failure.end_s):
                self._events.append((_ticks(failure.end_s), RETURN, i))
        heapq.heapify(self._events)

        self._lives: list[tuple[ParallelConfig, frozenset[int]]] = []
        self._groups = [
            self._new(group, devices)
            for group, devices in zip(placements[0].groups, self._devices[0], strict=True)
        ]
        self._now = 0
        self._forget()
        count = len(self._workload)
        self._finish = self._workload.arrival.copy()
        self._good, self._failed = np.zeros((2, count), np.bool_)
        self._group, self._life = np.full((2, count), -1, np.int32)
        self._parts: list[Part] = []

    def run(self) -> Generator[Lane, Served, Outcome]:
        """Yields a lane for every part, and is sent what became of it."""
        arrival, served = self._workload.arrival, 0
        while True:
            event = heapq.heappop(self._events) if self._events else None
            end = len(arrival)
            if event is not None:
                tick, kind, _ = event
                side = "right" if kind == SWITCH else "left"
                end = int(arrival.searchsorted(tick, side))  # type: ignore[call-overload]
            if end > served:
                self._write(served, end, (yield self._lane(served, end)))
                served = end
            if event is None:
                return self._outcome()
            self._change(*event)

    def _lane(self, begin: int, end: int) -> Lane:
        groups = self._groups
        clock, ends = tuple(g.clock for g in groups), tuple(g.ends for g in groups)
        return Lane(
            self._problem,
            tuple(group.config for group in groups),
            tuple(group.hosted(self._now) for group in groups),
            self._workload.part(begin, end),
            (0, 0),
            begin,
            State(clock, self._memory, ends, begin),
        )

    def _write(self, begin: int, end: int, served: Served) -> None:
        finish, group, state = served
        part = slice(begin, end)
        self._good[part] = finish > 0
        self._finish[part] = np.where(finish > 0, finish, self._finish[part])
        self._group[part] = group
        self._life[part] = np.array([*(own.life for own in self._groups), -1])[group]
        in_force = (Group(own.config, own.hosted(self._now)) for own in self._groups)
        self._parts.append(Part(begin, end, Placement(tuple(in_force))))
        self._memory = state.memory
        for own, clock, ends in zip(self._groups, state.clock, state.ends, strict=True):
            own.clock, own.ends = clock, ends

    def _outcome(self) -> Outcome:
        configs = tuple(config for config, _ in self._lives)
        changes = Changes(self._failed, self._life, configs, tuple(self._parts))
        found = self._finish, self._good, self._group
        return Outcome(self._workload, *found, self._counted, changes)

    def _change(self, tick: int, kind: int, number: int) -> None:
        self._now = tick
        if kind == FAILURE:
            self._fail(tick, self._failing[number])
        elif kind == RETURN:
            self._return(tick, self._failing[number])
        elif kind == SWITCH:
            self._switch(tick, number)

    def _new(self, group: Group, devices: Devices) -> _Group:
        own = _Group(group, devices, len(self._lives))
        self._lives.append((group.config, frozenset(devices)))
        return own

    def _forget(self) -> None:
        """What the dispatch rule remembers is of groups that are no more."""
        initial = self._problem.rules.rule.initial
        self._memory = np.full(len(self._problem.models), initial, np.int64)

    def _load(self, config: ParallelConfig, num_bytes: int) -> int | None:
        pool = self._problem.cluster.pools[config.pool]
        return load_ticks(num_bytes, pool.load_bandwidth_bytes_per_s)

    def _bytes(self, config: ParallelConfig, models: Iterable[int], stage: int) -> int:
        """Of weights, on each device of the stage."""
        of = (stage_bytes(self._problem, self._problem.models[m], config)[stage] for m in models)
        return sum(of)

    def _fail(self, tick: int, devices: Devices) -> None:
        self._down[list(devices)] += 1
        gone = {device for device in devices if self._down[device] == 1}
        hit = [life for life, (_, own) in enumerate(self._lives) if gone & own]
        last_stage_end = self._finish - request_overhead_ticks(self._problem.rules)
        lost = self._good & np.isin(self._life, hit) & (last_stage_end > tick)
        self._good[lost], self._failed[lost], self._finish[lost] = False, True, tick
        for group in self._groups:
            group.up = group.up and gone.isdisjoint(group.devices)

    def _return(self, tick: int, devices: Devices) -> None:
        self._down[list(devices)] -= 1
        for position, group in enumerate(self._groups):
            if not group.up and not self._down[list(group.devices)].any():
                again = self._new(Group(group.config, tuple(group.ready)), group.devices)
                stages = range(group.config.pp)
                most = max(self._bytes(group.config, group.ready, stage) for stage in stages)
                again.start_loaded(tick, self._load(group.config, most))
                self._groups[position] = again

    def _switch(self, tick: int, number: int) -> None:
        old = {group.devices: group for group in self._groups}
        place = {
            device: (group, position)
            for group in self._groups
            for position, device in enumerate(group.devices)
        }
        groups = []
        for group, devices in zip(
            self._placements[number].groups, self._devices[number], strict=True
        ):
            before = old.get(devices)
            if self._down[list(devices)].any():
                own = self._new(group, devices)
                own.up = False
            elif before is not None and before.config == group.config:
                own = self._keep(tick, before, group)
            else:
                own = self._found(tick, group, devices, place)
            groups.append(own)
        self._groups = groups
        self._forget()

    def _keep(self, tick: int, before: _Group, group: Group) -> _Group:
        own = _Group(group, before.devices, before.life)
        own.clock, own.ends = before.clock, before.ends
        for model in group.models:
            if model in before.ready:
                own.ready[model] = before.ready[model]
                continue
            stages = range(group.config.pp)
            most = max(self._bytes(group.config, [model], stage) for stage in stages)
            load = self._load(group.config, most)
            own.ready[model] = None if load is None else tick + load
            if load:
                heapq.heappush(self._events, (tick + load, LOADED, 0))
        return own

    def _found(
        self, tick: int, group: Group, devices: Devices, place: dict[int, tuple[_Group, int]]
    ) -> _Group:
        """A new group; place: which group each device was in, and where there."""
        config, free, most = group.config, tick, 0
        for position, device in enumerate(devices):
            before, old_position = place.get(device, (None, 0))
            there: set[int] = set()
            if before is not None and before.up:
                free = max(free, int(before.clock[-1]))
                if before.config == config and old_position // config.op == position // config.op:
                    there = {m for m, ready in before.ready.items() if ready is not None}
            lacking = {*group.models} - there
            most = max(most, self._bytes(config, lacking, position // config.op))
        own = self._new(group, devices)
        own.start_loaded(free, self._load(config, most))
        return own


def _ticks(seconds: float) -> int:
    return min(round(seconds * TICKS_PER_SECOND), int(NO_DEADLINE))
