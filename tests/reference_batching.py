"""The oracle of dynamic batching: the same kind of slow loop over Python integers as `reference`.

Arguments are those of `reference.simulate`, except that a group is `{model: {batch size: [ticks of
each stage]}}`. Requests wait in one first-in-first-out queue per model. Batches are of 1, 2, 4, ...
requests, full ones only.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from reference import REQUEST_OVERHEAD, Outcome, run_stages, serving_segment, worked

Group = Mapping[int, Mapping[int, Sequence[int]]]


class _Segment:
    """One placement: its clocks and queues, and what became of the requests it has seen.

    offset: how long after the decision a batch enters the pipeline; `late`: how long after its last
    stage its requests finish.
    """

    def __init__(
        self,
        groups: Sequence[Group],
        slo: Sequence[float],
        max_batch: int,
        offset: int,
        late: int,
        work: Sequence[int],
    ) -> None:
        self.groups, self.slo, self.max_batch = groups, slo, max_batch
        self.offset, self.late, self.overhead = offset, late, offset + late
        self.work = work
        self.clock = [[0] * len(next(iter(g.values()), {1: ()})[1]) for g in groups]
        self.queue: list[deque[tuple[int, int]]] = [deque() for _ in slo]  # (arrival, request)
        self.fate: dict[int, tuple[int, bool, int, int]] = {}

    def hosts(self, m: int) -> list[int]:
        return [g for g, group in enumerate(self.groups) if m in group]

    def oldest(self, g: int) -> int | None:
        """The model of group g whose first waiting request arrived first; ties: the lower index."""
        waiting = [(self.queue[m][0][0], m) for m in self.groups[g] if self.queue[m]]
        return min(waiting)[1] if waiting else None

    def stages(self, m: int, g: int, batch: int) -> list[int]:
        """What so many requests from the head of model m's queue take: the largest work counts."""
        most = max(self.work[i] for _, i in itertools.islice(self.queue[m], batch))
        return worked(self.groups[g][m][batch], most)

    def in_time(self, now: int, m: int, g: int, batch: int) -> bool:
        """Whether the first request that waits for model m, in such a batch, meets its deadline."""
        end = run_stages(now, self.stages(m, g, batch), self.clock[g])[-1]
        return end + self.overhead - self.queue[m][0][0] <= self.slo[m]

    def serve(self, now: int, m: int, g: int) -> bool:
        """Serve a batch from the head of model m's queue on group g, or reject the head if it is
        late even alone. Whether it was a batch."""
        queue, size = self.queue[m], 1
        if not self.in_time(now, m, g, 1):
            t, i = queue.popleft()
            self.fate[i] = (t, False, g, t)
            return False
        while 2 * size <= min(self.max_batch, len(queue)) and self.in_time(now, m, g, 2 * size):
            size *= 2
        start = max(now + self.offset, self.clock[g][0])
        ends = run_stages(now + self.offset, self.stages(m, g, size), self.clock[g])
        self.clock[g] = ends
        for _ in range(size):
            _, i = queue.popleft()
            self.fate[i] = (ends[-1] + self.late, True, g, start)
        return True


def _published(segment: _Segment, requests: Sequence[tuple[int, int, int]]) -> None:
    """Idle events, as they are in the published simulator: see `simulate`."""
    events: list[tuple[int, int]] = []

    def serve(now: int, m: int | None, g: int) -> None:
        while m is not None:
            if segment.serve(now, m, g):
                heapq.heappush(events, (segment.clock[g][0], g))
                return
            if not segment.queue[m]:
                m = segment.oldest(g)

    for t, i, m in requests:
        while events and events[0][0] <= t:
            time, g = heapq.heappop(events)
            if (waiting := segment.oldest(g)) is None:
                break
            serve(time, waiting, g)
        if not segment.hosts(m):
            continue
        g = min(segment.hosts(m), key=lambda g: (segment.clock[g][-1], g))
        segment.queue[m].append((t, i))
        if segment.clock[g][0] <= t:
            serve(t, m, g)
    while events:
        time, g = heapq.heappop(events)
        if (waiting := segment.oldest(g)) is not None:
            serve(time, waiting, g)


def _strict(segment: _Segment, requests: Sequence[tuple[int, int, int]]) -> None:
    """Whenever a group is free and has something to do, it does it."""

    def busy_until(t: float) -> list[int]:
        """When groups that something waits for are free, no later than t."""
        waited_for = [g for g in range(len(segment.groups)) if segment.oldest(g) is not None]
        return [segment.clock[g][0] for g in waited_for if segment.clock[g][0] <= t]

    def serve_all(now: int) -> None:
        while free := [
            (segment.clock[g][-1], g)
            for g in range(len(segment.groups))
            if segment.oldest(g) is not None and segment.clock[g][0] <= now
        ]:
            _, g = min(free)
            m = segment.oldest(g)
            assert m is not None
            segment.serve(now, m, g)

    for t, i, m in requests:
        while times := busy_until(t):
            serve_all(min(times))
        if segment.hosts(m):
            segment.queue[m].append((t, i))
            serve_all(t)
    while times := busy_until(float("inf")):
        serve_all(min(times))


