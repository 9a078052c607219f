"""The oracle: the queueing rules as one slow loop over Python integers.

It shares no code with the package, so that agreement means something. Times are integer ticks of
one nanosecond and results do not depend on any backend. Requests are `arrival` (ticks, sorted) and
`model` (index, or -1: of a model that is not served); `slo[m]` is the deadline of model m in ticks,
`math.inf` for none. A group is a dict `{model: [ticks of each stage]}` of the models it hosts, with
the effective latencies (`stage_ticks`); a placement is a list of groups; a schedule is a list of
`(start tick, placement)`, and a single placement is the schedule `[(0, placement)]`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

TICKS_PER_SECOND = 10**9
STAGE_OVERHEAD = 0.009
REQUEST_OVERHEAD = 11_000_000
"""11 ms in ticks: HTTP, dispatch and driver time of every request."""

Group = Mapping[int, Sequence[int]]
Schedule = Sequence[tuple[int, Sequence[Group]]]


class Outcome(NamedTuple):
    """What became of each request; all arrays are [request].

    finish: int64 ticks; the arrival where rejected.
    good: bool; accepted, which implies in time.
    group: int64; where it was dispatched, accepted or not, in its segment's placement; -1: nowhere.
    start: int64 ticks; when its first stage began; the arrival where rejected.
    """

    finish: np.ndarray
    good: np.ndarray
    group: np.ndarray
    start: np.ndarray


def run_stages(t: int, stages: Sequence[int], clock: Sequence[int]) -> list[int]:
    """When each stage would be done with a request of time t: `t = max(t, clock) + stage`."""
    ends = []
    for length, free in zip(stages, clock, strict=True):
        t = max(t, free) + length
        ends.append(t)
    return ends


def worked(stages: Sequence[int], work: int) -> list[int]:
    """What the stages take of a request whose work is `work / 2^16` times the profile's."""
    return [(length * int(work) + 2**15) >> 16 for length in stages]


def serving_segment(arrival: Sequence[int], starts: Sequence[int]) -> list[int]:
    """Which segment serves each request: the next one takes over when `its start < arrival`.

    A start equal to the arrival is not yet in force, the first start is not looked at, and one
    request crosses at most one boundary, so the schedule lags after a gap longer than a segment.
    """
    segment, serving = 0, []
    for t in arrival:
        if segment + 1 < len(starts) and starts[segment + 1] < t:
            segment += 1
        serving.append(segment)
    return serving


def draws(request: int, num_hosts: int, seed: int) -> list[int]:
    """Two positions in a list of hosts, by hashing the request's index and which draw it is."""
    positions = []
    for number in (2 * request, 2 * request + 1):
        x = (seed + number * 0x9E3779B97F4A7C15) % 2**64
        x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        x = (x ^ (x >> 27)) * 0x94D049BB133111EB % 2**64
        x ^= x >> 31
        positions.append((x >> 32) * num_hosts >> 32)
    return positions


