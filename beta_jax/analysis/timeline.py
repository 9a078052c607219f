"""A run as a timeline to look at: which stage of which group worked on which requests, and when.

The file is in the Trace Event Format (JSON), which https://ui.perfetto.dev and chrome://tracing
open: a process per group, a thread per pipeline stage, a slice per batch and stage under the name
of its model, and a thread that marks the requests that the group rejected, with the reason. Without
batching a batch is one request; see `stage_times` for when it begins by the published rules of
batching.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator

import numpy as np

from beta_jax.analysis.misses import IN_TIME, MissReason, miss_reasons
from beta_jax.analysis.stage_times import services
from beta_jax.analysis.trace_events import Event, write_events
from beta_jax.checks import require_numbers
from beta_jax.placement.placement import Placement, Schedule
from beta_jax.placement.problem import Problem
from beta_jax.simulator.engine import Outcome, segments
from beta_jax.types import ONE_WORK, TICKS_PER_SECOND, UNREGISTERED, Workload

NOWHERE = 1
"""Process of the requests that no group hosts; groups follow. Viewers keep 0 for themselves."""
REJECTED = 1
"""Thread of a process; stages follow."""
UNSERVED = "a model that is not served"


def write_timeline(
    path: str | os.PathLike[str],
    problem: Problem,
    placement: Placement | Schedule,
    outcome: Outcome,
    arrived_s: tuple[float, float] = (-math.inf, math.inf),
) -> int:
    """Write the requests that arrive within [from, to) seconds, and those that are served together
    with them; returns how many arrive then.

    Times are microseconds on the workload's clock, to the nanosecond. In a schedule every placement
    has processes of its own. A hundred thousand requests of four stages make a file of about 60 MB.
    Written whole or not at all. Raises what `services` raises, and
    ValueError for times that are none.
    """
    arrival_s = outcome.workload.arrival_s
    start_s, end_s = arrived_s
    require_numbers(start_s=start_s, end_s=end_s)
    if math.isnan(start_s) or math.isnan(end_s):
        raise ValueError(f"arrived_s must be from start_s to end_s, got {start_s} to {end_s}")
    shown = (start_s <= arrival_s) & (arrival_s < end_s)
    write_events(path, _events(problem, placement, outcome, shown))
    return int(shown.sum())


def _events(
    problem: Problem, placement: Placement | Schedule, outcome: Outcome, shown: np.ndarray
) -> Iterator[Event]:
    workload = outcome.workload
    process = NOWHERE
    yield from _names(process, "no group hosts the model")
    of_group: dict[tuple[int, int], int] = {}
    for service in services(problem, placement, outcome):
        process += 1
        of_group[service.segment, service.position] = process
        which = f"placement {service.segment}, " if isinstance(placement, Schedule) else ""
        title = f"{which}group {service.position} {service.group.config}"
        yield from _names(process, title, service.group.config.pp)
        members: list[list[int]] = [[] for _ in service.begin]
        for request, batch in zip(service.requests.tolist(), service.batch.tolist(), strict=True):
            members[batch].append(request)
        kept = np.unique(service.batch[shown[service.requests]])
        for stage in range(service.group.config.pp):
            for batch, begin, end in zip(
                kept.tolist(),
                service.begin[kept, stage].tolist(),
                service.end[kept, stage].tolist(),
                strict=True,
            ):
                request, *others = members[batch]
                yield {
                    "name": problem.models[workload.model[request]].name,
                    "ph": "X",
                    "ts": begin / 1000,
                    "dur": (end - begin) / 1000,
                    "pid": process,
                    "tid": REJECTED + 1 + stage,
                    "args": {
                        "request": request,
                        "arrival_s": int(workload.arrival[request]) / TICKS_PER_SECOND,
                        **({"together_with": others} if others else {}),
                        **_work(workload, [request, *others]),
                    },
                }
    reason = miss_reasons(problem, placement, outcome).reason
    for segment, (_, lo, hi) in enumerate(segments(placement, workload)):
        for request in lo + np.flatnonzero(shown[lo:hi] & (reason[lo:hi] != IN_TIME)):
            model = workload.model[request]
            yield {
                "name": UNSERVED if model == UNREGISTERED else problem.models[model].name,
                "ph": "i",
                "s": "t",
                "ts": int(workload.arrival[request]) / 1000,
                "pid": of_group.get((segment, int(outcome.group[request])), NOWHERE),
                "tid": REJECTED,
                "args": {"request": int(request), "missed": MissReason(reason[request]).name},
            }


def _work(workload: Workload, batch: list[int]) -> dict[str, float]:
    """How much more than the profile says a batch takes, if its requests have their own work."""
    return {} if workload.work is None else {"work": int(workload.work[batch].max()) / ONE_WORK}


def _names(process: int, title: str, num_stages: int = 0) -> Iterator[Event]:
    """What the viewer calls a process and its threads."""
    threads = ["rejected", *(f"stage {stage}" for stage in range(num_stages))]
    for thread, name in enumerate([title, *threads], REJECTED - 1):
        kind = "thread_name" if thread >= REJECTED else "process_name"
        yield {"name": kind, "ph": "M", "pid": process, "tid": thread, "args": {"name": name}}
