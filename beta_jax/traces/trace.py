"""What a trace is, whatever file it came from: one of three kinds, all keyed by function.

Counts of requests per window (Azure Functions 2019, "MAF1"), arrival times (Azure Functions 2021,
"MAF2", LLM services), or a rate and a CV per window. A function is one stream of requests; `replay`
maps functions to models. Times are seconds from the trace's own midnight.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from beta_jax.checks import require_text

DAY_S, HOUR_S, MINUTE_S = 86400.0, 3600.0, 60.0


class TraceError(ValueError):
    """A trace, a slice or a replay that makes no sense; one line, naming the file and the place."""


@dataclasses.dataclass(frozen=True, eq=False)
class CountBlock:
    """Counts of consecutive windows, non-zero ones only, in order of window.

    The entries of window `first_window + w` are those from `offset[w]` to `offset[w + 1]`.
    offset: int64 [window + 1]; function: int32 [entry], an index into the trace's functions or, if
    `index` is given, into that; count: int32 [entry], > 0. Arrays may be maps of a file.
    """

    first_window: int
    offset: NDArray[np.int64]
    function: NDArray[np.int32]
    count: NDArray[np.int32]
    index: NDArray[np.int32] | None = None

    @property
    def last_window(self) -> int:
        return self.first_window + len(self.offset) - 1


class Entries(NamedTuple):
    """Non-zero counts of a slice; windows are counted from the slice's start."""

    window: NDArray[np.int64]
    function: NDArray[np.int32]
    requests: NDArray[np.float64]


class Arrivals(NamedTuple):
    """Requests of an `ArrivalTrace`, with its fields."""

    arrival_s: NDArray[np.float64]
    function: NDArray[np.int32]
    prompt_tokens: NDArray[np.int32] | None
    answer_tokens: NDArray[np.int32] | None