def simulate(
    arrival: Sequence[int],
    model: Sequence[int],
    slo: Sequence[float],
    segments: Schedule,
    request_overhead: int = REQUEST_OVERHEAD,
    dispatch: str = "earliest_free",
    seed: int = 0,
    work: Sequence[int] | None = None,
) -> Outcome:
    """Serve the requests in order of arrival, first come first served in each group.

    A request goes to one of the groups that host its model; no such group: rejected. By `dispatch`:
    `earliest_free` (the published rule): the group whose last stage's clock is smallest, an idle
    group's clock standing where it was last set; `earliest_finish`: the group that would finish
    this request first; in both a tie goes to the lowest group; `round_robin`: the hosts in group
    order by turns, every dispatched request of a model moving that model's turn on;
    `power_of_two`: of two hosts drawn for this request (see `draws`) the one that `earliest_free`
    would take; `shortest_queue`: the host with the fewest accepted requests whose last stage ends
    after the arrival, of these the one that `earliest_free` would take.

    Its stages take what the group says, times its own work / 2^16 if `work` [request] is given.
    There it runs through the stages as each becomes free and finishes `request_overhead` after the
    last one. It is accepted iff `finish - arrival <= slo`; only then do the group's clocks move.
    A change of segment sets all clocks and turns back to 0.
    """
    arrival, model = [int(t) for t in arrival], [int(m) for m in model]
    serving = serving_segment(arrival, [start for start, _ in segments])
    outcomes, current = [], -1
    for i, (t, m, segment) in enumerate(zip(arrival, model, serving, strict=True)):
        if segment != current:
            current, groups = segment, segments[segment][1]
            clock = [[0] * len(next(iter(group.values()), ())) for group in groups]
            turn = [0] * len(slo)
            last_ends: list[list[int]] = [[] for _ in groups]
        hosts = [g for g, group in enumerate(groups) if m in group]
        if not hosts:
            outcomes.append((t, False, -1, t))
            continue

        own = 2**16 if work is None else work[i]
        ends = {g: run_stages(t, worked(groups[g][m], own), clock[g]) for g in hosts}
        if dispatch == "earliest_free":
            _, g = min((clock[g][-1], g) for g in hosts)
        elif dispatch == "earliest_finish":
            _, g = min((ends[g][-1], g) for g in hosts)
        elif dispatch == "round_robin":
            g = hosts[turn[m] % len(hosts)]
            turn[m] += 1
        elif dispatch == "power_of_two":
            _, g = min((clock[g][-1], g) for g in (hosts[d] for d in draws(i, len(hosts), seed)))
        elif dispatch == "shortest_queue":
            queue = [sum(end > t for end in own) for own in last_ends]
            _, _, g = min((queue[g], clock[g][-1], g) for g in hosts)
        else:
            raise ValueError(f"unknown dispatch {dispatch!r}")

        finish = ends[g][-1] + request_overhead
        if finish - t <= slo[m]:
            outcomes.append((finish, True, g, max(t, clock[g][0])))
            clock[g] = ends[g]
            last_ends[g].append(ends[g][-1])
        else:
            outcomes.append((t, False, g, t))
    finish, good, group, start = zip(*outcomes, strict=True) if outcomes else ((), (), (), ())
    return Outcome(
        np.array(finish, np.int64),
        np.array(good, bool),
        np.array(group, np.int64),
        np.array(start, np.int64),
    )


def miss_reasons(
    arrival: Sequence[int],
    model: Sequence[int],
    slo: Sequence[float],
    segments: Schedule,
    outcome: Outcome,
    request_overhead: int = REQUEST_OVERHEAD,
    work: Sequence[int] | None = None,
) -> list[str]:
    """Why each request missed, "" where it did not, by serving it once more in other worlds.

    In turn: is there a host; is any host fast enough, all alone with the request; is the one that
    it was sent to; does it make it there behind what that host had served of its own model only.
    """

    works = [2**16] * len(arrival) if work is None else work

    def in_time(i: int, group: Group, before: Sequence[int]) -> bool:
        t, m = arrival[i], model[i]
        clock = [0] * len(group[m])
        for j in before:
            clock = run_stages(arrival[j], worked(group[m], works[j]), clock)
        ends = run_stages(t, worked(group[m], works[i]), clock)
        return ends[-1] + request_overhead - t <= slo[m]

    reasons = []
    serving = serving_segment(arrival, [start for start, _ in segments])
    for i, (m, g, segment) in enumerate(zip(model, outcome.group, serving, strict=True)):
        groups = segments[segment][1]
        hosts = [group for group in groups if m in group]
        if outcome.good[i]:
            reasons.append("")
        elif not hosts:
            reasons.append("NO_REPLICA")
        elif not any(in_time(i, group, []) for group in hosts):
            reasons.append("SLO_TOO_SHORT")
        elif not in_time(i, groups[g], []):
            reasons.append("UNFIT_GROUP")
        else:
            own = [
                j
                for j in range(i)
                if (model[j], outcome.group[j], serving[j]) == (m, g, segment) and outcome.good[j]
            ]
            behind_own = not in_time(i, groups[g], own)
            reasons.append("BEHIND_OWN" if behind_own else "BEHIND_OTHER")
    return reasons