RULES: dict[str, Callable[[_Segment, Sequence[tuple[int, int, int]]], None]] = {
    "published": _published,
    "strict": _strict,
}


def simulate(
    arrival: Sequence[int],
    model: Sequence[int],
    slo: Sequence[float],
    segments: Sequence[tuple[int, Sequence[Group]]],
    request_overhead: int = REQUEST_OVERHEAD,
    *,
    batching: str = "published",
    max_batch: int = 16,
    work: Sequence[int] | None = None,
) -> Outcome:
    """Serve the requests in batches of at most `max_batch`. Segments do not touch each other.

    Of a batch the largest work counts, see `reference.simulate`.

    To *serve* a model on a group at a time: a request at the head of its queue that would miss its
    deadline even alone is rejected, and counts for the group, which goes on. The batch is doubled
    while the queue holds enough and its first request is in time. In time: the stages run from that
    time, then `request_overhead` passes.

    `published`: a batch enters the pipeline `request_overhead` after that time, and all of it
    finishes with the last stage; then an *idle event* of the group is due when its first stage is
    free. Before each arrival the due events go by in order of (time, group). Each serves, at its
    own time, the hosted model whose first request arrived first, whatever the group does by now;
    one that finds no request ends this until the next arrival, be it of a model without a host.
    After a rejection the group stays with the model until its queue is empty. The arrival is routed
    to the host whose last stage's clock is smallest, joins its model's queue, and if the first
    stage of that host is free, the host serves this model. After the last arrival all events go by.

    `strict`: a group whose first stage is free serves at once whenever a request of a model it
    hosts waits, the one that arrived first, which after a rejection may be of another model; of
    several groups the one whose last stage's clock is smallest. A batch enters the pipeline at
    once, and finishes `request_overhead` after it.
    """
    serving = serving_segment(arrival, [start for start, _ in segments])
    offset, late = (request_overhead, 0) if batching == "published" else (0, request_overhead)
    works = [2**16] * len(arrival) if work is None else work
    fates = {i: (int(t), False, -1, int(t)) for i, t in enumerate(arrival)}
    requests = zip(map(int, arrival), range(len(arrival)), map(int, model), strict=True)
    for number, members in itertools.groupby(requests, key=lambda request: serving[request[1]]):
        segment = _Segment(segments[number][1], slo, max_batch, offset, late, works)
        RULES[batching](segment, list(members))
        fates |= segment.fate
    finish, good, group, start = zip(*fates.values(), strict=True) if fates else ((), (), (), ())
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
    segments: Sequence[tuple[int, Sequence[Group]]],
    outcome: Outcome,
    request_overhead: int = REQUEST_OVERHEAD,
    *,
    batching: str,
    work: Sequence[int] | None = None,
) -> list[str]:
    """Why each request missed, "" where it did not: the questions of `reference.miss_reasons`.

    Behind its own are the batches of its model in which the group served requests from in front of
    it. They are what finished at once there; each runs from when all of it had come.
    """
    offset = request_overhead if batching == "published" else 0
    works = [2**16] * len(arrival) if work is None else work
    serving = serving_segment(arrival, [start for start, _ in segments])

    def in_time(i: int, group: Group, before: Sequence[Sequence[int]]) -> bool:
        m, t = model[i], int(arrival[i])
        clock = [0] * len(group[m][1])
        for batch in before:
            ready = max(int(arrival[j]) for j in batch) + offset
            stages = worked(group[m][len(batch)], max(works[j] for j in batch))
            clock = run_stages(ready, stages, clock)
        return (
            run_stages(t, worked(group[m][1], works[i]), clock)[-1] + request_overhead - t <= slo[m]
        )

    reasons = []
    for i, (m, g, segment) in enumerate(zip(model, outcome.group, serving, strict=True)):
        groups = segments[segment][1]
        hosts = [group for group in groups if m in group]
        batches: dict[int, list[int]] = {}
        for j in range(len(arrival)):
            alike = (model[j], outcome.group[j], serving[j]) == (m, g, segment)
            if alike and outcome.good[j]:
                batches.setdefault(int(outcome.finish[j]), []).append(j)
        if outcome.good[i]:
            reasons.append("")
        elif not hosts:
            reasons.append("NO_REPLICA")
        elif not any(in_time(i, group, []) for group in hosts):
            reasons.append("SLO_TOO_SHORT")
        elif not in_time(i, groups[g], []):
            reasons.append("UNFIT_GROUP")
        else:
            own = [batches[finish] for finish in sorted(batches) if batches[finish][0] < i]
            reasons.append("BEHIND_OTHER" if in_time(i, groups[g], own) else "BEHIND_OWN")
    return reasons