@dataclasses.dataclass(frozen=True, eq=False)
class _Trace:
    name: str
    kind: str
    functions: Sequence[str]
    default_window_s: ClassVar[float] = 600.0

    @property
    def start_s(self) -> float:
        raise NotImplementedError

    @property
    def end_s(self) -> float:
        raise NotImplementedError

    def bounds(self, start: str | None, end: str | None) -> tuple[float, float]:
        """Seconds at which a slice starts and ends; None is the trace's own start or end.

        Slices are "day.hour.minute", counted from 0; "13.23.60" is the very end of 14 days. Raises
        TraceError unless the slice is within the trace (to the minute) and not empty.
        """
        first = self.start_s if start is None else parse_time(start)
        last = self.end_s if end is None else parse_time(end)
        label = f"slice {start or 'start'} to {end or 'end'}"
        if not first < last:
            raise TraceError(f"{self.name}: {label} is empty")
        if first < self.start_s // MINUTE_S * MINUTE_S or last > -(-self.end_s // 60) * 60:
            raise TraceError(
                f"{self.name}: {label} is outside the trace, which spans "
                f"{format_time(self.start_s)} to {format_time(self.end_s, round_up=True)}"
            )
        return first, last

    def entries(self, start_s: float, end_s: float, bin_s: float) -> Entries:
        """Requests per function in bins of `bin_s` seconds, the last of which may be cut short."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True, eq=False)
class CountTrace(_Trace):
    """Requests per function in every window of `window_s` seconds. Blocks are consecutive."""

    blocks: Sequence[CountBlock]
    window_s: float = MINUTE_S
    default_window_s: ClassVar[float] = MINUTE_S

    @property
    def start_s(self) -> float:
        return self.blocks[0].first_window * self.window_s

    @property
    def end_s(self) -> float:
        return self.blocks[-1].last_window * self.window_s

    def entries(self, start_s: float, end_s: float, bin_s: float) -> Entries:
        per_bin = bin_s / self.window_s
        if per_bin < 1 or per_bin != int(per_bin) or start_s % self.window_s:
            raise TraceError(
                f"{self.name}: counts are per {self.window_s:g} s, so windows must start at and be "
                f"a multiple of that, got {bin_s:g} s from {start_s:g} s"
            )
        first, last = int(start_s // self.window_s), int(-(-end_s // self.window_s))
        parts = list(self._between(first, last))
        window = np.concatenate([np.empty(0, np.int64), *(part[0] for part in parts)])
        return Entries(
            (window - first) // int(per_bin),
            np.concatenate([np.empty(0, np.int32), *(part[1] for part in parts)]),
            np.concatenate([np.empty(0), *(part[2] for part in parts)]),
        )

    def _between(self, first: int, last: int) -> Iterator[tuple[Any, Any, Any]]:
        for block in self.blocks:
            a, b = (max(0, min(w, block.last_window) - block.first_window) for w in (first, last))
            if a < b:
                span = slice(int(block.offset[a]), int(block.offset[b]))
                window = np.repeat(
                    np.arange(a, b) + block.first_window, np.diff(block.offset[a : b + 1])
                )
                function = np.asarray(block.function[span])
                yield (
                    window,
                    function if block.index is None else block.index[function],
                    np.asarray(block.count[span], np.float64),
                )


@dataclasses.dataclass(frozen=True, eq=False)
class ArrivalTrace(_Trace):
    """The arrival of every request: float64 seconds, sorted, and int32 function, both [request].

    prompt_tokens, answer_tokens: int32 [request], of a trace that says how long these are.
    """

    arrival_s: NDArray[np.float64]
    function: NDArray[np.int32]
    first_s: float = 0.0
    prompt_tokens: NDArray[np.int32] | None = None
    answer_tokens: NDArray[np.int32] | None = None

    @property
    def start_s(self) -> float:
        return self.first_s

    @property
    def end_s(self) -> float:
        return float(np.floor(self.arrival_s[-1])) + 1.0

    def between(self, start_s: float, end_s: float) -> Arrivals:
        """The requests that arrive in `[start_s, end_s)`."""
        span = slice(*np.searchsorted(self.arrival_s, [start_s, end_s]))
        prompt, answer = (
            None if tokens is None else np.asarray(tokens[span])
            for tokens in (self.prompt_tokens, self.answer_tokens)
        )
        return Arrivals(
            np.asarray(self.arrival_s[span]), np.asarray(self.function[span]), prompt, answer
        )

    def entries(self, start_s: float, end_s: float, bin_s: float) -> Entries:
        arrival_s, function, *_ = self.between(start_s, end_s)
        bins = int(-(-(end_s - start_s) // bin_s))
        window = ((arrival_s - start_s) // bin_s).astype(np.int64)
        cell, count = np.unique(function.astype(np.int64) * bins + window, return_counts=True)
        return Entries(cell % bins, (cell // bins).astype(np.int32), count.astype(np.float64))


@dataclasses.dataclass(frozen=True, eq=False)
class RateTrace(_Trace):
    """Requests/s and CV of the gaps, both float64 [function, window], per `window_s` seconds."""

    rate_rps: NDArray[np.float64]
    cv: NDArray[np.float64]
    window_s: float
    first_window: int = 0

    @property
    def start_s(self) -> float:
        return self.first_window * self.window_s

    @property
    def end_s(self) -> float:
        return self.start_s + self.rate_rps.shape[1] * self.window_s

    def windows(self, start_s: float, end_s: float, bin_s: float) -> slice:
        """Which of the trace's windows a slice cut into windows of `bin_s` seconds is made of."""
        if bin_s != self.window_s or (start_s - self.start_s) % bin_s:
            raise TraceError(
                f"{self.name}: rates are per {self.window_s:g} s, so windows must start at a "
                f"multiple of that and be that long, got {bin_s:g} s from {start_s:g} s"
            )
        first = int((start_s - self.start_s) // bin_s)
        return slice(first, first + int(-(-(end_s - start_s) // bin_s)))

    def entries(self, start_s: float, end_s: float, bin_s: float) -> Entries:
        rate = self.rate_rps[:, self.windows(start_s, end_s, bin_s)]
        function, window = np.nonzero(rate)
        return Entries(window, function.astype(np.int32), rate[function, window] * bin_s)


Trace = CountTrace | ArrivalTrace | RateTrace


def parse_time(text: str) -> float:
    """Seconds of "day.hour.minute"; hours up to 23, minutes up to 60. Raises TraceError."""
    require_text(time=text)
    match = re.fullmatch(r"(\d{1,4})\.(\d{1,2})\.(\d{1,2})", text)
    day, hour, minute = map(int, match.groups()) if match else (0, 24, 0)
    if hour > 23 or minute > 60:
        raise TraceError(
            f"time {text!r} must be day.hour.minute, such as 0.0.0 or, at the very end, 13.23.60"
        )
    return day * DAY_S + hour * HOUR_S + minute * MINUTE_S


def format_time(seconds: float, round_up: bool = False) -> str:
    """The "day.hour.minute" of a time; rounded up, the end of a day is written "d.23.60"."""
    minutes = int(-(-seconds // 60) if round_up else seconds // 60)
    if round_up and minutes and minutes % 60 == 0:
        return f"{(minutes - 1) // 1440}.{(minutes - 1) // 60 % 24}.60"
    return f"{minutes // 1440}.{minutes // 60 % 24}.{minutes % 60}"


def count_block(
    first_window: int,
    num_windows: int,
    window: NDArray[np.integer[Any]],
    function: NDArray[np.integer[Any]],
    count: NDArray[np.integer[Any]],
) -> CountBlock:
    """Sort entries, in any order and with windows counted from the first, into a block."""
    order = np.argsort(window, kind="stable")
    number = np.bincount(window, minlength=num_windows)
    return CountBlock(
        first_window,
        np.concatenate([[0], np.cumsum(number)]).astype(np.int64),
        function[order].astype(np.int32),
        count[order].astype(np.int32),
    )