def count(index: Sequence[int], size: int, good: Sequence[bool] | None = None) -> list[int]:
    """How many requests have each index (a model, a group), only the good ones if `good` is given.

    Index -1 is counted nowhere.
    """
    totals = [0] * size
    for i, counts in zip(index, [True] * len(index) if good is None else good, strict=True):
        if i >= 0 and counts:
            totals[i] += 1
    return totals


def warmup_cut(arrival: Sequence[int], warmup_s: float = 10.0) -> tuple[int, int]:
    """The range of requests that is reported: without the first and last `int(warmup / T * N)`.

    N requests, the first and the last T seconds apart. ValueError if none would be left.
    """
    n = len(arrival)
    span_s = (int(arrival[-1]) - int(arrival[0])) / TICKS_PER_SECOND
    cut = int(warmup_s / span_s * n) if span_s > 0 else n
    if 2 * cut >= n:
        raise ValueError(f"a cut of {cut} at each end leaves nothing of {n} requests")
    return cut, n - cut


def goodput(arrival: Sequence[int], good: Sequence[bool], warmup_s: float = 10.0) -> float:
    """Share of good requests after the cut, of ALL requests: those of unserved models as well."""
    first, last = warmup_cut(arrival, warmup_s)
    return sum(map(bool, good[first:last])) / (last - first)


def search_score(arrival: Sequence[int], outcome: Outcome, groups: Sequence[Group]) -> float:
    """What the published search maximises, over all requests, a rejected one having latency 0."""
    latency_s = (outcome.finish - np.asarray(arrival, np.int64)) / TICKS_PER_SECOND
    replicas = sum(len(group) for group in groups)
    return float(np.mean(outcome.good) - np.mean(latency_s) / 10_000 + replicas / 1e6)


def arrival_ticks(arrival_s: Sequence[float]) -> list[int]:
    """Sorted seconds to ticks: equal times stay equal, later ones are at least one tick later."""
    ticks: list[int] = []
    for i, t in enumerate(arrival_s):
        nearest = round(float(t) * TICKS_PER_SECOND)
        if i == 0:
            ticks.append(nearest)
        elif t == arrival_s[i - 1]:
            ticks.append(ticks[-1])
        else:
            ticks.append(max(nearest, ticks[-1] + 1))
    return ticks


def boundary_tick(start_s: float, arrival_s: Sequence[float], ticks: Sequence[int]) -> int:
    """A segment's start in ticks, such that `start < arrival` says the same as in seconds.

    `arrival_ticks` may have moved an arrival past the rounded start, so the start is clamped
    between the last arrival at or before it and the first one after it.
    """
    before = sum(1 for t in arrival_s if t <= start_s)
    tick = round(start_s * TICKS_PER_SECOND)
    if before > 0:
        tick = max(tick, ticks[before - 1])
    if before < len(ticks):
        tick = min(tick, ticks[before] - 1)
    return tick


def duration_ticks(seconds: float) -> float:
    """An SLO or effective stage latency: rounded to float32 seconds, then to ticks; inf stays."""
    single = float(np.float32(seconds))
    return single if math.isinf(single) else round(single * TICKS_PER_SECOND)


def stage_ticks(latency_s: Sequence[float], stage_overhead: float = STAGE_OVERHEAD) -> list[int]:
    """Profiled stage latencies to effective ones: each times `1 + overhead * number of stages`."""
    factor = 1 + stage_overhead * len(latency_s)
    return [int(duration_ticks(float(latency) * factor)) for latency in latency_s]


