"""Disjoint windows of time in which requests come and are due, and many of them must be lost.

Requests that arrive and are due in a window are worked on within it. Which windows are chosen does
not matter for what a bound on them says is true, only for how much it says.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]
LENGTHS, LONGEST = 16, 12
"""So many lengths are tried, from the shortest SLO to so many times the longest."""
BEGINS, STEPS = 4000, 12
"""Windows of a length begin so many times, or as often within the shortest SLO."""
OWN = 0.3
"""What a model's own burst loses counts less: it may have more replicas."""


class Window(NamedTuple):
    """begin, end: ticks. first, number: of each model's requests, [model], those that arrive and
    are due within."""

    begin: int
    end: int
    first: Integers
    number: Integers

    def of(self, arrivals: Sequence[Integers]) -> list[Integers]:
        """Of each model's arrivals those within."""
        spans = zip(arrivals, self.first.tolist(), self.number.tolist(), strict=True)
        return [own[first : first + number] for own, first, number in spans]


class Stage(NamedTuple):
    """What requests do on the stage of a group that they keep busy for the longest, ticks [model,
    config]: before it, on it and after it."""

    before: Integers
    on: Integers
    after: Integers


def busy_windows(
    arrivals: Sequence[Integers],
    slo: Integers,
    stage: Stage,
    able: NDArray[np.bool_],
    num_groups: Integers,
) -> list[Window]:
    """Windows where most is lost on the better half of the configurations, worst first.

    arrivals: ticks, ascending, of each model's requests. slo: from arrival to when the last stage
    must be through, [model]. able: which models may be served by a group of a configuration,
    [model, config]; num_groups: that there may be, [config].
    """
    asked = [m for m, own in enumerate(arrivals) if len(own) and able[m].any()]
    if not asked:
        return []
    begin = min(int(arrivals[m][0]) for m in asked)
    end = max(int(arrivals[m][-1] + slo[m]) for m in asked)
    shortest, longest = int(slo[asked].min()), int(slo[asked].max())
    step = max(shortest // STEPS, -(-(end - begin) // BEGINS), 1)
    begins = np.arange(begin, end, step)
    length = np.unique(np.geomspace(shortest, LONGEST * longest, LENGTHS).astype(np.int64))
    found: list[tuple[int, int, float]] = []
    for ticks in length.tolist():
        first, number = _within(arrivals, slo, begins, begins + ticks)
        lost = _lost(number, ticks, stage, able, num_groups)
        some = np.flatnonzero(lost > 0)
        found += [
            (b, b + ticks, float(lost[i])) for i, b in zip(some, begins[some].tolist(), strict=True)
        ]
    chosen = sorted(_disjoint(found), key=lambda window: (-window[2], window[0]))
    if not chosen:
        return []
    begins, ends = (np.array([window[i] for window in chosen]) for i in (0, 1))
    first, number = _within(arrivals, slo, begins, ends)
    return [
        Window(begin, end, first[:, i], number[:, i]) for i, (begin, end, _) in enumerate(chosen)
    ]


def _within(
    arrivals: Sequence[Integers], slo: Integers, begins: Integers, ends: Integers
) -> tuple[Integers, Integers]:
    """The first of each model's requests within a window, and their number, [model, window]."""
    first = np.array([np.searchsorted(own, begins) for own in arrivals])
    beyond = [np.searchsorted(own, ends - s, "right") for own, s in zip(arrivals, slo, strict=True)]
    return first, np.maximum(np.array(beyond) - first, 0)


def _lost(
    number: Integers,
    ticks: int,
    stage: Stage,
    able: NDArray[np.bool_],
    num_groups: Integers,
) -> NDArray[np.float64]:
    """An estimate of how many requests are lost in windows of this length, [window].

    number: of requests, [model, window]. The mean over the better half of the configurations.
    """
    by_config = []
    for c in np.flatnonzero(able.any(0)):
        own = able[:, c]
        on = stage.on[own, c].astype(np.float64)
        work = number[own] * on[:, None]
        room = ticks - stage.before[own, c] - stage.after[own, c]
        bursts = np.maximum(work - np.maximum(room, 0)[:, None], 0).sum(0)
        all_of_it = np.maximum(work.sum(0) - num_groups[c] * max(int(room.max()), 0), 0)
        by_config.append(number[~own].sum(0) + (all_of_it + OWN * bursts) / on.max())
    return np.sort(by_config, axis=0)[: (len(by_config) + 1) // 2].mean(0)


def _disjoint(windows: Sequence[tuple[int, int, float]]) -> list[tuple[int, int, float]]:
    """Of windows (begin, end, value) disjoint ones that are worth most together."""
    windows = sorted(windows, key=lambda window: window[1])
    ends = [end for _, end, _ in windows]
    best, before = [0.0], []
    for i, (begin, _, value) in enumerate(windows):
        fits = bisect.bisect_right(ends, begin, 0, i)  # those that end by then
        before.append(fits if best[fits] + value > best[i] else -1)
        best.append(max(best[fits] + value, best[i]))
    chosen = []
    i = len(windows)
    while i:
        if before[i - 1] < 0:
            i -= 1
        else:
            chosen.append(windows[i - 1])
            i = before[i - 1]
    return chosen
