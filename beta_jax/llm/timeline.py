"""A run of one engine as a timeline to look at.

The file is in the Trace Event Format (JSON), which https://ui.perfetto.dev and chrome://tracing
open. An engine is a process. Its threads are running slots: a slice from when a request is admitted
until it has ended or is taken back, and within it one for the prompt, or for what is computed anew.
Counters show how many requests wait and run, and how many blocks they hold.
"""

from __future__ import annotations

import heapq
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beta_jax.analysis.trace_events import Event, write_events
from beta_jax.llm.outcome import Ints, Outcome
from beta_jax.llm.requests import PS_PER_NS

ENGINE = 1
PS_PER_US = 10**6


def write_timeline(path: str | os.PathLike[str], outcome: Outcome) -> None:
    """Write a run, times in microseconds on the clock of the arrivals; all or nothing."""
    write_events(path, _events(outcome))


def _events(outcome: Outcome) -> Iterator[Event]:
    yield _name("process_name", 0, "engine")
    slots = _slots(outcome)
    for slot in range(max(slots, default=-1) + 1):
        yield _name("thread_name", slot + 1, f"slot {slot}")
    latest = outcome.requests.arrival_ns * PS_PER_NS + outcome.latency_ps
    rows = outcome.stay_request, outcome.stay_begin_ps, outcome.stay_end_ps
    again = set[int]()
    for slot, request, begin, end in zip(slots, *(row.tolist() for row in rows), strict=True):
        whole = _slice(slot, f"request {request}", begin, end)
        ended = end == latest[request]
        whole["args"] = {
            "request": request,
            "arrival_s": int(outcome.requests.arrival_ns[request]) / 1e9,
            "prompt": int(outcome.requests.input_tokens[request]),
            "answer": int(outcome.requests.output_tokens[request]),
            "ttft_s": float(outcome.ttft_s[request]),
            "tpot_s": float(outcome.tpot_s[request]),
            "left": "ended" if ended else "taken back",
        }
        yield whole
        tokens = [int(outcome.step_end_ps[first]) for first, _ in outcome.runs(request)]
        first = min((token for token in tokens if begin < token <= end), default=end)
        yield _slice(slot, "computed anew" if request in again else "prompt", begin, first)
        again.add(request)
    yield from _counter("waiting", "requests", *_waiting(outcome))
    yield from _counter("running", "requests", outcome.step_begin_ps, outcome.running)
    yield from _counter("blocks", "held", outcome.step_begin_ps, outcome.blocks)
    if outcome.steps:
        for name, of in (("running", "requests"), ("blocks", "held")):
            yield from _counter(name, of, outcome.step_end_ps[-1:], np.zeros(1, np.int64))


def _slots(outcome: Outcome) -> list[int]:
    """A row for each stay, the first that is empty."""
    slots, empty, stays = list[int](), list[int](), list[tuple[int, int]]()
    for begin, end in zip(
        outcome.stay_begin_ps.tolist(), outcome.stay_end_ps.tolist(), strict=True
    ):
        while stays and stays[0][0] <= begin:
            heapq.heappush(empty, heapq.heappop(stays)[1])
        slots.append(heapq.heappop(empty) if empty else len(stays))
        heapq.heappush(stays, (end, slots[-1]))
    return slots


def _waiting(outcome: Outcome) -> tuple[Ints, Ints]:
    """How many wait, from each time on at which that changes."""
    arrival = outcome.requests.arrival_ns * PS_PER_NS
    ended = outcome.stay_end_ps == (arrival + outcome.latency_ps)[outcome.stay_request]
    back = outcome.stay_end_ps[~ended]
    times = np.concatenate([arrival, outcome.stay_begin_ps, back])
    steps = np.repeat([1, -1, 1], [len(arrival), len(outcome.stay_begin_ps), len(back)])
    at, which = np.unique(times, return_inverse=True)
    return at, np.bincount(which, steps, len(at)).astype(np.int64).cumsum()


def _counter(name: str, of: str, times: Ints, values: NDArray[Any]) -> Iterator[Event]:
    changed = np.flatnonzero(np.diff(values, prepend=-1))
    for time, value in zip(times[changed].tolist(), values[changed].tolist(), strict=True):
        yield {"name": name, "ph": "C", "ts": time / PS_PER_US, "pid": ENGINE, "args": {of: value}}


def _slice(slot: int, name: str, begin: int, end: int) -> Event:
    span = {"ts": begin / PS_PER_US, "dur": (end - begin) / PS_PER_US}
    return {"name": name, "ph": "X", **span, "pid": ENGINE, "tid": slot + 1}


def _name(kind: str, thread: int, title: str) -> Event:
    return {"name": kind, "ph": "M", "pid": ENGINE, "tid": thread, "args": {"name": title}}