def greedy(
    arrival: Sequence[int],
    model: Sequence[int],
    slo: Sequence[float],
    configs: Sequence[object],
    stages: Mapping[tuple[object, int], Sequence[int]],
    weight: Mapping[tuple[object, int], float],
    memory: float,
    request_overhead: int = REQUEST_OVERHEAD,
) -> list[tuple[object, tuple[int, ...]]]:
    """Greedy replica placement (Beta, OSDI 2023, Algorithm 1, the fast heuristic).

    configs: one hashable label per group. stages[config, m]: effective stage ticks, absent where
    the model has no profile there. weight[config, m]: bytes of its heaviest stage; a group's models
    may weigh `memory` together. Returns the groups as (config, sorted models).

    Simulate; go through the groups by ascending number of dispatched requests and, for each, the
    models by descending `requests - good`, lower index first; add the first model that is not there
    and fits; sort the groups by their models (stable); repeat until none fits.
    """

    def fits(config: object, hosted: tuple[int, ...], m: int) -> bool:
        if m in hosted or (config, m) not in stages:
            return False
        return math.fsum(weight[config, other] for other in (*hosted, m)) <= memory

    groups: list[tuple[object, tuple[int, ...]]] = [(config, ()) for config in configs]
    while True:
        placement = [{m: stages[config, m] for m in hosted} for config, hosted in groups]
        outcome = simulate(arrival, model, slo, [(0, placement)], request_overhead)
        requests, good = count(model, len(slo)), count(model, len(slo), outcome.good)
        load = count(outcome.group, len(groups))
        by_load = sorted(range(len(groups)), key=load.__getitem__)  # stable: lower index first
        minus_unserved = [g - n for g, n in zip(good, requests, strict=True)]
        by_unserved = sorted(range(len(slo)), key=minus_unserved.__getitem__)
        addition = next(((g, m) for g in by_load for m in by_unserved if fits(*groups[g], m)), None)
        if addition is None:
            return groups
        g, m = addition
        groups[g] = (groups[g][0], tuple(sorted((*groups[g][1], m))))
        groups.sort(key=lambda group: group[1])


class Served:
    """A group of `simulate_changes`, on its devices: what it is doing, and what it has."""

    def __init__(self, group: Group, config: object, devices: Sequence[int]) -> None:
        self.group, self.config, self.devices = group, config, tuple(devices)
        self.clock = [0] * len(next(iter(group.values()), ()))
        self.ends: list[int] = []
        self.ready: dict[int, float] = dict.fromkeys(group, 0)


def simulate_changes(
    arrival: Sequence[int],
    model: Sequence[int],
    slo: Sequence[float],
    segments: Sequence[tuple[int, Sequence[tuple[Group, tuple[int, int], Sequence[int]]]]],
    weight: Mapping[tuple[tuple[int, int], int], Sequence[int]],
    bandwidth: float,
    failures: Sequence[tuple[Sequence[int], float, float]] = (),
    request_overhead: int = REQUEST_OVERHEAD,
    dispatch: str = "earliest_free",
) -> tuple[Outcome, list[bool]]:
    """`simulate` where changes of placement load weights, and devices fail; also who was lost.

    A group is its stages by model, its configuration (op, pp) and the devices it is on, of which
    the one at place p runs stage p // op. weight[config, m]: bytes of model m on a device of each
    stage. A device loads `bandwidth` bytes/s; what takes it forever is never there. failures:
    (devices, from, to) in ticks.

    A request belongs to the last placement that starts before it arrives. When one takes over at T,
    a group on the very devices of an old one of the same configuration goes on where that was; a
    model that it did not have can be served from T on plus what loading it takes, on the device
    with most of it. Any other group starts all stages at one time: when the last of its devices is
    done, which is T or, if its old group is busy then, when that one's last stage is free; plus
    the longest load of any device, of what its old group did not have there, in the same stage of
    the same configuration. It takes requests at once.

    A group is gone while any of its devices is, and with it what it has; what it had accepted and
    would leave its last stage later is lost. It comes back with empty stages and loads all it has.
    At one time devices come back, others go, then requests arrive, then placements change.
    """

    def loading(num_bytes: int) -> float:
        if num_bytes == 0 or bandwidth == math.inf:
            return 0
        ticks = Fraction(num_bytes * TICKS_PER_SECOND)
        return math.ceil(ticks / Fraction(bandwidth)) if bandwidth else math.inf

    def on_fullest(config: tuple[int, int], models: Sequence[int]) -> int:
        return max(sum(weight[config, m][k] for m in models) for k in range(config[1]))

    def begin(served: Served, free: float, load: float) -> None:
        served.ready = dict.fromkeys(served.group, math.inf if load == math.inf else 0)
        served.clock = [int(free + (0 if load == math.inf else load))] * served.config[1]
        served.ends = []

    def take_over(time: int, new: Sequence[Any]) -> list[Served]:
        placed = []
        for group, config, devices in new:
            served = Served(group, config, devices)
            placed.append(served)
            same = [old for old in groups if (old.devices, old.config) == (served.devices, config)]
            if down & set(devices):
                continue
            if same:
                served.clock, served.ends = same[0].clock, same[0].ends
                for m in group:
                    load = time + loading(on_fullest(config, [m]))
                    served.ready[m] = same[0].ready.get(m, load)
                continue
            free, longest = [time], 0
            for place, device in enumerate(devices):
                had: set[int] = set()
                for old in groups:
                    if device in old.devices and not down & set(old.devices):
                        free.append(old.clock[-1])
                        stage = old.devices.index(device) // old.config[0]
                        if (old.config, stage) == (config, place // config[0]):
                            had = {m for m in old.group if old.ready[m] < math.inf}
                lacks = sum(weight[config, m][place // config[0]] for m in group if m not in had)
                longest = max(longest, lacks)
            begin(served, max(free), loading(longest))
        return placed

    changes: list[tuple[float, int, Any]] = []
    for devices, since, until in failures:
        changes += [(since, 1, devices), (until, 0, devices)]
    changes += [(start, 2, new) for start, new in segments[1:]]
    changes.sort(key=lambda change: change[:2])

    away: list[int] = []  # a device for every failure that it has now
    down: set[int] = set()
    groups: list[Served] = []
    groups = take_over(0, segments[0][1])
    for served in groups:
        begin(served, 0, 0)
    outcomes: list[list[Any]] = []
    accepted: list[tuple[int, tuple[int, ...], int]] = []  # request, devices, end of last stage
    lost = [False] * len(arrival)

    def change(time: float, kind: int, what: Any) -> None:
        nonlocal groups, down
        if kind == 2:
            groups = take_over(int(time), what)
            return
        before = down
        if kind == 1:
            away.extend(what)
        else:
            for device in what:
                away.remove(device)
        down = set(away)
        for request, devices, end in accepted:
            falls = down & set(devices) and not before & set(devices)
            if falls and end > time and outcomes[request][1]:
                outcomes[request][:2], lost[request] = [int(time), False], True
        for served in groups:
            if before & set(served.devices) and not down & set(served.devices):
                begin(served, time, loading(on_fullest(served.config, [*served.group])))

    for i, (t, m) in enumerate(zip(map(int, arrival), map(int, model), strict=True)):
        while changes and (changes[0][0] < t or (changes[0][0] == t and changes[0][1] < 2)):
            change(*changes.pop(0))
        hosts = [
            g
            for g, served in enumerate(groups)
            if served.ready.get(m, math.inf) <= t and not down & set(served.devices)
        ]
        if not hosts:
            outcomes.append([t, False, -1, t])
            continue
        ends = {g: run_stages(t, groups[g].group[m], groups[g].clock) for g in hosts}
        last = {g: groups[g].clock[-1] for g in hosts}
        if dispatch == "earliest_free":
            _, g = min((last[g], g) for g in hosts)
        elif dispatch == "earliest_finish":
            _, g = min((ends[g][-1], g) for g in hosts)
        else:
            queue = {g: sum(end > t for end in groups[g].ends) for g in hosts}
            _, _, g = min((queue[g], last[g], g) for g in hosts)
        finish = ends[g][-1] + request_overhead
        if finish - t <= slo[m]:
            outcomes.append([finish, True, g, max(t, groups[g].clock[0])])
            groups[g].clock = ends[g]
            groups[g].ends = [*groups[g].ends, ends[g][-1]]
            accepted.append((i, groups[g].devices, ends[g][-1]))
        else:
            outcomes.append([t, False, g, t])
    while changes and changes[0][0] < math.inf:
        change(*changes.pop(0))
    finish, good, group, start = zip(*outcomes, strict=True) if outcomes else ((), (), (), ())
    return (
        Outcome(
            np.array(finish, np.int64),
            np.array(good, bool),
            np.array(group, np.int64),
            np.array(start, np.int64),
        ),
        lost,
    )
